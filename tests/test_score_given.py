"""Outputs of any size, without ground truths, with reference sets, parts and names of one's own."""

import csv

import numpy as np
import pytest
from PIL import Image

from fsrbench.engine.store import Store
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


def test_ground_truths_are_read_from_the_store_and_not_held(invoke, tmp_path, words, monkeypatch):
    """At most the last few images are in memory, and a second call reads none of the files."""
    from fsrbench.engine import taken

    for seed in range(12):
        save(tmp_path / "t" / f"{seed}.png", seed)
        save(tmp_path / "r" / f"{seed}.png", seed, near=5)
    monkeypatch.setattr(taken, "RECENT_BYTES", 3 * 64 * 64 * 3)
    asked = ("score", "--restored", tmp_path / "r", "--truth", tmp_path / "t", "--metric", "psnr",
             *words)
    first = invoke(*asked, check=0).stdout
    held = [key for key in taken._recent if key[0] == Store(tmp_path / "store").root]
    assert 1 <= len(held) <= 3
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
