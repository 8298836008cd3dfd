"""Data sets: a source of files, its manifest, and images that are detected, aligned and kept in the
store.

A builder (one file in datasets/) registers a function that returns a `Source`; nothing else is
needed to add a data set. One that must select before anything can run also registers a function for
`invoke prepare`, whose selection `open_source` reads from the store (see
datasets/common/frozen.py).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fsrbench.engine.findings import Excluded, Findings
from fsrbench.engine.keys import digest_of, preparation_digest
from fsrbench.engine.splits import draw_people
from fsrbench.engine.store import Store, locked, write_atomic
from fsrbench.errors import FsrError, reason, unknown
from fsrbench.faces.prepare import Preparation, cut
from fsrbench.imaging import decoded, digest
from fsrbench.progress import progress
from fsrbench.text import csv_table, read_json

# What a frozen split says of an image.
TRAIN, FINETUNE, TEST, UNUSED = "train", "fine-tune", "test", "unused"
# Below this many images a pool of processes costs more than it saves.
_POOL_FROM = 400


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a data set; `path` is what the source's `read` understands, below the source's
    root."""

    person: str
    image: str
    path: str
    sha256: str = ""

    @property
    def id(self) -> str:
        return f"{self.person}/{self.image}"


def read_file(root: Path, path: str) -> bytes:
    """The bytes of a file, as most sources hold their images."""
    return (root / path).read_bytes()


@dataclass(frozen=True)
class Source:
    """A data set as it lies on disk.

    Args:
        name: as the user typed it, without the path ("orl", "folder").
        root: folder that entry paths are relative to.
        entries: all images, sorted by id.
        licence: and credit, for the table's notes.
        rate: share of the people that the protocol draws for evaluation.
        aligned: images are FFHQ-aligned already, and are only resized.
        manifest: frozen manifest that the files must match; None where the first run writes one.
        remarks: what the reader of a table must know of this set.
        read: encoded image of (root, path of an entry); a module's function, as processes share it.
        frozen: where the images are that `invoke prepare` selected, "root" or "store"; then entries
            and split come from its manifest. Empty for a set that needs no preparation.
        split: train, fine-tune, test or unused, by entry id, where a manifest froze it; else the
            seed halves.
        references: of each test image by id, where a file gives them; else the seed draws one.
        findings: what of the folder is not among the entries, and why.
    """

    name: str
    root: Path
    entries: tuple[Entry, ...]
    licence: str
    rate: float = 1.0
    aligned: bool = False
    manifest: Path | None = None
    remarks: str = ""
    read: Callable[[Path, str], bytes] = read_file
    frozen: str = ""
    split: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)


@dataclass(frozen=True)
class Dataset:
    """A registered builder: the source behind `--data`, and the selection of `invoke prepare` where
    it needs one.

    `prepare` takes (root, `frozen.Choice`, store) and returns a `frozen.Plan`.
    """

    name: str
    summary: str
    build: Callable[[str], Source]
    prepare: Callable | None = None


_datasets: dict[str, Dataset] = {}


def dataset(name: str, summary: str, prepare: Callable | None = None):
    """Register a builder: a function of what follows the colon in `--data name:argument`."""
    def register(function):
        _datasets[name] = Dataset(name, summary, function, prepare)
        return function
    return register


def datasets() -> dict[str, Dataset]:
    """All registered data sets by name."""
    import fsrbench.registry

    fsrbench.registry.load("datasets")
    return dict(sorted(_datasets.items()))


def open_source(spec: str, store: Store | None = None) -> Source:
    """The source that `--data` names: `name` or `name:argument`.

    Args:
        store: where `invoke prepare` has frozen what it selected; without one such a source has no
            entries.

    Raises:
        FsrError: the data set is unknown, its argument wrong, or it must be prepared first.
    """
    name, _, argument = spec.partition(":")
    if name not in datasets():
        if Path(spec).expanduser().exists():
            raise FsrError(f"data set {spec!r}", "is a path without its kind",
                           f"give folder:{spec} for a folder of images for each person, or "
                           f"aligned:{spec} where they are cut to the face already", code=2)
        raise unknown("data set", name, list(_datasets))
    source = _datasets[name].build(argument)
    return _thawed(source, store) if source.frozen and store else source


def prepared_manifest(name: str, root: Path, store: Store) -> Path:
    """Where the frozen selection of a data set at that root is; its facts stand beside it as
    JSON."""
    return (store.root / "manifests"
            / f"prepared-{name}-{digest(str(root.resolve()).encode())[:12]}.csv")


