"""Table 6: complexity of the methods in their paper configuration (paper E.3), counted and
measured, beside the paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from fsrbench import registry
from fsrbench.engine.keys import digest_of
from fsrbench.engine.results import ALL, Result, put_result
from fsrbench.engine.store import Store, write_files
from fsrbench.profiles import PROFILES
from fsrbench.progress import progress
from fsrbench.proof.complexity import Cost, cost
from fsrbench.reports.pages.html import page
from fsrbench.reports.paper.published import published, quantities
from fsrbench.text import csv_table, markdown_table

# The paper's order; IDFSR's row is the reference of the ratios.
METHODS = ("pgdiff.official", "dr2.official", "difface.official", "stablesr.official",
           "dpi.official", "idfsr.pt")
BASE = "idfsr.pt"
# The paper gives no scale; its other tables are at 8 and 16.
SCALE = 16


@dataclass(frozen=True)
class Quantity:
    """A column: our figure, the paper's metric for it, and how to write it."""

    name: str
    title: str
    paper: str | None
    digits: int
    of: object


def _ratio(values: dict[str, float], name: str) -> float:
    return values[name] / values[BASE] if values.get(BASE) else math.nan


QUANTITIES = (
    Quantity("params_m", "Parameters of all networks, 10^6", None, 2, lambda c: c.parameters / 1e6),
    Quantity("gmacs_step", "GMACs a step", None, 2, lambda c: c.macs / 1e9),
    Quantity("gmacs_total", "GMACs in all", None, 0, lambda c: c.total_macs / 1e9),
    Quantity("counted_m", "Counted by the paper, 10^6", "params_m", 2,
             lambda c: c.counted_parameters / 1e6),
    Quantity("counted_mi", "Counted by the paper, 2^20", "params_m", 2,
             lambda c: c.counted_parameters / 2**20),
    Quantity("thop_params_m", "Counted by the paper, 10^6, thop", "params_m", 2,
             lambda c: c.as_paper[0] / 1e6),
    Quantity("thop_gmacs", "GMACs, thop", "flops_g", 2, lambda c: c.as_paper[1] / 1e9),
    Quantity("nfe", "NFE", "nfe", 0, lambda c: c.nfe),
    Quantity("step_s", "Step, s", None, 3, lambda c: c.step_seconds),
    Quantity("total_s", "Total, s", None, 1, lambda c: c.total_seconds),
)
# The quantity that the paper's parameters are of: IDFSR's are true counts in 2^20, StableSR's in
# 10^6, the others thop's.
UNITS = {"idfsr-pt": "counted_mi", "stablesr": "counted_m"}
RATIOS = (("step_ratio", "Step / IDFSR", "step_s", "step_ms"),
          ("total_ratio", "Total / IDFSR", "total_s", "total_s"))


def gather(timed: bool, names: tuple[str, ...] = METHODS) -> dict[str, Cost]:
    """Cost of each registered method of the table, in the paper profile."""
    shown = progress(names, desc="counting" + (" and timing" if timed else ""), unit="method")
    found = [cost(registry.get(name)(PROFILES["paper"]), SCALE, timed) for name in shown]
    return {c.method.name: c for c in found}


def rows(costs: dict[str, Cost]) -> list[dict]:
    """One row a quantity and method: method, quantity, title, ours, paper, verdict."""
    found = {q.name: {name: float(q.of(c)) for name, c in costs.items()} for q in QUANTITIES}
    out = []
    for name, c in costs.items():
        paper = c.method.paper
        for q in QUANTITIES:
            theirs = None if q.paper == "params_m" and q.name != UNITS.get(paper, "thop_params_m") \
                else _published(paper, q.paper)
            out.append(_row(name, q.name, q.title, q.digits, found[q.name][name], theirs))
        for ratio, title, ours, theirs in RATIOS:
            base, value = (_published(p, theirs) for p in (costs[BASE].method.paper if BASE in costs
                                                           else None, paper))
            out.append(_row(name, ratio, title, 2, _ratio(found[ours], name),
                            value / base if value is not None and base else None))
    return out


# IDFSR's rows carry no figure of their own in Table 6: "idfsr", whatever the variant.
def _published(method: str | None, metric: str | None) -> float | None:
    if method is None or metric is None:
        return None
    return published("rtx3090", "", "idfsr" if method.startswith("idfsr") else method, metric)


def _row(method: str, quantity: str, title: str, digits: int, ours: float, paper: float
         | None) -> dict:
    verdict = ""
    judged = quantity in ("counted_m", "counted_mi", "thop_params_m", "thop_gmacs", "nfe")
    if judged and paper is not None and math.isfinite(ours):
        slack = quantities()[next(q.paper for q in QUANTITIES if q.name == quantity)].tolerance
        verdict = "reproduced" if abs(ours - paper) <= slack else "not reproduced"
    return {"method": method, "quantity": quantity, "title": title, "digits": digits, "ours": ours,
            "paper": paper, "verdict": verdict}


def _text(row: dict) -> str:
    return "n/a" if math.isnan(row["ours"]) else f"{row['ours']:,.{row['digits']}f}"


