"""The gate on the numbers: one page that says which goldens, claims, metrics, comparisons and
calibrations hold.

Suites: `goldens` (cell means against accepted ones), `claims` (what held must hold), `paper`
(published numbers, where the profile is comparable), `weights` (files against their model cards),
`fresh` (a part of what the store holds, computed again: a warm store must not hide a changed
library, metric or network), `parity` (recorded official outputs) and `calibration` (metrics' known
values).
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsrbench.engine.plan import Cell, Options
from fsrbench.engine.provenance import elsewhere
from fsrbench.engine.run import Outcome, Run
from fsrbench.engine.store import Store, write_files
from fsrbench.engine.tolerance import PLATFORM, REPEATED, spread_of
from fsrbench.errors import FsrError
from fsrbench.metrics import Feature, Metric, get_feature
from fsrbench.proof import calibration, parity
from fsrbench.reports.gate import goldens
from fsrbench.reports.gate.audit import Audit, audit, claims_plan, gather
from fsrbench.reports.gate.changes import new_records
from fsrbench.reports.gate.goldens import FAILED, OK, SKIPPED, Check, Golden
from fsrbench.reports.tables.render import DRAWN
from fsrbench.reports.tables.table import Table, build
from fsrbench.text import markdown_table, read_json
from fsrbench.weights.catalogue import bundled_folder, file_digest, require

SUITES = ("goldens", "claims", "paper", "weights", "fresh", "parity", "calibration")
# Images of each cell that are measured again.
AGAIN = 2
# Mean absolute change in levels of an image restored alone and restored in a chunk. Measured
# between chunks of 7 and 20: at most 1.6e-4 of the values change, by at most three levels; between
# AVX-512 and SSE4.1 kernels 1.7e-4 by one level.
LEVELS = 3 * 1.6e-4 * PLATFORM


@dataclass(frozen=True)
class Report:
    """What the gate found.

    Args:
        new: why records are new, see changes.py.
    """

    options: Options
    samples: int
    checks: list[Check]
    new: list[str]

    @property
    def failed(self) -> list[Check]:
        return [c for c in self.checks if c.status == FAILED]


@dataclass(frozen=True)
class State:
    """A plan's numbers as they are now."""

    run: Run
    outcome: Outcome
    table: Table
    cells: list[Golden]
    audits: list[Audit]


def measure(options: Options, store: Store) -> State:
    """Run what is missing of a plan and gather its table and claims.

    Raises:
        FsrError: this process is a shard of a run.
    """
    run = Run(options, store)
    if run.world > 1:
        raise FsrError("regress", "reads a whole plan and runs in one process",
                       "run it without a shard", code=2)
    outcome = run.execute()
    table = build(outcome, "regress", "Regress", options.metrics, "celebref-hq")
    named = options.methods if not options.lenient else None
    wide = claims_plan(options.profile.name, options.data, None, named, options.people,
                       options.seed, options.batch, options.precision)
    audits = audit(gather(wide, store), store)
    return State(run, outcome, table, goldens.current(table, outcome, run), audits)


# --- suites ---------------------------------------------------------------------------------------


def paper_checks(table: Table) -> list[Check]:
    """Published numbers; never a failure by themselves, as goldens guard those that were within."""
    if not table.comparable:
        return [Check("paper", "published numbers", SKIPPED,
                      f"{table.dataset}, profile {table.profile}: of other data, people, "
                      "size or degradation, so only claims are judged")]
    return [Check("paper", f"{row.method} ×{scale} {column.id}", OK,
                  f"{value.verdict}: {value.summary.mean:.6g}, paper " f"{value.paper:g}")
            for scale, rows in table.blocks.items() for row in rows for column in table.columns
            if (value := row.values[column.id]).verdict in DRAWN]


