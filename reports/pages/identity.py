"""Who is this face: a table of all judges, figures, and a page with both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np

from fsrbench.engine.plan import Options
from fsrbench.engine.run import Outcome, Run
from fsrbench.engine.stats import Summary, summarise
from fsrbench.engine.store import Store, write_files
from fsrbench.errors import FsrError, unknown
from fsrbench.metrics import Metric, get_feature, metrics
from fsrbench.metrics.recognisers import RECOGNISERS
from fsrbench.reports.analysis import identity_figures as figures
from fsrbench.reports.pages.html import page, table_html
from fsrbench.reports.tables import judges
from fsrbench.reports.tables.render import markdown, tidy
from fsrbench.reports.tables.table import Row, Table, Value, build
from fsrbench.text import factor

# What else is asked of the one judge whose alignment by detection stands in the table.
CHIEF = "frfeature"
_CHIEF = ("rank1.people-truthpoints", "idv-fmr0.01.truth-truthpoints",
          "ids-truth.truth-truthpoints", "ids-reference.reference-truthpoints",
          "ids-upsampled.upsampled-truthpoints", "found.people-detected",
          "gap-detected.people-detected")
PERSON, ANOTHER, NOBODY = "the person's", "another's", "nobody's"
DISAGREE, ALONE = "judges disagree", "no two independent judges answer, so there is no verdict"
# An answer that two judges share, who are independent of each other and unknown to the method.
AGREED = {PERSON: "two independent judges take the face for the person's",
          ANOTHER: "two independent judges take the face for another person's",
          NOBODY: "two independent judges take the face for nobody's in particular"}


def asked(names: Sequence[str] = ()) -> tuple[str, ...]:
    """Metrics of the table: of every judge its gap, of one the rest, and what they are set against.

    Args:
        names: judges; empty for all that can run here, of which the first three come with packages.

    Raises:
        FsrError: there is no such judge.
    """
    known = metrics()
    if wrong := [name for name in names if name not in RECOGNISERS]:
        raise unknown("judge", wrong[0], list(RECOGNISERS))
    gaps = {name: f"gap.people-truthpoints@{name}" for name in names or RECOGNISERS}
    here = {name: gap for name, gap in gaps.items() if names or not known[gap].missing()}
    chief = CHIEF if CHIEF in here else next(iter(here))
    rest = [f"{name}@{chief}" for name in _CHIEF if f"{name}@{chief}" in known]
    return ("psnr", "lpips", "ids.cosine@dlib",
            *here.values(), *rest)


def answer(summary: Summary) -> str:
    """Whose face a gap says it is: its whole interval is above or below zero, or it is not; empty
    where there is no interval."""
    if not np.isfinite(summary.low):
        return ""
    return PERSON if summary.low > 0 else ANOTHER if summary.high < 0 else NOBODY


def verdict(answers: dict[str, str], alike: dict[tuple[str, str], float]) -> str:
    """What at least two independent judges say, and no other two say otherwise; empty where no
    judge answers.

    Args:
        answers: of judges that the method has not seen, by name.
        alike: correlation of each pair of judges.
    """
    pairs = [(answers[a], answers[b]) for (a, b), r in alike.items()
             if r < judges.INDEPENDENT and answers.get(a) and answers.get(b)]
    said = {first for first, second in pairs if first == second}
    if not pairs:
        return ALONE if any(answers.values()) else ""
    return said.pop() if len(said) == 1 else DISAGREE


def tabulate(outcome: Outcome) -> Table:
    """The table of a finished run: with the ground truth as first row, and with a verdict."""
    options = outcome.options
    table = build(outcome, "identity", f"Who is this face? ({options.data.split(':')[0]}, profile "
                  f"{options.profile.name})", options.metrics, "")
    gaps = [c for c in table.columns if c.id.startswith("gap.")
            and c.id not in outcome.unavailable]
    alike = judges.correlations(outcome, [c.recogniser for c in gaps])
    told = _verdicts(table, gaps, alike)
    first = _ground_truth(outcome, table.columns)
    return replace(table, notes=[*told, *_independence(alike), *table.notes],
                   blocks={scale: [first, *rows] for scale, rows in table.blocks.items()})


def _independence(alike: dict[tuple[str, str], float]) -> list[str]:
    pairs = ", ".join(f"{RECOGNISERS[a].title} and {RECOGNISERS[b].title} {r:.2f}"
                      for (a, b), r in alike.items() if np.isfinite(r))
    return [f"How alike the judges score different people (correlation): {pairs}."] if pairs else []


def _verdicts(table: Table, gaps: list[Metric], alike: dict[tuple[str, str], float]) -> list[str]:
    notes = []
    for scale, rows in table.blocks.items():
        said: dict[str, list[str]] = {}
        for row in rows:
            cells = {c.recogniser: row.values[c.id] for c in gaps}
            answers = {name: answer(v.summary) for name, v in cells.items() if not v.seen}
            if row.n_ok and (told := verdict(answers, alike)):
                said.setdefault(told, []).append(row.title)
        notes += [f"At {factor(scale)} {AGREED.get(told, told)}: {', '.join(titles)}."
                  for told, titles in said.items()]
    return notes or ["No verdict: too few people, or nothing that was restored."]


def _ground_truth(outcome: Outcome, columns: Sequence[Metric]) -> Row:
    """What the judges say of the ground truths themselves: as far as any method could go."""
    samples = outcome.samples.samples
    people, values = [s.person for s in samples], {}
    for c in columns:
        found = None
        if c.kind == "gallery" and c.id not in outcome.unavailable:
            feature = get_feature(c.feature)
            vectors = outcome.measures.embedded(feature, [(s, s.gt.digest) for s in samples])
            found = summarise(c.function(vectors, vectors, outcome.measures.gallery(feature,
                                                                                    samples)),
                              people, c.percent)
        values[c.id] = Value(found)
    return Row("ground-truth", "Ground truth", "none", True, len(samples), 0, values)


def make(options: Options, store: Store, out: Path | str, shown: str | None = None) -> list[Path]:
    """Run what is missing; write identity.md, .csv, .html and the figures.

    Args:
        shown: method of the map; None for that of the largest gap.

    Raises:
        FsrError: there is no reference set to judge by, records are with other shards, or the
            method of the map has no row.
    """
    if shown:
        _known(shown, options.methods)
    outcome = Run(options, store).execute()
    gaps = [m for m in outcome.options.metrics if m.id.startswith("gap.")
            and m.id not in outcome.unavailable]
    if not gaps:
        raise FsrError("identity", "; ".join(dict.fromkeys(
            why for name, why in outcome.unavailable.items() if name.startswith("gap."))),
            code=2)
    table = tabulate(outcome)
    drawn = {"identity": figures.trade(table, _chief(gaps)),
             "identity-map": figures.confusion(outcome, _chief(gaps),
                                               _mapped(outcome, table, gaps, shown))}
    if len(table.blocks) > 1:
        drawn["identity-scales"] = figures.scales(table, gaps)
    files = {"identity.md": markdown(table), "identity.csv": tidy(table),
             **{f"{name}.svg": svg for name, svg in drawn.items()},
             "identity.html": _page(table, drawn)}
    return write_files(out, files)


def _chief(gaps: list[Metric]) -> Metric:
    return next((m for m in gaps if m.recogniser == CHIEF), gaps[0])


def _mapped(outcome: Outcome, table: Table, gaps: list[Metric],
            shown: str | None) -> str | None:
    """Name of the method of the map: the one asked for, or that of the largest gap without help of
    the ground truth; None where nothing was restored."""
    if shown:
        name = _known(shown, outcome.options.methods)
        if not any(row.n_ok for rows in table.blocks.values() for row in rows
                   if row.method == name):
            raise FsrError(f"--map {shown}", "restored nothing", "name another method", code=2)
        return name
    rows = [row for row in next(reversed(table.blocks.values())) if row.n_ok
            and row.method != "ground-truth"]
    chief = _chief(gaps).id
    helped = {c.method.name for c in outcome.cells if "oracle" in c.method.needs}
    ranked = [row for row in rows if not row.control and row.method not in helped] or rows
    return max(ranked, key=lambda row: row.values[chief].summary.mean).method if ranked else None


def _known(shown: str, names: Sequence[str]) -> str:
    """The method that `--map` names."""
    if found := [name for name in names if shown in (name, name.partition(".")[0])]:
        return found[0]
    raise unknown("--map", shown, list(names))


_LEAD = ("Judges are networks that recognise faces. The gap says how much nearer a restored face "
         "is to photographs of its own person than to those of the others: at 0 it is anybody's, "
         "and the row of the ground truth is as far as a method can go. Rank-1 is the share of "
         "faces to which no other person of the run is nearer.")
# Heading and caption of each figure.
_CAPTIONS = {
    "identity": ("Identity against fidelity", "The gap of each method with its 95 % interval over "
                 "people; the dashed line is the ground truth's."),
    "identity-map": ("Whom the faces are taken for", "Mean cosine of each person's faces (a row) "
                     "to each person's reference set (a column), less the column's mean over all "
                     "faces; the number counts faces for which that set is the nearest."),
    "identity-scales": ("What the factor costs", "The gap as a function of the factor, by each "
                        "judge.")}


def _list(notes: Sequence[str]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'


def _page(table: Table, drawn: dict[str, str]) -> str:
    """Verdicts first, then the figures, the numbers, and what is to be known of them."""
    first = next((i for i, note in enumerate(table.notes) if note.startswith("Data: ")), 0)
    body = [f'<h1>{escape(table.title)}</h1><p class="lead">{escape(_LEAD)}</p>'
            f"<h2>What the judges say</h2>{_list(table.notes[:first])}"]
    body += [f'<h2>{escape(head)}</h2><figure class="scroll">{drawn[name]}<figcaption>'
             f"{escape(words)}</figcaption></figure>"
             for name, (head, words) in _CAPTIONS.items() if name in drawn]
    body += [f"<h2>Scale {factor(scale)}</h2>{table_html(table, scale)}" for scale in table.blocks]
    return page(table.title, "".join(body) + f"<h2>Notes</h2>{_list(table.notes[first:])}")
