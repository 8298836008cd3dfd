"""The ablation (paper 5.4, Fig. 8): cases 1 to 5 beside the default, trained alike, raw and
normalised.

The paper normalises its metrics "since they have different scales" and gives no number; neither the
normalisation nor the metrics are named. Ours: each metric is brought to 0 ... 1 by the worst and
the best of the variants shown, 1 the best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from fsrbench.engine.plan import Options
from fsrbench.engine.results import put_mean
from fsrbench.engine.run import Outcome, Run
from fsrbench.engine.store import Store, write_files
from fsrbench.errors import FsrError
from fsrbench.methods.idfsr.configs import CASE_TITLES, CASES
from fsrbench.metrics import Metric
from fsrbench.reports.tables.comparisons import IDENTITY, OTHERS, TABLE1, write
from fsrbench.reports.tables.render import header
from fsrbench.reports.tables.table import Table, build, sample_values
from fsrbench.text import csv_table, markdown_table, read_json
from fsrbench.weights.catalogue import locate

SCALES = ("16",)
METHODS = tuple(f"idfsr.case{case}" for case in CASES)
METRICS = tuple(name for name in TABLE1.metrics if name not in (*OTHERS, *IDENTITY))


def methods_of(cases: Sequence[int]) -> tuple[str, ...]:
    """Methods of the cases asked for, the default first; empty where none is asked for.

    Raises:
        FsrError: there is no such case; names those that there are.
    """
    for case in cases:
        if case not in CASES:
            known = ", ".join(f"{number} ({title.rpartition(': ')[2]})"
                              for number, title in CASE_TITLES.items())
            raise FsrError(f"ablation case {case}", "unknown", f"known: {known}", code=2)
    return tuple(f"idfsr.case{case}" for case in sorted({0, *cases})) if cases else ()


def budget(outcome: Outcome) -> int | None:
    """Images that each variant has seen in training, from the cards beside the weights; None
    without cards.

    Raises:
        FsrError: the variants were not trained alike, so their difference is not that of their
            parts.
    """
    seen = {}
    for method in dict.fromkeys(cell.method.name for cell in outcome.cells):
        weights = next(c.method for c in outcome.cells if c.method.name
                       == method).parts["network"].weights
        card = locate(weights).with_suffix(".json")
        if card.exists():
            known = read_json(card, "images_seen", "started_from",
                              remedy="export the weights again")
            seen[weights] = known["images_seen"] + (known["started_from"].get("images_seen") or 0)
    if len(set(seen.values())) > 1:
        raise FsrError("ablation", "the variants were not trained alike: "
                       + ", ".join(f"{name} saw {count:,} images" for name, count in seen.items()),
                       "train each to the same number of images", code=4)
    return next(iter(seen.values()), None)


def normalised(table: Table, scale: int) -> dict[str, dict[str, float]]:
    """By metric id and method: 0 for the worst, 1 for the best mean among the rows; NaN where there
    is none, 0.5 where all are equal."""
    out: dict[str, dict[str, float]] = {}
    for metric in shown(table):
        means = {row.method: row.values[metric.id].summary.mean for row in table.blocks[scale]}
        finite = [v for v in means.values() if math.isfinite(v)]
        low, high = (min(finite), max(finite)) if finite else (math.nan, math.nan)
        out[metric.id] = {name: _scaled(value, low, high, metric.direction)
                          for name, value in means.items()}
    return out


def _scaled(value: float, low: float, high: float, direction: int) -> float:
    if not high > low:
        return 0.5 if math.isfinite(value) else math.nan
    return (value - low) / (high - low) if direction > 0 else (high - value) / (high - low)


def shown(table: Table) -> list[Metric]:
    """Columns that have values here."""
    return [c for c in table.columns if c.id not in table.unavailable]


def compute(options: Options, store: Store) -> tuple[Table, Outcome]:
    """Run what is missing, and the table.

    Raises:
        FsrError: records are with other shards, weights are missing, or the variants were not
            trained alike.
    """
    outcome = Run(options, store).execute()
    return tabulate(outcome), outcome


def tabulate(outcome: Outcome) -> Table:
    """The table of a finished run.

    Raises:
        FsrError: the variants were not trained alike.
    """
    options, seen = outcome.options, budget(outcome)
    table = build(outcome, "ablation",
                  f"Ablation: {options.data.split(':')[0]}, profile {options.profile.name}",
                  options.metrics, "")
    trained = f", each trained on {seen:,} images" if seen else ""
    table.notes.insert(0,
                       f"All variants are deltas on one configuration with one training{trained}; "
                       f"they compare with each "
                          "other, not with the method's own rows in Table 1. All are pre-trained "
                          "(z_id of the reference), none "
                          "is fitted.")
    return table


def keep(table: Table, outcome: Outcome, store: Store) -> None:
    """Keep each variant's means at the first scale, and its paired differences from the default,
    where the claims find them."""
    scale, people = next(iter(table.blocks)), [s.person for s in outcome.samples.samples]
    methods = {cell.method.name: cell.method for cell in outcome.cells}
    note = f"{len(set(people))} people of {outcome.samples.source.name}, x{scale}"
    for metric in (m for m in shown(table) if m.kind != "set" and m.paper):
        values = {_case(name): sample_values(outcome, m, scale, metric)
                  for name, m in methods.items()}
        for case, found in values.items():
            put_mean(store, outcome.options.profile.name, f"ablation/{case}/{metric.paper}", found,
                     people, note)
            if case != "default" and "default" in values:
                put_mean(store, outcome.options.profile.name,
                         f"ablation/{case}/{metric.paper}-default",
                         found - values["default"], people, note)


def _case(method: str) -> str:
    """What results call a variant: "default" for case 0."""
    case = method.rpartition(".")[2]
    return "default" if case == "case0" else case


def _markdown(table: Table) -> str:
    lines = []
    for scale, rows in table.blocks.items():
        values, metrics = normalised(table, scale), shown(table)
        lines += [f"## ×{scale}, normalised (1 the best of these rows, 0 the worst)", "",
                  markdown_table(["Variant", *map(header, metrics)],
                                 [[row.title, *(f"{values[m.id][row.method]:.2f}" for m in metrics)]
                                  for row in rows], left=1)]
        lines.append("")
    return "\n".join(lines)


def _tidy(table: Table) -> str:
    lines = []
    for scale, rows in table.blocks.items():
        for metric, values in normalised(table, scale).items():
            lines += [(scale, row.method, metric, f"{row.values[metric].summary.mean:.6g}",
                       f"{values[row.method]:.6g}")
                      for row in rows]
    return csv_table(("scale", "method", "metric", "mean", "normalised"), lines)


def ablation(options: Options, store: Store, out: Path) -> list[Path]:
    """Run what is missing and write ablation.md (raw and normalised), .csv, .tex, .svg, .html and
    ablation-normalised.csv."""
    table, outcome = compute(options, store)
    keep(table, outcome, store)
    paths = write(table, outcome, out)
    both = paths[0].read_text(encoding="utf-8") + "\n" + _markdown(table)
    return [*paths,
            *write_files(out, {paths[0].name: both, "ablation-normalised.csv": _tidy(table)})[1:]]
