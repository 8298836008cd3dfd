"""Samples of `invoke score`: what a user's folders say of ground truths, people, reference sets and
degraded images."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fsrbench.core import Profile, Sample
from fsrbench.engine.data import TEST, Entry, Source
from fsrbench.engine.findings import Findings
from fsrbench.engine.fixed import PARTS, csv_rows, wrong
from fsrbench.engine.kept import Kept
from fsrbench.engine.outputs import Folder, content_of, match, open_folder, plain, stem
from fsrbench.engine.samples import SampleSet, samples_digest
from fsrbench.engine.store import Store
from fsrbench.engine.taken import Taken, take
from fsrbench.errors import FsrError
from fsrbench.faces.geometry import FFHQ, TEMPLATE


@dataclass(frozen=True)
class GivenSet:
    """What is scored.

    Args:
        samples: those that count; without ground truths the `gt` of each has no image.
        names: ids of all images of the folder, those that do not count too.
        sizes: (width, height) that each output must have; empty without ground truths.
        called: "truth:NAME", "lq:NAME" or "restored:NAME".
        lq: digest of the degraded image by sample, of those that have one.
        notes: what is wrong with the folders beside the outputs, for the table.
    """

    samples: SampleSet
    names: tuple[str, ...]
    sizes: Mapping[str, tuple[int, int]]
    called: str
    has_truth: bool
    has_references: bool
    lq: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def people_of(ids: Collection[str], persons: str | None) -> dict[str, str]:
    """Person of each image by its id: what a CSV file says, else its folder, else the image itself.

    Args:
        persons: path of a CSV file with the columns image and person; None without.

    Raises:
        FsrError: the file is no such CSV, names an image twice, or lacks one.
    """
    if not persons:
        return {id: stem(id).rpartition("/")[0] or stem(id) for id in ids}
    said: dict[str, str] = {}
    for line, (name, person) in csv_rows("--persons", persons, "person"):
        if said.setdefault(stem(name), person) != person:
            raise wrong("--persons", persons, f"line {line}: {name} is there twice")
    if lacking := [id for id in ids if not said.get(stem(id))]:
        raise FsrError(f"--persons {persons}",
                       f"names no person for {len(lacking)} images, first {stem(lacking[0])}",
                       "add a line for each image", code=2)
    return {id: said[stem(id)] for id in ids}


def tested(ids: Sequence[str], split: str | None) -> list[str]:
    """The ids that a CSV file of image and split calls test; all without one.

    Raises:
        FsrError: the file is no such CSV, or names an image that is not there.
    """
    if not split:
        return list(ids)
    known, said = {stem(id): id for id in ids}, {}
    for line, (name, part) in csv_rows("--split", split, "split"):
        if part not in PARTS:
            raise wrong("--split", split, f"line {line}: {part!r} is none of {', '.join(PARTS)}")
        if part == TEST and stem(name) not in known:
            raise wrong("--split", split, f"line {line}: there is no image {plain(name)!r}")
        if said.setdefault(stem(name), part) != part:
            raise wrong("--split", split, f"line {line}: {plain(name)} is there twice")
    chosen = [id for id in ids if said.get(stem(id)) == TEST]
    if not chosen:
        raise wrong("--split", split, "has no image for test")
    return chosen


def _files(folder: Folder, option: str) -> dict[str, Path]:
    """The one file of each image of a folder, by id.

    Raises:
        FsrError: two files have one name.
    """
    twice = next((files for files in folder.files.values() if len(files) > 1), None)
    if twice:
        raise FsrError(f"{option} {folder.root}",
                       f"{plain(twice[0].name)} and {plain(twice[1].name)} have one name",
                       "keep one of them", code=2)
    return {_id(folder, file): file for (file,) in folder.files.values()}


def _id(folder: Folder, file: Path) -> str:
    return plain(file.relative_to(folder.root).as_posix())


def _taken(files: Mapping[str, Path], store: Store, faces: bool = False) -> dict[str, Taken]:
    return dict(take(files, {name: content_of(path) for name, path in files.items()}, store,
                     faces))


def _counted(taken: Mapping[str, Taken], faces: bool, excluded: Findings) -> list[str]:
    """Ids of the ground truths that count; why others do not goes to `excluded`, remarks on those
    that do too."""
    first: dict[str, str] = {}
    for name, it in taken.items():
        why = (it.error or "test image of one colour" * it.flat
               or "test image in which no face is found"
               * (faces and it.landmarks.source == TEMPLATE))
        if not why and (earlier := first.setdefault(it.image, name)) != name:
            why = f"copy of the test image {earlier}"
        if why:
            excluded.add(why, name)
        for remark in () if why else it.remarks:
            excluded.remarks.add(remark, name)
    return list(first.values())


def reference_files(ids: Iterable[str], people: Mapping[str, str], folder: Folder
                    ) -> dict[str, list[str]]:
    """Names in a folder of the reference images of each sample: those below the person's
    sub-folder, else the one that is called as the sample or its person."""
    below: dict[str, list[str]] = {}
    for name in folder.files:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            below.setdefault("/".join(parts[:depth]), []).append(name)
    return {id: below.get(people[id]) or below.get(stem(id)) or
            [n for n in dict.fromkeys((stem(id), stem(id).replace("/", "_"), people[id]))
             if n in folder.files][:1] for id in ids}


def _albums(path: str | None, ids: Sequence[str], people: Mapping[str, str],
            truths: Collection[str], faces: bool, store: Store, notes: list[str]
            ) -> dict[str, tuple[Kept, ...]]:
    """Reference set of each sample; what is missing or wrong is noted, and a reference that is a
    ground truth is none.

    Raises:
        FsrError: no reference is anybody's.
    """
    if not path:
        return {}
    folder = open_folder(path, "--references")
    names = reference_files(ids, people, folder)
    used = {name: folder.files[name][0] for own in names.values() for name in own}
    if not used:
        raise FsrError(f"--references {path}", "holds nobody's images",
                       f"name a sub-folder as a person ({people[ids[0]]}), or a file as an image",
                       code=2)
    lines, images = Findings(), {}
    for name, it in _taken(used, store, faces).items():
        why = (it.error or "is a ground truth itself" * (it.image in truths)
               or "no face is found" * (faces and it.landmarks.source == TEMPLATE))
        if why:
            lines.add(why, name)
        else:
            images[name] = Kept(name, it.image, it.landmarks, store)
    albums = {id: tuple(images[n] for n in own if n in images) for id, own in names.items()}
    if lone := sorted({people[id] for id in ids if not albums[id]}):
        lines.add("of no use: there is none of", *lone)
    notes += [f"References {line}." for line in lines.lines()]
    return albums


def _lq(path: str | None, folder: Folder | None, ids: Sequence[str], store: Store,
        notes: list[str]) -> dict[str, str]:
    """Digest of the degraded image of each sample that has one; others are noted."""
    if not path or folder is None:
        return {}
    matched = match(ids, folder)
    taken = _taken(matched.files, store)
    lines = Findings()
    for name, why in {**matched.faults,
                      **{n: it.error for n, it in taken.items() if it.error}}.items():
        lines.add(why, name)
    notes += [f"Degraded images {line}." for line in lines.lines(verb="not shown")]
    return {name: it.image for name, it in taken.items() if not it.error}


def given_set(truth: str | None, lq: str | None, references: str | None, persons: str | None,
              split: str | None, restored: Folder | None, faces: bool,
              store: Store) -> GivenSet:
    """What is scored: the images of `truth`, else of `lq`, else of the first folder of outputs.

    Args:
        restored: needed where there is neither `truth` nor `lq`.
        faces: ground truths and references must show one.

    Raises:
        FsrError: two files have one name; a CSV file does not fit; nothing is left.
    """
    degraded = open_folder(lq, "--lq") if lq else None
    option, folder = (("--truth", open_folder(truth, "--truth")) if truth else
                      ("--lq", degraded) if degraded else ("--restored", restored))
    files = (_files(folder, option) if option != "--restored" else
             {_id(folder, group[0]): group[0] for group in folder.files.values()})
    names, excluded, notes = sorted(files), Findings(), []
    ids, people = tested(names, split), people_of(names, persons)
    if others := len(names) - len(ids):
        notes.append(f"{others} images are not for test by --split {Path(split or '').name}.")
    taken = _taken({id: files[id] for id in ids}, store, faces) if truth else {}
    if truth:
        ids = _counted(taken, faces, excluded)
    if not ids:
        raise FsrError(f"{option} {folder.root}", "holds no image that can be scored",
                       "; ".join(excluded.lines(3)), code=2)
    ids = sorted(ids, key=lambda id: (people[id], id))
    truths = {it.image for it in taken.values() if it.image}
    albums = _albums(references, ids, people, truths, faces, store, notes)
    shown = _lq(lq, degraded, ids, store, notes)
    samples = []
    for id in ids:
        it, album = taken.get(id, Taken()), albums.get(id, ())
        gt = Kept(id, it.image, it.landmarks, store)
        samples.append(Sample(id, people[id], gt, album[0] if album else gt, album))
    called = f"{option[2:]}:{plain(folder.root.resolve().name)}"
    source = Source("given", folder.root, tuple(Entry(people[id], id, id) for id in ids),
                    "the user's own images", aligned=True,
                    remarks=f"images of {plain(folder.root.resolve().name)}, "
                            f"{_grouping(people, persons)}")
    signatures = np.stack([taken[id].signature if truth else np.zeros(256, np.int8)
                           for id in ids])
    sizes = {id: taken[id].size[::-1] for id in ids if truth}
    return GivenSet(SampleSet(source, samples, _digest(samples, shown, bool(truth)), excluded,
                              signatures),
                    tuple(names), sizes, called, bool(truth), bool(references), shown, notes)


def _digest(samples: list[Sample], lq: Mapping[str, str], truth: bool) -> str:
    """Digest of the images that decide: ground truths and references, else the degraded images."""
    whole = samples_digest(samples, Profile("given", 0, FFHQ, "", None, 1))
    if truth:
        return whole
    words = [whole, *(f"{s.id}|{lq.get(s.id, '')}" for s in samples)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _grouping(people: Mapping[str, str], persons: str | None) -> str:
    if persons:
        return f"people by {plain(Path(persons).name)}"
    return ("a folder a person" if any("/" in name for name in people)
            else "each image taken for a person of its own")
