"""Which result files may stand side by side, and what they say there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

from fsrbench import registry
from fsrbench.engine.keys import digest_of
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.exchange.checks import Values, mismatches
from fsrbench.exchange.record import Record, read
from fsrbench.exchange.rescoring import REPORTED, Given, verify
from fsrbench.metrics import Metric
from fsrbench.reports.tables import judges
from fsrbench.reports.tables.table import Measured, leading
from fsrbench.text import factor


@dataclass(frozen=True)
class Refused:
    """A file that is on no table, and why."""

    path: Path
    reasons: tuple[str, ...]


class Entry:
    """A result file that holds, as the board shows it."""

    def __init__(self, record: Record, tiers: Mapping[tuple[int, str], str] | None = None):
        self.record, self.header, self.values = record, record.header, Values(record)
        self.id, self.method = record.header["id"], record.header["method"]
        self.tiers = tiers or {}

    def tier(self, scale: int) -> str:
        """How far all its numbers at a scale were followed by who made the board."""
        found = {self.tiers.get((scale, m), REPORTED) for m in self.values.metrics}
        return REPORTED if len(found) > 1 else found.pop()

    @property
    def date(self) -> str:
        """Day on which it was measured; empty where that is not said."""
        return (self.header["measured"] or "")[:10]

    @property
    def page(self) -> str:
        """Its page; file names are made of digests only."""
        return f"method-{self.id[:16]}.html"

    def measured(self, scale: int, metric: Metric) -> Measured:
        """A metric at a scale, from the rows."""
        if metric.kind == "set":
            return Measured(self.values.summary(scale, metric), None,
                            self.values.left_out(scale, metric.id))
        return Measured(self.values.summary(scale, metric), self.values.of(scale, metric.id))

    def comparable(self, scale: int) -> tuple:
        """What must be equal for two files to stand in one table: data and people, LR images, size,
        scale, seed, protocol, and metrics with their weights."""
        h = self.header
        metrics = sorted((m["id"], *sorted(m["weights"].items())) for m in h["metrics"])
        return (*self.setting, scale, h["degradation"]["id"],
                h["degradation"]["lr_sha256"][str(scale)], str(metrics))

    @cached_property
    def setting(self) -> tuple:
        """The same without what a series over scales or severities varies."""
        h = self.header
        return (h["data"]["manifest_sha256"], h["size"], h["seed"], h["protocol"],
                digest_of(*self.values.samples, *self.values.people))


@dataclass
class Group:
    """Files of one table.

    Args:
        key: digest of what they share; scale; entries: in the order of the table.
    """

    key: str
    scale: int
    entries: list[Entry] = field(default_factory=list)

    @property
    def header(self) -> dict:
        """Of any of them, for what they share."""
        return self.entries[0].header

    @property
    def page(self) -> str:
        return f"group-{self.key[:16]}.html"

    @property
    def title(self) -> str:
        data, made = self.header["data"], self.header["degradation"]["id"]
        # Images as somebody gave them have no other name.
        own = self.header["profile"] == "given"
        what = (f"Images {data['manifest_sha256'][:8]} as given" if own else
                f"{data['name']} {factor(self.scale)}, {made}")
        return (f"{what}, {self.header['size']} px, {data['samples']} images of {data['people']} "
                "people")

    @property
    def metrics(self) -> list[Metric]:
        """Columns, in the first file's order."""
        return [self.entries[0].values.metrics[m["id"]] for m in self.header["metrics"]]

    @cached_property
    def cells(self) -> dict[tuple[str, str], Measured]:
        """What each file says of each metric, by (id, metric id)."""
        return {(e.id, m.id): e.measured(self.scale, m) for e in self.entries
                for m in self.metrics}

    def unranked(self, entry: Entry) -> str:
        """Why a row cannot be best; empty if it can."""
        if entry.method["control"]:
            return "control"
        if entry.method["sees_truth"]:
            return "sees the ground truth"
        if failed := entry.values.failed(self.scale):
            return f"{failed} failed"
        older = [e for e in self.entries if _same_method(e, entry)
                 and (e.date, e.id) < (entry.date, entry.id)]
        return "same method as an older row" if older else ""

    @cached_property
    def marks(self) -> dict[tuple[str, str], str]:
        """Best and second best by (id, metric id), by the tables' own test."""
        ranked = [e for e in self.entries if not self.unranked(e)]
        people = self.entries[0].values.people
        return {(name, m.id): mark for m in self.metrics if judges.ranks(m) for name, mark in
                leading(m, {e.id: self.cells[e.id, m.id] for e in ranked
                            if not _saw_judge(e, m)}, people).items()}

    def metric_of(self, *families: str) -> Metric | None:
        """The first metric of these families that is here."""
        return next((m for f in families for m in self.metrics if m.id.split(".")[0] == f), None)

    def main_metrics(self) -> list[Metric]:
        """Those that charts are drawn of: fidelity, perception, identity; else the first."""
        found = [self.metric_of("psnr", "psnr-y"), self.metric_of("lpips", "lpips-vgg", "dists"),
                 self.metric_of("gap", "ids")]
        return [m for m in found if m] or self.metrics[:1]


