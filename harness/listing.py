"""What is registered and what is here, as text tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from fsrbench import registry
from fsrbench.core import PROFILES
from fsrbench.data import datasets
from fsrbench.datasets.degradations import degradations
from fsrbench.weights import cache_folder, catalogue, locate


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Rows of text, aligned; the last column runs free."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    return "\n".join("  ".join([*(text.ljust(w) for text, w in zip(line, widths)), line[-1]]).rstrip()
                     for line in lines)


def weights_table() -> str:
    """Catalogue of weight files: state, what they enable, licence, and where they come from."""
    registry.load_all()
    lines = [["WEIGHTS", "STATE", "ENABLES", "LICENCE", "SOURCE"]]
    for entry in catalogue().values():
        path = locate(entry.name)
        sources = "; ".join(map(str, entry.sources)) or entry.remedy
        lines.append([entry.name, "present" if path else "missing", entry.enables, entry.licence,
                      str(path) if path else sources])
    return columns(lines) + f"\n\nfetch one: invoke weights --get NAME; a file that you have goes into {cache_folder()}"


def _missing(name: str, cls: type) -> str:
    """What a method lacks in each profile, in a few words."""
    states = []
    for profile in cls.profiles:
        lacking = [w for w in cls(PROFILES[profile]).weight_files if not locate(w)]
        states.append(f"{profile}: " + (f"lacks {', '.join(lacking)}" if lacking else "ready"))
    return ", ".join(states)


def methods_table() -> str:
    """Registered methods and broken plug-ins."""
    lines = [["METHOD", "TITLE", "NEEDS", "NFE", "STATE", "ORIGIN", "LICENCE"]]
    for name, cls in registry.methods().items():
        lines.append([name, cls.title, ", ".join(sorted(cls.needs)) or "-", str(cls.nfe), _missing(name, cls),
                      cls.origin, cls.licence])
    text = columns(lines)
    for name, error in registry.broken().items():
        text += f"\nbroken plug-in {name}: {error}"
    return text


def data_table() -> str:
    """Registered data sets and degradations."""
    lines = [["DATA SET", "WHAT"], *[[d.name, d.summary] for d in datasets().values()]]
    lines += [["", ""], ["DEGRADATION", "WHAT"], *[[d.id, d.summary] for d in degradations().values()]]
    return columns(lines)