def weight_checks(run: Run) -> list[Check]:
    """Weight files of the plan's methods that have a model card here, against its sha256."""
    checks = []
    for name in dict.fromkeys(w for cell in run.cells for w in cell.method.weight_files):
        path = require(name)
        card = bundled_folder() / f"{path.stem}.json"
        if card.exists():
            wanted = read_json(card, "sha256", remedy="export the weights again")["sha256"]
            found = file_digest(path)
            checks.append(Check("weights", name, OK if found == wanted else FAILED,
                                f"sha256 {found[:16]}"
                                + ("" if found == wanted else f", its card says {wanted[:16]}")))
    return checks


def fresh_checks(state: State) -> list[Check]:
    """Restore one image of each method again, and measure some of each cell again."""
    restored = [_restored_again(state, cell) for cell in state.outcome.cells if cell.scale
                == state.outcome.options.scales[0]]
    return restored + _measured_again(state)


def _restored_again(state: State, cell: Cell) -> Check:
    name = f"{cell.method.name} ×{cell.scale} restored again"
    rows = _kept(state.outcome, cell)
    if not rows:
        return Check("fresh", name, SKIPPED, "no sample was restored")
    sample, image = rows[0]
    (again,), (error,) = state.run.again(cell, [sample])
    if again is None:
        return Check("fresh", name, FAILED, f"{sample.id} was restored, now {error}")
    change = np.abs(again.astype(int) - state.outcome.measures.store.image(image).astype(int))
    text = (f"{sample.id}: levels change by {change.mean():.2g} on average (allowed {LEVELS:.2g}), "
            f"{change.max()} at most")
    if change.mean() <= LEVELS:
        return Check("fresh", name, OK, text)
    other = _elsewhere(state.outcome, cell) if spread_of(cell.method) else []
    return Check("fresh", name, SKIPPED if other else FAILED, text + (
        f"; last bits decide its images, and these were made with other {', '.join(other)}: "
        "its means are judged" if other else ""))


def _elsewhere(outcome: Outcome, cell: Cell) -> list[str]:
    """What was otherwise where a cell's first image was restored."""
    r = outcome.records
    rows = r[(r["method"] == cell.method.name) & (r["scale"] == cell.scale)
             & (r["metric"] == "restored") & (r["sample"] == _kept(outcome, cell)[0][0].id)]
    return elsewhere(outcome.measures.store.root, rows["run"].iloc[0])


def _kept(outcome: Outcome, cell: Cell) -> list[tuple]:
    """(sample, digest of its restoration) of a cell, in the order of the samples."""
    r = outcome.records
    rows = r[(r["method"] == cell.method.name) & (r["scale"] == cell.scale)
             & (r["metric"] == "restored") & (r["status"] == "ok")]
    images = dict(zip(rows["sample"], rows["image"]))
    return [(s, images[s.id]) for s in outcome.samples.samples if s.id in images]


def _measured_again(state: State) -> list[Check]:
    outcome, measures = state.outcome, state.outcome.measures
    rows = outcome.records[["method", "scale", "sample", "metric", "value"]]
    values = {tuple(key): value for *key, value in rows.itertuples(index=False)}
    picked = [(cell, sample, {"image": image}) for cell in outcome.cells
              for sample, image in _some(_kept(outcome, cell))]
    pairs = [(sample, row) for _, sample, row in picked]
    if not pairs:
        return [Check("fresh", "measured again", SKIPPED, "no sample was restored")]
    vectors = {name: _vectors(state, get_feature(name), pairs)
               for name in dict.fromkeys(m.feature for m in measures.metrics) if name}
    checks = [_vector_check(state, get_feature(name), pairs, found)
              for name, found in vectors.items()]
    for metric in measures.per_sample:
        before = np.array([values.get((c.method.name, c.scale, s.id, metric.id), np.nan)
                           for c, s, _ in picked])
        checks.append(_value_check(metric, before, *_values(state, metric, pairs, vectors)))
    return checks


