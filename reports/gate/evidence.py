"""What claims are judged by: one view of numbers, filled from the paper's tables or from our
records.

A question has four answers. On the paper's tables numbers compare as printed, and equal digits
cannot tell. On our records a difference counts where its interval, paired by people
(`fsrbench.engine.stats`), excludes its absence; with fewer than five people nothing is told. A cell
counts only where every sample was restored without the ground truth's help, as for best marks in
tables.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from fsrbench.engine.results import Result
from fsrbench.engine.run import Outcome
from fsrbench.engine.stats import Jackknife, combined, jackknife_mean, summarise
from fsrbench.reports.paper.published import cells, facts, quantities
from fsrbench.reports.tables.table import measured

HOLDS, FAILS, UNSURE, MISSING = "holds", "does not hold", "cannot tell", "not measured"


@dataclass(frozen=True)
class Finding:
    """An answer, and the numbers that decided in a few words."""

    answer: str
    text: str


@dataclass(frozen=True)
class Cell:
    """A table's cell by the paper's names."""

    method: str
    scale: int
    metric: str
    dataset: str = "celebref-hq"

    def __str__(self) -> str:
        return f"{self.method} ×{self.scale}"


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; of a printed number the interval is the number, NaN where it
    is not known."""

    value: float
    low: float
    high: float


def all_of(findings: Iterable[Finding]) -> Finding:
    """Every part must hold; the text is of the parts that decided."""
    return _joined(list(findings), (FAILS, MISSING, UNSURE), HOLDS)


def any_of(findings: Iterable[Finding]) -> Finding:
    """One part is enough; the text is of the first such."""
    parts = list(findings)
    held = [p for p in parts if p.answer == HOLDS]
    return _joined(held[:1] or parts, (HOLDS, MISSING, UNSURE), FAILS)


def _joined(parts: list[Finding], order: tuple[str, ...], otherwise: str) -> Finding:
    answer = next((a for a in order if any(p.answer == a for p in parts)), otherwise)
    return Finding(answer, "; ".join(dict.fromkeys(p.text for p in parts if p.answer == answer)))


def opposite(finding: Finding) -> Finding:
    """The answer to the negated question."""
    return Finding({HOLDS: FAILS, FAILS: HOLDS}.get(finding.answer, finding.answer), finding.text)


def between(estimate: Estimate | None, low: float, high: float, text: str) -> Finding:
    """Whether a number lies in [low, high]; `text` has a place for it ("ratio {}")."""
    if estimate is None:
        return Finding(MISSING, text.format("n/a"))
    shown = f"{estimate.value:.4g}"
    if math.isfinite(estimate.low) and estimate.low != estimate.high:
        shown += f" [{estimate.low:.4g}, {estimate.high:.4g}]"
    if not math.isfinite(estimate.low):
        return Finding(UNSURE, text.format(f"{shown}, no interval"))
    inside = low <= estimate.low and estimate.high <= high
    outside = estimate.high < low or estimate.low > high
    return Finding(HOLDS if inside else FAILS if outside else UNSURE, text.format(shown))


class Results(ABC):
    """The view that a claim's predicate reads. Cells that it asked for in vain are listed in
    `absent`."""

    def __init__(self):
        self.absent: list[str] = []

    @abstractmethod
    def value(self, cell: Cell) -> float | None:
        """A cell in the paper's unit; None where there is none, or where samples failed."""

    @abstractmethod
    def estimate(self, function: Callable[..., float], *where: Cell) -> Estimate | None:
        """A function of the values of several cells, with its interval paired by people; None where
        a cell is missing."""

    @abstractmethod
    def rate(self, cell: Cell) -> Estimate | None:
        """A cell of yes and no in percent; None where it is missing."""

    @abstractmethod
    def scalar(self, name: str) -> Estimate | None:
        """A named number (`fsrbench.engine.results`); None where there is none."""

    def better(self, a: Cell, b: Cell) -> Finding:
        """Whether cell a beats cell b in their metric's direction."""
        quantity = quantities()[a.metric]
        text = f"{a.metric} ×{a.scale}: {a.method} {self._shown(a)}, {b.method} {self._shown(b)}"
        gain = self.estimate(lambda x, y: quantity.direction * (x - y), a, b)
        if gain is None:
            return Finding(MISSING, text)
        sign = HOLDS if gain.low > 0 else FAILS if gain.high < 0 else UNSURE
        return Finding(sign, text)

    def best(self, method: str, scale: int, metric: str, rivals: Iterable[str],
             dataset: str = "celebref-hq") -> Finding:
        """Whether a method beats every rival that has a value; the text names the nearest (or the
        one that beats it)."""
        own = Cell(method, scale, metric, dataset)
        others = [c for r in rivals if r != method
                  and self.value(c := Cell(r, scale, metric, dataset)) is not None]
        if self.value(own) is None or not others:
            lacking = own if self.value(own) is None else f"any rival at ×{scale}"
            return Finding(MISSING, f"{metric} of {lacking}")
        nearest = max(others, key=lambda c: quantities()[metric].direction * self.value(c))
        answer = all_of(self.better(own, c) for c in others).answer
        return Finding(answer, self.better(own, nearest).text)

    def _shown(self, cell: Cell) -> str:
        value = self.value(cell)
        return "n/a" if value is None else f"{value:.{quantities()[cell.metric].digits}f}"

    def _lacks(self, what: str) -> None:
        if what not in self.absent:
            self.absent.append(what)


