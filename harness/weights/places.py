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
    here, asked = torch.cuda.is_available(), os.environ.get("FSRBENCH_DEVICE", "")
    if asked not in ("", "cpu", "cuda") or asked == "cuda" and not here:
        raise FsrError(f"device {asked}", "is not cpu or cuda" if here or asked != "cuda" else
                       "torch sees no GPU here", "unset FSRBENCH_DEVICE, or set it to cpu", code=2)
    return asked or ("cuda" if here else "cpu")


def placed(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Tensors where networks run."""
    return tuple(x.to(exact_device()) for x in tensors)
