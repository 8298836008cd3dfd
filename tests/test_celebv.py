"""CelebV-Text from clips to frozen split: generated clips and lists, malformed in every way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from layouts import fields, manifest, write_clip, write_list
from PIL import Image

from fsrbench.datasets import celebv_text as celebv
from fsrbench.datasets.common import video
from fsrbench.datasets.common.frozen import Choice, Findings, prepare_named
from fsrbench.engine.data import open_source
from fsrbench.engine.samples import load_samples
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.imaging import load
from fsrbench.profiles import PROFILES

MINI = PROFILES["mini"]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def face_clips(tmp_path_factory, orl_root) -> Path:
    """Two slices of four clips: ORL's images as frames; one clip of too few frames, one of a face
    that never moves."""
    root = tmp_path_factory.mktemp("celebv")
    clips = {}
    for i, (person, images) in enumerate([("s3", 10), ("s4", 10), ("s5", 4), ("s6", 1)]):
        found = [np.asarray(Image.open(orl_root / person / f"{n}.pgm").convert("RGB")
                            .resize((184, 224)))
                 for n in range(1, images + 1)]
        name = f"vid{i}_{i}_0"
        clips[name] = fields(f"vid{i}", seconds=10 if images == 1 else 0.6 * images)
        write_clip(root / f"slice_{i % 2 + 9}" / f"{name}.mp4", found, each=300 if images
                   == 1 else 20)
    write_list(root, clips)
    return root


def test_celebv_from_clips_to_samples(face_clips, store, invoke):
    words = ("prepare", "celebv-text", "--root", face_clips, "--quality", "piqe", "--store",
             store.root)
    text = invoke(*words, check=0).stdout.strip()
    assert "found      4 tracks (published: 70,000 tracks)" in text
    assert "evaluation 2 people, 20 images (paper: 1,000" in text
    assert "too short for 10 images, one every 20 frames: 1 (vid2_2_0)" in text
    assert "fewer than 10 frames that show a face and differ: 1 (vid3_3_0)" in text
    assert "remarked, fewer than 5 slices: 1 (slice_9, slice_10)" in text  # natural order
    first = manifest("celebv-text", face_clips, store)
    assert prepare_named("celebv-text", str(face_clips), Choice(quality="piqe"), store) == text
    assert manifest("celebv-text", face_clips, store) == first
    other = Store(store.root.parent / "other")
    prepare_named("celebv-text", str(face_clips), Choice(quality="piqe"), other)
    assert manifest("celebv-text", face_clips, other) == first
    samples = load_samples(f"celebv-text:{face_clips}", MINI, store, None, seed=1)
    assert len(samples.samples) >= 8 and {s.person for s in samples.samples} == {"vid0_0_0",
                                                                                 "vid1_1_0"}
    number = {s.id: int(s.id.split("/")[1].removesuffix(".png")) for s in samples.samples}
    for sample in samples.samples:
        for image in sample.album:
            gap = abs(number[sample.id] - int(image.id.split("/")[1].removesuffix(".png")))
            assert gap >= 20 and gap % 20 == 0
    # Each frame is in the store once, and is what the clip shows there.
    source = open_source(f"celebv-text:{face_clips}", store)
    entry = source.entries[3]
    shown = dict(video.frames(face_clips / "slice_9" / f"{entry.person}.mp4",
                              20))[int(entry.image.removesuffix(".png"))]
    assert np.array_equal(load(store.root / entry.path), shown)
    assert len({e.path for e in source.entries}) == 20


def test_clips_of_another_list_are_refused(tmp_path, store, invoke):
    frames = [np.full((32, 32, 3), n, np.uint8) for n in range(4)]
    for name in ("mine", "yours", "hers"):
        write_clip(tmp_path / "slice_1" / f"{name}.mp4", frames)
    write_list(tmp_path, {"c": fields("vid")})
    told = invoke("prepare", "celebv-text", "--root", tmp_path, "--quality", "piqe", "--store",
                  store.root)
    assert told.returncode == 2 and not (store.root / "manifests").exists()
    assert "is another data set: none of 3 clips is in its celebvtext_info.json" in told.stderr


def test_tracks_of_one_video_that_show_the_same_give_one_person(tmp_path, face_clips, store):
    root = tmp_path / "clips"
    write_list(root, {name: fields("vid0", 6) for name in ("vid0_0_0", "vid0_7_0", "vid0_8_0")})
    found = [f for f,
             _ in zip((image for _, image in video.frames(face_clips / "slice_9" / "vid0_0_0.mp4",
                                                          20)), range(10))]
    for i, name in enumerate(("vid0_0_0", "vid0_7_0")):
        write_clip(root / "0" / f"{name}.mp4", found[::-1] if i else found)
    (root / "0" / "vid0_8_0.mp4").write_bytes((root / "0" / "vid0_0_0.mp4").read_bytes())
    text = prepare_named("celebv-text", str(root), Choice(quality="side"), store)
    assert "evaluation 1 people, 10 images" in text
    assert "shows what a better track of its video shows: 1 (vid0_7_0)" in text
    assert "same file as another clip: 1 (vid0_8_0 and vid0_0_0)" in text


def test_the_first_five_slices_and_the_best_tracks(tmp_path):
    names = [f"part-{i}" for i in range(1, 70)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.mp4").write_bytes(b"")
    chosen = celebv.first_slices(tmp_path, Findings())
    assert [p.stem for p in chosen] == ["part-1", "part-2", "part-3", "part-4", "part-5"]
    tracks = [celebv.Track(celebv.Clip(n, n, 5.0), n, n) for n in names[:5]]
    values = [celebv.Measured(v, e) for v, e in ((1, ""), (3, ""), (3, ""), (0, "broken"), (2, ""))]
    findings = Findings()
    assert [t.path for t in celebv.rank(tracks, values, +1, None, findings)] == ["part-2", "part-3",
                                                                                 "part-5", "part-1"]
    assert [t.path for t in celebv.rank(tracks, values, -1, 2, findings)] == ["part-1", "part-5"]
    assert "below the threshold: 2 (part-2, part-3)" in "\n".join(findings.lines())


def test_malformed_clips_and_lists_are_named(tmp_path, store):
    root, grey = tmp_path / "clips", [np.full((64, 64, 3), 90, np.uint8)]
    clips = {name: fields(name, 2.0) for name in ("cut", "front", "text", "long", "lost", "good",
                                                  "late", "odd", "bad", "end")}
    clips["long"]["duration"]["end_sec"] = 60
    del clips["lost"]["ytb_id"], clips["late"]["duration"]["end_sec"], clips["odd"]["bbox"]["top"]
    clips["bad"] = 3
    clips["end"]["duration"]["end_sec"] = 0
    write_list(root, clips)
    text = (root / celebv.INFO).read_text()
    (root / celebv.INFO).write_text(text[:-2] + ', "good2": {}, "good2": {}}}')
    for name in clips:
        write_clip(root / "0" / f"{name}.mp4", grey, each=60, faststart=name == "front")
    for name in ("cut", "front"):
        path = root / "0" / f"{name}.mp4"
        path.write_bytes(path.read_bytes()[:-300])
    (root / "0" / "text.mp4").write_bytes(b"no film at all")
    write_clip(root / "0" / "stranger.mp4", grey, each=5)
    write_clip(root / "1" / "good.mp4", grey, each=5)
    findings = Findings()
    tracks = celebv.on_disk(root, celebv.read_list(root / celebv.INFO, findings), findings)
    text = "\n".join(findings.lines(9))
    assert not tracks
    for words in ("is cut short: 2 (cut, front)", "is not an mp4 file: 1 (text)",
                  "much shorter than the list says: 1 (long: 2.0 s of 59.0 s)",
                  "list entry lacks ytb_id: 1 (lost)", "list entry lacks end_sec: 1 (late)",
                  "list entry lacks top: 1 (odd)",
                  "list entry has a field of another kind than published: 1 (bad)",
                  "list entry ends before it begins: 1 (end)",
                  "clip given twice in the list: 1 (good2)", "clip in two slices: 2 (good, good)"):
        assert words in text, (words, text)
    assert "clip that the list does not know: 6 (bad, end, late, lost, odd, stranger)" in text
    with pytest.raises(FsrError,
                       match="nothing is left to evaluate on; left out, clip given twice"):
        prepare_named("celebv-text", str(root), Choice(quality="side"), store)


@pytest.mark.parametrize("text,words", [
    (None, "cannot be read"), ("{", "is not JSON"), ("[]", "holds no clips"),
    ('{"clips_set1": []}', "holds no clips")])
def test_a_damaged_list_ends_in_one_line(tmp_path, text, words):
    if text is not None:
        (tmp_path / celebv.INFO).write_text(text)
    with pytest.raises(FsrError, match=words):
        celebv.read_list(tmp_path / celebv.INFO, Findings())


def test_lists_of_every_published_form_are_read(tmp_path):
    one = {**fields("a"), "duration": {"start_frame": 415.29, "end_frame": 420.88}}
    for data in ({"clips": {"a_0": one}}, {"clips_set1": {"a_0": one}, "clips_set2": {"a_0": one}},
                 {"a_0.mp4": one}):
        (tmp_path / celebv.INFO).write_text(json.dumps(data))
        findings = Findings()
        assert celebv.read_list(tmp_path / celebv.INFO,
                                findings) == {"a_0": celebv.Clip("a_0", "a", pytest.approx(5.59))}
        assert len(findings.remarks.reasons) == ("clips_set2" in data) and not findings.reasons


def test_decoding_holds_one_frame(tmp_path):
    """A long clip takes no more memory than a short one, and gives its own images."""
    import tracemalloc

    shades = [np.full((256, 256, 3), 20 + 20 * i, np.uint8) for i in range(10)]
    peaks = []
    for each in (20, 60):
        path = write_clip(tmp_path / f"{each}.mp4", shades, each=each)
        tracemalloc.start()
        found = [(number, int(image.mean())) for number, image in video.frames(path, each)]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert [n for n, _ in found] == [each * i for i in range(10)]
        assert all(abs(mean - 20 - 20 * i) <= 6 for i, (_, mean) in enumerate(found)), found
    assert peaks[1] < peaks[0] * 1.2 and peaks[1] < 3e6


def test_frames_taken_twice_count_once_and_lost_ones_are_taken_again(tmp_path):
    """Two runs of `invoke prepare` at once write the same rows."""
    store = Store(tmp_path)
    images = [store.put_image(np.full((8, 8, 3), n, np.uint8)) for n in range(2)]
    frames = [celebv.Frame(n, image, np.zeros(4, np.int8)) for n, image in enumerate(images)]
    for _ in range(2):
        store.append("frames", celebv._rows("clip", frames))
    store.append("frames", celebv._rows("dark", "fewer than 10 frames"))
    known = celebv._known_frames(store)
    assert [f.number for f in known["clip"]] == [0, 1] and known["dark"] == "fewer than 10 frames"
    store.image_path(images[1]).unlink()
    assert set(celebv._known_frames(store)) == {"dark"}