def _thawed(source: Source, store: Store) -> Source:
    """A source with the entries and the split that `invoke prepare` froze."""
    path = prepared_manifest(source.name, source.root, store)
    if not path.exists():
        raise FsrError(f"data set {source.name}", f"is not prepared in {store.root}",
                       f"run `invoke prepare {source.name} --root {source.root} --store "
                       f"{store.root}`")
    split = {f"{person}/{image}": part for person, image, part in _manifest(path, "person", "image",
                                                                            "split")}
    entries = tuple(e for e in read_manifest(path) if split[e.id] != UNUSED)
    again = f"run `invoke prepare {source.name}` again"
    remarks = read_json(path.with_suffix(".json"), "rule", remedy=again)["rule"]
    return replace(source, entries=entries, split=split, manifest=path, remarks=remarks,
                   root=store.root if source.frozen == "store" else source.root)


def divided(source: Source, seed: int) -> tuple[list[str], list[str]]:
    """(people who may train, people drawn for evaluation in drawing order): the frozen split's, or
    drawn at the rate."""
    people = sorted({e.person for e in source.entries})
    if source.split:
        drawn = draw_people({e.person for e in source.entries if source.split[e.id] != TRAIN}, 1.0,
                            seed)
    else:
        drawn = draw_people(people, source.rate, seed)
    return sorted(set(people) - set(drawn)), drawn


# A file of such a name is an image, if need be a damaged one; any other is one if it begins as one.
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".pgm", ".ppm",
                            ".tif", ".tiff", ".webp", ".avif", ".heic", ".heif", ".jp2"})


def write_manifest(path: Path, entries: Iterable[Entry]) -> None:
    """Freeze entries (person, image, path, sha256) as CSV."""
    text = csv_table(["person", "image", "path", "sha256"],
                     ([e.person, e.image, e.path, e.sha256] for e in entries))
    write_atomic(path, text.encode())


def read_manifest(path: Path) -> tuple[Entry, ...]:
    """Entries of a frozen manifest.

    Raises:
        FsrError: it is damaged.
    """
    return tuple(Entry(*row) for row in _manifest(path, "person", "image", "path", "sha256"))


def _manifest(path: Path, *columns: str) -> list[tuple[str, ...]]:
    """Columns of a manifest by row."""
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            rows = [tuple(row[name] for name in columns)
                    for row in csv.DictReader(handle, strict=True)]
        if not all(all(row[:2]) and None not in row for row in rows):
            raise ValueError("a row lacks a cell")
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise FsrError(f"manifest {path}", f"is damaged ({reason(error)})",
                       "delete it: `invoke prepare`, or the next run, writes it anew") from None
    return rows


def verified(source: Source, entries: Iterable[Entry], store: Store,
             excluded: Excluded | None = None) -> tuple[Entry, ...]:
    """Entries with the digests of their files, checked against the frozen manifest.

    A set without a frozen manifest gets one in the store at its first run; a later run with other
    files under the same names writes a new one and says so (its records then carry another data set
    digest).

    Args:
        excluded: for files that cannot be read, of a set without a frozen manifest; without it they
            are an error.

    Raises:
        FsrError: a file differs from the frozen manifest, or is not in it, or cannot be read.
    """
    frozen = source.manifest
    hashed = _hashed(source, entries, None if frozen else excluded)
    path = (frozen or store.root / "manifests"
            / f"{source.name}-{digest(str(source.root.resolve()).encode())[:12]}.csv")
    known = {e.id: e.sha256 for e in read_manifest(path)} if path.exists() else {}
    changed = [e for e in hashed if known.get(e.id) != e.sha256]
    if frozen and changed:
        remedy = f"run `invoke prepare {source.name}` again" if source.frozen else \
            "install the version that the manifest names, or use folder:PATH"
        raise FsrError(f"data set {source.name}",
                       f"{len(changed)} files are not those of its manifest, "
                       f"first {changed[0].id}", remedy)
    if changed and not frozen:
        replaced = sum(e.id in known for e in changed)
        if replaced:
            print(f"note: {replaced} images of {source.name} changed since the last run; they "
                  f"count as new data")
        with locked(path):  # and read again, as another process may have added to it
            merged = {e.id: e for e in (*(read_manifest(path) if path.exists() else ()), *hashed)}
            write_manifest(path, [merged[key] for key in sorted(merged)])
    return hashed


def _hashed(source: Source, entries: Iterable[Entry], excluded: Excluded | None) -> tuple[Entry,
                                                                                          ...]:
    """Entries with digests; those that cannot be read go to `excluded`."""
    found = []
    for entry in entries:
        try:
            found.append(replace(entry, sha256=entry_digest(source.read, source.root, entry)))
        except FsrError as error:
            if excluded is None:
                raise
            excluded.add(error.cause, entry.id)
    return tuple(found)


