"""CASIA-WebFace (Yi et al. 2014): 10,575 people, 494,414 images; the paper keeps the good ones
(Appendix D, F.3).

Layouts: folders of people with images of 250 px (as published) or crops of 112 px, or InsightFace's
record files (faces_webface_112x112: train.rec, train.idx, property and a list; 10,572 people,
490,623 images). The paper drops images of low quality by HyperIQA, then people with fewer than two,
and keeps about 1,035 people and 14,908 images. It gives no threshold, so without `--threshold` the
one is taken whose remainder is nearest to 14,908 images.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fsrbench.datasets.common.frozen import (
    Choice,
    Count,
    Findings,
    Plan,
    count,
    halved,
    hashed,
    listed,
    refuse_if_other,
)
from fsrbench.datasets.common.quality import get_quality, scores
from fsrbench.datasets.common.recordio import listed_records, read_image
from fsrbench.engine.data import Entry, Source, dataset, read_file
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError

NAME = "casia-webface"
PUBLISHED, PUBLISHED_RECORDS, PAPER = Count(10575, 494414), Count(10572, 490623), Count(1035, 14908)
RECORDS = ("train.rec", "train.idx")
# Shorter sides in pixels of the images as published, and of the crops that are passed on.
SIDES, LOOKED_AT = (250, 112, 96), 200


def read_any(root: Path, path: str) -> bytes:
    """Encoded image of a path: a file, or "train.rec@OFFSET"."""
    return read_image(root, path) if path.startswith(f"{RECORDS[0]}@") else read_file(root, path)


@dataclass(frozen=True)
class Filter:
    """A threshold and what it leaves: `kept` (N,) marks images of people who have at least two."""

    threshold: float
    kept: np.ndarray


def filtered(values: np.ndarray, people: np.ndarray, better: int, threshold: float) -> Filter:
    """Images at least as good as a threshold, of people with at least two of them.

    Args:
        values: (N,) quality; people: (N,) codes from 0 on; better: +1 or -1.
    """
    good = values * better >= threshold * better
    return Filter(threshold, good & (np.bincount(people[good], minlength=people.max() + 1)
                                     >= 2)[people])


def solved(values: np.ndarray, people: np.ndarray, better: int, target: int) -> Filter:
    """The threshold whose remainder is nearest to so many images; of two equally near the stricter
    one.

    Images are admitted from the best on: a person's first counts nothing, the second two, any
    further one.
    """
    order = np.lexsort((people, -values * better))
    own = np.argsort(people[order], kind="stable")
    coded = people[order][own]
    starts = np.flatnonzero(np.r_[True, coded[1:] != coded[:-1]])
    rank = np.empty(len(order), dtype=np.int64)
    rank[own] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    remaining = np.cumsum(np.where(rank == 0, 0, np.where(rank == 1, 2, 1)))
    ranked = values[order]
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    best = ends[np.argmin(np.abs(remaining[ends] - target))]
    return filtered(values, people, better, float(ranked[best]))


def plan(entries: Sequence[Entry], values: Sequence[float], better: int, threshold: float
         | None = None, seed: int = 0,
         target: int = PAPER.images, measure: str = "", published: Count = PUBLISHED,
         findings: Findings | None = None) -> Plan:
    """The images that a threshold leaves, each person's in halves.

    Args:
        entries: with digests; values: quality of each.
        better: +1 where more quality is better, -1 where less is.
        threshold: None to solve for `target` images.
        measure: its id, for the record.
        published: counts of the layout; findings: of what was looked at before.
    """
    codes: dict[str, int] = {}
    people = np.array([codes.setdefault(e.person, len(codes)) for e in entries])
    scored = np.asarray(values, dtype=np.float64)
    found = filtered(scored, people, better,
                     threshold) if threshold is not None else solved(scored, people, better, target)
    kept = [entry for entry, keep in zip(entries, found.kept) if keep]
    sign = ">=" if better > 0 else "<="
    how = f"nearest to {target:,} images" if threshold is None else "given"
    rule = (f"{measure} {sign} {found.threshold:.6g} ({how}), people with at least two images: "
            f"{count(kept)}")
    facts = {"quality": measure, "threshold": found.threshold, "solved_for": target
             if threshold is None else None, "seed": seed}
    return Plan(kept, halved(kept, seed), rule, facts, count(entries), published, PAPER,
                findings or Findings())


def _records(root: Path, findings: Findings) -> list[Entry]:
    """Entries of record files: a person is a label, an image its record's number."""
    images = listed_records(root / RECORDS[0], root / RECORDS[1], findings)
    _check_property(root / "property", count_labels := len({p.label for p in images}), findings)
    _check_list(root / "train.lst", len(images), findings)
    digits = len(str(max(count_labels, PUBLISHED_RECORDS.people)))
    entries = [Entry(f"{p.label:0{digits}d}", f"{p.number:07d}.jpg", f"{RECORDS[0]}@{p.offset}")
               for p in images]
    return sorted(entries, key=lambda e: e.id)


