"""Constants of an OpenVINO IR: an XML file of layers, and a binary file that they point into.

Source: OpenVINO IR version 10 and 11, layers of type `Const`.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch

from fsrbench.errors import FsrError

_TYPES = {"f32": "<f4", "f16": "<f2"}


def read_constants(layers: Path, values: Path) -> list[tuple[str, torch.Tensor]]:
    """Floating-point constants by name, float32, in the file's order, which is that of their use.

    Raises:
        FsrError: the files are not an IR, or not of each other.
    """
    try:
        data = values.read_bytes()
        found = ElementTree.parse(layers).getroot().iterfind("layers/layer[@type='Const']")
        return [(layer.get("name"), _constant(layer.find("data").attrib, data)) for layer in found
                if layer.find("data").get("element_type") in _TYPES]
    except (AttributeError, KeyError, OSError, ValueError, ElementTree.ParseError) as error:
        raise FsrError(f"weights {layers}", f"is no IR of {values.name} ({str(error)[:90]})",
                       "fetch both files again") from None


def _constant(told: dict[str, str], data: bytes) -> torch.Tensor:
    kind = np.dtype(_TYPES[told["element_type"]])
    shape = [int(n) for n in told["shape"].split(",") if n.strip()]
    flat = np.frombuffer(data, kind, int(told["size"]) // kind.itemsize, int(told["offset"]))
    return torch.from_numpy(flat.reshape(shape).astype(np.float32))
