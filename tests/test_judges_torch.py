"""Judges whose networks are in torch: files as published, with weights that are made up."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facexlib.recognition.arcface_arch import Backbone

from fsrbench.errors import FsrError
from fsrbench.faces.align import arcface_frame, sample
from fsrbench.imaging import load, to_float
from fsrbench.methods.common.ir50 import AdaFace
from fsrbench.metrics import get_feature, metrics
from fsrbench.metrics.recognisers import RECOGNISERS
from fsrbench.weights.catalogue import get_entry

POINTS = np.random.default_rng(0).uniform(20, 80, (68, 2))


def made_up(network):
    """A network's state with numbers in its normalisations, as training leaves them, and wide
    enough that faces differ."""
    torch.manual_seed(0)
    change = {"running_var": lambda x: torch.rand_like(x) + 0.5,
              "running_mean": lambda x: torch.randn_like(x) / 10}
    return {key: change.get(key.rpartition(".")[2], lambda x: x * 2 if x.ndim == 4 else x)(value)
            for key, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with both files: TreB1eN's is a bare state dict, AdaFace's a checkpoint of
    Lightning with the head of its training."""
    metrics()
    folder = tmp_path_factory.mktemp("judges")
    torch.save(made_up(Backbone(50, 0.6, "ir_se")), folder / get_entry("arcface-irse50").file)
    network = {f"model.{key}": value for key, value in made_up(AdaFace()).items()}
    torch.save({"epoch": 1, "hyper_parameters": {"arch": "ir_50"}, "state_dict": {
        **network, "head.kernel": torch.zeros(512, 9), "head.t": torch.zeros(1)}},
        folder / get_entry("adaface-ir50-ms1mv2").file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSRBENCH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def images(orl_root):
    return [load(orl_root / f"s{i}" / "1.pgm") // (1, 1, 2) for i in (1, 5)]


def judged(name, images):
    vectors = get_feature(RECOGNISERS[name].feature).function(images, [POINTS] * len(images))
    assert vectors.shape == (len(images), 512) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    return vectors


def chips(images):
    cut = np.stack([sample(image, arcface_frame(POINTS), 112) for image in images])
    return torch.from_numpy(to_float(cut)) * 2 - 1


def by_keys(state, x):
    """AdaFace's embeddings by the names and shapes in its file alone."""
    def normed(x, key):
        return F.batch_norm(x, *(state.get(f"{key}.{part}") for part in
                                 ("running_mean", "running_var", "weight", "bias")))

    def convolved(x, key, stride=1):
        weight = state[f"{key}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    x = F.prelu(normed(convolved(x, "model.input_layer.0"), "model.input_layer.1"),
                state["model.input_layer.2.weight"])
    for i in range(24):
        unit, stride = f"model.body.{i}", 2 if i in (0, 3, 7, 21) else 1
        short = x[..., ::stride, ::stride]
        if f"{unit}.shortcut_layer.0.weight" in state:
            short = normed(convolved(x, f"{unit}.shortcut_layer.0", stride),
                           f"{unit}.shortcut_layer.1")
        h = convolved(normed(x, f"{unit}.res_layer.0"), f"{unit}.res_layer.1")
        h = F.prelu(normed(h, f"{unit}.res_layer.2"), state[f"{unit}.res_layer.3.weight"])
        x = short + normed(convolved(h, f"{unit}.res_layer.4", stride), f"{unit}.res_layer.5")
    x = normed(x, "model.output_layer.0").flatten(1)
    x = F.linear(x, state["model.output_layer.3.weight"], state["model.output_layer.3.bias"])
    return F.normalize(normed(x, "model.output_layer.4"))


@torch.no_grad()
def test_ir_se_50_is_the_network_of_another_library(cache, images):
    theirs = Backbone(50, 0.6, "ir_se").eval()
    theirs.load_state_dict(torch.load(cache / get_entry("arcface-irse50").file,
                                      weights_only=True))
    ours = judged("irse50", images)
    assert ((ours * theirs(chips(images)).numpy()).sum(1) > 0.99999).all()
    assert ours[0] @ ours[1] < 0.999


@torch.no_grad()
def test_adaface_is_what_its_file_says_and_sees_bgr(cache, images):
    state = torch.load(cache / get_entry("adaface-ir50-ms1mv2").file,
                       weights_only=True)["state_dict"]
    ours, x = judged("adaface", images), chips(images)
    assert ((ours * by_keys(state, x.flip(1)).numpy()).sum(1) > 0.99999).all()
    assert ((ours * by_keys(state, x).numpy()).sum(1) < 0.999).all()


def test_a_file_of_another_network_is_refused_by_its_keys(cache, images, monkeypatch, tmp_path):
    entry = get_entry("adaface-ir50-webface4m")
    (tmp_path / entry.file).symlink_to(cache / get_entry("arcface-irse50").file)
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path))
    with pytest.raises(FsrError, match="adaface-ir50-webface4m: not of this network: missing"):
        judged("adaface-webface", images)


def test_without_their_files_they_are_not_here_and_say_how_to_get_them(tmp_path, monkeypatch):
    known = metrics()
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path))
    why = [known[f"gap.people-truthpoints@{name}"].missing()
           for name in ("irse50", "adaface", "adaface-webface")]
    assert f"put model_ir_se50.pth into {tmp_path}" in why[0]
    assert "adaface_ir50_ms1mv2.ckpt is missing; run `invoke weights --get adaface-" in why[1]
    assert "weights --get adaface-ir50-webface4m" in why[2]
