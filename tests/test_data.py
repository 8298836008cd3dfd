"""Data sets and the protocol: every bad picture named, leaks refused, the same split whatever the order of files."""

import shutil

import numpy as np
import pytest
from PIL import Image

from fsrbench.engine import splits
from fsrbench.engine.data import datasets, open_source, read_manifest, verified
from fsrbench.engine.samples import check_leaks, load_samples, person_digest, training_set, write_training_set
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.imaging import load
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
    assert "1 pictures of folder changed" in capsys.readouterr().out
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


def test_bad_pictures_are_named_counted_and_left_out(album, tmp_path, orl_root):
    (album / "s1" / "2.pgm").write_bytes(b"P5 92 112 255\n short")
    Image.fromarray(np.full((80, 80, 3), 90, np.uint8)).save(album / "s1" / "wall.png")
    (album / "lonely").mkdir()
    shutil.copy(orl_root / "s7" / "1.pgm", album / "lonely")
    (album / "notes.txt").write_text("not a person")
    (album / "s5" / "notes.txt").write_text("not a picture")
    samples = load_samples(f"folder:{album}", MINI, Store(tmp_path / "store"), None, seed=0)
    text = "\n".join(samples.excluded.lines())
    assert "no face found: 1 (s1/wall.png)" in text
    assert "fewer than two pictures: 1 (lonely)" in text
    assert "cannot be read" in text and "(s1/2.pgm)" in text
    assert {s.person for s in samples.samples} == {"s1", "s5", "s9"}


def test_an_album_without_anybody_left_is_one_error(tmp_path, orl_root):
    (tmp_path / "a" / "p").mkdir(parents=True)
    shutil.copy(orl_root / "s1" / "1.pgm", tmp_path / "a" / "p")
    with pytest.raises(FsrError, match="nobody is left with two usable pictures"):
        load_samples(f"folder:{tmp_path / 'a'}", MINI, Store(tmp_path / "store"), None, seed=0)


@pytest.mark.parametrize("spec,text", [
    ("folder", "needs a folder"), ("folder:/nowhere", "no such folder"), ("orll", "did you mean 'orl'"),
    ("orl:/nowhere", "not found")])
def test_wrong_data_arguments(spec, text):
    with pytest.raises(FsrError, match=text):
        open_source(spec)


def test_copies_across_halves_leave_the_fine_tune_half(album, tmp_path):
    """A recompressed, rescaled copy of every picture: none may serve as reference or fit for the other."""
    for path in sorted(album.glob("*/*.pgm")):
        picture = Image.fromarray(load(path))
        picture.resize((160, 195), Image.Resampling.BICUBIC).save(path.with_suffix(".jpg"), quality=85)
    samples = load_samples(f"folder:{album}", MINI, Store(tmp_path / "store"), None, seed=0)
    copies = 0
    for sample in samples.samples:
        stems = {p.id.rsplit(".", 1)[0] for p in sample.album}
        copies += sample.id.rsplit(".", 1)[0] in stems
    assert copies <= 1  # 97 % of copies are recognised
    assert "near duplicate of a test picture" in samples.excluded.reasons


def test_training_pictures_and_people_are_refused(album, tmp_path, session_store, monkeypatch):
    samples = load_samples(f"folder:{album}", MINI, session_store, None, seed=0)
    folder = tmp_path / "weights"
    folder.mkdir()
    weights = folder / "w.safetensors"
    weights.write_bytes(b"w")
    weights.with_suffix(".json").write_text('{"trained_on": "seen.npz"}')
    monkeypatch.setattr("fsrbench.engine.samples.locate", lambda name: weights)
    rng = np.random.default_rng(0)
    unrelated = rng.integers(-127, 128, (50, 256), dtype=np.int8)
    write_training_set(folder / "seen.npz", "elsewhere", map(person_digest, ["s1", "s5"]), splits.fingerprint(unrelated))
    check_leaks(samples, "w")
    assert person_digest("s1") in training_set("w").people
    for data, signatures in (("folder", unrelated), ("elsewhere", np.concatenate([unrelated, samples.signatures[:1]]))):
        seen = f"{data}-{len(signatures)}.npz"
        weights.with_suffix(".json").write_text(f'{{"trained_on": "{seen}"}}')
        write_training_set(folder / seen, data, map(person_digest, ["s1", "s5"]), splits.fingerprint(signatures))
        with pytest.raises(FsrError, match="were trained on") as caught:
            check_leaks(samples, "w")
        assert caught.value.code == 4


def test_every_data_set_says_what_it_is():
    for entry in datasets().values():
        assert entry.summary
