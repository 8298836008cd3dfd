"""Data sets and the protocol: every bad image named, leaks refused, the same split whatever the
order of files."""

import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fsrbench.engine import splits
from fsrbench.engine.data import datasets, open_source, read_manifest, verified
from fsrbench.engine.samples import (
    check_leaks,
    load_samples,
    person_digest,
    training_set,
    write_training_set,
)
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.imaging import encode_png, load
from fsrbench.profiles import PROFILES

MINI = PROFILES["mini"]


def test_orl_matches_its_manifest(session_store):
    source = open_source("orl")
    entries = verified(source, source.entries, session_store)
    assert len(entries) == 400 and len({e.person for e in entries}) == 40


def test_a_changed_file_of_a_frozen_set_is_refused(tmp_path, orl_root, session_store):
    shutil.copytree(orl_root, tmp_path / "orl")
    Image.fromarray(np.zeros((112, 92), np.uint8)).save(tmp_path / "orl" / "s1" / "1.pgm")
    source = open_source(f"orl:{tmp_path / 'orl'}")
    with pytest.raises(FsrError, match="1 files are not those of its manifest, first s1/1.pgm"):
        verified(source, source.entries, session_store)


def test_an_album_gets_a_manifest_and_changes_are_told(album, tmp_path, capsys):
    store, source = Store(tmp_path / "store"), open_source(f"folder:{album}")
    first = verified(source, source.entries, store)
    manifest = next((store.root / "manifests").glob("folder-*.csv"))
    assert read_manifest(manifest) == first and "changed" not in capsys.readouterr().out
    shutil.copy(album / "s1" / "2.pgm", album / "s1" / "1.pgm")
    second = verified(source, source.entries, store)
    assert "1 images of folder changed" in capsys.readouterr().out
    assert [e.id for e in first] == [e.id for e in second] and first != second
    # A run over a part of the people keeps what the manifest knows of the others.
    verified(source, second[:4], store)
    assert len(read_manifest(manifest)) == 12


def test_protocol_halves_people_and_draws_references(session_store):
    samples = load_samples("orl", MINI, session_store, 3, seed=0)
    assert len(samples.samples) == 15 and len({s.person for s in samples.samples}) == 3
    for sample in samples.samples:
        assert len(sample.album) == 5 and sample.reference in sample.album
        assert sample.gt.id not in {p.id for p in sample.album}
        assert {p.id.split("/")[0] for p in (*sample.album, sample.gt)} == {sample.person}
    assert len({s.reference.id for s in samples.samples}) > 3
    more = load_samples("orl", MINI, session_store, 5, seed=0)
    assert [s.id for s in more.samples][:15] == [s.id for s in samples.samples]
    other = load_samples("orl", MINI, session_store, 3, seed=1)
    assert other.digest != samples.digest


def test_split_does_not_depend_on_the_order_of_names():
    names = [f"p{i}" for i in range(50)]
    shuffled = list(np.random.default_rng(0).permutation(names))
    assert splits.draw_people(names, 0.1, 0) == splits.draw_people(shuffled, 0.1, 0)
    assert len(splits.draw_people(names, 0.1, 0)) == 5
    images = [f"{i}.png" for i in range(7)]
    halves = splits.halve(images, "p", 0)
    assert halves == splits.halve(images[::-1], "p", 0) and list(map(len, halves)) == [4, 3]
    assert not set(halves[0]) & set(halves[1])
    counts = np.zeros(50)
    for seed in range(200):
        counts[[names.index(p) for p in splits.draw_people(names, 0.1, seed)]] += 1
    assert counts.min() > 5 and counts.max() < 45  # uniform: 20 of 200 on average


def test_bad_images_are_named_counted_and_left_out(album, tmp_path, orl_root):
    (album / "s1" / "2.pgm").write_bytes(b"P5 92 112 255\n short")
    Image.fromarray(np.full((80, 80, 3), 90, np.uint8)).save(album / "s1" / "wall.png")
    (album / "lonely").mkdir()
    shutil.copy(orl_root / "s7" / "1.pgm", album / "lonely")
    (album / "notes.txt").write_text("not a person")
    (album / "s5" / "notes.txt").write_text("not an image")
    samples = load_samples(f"folder:{album}", MINI, Store(tmp_path / "store"), None, seed=0)
    text = "\n".join(samples.excluded.lines())
    assert "no face found: 1 (s1/wall.png)" in text
    assert "fewer than two images: 1 (lonely)" in text
    assert "cannot be read" in text and "(s1/2.pgm)" in text
    assert {s.person for s in samples.samples} == {"s1", "s5", "s9"}


