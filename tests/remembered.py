"""What is computed once for all tests of a process: values of pure functions, by their arguments.

Some hundred tests prepare the same few faces, each in a store of its own, and what dlib sees in an
image, its crop, and which images are copies of one another do not depend on the store.
"""

from __future__ import annotations

import functools
from copy import copy
from hashlib import sha256
from pathlib import Path

import numpy as np


def _key(value):
    """A hashable value that is equal where the argument is."""
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, sha256(np.ascontiguousarray(value)).digest()
    if isinstance(value, Path):  # as it lies there now
        return value, value.stat().st_mtime_ns, value.stat().st_size
    if isinstance(value, (list, tuple)):
        return tuple(map(_key, value))
    if hasattr(value, "__dataclass_fields__"):
        return tuple(_key(getattr(value, name)) for name in value.__dataclass_fields__)
    return value


def remembered(function):
    """The function with its values remembered; each caller gets a copy of its own."""
    values = {}

    @functools.wraps(function)
    def call(*arguments):
        key = _key(arguments)
        if key not in values:
            values[key] = function(*arguments)
        return copy(values[key])
    return call


def share(patch) -> None:
    """Let all tests of this process share what dlib finds in images, aligned crops, near
    duplicates, and what is read of an ONNX file."""
    from fsrbench.engine import looks
    from fsrbench.faces import detect, prepare
    from fsrbench.weights import networks

    for module, name in ((detect, "_boxes_hog"), (detect, "_predict"), (prepare, "sample"),
                         (looks, "near_duplicates"), (networks, "read_onnx")):
        patch.setattr(module, name, remembered(getattr(module, name)))
