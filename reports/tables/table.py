"""A table as a value: built from records and published numbers, refusing what must not stand side
by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fsrbench.core import Method
from fsrbench.degrade.named import get_degradation
from fsrbench.engine.copies import DUPLICATE
from fsrbench.engine.counting import near_copies
from fsrbench.engine.plan import TRUTH
from fsrbench.engine.provenance import mixed
from fsrbench.engine.run import Outcome
from fsrbench.engine.stats import (
    LEVEL,
    Jackknife,
    Summary,
    holm,
    jackknife_mean,
    summarise,
    too_few,
)
from fsrbench.errors import FsrError
from fsrbench.metrics import Metric
from fsrbench.profiles import PROFILES
from fsrbench.reports.paper.published import find, published, quantities, tested_people, verdict
from fsrbench.reports.tables import judges
from fsrbench.reports.tables.twins import twins

# Weights of a method whose numbers may be set against the paper's: the authors', or trained as the
# paper says.
THEIRS = ("official", "trained")


@dataclass(frozen=True)
class Value:
    """A cell: what was measured, whether it leads its column, what the paper says, and how the two
    stand to each other (a verdict of published.py, or empty where one is missing).

    Args:
        seen: the method has seen the network that judges.
    """

    summary: Summary | None
    mark: str = ""
    paper: float | None = None
    verdict: str = ""
    paper_sd: float | None = None
    seen: bool = False


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
        comparable: whether the paper's numbers are of the same data, people, size and degradation;
            a cell's verdict also knows its weights and network.
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
        FsrError: two data set digests, degradations, profiles or seeds; different samples of two
            methods at one scale.
    """
    for column in ("dataset_digest", "degradation", "profile", "seed"):
        found = sorted(map(str, set(records[column])))
        if len(found) > 1:
            raise FsrError("table",
                           f"records differ in {column} ({', '.join(v[:16] for v in found[:3])})",
                           "make one table of each", code=4)
    restored = records[records["metric"] == "restored"]
    for scale, rows in restored.groupby("scale"):
        samples = {method: frozenset(part["sample"]) for method, part in rows.groupby("method")}
        if len(set(samples.values())) > 1:
            raise FsrError("table", f"methods have different samples at x{scale}: "
                           + ", ".join(f"{m} {len(s)}" for m, s in samples.items()),
                           "finish the run first", code=4)


def build(outcome: Outcome, name: str, title: str, columns: Sequence[Metric],
          paper_dataset: str) -> Table:
    """A table of an outcome.

    Args:
        columns: metrics in order.
        paper_dataset: data set of the published numbers to set beside.

    Raises:
        FsrError: records are missing, or were not made under one protocol.
    """
    if outcome.missing:
        raise FsrError(f"table {name}", f"{outcome.missing} records are missing",
                       "finish all shards, then run again")
    check_protocol(outcome.records)
    source, options = outcome.samples.source, outcome.options
    other = _not_the_paper_s(outcome, paper_dataset)
    comparable = bool(paper_dataset) and not other
    blocks = {}
    for scale in options.scales:
        methods = [cell.method for cell in outcome.cells if cell.scale == scale]
        blocks[scale] = _block(outcome, scale, methods, columns, paper_dataset, comparable)
    beside = _beside_the_paper(outcome, columns, other) if paper_dataset else []
    return Table(name, title, source.name, get_degradation(options.degradation).id,
                 options.profile.name, tuple(columns),
                 outcome.unavailable, blocks, comparable,
                 [*_notes(outcome), *beside, *judges.notes(outcome, columns, blocks),
                  *_columns(outcome, columns)])


