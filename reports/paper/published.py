"""The paper's published numbers, once, as data, and the one reader of them.

`reports/paper/tables.csv` holds every cell of Tables 1-3, 5 and 6 (checked value by value against
the text), `quantities.csv` each metric's unit, direction and rounding, `facts.csv` what the text
states beside the tables, with a note where the paper disagrees with itself, and `claims.csv` what
it concludes.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fsrbench.engine.stats import Summary

WITHIN, DIFFERS, UNSURE, NOT_COMPARABLE = "within", "differs", "cannot tell", "not comparable"
# Fact that says of how many people the published numbers of a data set are.
_PEOPLE = {"celebref-hq": "test_ids", "casia-webface": "casia_ids", "celebv-text": "celebvtext_ids"}


@dataclass(frozen=True)
class Quantity:
    """What a published number is of.

    Args:
        unit: as the paper prints it; direction: +1 if higher is better.
        tolerance: half a unit in the last printed place, more where the paper is known to cut
            instead of to round.
        margin: a difference that counts as none, our choice, of the size of the gaps between
            neighbours in the paper's tables; NaN where no interval is set against it.
        source: section that defines it; note: what it leaves open.
    """

    metric: str
    unit: str
    direction: int
    tolerance: float
    margin: float
    source: str
    note: str

    @property
    def digits(self) -> int:
        """Decimals that the tolerance leaves."""
        return max(0, math.ceil(round(-math.log10(2 * self.tolerance), 6))) if self.tolerance else 0


@dataclass(frozen=True)
class Published:
    """A published number; `bound` is "at least" where the paper prints a lower bound ("2000+"),
    else empty."""

    value: float
    quantity: Quantity
    table: str
    bound: str = ""


@dataclass(frozen=True)
class Fact:
    """A statement outside the tables; `value` as the text has it."""

    key: str
    value: str
    unit: str
    where: str
    note: str


@dataclass(frozen=True)
class Claim:
    """A conclusion of the paper."""

    id: str
    where: str
    claim: str


def _rows(name: str) -> list[dict[str, str]]:
    with open(Path(__file__).parent / f"{name}.csv", newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@cache
def quantities() -> dict[str, Quantity]:
    """Published quantities by the paper's name of the metric."""
    return {r["metric"]: Quantity(r["metric"], r["unit"], int(r["direction"]),
                                  float(r["tolerance"]),
                                  float(r["margin"] or "nan"), r["source"], r["note"])
            for r in _rows("quantities")}


@cache
def cells() -> dict[tuple[str, str, str, str], Published]:
    """Published numbers by (dataset, scale, method, metric); a dash of the paper has no entry."""
    return {(r["dataset"], r["scale"], r["method"], r["metric"]):
            Published(float(r["value"].rstrip("+")), quantities()[r["metric"]], r["table"],
                      "at least" if r["value"].endswith("+") else "")
            for r in _rows("tables") if r["value"]}


@cache
def facts() -> dict[str, Fact]:
    """Facts by key."""
    return {r["key"]: Fact(**r) for r in _rows("facts")}


@cache
def claims() -> tuple[Claim, ...]:
    """Claims in the order of the file."""
    return tuple(Claim(**r) for r in _rows("claims"))


def find(dataset: str, scale: int | str, method: str | None, metric: str) -> Published | None:
    """A published number with its unit and tolerance; None where the paper has none (a dash, or no
    such row)."""
    return cells().get((dataset, str(scale), method or "", metric))


def published(dataset: str, scale: int | str, method: str | None, metric: str) -> float | None:
    """A published value; None where the paper has none, or only a bound.

    Args:
        dataset: "celebref-hq", "casia-webface", "celebv-text", or "rtx3090" for Table 6.
        method: the paper's name of the method ("idfsr-pt"); metric: the paper's ("lpips").
    """
    found = find(dataset, scale, method, metric)
    return None if found is None or found.bound else found.value


def tested_people(dataset: str) -> range:
    """How many people the published numbers of a data set may be of: one number, or 1 % about one
    that is "approx"."""
    fact = facts().get(_PEOPLE.get(dataset, ""))
    count = int(fact.value) if fact else 0
    return range(count - (count // 100 if fact and fact.unit == "approx" else 0), count + 1)


def verdict(summary: Summary | None, paper: Published | None, comparable: bool,
            factor: float = 1.0) -> str:
    """How a measured cell stands to the published one.

    Args:
        comparable: whether both are of the same data, people, size, network and weights; otherwise
            only directions are judged, as claims.
        factor: from our unit to the paper's (100 for percentages).

    Returns:
        "within" if the whole interval lies within the quantity's margin of the printed value;
        "differs" if it excludes all that the printed digits leave open; "cannot tell" if it does
        neither, or if there is none; "not comparable"; or "" where either is missing.
    """
    if summary is None or paper is None or not math.isfinite(summary.mean):
        return ""
    if not comparable:
        return NOT_COMPARABLE
    low, high = summary.low * factor, summary.high * factor
    margin, slack = paper.quantity.margin, paper.quantity.tolerance
    if low >= paper.value - margin and (paper.bound or high <= paper.value + margin):
        return WITHIN
    return DIFFERS if high < paper.value - slack or (not paper.bound and low > paper.value
                                                     + slack) else UNSURE
