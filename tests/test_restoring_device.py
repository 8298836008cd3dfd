"""Every method restores, and every metric of a network measures, on CUDA alone: shown on fake CUDA
tensors, without a GPU. A call that mixes devices raises there as on a true one."""

import sys

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map

from fsrbench import registry
from fsrbench.errors import FsrError
from fsrbench.profiles import PROFILES
from fsrbench.reports.gate import speed
from fsrbench.weights import places
from fsrbench.weights.graphs import Watched

MINI = [name for name in speed.chosen(PROFILES["mini"], ()) if name != "idfsr.pt"]
OTHERS = ["idfsr.pt", "idfsr.noref", "idfsr.case0", "dr2.mini-raw", "pgdiff.mini-ref",
          "asffnet.mini-album", "dmdnet.mini-album"]


@pytest.fixture
def on_cuda(monkeypatch):
    """Networks run on "cuda"; samplers make three steps."""
    registry.load("methods", "metrics")
    asked = places.device, places.exact_device
    for module in [m for name, m in sys.modules.items() if name.startswith("fsrbench.")]:
        for function in asked:
            if vars(module).get(function.__name__) is function:
                monkeypatch.setattr(module, function.__name__, lambda: "cuda")
    # numpy() of a fake tensor has no values; what is asked for it must be on the processor.
    monkeypatch.setattr(torch.Tensor, "numpy", lambda x: on_the_processor(x))
    # Autograd asks for the stream of a true device.
    monkeypatch.setattr(torch.autograd, "grad", lambda loss, x: [torch.zeros_like(x)])
    # TorchScript's fuser asks for the driver.
    before = torch._C._jit_can_fuse_on_gpu()
    torch._C._jit_override_can_fuse_on_gpu(False)
    yield
    torch._C._jit_override_can_fuse_on_gpu(before)


def on_the_processor(x):
    assert x.device.type == "cpu"
    return np.zeros(x.shape, np.float32)


def watched(network, seen):
    """The network on fake CUDA, each call of which must be on the device and could be captured."""
    inner, made = network.forward, []

    def forward(*args, **kwargs):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        assert {x.device.type for x in tensors} == {"cuda"}
        seen.append(type(network).__name__)
        if torch.is_grad_enabled():
            return inner(*args, **kwargs)
        if len(made) < 2:  # further steps of a sampler are like the second
            with Watched():
                made.append(inner(*args, **kwargs))
        return tree_map(torch.clone, made[-1])
    network.forward = forward
    return network


def restored(name, profile):
    """What a method returns for two samples on fake CUDA, and the networks that it called."""
    method, seen = registry.get(name)(PROFILES[profile]), []
    with FakeTensorMode(allow_non_fake_inputs=True):
        for role, part in method.parts.items():
            if not part.within:
                with torch.device("cuda"):
                    network = part.build().eval().requires_grad_(False)
                method.stand_ins[role] = watched(network, seen)
        return method.restore(speed.batch_of(method, 8, 2)), seen


@pytest.fixture
def few_steps(monkeypatch):
    """Long samplers make few steps."""
    difface, pgdiff = (sys.modules[f"fsrbench.methods.{name}.method"]
                       for name in ("difface", "pgdiff"))
    monkeypatch.setattr(difface, "KEPT", 10)
    for found in (difface.DifFaceMini, difface.DifFaceOfficial):
        monkeypatch.setattr(found, "start", 3)
    for found in (pgdiff.PgDiffMini, pgdiff.PgDiffOfficial):
        monkeypatch.setattr(found, "steps", 4)


@pytest.mark.parametrize("name", [*OTHERS, *MINI])
def test_a_restoration_runs_on_the_gpu_and_waits_for_nothing(name, on_cuda, few_steps):
    found, seen = restored(name, "mini")
    assert found.shape == (2, 3, 64, 64) and len(seen) >= 1
    assert isinstance(found, np.ndarray) or found.device.type == "cpu"


OFFICIAL = ["asffnet.official", "codeformer.official", "dmdnet.official", "dpi.official"]


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_networks_do_too(name, on_cuda):
    found, seen = restored(name, "paper")
    assert found.shape == (2, 3, 256, 256) and len(seen) >= 1


@pytest.mark.parametrize("name", ["psnr", "ssim", "psnr-y", "lpips", "lpips-vgg", "dists"])
def test_metrics_of_images_are_computed_on_the_gpu(name, on_cuda, monkeypatch):
    from fsrbench.metrics import family, perceptual, vgg

    metric, seen = family(name)[0], []
    for module, function in ((perceptual, "network"), (vgg, "lpips_network"),
                             (vgg, "dists_network")):
        def made(place, module=module, function=function):
            seen.append(place)
            return lambda a, b: (a - b).mean((1, 2, 3))
        monkeypatch.setattr(module, function, made)
    images = torch.zeros(2, 3, 64, 64)
    with FakeTensorMode(allow_non_fake_inputs=True):
        # Fake tensors do not know inference mode.
        values = getattr(metric.function, "__wrapped__", metric.function)(images, images)
    assert values.shape == (2,) and set(seen) <= {"cuda"}
    assert bool(seen) is (name in ("lpips", "lpips-vgg", "dists"))


def test_an_environment_variable_chooses_the_device(monkeypatch):
    monkeypatch.setenv("FSRBENCH_DEVICE", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert places.device() == "cpu"
    monkeypatch.setenv("FSRBENCH_DEVICE", "")
    assert places.device() == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for asked, cause in (("cuda", "sees no GPU"), ("tpu", "is not cpu or cuda")):
        monkeypatch.setenv("FSRBENCH_DEVICE", asked)
        with pytest.raises(FsrError, match=cause):
            places.device()