def _not_the_paper_s(outcome: Outcome, paper_dataset: str) -> list[str]:
    """In what the data differ from the paper's, in words; empty where they do not."""
    source, options = outcome.samples.source, outcome.options
    people, size = len({s.person for s in outcome.samples.samples}), PROFILES["paper"].size
    wanted = tested_people(paper_dataset)
    checks = ((source.name == paper_dataset, f"the data set is {source.name}, not {paper_dataset}"),
              (options.profile.size == size, f"images have {options.profile.size} px, not {size}"),
              (options.degradation == "bicubic",
               f"the degradation is {options.degradation}, not bicubic"),
              (people in wanted, f"there are {people} people, not {wanted.stop - 1}"))
    return [words for same, words in checks if not same]


def _block(outcome: Outcome, scale: int, methods: list[Method], columns: Sequence[Metric],
           paper: str, comparable: bool) -> list[Row]:
    people = [s.person for s in outcome.samples.samples]
    here = [c for c in columns if c.id not in outcome.unavailable]
    found = {(m.name, c.id): measured(outcome, m, scale, c) for m in methods for c in here}
    ranked = [m for m in methods if _is_ranked(outcome, scale, m)]
    marks = {c.id: leading(c, {m.name: found[m.name, c.id] for m in ranked
                               if not judges.saw(m, c)}, people)
             for c in here if judges.ranks(c)}
    rows = []
    for method in methods:
        restored = _rows(outcome, method, scale, "restored")
        cells = {}
        for c in columns:
            summary = found[method.name, c.id].summary if c in here else None
            theirs = find(paper, scale, method.paper, c.paper)
            same = (comparable and not c.other and method.weights in THEIRS
                    and "oracle" not in method.needs)
            cells[c.id] = Value(summary, marks.get(c.id, {}).get(method.name, ""),
                                theirs and theirs.value,
                                verdict(summary, theirs, same, 100 if c.percent else 1),
                                published(paper, scale, method.paper, c.paper_spread),
                                judges.saw(method, c))
        ok = int((restored["status"] == "ok").sum())
        rows.append(Row(method.name, method.title, method.weights, is_control(method), ok,
                        len(restored) - ok, cells))
    return rows


def is_control(method: Method) -> bool:
    """Control rows restore nothing, so they cannot be best."""
    return method.weights == "none" and method.nfe == 0


def _is_ranked(outcome: Outcome, scale: int, method: Method) -> bool:
    """Whether a row can be best: not a control, not given anything of the ground truth, and of all
    samples, as the mean of those that were easy enough to be restored is not one of the others'
    kind."""
    whole = (_rows(outcome, method, scale, "restored")["status"] == "ok").all()
    return bool(whole) and not is_control(method) and "oracle" not in method.needs


def _rows(outcome: Outcome, method: Method, scale: int, metric: str):
    return outcome.rows(method.name, scale, metric)


def sample_values(outcome: Outcome, method: Method, scale: int, metric: Metric) -> np.ndarray:
    """Values in the order of the samples; NaN where restoration or metric failed."""
    rows = _rows(outcome, method, scale, metric.id)
    found = dict(zip(rows["sample"], rows["value"]))
    return np.array([found.get(s.id, np.nan) for s in outcome.samples.samples])


@dataclass(frozen=True)
class Measured:
    """A metric of a cell.

    Args:
        summary: what the table shows.
        values: (N,) in the order of the samples, NaN where there is none; None for a set metric.
        left_out: of a set metric: the number without each person; None where too few images were
            restored.
    """

    summary: Summary
    values: np.ndarray | None = None
    left_out: Jackknife | None = None

    @property
    def whole(self) -> bool:
        """Whether every sample has its part in it."""
        return self.summary.n_ok > 0 and self.summary.n_failed == 0


def measured(outcome: Outcome, method: Method, scale: int, metric: Metric) -> Measured:
    """A metric of a cell; of a set metric computed, or taken from the store."""
    samples = outcome.samples.samples
    if metric.kind != "set":
        values = sample_values(outcome, method, scale, metric)
        return Measured(summarise(values, [s.person for s in samples], metric.percent), values)
    rows = _rows(outcome, method, scale, "restored")
    images = dict(zip(rows["sample"], rows["image"]))
    pairs = [(s, images[s.id]) for s in samples if images.get(s.id)]
    count = len(pairs), len(samples) - len(pairs)
    if len(pairs) < 2:
        return Measured(Summary(np.nan, np.nan, np.nan, *count))
    left_out, deviation = outcome.measures.of_set(metric, pairs)
    return Measured(Summary(float(left_out.whole), *map(float, left_out.interval()), *count,
                            deviation), left_out=left_out)


