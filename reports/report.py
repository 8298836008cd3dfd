"""`invoke report`: what the default run says, on one page."""

from __future__ import annotations

from html import escape
from pathlib import Path

from fsrbench.errors import FsrError
from fsrbench.reports import site
from fsrbench.reports.comparisons import TABLE1, tabulate
from fsrbench.run import Options, Run
from fsrbench.store import Store, write_atomic

LEAD = ("A benchmark of face super-resolution. Restorations of very small pictures are likely faces, not true ones. Rows "
        "called mini are small networks trained for this project: they show a method at work, not the paper's quality.")


def overview(outcome, table) -> site.Section:
    """Counts, and which rows lead which columns."""
    restored = outcome.records[outcome.records["metric"] == "restored"]
    people = {s.person for s in outcome.samples.samples}
    tiles = [("methods", len({c.method.name for c in outcome.cells})), ("people", len(people)),
             ("test pictures", len(outcome.samples.samples)), ("restorations", len(restored)),
             ("failed", int((restored["status"] != "ok").sum())), ("records", len(outcome.records))]
    boxes = "".join(f"<div><b>{value:,}</b>{name}</div>" for name, value in tiles)
    leads = []
    for scale, rows in table.blocks.items():
        best = [f"{escape(c.title)}: {escape(r.title)}" for c in table.columns for r in rows if r.values[c.id].mark == "best"]
        said = "; ".join(best) or "no method is told from the next in any column"
        leads.append(f"<li>×{scale}: {said}.</li>")
    return site.Section("overview", "Overview", f'<div class="tiles">{boxes}</div><p>Best where a paired bootstrap over people '
                                                f'tells it from the next:</p><ul>{"".join(leads)}</ul>')


def report(options: Options, store: Store, out: Path | str) -> Path:
    """Run what is missing and write report.html.

    Raises:
        FsrError: records are with other shards, or the folder cannot be written.
    """
    outcome = Run(options, store).execute()
    if outcome.missing:
        raise FsrError("report", f"{outcome.missing} records are with other shards", "finish them, then run without a shard")
    table = tabulate(TABLE1, outcome)
    origin = site.provenance(outcome)
    sections = [overview(outcome, table), site.table_section(table), site.explorer_section(), site.failures_section(outcome),
                site.provenance_section(outcome, origin)]
    data = {"explorer": site.explorer_data(outcome), "provenance": origin}
    path = Path(out) / "report.html"
    try:
        write_atomic(path, site.page(f"FSRBench: {options.data}", LEAD, sections, data).encode())
    except OSError as error:
        raise FsrError(f"--out {out}", f"cannot be written ({error.strerror})", "give another folder") from None
    return path
