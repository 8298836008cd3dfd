"""A table as a value: built from records and published numbers, refusing what must not stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fsrbench.core import Method
from fsrbench.degrade.named import get_degradation
from fsrbench.engine.keys import digest_of
from fsrbench.engine.plan import TRUTH
from fsrbench.engine.provenance import mixed
from fsrbench.engine.run import Outcome
from fsrbench.engine.stats import Summary, summarise, summarise_set, tells_apart
from fsrbench.errors import FsrError
from fsrbench.metrics import Metric
from fsrbench.reports.paper.published import find, published, verdict


@dataclass(frozen=True)
class Value:
    """A cell: what was measured, whether it leads its column, what the paper says, and how the two stand to each other
    ("within", "differs", "not comparable", or empty where one is missing)."""

    summary: Summary | None
    mark: str = ""
    paper: float | None = None
    verdict: str = ""
    paper_sd: float | None = None


@dataclass(frozen=True)
class Row:
    """A method at a scale."""

    method: str
    title: str
    weights: str
    control: bool
    n_ok: int
    n_failed: int
    values: dict[str, Value]


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        name: file stem; title: heading.
        dataset, degradation, profile: what every cell shares.
        columns: metrics; unavailable: metric id -> why its column is empty.
        blocks: scale -> rows.
        comparable: whether the paper's numbers were measured on the same data at the same size.
        notes: what a reader must know.
    """

    name: str
    title: str
    dataset: str
    degradation: str
    profile: str
    columns: tuple[Metric, ...]
    unavailable: dict[str, str]
    blocks: dict[int, list[Row]]
    comparable: bool
    notes: list[str] = field(default_factory=list)


def check_protocol(records) -> None:
    """Refuse records that were not made under one protocol.

    Args:
        records: frame of rows.

    Raises:
        FsrError: two data set digests, degradations, profiles or seeds; different samples of two methods at one scale;
            synthetic weights.
    """
    for column in ("dataset_digest", "degradation", "profile", "seed"):
        found = sorted(map(str, set(records[column])))
        if len(found) > 1:
            raise FsrError("table", f"records differ in {column} ({', '.join(v[:16] for v in found[:3])})",
                           "make one table of each", code=4)
    synthetic = sorted(set(records.loc[records["weights"] == "synthetic", "method"]))
    if synthetic:
        raise FsrError("table", f"{', '.join(synthetic)} ran with synthetic weights", "give trained weights", code=4)
    restored = records[records["metric"] == "restored"]
    for scale, rows in restored.groupby("scale"):
        samples = {method: frozenset(part["sample"]) for method, part in rows.groupby("method")}
        if len(set(samples.values())) > 1:
            raise FsrError("table", f"methods have different samples at x{scale}: "
                           + ", ".join(f"{m} {len(s)}" for m, s in samples.items()), "finish the run first", code=4)


def build(outcome: Outcome, name: str, title: str, columns: Sequence[Metric], paper_dataset: str) -> Table:
    """A table of an outcome.

    Args:
        columns: metrics in order.
        paper_dataset: data set of the published numbers to set beside.

    Raises:
        FsrError: records are missing, or were not made under one protocol.
    """
    if outcome.missing:
        raise FsrError(f"table {name}", f"{outcome.missing} records are missing", "finish all shards, then run again")
    check_protocol(outcome.records)
    source, options = outcome.samples.source, outcome.options
    comparable = (source.name == paper_dataset and options.profile.name == "paper" and options.people is None
                  and options.degradation == "bicubic")
    blocks = {}
    for scale in options.scales:
        methods = [cell.method for cell in outcome.cells if cell.scale == scale]
        blocks[scale] = _block(outcome, scale, methods, columns, paper_dataset, comparable)
    return Table(name, title, source.name, get_degradation(options.degradation).id, options.profile.name, tuple(columns),
                 outcome.unavailable, blocks, comparable, _notes(outcome, comparable))


