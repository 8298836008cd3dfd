"""`invoke prepare`: a data set checked against what was published of it, selected by the paper's
rule, and frozen.

A builder lists what is on disk, lets this module name what is wrong with it, selects, and returns a
`Plan`. The plan is written into the store as two files whose bytes depend on the images and the
rule alone: a CSV of names, digests and halves (no image), and a JSON of facts. `--data NAME:PATH`
then reads them (`data.open_source`). Names are compared and frozen in Unicode's composed form
(NFC), so that the same set gives the same bytes from any disk.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fsrbench.engine.data import (
    FINETUNE,
    TEST,
    TRAIN,
    UNUSED,
    Entry,
    datasets,
    entry_digest,
    prepared_manifest,
    read_file,
)
from fsrbench.engine.findings import Excluded, Findings
from fsrbench.engine.folders import is_folder, people_folder
from fsrbench.engine.splits import halve
from fsrbench.engine.store import Store, locked, write_atomic
from fsrbench.errors import FsrError, unknown
from fsrbench.imaging import digest
from fsrbench.progress import progress
from fsrbench.text import csv_table

# Raise it when the form of the manifest changes.
FORMAT = 1


@dataclass(frozen=True)
class Choice:
    """What a user may choose of a selection; None for the builder's own.

    Args:
        seed: of the draw and the halves.
        threshold: of quality, in the measure's own units.
        quality: name of the measure.
    """

    seed: int | None = None
    threshold: float | None = None
    quality: str | None = None

    def refuse(self, name: str, *words: str) -> None:
        """Refuse options that mean nothing to a data set.

        Raises:
            FsrError: one of them is given.
        """
        for word in words:
            if getattr(self, word) is not None:
                raise FsrError(f"--{word} {getattr(self, word)}", f"means nothing to {name}",
                               "leave it out", code=2)


@dataclass(frozen=True)
class Count:
    """People (or what `unit` says) and images; 0 where images are not counted."""

    people: int
    images: int
    unit: str = "people"

    def __str__(self) -> str:
        return f"{self.people:,} {self.unit}" + (f", {self.images:,} images" if self.images else "")


@dataclass(frozen=True)
class Plan:
    """What a builder selected.

    Args:
        entries: with digests; ids are unique.
        split: train, fine-tune, test or unused, of every entry by id.
        rule: how it was selected, in a sentence for the reader of a table.
        facts: what decided it, by name: seeds, thresholds, versions; JSON values.
        found, published: on disk, and as the data set's authors count.
        expected: of the images to evaluate on, as the paper counts.
        findings: what was left out or differs, and why.
    """

    entries: Sequence[Entry]
    split: dict[str, str]
    rule: str
    facts: dict
    found: Count
    published: Count
    expected: Count
    findings: Findings = field(default_factory=Findings)


def count(entries: Iterable[Entry]) -> Count:
    """How many people and images."""
    of = Counter(e.person for e in entries)
    return Count(len(of), of.total())


def composed(name: str) -> str:
    """A name in Unicode's composed form."""
    return unicodedata.normalize("NFC", name)


def listed(root: Path, what: str, findings: Findings) -> list[Entry]:
    """Entries of a folder of people, by id, under composed names; those whose names clash are left
    out and named.

    Raises:
        FsrError: there is no such folder, or nobody in it.
    """
    entries = [replace(entry, person=composed(entry.person), image=composed(entry.image))
               for entry in people_folder(root, what, findings)]
    return sorted(without_clashes(entries, findings), key=lambda e: e.id)


def without_clashes(entries: Sequence[Entry], excluded: Excluded) -> list[Entry]:
    """Entries whose names are told apart on any disk.

    Two images of one name (1.png and 1.jpg, A and a, or the two Unicode forms of a name) leave no
    way to know which one the authors meant, so both are left out and named by their paths.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.person.casefold(), []).append(entry)
    kept = []
    for own in groups.values():
        # Neither case nor the kind of file tells two names apart.
        stems = [entry.image.rpartition(".")[0].casefold() for entry in own]
        times, folders = Counter(stems), {entry.path.rpartition("/")[0] for entry in own}
        for entry, stem in zip(own, stems):
            if times[stem] > 1:
                excluded.add("name clash with another image", entry.path)
            elif len(folders) > 1:
                excluded.add("name clash with another person", entry.path)
            else:
                kept.append(entry)
    return kept


def refuse_if_other(name: str, root: Path, others: int, of: int, what: str) -> None:
    """Refuse a folder of which most is not as the data set was published.

    Args:
        others: how many of the things looked at are not; of: how many were; what: "images are not
            of 512 pixels".

    Raises:
        FsrError: more than half are not.
    """
    if 2 * others > of:
        raise FsrError(f"data set {name} {root}",
                       f"is another data set: {others:,} of {of:,} {what}",
                       f"give the folder of {name}, or write --data folder:PATH (aligned:PATH if "
                       "its faces are aligned)", code=2)


def hashed(root: Path, entries: Sequence[Entry], excluded: Excluded,
           read: Callable = read_file) -> list[Entry]:
    """Entries with their digests; those that cannot be read are left out and named."""
    kept = []
    # In one process: handing an image to another one takes longer than its digest.
    for entry in progress(entries, desc="reading", unit="image"):
        try:
            kept.append(replace(entry, sha256=entry_digest(read, root, entry)))
        except FsrError:
            excluded.add("cannot be read", entry.id)
    return kept


def by_person(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Entries of each person."""
    of: dict[str, list[Entry]] = {}
    for entry in entries:
        of.setdefault(entry.person, []).append(entry)
    return of


