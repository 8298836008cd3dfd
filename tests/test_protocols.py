"""Published protocols as data: every file is whole, what is missing is n/a with the remedy, and the
one score is of all images or none."""

import csv

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from conftest import ROOT
from fsrbench.metrics import family
from fsrbench.metrics.moments import matched, psnr_moments
from fsrbench.reports.tables import protocols as module
from fsrbench.reports.tables.protocols import listing, protocols

SMALL = """
title = "Small"
source = "a test"
data = "none"
needs = ["truth"]
size = 64
faults = ["it counts twice"]
[[metric]]
says = "PSNR"
use = "psnr"
[[metric]]
says = "LPIPS"
use = "lpips"
[score]
says = "PSNR/10 + max(0, 1 - LPIPS)"
terms = [{ metric = "PSNR", over = 10.0 }, { metric = "LPIPS", from = 1.0, over = 1.0 }]
"""
ABSENT = """
[[metric]]
says = "Deg"
lacking = "a network"
remedy = "fetch it"
direction = -1
near = "piqe"
"""


def test_every_protocol_is_whole_and_says_what_is_missing(invoke):
    assert set(protocols()) == {"paper", "ntire26", "pmrf", "vqfr", "refldm", "osdface"}
    for name, protocol in protocols().items():
        for entry in protocol.entries:
            assert not entry.lacks or ";" in entry.lacks, entry
            assert entry.metric.id not in protocol.lacks or entry.metric.direction in (1, -1)
        assert {t["metric"] for t in protocol.terms} <= {e.says for e in protocol.entries}
        whole = listing(name)
        assert protocol.source.split()[0] in whole and max(map(len, whole.splitlines())) <= 100
    done = invoke("protocols", check=0).stdout
    assert max(map(len, done.splitlines())) <= 100
    assert "vqfr      VQFR" in done and "here: PSNR, SSIM, LPIPS, NIQE" in done
    assert "did you mean 'vqfr'?" in invoke("protocols", "--name", "vqrf", check=2).stderr


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A protocol of 64 px that can run here, and a folder of ground truths and one of outputs."""
    folder = tmp_path / "protocols"
    folder.mkdir()
    (folder / "small.toml").write_text(SMALL)
    monkeypatch.setattr(module, "FOLDER", folder)
    protocols.cache_clear()
    rng = np.random.default_rng(0)
    for place, noise in (("t", 0), ("r", 12)):
        (tmp_path / place).mkdir()
        for n in range(3):
            image = np.random.default_rng(n).integers(0, 256, (8, 8, 3)).repeat(8, 0).repeat(8, 1)
            image = image + rng.normal(0, noise, image.shape) * (noise > 0)
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(tmp_path / place / f"{n}.png")
    yield tmp_path
    protocols.cache_clear()


def scored(invoke, root, *words, check=0):
    return invoke("score", "--restored", root / "r", "--protocol", "small", *words, "--store",
                  root / "store", "--out", root / "out", check=check)


def test_a_table_under_a_protocol_has_its_columns_and_its_score(invoke, small):
    out = scored(invoke, small, "--truth", small / "t").stdout
    rows = {r["metric"].split(".")[0]: float(r["mean"])
            for r in csv.DictReader((small / "out" / "score.csv").open())}
    expected = rows["psnr"] / 10 + max(0, 1 - rows["lpips"])
    assert f"Score of r: {expected:.4f} (PSNR/10 + max(0, 1 - LPIPS))" in out
    assert "Protocol small: Small (a test)" in out and "Not repeated: it counts twice." in out
    (small / "r" / "1.png").unlink()
    out = scored(invoke, small, "--truth", small / "t").stdout
    assert "Score of r: n/a, as PSNR, LPIPS have no value of all images" in out


def test_what_is_not_there_is_not_available_and_another_number_stands_beside(invoke, small):
    path = small / "protocols" / "small.toml"
    path.write_text(SMALL.replace("[score]", f"{ABSENT}[score]")
                    .replace('"LPIPS", from', '"Deg", from'))
    out = scored(invoke, small, "--truth", small / "t").stdout
    assert "n/a deg@small: needs a network; fetch it." in out and "Deg (small) ↓" in out
    assert "PIQE (piqe.default@" in out and "stands beside Deg, which is n/a here" in out
    assert "Score of r: n/a, as Deg have no value" in out


def test_what_a_protocol_refuses(invoke, small):
    assert "--protocol small: needs --truth DIR" in scored(invoke, small, check=2).stderr
    words = ("--truth", small / "t")
    done = scored(invoke, small, *words, "--metric", "psnr", check=2)
    assert "says which metrics there are, and --metric too" in done.stderr
    Image.new("RGB", (32, 32), (1, 90, 200)).save(small / "t" / "3.png")
    with Image.open(small / "t" / "0.png") as image:
        image.resize((48, 64)).save(small / "t" / "3.png")
    done = scored(invoke, small, *words, check=2)
    assert "is for images of 64 x 64 pixels, and there are some of 48 x 64" in done.stderr
    (small / "protocols" / "small.toml").write_text(SMALL.replace('use = "psnr"', 'use = "psnrr"'))
    protocols.cache_clear()
    assert "unknown" in scored(invoke, small, *words, check=2).stderr


def test_matched_colours_have_the_truth_s_moments_and_forgive_a_cast():
    truth = torch.rand(2, 3, 16, 16, generator=torch.manual_seed(0))
    cast = truth * torch.tensor([0.5, 0.8, 1.0])[:, None, None] + 0.1
    assert (psnr_moments(cast, truth) == 100).all()
    flat = matched(torch.full_like(truth, 0.3), truth)
    assert torch.allclose(flat, truth.double().mean((2, 3), keepdim=True))


def test_the_workflow_for_pull_requests_calls_what_is_there():
    import tasks

    text = (ROOT / "reports" / "gate" / "score-pull-request.yml").read_text()
    steps = yaml.safe_load(text)["jobs"]["score"]["steps"]
    command = next(step["run"] for step in steps if step.get("name") == "Score")
    options = {word.lstrip("-") for word in command.split() if word.startswith("--")}
    assert command.startswith("invoke score") and options <= set(tasks.score.help)
    assert all(family(name) for name in yaml.safe_load(text)["env"]["METRICS"].split(","))
