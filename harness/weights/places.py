"""Where networks and metrics run."""

from __future__ import annotations

import os
from functools import lru_cache

import torch

from fsrbench.errors import FsrError


@lru_cache(maxsize=1)
def _without_tf32() -> None:
    """No convolution or product in TF32, which keeps ten bits and by default serves for float32."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def exact_device() -> str:
    """`device`, on which from now on float32 is float32."""
    if device() == "cuda":
        _without_tf32()
    return device()


def device() -> str:
    """Where networks run: on a GPU where there is one, or as FSRBENCH_DEVICE (cpu or cuda) says.

    Raises:
        FsrError: it says what is not here.
    """
    asked = os.environ.get("FSRBENCH_DEVICE", "")
    refuse_device(asked, f"FSRBENCH_DEVICE={asked}", "unset it, or set it to cpu")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


def refuse_device(asked: str, thing: str, remedy: str) -> None:
    """Refuse a device that is not here.

    Args:
        thing: as it was typed or set; remedy: what to do there.

    Raises:
        FsrError: it is none, or torch sees no GPU.
    """
    if asked not in ("", "cpu", "cuda"):
        raise FsrError(thing, "is not cpu or cuda", remedy, code=2)
    if asked == "cuda" and not torch.cuda.is_available():
        raise FsrError(thing, "torch sees no GPU here", remedy, code=2)


def placed(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Tensors where networks run."""
    return tuple(x.to(exact_device()) for x in tensors)
