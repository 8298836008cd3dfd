"""ncnn's model files: the graph of a `.param`, and the convolutions of its `.bin` as tensors.

Source: Tencent/ncnn (BSD-3), param and model binary formats. A `.bin` holds the layers' weights in
the graph's order and says nothing of their shapes. Each weight starts with a tag of four bytes, 0
for float32 as it is and FP16 for half precision, padded to four bytes; a bias is float32 without a
tag.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fsrbench.errors import FsrError

MAGIC = "7767517"
FLOAT32, FP16 = 0x00000000, 0x01306B47
# What a layer without weights is called, of those that published networks here are made of.
WEIGHTLESS = frozenset("Input Split Concat Eltwise BinaryOp Interp PixelShuffle ReLU".split())


@dataclass(frozen=True)
class Layer:
    """A line of a `.param`.

    Args:
        kind: as ncnn calls it; inputs, outputs: names of blobs; options: by number, arrays as
            tuples.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: dict[int, float | tuple[float, ...]]


def _option(word: str) -> tuple[int, float | tuple[float, ...]]:
    key, _, value = word.partition("=")
    if int(key) > -23300:
        return int(key), float(value)
    count, *values = value.split(",")
    if len(values) != int(count):
        raise ValueError(f"{word} does not hold {count} values")
    return -23300 - int(key), tuple(map(float, values))


def _layer(line: str) -> Layer:
    kind, name, inputs, outputs, *words = line.split()
    first, last = int(inputs), int(inputs) + int(outputs)
    return Layer(kind, name, tuple(words[:first]), tuple(words[first:last]),
                 dict(map(_option, words[last:])))


def read_graph(path: Path) -> list[Layer]:
    """Layers of a `.param` in their order.

    Raises:
        FsrError: the file is no text of ncnn's format, or is cut off.
    """
    try:
        magic, counts, *lines = path.read_text(encoding="utf-8").splitlines()
        layers = [_layer(line) for line in lines if line.strip()]
        if magic.strip() != MAGIC or len(layers) != int(counts.split()[0]):
            raise ValueError(f"{len(layers)} layers after {magic[:20]!r}, {counts[:20]!r}")
        return layers
    except (ValueError, OSError) as error:
        raise FsrError(f"weights {path}", f"cannot be read as an ncnn graph ({error})",
                       "fetch the file again") from None


def _taken(data: memoryview, place: int, count: int, kind: str) -> tuple[np.ndarray, int]:
    """`count` numbers of a kind, and the place behind them, which is a multiple of four."""
    values = np.frombuffer(data, kind, count, place).astype(np.float32)
    return values, place + -(-count * np.dtype(kind).itemsize // 4) * 4


def _convolution(layer: Layer, data: memoryview, place: int) -> tuple[list[np.ndarray], int]:
    """Weight (out, in, h, w), the bias (out,) where there is one, and the place behind them."""
    if lacking := {0, 1, 6} - layer.options.keys():
        raise ValueError(f"{layer.name} lacks option {min(lacking)}")
    out, width, size = (int(layer.options[key]) for key in (0, 1, 6))
    height, tag = int(layer.options.get(11, width)), int(np.frombuffer(data, "<u4", 1, place)[0])
    if tag not in (FLOAT32, FP16):
        raise ValueError(f"{layer.name} is stored under the tag {tag:#010x}, which is neither "
                         "float32 nor fp16")
    weight, place = _taken(data, place + 4, size, "<f2" if tag == FP16 else "<f4")
    found = [weight.reshape(out, -1, height, width)]
    if layer.options.get(5):
        bias, place = _taken(data, place, out, "<f4")
        found.append(bias)
    return found, place


def read_weights(graph: Path, weights: Path) -> list[torch.Tensor]:
    """Weights and biases of a network's convolutions in the graph's order, float32.

    Raises:
        FsrError: a file is damaged or the two do not belong together, or a layer is of a kind whose
        weights are not known.
    """
    layers, tensors, place = read_graph(graph), [], 0
    try:
        data = memoryview(weights.read_bytes())
        for layer in layers:
            if layer.kind == "Convolution":
                found, place = _convolution(layer, data, place)
                tensors += [torch.from_numpy(values) for values in found]
            elif layer.kind not in WEIGHTLESS:
                raise ValueError(f"{layer.name} is a {layer.kind}, which this reader does not know")
        if place != len(data):
            raise ValueError(f"{len(data) - place} bytes are left behind the last layer")
    except (ValueError, OSError) as error:
        raise FsrError(f"weights {weights}", f"cannot be read by {graph.name} ({error})",
                       "fetch both files again") from None
    return tensors
