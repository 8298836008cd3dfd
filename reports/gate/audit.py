"""The claims audit: every claim of the paper, asked of its own tables and of our records, as
Markdown, CSV and JSON."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fsrbench.engine.fixed import Fixed
from fsrbench.engine.options import plan
from fsrbench.engine.plan import Options
from fsrbench.engine.results import results
from fsrbench.engine.run import Outcome, Run
from fsrbench.engine.samples import SampleSet
from fsrbench.engine.store import Store, write_files
from fsrbench.metrics import metrics
from fsrbench.reports.gate.claims import predicates
from fsrbench.reports.gate.evidence import Cell, OurResults, PaperResults, Results
from fsrbench.reports.paper.published import Claim, claims, quantities
from fsrbench.reports.tables.comparisons import TABLE1
from fsrbench.text import csv_table, json_text, markdown_table

SCALES = ("4", "8", "16", "32")
# The gap by a judge that no method here has seen.
IDENTITY_BY = "gap.people-truthpoints@frfeature"


@dataclass(frozen=True)
class Judgement:
    """A claim's answer on one side: "holds", "does not hold", "cannot tell" or "not measured", and
    what decided."""

    verdict: str
    evidence: str


@dataclass(frozen=True)
class Audit:
    """A claim with both judgements, and ours with the identity gap in place of IDS where it asks
    for identity."""

    claim: Claim
    paper: Judgement
    ours: Judgement
    gap: Judgement | None = None


class ByGap(OurResults):
    """Our records with the identity gap of `IDENTITY_BY` in place of IDS, negated, so that less is
    better of both; `asked` says whether identity was asked for."""

    asked = False

    def _metric(self, name: str):
        if name != "ids":
            return super()._metric(name)
        self.asked = True
        return next((m for m in self.outcome.options.metrics if m.id == IDENTITY_BY
                     and m.id not in self.outcome.unavailable), None)

    def _vector(self, cell: Cell):
        vector = super()._vector(cell)
        return -vector if cell.metric == "ids" and vector is not None else vector

    def scalar(self, name: str) -> None:
        """None: no named number is of the gap."""
        self.asked |= name.endswith("/ids") or "/ids-" in name


def judge(name: str, view: Results) -> Judgement:
    """Ask one claim of one view; rivals without a value are named behind the evidence."""
    view.absent.clear()
    finding = predicates()[name](view)
    without = f" (without {_grouped(view.absent)})" if view.absent else ""
    return Judgement(finding.answer, finding.text + without)


def _grouped(cells: list[str]) -> str:
    """Names of cells, the scales of one method together."""
    scales: dict[str, list[str]] = {}
    for cell in cells:
        name, _, scale = cell.partition(" ")
        scales.setdefault(name, []).append(scale)
    return ", ".join(f"{name} {' '.join(of)}".rstrip() for name, of in scales.items())


def audit(outcome: Outcome, store: Store) -> list[Audit]:
    """All claims, on the paper's tables and on a plan's records."""
    known = results(store, outcome.options.profile.name)
    paper, ours = PaperResults(), OurResults(outcome, known)
    return [Audit(c, judge(c.id, paper), judge(c.id, ours), _by_gap(c.id, ByGap(outcome, known)))
            for c in claims()]


def _by_gap(name: str, view: ByGap) -> Judgement | None:
    """A claim asked of the gap; None where it is not of identity."""
    found = judge(name, view)
    return (replace(found, evidence=re.sub(r"\bids\b", "-gap", found.evidence)) if view.asked
            else None)


def metrics_of_claims() -> tuple[str, ...]:
    """Table 1's metrics, and every other that the paper has numbers of."""
    named = set(quantities())
    return *TABLE1.metrics, *(m.id for m in metrics().values() if m.paper in named)


def claims_plan(profile: str, data: str | None, scales, methods, people, seed, batch,
                precision: str, fixed: Fixed = Fixed()) -> Options:
    """The plan whose records the claims read: as Table 1's, at all scales, with every metric that
    the paper has."""
    return plan(profile, data, scales or SCALES, methods, metrics_of_claims(), people, seed, batch,
                precision, TABLE1.methods, fixed=fixed)