def leading(metric: Metric, found: dict[str, Measured], people: list[str]) -> dict[str, str]:
    """Best and second best of rows that have all values: only where paired by people they are told
    from every one behind, all these comparisons of a column corrected by Holm."""
    names = sorted((name for name, m in found.items() if m.whole), key=lambda n: -metric.direction
                   * found[n].summary.mean)
    pairs = [(i, j) for i in (0, 1) for j in range(i + 1, len(names))]
    if not pairs or too_few(len(set(people))):
        return {}
    first, second = np.array(pairs).T
    if metric.kind == "set":
        parts = [found[name].left_out for name in names]
        whole, without = np.array([p.whole for p in parts]), np.stack([p.without for p in parts], 1)
        difference = Jackknife(whole[first] - whole[second], without[:, first] - without[:, second],
                               parts[0].sizes)
    else:
        values = np.stack([found[name].values for name in names], 1)
        difference = jackknife_mean(values[:, first] - values[:, second], people)
    apart = holm(difference.p_value()) <= 1 - LEVEL
    leads = apart[first == 0].all(), len(names) > 2 and apart.all()
    return {name: mark for name, mark, ahead in zip(names, ("best", "second"), leads) if ahead}


def _notes(outcome: Outcome) -> list[str]:
    source, options, samples = outcome.samples.source, outcome.options, outcome.samples
    people, degradation = {s.person for s in samples.samples}, get_degradation(options.degradation)
    notes = [
        f"Data: {source.name} ({source.licence}); {len(people)} people, {len(samples.samples)} "
        f"test images, "
        f"{options.profile.size} px; {samples.rule}.",
        f"Degradation: {degradation.id}, {degradation.summary}. Seed {options.seed}.",
        f"Mean over test images. {few}." if (few := too_few(len(people))) else
        "Mean over test images; [low, high] is a 95 % interval over people (each left out in turn, "
        "Student's t; of a share "
        "Korn and Graubard's). Best (**bold**) and second best (underlined) are marked among "
        "methods that restored every "
        "sample without the ground truth, not controls, and only where, paired by people, they are "
        "told from every one "
        "behind them, a column's comparisons corrected by Holm to 5 %; set metrics likewise."]
    if source.remarks:
        notes.append(f"{source.name}: {source.remarks}.")
    notes += samples.excluded.lines()
    if near := near_copies(samples.samples, samples.signatures, DUPLICATE):
        notes.append(f"Test images that may be copies of one photograph, and count each: "
                     f"{len(near)} pairs "
                     f"({', '.join(map(' and '.join, near[:3]))}{', ...' if near[3:] else ''}).")
    if alike := twins(outcome):
        names = ", ".join(f"{a} and {b}, {apart:.3f} apart" for a, b, apart in alike[:3])
        notes.append(f"People who may be one under two names, by dlib's network, and count each: "
                     f"{len(alike)} pairs ({names}{', ...' if alike[3:] else ''}).")
    if any(cell.method.weights == "mini" for cell in outcome.cells):
        notes.append("Weights `mini` were trained for this project at 64 px; they show the method, "
                     "not the "
                     "paper's quality. Their model cards stand beside them in methods/weights.")
    if any(cell.method.weights == "published" for cell in outcome.cells):
        notes.append("Weights `published` are their authors', as a package registry has them; what "
                     "they have seen is not checked against these images.")
    if any(cell.method.weights == "given" for cell in outcome.cells):
        notes.append("Weights `given` are files of the user's: what they were trained on is not "
                     "known, so it is not checked "
                     "against these images.")
    if options.precision != "float32":
        notes.append(f"Networks ran in {options.precision}.")
    if versions := mixed(outcome.measures.store.root, outcome.records["run"]):
        notes.append(f"The records of this table were made with different versions of "
                     f"{'; '.join(versions)}.")
    sides = dict.fromkeys((c.method.title, c.method.resizing()) for c in outcome.cells)
    for words in dict.fromkeys(words for _, words in sides if words):
        titles = ", ".join(title for title, own in sides if own == words)
        notes.append(f"Resized for the network, {words}: {titles}.")
    notes += dict.fromkeys(f"{c.method.title}: {c.method.remark}." for c in outcome.cells
                           if c.method.remark)
    notes += _failures(outcome)
    for name, why in outcome.left_out.items():
        notes.append(f"No row for {name}: {why}.")
    for metric_id, why in outcome.unavailable.items():
        notes.append(f"n/a {metric_id}: {why}.")
    stand_ins = [f"{m.title} ({m.id}) stands in for {m.stand_in}" for m in outcome.options.metrics
                 if m.stand_in]
    if stand_ins:
        notes.append("; ".join(stand_ins) + ": other numbers, not comparable with them.")
    served = outcome.records[~outcome.records["landmarks"]
                             .isin(["", TRUTH])].drop_duplicates(["scale", "sample"])
    for scale, rows in served.groupby("scale"):
        counts = ", ".join(f"{source} {count}" for source, count in rows["landmarks"].astype(str)
                           .value_counts().sort_index().items())
        notes.append(f"Landmarks on the low-resolution images at x{scale}: {counts}.")
    return notes