def _block(outcome: Outcome, scale: int, methods: list[Method], columns: Sequence[Metric], paper: str,
           comparable: bool) -> list[Row]:
    people = [s.person for s in outcome.samples.samples]
    values = {(m.name, c.id): sample_values(outcome, m, scale, c) for m in methods for c in columns if c.kind != "set"}
    summaries = {key: summarise(v, people) for key, v in values.items()}
    for column in (c for c in columns if c.kind == "set" and c.id not in outcome.unavailable):
        summaries |= {(m.name, column.id): set_summary(outcome, m, scale, column) for m in methods}
    ranked = [m for m in methods if _is_ranked(outcome, scale, m)]
    marks = {c.id: _marks(c, ranked, values, summaries, people) for c in columns}
    rows = []
    for method in methods:
        restored = _rows(outcome, method, scale, "restored")
        cells = {}
        for c in columns:
            summary = None if c.id in outcome.unavailable else summaries[method.name, c.id]
            theirs = find(paper, scale, method.paper, c.paper)
            cells[c.id] = Value(summary, marks[c.id].get(method.name, ""), theirs and theirs.value,
                                verdict(summary, theirs, comparable, 100 if c.percent else 1),
                                published(paper, scale, method.paper, c.paper_spread))
        ok = int((restored["status"] == "ok").sum())
        rows.append(Row(method.name, method.title, method.weights, is_control(method), ok, len(restored) - ok, cells))
    return rows


def is_control(method: Method) -> bool:
    """Control rows restore nothing, so they cannot be best."""
    return method.weights == "none" and method.nfe == 0


def _is_ranked(outcome: Outcome, scale: int, method: Method) -> bool:
    """Whether a row can be best: not a control, not given anything of the ground truth, and of all samples, as the mean of
    those that were easy enough to be restored is not one of the others' kind."""
    whole = (_rows(outcome, method, scale, "restored")["status"] == "ok").all()
    return bool(whole) and not is_control(method) and "oracle" not in method.needs


def _rows(outcome: Outcome, method: Method, scale: int, metric: str):
    r = outcome.records
    return r[(r["method"] == method.name) & (r["scale"] == scale) & (r["metric"] == metric)]


def sample_values(outcome: Outcome, method: Method, scale: int, metric: Metric) -> np.ndarray:
    """Values in the order of the samples; NaN where restoration or metric failed."""
    rows = _rows(outcome, method, scale, metric.id)
    found = dict(zip(rows["sample"], rows["value"]))
    return np.array([found.get(s.id, np.nan) for s in outcome.samples.samples])


def set_summary(outcome: Outcome, method: Method, scale: int, metric: Metric) -> Summary:
    """A set metric of a cell; kept in the store, as its interval takes many evaluations."""
    rows = _rows(outcome, method, scale, "restored")
    images = dict(zip(rows["sample"], rows["image"]))
    pairs = [(s, images[s.id]) for s in outcome.samples.samples if images.get(s.id)]
    failed = len(outcome.samples.samples) - len(pairs)
    if len(pairs) < 2:
        return Summary(float("nan"), float("nan"), float("nan"), len(pairs), failed)
    measures = outcome.measures
    key = digest_of("set", metric.id, *[measures.key(metric, "", image, s) for s, image in pairs])
    kept = measures.store.tensors("sets", key)
    if kept is None:
        summary = summarise_set(*measures.set_features(metric, pairs), [s.person for s, _ in pairs], failed,
                                metric.function)
        import torch

        kept = {"summary": torch.tensor([summary.mean, summary.low, summary.high], dtype=torch.float64)}
        measures.store.put_tensors("sets", key, kept)
    return Summary(*kept["summary"].tolist(), len(pairs), failed)


def _marks(metric: Metric, methods: list[Method], values: dict, summaries: dict, people: list[str]) -> dict[str, str]:
    """Best and second best, only where the paired bootstrap tells them from the next."""
    ranked = [m.name for m in methods if (m.name, metric.id) in summaries
              and np.isfinite(summaries[m.name, metric.id].mean)]
    ranked.sort(key=lambda name: -metric.direction * summaries[name, metric.id].mean)
    marks = {}
    for name, following, mark in zip(ranked, ranked[1:], ("best", "second")):
        if metric.kind == "set":
            a, b = summaries[name, metric.id], summaries[following, metric.id]
            apart = a.high < b.low or b.high < a.low
        else:
            apart = tells_apart(values[name, metric.id], values[following, metric.id], people)
        if not apart:
            break
        marks[name] = mark
    return marks


