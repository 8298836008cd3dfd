"""Anybody's outputs beside their ground truths: `invoke score`.

The samples are the images of a folder, as they are: nothing is aligned, resized or degraded. Each
folder of outputs is a method of the registry (methods/outputs.py), so that metrics, statistics,
failures and tables are those of every other run.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fsrbench.core import Method, Picture, Profile, Sample
from fsrbench.degrade.named import GIVEN
from fsrbench.engine.counting import counted
from fsrbench.engine.data import Entry, Source, prepare, verified
from fsrbench.engine.findings import Findings
from fsrbench.engine.options import plan
from fsrbench.engine.outputs import ALLOWED, Folder, Matched, kind_of, open_folder, stem
from fsrbench.engine.plan import Options
from fsrbench.engine.restoring import instance
from fsrbench.engine.run import Run
from fsrbench.engine.samples import SampleSet, samples_digest
from fsrbench.engine.splits import signature
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError, unknown
from fsrbench.faces.geometry import FFHQ, Landmarks
from fsrbench.faces.prepare import Preparation
from fsrbench.registry import makers

# What stands in the record where no LR image was seen.
AS_GIVEN = 1


def people_of(folder: Folder, persons: str | None) -> dict[str, str]:
    """Person of each image by its path without suffix: what a CSV file says, else its folder, else
    the image itself.

    Args:
        persons: path of a CSV file with the columns image and person; None without.

    Raises:
        FsrError: the file lacks a column or an image.
    """
    if not persons:
        return {name: name.rpartition("/")[0] or name for name in folder.files}
    try:
        with open(Path(persons).expanduser(), newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError) as error:
        raise FsrError(f"--persons {persons}",
                       f"cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})",
                       "give a CSV file with the columns image and person", code=2) from None
    if not rows or not {"image", "person"} <= rows[0].keys():
        raise FsrError(f"--persons {persons}", "has not the columns image and person",
                       "name them in its first line", code=2)
    said = {stem(row["image"] or ""): row["person"] or "" for row in rows}
    if lacking := [name for name in folder.files if not said.get(name)]:
        raise FsrError(f"--persons {persons}",
                       f"names no person for {len(lacking)} images, first {lacking[0]}",
                       "add a line for each image of --truth", code=2)
    return {name: said[name] for name in folder.files}


def given_samples(truth: str, persons: str | None, store: Store) -> tuple[SampleSet, Profile]:
    """The ground truths of a folder as samples, and the profile of their size.

    Raises:
        FsrError: two files have one name; the images are not all square and of one size.
    """
    folder = open_folder(truth, "--truth")
    twice = next((files for files in folder.files.values() if len(files) > 1), None)
    if twice:
        raise FsrError(f"--truth {truth}", f"{twice[0].name} and {twice[1].name} have one name",
                       "keep one of them", code=2)
    sides = {name: kind_of(files[0])[0] for name, files in folder.files.items()}
    sizes = sorted(set(sides.values()))
    if len(sizes) > 1 or sizes[0][0] != sizes[0][1]:
        shown = ", ".join(f"{w} x {h}" for w, h in sizes[:3])
        raise FsrError(f"--truth {truth}", f"holds images of {shown} pixels",
                       "give square images of one size", code=2)
    size, people = sizes[0][0], people_of(folder, persons)
    profile = Profile("given", size, FFHQ, f"truth:{folder.root.name}", None,
                      batch=max(1, min(20, 2**21 // size**2)))
    entries = tuple(sorted((Entry(people[name], str(files[0].relative_to(folder.root).as_posix()),
                                  str(files[0].relative_to(folder.root)))
                            for name, files in folder.files.items()),
                           key=lambda e: (e.person, e.image)))
    source = Source("given", folder.root, entries, "the user's own images", aligned=True,
                    remarks=f"images of {folder.root.name}, {_grouping(people, persons)}")
    samples, excluded = [], Findings()
    for made in prepare(source, verified(source, entries, store),
                        Preparation(size, FFHQ, aligned=True), store):
        if made.error:
            excluded.add(made.error, made.entry.image)
            continue
        gt = Picture(made.entry.image, made.image, store.image(made.image),
                     Landmarks(made.points, made.landmarks))
        samples.append(Sample(gt.id, made.entry.person, gt, gt, ()))
    samples = [samples[i] for i in counted(samples, excluded)]
    if not samples:
        raise FsrError(f"--truth {truth}", "holds no image of a face that can be read",
                       "; ".join(excluded.lines(3)), code=2)
    signatures = np.stack([signature(s.gt.image) for s in samples])
    return SampleSet(source, samples, samples_digest(samples, profile), excluded,
                     signatures), profile


def _grouping(people: Mapping[str, str], persons: str | None) -> str:
    if persons:
        return f"people by {Path(persons).name}"
    return ("a folder a person" if any("/" in name for name in people)
            else "each image taken for a person of its own")


class Score(Run):
    """A run whose methods are folders of outputs.

    Args:
        restored: folders, each `[NAME=]PATH`; allow: of `outputs.ALLOWED`.
    """

    def __init__(self, options: Options, store: Store, samples: SampleSet, restored: Sequence[str],
                 allow: frozenset[str]):
        self.restored, self.allow = restored, allow
        self.ids = tuple(s.id for s in samples.samples)
        super().__init__(options, store, samples)

    def _usable(self) -> tuple[list[Method], dict[str, str]]:
        """The folders as methods; nothing is downsampled, so no scale is impossible."""
        built: dict[str, Method] = {}
        for argument in self.restored:
            cls = makers()["outputs"].make(argument, self.allow, self.ids)
            if cls.name in built:
                raise FsrError(f"--restored {argument}", f"is called {cls.title} like another one",
                               "write NAME=PATH", code=2)
            built[cls.name] = instance(cls, self.options.profile)
        return list(built.values()), {}

    def matches(self) -> dict[str, Matched]:
        """Which file is whose, by title of the method."""
        return {cell.method.title: cell.method.whole_match for cell in self.cells}


def score(restored: Sequence[str], truth: str | None, persons: str | None, metrics: Sequence[str],
          allow: Sequence[str], seed: str | None, store: Store) -> Score:
    """The run of `invoke score`.

    Raises:
        FsrError: an argument is wrong.
    """
    if not restored or not truth:
        raise FsrError("score", "needs --restored DIR and --truth DIR", "see `invoke score --help`",
                       code=2)
    for kind in allow:
        if kind not in ALLOWED:
            raise unknown("--allow", kind, list(ALLOWED))
    for argument in restored:  # a wrong folder is said before hours of preparation
        makers()["outputs"].make(argument, frozenset(allow))
    samples, profile = given_samples(truth, persons, store)
    options = plan(profile, profile.data, (str(AS_GIVEN),), (), metrics, None, seed, None)
    options = replace(options, degradation=GIVEN.name)
    return Score(options, store, samples, restored, frozenset(allow))
