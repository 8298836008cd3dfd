"""`invoke probe`: what each method makes of altered inputs, as a table and as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from fsrbench.core import Method, Sample
from fsrbench.engine.plan import Options
from fsrbench.engine.probes import BASE, Probe, Setting, Trial, probes, run_probes
from fsrbench.engine.samples import SampleSet, load_samples, with_samples
from fsrbench.engine.stats import Summary, too_few
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError, unknown
from fsrbench.reports.analysis.probe_verdicts import DISAGREE, RULE, agreed, verdict
from fsrbench.reports.analysis.probes import Base, Effect, Evidence, judging
from fsrbench.reports.tables.judges import alike, independence, seen_by
from fsrbench.reports.tables.render import NOTHING, labelled
from fsrbench.text import csv_table, factor, markdown_table

SCALES, IMAGES = ("16",), 2
METHODS = ("bicubic", "reference", "codeformer", "asffnet", "dmdnet", "idfsr.pt", "idfsr.ft",
           "idfsr.noref")
READING = """\
How to read it. `towards`: 0, the identity stayed; 1, the restoration is as like the intruder (the \
person drawn next) as the method's own restoration of the intruder is. `away`: 0, nothing of the \
person was lost; 1, as much as a restoration of somebody else lacks. `shows`: what of a \
photograph's identity the unaltered restorations have. Where it is not told from nothing there is \
no movement to measure, and a dash stands. `truth`: how far the restoration goes to the ground \
truth, where that is its reference; `copied`: share of the intruder's reference that appears in \
the face with it and does not without it. In brackets the 95 % interval over people."""


@dataclass(frozen=True)
class Line:
    """What is known of one method.

    Args:
        effects: by probe name, as the first judge sees them; said: what the rule calls it by each
            judge, by the judge's title; named: what those who count agree on.
        seen: judges that it has seen, by title, and how.
    """

    method: Method
    base: Base
    effects: Mapping[str, Effect]
    said: Mapping[str, list[str]]
    seen: Mapping[str, str]

    @property
    def named(self) -> list[str]:
        counts = [names for judge, names in self.said.items() if judge not in self.seen]
        return agreed(counts or list(self.said.values()))


@dataclass(frozen=True)
class Probed:
    """The table.

    Args:
        trials: restorations by probe and method; probes: those that were asked for.
        left_out: methods without weights, and why.
        judges: titles of those whose embeddings were compared, of whom the first gives the numbers.
        doubts: what to know of them, in sentences.
    """

    setting: Setting
    store: Store
    trials: Mapping[str, Mapping[str, Trial]]
    probes: list[Probe]
    lines: list[Line]
    left_out: Mapping[str, str]
    judges: list[str]
    doubts: list[str]

    def of_kind(self, *kinds: str) -> list[Probe]:
        """The probes that some method got, whose movement is of these kinds."""
        return [p for p in self.probes if p.kind in kinds and p.name in self.trials]


def chosen(names: Sequence[str]) -> list[str]:
    """Names of probes, all unless some are asked for.

    Raises:
        FsrError: one is unknown.
    """
    for name in names:
        if name not in probes():
            raise unknown("probe", name, list(probes()))
    return [name for name in probes() if not names or name in names]


def first_images(everyone: SampleSet, count: int, options: Options) -> SampleSet:
    """The first so many test images of each person."""
    seen: dict[str, list[Sample]] = {}
    for s in everyone.samples:
        seen.setdefault(s.person, []).append(s)
    kept = [s for own in seen.values() for s in own[:count]]
    return with_samples(everyone, kept, options.profile)


