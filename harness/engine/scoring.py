"""Anybody's outputs, as they are, beside their ground truths if there are any: `invoke score`.

Nothing is aligned, resized or degraded. Each folder of outputs is a row; metrics, statistics,
failures and tables are those of every other run. Of all images at most a few are in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fsrbench.core import Method, Profile, Sample
from fsrbench.degrade.named import GIVEN
from fsrbench.engine.given_samples import GivenSet, given_set
from fsrbench.engine.keys import code_digest, digest_of
from fsrbench.engine.options import plan
from fsrbench.engine.outputs import (
    ALLOWED,
    Folder,
    Matched,
    Named,
    content_of,
    kind_of,
    match,
    named,
    open_folder,
    read_with_png,
)
from fsrbench.engine.plan import Cell, Options
from fsrbench.engine.run import Outcome, Run
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError, unknown
from fsrbench.faces.geometry import FFHQ
from fsrbench.metrics import Metric, family, get_feature
from fsrbench.progress import progress

# What stands in the record where no LR image was seen.
AS_GIVEN = 1
# Metrics of outputs without ground truths where none are named.
WITHOUT_TRUTH = ("clipiqa", "musiq", "maniqa", "piqe", "brisque", "niqe", "fid-ffhq512", "face")


@dataclass(frozen=True)
class Asked:
    """What was typed.

    Args:
        restored: folders, each `[NAME=]PATH`; name: of a single one.
        truth, references, lq: folders; persons, split: CSV files; None for those not given.
        metrics: ids, families or metrics; allow: of `outputs.ALLOWED`.
        lacks: why some of the metrics cannot be measured, by id; side: of the images that a
            protocol is for.
    """

    restored: Sequence[str]
    truth: str | None = None
    references: str | None = None
    lq: str | None = None
    persons: str | None = None
    split: str | None = None
    name: str | None = None
    metrics: Sequence[str | Metric] = ()
    allow: Sequence[str] = ()
    seed: str | None = None
    lacks: Mapping[str, str] = field(default_factory=dict)
    side: int | None = None


class Column(Method):
    """A folder of outputs.

    Args:
        it: how it is called; folder: its files; matched: which is whose.
    """

    weights = "given"
    profiles = ("given",)
    licence = "the user's"
    origin = "images written by another program"

    def __init__(self, profile: Profile, it: Named, folder: Folder, matched: Matched):
        super().__init__(profile)
        self.name, self.title = f"outputs:{it.plain}", it.title
        self.folder, self.matched = folder, matched


class Score(Run):
    """A run whose methods are folders of outputs.

    Args:
        given: what is scored; columns: the folders; asked: what was typed.
    """

    def __init__(self, options: Options, store: Store, given: GivenSet,
                 columns: Sequence[Column], asked: Asked):
        self.given, self.columns, self.allow = given, columns, frozenset(asked.allow)
        self._keys: dict[tuple[str, str], str] = {}
        super().__init__(options, store, given.samples)
        self.measures.leave_out({m.id: why for m in options.metrics
                                 if (why := asked.lacks.get(m.id) or lacking(m, given))})

    def _usable(self) -> tuple[list[Method], dict[str, str]]:
        """The folders; nothing is downsampled, so no scale is impossible."""
        return list(self.columns), {}

    def execute(self, compute: bool = True) -> Outcome:
        """As any run; the degraded images that were given are shown."""
        return replace(super().execute(compute), shown=self.given.lq)

    def restored_keys(self, cell: Cell, chunk: list[Sample]) -> list[str]:
        """Keys of the outputs of a chunk: each of its own file, what is asked of it, and the ground
        truth and reference that its record names."""
        return [self._key(cell.method, s) for s in chunk]

    def _key(self, column: Column, sample: Sample) -> str:
        place = column.name, sample.id
        if place not in self._keys:
            path = column.matched.files.get(sample.id)
            content = content_of(path) if path else column.matched.faults[sample.id]
            self._keys[place] = digest_of(
                "scored", code_digest("fsrbench.engine.outputs"), *place, content,
                self.given.sizes.get(sample.id), sorted(self.allow), sample.gt.digest,
                sample.reference.id)
        return self._keys[place]

    def _restore(self, jobs: list) -> None:
        missing = [(cell, chunk) for cell, chunk in jobs
                   if not all(map(self._settled, self.restored_keys(cell, chunk)))]
        with progress(total=sum(len(chunk) for _, chunk in missing), desc="reading outputs",
                      unit="image") as bar:
            for cell, chunk in missing:
                self._note([self._read_row(cell, sample) for sample in chunk])
                self.computed["restored"] += len(chunk)
                bar.update(len(chunk))

    def _read_row(self, cell: Cell, sample: Sample) -> dict:
        matched, image, png = cell.method.matched, None, b""
        fault = matched.faults.get(sample.id, "")
        if not fault:
            image, fault, png = read_with_png(matched.files[sample.id],
                                              self.given.sizes.get(sample.id), self.allow)
        return self._row(cell, sample, self._key(cell.method, sample), metric="restored",
                         status=f"failed: {fault}" if image is None else "ok",
                         image="" if image is None else self.store.put_image(image, png),
                         lr=sample.gt.digest)


def lacking(metric: Metric, given: GivenSet) -> str:
    """Why a metric says nothing of these images, with the remedy; empty where it does."""
    if not given.has_truth and (metric.sees_truth or metric.kind == "gallery"):
        return "compares with ground truths; give --truth DIR"
    if not given.has_references and against_references(metric):
        return "compares with reference sets; give --references DIR"
    if metric.target == "upsampled":
        return "compares with the LR images of a table's own run"
    if metric.kind == "set" and len(set(given.sizes.values())) > 1:
        return "a distance of sets needs images of one size; score each size by itself"
    return ""


def against_references(metric: Metric) -> bool:
    """Whether a metric compares with reference sets."""
    return metric.kind in ("references", "gallery") or metric.target == "reference"


def needs_faces(metrics: Sequence[Metric]) -> bool:
    """Whether a metric cuts by the landmarks of the ground truth or of a reference."""
    return any(m.feature and get_feature(m.feature).aligned for m in metrics)


def default_metrics(asked: Asked, usual: Sequence[str]) -> Sequence[str]:
    """The usual metrics; without ground truths those that need none, and how far faces are those
    of the reference sets."""
    references = ("idr",) if asked.references else ()
    return (*usual, *references) if asked.truth else (*WITHOUT_TRUTH, *references)


def _columns(asked: Asked) -> list[tuple[Named, Folder]]:
    """The folders of outputs.

    Raises:
        FsrError: one is missing, or two have one name.
    """
    if asked.name and len(asked.restored) > 1:
        raise FsrError("--name", "is of one folder, and there are several",
                       "write --restored NAME=PATH", code=2)
    found: dict[str, tuple[Named, Folder]] = {}
    for argument in asked.restored:
        it = named(argument, "--restored ")
        if asked.name:
            it = named(f"{asked.name.replace('/', ' ').replace('=', ' ')}={it.path}", "--name ")
        if it.plain in found:
            raise FsrError(f"--restored {argument}", f"is called {it.title} like another one",
                           "write NAME=PATH", code=2)
        found[it.plain] = it, open_folder(it.path, "--restored")
    return list(found.values())


def _sides(given: GivenSet, matches: Sequence[Matched]) -> tuple[int, int]:
    """Least side of all images, and the most pixels of one; without ground truths, of the
    outputs."""
    sizes = set(given.sizes.values())
    if not given.has_truth:
        for path in (path for matched in matches for path in matched.files.values()):
            try:
                sizes.add(kind_of(path)[0])
            except FsrError:  # counts as failed when it is read
                continue
    return (min(map(min, sizes), default=1), max((w * h for w, h in sizes), default=1))


def _of_side(given: GivenSet, side: int) -> GivenSet:
    """The same for a protocol of square images of that side: outputs of another size fail.

    Raises:
        FsrError: the ground truths have another size.
    """
    if other := next((s for s in given.sizes.values() if s != (side, side)), None):
        raise FsrError("--protocol", f"is for images of {side} x {side} pixels, and there are "
                       "some of {} x {}".format(*other),
                       "give such images, or name its metrics by --metric", code=2)
    return replace(given, sizes={s.id: (side, side) for s in given.samples.samples})


def score(asked: Asked, store: Store) -> Score:
    """The run of `invoke score`.

    Raises:
        FsrError: an argument is wrong.
    """
    if not asked.restored:
        raise FsrError("score", "needs --restored DIR, and --truth DIR where there are ground "
                       "truths", "see `invoke score --help`", code=2)
    for option in ("truth", "references", "lq", "restored"):
        if "" in ([getattr(asked, option)] if option != "restored" else asked.restored):
            raise FsrError(f"--{option}", "is empty", "give a folder of images", code=2)
    for kind in asked.allow:
        if kind not in ALLOWED:
            raise unknown("--allow", kind, list(ALLOWED))
    metrics = tuple(dict.fromkeys(m for name in asked.metrics for m in (
        family(name) if isinstance(name, str) else [name])))
    folders = _columns(asked)  # a wrong folder is said before hours of preparation
    given = given_set(asked.truth, asked.lq, asked.references, asked.persons, asked.split,
                      folders[0][1], bool(asked.truth) and needs_faces(metrics), store)
    if asked.side:
        given = _of_side(given, asked.side)
    matches = [match(given.names, folder) for _, folder in folders]
    side, most = _sides(given, matches)
    profile = Profile("given", side, FFHQ, given.called, None,
                      batch=max(1, min(20, 2**21 // most)))
    options = plan(profile, profile.data, (str(AS_GIVEN),), (), (), None, asked.seed, None)
    options = replace(options, degradation=GIVEN.name, metrics=metrics)
    columns = [Column(profile, it, folder, matched)
               for (it, folder), matched in zip(folders, matches)]
    run = Score(options, store, given, columns, asked)
    if not run.measures.metrics:
        raise FsrError("--metric", "none can be measured here: "
                       + "; ".join(f"{id} {why}" for id, why in run.measures.unavailable.items()),
                       code=2)
    return run
