"""Tables as Markdown, CSV and LaTeX."""

from __future__ import annotations

import math

from fsrbench.engine.stats import Summary
from fsrbench.metrics import Metric
from fsrbench.registry import family
from fsrbench.reports.paper.published import DIFFERS, UNSURE, WITHIN
from fsrbench.reports.tables.judges import DAGGER
from fsrbench.reports.tables.table import Row, Table, Value
from fsrbench.text import csv_table, factor, markdown_table

ARROWS = {1: "↑", -1: "↓"}
# How a verdict stands behind a drawn difference.
DRAWN = {WITHIN: "✓", DIFFERS: "✗", UNSURE: "?"}
# Where a method restored no sample at all, as in the paper's tables.
NOTHING = "–"


def number(metric: Metric, value: float | None) -> str:
    """A value with its metric's decimals; "n/a" for what is missing."""
    if value is None or math.isnan(value):
        return "n/a"
    return f"{value * 100:z.{metric.digits}f}%" if metric.percent else f"{value:z.{metric.digits}f}"


def shown(metric: Metric, summary: Summary) -> str:
    """A summary as a cell shows it: its mean, with the deviation over samples where the metric asks
    for it."""
    spread = (f" ± {number(metric, summary.sd)}" if metric.spread and not math.isnan(summary.mean)
              else "")
    return number(metric, summary.mean) + spread


def paper_shown(metric: Metric, value: Value) -> str:
    """The published value of a cell, as the paper shows it; empty where there is none."""
    if value.paper is None:
        return ""
    return paper_number(metric, value.paper) + ("" if value.paper_sd is None
                                                else f" ± {value.paper_sd:.{metric.digits}f}")


def paper_number(metric: Metric, value: float) -> str:
    """A published value (percentages are published as such)."""
    return f"{value:.{metric.digits}f}%" if metric.percent else f"{value:.{metric.digits}f}"


def header(metric: Metric) -> str:
    """Column title with its direction."""
    return f"{metric.title} {ARROWS[metric.direction]}"


def labelled(title: str, weights: str) -> str:
    """A method's title with the kind of its weights, where it has any."""
    return title if weights == "none" else f"{title} [{weights}]"


def _marked(text: str, mark: str) -> str:
    return {"best": f"**{text}**", "second": f"<u>{text}</u>", "": text}[mark]


def _cell(metric: Metric, value: Value, row: Row) -> str:
    if value.summary is None:
        return "n/a"
    if not row.n_ok:
        return NOTHING
    text = _marked(shown(metric, value.summary), value.mark) + DAGGER * value.seen
    return text if value.summary.n_ok == row.n_ok else f"{text} (n={value.summary.n_ok})"


def _count(row: Row) -> str:
    return str(row.n_ok) if not row.n_failed else f"{row.n_ok} ({row.n_failed} failed)"


def grid(table: Table, scale: int) -> list[list[str]]:
    """Header and rows of one scale as text; each method's published numbers follow it."""
    lines = [["Method", "Weights", "n", *map(header, table.columns)]]
    for row in table.blocks[scale]:
        lines.append([row.title, row.weights, _count(row),
                      *[_cell(c, row.values[c.id], row) for c in table.columns]])
        papers = [row.values[c.id].paper for c in table.columns]
        if any(p is not None for p in papers):
            lines.append(["  paper", "", "", *[paper_shown(c, row.values[c.id])
                                               for c in table.columns]])
            differences = [difference(c, row.values[c.id]) for c in table.columns]
            if any(differences):
                lines.append(["  difference", "", "", *differences])
    return lines


def _offset(metric: Metric, value: Value) -> float | None:
    """Ours less the paper's, in the paper's unit; None where they may not be compared."""
    if value.verdict not in DRAWN:
        return None
    return value.summary.mean * (100 if metric.percent else 1) - value.paper


