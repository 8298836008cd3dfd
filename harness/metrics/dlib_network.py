"""dlib's recogniser in torch: the network of `face_recognition_model_v1`, which DeepFace's `Dlib`
calls, in batches and on any device.

Source: davisking/dlib `dnn_face_recognition_ex` (shapes) and its serialisation (the file); Boost
licence. The file keeps its layers in their order, each behind its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from fsrbench.errors import FsrError
from fsrbench.weights.catalogue import require
from fsrbench.weights.places import exact_device

FEATURES = 128
# Means that dlib subtracts of RGB, before it divides by 256.
MEANS = (122.782, 117.001, 104.298)
# Channels of the residual blocks; those at places in _STRIDED halve the side.
_BLOCKS = (32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256)
_STRIDED = (3, 7, 10, 13)
# Chips at once: more is no faster on a processor. Of fewer than four a convolution may round
# otherwise, so that who stands beside a chip would decide its last bit.
_AT_ONCE, _TOGETHER = 16, 4


def _meeting(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The sum of maps that may differ in channels and sides; the smaller counts as 0 beyond its
    end, as in dlib's `add_prev`."""
    shape = [max(a, b) for a, b in zip(x.shape, y.shape)]

    def grown(z: torch.Tensor) -> torch.Tensor:
        missing = [want - have for want, have in zip(shape, z.shape)]
        return F.pad(z, (0, missing[3], 0, missing[2], 0, missing[1])) if any(missing) else z
    return grown(x) + grown(y)


class _Block(nn.Module):
    """Two convolutions beside the identity, or beside an average of 2 x 2."""

    def __init__(self, c_in: int, c_out: int, strided: bool):
        super().__init__()
        self.strided = strided
        self.conv1 = nn.Conv2d(c_in, c_out, 3, 1 + strided, 1 - strided)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        beside = F.avg_pool2d(x, 2) if self.strided else x
        return F.relu(_meeting(self.conv2(F.relu(self.conv1(x))), beside))


class DlibNetwork(nn.Module):
    """(N, 3, 150, 150) RGB in 0 to 255, cut as `identity.chip` does, to (N, 128), not normalised.

    The affine layer behind each convolution is folded into it.
    """

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, _BLOCKS[0], 7, 2)
        widths = (_BLOCKS[0], *_BLOCKS)
        self.blocks = nn.Sequential(*(_Block(widths[i], width, i in _STRIDED)
                                      for i, width in enumerate(_BLOCKS)))
        self.last = nn.Linear(_BLOCKS[-1], FEATURES, bias=False)
        self.register_buffer("means", torch.tensor(MEANS)[:, None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.first((x - self.means) / 256)), 3, 2)
        return self.last(self.blocks(x).mean((2, 3)))


@dataclass
class _Reader:
    """A place in bytes that dlib has serialised."""

    data: bytes
    at: int = 0

    def behind(self, name: bytes) -> None:
        """Go on behind a layer's name, which stands behind its length."""
        at = self.data.find(bytes([1, len(name)]) + name, self.at)
        if at < 0:
            raise ValueError(f"no layer {name.decode()} behind byte {self.at}")
        self.at = at + 2 + len(name)

    def integer(self) -> int:
        """One: the number of its bytes, and these, lowest first."""
        size = self.data[self.at] & 15
        self.at += 1 + size
        return int.from_bytes(self.data[self.at - size:self.at], "little")

    def tensor(self, wanted: int) -> np.ndarray:
        """The floats of a tensor, flat, which must be so many."""
        version, *shape = (self.integer() for _ in range(5))
        count = int(np.prod(shape))
        if version != 2 or count != wanted:
            raise ValueError(f"a tensor of {shape} (version {version}), not of {wanted} floats")
        self.at += 4 * count
        return np.frombuffer(self.data, "<f4", count, self.at - 4 * count).copy()


def _convolution(reader: _Reader, layer: nn.Conv2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution and the affine layer behind it."""
    count, width = layer.weight.numel(), layer.out_channels
    reader.behind(b"con_4")
    own = torch.from_numpy(reader.tensor(count + width))
    reader.behind(b"affine_")
    gamma, beta = torch.from_numpy(reader.tensor(2 * width)).split(width)
    return (own[:count].view_as(layer.weight) * gamma[:, None, None, None],
            own[count:] * gamma + beta)


def read_dlib(path: Path) -> dict[str, torch.Tensor]:
    """The state of `DlibNetwork` out of dlib's file.

    Raises:
        FsrError: it is another network's, or cut off.
    """
    reader, layout, state = _Reader(path.read_bytes()), DlibNetwork(), {}
    convolutions = {name: module for name, module in layout.named_modules()
                    if isinstance(module, nn.Conv2d)}
    try:
        for name, layer in convolutions.items():
            state[f"{name}.weight"], state[f"{name}.bias"] = _convolution(reader, layer)
        reader.behind(b"fc_2")
        outputs, inputs = reader.integer(), reader.integer()
        state["last.weight"] = torch.from_numpy(reader.tensor(
            layout.last.weight.numel())).view(inputs, outputs).T.contiguous()
    except (ValueError, IndexError, RuntimeError) as error:
        raise FsrError(f"weights {path}", f"is not dlib's recogniser ({error})",
                       "delete the file and fetch it again") from None
    return state


# The first caller may be in inference mode; weights made there belong to it.
@lru_cache(maxsize=2)
@torch.inference_mode(False)
def network(place: str = "cpu") -> DlibNetwork:
    """The network with its published weights, on a device."""
    found = DlibNetwork()
    found.load_state_dict(read_dlib(require("dlib-recognition")), strict=True)
    return found.eval().requires_grad_(False).to(place, memory_format=torch.channels_last)


@torch.inference_mode()
def embed(chips: np.ndarray, place: str = "") -> np.ndarray:
    """Embeddings (N, 128) of uint8 RGB chips (N, 150, 150, 3), on a device, or where networks
    run."""
    place = place or exact_device()
    model, found = network(place), []
    full = np.concatenate([chips, np.repeat(chips[-1:], -len(chips) % _TOGETHER, 0)])
    for part in torch.from_numpy(full).split(_AT_ONCE):
        x = part.permute(0, 3, 1, 2).float().to(place)
        found.append(model(x).cpu().numpy())
    return np.concatenate(found)[:len(chips)]
