"""`invoke report`: what the default run says, on one page."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path

from fsrbench.engine.options import narrowed
from fsrbench.engine.plan import Options
from fsrbench.engine.run import Outcome, Run
from fsrbench.engine.samples import SampleSet
from fsrbench.engine.store import Store, write_files
from fsrbench.errors import FsrError
from fsrbench.metrics import family
from fsrbench.profiles import PROFILES
from fsrbench.reports.gate import audit
from fsrbench.reports.pages import explorer, site
from fsrbench.reports.tables import ablation, table4
from fsrbench.reports.tables.comparisons import COMPARISONS, TABLE1, tabulate
from fsrbench.reports.tables.table import Table

LEAD = ("A benchmark of face super-resolution. Restorations of very small images are likely faces, "
        "not true ones. Rows "
        "called mini are small networks trained for this project: they show a method at work, not "
        "the paper's quality.")


def overview(outcome: Outcome, table: Table, missing: dict[str, str]) -> site.Section:
    """Counts, which rows lead which columns, and which tables are not here, by command, and why."""
    restored = outcome.records[outcome.records["metric"] == "restored"]
    people = {s.person for s in outcome.samples.samples}
    tiles = [("methods", len({c.method.name for c in outcome.cells})), ("people", len(people)),
             ("test images", len(outcome.samples.samples)), ("restorations", len(restored)),
             ("failed", int((restored["status"] != "ok").sum())), ("records", len(outcome.records))]
    boxes = "".join(f"<div><b>{value:,}</b>{name}</div>" for name, value in tiles)
    leads = []
    for scale, rows in table.blocks.items():
        best = [f"{escape(c.title)}: {escape(r.title)}" for c in table.columns
                for r in rows if r.values[c.id].mark == "best"]
        said = "; ".join(best) or "no method is told from all others in any column"
        leads.append(f"<li>×{scale}: {said}.</li>")
    absent = "<p>Not on this page:</p><ul>" + "".join(
        f"<li><code>invoke {name}</code>: {escape(why)}</li>"
        for name, why in missing.items()) + "</ul>" if missing else ""
    return site.Section("overview", "Overview",
                        f'<div class="tiles">{boxes}</div><p>Best where, paired by people, '
                                                f'it is told from all others:</p>'
                                                f'<ul>{"".join(leads)}</ul>{absent}')


# How the page marks a claim's verdict (see site.css).
_MARKS = {"holds": "holds", "does not hold": "fails", "cannot tell": "unsure",
          "not measured": "unmeasured"}


def claims_section(audits: list[audit.Audit]) -> site.Section:
    """Every claim with its verdict on the paper's tables and on our records, and what decided."""
    def verdict(side: audit.Judgement) -> str:
        return (f'<td class="wide">'
                f'<span class="verdict {_MARKS[side.verdict]}">{side.verdict}</span>' \
                f"<br><small>{escape(side.evidence)}</small></td>")
    counts = {v: sum(a.ours.verdict == v for a in audits) for v in _MARKS}
    tiles = "".join(f'<div><b>{n}</b><span class="verdict {_MARKS[v]}">{v}</span></div>'
                    for v, n in counts.items())
    lines = "".join(f'<tr><th scope="row" class="claim">{escape(a.claim.claim)}<br>'
                    f'<small>{escape(a.claim.where)}</small></th>'
                    f"{verdict(a.paper)}{verdict(a.ours)}</tr>" for a in audits)
    heads = "".join(f'<th scope="col" aria-sort="none"><button>{h}</button></th>'
                    for h in ("Claim", "On the paper's tables", "On our records"))
    return site.Section("claims", "Claims", (
        f'<p>What the paper concludes, asked of its own tables and of our records.</p>'
        f'<div class="tiles">{tiles}</div>'
        f'<div class="scroll"><table class="sortable prose"><caption>{len(audits)} claims; tiles '
        f'count our records</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"))


# Why a table is not on the page.
ABSENT = "not computed yet"


def other_tables(options: Options, store: Store,
                 samples: SampleSet) -> tuple[list[tuple[Table, Outcome]], dict[str, str]]:
    """Tables 2, 3 and 5 and the ablation, of the same data, as far as the store holds all their
    records; and why the others are not there, by command."""
    data = "table5-celebv" if options.data.startswith("celebv-text") else "table5-casia"
    wanted = {name: (c.scales, c.methods, c.metrics, partial(tabulate, c))
              for name, c in COMPARISONS.items() if name in ("table2", "table3", data)}
    wanted["ablation"] = ablation.SCALES, ablation.METHODS, ablation.METRICS, ablation.tabulate
    made, missing = [], {}
    for name, (scales, methods, metrics, table) in wanted.items():
        command = name.partition("-")[0]
        try:
            outcome = audit.gather(narrowed(options, map(int, scales), methods, metrics,
                                            lenient=True), store, samples)
            if outcome.missing:
                missing[command] = ABSENT
            else:
                made.append((table(outcome), outcome))
        # no weights, or not trained alike; the page does not depend on it
        except FsrError as reason:
            missing[command] = str(reason)
    return made, missing


def table4_section() -> site.Section:
    """Table 4."""
    heads = "".join(f'<th scope="col">{h}</th>' for h in ("Parameter", "Paper", *PROFILES,
                                                          "paper = paper profile"))
    body = "".join(f'<tr><th scope="row">{escape(line.name)}</th>'
                   + "".join(f"<td>{escape(str(v))}</td>"
                             for v in (line.paper, *(line.ours[p] for p in PROFILES)))
                   + f"<td>{'yes' if line.same else 'no'}</td></tr>" for line in table4.lines())
    return site.Section("table4", "Table 4: architecture", (
        '<div class="scroll"><table class="prose"><caption>IDFSR, from the configurations in '
        'code</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"))


def table6_section(out: Path) -> site.Section | None:
    """Table 6 as it stands in the folder already; None where it does not, as counting takes
    minutes."""
    path = out / "table6.html"
    if not path.exists():
        return None
    body = re.search(r"</h1>(.*)</main>", path.read_text(encoding="utf-8"), re.S)[1]
    return site.Section("table6", "Table 6: complexity",
                        body.replace("<h2>", "<h3>").replace("</h2>", "</h3>"))


def figures_section(out: Path) -> site.Section:
    """The figures that stand in the folder already, with their captions."""
    drawn = sorted(out.glob("figure*.txt"), key=lambda p: int("".join(filter(str.isdigit, p.stem))
                                                              or 0))
    parts = [_figure(path) for path in drawn]
    body = ("".join(parts)
            or "<p>None is drawn in this folder yet: <code>invoke figure</code> draws them.</p>")
    return site.Section("figures", "Figures", body)


def _figure(caption: Path) -> str:
    """A figure as an image, so that its styles and names stay its own; of images the PNG."""
    image = next(p for p in (caption.with_suffix(".png"), caption.with_suffix(".svg"))
                 if p.exists())
    kind = {".png": "image/png", ".svg": "image/svg+xml"}[image.suffix]
    text = escape(caption.read_text(encoding="utf-8").strip())
    data = base64.b64encode(image.read_bytes()).decode()
    return (f'<figure class="figure"><img loading="lazy" src="data:{kind};base64,{data}" '
            f'alt="{text}">' \
            f"<figcaption>{text}</figcaption></figure>")


def report(options: Options, store: Store, out: Path | str) -> Path:
    """Run what is missing and write report.html.

    Raises:
        FsrError: records are with other shards, or the folder cannot be written.
    """
    outcome = Run(options, store).execute()
    if outcome.missing:
        raise FsrError("report", f"{outcome.missing} records are with other shards",
                       "finish them, then run without a shard")
    table = tabulate(TABLE1, outcome)
    others, missing = other_tables(options, store, outcome.samples)
    origin = site.provenance(outcome, *(o for _, o in others))
    wanted = dict.fromkeys(m for name in audit.metrics_of_claims() for m in family(name))
    whole = audit.gather(replace(options, scales=tuple(map(int, audit.SCALES)),
                                 metrics=tuple(wanted)), store)
    complexity = table6_section(Path(out))
    if complexity is None:
        missing["table6"] = ABSENT
    tables = [*(site.table_section(t) for t in (table, *(t for t, _ in others))), table4_section(),
              *filter(None, [complexity])]
    tables.sort(key=lambda section: (not section.id.startswith("table"), section.id))
    sections = [overview(outcome, table, missing), claims_section(audit.audit(whole, store)),
                *tables,
                figures_section(Path(out)), explorer.section(), site.failures_section(outcome),
                site.provenance_section(origin)]
    data = {"explorer": explorer.data(outcome, Path(out)), "provenance": origin}
    return write_files(out, {"report.html": site.page(f"FSRBench: {options.data}", LEAD, sections,
                                                      data)})[0]
