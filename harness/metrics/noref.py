"""No-reference quality by pyiqa: CLIPIQA and MUSIQ where their weights are, PIQE (no weights)
beside them."""

from __future__ import annotations

import importlib.metadata
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from fsrbench.metrics import Metric, metric
from fsrbench.weights.catalogue import Url, WeightFile, register, require
from fsrbench.weights.places import exact_device, placed

_VERSION = importlib.metadata.version("pyiqa")

register(WeightFile(
    "clip-rn50", "RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    "MIT (openai/CLIP)", "CLIPIQA",
    (Url("https://openaipublic.azureedge.net/clip/models/"
         "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt"),)))
register(WeightFile(
    "musiq-koniq", "musiq_koniq_ckpt-e95806b9.pth", "e95806b9", "CC-BY-NC-SA-4.0 (pyiqa's weights)",
    "MUSIQ",
    (Url("https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
         "musiq_koniq_ckpt-e95806b9.pth"),)))

# Where pyiqa's own loaders look below $TORCH_HOME/hub.
_PLACES = {"clip-rn50": "clip/RN50.pt", "musiq-koniq": "pyiqa/musiq_koniq_ckpt-e95806b9.pth"}


def _seed(name: str) -> None:
    """Put a catalogued file where pyiqa looks for it, so that nothing is downloaded behind the
    user's back."""
    place = Path(torch.hub.get_dir()) / _PLACES[name]
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(require(name), place)


@lru_cache(maxsize=4)
def _model(name: str, weights: str):
    import pyiqa

    if weights:
        _seed(weights)
    return pyiqa.create_metric(name, device=torch.device(exact_device() if weights else "cpu"))


def _scorer(name: str, weights: str = ""):
    def score(restored: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            images = placed(restored)[0] if weights else restored
            return np.array([float(_model(name, weights)(image[None])) for image in images])
    score.__doc__ = f"{name} of pyiqa, one image at a time, as its authors calibrate it."
    return score


metric(Metric(f"clipiqa.rn50@pyiqa-{_VERSION}", "CLIPIQA", +1, "noref",
              _scorer("clipiqa", "clip-rn50"),
              weight_files=("clip-rn50",), paper="clipiqa",
              words="CLIP's RN50, 8-bit RGB, no border cropped"))
metric(Metric(f"musiq.koniq@pyiqa-{_VERSION}", "MUSIQ", +1, "noref",
              _scorer("musiq", "musiq-koniq"),
              weight_files=("musiq-koniq",), digits=2, paper="musiq",
              words="trained on KonIQ, 8-bit RGB, no border cropped"))
# PIQE counts blocks of 16 px as active and distorted or not, by thresholds; where all 16 of a 64-px
# image are active, one is 100 / (1 + 16).
metric(Metric(f"piqe.default@pyiqa-{_VERSION}", "PIQE", -1, "noref", _scorer("piqe"), digits=2,
              stand_in="CLIPIQA, MUSIQ",
              jump=100 / 17, words="no network, luma of 8-bit RGB, no border cropped"))
