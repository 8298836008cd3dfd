"""The deterministic fill of parity checks, and the refusal of files that hold it.

A file with the fill loads as the authors' own does and restores nothing. It is told by content: the
fill is drawn for the key of each tensor, so whatever wraps, prefixes, casts or names the file, a
tensor's first values lie on a line with those that are drawn for its key.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsrbench.errors import FsrError
from fsrbench.weights.catalogue import file_digest, get_entry, require

if TYPE_CHECKING:
    from fsrbench.core import Method

# Values of a tensor that are compared, the fewest that say anything, and how many tensors are
# looked at. Of 16 values of trained weights the correlation is not above .99 once in 1e12 tensors.
_VALUES, _LEAST, _TENSORS, _ALIKE = 64, 16, 64, 0.99


def fill_value(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The deterministic weight fill of one key, float32."""
    z = _draw(key, shape).astype(np.float32)
    if key.endswith("running_var"):
        return 1 + 0.1 * np.abs(z)
    if key.endswith("running_mean"):
        return 0.1 * z
    if len(shape) >= 2:
        return (z / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    return 1 + 0.1 * z if key.endswith("weight") else 0.1 * z


def _draw(key: str, shape: int | tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)


def _tensors(state: Mapping | list | tuple, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Tensors of floats by dotted key, out of whatever they are wrapped in."""
    for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
        name = f"{prefix}{key}"
        if isinstance(value, Mapping | list | tuple):
            yield from _tensors(value, f"{name}.")
        elif getattr(value, "is_floating_point", bool)() and value.numel() >= _LEAST:
            yield name, value


def _is_fill(key: str, tensor) -> bool:
    """Whether a tensor's first values are those drawn for its key, or for an end of it."""
    values = tensor.detach().flatten()[:_VALUES].double().numpy()
    values, parts = values - values.mean(), key.split(".")
    if not 0 < (length := np.linalg.norm(values)) < np.inf:
        return False
    for start in range(len(parts)):
        z = _draw(".".join(parts[start:]), len(values))
        for drawn in (z, np.abs(z)):
            drawn = drawn - drawn.mean()
            if abs(values @ drawn) > _ALIKE * length * np.linalg.norm(drawn):
                return True
    return False


@lru_cache(maxsize=256)
def _counted(path: Path, digest: str) -> tuple[int, int]:
    from fsrbench.weights.networks import read_state

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = list(_tensors(read_state(path)))
    except (TypeError, FsrError):  # whoever reads it will say what it is
        return 0, 0
    chosen = found[::max(1, -(-len(found) // _TENSORS))]
    return sum(_is_fill(key, tensor) for key, tensor in chosen), len(chosen)


def refuse_fill(path: Path, thing: str) -> Path:
    """The path of a file that does not hold the fill.

    Raises:
        FsrError: it does.
    """
    # Whatever its suffix: torch reads a file by its content.
    held, of = _counted(path, file_digest(path))
    if held:
        raise FsrError(thing, f"holds synthetic weights, the fill of the parity checks ({held} of "
                       f"{of} tensors), of which nothing may be reported",
                       "put trained weights there; only parity and bench take these", code=4)
    return path


def reportable(method: Method) -> None:
    """Refuse a method whose weights are missing or synthetic, its own files among them.

    Raises:
        FsrError: as said.
    """
    for name in method.weight_files:
        trained(name)
    for path in map(Path, method.files):
        if path.is_file():
            refuse_fill(path, f"method {method.name}, file {path}")


def trained(name: str) -> Path:
    """`require`, of a weight file whose results may be reported.

    Raises:
        FsrError: it is missing, or holds synthetic weights.
    """
    path = require(name)
    if len(get_entry(name).sha256) == 64:
        return path  # the published digest is no fill's
    return refuse_fill(path, f"weights {name} ({path})")