def test_an_album_without_anybody_left_is_one_error(tmp_path, orl_root):
    (tmp_path / "a" / "p").mkdir(parents=True)
    shutil.copy(orl_root / "s1" / "1.pgm", tmp_path / "a" / "p")
    with pytest.raises(FsrError, match="nobody is left with two usable images"):
        load_samples(f"folder:{tmp_path / 'a'}", MINI, Store(tmp_path / "store"), None, seed=0)


@pytest.mark.parametrize("spec,text", [
    ("folder", "needs a folder"), ("folder:/nowhere", "no such folder"),
    (f"folder:/{'a' * 300}", r"cannot be read \(File name too long\)"),
    (f"lfw:/{'a' * 300}", r"cannot be read \(File name too long\)"),
    ("orll", "did you mean 'orl'"), ("orl:/nowhere", "not found")])
def test_wrong_data_arguments(spec, text):
    with pytest.raises(FsrError, match=text):
        open_source(spec)


def test_copies_across_halves_leave_the_fine_tune_half(album, tmp_path):
    """A recompressed, rescaled copy of every image: none may serve as reference or fit for the
    other."""
    for path in sorted(album.glob("*/*.pgm")):
        image = Image.fromarray(load(path))
        image.resize((160, 195), Image.Resampling.BICUBIC).save(path.with_suffix(".jpg"),
                                                                quality=85)
    samples = load_samples(f"folder:{album}", MINI, Store(tmp_path / "store"), None, seed=0)
    copies = 0
    for sample in samples.samples:
        stems = {p.id.rsplit(".", 1)[0] for p in sample.album}
        copies += sample.id.rsplit(".", 1)[0] in stems
    assert copies <= 1  # 97 % of copies are recognised
    assert "near duplicate of a test image" in samples.excluded.reasons


def test_training_images_and_people_are_refused(album, tmp_path, session_store, monkeypatch):
    samples = load_samples(f"folder:{album}", MINI, session_store, None, seed=0)
    folder = tmp_path / "weights"
    folder.mkdir()
    weights = folder / "w.safetensors"
    weights.write_bytes(b"w")
    weights.with_suffix(".json").write_text('{"trained_on": "seen.npz"}')
    monkeypatch.setattr("fsrbench.engine.samples.locate", lambda name: weights)
    rng = np.random.default_rng(0)
    unrelated = rng.integers(-127, 128, (50, 256), dtype=np.int8)
    write_training_set(folder / "seen.npz", "elsewhere", map(person_digest, ["s1", "s5"]),
                       splits.fingerprint(unrelated))
    check_leaks(samples, "w")
    assert person_digest("s1") in training_set("w").people
    for data, signatures in (("folder", unrelated),
                             ("elsewhere", np.concatenate([unrelated, samples.signatures[:1]]))):
        seen = f"{data}-{len(signatures)}.npz"
        weights.with_suffix(".json").write_text(f'{{"trained_on": "{seen}"}}')
        write_training_set(folder / seen, data, map(person_digest, ["s1", "s5"]),
                           splits.fingerprint(signatures))
        with pytest.raises(FsrError, match="were trained on") as caught:
            check_leaks(samples, "w")
        assert caught.value.code == 4


def test_every_data_set_says_what_it_is():
    for entry in datasets().values():
        assert entry.summary


