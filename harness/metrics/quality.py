"""No-reference quality by further networks of pyiqa, where their weights are: MANIQA and TOPIQ; and
NIQE as BasicSR, VQFR and PMRF have it."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from fsrbench.faces.detect import RETINAFACE
from fsrbench.metrics import Metric, metric
from fsrbench.metrics.natural import NIQE_LEAST, _pristine
from fsrbench.weights.catalogue import Url, WeightFile, register, require
from fsrbench.weights.places import exact_device, placed

_HUB = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download/"
# Catalogue name -> file, first digits of its sha256 where its name has them, what it is for.
_FILES = {"maniqa-koniq": ("ckpt_koniq10k.pt", "", "MANIQA"),
          "topiq-nr-koniq": ("cfanet_nr_koniq_res50-9a73138b.pth", "9a73138b", "TOPIQ-NR"),
          "topiq-face": ("topiq_nr_cgfiqa_res50-0a8b8e4f.pth", "0a8b8e4f", "TOPIQ-face")}
for _name, (_file, _digest, _what) in _FILES.items():
    register(WeightFile(_name, _file, _digest, "CC-BY-NC-SA-4.0 (pyiqa's weights)", _what,
                        (Url(_HUB + _file),)))
register(WeightFile("facexlib-parsing", "parsing_parsenet.pth", "", "MIT (xinntao/facexlib)",
                    "TOPIQ-face, whose face helper loads it",
                    (Url(_FACEXLIB + "v0.2.2/parsing_parsenet.pth"),)))


def _place(weights: tuple[str, ...]) -> None:
    """Put catalogued files where pyiqa and facexlib look for them, so that nothing is downloaded
    behind the user's back."""
    folder = Path(torch.hub.get_dir()) / "pyiqa"
    folder.mkdir(parents=True, exist_ok=True)
    for path in map(require, weights):
        if not (folder / path.name).exists():
            os.symlink(path, folder / path.name)


@lru_cache(maxsize=3)
@torch.inference_mode(False)
def _model(name: str, weights: tuple[str, ...]) -> torch.nn.Module:
    import pyiqa
    import timm

    _place(weights)
    # The checkpoint holds the backbone too, which would be downloaded first.
    made = timm.create_model
    with mock.patch("timm.create_model",
                    lambda *args, **kwargs: made(*args, **{**kwargs, "pretrained": False})):
        return pyiqa.create_metric(name, device=torch.device(exact_device()))


def _scorer(name: str, weights: tuple[str, ...]):
    def score(restored: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            return np.array([float(_model(name, weights)(image[None]))
                             for image in placed(restored)[0]])
    score.__doc__ = f"{name} of pyiqa, one image at a time."
    return score


@torch.inference_mode()
def niqe_of_basicsr(restored: torch.Tensor) -> np.ndarray:
    """NIQE of each image's rounded luma of BT.601, over its whole blocks of 96 px."""
    from pyiqa.archs.niqe_arch import calculate_niqe

    return np.array([float(calculate_niqe(image[None], color_space="ycbcr", **_pristine()))
                     for image in restored])


_VERSION = version("pyiqa")
for _id, _title, _name, _weights, _words in (
        ("maniqa.koniq", "MANIQA", "maniqa", ("maniqa-koniq",),
         "trained on KonIQ, 20 crops of 224 px on a grid"),
        ("topiq-nr.koniq", "TOPIQ-NR", "topiq_nr", ("topiq-nr-koniq",), "trained on KonIQ"),
        ("topiq-face.cgfiqa", "TOPIQ-face", "topiq_nr-face",
         ("topiq-face", RETINAFACE.name, "facexlib-parsing"),
         "trained on CGFIQA, the face cut out by facexlib")):
    metric(Metric(f"{_id}@pyiqa-{_VERSION}", _title, +1, "noref", _scorer(_name, _weights),
                  weight_files=_weights, words=f"{_words}, 8-bit RGB"))
metric(Metric(f"niqe-basicsr.bt601@pyiqa-{_VERSION}", "NIQE (BasicSR)", -1, "noref",
              niqe_of_basicsr, weight_files=("niqe",), digits=2, least=NIQE_LEAST,
              words="rounded luma of BT.601 and BasicSR's parameters, blocks of 96 px, no border "
                    "cropped"))
