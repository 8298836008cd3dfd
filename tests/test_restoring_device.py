"""Every method restores, and every metric of a network measures, on CUDA alone: shown on fake CUDA
tensors, without a GPU. A call that mixes devices raises there as on a true one."""

import sys
from functools import partial

import numpy as np
import pytest
import torch
from conftest import full_but
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._pytree import tree_leaves, tree_map

from fsrbench import registry
from fsrbench.errors import FsrError
from fsrbench.profiles import PROFILES
from fsrbench.reports.gate import speed
from fsrbench.weights import networks, places
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


@pytest.mark.parametrize("name", full_but(
    [*OTHERS, *MINI], "idfsr.pt", "codeformer.mini", "dpi.mini", "dmdnet.mini-album"))
def test_a_restoration_runs_on_the_gpu_and_waits_for_nothing(name, on_cuda, few_steps):
    found, seen = restored(name, "mini")
    assert found.shape == (2, 3, 64, 64) and len(seen) >= 1
    assert isinstance(found, np.ndarray) or found.device.type == "cpu"


OFFICIAL = ["asffnet.official", "codeformer.official", "dmdnet.official", "dpi.official"]


@pytest.mark.full
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


def moved(network, place, dtype=None, **_):
    """`nn.Module.to` with new parameters; its own would give a true one a fake one's storage."""
    for part in network.modules():
        for kind in (part._parameters, part._buffers):
            for name, value in kind.items():
                if value is not None:
                    found = value.detach().to(place, dtype if value.is_floating_point() else None)
                    kind[name] = (torch.nn.Parameter(found, False) if kind is part._parameters
                                  else found)
    return network


@pytest.fixture
def own_networks(on_cuda, monkeypatch):
    """Networks that are read from their files and kept are made anew on fake CUDA."""
    from fsrbench.methods.common import mobilestylegan, mobilestylegan_heads
    from fsrbench.methods.pulse import method
    from fsrbench.metrics import dlib_network

    kept = {value for module in (mobilestylegan, mobilestylegan_heads, method, dlib_network)
            for value in vars(module).values() if hasattr(value, "cache_clear")}
    inner = networks.read_state

    def read(path):
        with unset_fake_temporarily():
            return inner(path)
    for module in [m for name, m in sys.modules.items() if name.startswith("fsrbench.")]:
        if vars(module).get("read_state") is inner:
            monkeypatch.setattr(module, "read_state", read)
    monkeypatch.setattr(torch.nn.Module, "to", moved)
    # A copy of the mode would give weak references to storages up twice.
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, _: mode, raising=False)
    for function in kept:
        function.cache_clear()
    yield
    for function in kept:
        function.cache_clear()


@pytest.mark.parametrize("name", ["pulse.official-prior", "pulse.official-prior-id"])
def test_pulse_searches_on_the_gpu(name, own_networks, monkeypatch):
    from fsrbench.methods.pulse import method as pulse

    # What the matrices show is read from true ones.
    spans = pulse.Window(64, 64, PROFILES["mini"].frame, "cpu")._spans
    monkeypatch.setattr(pulse.Window, "_spans", spans)
    monkeypatch.setattr(pulse, "search", partial(pulse.search, steps=7))
    seen = []

    # Autograd asks for the stream of a true device.
    def backward(loss):
        leaves = [loss.grad_fn]
        while not hasattr(leaves[0], "variable"):
            leaves[:1] = [node for node, _ in leaves[0].next_functions if node is not None]
        latent = leaves[0].variable
        latent.grad = torch.zeros_like(latent)
        seen.append((loss.device.type, tuple(latent.shape[:2])))
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    method = registry.get(name)(PROFILES["mini"])
    with FakeTensorMode(allow_non_fake_inputs=True):
        found = method.restore(speed.batch_of(method, 8, 2))
    group = method.together[64]
    assert seen == -(-2 // group) * (5 * [("cuda", (group, 2))] + 2 * [("cuda", (group, 1))])
    assert found.shape == (2, 3, 64, 64) and found.device.type == "cpu"


def test_dlib_s_network_embeds_on_the_gpu(own_networks, monkeypatch):
    from fsrbench.metrics import dlib_network

    inner, seen = dlib_network.DlibNetwork.forward, []

    def forward(network, x):
        seen.append(x.device.type)
        return inner(network, x)
    monkeypatch.setattr(dlib_network.DlibNetwork, "forward", forward)
    with FakeTensorMode(allow_non_fake_inputs=True):
        found = dlib_network.embed(np.zeros((3, 150, 150, 3), np.uint8))
    assert found.shape == (3, 128) and seen == ["cuda"]


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