def halved(entries: Iterable[Entry], seed: int) -> dict[str, str]:
    """Fine-tune or test by entry id: each person's images in halves (4.1)."""
    split = {}
    for person, own in by_person(entries).items():
        finetune, test = halve([e.id for e in own], person, seed)
        split |= dict.fromkeys(finetune, FINETUNE) | dict.fromkeys(test, TEST)
    return split


def _csv(plan: Plan) -> bytes:
    return csv_table(["person", "image", "path", "sha256", "split"], (
        [e.person, e.image, e.path, e.sha256, plan.split[e.id]]
        for e in sorted(plan.entries, key=lambda e: e.id))).encode()


def evaluated(plan: Plan) -> Count:
    """People and images of the fine-tune and test halves."""
    return count(e for e in plan.entries if plan.split[e.id] in (FINETUNE, TEST))


def _numbers(excluded: Excluded) -> dict[str, int]:
    return {reason: len(names) for reason, names in excluded.reasons.items()}


def freeze(name: str, root: Path, plan: Plan, store: Store) -> Path:
    """Write a plan into the store; returns the path of its CSV."""
    path, rows = prepared_manifest(name, root, store), _csv(plan)
    numbers = {key: vars(value) for key, value in (("found", plan.found),
                                                   ("published", plan.published),
                                                    ("kept", evaluated(plan)),
                                                   ("expected", plan.expected))}
    facts = {"format": FORMAT, "data": name, "rule": plan.rule, "manifest_sha256": digest(rows),
             **numbers, **plan.facts,
             "left_out": _numbers(plan.findings), "remarked": _numbers(plan.findings.remarks)}
    with locked(path):  # both or neither
        write_atomic(path, rows)
        write_atomic(path.with_suffix(".json"), (json.dumps(facts, indent=1, sort_keys=True) + "\n")
                     .encode())
    return path


def summary(name: str, plan: Plan, path: Path, before: str = "") -> str:
    """What was found, kept and left out, in a few lines; `before` is the digest of the manifest
    that this one replaces."""
    now = digest(path.read_bytes())
    parts = Counter(plan.split[e.id] for e in plan.entries)
    train = count(e for e in plan.entries if plan.split[e.id] == TRAIN)
    lines = [f"{name}", f"found      {plan.found} (published: {plan.published})",
             f"evaluation {evaluated(plan)} (paper: {plan.expected}); {parts[FINETUNE]:,} for "
             f"fine-tuning, "
             f"{parts[TEST]:,} for test",
             *([f"training   {train}"] if train.images else []),
             *([f"unused     {count(e for e in plan.entries if plan.split[e.id] == UNUSED)}"]
               if parts[UNUSED] else []),
             f"rule       {plan.rule}", *plan.findings.lines(3),
             f"manifest   {path} (sha256 {now[:16]})",
             *([f"replaces   another selection (sha256 {before[:16]})"] if before not in ("", now)
               else [])]
    return "\n".join(lines)


def prepare_named(name: str, root: str | None, choice: Choice, store: Store) -> str:
    """Check, select and freeze a data set; returns the summary.

    Raises:
        FsrError: it is unknown, needs no preparation, or has nothing to select from.
    """
    known = {d.name: d for d in datasets().values() if d.prepare}
    if name not in known:
        if name in datasets():
            raise FsrError(f"data set {name}", "needs no preparation", f"write --data {name}",
                           code=2)
        raise unknown("data set", name, list(known))
    if not root:
        raise FsrError(f"data set {name}", "needs its folder",
                       f"write `invoke prepare {name} --root PATH`", code=2)
    folder = Path(root).expanduser()
    if not is_folder(folder):
        raise FsrError(f"data set {name} {folder}", "no such folder",
                       "give the folder that holds it as --root", code=2)
    plan = known[name].prepare(folder, choice, store)
    if not evaluated(plan).images:
        raise FsrError(f"data set {name} {folder}", "nothing is left to evaluate on; "
                       + "; ".join(plan.findings.lines(3)), "complete the data set")
    known_path = prepared_manifest(name, folder, store)
    before = digest(known_path.read_bytes()) if known_path.exists() else ""
    return summary(name, plan, freeze(name, folder, plan, store), before)
