"""What a result file says of itself, held against itself: digests, samples, means, ranges.

Nothing here needs data, weights or images. A file that passes is complete and unchanged since it
was sealed; that its values are true is for `fsrbench.exchange.rescoring`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from fsrbench.engine.stats import LEAST, Jackknife, Summary, groups_of, summarise
from fsrbench.errors import FsrError
from fsrbench.exchange.collect import (
    is_control,
    lr_digest,
    manifest_digest,
    of_left_out,
    references_of,
    stated,
)
from fsrbench.exchange.record import PROTOCOL, RESTORED, Record, content_id, rows_digest
from fsrbench.metrics import Metric, family

# Values that a metric can have, by family; any where nothing is said.
_POSITIVE, _ANY = (0, math.inf), (-math.inf, math.inf)
RANGES = {"psnr": _POSITIVE, "psnr-y": _POSITIVE, "ssim": (-1, 1), "ssim-y": (-1, 1),
          "lpips": _POSITIVE, "lpips-vgg": _POSITIVE, "dists": _POSITIVE, "fid": _POSITIVE,
          "fd": _POSITIVE, "niqe": _POSITIVE, "ids": (0, 2), "piqe": (0, 100), "clipiqa": (0, 1),
          "musiq": (0, 100)}
# How far a stated mean may be from that of the samples: both are sums of the same numbers.
SUMMED = 1e-9
_NUMBERS = ("mean", "low", "high", "sd", "n", "failed")


@dataclass(frozen=True)
class Mismatch:
    """Something that does not hold.

    Args:
        where: of what, in words; stated: what the file says; found: what is so.
        scale, metric, sample: which values it is of; empty where it is of the whole file.
    """

    where: str
    stated: object
    found: object
    scale: int | None = None
    metric: str = ""
    sample: str = ""

    def __str__(self) -> str:
        said = f"stated {_short(self.stated)}, found {_short(self.found)}"
        parts = [self.sample and f"sample {self.sample}", self.scale and f"scale {self.scale}",
                 self.metric and f"metric {self.metric}", self.where]
        return f"{', '.join(filter(None, parts))}: {said}"


def _short(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)[:80]


def known_metric(name: str) -> Metric | None:
    """The metric of exactly that id; None where there is none here."""
    base, _, border = name.rpartition("-crop")
    try:
        typed = f"{base.split('.')[0]}-crop{border}" if border.isdecimal() else name
        return next((m for m in family(typed) if m.id == name), None)
    except FsrError:
        return None


def range_of(metric: Metric) -> tuple[float, float]:
    """Least and greatest value that a metric can have."""
    return (0, 1) if metric.percent else RANGES.get(metric.id.split(".")[0], _ANY)


class Values:
    """The rows of a record as arrays in the order of its samples.

    Args:
        record: whose samples are complete, see `mismatches`.
    """

    def __init__(self, record: Record):
        self.record = record
        rows = record.rows
        restored = rows[rows["metric"] == RESTORED]
        first = restored[restored["scale"] == record.header["scales"][0]]
        self.samples, self.people = first["sample"].tolist(), first["person"].tolist()
        self.metrics = {m["id"]: known_metric(m["id"]) for m in record.header["metrics"]}

    @cached_property
    def _by_cell(self) -> dict:
        rows = self.record.rows
        return {cell: dict(zip(part["sample"], part["value"]))
                for cell, part in rows.groupby(["scale", "metric"])}

    def of(self, scale: int, metric: str) -> np.ndarray:
        """(N,) values; NaN where there is none."""
        found = self._by_cell.get((scale, metric), {})
        return np.array([found.get(name, np.nan) for name in self.samples])

    @cached_property
    def stated(self) -> dict[tuple[int, str], dict]:
        """What the header says of each (scale, metric)."""
        return {(v["scale"], v["metric"]): v for v in self.record.header["values"]}

    def restored(self, scale: int) -> dict[str, tuple[str, str]]:
        """Status and digest of the image of each sample."""
        rows = self.record.rows
        rows = rows[(rows["scale"] == scale) & (rows["metric"] == RESTORED)]
        return dict(zip(rows["sample"], zip(rows["status"], rows["restored"])))

    def failed(self, scale: int) -> int:
        """How many samples could not be restored."""
        return sum(status != "ok" for status, _ in self.restored(scale).values())

    def left_out(self, scale: int, metric: str) -> Jackknife | None:
        """A set metric without each person, as stated; None where it is of too few."""
        s = self.stated[scale, metric]
        lists = [np.array([v for v in s[name] if v is not None], dtype=float)
                 for name in ("without", "sizes")]
        if s["mean"] is None or len(lists[0]) != len(lists[1]):
            return None
        return Jackknife(np.float64(s["mean"]), *lists)

    def summary(self, scale: int, metric: Metric) -> Summary:
        """What the rows make of a metric; of a set metric, what is stated."""
        if metric.kind != "set":
            return summarise(self.of(scale, metric.id), self.people, metric.percent)
        s, left_out = self.stated[scale, metric.id], self.left_out(scale, metric.id)
        failed = self.failed(scale)
        counts = len(self.samples) - failed, failed
        if left_out is None:
            return Summary(math.nan, math.nan, math.nan, *counts)
        return of_left_out(left_out, *counts, math.nan if s["sd"] is None else s["sd"])


def mismatches(record: Record) -> list[Mismatch]:
    """All that does not hold in a file; later rules are asked only where earlier ones hold."""
    for rule in (_digests, _protocol, _facts, _fields, _samples, _complete, _ranges, _means):
        if found := list(rule(record)):
            return found
    return []


def _digests(record: Record) -> Iterator[Mismatch]:
    header, rows = record.header, record.rows
    if (found := content_id(header)) != header["id"]:
        yield Mismatch("id of the header", header["id"], found)
    if (found := rows_digest(rows)) != header["rows"]["sha256"]:
        yield Mismatch("digest of the rows", header["rows"]["sha256"], found)
    if len(rows) != header["rows"]["count"]:
        yield Mismatch("number of rows", header["rows"]["count"], len(rows))
    if record.path and (beside := record.path.with_suffix(".yaml")).exists():
        if _read_yaml(beside) != header:
            yield Mismatch(f"header in {beside.name}", "another", "that of the Parquet file")


def _read_yaml(path: Path) -> object:
    """What a YAML file says; None where it cannot be read."""
    import yaml

    if not path.is_file():  # a pipe would never end
        return None
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
        return None


def _protocol(record: Record) -> Iterator[Mismatch]:
    header = record.header
    if header["protocol"] != PROTOCOL:
        yield Mismatch("protocol", header["protocol"], f"{PROTOCOL} here")
    try:
        datetime.fromisoformat(header["measured"] or "2000-01-01")
    except ValueError:
        yield Mismatch("measured", header["measured"], "no time")
    for name in (m["id"] for m in header["metrics"]):
        if known_metric(name) is None:
            yield Mismatch("metric id", name, "no metric of that id here", metric=name)
    scales, ids = header["scales"], [m["id"] for m in header["metrics"]]
    if len(set(scales)) < len(scales) or len(set(ids)) < len(ids) or not scales:
        yield Mismatch("scales and metrics", "each once", "some twice, or none")
    if min([*scales, header["batch"]]) < 1:
        yield Mismatch("scale or batch", min([*scales, header["batch"]]), "1 is the least")
    cells = [(v["scale"], v["metric"]) for v in header["values"]]
    if sorted(cells) != sorted((s, m) for s in scales for m in ids):
        yield Mismatch("values", f"{len(scales)} scales of {len(ids)} metrics", len(cells))


def _facts(record: Record) -> Iterator[Mismatch]:
    """What follows from something else in the header, or from the metric's id, is so."""
    header = record.header
    method, cost, data = header["method"], header["cost"], header["data"]
    side = data["framing"].partition("|")[0]  # 0: of images as they are
    said = {"method.control": (method["control"], is_control(method["weights"], cost["nfe"])),
            "method.sees_truth": (method["sees_truth"], "oracle" in method["needs"]),
            "cost.references": (cost["references"], references_of(method["needs"])),
            "cost.weights_bytes": (cost["weights_bytes"], sum(w["bytes"] for w in
                                                              header["weights"])),
            "size": (str(header["size"]), str(header["size"]) if side == "0" else side)}
    yield from (Mismatch(name, *both) for name, both in said.items() if both[0] != both[1])
    for m in header["metrics"]:
        known = known_metric(m["id"])
        yield from (Mismatch(name, m[name], getattr(known, name), metric=m["id"])
                    for name in ("direction", "kind") if m[name] != getattr(known, name))