def gather(options: Options, store: Store, samples: SampleSet | None = None) -> Outcome:
    """What the store holds of a plan; nothing is computed."""
    return Run(options, store, samples).execute(compute=False)


COLUMNS = ("id", "where", "claim", "paper", "ours", "paper_evidence", "our_evidence",
           "ours_by_gap", "gap_evidence")


def _row(a: Audit) -> tuple[str, ...]:
    return (a.claim.id, a.claim.where, a.claim.claim, a.paper.verdict, a.ours.verdict,
            a.paper.evidence, a.ours.evidence, a.gap.verdict if a.gap else "",
            a.gap.evidence if a.gap else "")


def _counts(audits: list[Audit], side: str) -> str:
    verdicts = [getattr(a, side).verdict for a in audits]
    return ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))


# Where the paper says something outside of its tables and figures, or by a command of its own.
_ELSEWHERE = {"4.2": "table1", "4.3": "table1", "4.4": "table2", "E.5": "analysis",
              "Fig 8": "ablation"}


def _commands(where: str) -> list[str]:
    """The commands that measure what a claim at this place of the paper needs ("Table 1/3")."""
    if found := next((name for place, name in _ELSEWHERE.items() if place in where), ""):
        return [found]
    kind, _, numbers = where.rpartition("/")[2].rpartition(" ") if "Table" not in where else (
        "Table", "", where.partition("Table ")[2])
    return [f"table{n}" if kind == "Table" else f"figure --n {n}" for n in numbers.split("/")
            if n.isdecimal()]


def unmeasured(audits: list[Audit]) -> str:
    """What to run for the claims that nothing was measured of; empty where there is none."""
    places = [a.claim.where for a in audits if a.ours.verdict == "not measured"]
    names = dict.fromkeys(name for place in places for name in _commands(place))
    if not names:
        return ""
    return (f"Not measured in this store: {len(places)}; below stands what each lacks. Where its "
            "data and weights are here it is measured, with the same --store and --data, by "
            f"{', '.join(f'`invoke {name}`' for name in sorted(names))}, or all by `invoke "
            "paper`.")


def markdown(audits: list[Audit], outcome: Outcome) -> str:
    """A table of verdicts, and below it what decided each."""
    options, people = outcome.options, {s.person for s in outcome.samples.samples}
    lines = ["# Claims of the paper", "",
             f"Ours: {outcome.samples.source.name}, profile {options.profile.name}, {len(people)} "
             f"people, "
             f"{len(outcome.samples.samples)} test images; seed {options.seed}.",
             f"On the paper's own tables: {_counts(audits, 'paper')}. On our records: "
             f"{_counts(audits, 'ours')}.", *filter(None, [unmeasured(audits)]), "",
             markdown_table(["Claim", "Where", "Paper", "Ours", "Ours by the gap"],
                            [[a.claim.claim, a.claim.where, a.paper.verdict, a.ours.verdict,
                              a.gap.verdict if a.gap else ""] for a in audits]),
             "", f"By the gap: {IDENTITY_BY} in place of IDS, of claims on identity."]
    lines += ["", "## Evidence", ""]
    for a in audits:
        said = a.paper.evidence or "no number"
        lines += [f"- **{a.claim.id}**: paper {a.paper.verdict}: {said}.",
                  f"  Ours {a.ours.verdict}: {a.ours.evidence or 'no number'}."]
        if a.gap:
            lines.append(f"  By the gap {a.gap.verdict}: {a.gap.evidence or 'no number'}.")
    return "\n".join(lines) + "\n"


def tidy(audits: list[Audit]) -> str:
    """CSV, one line a claim."""
    return csv_table(COLUMNS, map(_row, audits))


def as_json(audits: list[Audit]) -> str:
    """JSON: a list of {claim: {id, where, claim}, paper: {verdict, evidence}, ours: {...}}."""
    return json_text([asdict(a) for a in audits])


def write(audits: list[Audit], outcome: Outcome, out: Path | str) -> list[Path]:
    """Write claims.md, claims.csv and claims.json; returns the paths."""
    texts = {"md": markdown(audits, outcome), "csv": tidy(audits), "json": as_json(audits)}
    return write_files(out, {f"claims.{suffix}": text for suffix, text in texts.items()})