def compute(options: Options, store: Store, names: Sequence[str] = (),
            images: int = IMAGES, judges: Sequence[str] = ()) -> Probed | int:
    """Restore what is missing and measure it; or how many records other shards still have to make.

    Args:
        names: of probes, none for all; images: of each person; judges: as of `judging`.

    Raises:
        FsrError: there is one person only, more than one scale, or weights are missing.
    """
    if len(options.scales) != 1:
        raise FsrError("probes", "are of one scale at a time", "give one --scale", code=2)
    wanted, (judged, absent) = chosen(names), judging(judges)
    everyone = load_samples(options.data, options.profile, store, options.people, options.seed,
                            options.fixed)
    setting = Setting(options, first_images(everyone, images, options), everyone)
    done = run_probes(setting, store, wanted)
    if isinstance(done, int):
        return done
    trials, left_out = done
    evidence = [Evidence(setting, store, trials, judge) for judge in judged]
    lines = [_line(trial.method, evidence) for trial in trials[BASE].values()]
    return Probed(setting, store, trials, [probes()[name] for name in wanted], lines, left_out,
                  [e.judge.title for e in evidence], [*_independent(evidence), *absent])


def _line(method: Method, evidence: list[Evidence]) -> Line:
    """A method by the first judge's numbers and by all judges' names."""
    name, met = method.name, seen_by(method)
    effects = evidence[0].effects(name)
    said = {e.judge.title: verdict(method, e.base(name), e.seen(name, effects), e.like_photograph)
            for e in evidence}
    return Line(method, evidence[0].base(name), effects, said,
                {e.judge.title: met[e.judge.name] for e in evidence if e.judge.name in met})


def _independent(evidence: list[Evidence]) -> list[str]:
    """How independent the judges are of each other."""
    if len(evidence) < 2:
        return [f"{evidence[0].judge.title} alone judges: what a method is named is one judge's "
                "word."]
    scores = [(e.judge.title, e.strangers()) for e in evidence]
    return [independence(a, b, alike(first, second))
            for (a, first), (b, second) in combinations(scores, 2)]


def said(summary: Summary | None, digits: str = "z.2f") -> str:
    """A value with its interval; a dash for what does not exist."""
    if summary is None or math.isnan(summary.mean):
        return NOTHING
    ends = f" [{summary.low:{digits}}, {summary.high:{digits}}]" * math.isfinite(summary.low)
    return f"{summary.mean:{digits}}{ends}"


def titled(line: Line) -> str:
    """A method as a table calls it."""
    return labelled(line.method.title or line.method.name, line.method.weights)


def identity_grid(table: Probed) -> list[list[str]]:
    """Where the identity comes from: a row a method, with what the rule calls it."""
    towards, truth = table.of_kind("towards"), table.of_kind("truth")
    copied = any("other" in line.effects for line in table.lines)
    rows = [["Method", "Is named", "shows", *(p.title for p in towards), *(p.title for p in truth),
             *["copied"] * copied]]
    for line in table.lines:
        found = line.effects
        rows.append([titled(line), ", ".join(line.named), said(line.base.shows),
                     *(said(found[p.name].moved if p.name in found else None)
                       for p in (*towards, *truth)),
                     *[said(found["other"].copied if "other" in found else None)] * copied])
    return rows


def away_grid(table: Probed) -> list[list[str]]:
    """What costs identity: a row a method."""
    columns = table.of_kind("away")
    return [["Method", *(p.title for p in columns)],
            *[[titled(line), *(said(line.effects[p.name].moved if p.name in line.effects else None)
                               for p in columns)] for line in table.lines]]


def psnr_grid(table: Probed) -> list[list[str]]:
    """Change of PSNR inside / outside the face: a row a method."""
    columns = table.of_kind("towards", "truth", "away")

    def cell(effect: Effect | None) -> str:
        return NOTHING if effect is None else (f"{said_mean(effect.inside)} / "
                                               f"{said_mean(effect.outside)}")
    return [["Method", *(p.title for p in columns)],
            *[[titled(line), *(cell(line.effects.get(p.name)) for p in columns)]
              for line in table.lines]]


def said_mean(summary: Summary) -> str:
    """A change in dB, without its interval."""
    return NOTHING if math.isnan(summary.mean) else f"{summary.mean:+z.2f}"


def lead(table: Probed) -> str:
    """What the table is of."""
    o, samples = table.setting.options, table.setting.samples.samples
    return (f"Data: {table.setting.samples.source.name}, {len({s.person for s in samples})} "
            f"people, n = {len(samples)} images of {o.profile.size} px, {o.degradation} "
            f"{factor(o.scales[0])}, seed {o.seed}, profile {o.profile.name}; numbers by "
            f"{table.judges[0]}, names by {' and '.join(table.judges)}.")