def _same_method(a: Entry, b: Entry) -> bool:
    return a is not b and all(a.header[name] == b.header[name] for name in ("weights",)) \
        and a.method["name"] == b.method["name"]


def _saw_judge(entry: Entry, metric: Metric) -> bool:
    """Whether a method was trained by the network that judges, by the weights that its file names
    and what is registered here under its name."""
    names = tuple(w["name"] for w in entry.header["weights"])
    known = registry.methods().get(entry.method["name"])
    return judges.saw(SimpleNamespace(weight_files=names,
                                      recognisers=getattr(known, "recognisers", ())), metric)


def files_of(paths: Iterable[str]) -> list[Path]:
    """The result files among files and folders.

    Raises:
        FsrError: one is not there, or a folder has none.
    """
    found: list[Path] = []
    for path in (Path(p).expanduser() for p in paths):
        if not path.exists():
            raise FsrError(f"result file {path}", "is not there", "check the path", code=2)
        inside = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not inside:
            raise FsrError(f"folder {path}", "holds no result file (NAME.parquet)",
                           "write some by `invoke export-results`", code=2)
        found += inside
    return list(dict.fromkeys(found))


def load(paths: Sequence[Path], store: Store | None = None) -> tuple[list[Entry], list[Refused]]:
    """Files that hold, the oldest first, and those that do not.

    Args:
        store: run each method again where that can be done here, with this store; None for not.
    """
    entries, refused, known = [], [], {}
    for path in paths:
        try:
            record = read(path)
        except FsrError as error:
            refused.append(Refused(path, (error.cause,)))
            continue
        reasons, tiers = [str(m) for m in mismatches(record)], {}
        if (same := known.get(record.header["id"])) and not reasons:
            reasons = [f"the same as {same.name}"]
        if store and not reasons:
            verdict = verify(record, store, Given(), None, rerun=True)
            reasons, tiers = [str(m) for m in verdict.mismatches], verdict.tiers
        if reasons:
            refused.append(Refused(path, tuple(reasons)))
            continue
        known[record.header["id"]] = path
        entries.append(Entry(record, tiers))
    return sorted(entries, key=lambda e: (e.header["measured"] or "", e.id)), refused


def grouped(entries: Iterable[Entry]) -> list[Group]:
    """One group for each set of files that may be compared, by title; rows best first by the first
    metric, controls on top."""
    found: dict[tuple, Group] = {}
    for entry in entries:
        for scale in entry.header["scales"]:
            key = entry.comparable(scale)
            found.setdefault(key, Group(digest_of(*key), scale)).entries.append(entry)
    for group in found.values():
        group.entries = sorted(group.entries, key=_order(group))
    return sorted(found.values(), key=lambda g: (g.header["data"]["name"], g.header["degradation"]
                                                 ["id"], g.scale, g.key))


def _order(group: Group) -> Callable[[Entry], tuple]:
    metric = group.metrics[0]

    def order(entry: Entry) -> tuple:
        mean = group.cells[entry.id, metric.id].summary.mean
        return (not entry.method["control"], math.isnan(mean), -metric.direction * mean, entry.id)
    return order
