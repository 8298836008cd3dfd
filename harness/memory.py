"""Memory of this machine: how much is free, and the C library's allocator, set for large tensors
that come and go."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

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


def free_memory(root: Path | str = "/") -> int | None:
    """Bytes that this process may still take: of the machine, or of its control group where that
    has a limit; None where neither can be told.

    Args:
        root: where /proc and /sys are.
    """
    found = [value for value in (_of_machine(Path(root)), *_of_group(Path(root) / "sys/fs/cgroup"))
             if value is not None]
    return min(found) if found else None


def _of_machine(root: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        return 1024 * int(next(x for x in lines if x.startswith("MemAvailable:")).split()[1])
    return None


def _of_group(folder: Path) -> list[int]:
    """What is left of the limit: by version 2, by version 1. Cached files can be given up."""
    left = []
    for limit, used, stat, cached in (
            ("memory.max", "memory.current", "memory.stat", "inactive_file"),
            ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat",
             "total_inactive_file")):
        with contextlib.suppress(OSError, ValueError):  # without a limit it says "max"
            most, now = (int((folder / name).read_text()) for name in (limit, used))
            facts = dict(line.split() for line in (folder / stat).read_text().splitlines())
            left.append(max(0, most - now + int(facts.get(cached, 0))))
    return left
