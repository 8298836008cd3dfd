"""The paper profile by the command line, from a data set in its published layout to tables,
figures, claims and report: prepared, trained, fitted and restored at 256 px, all networks of ours a
sixteenth as wide as the paper's.

Widths are changed in the configurations of this process; no option does that.
"""

import json
import os
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from fsrbench.methods.common.arcface import IResNet
from fsrbench.methods.common.official_codeformer import official
from fsrbench.methods.idfsr import fitting
from fsrbench.methods.idfsr.configs import CONFIGS, DEVIATIONS, PAPER
from fsrbench.methods.idfsr.network import IdfsrNet
from fsrbench.methods.idfsr.training import IdfsrTask
from fsrbench.proof.parity import filled
from fsrbench.weights.catalogue import cache_folder
from fsrbench.weights.networks import load_strict, read_state, unwrap

pytestmark = pytest.mark.full
NARROW = replace(PAPER, unet=replace(PAPER.unet, model_channels=8, style_channels=32,
                                     id_tokens=16, group_channels=8))
ROWS = [("Bicubic", "none"), ("Warped reference", "none"), ("IDFSR (PT)", "trained"),
        ("IDFSR (FT)", "trained")]
QUICK = ("--method", "bicubic,reference,idfsr.pt,idfsr.ft", "--batch", "4")


@pytest.fixture(scope="module")
def narrow():
    """Narrow networks, two steps of fitting, and few faces to judge a training by."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONFIGS, "paper", NARROW)
        patch.setitem(fitting.FITS, "paper", replace(fitting.FITS["paper"], steps=2, batch=2))
        whole = IdfsrTask.examples

        def few(task, draws, faces, n, factor=None):
            return whole(task, draws, faces, min(n, 2), factor)
        patch.setattr(IdfsrTask, "examples", few)
        yield patch


@pytest.fixture(scope="module")
def place(tmp_path_factory, orl_root):
    """Folders: CelebRef-HQ as published, of 20 people with five images of 512 px; and a cache with
    an E_id in its authors' file (random weights: the fill's would be refused)."""
    root = tmp_path_factory.mktemp("end")
    for person in sorted(orl_root.iterdir(), key=lambda p: p.name)[:20]:
        (root / "raw" / person.name).mkdir(parents=True)
        for n in range(1, 6):
            Image.open(person / f"{n}.pgm").convert("RGB").crop((0, 10, 92, 102)).resize(
                (512, 512)).save(root / "raw" / person.name / f"{n}.png", compress_level=1)
    (root / "cache").mkdir()
    for path in cache_folder().glob("*"):
        os.symlink(path, root / "cache" / path.name)
    torch.manual_seed(0)
    torch.save(IResNet((3, 4, 14, 3)).state_dict(), root / "cache" / "arcface_r50.pth")
    return root


@pytest.fixture(scope="module")
def run(invoke, place, narrow):
    """A command under the paper profile, as typed, with folders of its own."""
    def call(*words, check=0):
        return invoke(*words, "--store", place / "store", check=check,
                      FSRBENCH_CACHE=str(place / "cache"))
    return call


@pytest.fixture(scope="module")
def data(run, place):
    """The prepared data set, as `--data` names it."""
    said = run("prepare", "celebref-hq", "--root", place / "raw").stdout
    assert "found      20 people, 100 images" in said and "evaluation 2 people" in said
    return f"celebref-hq:{place / 'raw'}"


def trained(run, place, data, name, *words):
    """Weights of IDFSR after two steps, exported into the cache; returns their card."""
    of = ("--what", "idfsr", "--profile", "paper", "--data", data)
    run("train", *of, *words, "--steps", "2", "--batch", "2", "--out", place / name)
    run("export", *of, "--checkpoint", place / name / "checkpoint.pt", "--to",
        place / "cache" / "idfsr-paper.safetensors")
    return json.loads((place / "cache" / "idfsr-paper.json").read_text())


def test_weights_from_a_synthetic_diffae_are_loaded_trained_and_refused(run, place, data):
    """DiffAE's checkpoint in Lightning's wrapper starts the training; two steps make no weights."""
    plain = IdfsrNet(replace(NARROW, unet=replace(NARROW.unet, in_channels=3)))
    state = filled(plain).state_dict()
    torch.save({"state_dict": {f"{name}.{key}": value for name in ("ema_model", "model")
                               for key, value in state.items()} | {"x_T": torch.zeros(4)},
                "global_step": 90}, place / "last.ckpt")
    card = trained(run, place, data, "init", "--init", place / "last.ckpt")
    assert card["started_from"]["weights"] == "last.ckpt" and card["steps"] == 2
    done = run("table1", "--profile", "paper", "--data", data, "--method", "idfsr.pt", "--out",
               place, check=4)
    assert "weights idfsr-paper (" in done.stderr and "holds synthetic weights" in done.stderr


def test_official_files_are_loaded_and_refused(run, place, data):
    """CodeFormer's file at full width in its published wrapper."""
    path, state = place / "cache" / "codeformer.pth", filled(official()).state_dict()
    torch.save({"params_ema": state}, path)
    assert load_strict(official(), unwrap(read_state(path)), path.name)
    done = run("table1", "--profile", "paper", "--data", data, "--method", "bicubic,codeformer",
               "--out", place, check=4)
    assert f"weights codeformer ({path}): holds synthetic weights" in done.stderr
    path.unlink()


def test_from_prepared_data_to_the_report(run, place, data):
    card = trained(run, place, data, "scratch")
    assert card["deviations"] == DEVIATIONS["paper"] and card["images_seen"] == 4
    words, out = ("--profile", "paper", "--data", data), ("--out", place / "out")
    for table, scale, methods in (
            ("table1", "16", QUICK), ("table3", "32", ("--method", "bicubic,idfsr.pt"))):
        said = run(table, *words, *methods, "--scale", scale, "--metric",
                   "psnr,ssim,lpips,ids.cosine@dlib", *out).stdout
        found = re.findall(r"^\| (\w.*?) +\| (none|trained) +\| +4 \|", said, re.M)
        assert found == [pair for pair in ROWS if methods == QUICK or pair in ROWS[::2]], said
        assert "256 px" in said and "celebref-hq" in said
    run("figure", "--n", "4", *words, "--method", "bicubic", "--method", "idfsr.pt", "--people",
        "1", *out)
    run("claims", *words, *QUICK, "--scale", "16", *out)
    run("report", *words, "--method", "bicubic,idfsr.pt", "--scale", "16", "--people", "1", *out)
    made = {path.name for path in (place / "out").iterdir()}
    assert {"table1.md", "table3.md", "table1.html", "claims.md", "report.html"} <= made, made
