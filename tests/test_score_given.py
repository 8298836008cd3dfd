"""Outputs of any size, without ground truths, with reference sets, parts and names of one's own."""

import csv
import shutil
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image

from fsrbench.engine.store import Store
from fsrbench.metrics import family
from fsrbench.metrics.pixel import psnr


def save(path, seed, size=(64, 64), near=0):
    """A smooth image of random colours; `near` adds noise of another seed to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    image = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(int)
    noise = np.random.default_rng(near).normal(0, 5, image.shape) if near else 0
    Image.fromarray((image + noise).clip(0, 255).astype(np.uint8)).save(path)


def table(out):
    rows = list(csv.DictReader((out / "score.csv").open()))
    return {(row["method"], row["metric"]): row for row in rows}


@pytest.fixture
def words(tmp_path):
    return ("--store", tmp_path / "store", "--out", tmp_path / "out")


def test_images_of_several_sizes_are_scored_each_at_its_own(invoke, tmp_path, words):
    import torch

    sizes = {"a": (64, 64), "b": (96, 48), "c": (96, 48), "d": (520, 600)}
    for seed, (name, size) in enumerate(sizes.items()):
        save(tmp_path / "t" / f"{name}.png", seed, size)
        save(tmp_path / "r" / f"{name}.png", seed, size, near=9)
    save(tmp_path / "r" / "c.png", 2, (48, 96))
    done = invoke("score", "--restored", tmp_path / "r", "--truth", tmp_path / "t", "--metric",
                  "psnr,fd", *words, check=0)
    assert "3 sizes from 64 px to 520 x 600 px" in done.stdout
    assert "n/a fd.alexnet@gt: a distance of sets needs images of one size" in done.stdout
    assert "is 48 x 96 pixels, not 96 x 48: 1 (c.png)" in done.stdout
    pairs = [[torch.from_numpy(np.asarray(Image.open(tmp_path / x / f"{n}.png")) / 255)
              .permute(2, 0, 1)[None].float() for x in "rt"] for n in "abd"]
    row = table(tmp_path / "out")["outputs:r", "psnr.rgb"]
    assert float(row["mean"]) == pytest.approx(np.mean([psnr(*pair)[0] for pair in pairs]))
    assert (row["n_ok"], row["n_failed"]) == ("3", "1")
    page = (tmp_path / "out" / "score.html").read_text()
    assert page.count("data:image/webp") == 2  # d and its ground truth, which are large


def test_outputs_are_recorded_beside_the_ground_truth_and_reference_of_this_call(
        invoke, tmp_path, words):
    """A store that knows the outputs from another call says nothing of that call's images."""
    from fsrbench.exchange.record import read

    for person in (1, 2):
        for n in range(2):
            save(tmp_path / "t" / f"p{person}" / f"{n}.png", 10 * person + n)
            save(tmp_path / "r" / f"p{person}" / f"{n}.png", 10 * person + n + 5)
        save(tmp_path / "refs" / f"p{person}" / "9.png", 10 * person + 9)
    call = ("--restored", f"mine={tmp_path / 'r'}", "--metric", "psnr")
    same = "outputs are the ground truth itself"
    said = [invoke("score", *call, "--truth", tmp_path / truth, *words, check=0).stdout
            for truth in "rtr"]
    assert [same in text for text in said] == [True, False, True]
    found = []
    for i, more in enumerate((("--references", tmp_path / "refs"), ())):
        invoke("export-results", *call, "--truth", tmp_path / "t", *more, *words[:2], "--out",
               tmp_path / f"{i}.parquet", check=0)
        rows = read(tmp_path / f"{i}.parquet").rows
        found.append(set(rows.loc[rows["metric"] == "restored", "reference"]))
        done = invoke("verify", tmp_path / f"{i}.parquet", "--truth", tmp_path / "t", *more,
                      "--images", tmp_path / "r", *words[:2], check=0)
        assert "| re-scored |" in done.stdout and "mismatch" not in done.stdout
    assert found[0] == {"p1/9", "p2/9"} and not found[0] & found[1]


def test_ground_truths_are_read_from_the_store_and_not_held(invoke, tmp_path, words, monkeypatch):
    """At most the last few images are in memory, and a second call reads none of the files."""
    from fsrbench.engine import kept, taken

    for seed in range(12):
        save(tmp_path / "t" / f"{seed}.png", seed)
        save(tmp_path / "r" / f"{seed}.png", seed, near=5)
    monkeypatch.setattr(kept, "RECENT_BYTES", 3 * 64 * 64 * 3)
    asked = ("score", "--restored", tmp_path / "r", "--truth", tmp_path / "t", "--metric", "psnr",
             *words)
    first = invoke(*asked, check=0).stdout
    assert 1 <= len(kept.recent_image.held(Store(tmp_path / "store"))) <= 3
    monkeypatch.setattr(taken, "read_whole", lambda path: pytest.fail(f"{path} is read again"))
    assert invoke(*asked, check=0).stdout == first