def _fields(record: Record) -> Iterator[Mismatch]:
    """Digests stand in the rows of restorations, values in the others; a sample is one person's."""
    rows = record.rows
    of_image = rows["metric"] == RESTORED
    for name in ("restored", "lr", "truth", "reference", "manifest"):
        if (rows.loc[~of_image, name] != "").any():
            yield Mismatch(name, "in a metric's row", "of a restoration's row only")
    if rows.loc[of_image, "value"].notna().any():
        yield Mismatch("value", "in a restoration's row", "of a metric's row only")
    if (rows.groupby("sample")["person"].nunique() > 1).any():
        yield Mismatch("person", "one for each sample", "another in another row")


def _samples(record: Record) -> Iterator[Mismatch]:
    """The list of samples is the one that the data's digest is of, at each scale."""
    header, rows = record.header, record.rows
    data, restored = header["data"], rows[rows["metric"] == RESTORED]
    odd = set(rows["scale"]) - set(header["scales"])
    if odd:
        yield Mismatch("scales", header["scales"], sorted(odd))
    for scale in header["scales"]:
        own = restored[restored["scale"] == scale]
        ordered = own.sort_values(["person", "sample"])
        degraded = () if own["truth"].any() else (ordered["sample"] + "|" + ordered["lr"]).tolist()
        found = manifest_digest(data["framing"], own["manifest"], degraded)
        if found != data["manifest_sha256"]:
            yield Mismatch("digest of the data's manifest (are samples left out?)",
                           data["manifest_sha256"], found, scale)
        lr = header["degradation"]["lr_sha256"].get(str(scale))
        if (found := lr_digest(own.sort_values("sample")["lr"])) != lr:
            yield Mismatch("digest of the LR images", lr, found, scale)
        for name, ids in (("samples", own["sample"]), ("people", own["person"].unique())):
            if len(set(ids)) != data[name] or name == "samples" and len(ids) != data[name]:
                yield Mismatch(name, data[name], len(ids), scale)
    for row in restored.itertuples():
        parts = row.manifest.split("|")
        if parts[:2] != [row.sample, row.truth]:
            yield Mismatch("sample and ground truth", f"{row.sample} {row.truth[:16]}",
                           " ".join(parts[:2])[:80], row.scale, sample=row.sample)