def test_everything_that_can_be_an_image_is_one_and_the_rest_is_named(album, tmp_path):
    face = Image.fromarray(load(album / "s5" / "1.pgm"))
    for name, kind in (("a.JFIF", "JPEG"), ("b.avif", "AVIF"), ("c.PNG", "PNG"),
                       ("no_suffix", "PNG"),
                       ("wrong.png", "JPEG"), ("d.gif", "GIF"), ("e.dat", "WEBP")):
        face.save(album / "s5" / name, kind)
    face.save(album / "s5" / "moving.webp", save_all=True, append_images=[face.rotate(5)])
    (album / "s1" / "readme.txt").write_text("words")
    (album / "flat.png").write_bytes(b"")
    (album / "s1" / ".hidden.png").write_bytes(b"")
    (album / "nobody").mkdir()
    (album / "moved away").symlink_to(tmp_path / "nowhere")
    (album / "s1" / "gone.png").symlink_to(tmp_path / "nowhere")
    (album / "s1" / "round.png").symlink_to(album / "s1" / "round.png")
    (album / "s1"
     / "memory.png").symlink_to("/proc/self/mem")  # a file that nobody can read from its start
    (album / "s1" / "folder.png").mkdir()
    os.mkfifo(album / "s1" / "pipe.png")
    (album / "s1" / "line\nbreak.png").write_bytes(b"")
    (album / "s1" / "empty.png").write_bytes(b"")
    samples = load_samples(f"folder:{album}", MINI, Store(tmp_path / "store"), None, seed=0)
    text = "\n".join(samples.excluded.lines(20))
    for line in ("left out, dangling link: 3 (moved away, s1/gone.png, s1/round.png)",
                 "left out, person's folder without an image: 1 (nobody)",
                 "left out, not a regular file: 1 (s1/pipe.png)",
                 "left out, a folder in a person's folder: 1 (s1/folder.png)",
                 r"left out, name that cannot be written: 1 ('s1/line\nbreak.png')",
                 "left out, cannot be read (Input/output error): 1 (s1/memory.png)",
                 "left out, cannot be read (the file is empty): 1 (s1/empty.png)",
                 "remarked, left alone, not an image: 1 (s1/readme.txt)",
                 "remarked, left alone, in no person's folder: 1 (flat.png)",
                 "remarked, holds several images, the first was taken: 1 (s5/moving.webp)"):
        assert line in text
    used = {name for s in samples.samples for p in (s.gt, *s.album) if (name := p.id)
            .startswith("s5/")}
    copies = {name for reason, names in samples.excluded.reasons.items() for name in names
              if reason.startswith(("copy of the test image", "near duplicate of a test image"))}
    assert {f"s5/{name}" for name in ("a.JFIF", "b.avif", "c.PNG", "no_suffix", "wrong.png",
                                      "d.gif", "e.dat")} <= used | copies


def test_the_same_faults_give_the_same_notes(album, tmp_path):
    (album / "s1" / "2.pgm").write_bytes(b"no image")
    (album / "s1" / "3.pgm").write_bytes(encode_png(load(album / "s1" / "3.pgm"))[:700])
    notes = [load_samples(f"folder:{album}", MINI, Store(tmp_path / store), None,
                          seed=0).excluded.lines() for store in "ab"]
    assert notes[0] == notes[1] and "0x" not in str(notes[0])
    assert "left out, cannot be read (no known image format): 1 (s1/2.pgm)" in notes[0]


def test_people_without_two_usable_images_give_their_place_to_the_next(album, tmp_path):
    """Whoever is drawn first has one image that can be used."""
    order = splits.draw_people(["s1", "s5", "s9"], 1.0, 1)
    for n in (2, 3, 4):
        (album / order[0] / f"{n}.pgm").write_bytes(b"no image")
    samples = load_samples(f"folder:{album}", MINI, Store(tmp_path / "store"), 1, seed=1)
    assert {s.person for s in samples.samples} == {order[1]}
    assert samples.excluded.reasons["fewer than two usable images"] == [order[0]]
    two = load_samples(f"folder:{album}", MINI, Store(tmp_path / "store"), 2, seed=1)
    assert list(dict.fromkeys(s.person for s in two.samples)) == order[1:]


def test_mirrored_border_is_named_with_its_share(album, tmp_path):
    image = load(album / "s1" / "1.pgm")
    Image.fromarray(image[25:95, 12:80]).save(album / "s1" / "tight.png")
    text = "\n".join(load_samples(f"folder:{album}", MINI, Store(tmp_path / "store"), None,
                                  0).excluded.lines(20))
    assert re.search(r"remarked, more than 15% of the crop is mirrored border: .*s1/tight.png "
                     r"[3-6]\d%", text)
    assert "s5/2.pgm" not in text