def _some(items: list) -> list:
    """AGAIN of them, evenly spread from the first on."""
    return items[::max(1, (len(items) + 1) // AGAIN)][:AGAIN]


def _vectors(state: State, feature: Feature, pairs: list) -> tuple[np.ndarray, np.ndarray]:
    """Feature vectors of restored images and of their ground truths, computed here and now."""
    contexts = [s.gt.landmarks.points if feature.aligned else None for s, _ in pairs]
    restored = [state.outcome.measures.store.image(row["image"]) for _, row in pairs]
    return feature.function(restored, contexts), feature.function([s.gt.image for s, _ in pairs],
                                                                  contexts)


def _vector_check(state: State, feature: Feature, pairs: list,
                  found: tuple[np.ndarray, np.ndarray]) -> Check:
    measures = state.outcome.measures
    keys = [measures.feature_key(feature, row["image"], s) for s, row in pairs]
    of = measures.vectors.of(keys)
    pick = [of.get(key) for key in keys]
    known = [i for i, v in enumerate(pick) if v is not None]
    before, after = np.stack([pick[i] for i in known]), np.asarray(found[0],
                                                                   dtype=np.float64)[known]
    change = float(np.abs(before - after).max() / np.abs(before).max())
    return _change_check(feature.id, change, len(known))


def _values(state: State, metric: Metric, pairs: list, vectors: dict) -> tuple[list[float],
                                                                               list[str]]:
    if metric.kind == "identity" and metric.target == "truth":
        return [float(v) for v in metric.function(*vectors[metric.feature])], [""] * len(pairs)
    measures = state.outcome.measures
    return measures.values(metric, [measures.store.image(row["image"]) for _, row in pairs], pairs)


def _value_check(metric: Metric, before: np.ndarray, after: list[float],
                 errors: list[str]) -> Check:
    if failed := next((e for e in errors if e), ""):
        return Check("fresh", f"{metric.id} measured again", FAILED, failed)
    known = np.isfinite(before)
    scale = np.maximum(np.abs(before[known]), 1e-3)
    change = float((np.abs(before[known] - np.array(after)[known]) / scale).max(initial=0))
    return _change_check(metric.id, change, int(known.sum()))


def _change_check(what: str, change: float, n: int) -> Check:
    return Check("fresh", f"{what} measured again", OK if change <= REPEATED else FAILED,
                 f"{n} images, largest relative change {change:.2g} of {REPEATED:.2g} allowed")


def parity_checks(folder: Path) -> list[Check]:
    """Comparisons with recorded official outputs; a fixture without a check is not one."""
    checks = []
    for r in parity.run(folder):
        status = OK if r.verdict == "ok" else FAILED if r.verdict.startswith("failed") else SKIPPED
        checks.append(Check("parity", r.name, status,
                            f"{r.verdict}: largest error {r.error:.3g} of {r.tolerance:.3g}"))
    return checks


def calibration_checks() -> list[Check]:
    """Metrics' known values."""
    return [Check("calibration", r.calibration.name, OK if r.ok else FAILED,
                  r.error
                  or f"{r.value:.7g}, expected {r.calibration.expected:.7g} +- "
                     f"{r.calibration.tolerance:g} "
                  f"({r.calibration.source})") for r in calibration.run()]


# --- the page -------------------------------------------------------------------------------------


def regress(options: Options, store: Store, fixtures: Path, path: Path) -> Report:
    """Judge a plan against its goldens.

    Args:
        fixtures: folder of the parity fixtures; path: of the goldens.
    """
    accepted, verdicts = goldens.read(path)
    state = measure(options, store)
    cells = goldens.judge(accepted, state.cells, state.outcome)
    whole = not any(c.status == SKIPPED and c.text == "not asked for" for c in cells)
    checks = [*cells, *goldens.judge_claims(verdicts, state.audits, whole),
              *_others(state, fixtures)]
    return Report(options, len(state.outcome.samples.samples), checks,
                  new_records(state.run, state.outcome))


def _others(state: State, fixtures: Path) -> list[Check]:
    return [*paper_checks(state.table), *weight_checks(state.run), *fresh_checks(state),
            *parity_checks(fixtures), *calibration_checks()]


def accept(options: Options, store: Store, fixtures: Path, path: Path, reason: str) -> list[str]:
    """Make what a plan says now its goldens; returns what changed.

    Raises:
        FsrError: no reason, a plan that is not the default one, or something fails that no golden
            can excuse.
    """
    if not reason.strip():
        raise FsrError("--accept", "changes what counts as right", "say why with --reason TEXT",
                       code=2)
    state = measure(options, store)
    failed = [c for c in _others(state, fixtures) if c.status == FAILED]
    if failed:
        raise FsrError("--accept",
                       f"{len(failed)} other checks fail, first {failed[0].suite} {failed[0].name} "
                       f"({failed[0].text})", "mend them first", code=4)
    return goldens.accept(path, state.cells, state.audits, reason.strip())


def _line(check: Check) -> str:
    return f"- {check.name}: {check.text}"


def markdown(report: Report) -> str:
    """The page: counts, what failed, what could not be judged, claims that hold, the goldens'
    largest moves."""
    options, checks = report.options, report.checks
    out = ["# Regress", "",
           f"{options.data.split(':')[0]}, profile {options.profile.name}, {report.samples} test "
           f"images: "
           + (f"**{len(report.failed)} of {len(checks)} checks failed.**" if report.failed
              else "all checks hold."), "",
           markdown_table(["Suite", "ok", "failed", "skipped"], [
               [suite, *(sum(c.suite == suite and c.status == status for c in checks)
                         for status in (OK, FAILED, SKIPPED))]
               for suite in SUITES], left=1)]
    for status, title in ((FAILED, "Failed"), (SKIPPED, "Skipped")):
        listed = [f"- {c.suite}: {c.name}: {c.text}" for c in checks if c.status == status]
        out += ["", f"## {title}", "", *listed] if listed else []
    out += ["", "## New records", "", *[f"- {line}" for line in report.new]] if report.new else []
    held = [_line(c) for c in checks if c.suite == "claims" and c.status
            == OK and c.text.startswith("holds")]
    out += ["", "## Claims that hold", "", *(held or ["- none"])]
    for suite in ("fresh", "calibration"):
        out += ["", f"## {suite.capitalize()}", "", *[_line(c) for c in checks if c.suite == suite
                                                      and c.status == OK]]
    return "\n".join(out) + "\n"


def junit(report: Report) -> str:
    """JUnit XML: one test suite a suite, one test case a check."""
    root = ElementTree.Element("testsuites", name="regress", tests=str(len(report.checks)),
                               failures=str(len(report.failed)))
    for suite in SUITES:
        checks = [c for c in report.checks if c.suite == suite]
        failures, skipped = (sum(c.status == status for c in checks)
                             for status in (FAILED, SKIPPED))
        node = ElementTree.SubElement(root, "testsuite", name=suite, tests=str(len(checks)),
                                      failures=str(failures), skipped=str(skipped), errors="0")
        for check in checks:
            case = ElementTree.SubElement(node, "testcase", classname=f"regress.{suite}",
                                          name=check.name)
            if check.status == OK:
                ElementTree.SubElement(case, "system-out").text = check.text
            else:
                kind = "failure" if check.status == FAILED else "skipped"
                ElementTree.SubElement(case, kind, message=check.text)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def write(report: Report, out: Path | str) -> list[Path]:
    """Write regress.md and regress.xml; returns the paths."""
    return write_files(out, {"regress.md": markdown(report), "regress.xml": junit(report)})


def fixtures_folder(given: str | None) -> Path:
    """Folder of parity fixtures: as given, or the repository's.

    Raises:
        FsrError: it holds none.
    """
    return parity.checked_folder(Path(given) if given else parity.default_folder())
