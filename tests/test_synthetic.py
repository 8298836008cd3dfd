"""People who do not exist: drawn once, judged, the first of more, in FFHQ's frame."""

import numpy as np
import pytest
import torch

from fsrbench.datasets import synthetic
from fsrbench.datasets.common import people
from fsrbench.engine.data import open_source
from fsrbench.engine.samples import load_samples
from fsrbench.errors import FsrError
from fsrbench.faces.geometry import template
from fsrbench.imaging import load, to_uint8
from fsrbench.methods.common.mobilestylegan import load_generator
from fsrbench.methods.common.mobilestylegan_heads import small_image
from fsrbench.profiles import PROFILES


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def quick(monkeypatch, shared):
    """Two images a person, by the head at 256 px, which takes a fifth of the time; one cache."""
    @torch.no_grad()
    def rendered(style):
        image = small_image(load_generator("cpu")[1], style, people.SIZE)
        return to_uint8(((image + 1) / 2).numpy())[0]
    monkeypatch.setattr(people, "rendered", rendered)
    monkeypatch.setattr(people, "IMAGES", 2)
    monkeypatch.setattr(synthetic, "cache_folder", lambda: shared)


def _bytes(source):
    return [source.read(source.root, entry.path) for entry in source.entries]


def test_people_are_drawn_once_and_are_the_first_of_more(tmp_path, monkeypatch):
    open_source("synthetic:1")
    in_steps = open_source("synthetic:2")
    monkeypatch.setattr(synthetic, "cache_folder", lambda: tmp_path)
    at_once = open_source("synthetic:2")
    assert at_once.root != in_steps.root and _bytes(at_once) == _bytes(in_steps)
    assert len(set(_bytes(at_once))) == 4 and "sface and dlib" in at_once.remarks
    monkeypatch.setattr(people, "person", None)  # nobody may be drawn again
    again = open_source("synthetic:1")
    assert _bytes(again) == _bytes(at_once)[:2] and "2 of 2 images drawn were kept" in again.remarks
    assert at_once.remarks == in_steps.remarks and "4 of " in at_once.remarks
    judges = people.panel()
    assert len({synthetic.folder_of(seed, dict(list(judges.items())[:n]))
                for seed in (0, 1) for n in (1, 2)}) == 4


def test_the_command_writes_them_as_jpeg_and_on_a_sheet(invoke, tmp_path):
    out = tmp_path / "two"
    done = invoke("faces", "--number", "2", "--out", out, check=0)
    assert f"written: {out}, {tmp_path / 'two.jpg'}" in done.stdout
    assert load(tmp_path / "two.jpg").shape == (256, 256, 3)
    source = open_source("synthetic:2")
    for entry in source.entries:
        ours = load(source.root / entry.path).astype(float)
        theirs = load(out / entry.path.replace(".png", ".jpg"))
        assert theirs.shape == ours.shape and 0 < np.abs(ours - theirs).mean() < 4


@pytest.mark.parametrize("words, cause, code", [
    (("--number", "x"), "--number x: is not a whole number", 2),
    (("--seed", "-1"), "--seed -1: is not a whole number", 2),
    (("--sheet", "."), "--sheet .: is a folder", 2),
    (("--sheet", "a.png"), "--sheet a.png: is not called as a JPEG file is", 2),
    (("--out", "README.md"), "--out README.md: cannot be written", 3),
    (("--sheet", "README.md/a.jpg"), "--sheet README.md: cannot be written", 3)])
def test_wrong_words_end_before_anybody_is_drawn(invoke, monkeypatch, tmp_path, words, cause, code):
    monkeypatch.setattr(people, "person", None)
    out = () if "--out" in words else ("--out", tmp_path / "faces")
    done = invoke("faces", *out, *words, check=code, FSRBENCH_CACHE=str(tmp_path))
    assert cause in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_example_needs_nothing_but_this_repository(monkeypatch, tmp_path, session_store):
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path / "none"))
    source = open_source("example")
    assert len(source.entries) == 30 and "non-commercial" in source.licence
    assert all((source.root / e.path).read_bytes()[:3] == b"\xff\xd8\xff" for e in source.entries)
    assert sum((source.root / e.path).stat().st_size for e in source.entries) < 400_000
    samples = load_samples("example", PROFILES["mini"], session_store, None, seed=0).samples
    assert len(samples) == 15 and {s.gt.landmarks.source for s in samples} == {"dlib-hog+dlib68"}
    assert not (tmp_path / "none").exists()
    with pytest.raises(FsrError, match="takes no argument"):
        open_source("example:7")