def _notes(outcome: Outcome, comparable: bool) -> list[str]:
    source, options, samples = outcome.samples.source, outcome.options, outcome.samples
    people, degradation = {s.person for s in samples.samples}, get_degradation(options.degradation)
    notes = [
        f"Data: {source.name} ({source.licence}); {len(people)} people, {len(samples.samples)} test pictures, "
        f"{options.profile.size} px; half of each person's pictures are for fitting and reference, half for the test.",
        f"Degradation: {degradation.id}, {degradation.summary}. Seed {options.seed}.",
        "Mean over test pictures; [low, high] is a 95 % bootstrap interval over people. Best (**bold**) and second best "
        "(underlined) are marked among methods that restored every sample without the ground truth, not controls, and only "
        "where a paired bootstrap over people tells them from the next."]
    if source.remarks:
        notes.append(f"{source.name}: {source.remarks}.")
    notes += samples.excluded.lines()
    if comparable:
        notes.append("Differences are ours less the paper's: ✓ where the interval meets the paper's value within its "
                     "rounding, ✗ where it does not.")
    else:
        notes.append("The paper's numbers are of another data set, size, degradation or weights: they stand beside, no "
                     "difference is drawn.")
    if any(cell.method.weights == "mini" for cell in outcome.cells):
        notes.append("Weights `mini` were trained for this project at 64 px; they show the method, not the "
                     "paper's quality. Their model cards stand beside them in methods/weights.")
    if any(cell.method.weights == "published" for cell in outcome.cells):
        notes.append("Weights `published` are their authors' networks for any image, as a package "
                     "registry has them: nothing of them was trained here, and what they have seen "
                     "is not checked against these images.")
    if any(cell.method.weights == "given" for cell in outcome.cells):
        notes.append("Weights `given` are files of the user's: what they were trained on is not known, so it is not checked "
                     "against these pictures.")
    if options.precision != "float32":
        notes.append(f"Networks ran in {options.precision}.")
    if versions := mixed(outcome.measures.store.root, outcome.records["run"]):
        notes.append(f"The records of this table were made with different versions of {'; '.join(versions)}.")
    notes += dict.fromkeys(f"{c.method.title}: {c.method.remark}." for c in outcome.cells if c.method.remark)
    notes += _failures(outcome)
    for name, why in outcome.left_out.items():
        notes.append(f"No row for {name}: {why}.")
    for metric_id, why in outcome.unavailable.items():
        notes.append(f"n/a {metric_id}: {why}.")
    stand_ins = [f"{m.title} ({m.id}) stands in for {m.stand_in}" for m in outcome.options.metrics if m.stand_in]
    if stand_ins:
        notes.append("; ".join(stand_ins) + ": other numbers, not comparable with them.")
    served = outcome.records[~outcome.records["landmarks"].isin(["", TRUTH])].drop_duplicates(["scale", "sample"])
    for scale, rows in served.groupby("scale"):
        counts = ", ".join(f"{source} {count}" for source, count in rows["landmarks"].value_counts().sort_index().items())
        notes.append(f"Landmarks on the low-resolution pictures at x{scale}: {counts}.")
    return notes


def _failures(outcome: Outcome) -> list[str]:
    """Restorations that failed, by method, scale and cause."""
    notes, titles = [], {cell.method.name: cell.method.title for cell in outcome.cells}
    restored = outcome.records[outcome.records["metric"] == "restored"]
    for (scale, name), rows in restored.groupby(["scale", "method"]):
        causes = rows.loc[rows["status"] != "ok", "status"].str.removeprefix("failed: ")
        notes += [f"{titles[name]} at x{scale}: {count} of {len(rows)} failed ({cause}); --retry-failed tries again."
                  for cause, count in causes.value_counts().sort_index().items()]
    return notes
