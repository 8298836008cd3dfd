"""Text tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Rows of text, aligned; the last column runs free."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    return "\n".join("  ".join([*(text.ljust(w) for text, w in zip(line, widths)), line[-1]]).rstrip()
                     for line in lines)