def _columns(outcome: Outcome, columns: Sequence[Metric]) -> list[str]:
    """What each column is, in words."""
    return [f"{c.described}." for c in columns if c.id not in outcome.unavailable]


def _beside_the_paper(outcome: Outcome, columns: Sequence[Metric], other: list[str]) -> list[str]:
    """What the paper's numbers beside ours are, and what a difference from them means."""
    known = [c for c in columns if c.paper in quantities() and c.id not in outcome.unavailable]
    if other:
        return ([f"The paper's numbers stand beside, and no difference is drawn: "
                 f"{'; '.join(other)}."])
    notes = [f"No difference from the paper is drawn of {c.title}: {c.other}."
             for c in known if c.other]
    rows = dict.fromkeys(f"{c.method.title} "
                         f"({'true landmarks' if 'oracle' in c.method.needs else c.method.weights})"
                         for c in outcome.cells
                         if c.method.paper and (c.method.weights not in THEIRS
                                                or "oracle" in c.method.needs))
    if rows:
        notes.append(f"No difference is drawn of rows that are not the paper's: {', '.join(rows)}.")
    margins = ", ".join(f"{c.title} {quantities()[c.paper].margin:g}" for c in known if not c.other)
    open_ = "; ".join(f"{c.title}: {quantities()[c.paper].note}" for c in known if not c.other
                      and quantities()[c.paper].note)
    return [*notes,
            "Differences are ours less the paper's: ✓ where the whole interval is nearer to the "
            f"paper's value than what counts here as the same ({margins}), ✗ where the interval "
            f"excludes the value, ? where it cannot tell. What the paper leaves open: {open_}."]


def _failures(outcome: Outcome) -> list[str]:
    """Restorations that failed, by method, scale and cause."""
    notes, titles = [], {cell.method.name: cell.method.title for cell in outcome.cells}
    restored = outcome.records[outcome.records["metric"] == "restored"]
    for (scale, name), rows in restored.groupby(["scale", "method"]):
        causes = rows.loc[rows["status"] != "ok", "status"].str.removeprefix("failed: ")
        notes += [f"{titles[name]} at x{scale}: {count} of {len(rows)} failed ({cause}); "
                  f"--retry-failed tries again."
                  for cause, count in causes.value_counts().sort_index().items()]
    return notes