def _grid(table: list[dict], costs: dict[str, Cost]) -> list[list[str]]:
    """Quantities down, methods across; below each the paper's figure where it has one."""
    lines = [["", *[c.method.title for c in costs.values()]]]
    for quantity in dict.fromkeys(r["quantity"] for r in table):
        of = [r for r in table if r["quantity"] == quantity]
        lines.append([of[0]["title"], *[_text(r) for r in of]])
        if any(r["paper"] is not None for r in of):
            mark, form = {"reproduced": " ✓", "not reproduced": " ✗",
                          "": ""}, ".4g" if quantity.endswith("ratio") else "g"
            lines.append(["  paper", *["" if r["paper"] is None
                                       else f"{r['paper']:{form}}{mark[r['verdict']]}"
                                       for r in of]])
    return lines


def notes(costs: dict[str, Cost]) -> list[str]:
    """What a reader must know, from the counts."""
    out = ["True counts are of all networks of a method; a step is what is called again and again, "
           "the total adds what is "
           "called once. The paper's figures are those of thop (multiply-accumulates, called "
           "FLOPs), one call of each "
           "network that it counted: ✓ within 0.02, ✗ not reproduced."]
    for c in costs.values():
        parts = ", ".join(f"{role} ×{n}" + ("" if c.method.parts[role].counted
                                            else " (not counted by the paper)")
                          for role, n in c.calls.items())
        out.append(f"{c.method.title}: {parts}.")
    if BASE in costs:
        c = costs[BASE]
        out.append(f"IDFSR: the paper's {_published('idfsr', 'params_m'):g} M is "
                   f"{c.method.title}'s noise predictor and "
                   "style encoder in units of 2^20 "
                   "(parameters / 1,048,576), while the other rows are in 10^6; its GFLOPs follow "
                   "from no configuration.")
    out.append(f"DR2: the paper's NFE of {_published('dr2', 'nfe'):g} is the length of the "
               f"schedule; the loop starts where "
               "I_L is diffused and "
               f"stops at tau (×{SCALE} here). DPI: the paper's figures are not those of the "
               f"released networks.")
    if any(c.seconds for c in costs.values()):
        out.append("Times: one image, random weights, this machine; total is calls times time of a "
                   "call. The paper's are "
                   "of one RTX 3090, so only ratios compare.")
    return out


def markdown(table: list[dict], costs: dict[str, Cost]) -> str:
    """Markdown, aligned."""
    head, *lines = _grid(table, costs)
    return "\n".join(["# Table 6: complexity, paper configurations", "",
                      markdown_table(head, lines, left=1), "",
                      *[f"- {note}" for note in notes(costs)]]) + "\n"


def html(table: list[dict], costs: dict[str, Cost]) -> str:
    """The table as a page."""
    head, *body = _grid(table, costs)
    cells = "".join(f'<tr class="{"paper" if line[0].startswith(" ") else ""}">'
                    f'<th scope="row">{line[0].strip()}</th>'
                    + "".join(f"<td>{t}</td>" for t in line[1:]) + "</tr>" for line in body)
    columns = "".join(f'<th scope="col">{t}</th>' for t in head)
    listed = "".join(f"<li>{note}</li>" for note in notes(costs))
    return page("Table 6",
                f'<h1>Table 6: complexity</h1><div class="scroll"><table class="numbers">'
                           "<caption>Paper configurations; ours above, the paper's below</caption>"
                           f'<thead><tr>{columns}</tr></thead><tbody>{cells}</tbody></table></div>'
                           f'<h2>Notes</h2><ul class="notes">{listed}</ul>')


def tidy(table: list[dict]) -> str:
    """Tidy CSV."""
    return csv_table(("method", "quantity", "ours", "paper", "verdict"), (
        [row["method"], row["quantity"], "" if math.isnan(row["ours"]) else f"{row['ours']:.9g}",
         "" if row["paper"] is None else row["paper"], row["verdict"]] for row in table))


def keep(costs: dict[str, Cost], store: Store) -> None:
    """Put what claims are judged by into the store; the interval of a time is that of its repeated
    calls."""
    for c in costs.values():
        paper = "idfsr" if c.method.paper.startswith("idfsr") else c.method.paper
        found = {"counted_m": [c.counted_parameters / 1e6] * 3,
                 "thop_params_m": [c.as_paper[0] / 1e6] * 3}
        if c.seconds:
            found |= {"step_ms": [1e3 * t for t in (c.step_seconds, *c.step_range)],
                      "total_s": [c.total_seconds, *c.total_range]}
        for quantity, (value, low, high) in found.items():
            name = f"table6/{paper}/{quantity}"
            put_result(store, ALL, Result(name, digest_of(name, value), value, low, high, 1,
                                          f"{c.method.name} at x{SCALE}"))


def table6(out: Path, timed: bool = True, store: Store | None = None) -> list[Path]:
    """Count, measure, and write table6.md, .csv and .html into a folder; returns the paths. With a
    store, the claims that Table 6 decides can read it."""
    costs = gather(timed)
    if store is not None:
        keep(costs, store)
    table = rows(costs)
    texts = {"md": markdown(table, costs), "csv": tidy(table), "html": html(table, costs)}
    return write_files(out, {f"table6.{suffix}": text for suffix, text in texts.items()})