def test_only_images_of_split_test_count_and_a_name_stands_in_the_table(invoke, tmp_path, words):
    for seed in range(4):
        save(tmp_path / "t" / "p" / f"{seed}.png", seed)
        save(tmp_path / "r" / f"{seed}.png", seed, near=5)
    (tmp_path / "s.csv").write_text("image,split\np/0.png,test\np/1,test\np/2.png,train\n")
    asked = ("score", "--restored", tmp_path / "r", "--truth", tmp_path / "t", "--metric", "psnr",
             "--split", tmp_path / "s.csv", *words)
    done = invoke(*asked, "--name", "My method", check=0)
    assert "| My method |" in done.stdout and "2 images are not for test by --split" in done.stdout
    assert table(tmp_path / "out")["outputs:My_method", "psnr.rgb"]["n_ok"] == "2"
    (tmp_path / "s.csv").write_text("image,split\np/9.png,test\n")
    assert "line 2: there is no image 'p/9.png'" in invoke(*asked, check=2).stderr
    done = invoke(*asked, "--restored", tmp_path / "t", "--name", "x", check=2)
    assert "--name: is of one folder" in done.stderr


@pytest.fixture
def real(tmp_path, orl_root):
    """Outputs of three people's faces, the third of which is none, with reference sets and
    degraded images; as PERSON/IMAGE in one folder each."""
    for person in ("s1", "s5", "s9"):
        for n, place in ((1, "r"), (2, "refs"), (3, "refs"), (1, "lq")):
            (tmp_path / place / person).mkdir(parents=True, exist_ok=True)
            with Image.open(orl_root / person / f"{n}.pgm") as image:
                size = (23, 28) if place == "lq" else (92, 112)
                image.convert("RGB").resize(size).save(tmp_path / place / person / f"{n}.png")
    Image.new("RGB", (92, 112), (90, 120, 40)).save(tmp_path / "r" / "s9" / "1.png")
    return tmp_path


def test_without_ground_truths_only_what_needs_none_is_measured(invoke, real, words):
    shutil.rmtree(real / "refs" / "s5")
    metrics = "psnr,fd,face.found@dlib,idr.mean@dlib,piqe,lmd,fid-ffhq512"
    done = invoke("score", "--restored", real / "r", "--lq", real / "lq", "--references",
                  real / "refs", "--metric", metrics, *words, check=0)
    for name in ("psnr.rgb", "fd.alexnet@gt", "lmd.68@dlib"):
        assert f"n/a {name}: compares with ground truths; give --truth DIR" in done.stdout
    assert "n/a fid-ffhq512.clean@70k: ffhq_clean_trainval70k_512.npz is missing" in done.stdout
    assert "References left out, of no use: there is none of: 1 (s5)" in done.stdout
    found = table(real / "out")
    assert float(found["outputs:r", "face.found@dlib"]["mean"]) == pytest.approx(2 / 3)
    row = found["outputs:r", "idr.mean@dlib"]
    assert (row["n_ok"], row["n_failed"]) == ("1", "2") and 0 < float(row["mean"]) < 0.07
    assert found["outputs:r", "piqe.default@pyiqa-" + version("pyiqa")]["n_ok"] == "3"
    page = (real / "out" / "score.html").read_text()
    assert "LR 23×28" in page and "Ground truth" not in page and "Reference<br>s1/2" in page


def test_a_reference_that_is_a_ground_truth_is_none_and_nobody_s_folder_is_said(invoke, real,
                                                                                words):
    shutil.copy(real / "r" / "s1" / "1.png", real / "refs" / "s1" / "9.png")
    asked = ("score", "--restored", f"same={real / 'r'}", "--truth", real / "r", "--metric",
             "idr.mean@dlib,deg", *words)
    done = invoke(*asked, "--references", real / "refs", check=0)
    assert "References left out, is a ground truth itself: 1 (s1/9)" in done.stdout
    assert "test image of one colour: 1 (s9/1.png)" in done.stdout
    assert float(table(real / "out")["outputs:same", "deg.angle@dlib"]["mean"]) < 1e-4
    (real / "refs").rename(real / "p")
    (real / "other").mkdir()
    (real / "p").rename(real / "other" / "p")
    done = invoke(*asked, "--references", real / "other", check=2)
    assert "holds nobody's images; name a sub-folder as a person (s1)" in done.stderr


