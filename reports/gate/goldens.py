"""Golden values: what a plan's table said when it was last accepted, and how far a value may move
from it.

`reports/goldens/PROFILE.csv` holds one line a cell, `PROFILE-claims.csv` the verdict of each claim,
and `log.jsonl` every acceptance with its reason, commit and old and new values. Samples and noise
are fixed, so the interval over people is no tolerance here; what may move a value is arithmetic
alone, by last bits, or, of a method that declares a `spread`, by the images that these decide. See
`fsrbench.engine.tolerance`.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from fsrbench.engine.provenance import commit
from fsrbench.engine.run import Outcome, Run
from fsrbench.engine.store import locked, write_atomic
from fsrbench.engine.tolerance import chaotic_tolerance, half_width, spread_of, tolerance
from fsrbench.errors import FsrError
from fsrbench.reports.gate.audit import Audit
from fsrbench.reports.tables.table import Table
from fsrbench.text import csv_table

FAILED, OK, SKIPPED = "failed", "ok", "skipped"
# Claims on times: another machine may answer otherwise without any fault.
TIMES = ("step-overhead", "twenty-steps")


@dataclass(frozen=True)
class Golden:
    """An accepted cell.

    Args:
        samples: digest of the samples; degradation, seed and precision are part of it.
        value: mean in our unit, NaN where no sample was restored; n_ok of n samples have one.
        tolerance: absolute.
        paper: verdict against the published number then; empty or "not comparable" where none is
            drawn.
        digest: of the method: code, settings, weights.
    """

    scale: int
    method: str
    metric: str
    value: float
    tolerance: float
    n_ok: int
    n: int
    paper: str
    digest: str
    samples: str

    @property
    def cell(self) -> tuple[int, str, str]:
        return self.scale, self.method, self.metric

    @property
    def title(self) -> str:
        return f"{self.method} ×{self.scale} {self.metric}"


@dataclass(frozen=True)
class Check:
    """A line of the gate: which suite, what, "ok", "failed" or "skipped", and why."""

    suite: str
    name: str
    status: str
    text: str


def current(table: Table, outcome: Outcome, run: Run) -> list[Golden]:
    """The cells of a table as goldens; metrics that cannot run here have none."""
    protocol = (f"{outcome.samples.digest[:16]}-{table.degradation}-{outcome.options.seed}-"
                f"{outcome.options.precision}")
    digests = {cell.method.name: run.method_digest(cell.method)[:16] for cell in outcome.cells}
    spreads = {cell.method.name: spread_of(cell.method) for cell in outcome.cells}
    found = []
    for scale, rows in table.blocks.items():
        for row in rows:
            for column in table.columns:
                value = row.values[column.id]
                if value.summary is None:
                    continue
                n = row.n_ok + row.n_failed
                found.append(Golden(scale, row.method, column.id, value.summary.mean,
                                    tolerance(column, value.summary.mean, row.n_ok,
                                              half_width(value.summary))
                                    + chaotic_tolerance(value.summary, spreads[row.method]),
                                    value.summary.n_ok, n, value.verdict,
                                    digests[row.method], protocol))
    return found


def _samples(goldens: Sequence[Golden]) -> str:
    """How many images goldens are of, and which, in words."""
    ids, _, how = goldens[0].samples.partition("-")
    return f"{max(g.n for g in goldens)} images by {how} (digest {ids[:8]})"


def judge(goldens: Sequence[Golden], found: Sequence[Golden], outcome: Outcome) -> list[Check]:
    """One check a golden cell, and a failed one for each cell that has no golden yet.

    Raises:
        FsrError: the goldens are of other samples than the plan's.
    """
    samples = {g.samples for g in goldens} | {g.samples for g in found}
    if len(samples) > 1:
        told = ", but ".join(map(_samples, filter(None, (goldens, found))))
        raise FsrError("goldens", f"are of other samples than this plan's: {told}",
                       "give the options that they were accepted with, or another --goldens",
                       code=4)
    now, asked = {g.cell: g for g in found}, {c.method.name for c in outcome.cells}
    checks = []
    for golden in goldens:
        if golden.cell in now:
            checks.append(_compared(golden, now[golden.cell]))
        elif golden.metric in outcome.unavailable:
            checks.append(Check("goldens", golden.title, SKIPPED,
                                outcome.unavailable[golden.metric]))
        elif golden.scale not in outcome.options.scales or (not outcome.options.lenient
                                                            and golden.method not in asked):
            checks.append(Check("goldens", golden.title, SKIPPED, "not asked for"))
        else:
            why = outcome.left_out.get(golden.method, "the plan has no such cell any more")
            checks.append(Check("goldens", golden.title, FAILED, f"no value: {why}"))
    known = {g.cell for g in goldens}
    checks += [Check("goldens", g.title, FAILED, f"{g.value:.7g} has no golden; accept it")
               for g in found if g.cell not in known]
    return checks


def _compared(golden: Golden, now: Golden) -> Check:
    """A golden cell against what it is now: counts exactly, the value within its tolerance."""
    changed = ("" if golden.digest == now.digest
               else f"; the method changed ({golden.digest} to {now.digest})")
    move = now.value - golden.value
    text = (f"{golden.value:.7g} to {now.value:.7g}, moved {move:+.2g} of {golden.tolerance:.2g} "
            f"allowed{changed}")
    if golden.n_ok != now.n_ok:
        return Check("goldens", golden.title, FAILED,
                     f"{golden.n_ok} of {golden.n} had a value, now {now.n_ok}{changed}")
    if math.isnan(golden.value) and math.isnan(now.value):
        return Check("goldens", golden.title, OK, f"no sample was restored, as before{changed}")
    if not abs(move) <= golden.tolerance:
        same = ("" if changed
                else "; the method did not change, so its surroundings or the metric did")
        return Check("goldens", golden.title, FAILED, text + same)
    if golden.paper == "within" != now.paper:
        return Check("goldens", golden.title, FAILED,
                     f"was within the paper's interval, now {now.paper}{changed}")
    return Check("goldens", golden.title, OK, text)


def judge_claims(before: dict[str, dict[str, str]], audits: Sequence[Audit],
                 whole: bool) -> list[Check]:
    """One check a claim: what held must hold, and the paper's own verdict may not change.

    Args:
        before: by id, the accepted {"paper": verdict, "ours": verdict}; whole: whether the plan is
            the goldens' whole plan.
    """
    return [_claim_check(a, before.get(a.claim.id), whole) for a in audits]


def _claim_check(a: Audit, before: dict[str, str] | None, whole: bool) -> Check:
    name, now = f"claim {a.claim.id}", f"{a.ours.verdict}: {a.ours.evidence}"
    if before is None:
        return Check("claims", name, FAILED, f"has no golden; accept it ({now})")
    if before["paper"] != a.paper.verdict:
        return Check("claims", name, FAILED,
                     f"on the paper's tables {before['paper']}, now {a.paper.verdict}")
    if before["ours"] == "holds" != a.ours.verdict:
        if not whole or a.ours.verdict == "not measured":
            return Check("claims", name, SKIPPED, f"held; not measured by this plan ({now})")
        if a.claim.id in TIMES:
            return Check("claims", name, SKIPPED, f"held; a time belongs to the machine ({now})")
        return Check("claims", name, FAILED, f"held, now {now}")
    gained = "" if before["ours"] == a.ours.verdict else f" (was {before['ours']})"
    return Check("claims", name, OK, now + gained)


# --- files ----------------------------------------------------------------------------------------


def default_path(profile: str) -> Path:
    """The committed goldens of a profile."""
    return Path(__file__).resolve().parents[1] / "goldens" / f"{profile}.csv"


def _claims_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}-claims.csv")


def read(path: Path) -> tuple[list[Golden], dict[str, dict[str, str]]]:
    """Goldens, and the claims' verdicts by id.

    Raises:
        FsrError: there are none, or a line is not one.
    """
    if not path.exists():
        raise FsrError(f"goldens {path}", "none there",
                       "make them: invoke regress --accept --reason TEXT")
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            rows = [{**r, "scale": int(r["scale"]), "value": float(r["value"]),
                     "tolerance": float(r["tolerance"]),
                     "n_ok": int(r["n_ok"]), "n": int(r["n"])} for r in csv.DictReader(handle)]
        with open(_claims_path(path), newline="", encoding="utf-8") as handle:
            verdicts = {r["id"]: {"paper": r["paper"], "ours": r["ours"]}
                        for r in csv.DictReader(handle)}
        return [Golden(**row) for row in rows], verdicts
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise FsrError(f"goldens {path}",
                       f"cannot be read ({type(error).__name__}: {str(error)[:100]})",
                       "restore the files from git") from None


def _csv(columns: Sequence[str], rows: Sequence[dict]) -> bytes:
    return csv_table(columns, ([row[name] for name in columns] for row in rows)).encode()


def accept(path: Path, found: Sequence[Golden], audits: Sequence[Audit], reason: str) -> list[str]:
    """Write new goldens and add to the log what changed and why (of the first ones only how many
    cells they have); returns the changes in words.

    The date is the commit's, so accepting the same values at the same commit writes the same files.
    """
    found = [_rounded(golden) for golden in found]
    first = not path.exists()
    old, old_claims = ([], {}) if first else read(path)
    verdicts = {a.claim.id: {"paper": a.paper.verdict, "ours": a.ours.verdict} for a in audits}
    changes = _changes(*({g.title: f"{g.value:.9g} of {g.n_ok}, method {g.digest}" for g in side}
                         for side in (old, found)))
    changes += _changes(*({f"claim {k}": f"paper {v['paper']}, ours {v['ours']}"
                           for k, v in side.items()}
                          for side in (old_claims, verdicts)))
    write_atomic(path, _csv([f.name for f in fields(Golden)], [asdict(g) for g in found]))
    write_atomic(_claims_path(path), _csv(("id", "paper", "ours"),
                                          [{"id": k, **v} for k, v in verdicts.items()]))
    log = path.with_name("log.jsonl")
    entry = {"goldens": path.name, "reason": reason, **commit(), "cells": len(found),
             "changes": [] if first else changes}
    with locked(log):
        before = log.read_bytes() if log.exists() else b""
        write_atomic(log, before + (json.dumps(entry, ensure_ascii=False) + "\n").encode())
    return [f"{c['what']}: {c['old'] or 'new'} to {c['new'] or 'none'}" for c in changes]


def _rounded(golden: Golden) -> Golden:
    return replace(golden, value=float(f"{golden.value:.9g}"),
                   tolerance=float(f"{golden.tolerance:.2g}"))


def _changes(old: dict[str, str], new: dict[str, str]) -> list[dict[str, str | None]]:
    """What differs by name; None where there is none."""
    return [{"what": name, "old": old.get(name), "new": new.get(name)}
            for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