def difference(metric: Metric, value: Value) -> str:
    """Ours less the paper's, and its verdict; empty where they may not be compared."""
    offset = _offset(metric, value)
    return "" if offset is None else f"{offset:+.{metric.digits}f} {DRAWN[value.verdict]}"


def markdown(table: Table) -> str:
    """Markdown, aligned so that it also reads in a terminal."""
    out = [f"# {table.title}", ""]
    for scale in table.blocks:
        head, *rows = grid(table, scale)
        out += [f"## {factor(scale)}", "", markdown_table(head, rows, left=2), ""]
    return "\n".join(out + [f"- {note}" for note in table.notes]) + "\n"


CSV_COLUMNS = ("dataset", "degradation", "scale", "method", "weights", "metric", "mean", "ci_low",
               "ci_high", "sd", "n_ok", "n_failed", "paper", "difference", "verdict")


def tidy(table: Table) -> str:
    """Tidy CSV: one line a cell; an empty field is a value that does not exist."""
    lines = []
    for scale, rows in table.blocks.items():
        for row in rows:
            for column in table.columns:
                value = row.values[column.id]
                s = value.summary
                figures = ["", "", "", "", 0, row.n_ok + row.n_failed] if s is None else \
                    [*map(_csv_float, (s.mean, s.low, s.high, s.sd)), s.n_ok, s.n_failed]
                lines.append([table.dataset, table.degradation, scale, family(row.method),
                              row.weights, _cell_id(column, s), *figures,
                              "" if value.paper is None else value.paper,
                              _csv_offset(column, value), value.verdict])
    return csv_table(CSV_COLUMNS, lines)


def _cell_id(metric: Metric, summary: Summary | None) -> str:
    """A metric's id, with the number of images that its value depends on ("fd.alexnet@gt#n59")."""
    return f"{metric.id}#n{summary.n_ok}" if metric.of_n and summary else metric.id


def _csv_offset(metric: Metric, value: Value) -> str:
    offset = _offset(metric, value)
    return "" if offset is None else f"{offset:.6g}"


def _csv_float(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


_TEX = str.maketrans({"±": r"$\pm$", "%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#",
                      DAGGER: r"$\dagger$"})


def _tex_factor(scale: int) -> str:
    return rf"$\times {scale}$" if scale > 1 else factor(scale)


def latex(table: Table) -> str:
    """LaTeX with booktabs, ready to be input."""
    columns, arrows = table.columns, {1: r"$\uparrow$", -1: r"$\downarrow$"}
    out = [r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering",
           r"\setlength{\tabcolsep}{4pt}"]
    out.append(r"\begin{tabular}{llr" + "r" * len(columns) + "}")
    heads = " & ".join(f"{c.title.translate(_TEX)} {arrows[c.direction]}" for c in columns)
    for scale, rows in table.blocks.items():
        out += [r"\toprule", rf"{_tex_factor(scale)} & Weights & $n$ & {heads} \\", r"\midrule"]
        for row in rows:
            cells = []
            for c in columns:
                text = _cell(c, row.values[c.id],
                             row).replace("**", "").replace("<u>", "").replace("</u>", "")
                wrap = {"best": r"\textbf{%s}", "second": r"\underline{%s}",
                        "": "%s"}[row.values[c.id].mark]
                cells.append(wrap % text.translate(_TEX))
            out.append(" & ".join([row.title.translate(_TEX), row.weights, _count(row), *cells])
                       + r" \\")
            papers = [row.values[c.id].paper for c in columns]
            if any(p is not None for p in papers):
                texts = [paper_shown(c, row.values[c.id]).translate(_TEX) for c in columns]
                out.append(" & ".join([r"\quad\emph{paper}", "", "", *texts]) + r" \\")
        out.append(r"\bottomrule")
    caption = f"{table.title}. {table.notes[0]}".translate(_TEX) if table.notes else table.title
    out += [r"\end{tabular}", rf"\caption{{{caption}}}", rf"\label{{tab:{table.name}}}",
            r"\end{table}"]
    return "\n".join(out) + "\n"
