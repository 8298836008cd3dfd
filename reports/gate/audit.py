"""The claims audit: every claim of the paper, asked of its own tables and of our records, as
Markdown, CSV and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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
from fsrbench.reports.gate.evidence import OurResults, PaperResults, Results
from fsrbench.reports.paper.published import Claim, claims, quantities
from fsrbench.reports.tables.comparisons import TABLE1
from fsrbench.text import csv_table, json_text, markdown_table

SCALES = ("4", "8", "16", "32")


@dataclass(frozen=True)
class Judgement:
    """A claim's answer on one side: "holds", "does not hold", "cannot tell" or "not measured", and
    what decided."""

    verdict: str
    evidence: str


@dataclass(frozen=True)
class Audit:
    """A claim with both judgements."""

    claim: Claim
    paper: Judgement
    ours: Judgement


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
    paper, ours = PaperResults(), OurResults(outcome, results(store, outcome.options.profile.name))
    return [Audit(c, judge(c.id, paper), judge(c.id, ours)) for c in claims()]


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


COLUMNS = ("id", "where", "claim", "paper", "ours", "paper_evidence", "our_evidence")


def _row(a: Audit) -> tuple[str, ...]:
    return (a.claim.id, a.claim.where, a.claim.claim, a.paper.verdict, a.ours.verdict,
            a.paper.evidence, a.ours.evidence)


def _counts(audits: list[Audit], side: str) -> str:
    verdicts = [getattr(a, side).verdict for a in audits]
    return ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))


def markdown(audits: list[Audit], outcome: Outcome) -> str:
    """A table of verdicts, and below it what decided each."""
    options, people = outcome.options, {s.person for s in outcome.samples.samples}
    lines = ["# Claims of the paper", "",
             f"Ours: {outcome.samples.source.name}, profile {options.profile.name}, {len(people)} "
             f"people, "
             f"{len(outcome.samples.samples)} test images; seed {options.seed}.",
             f"On the paper's own tables: {_counts(audits, 'paper')}. On our records: "
             f"{_counts(audits, 'ours')}.", "",
             markdown_table(["Claim", "Where", "Paper", "Ours"],
                            [[a.claim.claim, a.claim.where, a.paper.verdict, a.ours.verdict]
                             for a in audits])]
    lines += ["", "## Evidence", ""]
    for a in audits:
        said = a.paper.evidence or "no number"
        lines += [f"- **{a.claim.id}**: paper {a.paper.verdict}: {said}.",
                  f"  Ours {a.ours.verdict}: {a.ours.evidence or 'no number'}."]
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
