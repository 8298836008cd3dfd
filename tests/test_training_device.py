"""Every training runs on CUDA, and no step of one waits for the device: shown on fake CUDA tensors,
without a GPU."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import full_but
from safetensors.torch import save_file
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fsrbench.faces import lr
from fsrbench.faces.retinaface import load_retinaface
from fsrbench.methods.common.identity import IdentityEncoder
from fsrbench.methods.common.sface import SIDE, SFace
from fsrbench.methods.idfsr.training import RECIPES
from fsrbench.training.bank import Bank, Faces, Origin
from fsrbench.training.loop import Trainer, TrainOptions
from fsrbench.training.tasks import _tasks, tasks
from fsrbench.weights.catalogue import require

WAITS = ("_local_scalar_dense", "nonzero", "item", "masked_select", "unique")


class Captured(TorchDispatchMode):
    """Refuses what cannot be captured in a CUDA graph: reading the device, and copies between it
    and the host."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, kwargs = function.name(), kwargs or {}
        if any(word in name for word in WAITS):
            raise AssertionError(f"{name} waits for the device")
        if "lift_fresh" in name:
            raise AssertionError(f"{name}: a tensor made of Python numbers is copied to the device")
        if "_to_copy" in name and "device" in kwargs and kwargs["device"] is not None:
            if torch.device(kwargs["device"]).type != args[0].device.type:
                raise AssertionError(f"{name} copies from {args[0].device} to {kwargs['device']}")
        return function(*args, **kwargs)


def fake_bank(person, profile="mini", size=64, z_id=128, device="cuda"):
    """Faces without content, on a fake GPU unless told otherwise."""
    def faces():
        n = len(person)
        made = Faces(torch.zeros(n, 3, 112, 112, dtype=torch.uint8), torch.rand(n, 68, 2) * 112,
                     person,
                     torch.zeros(n, 140, 3, dtype=torch.uint8), torch.rand(n, z_id), size, device)
        made.plain = made.triangles
        return made
    return Bank(Origin("fake", 0, profile, "sface", (), ""), faces(), faces(),
                np.zeros((1, 64), np.uint8))


def on_gpu(network, fake):
    """The network with fake CUDA tensors in the place of its own."""
    for module in network.modules():
        for kind in (module._parameters, module._buffers):
            for key, value in kind.items():
                if value is not None and value.device.type != "cuda":
                    value = (fake.from_tensor(value.detach()) if not hasattr(value, "fake_mode")
                             else value.detach())
                    moved = value.to("cuda")
                    kind[key] = torch.nn.Parameter(moved,
                                                   False) if kind is module._parameters else moved
    return network


# The landmark detector's examples are made, and its boxes matched, on the processor.
@pytest.mark.parametrize("name", full_but(
    [*sorted(set(tasks()) - {"landmarks"}), "idfsr judged", "idfsr of the paper"],
    "idfsr judged", "prior", "stablesr", "codeformer-fusion"))
def test_a_step_on_a_fake_gpu_waits_for_nothing(name, tmp_path, monkeypatch):
    from fsrbench.methods.common.image_loss import _network
    from fsrbench.methods.stablesr.mini import mini_vae

    save_file(mini_vae().state_dict(), tmp_path / "vae.safetensors")
    arguments = {"vae": str(tmp_path / "vae.safetensors")} if name == "stablesr" else {}
    vae = mini_vae().state_dict()
    monkeypatch.setattr("fsrbench.methods.stablesr.training.read_state", lambda path: vae)
    if name == "idfsr judged":
        name, arguments = "idfsr", {"recipe": replace(RECIPES["mini"], identity=0.25)}
    of = ()
    if name == "idfsr of the paper":
        name, of = "idfsr", ("paper", 256, 512)
        detector = load_retinaface(require(lr.MINI.weights), lr.MINI.config)
        monkeypatch.setattr("fsrbench.training.detected.load_retinaface", lambda *_: detector)
    judge = IdentityEncoder(SFace(), SIDE)
    person = np.sort(np.random.default_rng(0).integers(0, 12, 40)).astype(np.int64)
    lpips = copy.deepcopy(_network("cpu"))
    # Autograd asks for the stream of a true device; what it would do is arithmetic on the device.
    monkeypatch.setattr(torch.Tensor, "backward",
                        lambda loss: [setattr(p, "grad", torch.zeros_like(p)) for p in task.model
                                                                .parameters() if p.requires_grad])
    # Networks are built on the device; fake parameters cannot be given another layout.
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)
    # The EMA is a deep copy. A fake buffer's would copy the mode, and with it the weak references
    # to storages, which are then given up twice: the count that this lowers may by then be anything
    # in the process.
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, _: mode, raising=False)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        monkeypatch.setattr("fsrbench.methods.common.image_loss._network",
                            lambda device: on_gpu(lpips, fake))
        on_gpu(judge.network, fake)
        monkeypatch.setattr("fsrbench.methods.idfsr.training.load_identity", lambda *_: judge)
        task = _tasks[name](fake_bank(person, *of), device="cuda", **arguments)
        task.origin = {"weights": "the stage before"}
        for module in (v for v in vars(task).values() if isinstance(v, torch.nn.Module)
                       and v is not task.model):
            on_gpu(module, fake)
        trainer = Trainer(task, TrainOptions(steps=2, precision="bf16", batch=8))
        trainer.optimizer.step = lambda: None  # torch's fused kernels have no fake version
        trainer.body()  # matrices of resizing and the like are made once
        with Captured():
            trainer.body()
        assert trainer.loss.device.type == "cuda"
        assert all(p.grad is None or p.grad.device.type == "cuda" for p in task.model.parameters())


def test_a_fit_of_two_runs_on_a_fake_gpu(monkeypatch):
    from types import SimpleNamespace

    from fsrbench.methods.idfsr import fitting
    from fsrbench.methods.idfsr.configs import MINI
    from fsrbench.methods.idfsr.network import IdfsrNet
    from fsrbench.profiles import PROFILES

    def examples(person, profile, rng, region):
        n = 3 * len(fitting.SCALES)
        return {name: torch.zeros(n, 3, 64, 64) for name in ("x0", "I_M", "I_W")}
    asked, seen = [], []
    monkeypatch.setattr(fitting, "_examples", examples)
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: seen.append(loss.device.type))
    monkeypatch.setattr(torch.Tensor, "detach", lambda tensor: asked.append(tensor.device.type)
                        or tensor.clone())
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            network = IdfsrNet(MINI).eval().requires_grad_(False)
        people = [SimpleNamespace(name=name, album=[None] * 3) for name in ("s1", "s2")]
        fitted = fitting.fit_identities(network, MINI, PROFILES["mini"], people,
                                        torch.zeros(2, 128), 0)
    assert fitted.shape == (2, 128) and fitted.device.type == "cpu"
    assert asked[-1] == "cuda" and set(seen) == {"cuda"}