def _complete(record: Record) -> Iterator[Mismatch]:
    """Each image that was restored has its digest and one row for each metric."""
    values, rows = Values(record), record.rows
    per_sample = {name for name, m in values.metrics.items() if m.kind != "set"}
    for name in sorted(set(rows["metric"]) - per_sample - {RESTORED}):
        yield Mismatch("rows", "of the header's metrics", "another metric", metric=name)
    groups = {cell: part for cell, part in rows.groupby(["scale", "metric"])}
    for scale in record.header["scales"]:
        restored = values.restored(scale)
        ok = sorted(name for name, (status, _) in restored.items() if status == "ok")
        for name, (status, image) in restored.items():
            if (status == "ok") != (len(image) == 64):
                yield Mismatch("image", status, image or "no digest", scale, sample=name)
        for metric in sorted(per_sample):
            part = groups.get((scale, metric))
            found = sorted(part["sample"]) if part is not None else []
            if found != ok:
                lacking = sorted(set(ok) - set(found))[:3] or "one twice, or of none"
                yield Mismatch("values", f"{len(ok)} samples", f"{len(found)}: {lacking}", scale,
                               metric)


def _ranges(record: Record) -> Iterator[Mismatch]:
    metrics = Values(record).metrics
    rows = record.rows[record.rows["metric"] != RESTORED]
    for row in rows.itertuples():
        low, high = range_of(metrics[row.metric])
        within = math.isfinite(row.value) and low - SUMMED <= row.value <= high + SUMMED
        if row.status == "ok" and not within or row.status != "ok" and not math.isnan(row.value):
            yield Mismatch("range", f"{row.value} ({row.status})", f"{low} to {high}", row.scale,
                           row.metric, row.sample)


def _means(record: Record) -> Iterator[Mismatch]:
    """What the header states is what the rows give."""
    values = Values(record)
    for (scale, name), said in values.stated.items():
        metric = values.metrics[name]
        if metric.kind == "set" and (wrong := list(_left_out(values, scale, name))):
            yield from wrong
            continue
        now = stated(metric, scale, values.summary(scale, metric))
        for number in _NUMBERS:
            if not _same(said[number], now[number]):
                yield Mismatch(number, said[number], now[number], scale, name)


def _left_out(values: Values, scale: int, name: str) -> Iterator[Mismatch]:
    """What a set metric is without each person has one number for each, of as many images."""
    said = values.stated[scale, name]
    restored = values.restored(scale)
    people = [p for s, p in zip(values.samples, values.people) if restored[s][0] == "ok"]
    sizes = np.bincount(groups_of(people)).tolist() if people else []
    wanted = sizes if len(sizes) >= LEAST and said["mean"] is not None else []
    if said["sizes"] != wanted or len(said["without"]) != len(wanted):
        yield Mismatch("images of each person left out", said["sizes"], wanted, scale, name)


def _same(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=SUMMED, abs_tol=SUMMED * SUMMED)
