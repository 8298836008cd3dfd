"""The paper's published numbers, once, as data (reports/paper/tables.csv, checked value by value against the text)."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path


@cache
def _values() -> dict[tuple[str, str, str, str], float]:
    with open(Path(__file__).parent / "paper" / "tables.csv", newline="", encoding="utf-8") as handle:
        rows = [r for r in csv.DictReader(handle) if r["value"].replace(".", "", 1).isdigit()]
    return {(r["dataset"], r["scale"], r["method"], r["metric"]): float(r["value"]) for r in rows}


def published(dataset: str, scale: int, method: str | None, metric: str) -> float | None:
    """A published value; None where the paper has none (a dash, or no such row).

    Args:
        dataset: "celebref-hq", "casia-webface" or "celebv-text".
        method: the paper's name of the method ("idfsr-pt"); metric: the paper's ("lpips").
    """
    return _values().get((dataset, str(scale), method or "", metric))