def entry_digest(read: Callable[[Path, str], bytes], root: Path, entry: Entry) -> str:
    """sha256 of an entry's encoded image.

    Raises:
        FsrError: it cannot be read.
    """
    try:
        return digest(read(root, entry.path))
    except OSError as error:
        raise FsrError(f"image {root / entry.path}", f"cannot be read ({error.strerror})",
                       "check that it is there and its " "permissions") from None


@dataclass(frozen=True)
class Prepared:
    """An image after detection and alignment.

    Args:
        entry: where it came from.
        image: digest of the aligned image in the store; empty if preparation failed.
        points: (68, 2) landmarks in pixels of the aligned image.
        landmarks: which detector served.
        outside: share of the aligned image beyond the original's border (mirrored).
        error: why it failed; empty if it did not.
        remarks: of reading and cutting it, each as a short sentence.
    """

    entry: Entry
    image: str
    points: np.ndarray
    landmarks: str
    outside: float
    error: str
    remarks: tuple[str, ...] = ()


def prepared_key(entry: Entry, how: Preparation, detection: str) -> str:
    """Key of a prepared image: its file, what is done to it, and by what
    (`keys.preparation_digest`)."""
    return digest_of("prepared", detection, entry.sha256, how.size, how.frame, how.aligned)


def _prepare_one(job: tuple[Callable, Path, Entry, Preparation, str]) -> tuple[np.ndarray | None,
                                                                               dict]:
    read, root, entry, how, key = job
    row = {"key": key, "image": "", "points": [], "landmarks": "", "outside": 0.0, "error": "",
           "remarks": ""}
    try:
        read_image = decoded(read(root, entry.path), entry.id)
    except (FsrError, OSError) as error:
        return None, {**row, "error": error.cause if isinstance(error, FsrError)
                      else f"cannot be read ({error.strerror})"}
    # What fails here is a detector's file, not the image.
    found = cut(read_image.pixels, how)
    if found is None:
        return None, {**row, "error": "no face found"}
    remarks = (read_image.remarks + ("crop upsampled more than twice, as the face is small",)
               * (found.step < 0.5))
    return found.image, {**row, "points": found.landmarks.points.ravel().tolist(),
                         "landmarks": found.landmarks.source,
                         "outside": found.outside, "remarks": "\n".join(remarks)}


def prepare(source: Source, entries: tuple[Entry, ...], how: Preparation,
            store: Store) -> list[Prepared]:
    """Detect and align every entry once; the results are kept in the store, and failures too.

    Args:
        entries: with their digests (see `verified`).

    Returns:
        One `Prepared` for each entry, in their order.
    """
    detection = preparation_digest()
    keys = [prepared_key(e, how, detection) for e in entries]
    # An image that the store has lost is made again.
    known = {row["key"]: row for row in store.read("prepared", key=keys).to_dict("records")
             if row["error"] or store.holds(row["image"])}
    jobs = [(source.read, source.root, e, how, key) for e, key in zip(entries, keys)
            if key not in known]
    for rows in _prepared_chunks(jobs, store):
        known.update({row["key"]: row for row in rows})
    results = []
    for entry, key in zip(entries, keys):
        row = known[key]
        points = np.asarray(row["points"], dtype=np.float64).reshape(-1, 2)
        results.append(Prepared(entry, row["image"], points, row["landmarks"], row["outside"],
                                row["error"], tuple(row["remarks"].splitlines())))
    return results


def pooled(function: Callable, jobs: list, few: int = _POOL_FROM, batch: int = 16) -> Iterator:
    """Results of the jobs in their order; from `few` jobs on by a pool of processes, which take
    `batch` at a time."""
    from joblib import Parallel, delayed

    if len(jobs) < few:
        return map(function, jobs)
    return Parallel(n_jobs=-1, return_as="generator", batch_size=batch)(delayed(function)(job)
                                                                        for job in jobs)


def _prepared_chunks(jobs: list, store: Store, chunk: int = 128):
    if not jobs:
        return
    done, rows = pooled(_prepare_one, jobs), []
    for image, row in progress(done, total=len(jobs), desc="aligning faces", unit="image"):
        rows.append({**row, "image": store.put_image(image) if image is not None else ""})
        if len(rows) == chunk:
            store.append("prepared", rows)
            yield rows
            rows = []
    store.append("prepared", rows)
    yield rows