def test_samples_are_in_ffhq_s_frame(session_store):
    mini = PROFILES["mini"]
    samples = load_samples("synthetic:2", mini, session_store, None, seed=0).samples
    assert len(samples) == 2 and all(s.gt.image.shape == (64, 64, 3) for s in samples)
    mean = template(64, mini.frame)
    for sample in samples:
        assert sample.gt.landmarks.source.endswith("dlib68")
        assert np.abs(sample.gt.landmarks.points[17:] - mean[17:]).mean() < 3


def test_judges_refuse_a_person_like_one_before_and_an_image_of_another(monkeypatch):
    judges, count = people.panel(), people.Count()
    style = people.style_of("synthetic", 0, 0)
    first = people.drawn(judges, style, count)
    assert people.person(judges, [first], count, "synthetic", 0, 0) is None
    assert count.refused == {"a person like one before": 1}
    monkeypatch.setattr(people, "MIXED", {"all": (0, 8, 1.0)})
    monkeypatch.setattr(people, "TRIES", 1)
    assert people.another(judges, style, first, count, "another") is None
    assert count.refused["not the person"] == 1 and (count.drawn, count.kept) == (3, 0)


def test_less_is_mixed_in_at_each_try():
    style = people.style_of("a person")
    once, less = (people.varied(style, strength, "an image") - style for strength in (1.0, 0.5))
    assert torch.allclose(less, once / 2, atol=1e-5) and once[:, :2].abs().max() > 0.1
    assert (once[:, 4] == 0).all(), "no range holds the fifth layer"
    assert torch.equal(style, people.style_of("a person"))


def test_a_judge_who_is_absent_is_named(monkeypatch):
    monkeypatch.setattr(people, "at_hand", lambda name: name == "sface")
    remarks = open_source("synthetic:1").remarks
    assert "sface judged" in remarks and "not here to judge: dlib-recognition" in remarks


@pytest.mark.parametrize("argument", ["", "0", "x", "2:-1", "²", "10000", "2:0:1"])
def test_wrong_numbers_are_one_error(argument):
    with pytest.raises(FsrError, match="write synthetic:N") as caught:
        open_source(f"synthetic:{argument}")
    assert caught.value.code == 2


def test_a_damaged_index_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "cache_folder", lambda: tmp_path)
    source = open_source("synthetic:1")
    (source.root / "index.json").write_text("{")
    with pytest.raises(FsrError, match="is damaged; delete"):
        open_source("synthetic:1")


def test_two_shards_draw_nobody_twice_and_lose_nobody(tmp_path, monkeypatch):
    """One wants fewer than the other; the index keeps all."""
    import threading
    import time

    drawn, face = [], people.Face(np.zeros((8, 8, 3), np.uint8), template(8), {})

    def person(judges, before, count, name, seed, number):
        time.sleep(0.02)
        drawn.append(number)
        return [face, face]
    monkeypatch.setattr(people, "person", person)
    monkeypatch.setattr(people, "seen", lambda judges, image: face)
    found = {}

    def run(wanted):
        found[wanted] = synthetic._complete(tmp_path, wanted, 0, {})
    threads = [threading.Thread(target=run, args=(wanted,)) for wanted in (9, 3, 6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(drawn) == list(range(9)) and set(found) == {3, 6, 9}
    assert all(len(index["people"]) >= wanted for wanted, index in found.items())
    assert len(synthetic._index(tmp_path)["people"]) == 9
    assert {p.name for p in tmp_path.iterdir()} == {"index.json", *(f"p{i:04d}" for i in range(9))}
