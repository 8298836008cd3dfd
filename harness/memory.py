"""Memory of this machine: how much is free, and the C library's allocator, set for large tensors
that come and go."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

# Of glibc's mallopt: blocks that are mapped apart, what is kept before memory goes back, and by how
# much the heap grows.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
# Bytes that may lie idle between pieces of work that keep something small of what was large.
IDLE = 256 << 20


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


class _Mallinfo2(ctypes.Structure):
    """Of glibc: what its arenas hold; fordblks is free."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]


def give_back_idle(most: int = IDLE) -> None:
    """Give memory that lies idle back to the kernel, where it is more than so many bytes. What is
    kept of each piece of work (vectors of features, rows) lands in the holes of what was freed, so
    that the next large tensor finds none and the heap grows with every piece. Does nothing with
    another C library."""
    try:
        library = ctypes.CDLL(None)
        told, trim = library.mallinfo2, library.malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    told.restype = _Mallinfo2
    heap = told()
    # What was given back before counts as free there, but is not resident.
    if min(heap.fordblks, _anonymous() - heap.uordblks) > most:
        trim(0)


def _anonymous() -> int:
    """Resident bytes of this process that are of no file; of nothing where it cannot be told."""
    try:
        resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    except (OSError, ValueError):
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


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
