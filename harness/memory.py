"""The C library's allocator, set for large tensors that come and go."""

from __future__ import annotations

import ctypes

# Of glibc's mallopt: blocks that are mapped apart, what is kept before memory goes back, and by how
# much the heap grows.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Let glibc keep what tensors free: asking the kernel for every activation anew costs a third
    of a network's time on a processor (14.1 against 9.4 ms an image for the mini prior). Does
    nothing with another C library."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 64 << 20)
