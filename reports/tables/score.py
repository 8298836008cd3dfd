"""The table of `invoke score`, and a list of every file that could not be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fsrbench.engine.findings import Excluded
from fsrbench.engine.outputs import Matched
from fsrbench.engine.run import Outcome
from fsrbench.engine.scoring import Asked, Score, default_metrics
from fsrbench.engine.store import write_files
from fsrbench.errors import FsrError
from fsrbench.reports.tables.comparisons import IDENTITY, TABLE1, write
from fsrbench.reports.tables.protocols import Protocol, get_protocol
from fsrbench.reports.tables.protocols import notes as protocol_notes
from fsrbench.reports.tables.table import Table, build
from fsrbench.text import csv_table


def asked_for(protocol: str | None, metrics: Sequence[str], **typed) -> tuple[Asked,
                                                                             Protocol | None]:
    """What is scored, and under which protocol.

    Args:
        metrics: as typed; empty for those of the protocol, or those that fit the folders.
        typed: the other fields of `Asked`.

    Raises:
        FsrError: there is no such protocol, it lacks something, or both are given.
    """
    if protocol and metrics:
        raise FsrError("--protocol", "says which metrics there are, and --metric too",
                       "give one of both", code=2)
    known = get_protocol(protocol) if protocol else None
    if known:
        asked = Asked(**typed, metrics=known.columns, lacks=known.lacks, side=known.side)
        known.check(vars(asked))
        return asked, known
    asked = Asked(**typed, metrics=metrics)
    # What the reference sets of all people are needed for is measured where they are given.
    usual = [name for name in TABLE1.metrics if asked.references or name not in IDENTITY]
    return (asked if metrics else replace(asked, metrics=default_metrics(asked, usual))), None


def tabulate(run: Score, outcome: Outcome, protocol: Protocol | None = None) -> Table:
    """The table of a finished run; its notes name what is wrong with the files, and say what a
    protocol's numbers are."""
    table = build(outcome, "score", f"Scores of outputs ({run.samples.source.root.name})",
                  outcome.options.metrics, "")
    samples = run.samples.samples
    # What is said of halves, of the paper, and of trying again (a file that is mended is another
    # file) is of other runs.
    notes = [f"Data: {run.samples.source.remarks}; {len({s.person for s in samples})} people, "
             f"{len(samples)} images, {_size(run)}, as they are.",
             *(protocol_notes(protocol, table) if protocol else ()), *run.given.notes,
             *_same_as_truth(run, outcome),
             *[note for note in table.notes
               if not note.startswith(("Data:", "given:", "Degradation:", "The paper's"))
               and "--retry-failed" not in note]]
    for title, group in _faults(outcome, run).items():
        notes += [f"{title}: {line}." for line in group.lines(verb="failed")]
    for title, matched in _matches(run).items():
        if matched.extra:
            shown = ", ".join(matched.extra[:5]) + (", ..." if len(matched.extra) > 5 else "")
            notes.append(f"{title}: {len(matched.extra)} files belong to no image of "
                         f"{_basis(run)} ({shown}).")
    return replace(table, notes=notes)


def _basis(run: Score) -> str:
    """What says which images there are."""
    option = "--" + run.options.profile.data.partition(":")[0]
    return "the first --restored" if option == "--restored" else option


def _size(run: Score) -> str:
    sizes = sorted(set(run.given.sizes.values()))
    if not sizes:
        return "of any size, without ground truths"
    shown = [f"{w} px" if w == h else f"{w} x {h} px" for w, h in sizes]
    return shown[0] if len(sizes) == 1 else f"{len(sizes)} sizes from {shown[0]} to {shown[-1]}"


def _same_as_truth(run: Score, outcome: Outcome) -> list[str]:
    """Outputs that are the ground truth, pixel by pixel, by row."""
    rows = outcome.records[outcome.records["metric"] == "restored"]
    image, lr = rows["image"].astype(str), rows["lr"].astype(str)
    same = rows[(image != "") & (image == lr)]
    titles = {cell.method.name: cell.method.title for cell in run.cells}
    return [f"{titles[name]}: {len(of)} of {len(run.samples.samples)} outputs are the ground truth "
            f"itself." for name, of in same.groupby("method")]


def _faults(outcome: Outcome, run: Score) -> dict[str, Excluded]:
    """What failed, by title of the method: reasons and images."""
    rows = outcome.records[(outcome.records["metric"] == "restored")
                           & (outcome.records["status"] != "ok")]
    titles, found = {cell.method.name: cell.method.title for cell in run.cells}, {}
    for method, sample, status in zip(rows["method"], rows["sample"], rows["status"]):
        reason = status.removeprefix("failed: ")
        kind, _, which = reason.partition(": ")
        found.setdefault(titles[method], Excluded()).add(kind, f"{sample}: {which}" if which
                                                         else sample)
    return found


def _matches(run: Score) -> dict[str, Matched]:
    return {cell.method.title: cell.method.matched for cell in run.cells}


def files_csv(run: Score, outcome: Outcome) -> str:
    """One line for each file or image that has no score, or lacks that of a metric: method, image,
    what is wrong."""
    failed = outcome.records[outcome.records["status"] != "ok"]
    of_image = failed["metric"] == "restored"
    titles = {cell.method.name: cell.method.title for cell in run.cells}
    lines = [[titles[r.method], r.sample,
              f"{r.metric}: " * (r.metric != "restored") + r.status.removeprefix("failed: ")]
             for part in (failed[of_image], failed[~of_image]) for r in part.itertuples()]
    nobody = f"belongs to no image of {_basis(run)}"
    lines += [[title, name, nobody] for title, m in _matches(run).items() for name in m.extra]
    lines += [["", name, f"ground truth left out: {reason}"]
              for reason, names in run.samples.excluded.reasons.items() for name in names]
    return csv_table(["method", "file", "what"], lines)


def make(run: Score, out: Path | str, protocol: Protocol | None = None
         ) -> tuple[Table, list[Path]]:
    """Measure what is missing and write the table."""
    outcome = run.execute()
    table = tabulate(run, outcome, protocol)
    return table, [*write(table, outcome, Path(out)),
                   *write_files(out, {"score-files.csv": files_csv(run, outcome)})]