def test_judges_that_cut_by_landmarks_look_for_them_in_reference_sets_too(invoke, real, words):
    """A reference without a face is named; where there are none, and without ground truths, the
    judges are not available."""
    Image.new("RGB", (92, 112), (9, 90, 9)).save(real / "refs" / "s1" / "8.png")
    save(real / "t" / "s9" / "1.png", 3, (92, 112))
    for person in ("s1", "s5"):
        (real / "t" / person).mkdir()
        shutil.copy(real / "refs" / person / "2.png", real / "t" / person / "1.png")
    asked = ("score", "--restored", real / "r", "--metric",
             "gap.people-truthpoints@dlib,gap.people-truthpoints@frfeature,psnr,piqe", *words)
    given = ("--truth", real / "t", "--references", real / "refs")
    done = invoke(*asked, *given, check=0)
    assert "References left out, no face is found: 1 (s1/8)" in done.stdout
    assert "is a ground truth itself: 2 (s1/2, s5/2)" in done.stdout
    found = table(real / "out")
    for judge in ("dlib", "frfeature"):
        row = found["outputs:r", f"gap.people-truthpoints@{judge}"]
        assert row["n_ok"] == "2" and float(row["mean"]) > 0.02, row
    done = invoke(*asked, *given[:2], check=0)
    assert "n/a gap.people-truthpoints@dlib: compares with reference sets" in done.stdout
    done = invoke(*asked, *given[2:], check=0)
    assert "n/a gap.people-truthpoints@dlib: compares with ground truths" in done.stdout


def test_without_metrics_those_are_taken_that_can_be_measured():
    from fsrbench.engine.scoring import Asked, default_metrics

    assert default_metrics(Asked(["r"], truth="t"), ("psnr",)) == ("psnr",)
    assert default_metrics(Asked(["r"], truth="t", references="x"), ("psnr",))[1:] == ("idr",)
    kinds = {m.kind for name in default_metrics(Asked(["r"]), ("psnr",)) for m in family(name)
             if m.sees_truth}
    assert not kinds


def test_a_flat_folder_of_references_goes_by_the_names_of_images_and_people(tmp_path):
    from fsrbench.engine.given_samples import reference_files
    from fsrbench.engine.outputs import open_folder

    for name in ("s1_1.png", "s2.png", "s3/x.png", "s3/y.png", "s4/1/z.png"):
        save(tmp_path / name, 0, (8, 8))
    ids = [f"s{n}/1.png" for n in range(1, 6)]
    people = {id: id.partition("/")[0] for id in ids}
    assert reference_files(ids, people, open_folder(tmp_path, "--references")) == {
        "s1/1.png": ["s1_1"], "s2/1.png": ["s2"], "s3/1.png": ["s3/x", "s3/y"],
        "s4/1.png": ["s4/1/z"], "s5/1.png": []}


def test_a_set_is_held_against_a_file_of_statistics_without_ground_truths(real, session_store):
    from functools import partial

    from fsrbench.engine.scoring import Asked, score
    from fsrbench.metrics import Metric
    from fsrbench.metrics.manifold import frechet_to
    from fsrbench.metrics.perceptual import alexnet_pooled
    from fsrbench.reports.tables.table import measured

    images = [np.asarray(Image.open(p)) for p in sorted((real / "r").rglob("*.png"))]
    features = alexnet_pooled(images, [None] * 3).astype(np.float64)
    mean, covariance = features.mean(0) + 1, np.cov(features, rowvar=False)
    known = Metric("fd-x.alexnet@file", "FD", -1, "set", partial(_to, mean, covariance),
                   feature="alexnet-pooled@1", alone=True)
    run = score(Asked([str(real / "r")], metrics=[known]), session_store)
    found = measured(run.execute(), run.cells[0].method, 1, known).summary
    # The same covariance and a mean that is 1 off in each of 1,152 dimensions.
    assert found.mean == pytest.approx(features.shape[1], rel=1e-3) and found.n_ok == 3
    assert frechet_to(features, mean - 1, covariance) == pytest.approx(0, abs=1e-3 * found.mean)


def _to(mean, covariance, restored, _same):
    from fsrbench.metrics.manifold import frechet_to

    return frechet_to(restored, mean, covariance)