class PaperResults(Results):
    """The paper's own tables and facts."""

    _FACTS = {"mine_id_style": "mine_id_style", "mine_id_id": "mine_id_id",
              "mine_style_style": "mine_style_style", "cca_mean": "cca_mean_max"}

    def value(self, cell: Cell) -> float | None:
        found = cells().get((cell.dataset, str(cell.scale), cell.method, cell.metric))
        if found is None:
            self._lacks(str(cell))
        return None if found is None else found.value

    def estimate(self, function: Callable[..., float], *where: Cell) -> Estimate | None:
        values = [self.value(cell) for cell in where]
        if any(v is None for v in values):
            return None
        value = function(*values)
        return Estimate(value, value, value)

    def rate(self, cell: Cell) -> Estimate | None:
        return self.estimate(lambda x: x, cell)

    def scalar(self, name: str) -> Estimate | None:
        _, _, rest = name.partition("table6/")
        method, _, metric = rest.partition("/")
        cell = cells().get(("rtx3090", "", method, metric))
        if cell is None and name in self._FACTS:
            value = float(facts()[self._FACTS[name]].value)
            return Estimate(value, value, value)
        if cell is None:
            return None
        return Estimate(cell.value, cell.value, cell.value)


class OurResults(Results):
    """The records of a plan, and the named results beside them; the plan's data stand for the
    paper's CelebRef-HQ, and for another data set of the paper only if they are that.

    Args:
        outcome: of `Run.execute`; scalars: of `fsrbench.engine.results.results`.
    """

    def __init__(self, outcome: Outcome, scalars: dict[str, Result]):
        super().__init__()
        self.outcome, self.scalars = outcome, scalars
        self.people = [s.person for s in outcome.samples.samples]
        self.order = {s.id: i for i, s in enumerate(outcome.samples.samples)}
        self.methods, self.values = {}, {}
        for cell in outcome.cells:
            if cell.method.paper and "oracle" not in cell.method.needs:
                self.methods.setdefault(cell.method.paper, cell.method)
        if len(outcome.records):
            for key, rows in outcome.records.groupby(["method", "scale", "metric"]):
                self.values[key] = np.full(len(self.order), np.nan)
                self.values[key][[self.order[s] for s in rows["sample"]]] = rows["value"]
        self.failed = self._failures()

    def _failures(self) -> dict[tuple[str, int], int]:
        records = self.outcome.records
        if not len(records):
            return {}
        restored = records[(records["metric"] == "restored") & (records["status"] != "ok")]
        return restored.groupby(["method", "scale"]).size().to_dict()

    def _metric(self, name: str):
        """The plan's metric of the paper's name (percentages bear a suffix there)."""
        return next((m for m in self.outcome.options.metrics
                     if m.paper and m.paper in (name, name.removesuffix("_percent"))
                     and m.id not in self.outcome.unavailable), None)

    def _found(self, cell: Cell):
        """(method, metric) of a cell whose samples were all restored, else None with the reason
        kept."""
        method, metric = self.methods.get(cell.method), self._metric(cell.metric)
        if cell.dataset not in ("celebref-hq", self.outcome.samples.source.name):
            return self._lacks(cell.dataset)
        if method is None:
            return self._lacks(cell.method)
        if metric is None:
            return self._lacks(cell.metric)
        if failed := self.failed.get((method.name, cell.scale), 0):
            return self._lacks(f"{cell} ({failed} of {len(self.order)} failed)")
        if (method.name, cell.scale, "restored") not in self.values:
            return self._lacks(str(cell))
        return method, metric

    def _vector(self, cell: Cell) -> np.ndarray | None:
        """Per-sample values in the paper's unit; None where one is missing."""
        found = self._found(cell)
        if found is None or found[1].kind == "set":
            return None
        values = self.values.get((found[0].name, cell.scale, found[1].id))
        if values is None or not np.isfinite(values).all():
            return self._lacks(f"{cell} ({cell.metric})")
        return values * (100 if found[1].percent else 1)

    def _jackknife(self, cell: Cell) -> Jackknife | None:
        """A cell in the paper's unit, with all and without each person."""
        vector = self._vector(cell)
        if vector is not None:
            return jackknife_mean(vector, self.people)
        found = self._found(cell)
        if found is None or found[1].kind != "set":
            return None
        return measured(self.outcome, found[0], cell.scale, found[1]).left_out

    def value(self, cell: Cell) -> float | None:
        found = self._jackknife(cell)
        return None if found is None else float(found.whole)

    def estimate(self, function: Callable[..., float], *where: Cell) -> Estimate | None:
        parts = [self._jackknife(cell) for cell in where]
        if any(part is None for part in parts):
            return None
        found = combined(function, parts)
        return Estimate(float(found.whole), *map(float, found.interval()))

    def rate(self, cell: Cell) -> Estimate | None:
        vector = self._vector(cell)
        if vector is None:
            return None
        s = summarise(vector / 100, self.people, share=True)
        return Estimate(100 * s.mean, 100 * s.low, 100 * s.high)

    def scalar(self, name: str) -> Estimate | None:
        found = self.scalars.get(name)
        return found and Estimate(found.value, found.low, found.high)
