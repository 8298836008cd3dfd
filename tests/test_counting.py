"""What counts in a table: faces only, each photograph once, each person once; the rest is named."""

import shutil

import numpy as np
import pytest
from PIL import Image

from fsrbench.engine.counting import counted, near_copies
from fsrbench.engine.findings import Excluded
from fsrbench.engine.run import Run
from fsrbench.engine.samples import load_samples
from fsrbench.engine.store import Store
from fsrbench.faces.prepare import Preparation, align
from fsrbench.imaging import load
from fsrbench.profiles import PROFILES
from fsrbench.reports.tables.table import build
from fsrbench.reports.tables.twins import twins


@pytest.fixture(scope="module")
def faces(tmp_path_factory, orl_root):
    """An FFHQ-aligned reference set of two people with four images each."""
    root = tmp_path_factory.mktemp("aligned")
    for person in ("s5", "s9"):
        (root / person).mkdir()
        for n in (1, 2, 3, 4):
            image, *_ = align(load(orl_root / person / f"{n}.pgm"), Preparation(160))
            Image.fromarray(image).save(root / person / f"{n}.png")
    return root


@pytest.fixture
def album(faces, tmp_path):
    shutil.copytree(faces, tmp_path / "album")
    return tmp_path / "album"


def loaded(album, tmp_path):
    return load_samples(f"aligned:{album}", PROFILES["mini"], Store(tmp_path / "store"), None, 0)


def wall(album, person, names, image):
    (album / person).mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(image).save(album / person / f"{name}.png")


def test_images_without_a_face_do_not_count_and_pull_no_mean(album, tmp_path, quick_plan):
    plain = loaded(album, tmp_path)
    for i, name in enumerate(("w1", "w2", "w3", "w4")):
        wall(album, "wall", [name], np.full((160, 160, 3), 90 + i, np.uint8))
        noise = np.random.default_rng(i).integers(0, 255, (160, 160, 3), dtype=np.uint8)
        wall(album, "noise", [f"n{i}"], noise)
    samples = loaded(album, tmp_path)
    assert {s.id for s in samples.samples} == {
        s.id for s in plain.samples
    } and samples.digest == plain.digest
    assert len(samples.signatures) == len(samples.samples)
    said = samples.excluded.reasons
    assert said["image of one colour"] == [f"wall/w{n}.png" for n in (1, 2, 3, 4)]
    assert said["image in which no face is found"] == [f"noise/n{n}.png" for n in range(4)]
    plan = quick_plan(data=f"aligned:{album}", people=None, metrics=("psnr",))
    table = build(
        Run(plan, Store(tmp_path / "store")).execute(), "t", "T", plan.metrics, "celebref-hq"
    )
    assert table.blocks[8][0].values["psnr.rgb"].summary.mean < 30
    assert any("image of one colour: 4 (wall/" in note for note in table.notes)


def test_images_without_a_face_are_no_references_and_take_no_place_in_the_halves(album, tmp_path):
    plain = loaded(album, tmp_path)
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 255, (160, 160, 3), dtype=np.uint8)
        wall(album, "s5", [f"n{i}"], noise)
        wall(album, "s9", [f"w{i}"], np.full((160, 160, 3), 60 * i, np.uint8))
    samples = loaded(album, tmp_path)
    assert samples.digest == plain.digest
    assert len(samples.excluded.reasons["image of one colour"]) == 4


def test_one_photograph_three_times_in_the_test_half_counts_once(album, tmp_path):
    samples = loaded(album, tmp_path)
    twice = samples.samples[0]
    kept = counted([twice, *samples.samples[1:], twice, twice], excluded := Excluded())
    assert kept == list(range(len(samples.samples)))
    assert excluded.reasons == {f"copy of the test image {twice.id}": [twice.id] * 2}


def test_copies_of_a_file_count_once(album, tmp_path):
    before = {s.id for s in loaded(album, tmp_path).samples}
    test = sorted(i for i in before if i.startswith("s5"))[0]
    for n in range(8):
        shutil.copy(album / test, album / "s5" / f"copy{n}.png")
    samples = loaded(album, tmp_path)
    contents = [s.gt.digest for s in samples.samples]
    assert len(contents) == len(set(contents))
    assert any(
        reason.startswith("copy of the test image s5/") for reason in samples.excluded.reasons
    )


def test_one_person_under_two_names_counts_once(album, tmp_path):
    shutil.copytree(album / "s5", album / "also-s5")
    samples = loaded(album, tmp_path)
    assert len({s.person for s in samples.samples}) == 2 and "s9" in {
        s.person for s in samples.samples
    }
    first, second = sorted(
        ("s5", "also-s5"), key=lambda p: p not in {s.person for s in samples.samples}
    )
    assert samples.excluded.reasons[f"the same person as {first}, as they share a photograph"] == [
        second
    ]


def test_near_copies_are_named_and_count(album, tmp_path):
    samples = loaded(album, tmp_path)
    near = near_copies(samples.samples, samples.signatures, 0.005)
    assert near == []
    twice = [*samples.samples, samples.samples[1]]
    codes = np.concatenate([samples.signatures, samples.signatures[1:2]])
    assert near_copies(twice, codes, 0.005) == [(samples.samples[1].id,) * 2]


def test_one_person_under_two_names_by_other_photographs_is_named(orl_root, tmp_path, quick_plan):
    for name, person, numbers in (("s5", "s5", (1, 2, 3, 4)), ("other", "s5", (5, 6, 7, 8)),
                                  ("s9", "s9", (1, 2, 3, 4))):
        (tmp_path / "album" / name).mkdir(parents=True)
        for n in numbers:
            shutil.copy(orl_root / person / f"{n}.pgm", tmp_path / "album" / name)
    plan = quick_plan(data=f"folder:{tmp_path / 'album'}", people=None, methods=("bicubic",),
                      metrics=("ids.cosine@dlib",))
    outcome = Run(plan, Store(tmp_path / "store")).execute()
    ((a, b, apart),) = twins(outcome)
    assert {a, b} == {"s5", "other"} and apart < 0.05
    notes = build(outcome, "t", "T", plan.metrics, "celebref-hq").notes
    assert any(n.startswith("People who may be one under two names, by dlib's network, and count "
                            f"each: 1 pairs ({a} and {b}, {apart:.3f} apart)") for n in notes)
