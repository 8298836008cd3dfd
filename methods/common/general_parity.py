"""Parity of an ncnn model's reader and network with ncnn itself, on what it made of two images that
show no person."""

from __future__ import annotations

import torch

from fsrbench.methods.common.general import GRAPH, GeneralMethod
from fsrbench.profiles import get_profile
from fsrbench.proof.parity import check, error

# The recordings are in half precision, which is half a thousandth at 1.
TOLERANCE = 1e-3


def register_check(cls: type[GeneralMethod]) -> None:
    """Check a method's network, out of its published files, under the name of its weights."""
    weights = cls.parts["network"].weights

    @check(weights, TOLERANCE, (weights, weights + GRAPH))
    def _parity(fixture: dict) -> float:
        method = cls(get_profile("mini"))
        images = method.seen(torch.from_numpy(fixture["in_x"]))
        return error(method.part("network")(images).cpu(), fixture["out_y"])