def _check_property(path: Path, people: int, findings: Findings) -> None:
    """`property` is one line "people,height,width"."""
    if not path.exists():
        findings.remarks.add("missing file", path.name)
        return
    said = path.read_text(encoding="utf-8", errors="replace").strip()
    if said.split(",")[0] != str(people):
        findings.remarks.add("other number of people in the records than in property",
                             f"{people}, not {said[:40]}")


def _check_list(path: Path, images: int, findings: Findings) -> None:
    """`train.lst` has one line for each image."""
    if not path.exists():
        findings.remarks.add("missing file", path.name)
        return
    with open(path, "rb") as handle:
        lines = sum(1 for line in handle if line.strip())
    if lines != images:
        findings.remarks.add("other number of images in the records than in train.lst",
                             f"{images}, not {lines}")


def found_in(root: Path, findings: Findings) -> tuple[list[Entry], Count]:
    """Entries of whichever layout is there, and what was published of it.

    Raises:
        FsrError: one of the record files is missing, or there is neither layout.
    """
    here = [name for name in RECORDS if (root / name).exists()]
    if len(here) == 1:
        lost = next(name for name in RECORDS if name not in here)
        raise FsrError(f"data set {NAME} {root}", f"has {here[0]} but no {lost}",
                       "fetch the record files again")
    if here:
        return _records(root, findings), PUBLISHED_RECORDS
    return listed(root, f"data set {NAME}", findings), PUBLISHED


def _refuse_other(root: Path, entries: Sequence[Entry]) -> None:
    """Refuse another data set by the sides of some images, evenly taken; those that cannot be read
    tell nothing.

    Raises:
        FsrError: most are of another size.
    """
    sides = []
    for entry in entries[::-(-len(entries) // LOOKED_AT)]:
        try:
            with Image.open(io.BytesIO(read_any(root, entry.path))) as image:
                sides.append(min(image.size))
        except (OSError, ValueError, FsrError):
            continue
    refuse_if_other(NAME, root, sum(side not in SIDES for side in sides), len(sides),
                    "images looked at are neither of 250 pixels nor crops of 112")


def prepare(root: Path, choice: Choice, store: Store) -> Plan:
    """Measure every image, and filter.

    Raises:
        FsrError: it is another data set, or no image can be read.
    """
    measure, findings = get_quality(choice.quality or "hyperiqa"), Findings()
    listing, published = found_in(root, findings)
    _refuse_other(root, listing)
    name = measure.id  # before the long work: its weights may be missing
    entries = hashed(root, listing, findings, read_any)
    good, values = [], []
    for entry, one in zip(entries, scores(entries, root, read_any, measure, store)):
        if one.error:
            findings.add(one.error, entry.id)
        else:
            good.append(entry)
            values.append(one.value)
    if not good:
        raise FsrError(f"data set {NAME} {root}", "; ".join(findings.lines(3)) or "is empty",
                       "fetch the data set again")
    return plan(good, values, measure.better, choice.threshold, choice.seed or 0, measure=name,
                published=published, findings=findings)


SOURCE = Source(NAME, Path(), (), read=read_any, frozen="root",
                licence="CASIA-WebFace, Yi et al. 2014; photographs from the web, non-commercial "
                        "research")


@dataset(NAME,
         "CASIA-WebFace, folders or train.rec: casia-webface:PATH after `invoke prepare "
         "casia-webface`", prepare)
def casia_webface(argument: str) -> Source:
    """CASIA-WebFace below a folder, as it was filtered."""
    if not argument:
        raise FsrError(f"data set {NAME}", "is not in any package",
                       "fetch it from its authors, run "
                       f"`invoke prepare {NAME} --root PATH`, and write --data {NAME}:PATH", code=2)
    return replace(SOURCE, root=Path(argument).expanduser())