def notes(table: Probed) -> list[str]:
    """What the table is of, and what each probe does."""
    people = len({s.person for s in table.setting.samples.samples})
    lines = [lead(table), *READING.split("\n")]
    lines += [f"{p.title} ({p.name}, {p.kind}): {p.words}"
              + ("" if p.refits else "; what is fitted or its album keeps its own") + "."
              for p in table.probes]
    lines += [f"{titled(line)}: {n} of the restorations under {name} failed." for line in
              table.lines for name, n in {BASE: line.base.failed,
                                          **{k: e.failed for k, e in line.effects.items()}}.items()
              if n]
    lines += table.doubts
    lines += [f"{titled(line)}: {DISAGREE}: " + "; ".join(
        f"{', '.join(names)} (by {judge})" for judge, names in line.said.items()) + "."
        for line in table.lines if DISAGREE in line.named]
    lines += [f"{titled(line)}: {how} {judge}, a judge here." for line in table.lines
              for judge, how in line.seen.items()]
    lines += [f"{name}: left out, {why}" for name, why in table.left_out.items()]
    return lines + ([few + "."] if (few := too_few(people)) else [])


def markdown(table: Probed) -> str:
    """All of it as Markdown."""
    scale = factor(table.setting.options.scales[0])
    parts = [f"# Probes: what decides the identity ({scale})", "",
             markdown_table(*_parted(identity_grid(table)), left=2), ""]
    if table.of_kind("away"):
        parts += ["## What costs identity (away)", "",
                  markdown_table(*_parted(away_grid(table)), left=1), ""]
    if len(psnr_grid(table)[0]) > 1:
        parts += ["## Change of PSNR in dB, inside / outside the face", "",
                  markdown_table(*_parted(psnr_grid(table)), left=1), ""]
    return "\n".join([*parts, *(f"- {note}" for note in notes(table)), "", RULE]) + "\n"


def _parted(rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    return rows[0], rows[1:]


_TEX = str.maketrans({"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "–": "--",
                      "×": r"$\times$", "°": r"$^\circ$"})


def latex(table: Probed) -> str:
    """Where the identity comes from, as LaTeX with booktabs."""
    head, *rows = identity_grid(table)
    lines = [" & ".join(cell.translate(_TEX) for cell in row) + r" \\" for row in (head, *rows)]
    return "\n".join([
        r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering",
        r"\begin{tabular}{ll" + "r" * (len(head) - 2) + "}", r"\toprule", lines[0], r"\midrule",
        *lines[1:], r"\bottomrule", r"\end{tabular}",
        rf"\caption{{What decides the identity. {lead(table).translate(_TEX)}}}",
        r"\label{tab:probe}", r"\end{table}"]) + "\n"


CSV_COLUMNS = ("dataset", "degradation", "scale", "method", "weights", "probe", "quantity", "mean",
               "ci_low", "ci_high", "n_ok", "n_failed", "named")


def tidy(table: Probed) -> str:
    """Tidy CSV: one line a value; an empty field is a value that does not exist."""
    o, rows = table.setting.options, []
    for line in table.lines:
        head = [table.setting.samples.source.name, o.degradation, o.scales[0], line.method.name,
                line.method.weights]
        values = [(BASE, "shows", line.base.shows)]
        for name, e in line.effects.items():
            values += [(name, probes()[name].kind, e.moved), (name, "psnr-inside", e.inside),
                       (name, "psnr-outside", e.outside), (name, "changed-levels", e.changed),
                       (name, "copied", e.copied)]
        rows += [[*head, name, quantity, *("" if math.isnan(x) else f"{x:.6g}"
                                           for x in (s.mean, s.low, s.high)), s.n_ok, s.n_failed,
                  ", ".join(line.named)] for name, quantity, s in values]
    return csv_table(CSV_COLUMNS, rows)
