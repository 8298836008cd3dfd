"""Synthetic weights, the fill of the parity checks, are told by content and reach no table."""

import os
import shutil

import pytest
import torch
from safetensors.torch import save_file
from test_spandrel import RealEsrgan
from torch.nn.utils import spectral_norm

from fsrbench import registry
from fsrbench.errors import FsrError
from fsrbench.methods.common.arcface import IRBackbone
from fsrbench.methods.common.spectral_fill import filled_spectral
from fsrbench.methods.idfsr.configs import MINI
from fsrbench.methods.idfsr.network import IdfsrNet
from fsrbench.proof.parity import filled
from fsrbench.weights.catalogue import bundled_folder, cache_folder, catalogue, locate
from fsrbench.weights.fill import refuse_fill
from fsrbench.weights.networks import load_strict, read_state, unwrap

SAID = "holds synthetic weights, the fill of the parity checks"


@pytest.fixture(scope="module")
def network():
    return filled(IdfsrNet(MINI))


@pytest.fixture
def cache(tmp_path, network):
    """A cache that has all that is in the user's, and IDFSR's weights as a fill."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for path in cache_folder().glob("*"):
        os.symlink(path, folder / path.name)
    save_file(network.state_dict(), folder / "idfsr-mini.safetensors")
    return {"FSRBENCH_CACHE": str(folder)}


QUICK = ("--people", "2", "--scale", "16")


@pytest.mark.parametrize("words", [
    ("table1", "--method", "bicubic,idfsr.pt"), ("table1",), ("table2", "--method", "idfsr.ft"),
    ("table3", "--method", "idfsr.pt"), ("table5", "--data", "orl", "--method", "idfsr.pt"),
    ("figure", "--n", "4"), ("report",), ("claims",), ("identity", "--method", "idfsr.pt"),
    ("probe", "--method", "idfsr.pt"), ("analysis",), ("regress",),
    ("export-results", "--method", "idfsr.pt"),
    ("table1", "--engine", "processes", "--method", "idfsr.pt")],
    ids=lambda words: " ".join(words[:3]))
def test_commands_that_report_refuse_them(words, invoke, cache, tmp_path):
    """By name, before anything is computed, also where the method is one of the default ones."""
    out = () if words[0] in ("regress", "claims") else ("--out", tmp_path / "out")
    if words[0] == "export-results":
        out = ("--out", tmp_path / "idfsr.parquet")
    options = () if words[0] in ("claims", "regress", "figure", "analysis") else QUICK
    done = invoke(*words, *options, "--store", tmp_path / "store", *out, check=4, **cache)
    assert SAID in done.stderr and "weights idfsr-mini (" in done.stderr
    assert "put trained weights there; only parity and bench take these" in done.stderr
    assert not list((tmp_path / "store").glob("rows/*"))


def wrapped(state, how):
    """A state as files have it: under a name, with a prefix, in half precision."""
    if how == "half":
        return {key: value.bfloat16() for key, value in state.items()}
    if how == "list":
        return [{"model": (state,)}]
    if how in ("state_dict", "params_ema", "model"):
        return {how: {f"module.{key}": value for key, value in state.items()}, "iter": 7}
    return {"optimizer": {}, "state_dict": {f"ema_model.unet.{k}": v for k, v in state.items()}}


@pytest.mark.parametrize("name, how", [
    ("GFPGANv1.4.safetensors", "plain"), ("published.pth", "params_ema"), ("best.pt", "state_dict"),
    ("last.ckpt", "deep"), ("half.pth", "half"), ("a.npz", "params_ema"), ("a.dat", "list")])
def test_no_wrapper_name_or_precision_hides_them(tmp_path, name, how):
    state, path = filled(RealEsrgan()).state_dict(), tmp_path / name
    save_file(state, path) if how == "plain" else torch.save(wrapped(state, how), path)
    with pytest.raises(FsrError, match=SAID) as caught:
        refuse_fill(path, f"weights {name}")
    assert caught.value.code == 4


def test_the_fill_of_spectral_norms_is_told_too(tmp_path):
    network = filled_spectral(torch.nn.Sequential(spectral_norm(torch.nn.Conv2d(4, 8, 3))), ("0.",))
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(FsrError, match=SAID):
        refuse_fill(tmp_path / "a.safetensors", "weights a")


@pytest.mark.parametrize("name, how", [("a.safetensors", "plain"), ("b.pth", "params_ema"),
                                       ("c.npz", "params_ema"), ("d.txt", "half")])
def test_a_file_that_is_given_by_its_path_is_refused(tmp_path, invoke, name, how):
    state, path = filled(RealEsrgan()).state_dict(), tmp_path / name
    save_file(state, path) if how == "plain" else torch.save(wrapped(state, how), path)
    done = invoke("table1", "--method", f"spandrel:{path}", *QUICK, "--store", tmp_path / "store",
                  "--out", tmp_path, check=4)
    assert f", file {path}: {SAID}" in done.stderr and "method spandrel:" in done.stderr


def test_a_restoration_is_refused_too(tmp_path, invoke, cache, album):
    done = invoke("restore", "--image", album / "s1" / "1.pgm", "--album", album / "s5", "--method",
                  "idfsr.pt", "--out", tmp_path, check=4, **cache)
    assert SAID in done.stderr


def test_a_judge_s_weights_are_refused(tmp_path, invoke, cache):
    """A network that only measures, in its authors' file."""
    path = f"{cache['FSRBENCH_CACHE']}/model_ir_se50.pth"
    torch.save(filled(IRBackbone(se=True)).state_dict(), path)
    done = invoke("identity", "--method", "bicubic", "--judge", "irse50", *QUICK, "--store",
                  tmp_path / "store", "--out", tmp_path, check=4, **cache)
    assert f"weights arcface-irse50 ({path}): {SAID}" in done.stderr


def test_training_makes_weights_of_them_and_a_few_steps_do_not(tmp_path, network):
    """What is still the fill is refused; what has moved far from it is trained."""
    torch.manual_seed(0)
    path = tmp_path / "a.safetensors"
    for share, refused in ((0.02, True), (1.0, False)):
        save_file({key: value + share * value.std() * torch.randn_like(value)
                   if value.numel() > 1 else value
                   for key, value in network.state_dict().items()}, path)
        if refused:
            with pytest.raises(FsrError, match=SAID):
                refuse_fill(path, "weights a")
        else:
            assert refuse_fill(path, "weights a") == path


def test_no_weights_that_are_here_are_taken_for_a_fill():
    registry.load()
    found = [p for p in map(locate, catalogue()) if p]
    assert len(found) >= 20 and all(refuse_fill(path, "weights") == path for path in found)


def test_parity_takes_them(tmp_path, network):
    """They load as the authors' files do."""
    shutil.copy(bundled_folder() / "idfsr-mini.safetensors", tmp_path)
    save_file(network.state_dict(), tmp_path / "fill.safetensors")
    for name in ("fill", "idfsr-mini"):
        load_strict(IdfsrNet(MINI), unwrap(read_state(tmp_path / f"{name}.safetensors")), name)
