"""The engine: plan, what is missing, chunks, records.

A cell is one method at one scale on one data set. Its samples are cut into fixed chunks; a chunk is
restored, then measured, and each step is written as one shard, so a crash costs one chunk and
shards of a cluster merge by reading. A record's key is a digest of all that decides its value.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fsrbench import registry
from fsrbench.core import Batch, Method, Sample
from fsrbench.degrade.jpeg import libjpeg_version
from fsrbench.degrade.named import Degradation, check_scale
from fsrbench.engine.fits import Fits
from fsrbench.engine.keys import (
    detects,
    digest_of,
    method_digest,
    method_parts,
    metric_parts,
    preparation_parts,
    shape_of,
)
from fsrbench.engine.lr_images import LrImages, lr_images
from fsrbench.engine.measure import Measures
from fsrbench.engine.plan import TRUTH, Cell, Options, shard_of_environment
from fsrbench.engine.provenance import describe
from fsrbench.engine.records import Records
from fsrbench.engine.restoring import attempt, check_unchanged, instance, kept, one_ahead
from fsrbench.engine.samples import SampleSet, check_leaks, load_samples, training_set
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.faces.geometry import Landmarks
from fsrbench.imaging import image_digest, to_float, to_uint8
from fsrbench.memory import give_back_idle
from fsrbench.metrics import Metric
from fsrbench.progress import progress
from fsrbench.text import json_text
from fsrbench.weights.fill import reportable


@dataclass
class Outcome:
    """What a run leaves behind for tables.

    Args:
        records: the rows of this plan, as a frame; missing: how many are still to be computed (by
            other shards).
        unavailable: metric id -> why it cannot run here; left_out: method -> why it has no row.
        lr: the LR images of the samples; shown: digests of those that were given, by sample.
    """

    options: Options
    samples: SampleSet
    cells: list[Cell]
    records: object
    missing: int
    unavailable: dict[str, str]
    measures: Measures
    lr: LrImages
    left_out: dict[str, str] = field(default_factory=dict)
    computed: dict[str, int] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _groups(self) -> Mapping[tuple, np.ndarray]:
        return self.records.groupby(["method", "scale", "metric"], observed=True).indices

    def rows(self, method: str, scale: int, metric: str):
        """The records of a metric ("restored" for the restorations) of a cell."""
        return self.records.iloc[self._groups.get((method, scale, metric), [])]


def usable(options: Options) -> tuple[list[Method], dict[str, str]]:
    """The methods of a plan, each with what it needs, and why others are left out; what is missing
    is said before anything runs.

    Raises:
        FsrError: a scale or method is impossible, or weights of one that was asked for are missing.
    """
    for scale in options.scales:
        check_scale(scale, options.profile.size)
    built, left_out, typed = [], {}, {}
    for name in options.methods:
        cls = registry.get(name)
        # A made method has many spellings, and two of one maker may claim one name.
        first = typed.setdefault(cls.name, name)
        if registry.get(first) is not cls:
            raise FsrError(f"method {name}", f"would share the name {cls.name} with {first}",
                           "rename one of them", code=2)
        if first != name:
            continue
        method = instance(cls, options.profile)
        try:
            reportable(method)
        except FsrError as error:
            if not options.lenient or error.code == 4:
                raise
            left_out[name] = str(error)
            continue
        built.append(method)
    if not built:
        raise FsrError("methods", "none of the default ones has its weights here",
                       "see `invoke methods`")
    return built, left_out


class Run:
    """One invocation over a plan.

    Args:
        options: the plan; store: where records are.
        samples: what is restored; None for what the protocol makes of the options.
    """

    def __init__(self, options: Options, store: Store, samples: SampleSet | None = None):
        self.options, self.store = options, store
        self.lr = lr_images(options.degradation, store)
        self.degradation: Degradation = self.lr.degradation
        methods, self.left_out = self._usable()
        self.cells = [Cell(m, scale) for scale in options.scales for m in methods]
        self.samples = samples or load_samples(options.data, options.profile, store, options.people,
                                               options.seed, options.fixed)
        self._check_leaks()
        self.measures = Measures(store, options.metrics, options.profile, self.samples.samples)
        self.id = uuid.uuid4().hex
        self.rank, self.world = shard_of_environment()
        self.landmark_cache: dict[str, Landmarks] = {}
        self.method_digests: dict[str, str] = {}
        self.fits = Fits(store, options.seed, self.method_digest)
        self.computed = {"restored": 0, "measured": 0, "fitted": 0}

    def _usable(self) -> tuple[list[Method], dict[str, str]]:
        """`usable` of the plan."""
        return usable(self.options)

    def _check_leaks(self) -> None:
        """Refuse samples that weights were trained on, or a detector whose landmarks a method
        gets."""
        from fsrbench.faces.lr import present

        weights = [name for cell in self.cells for name in cell.method.weight_files]
        if any(detects(cell.method) for cell in self.cells):
            weights += [detector.weights for detector in present()]
        # Many were trained on one and the same set.
        known = [(name, training_set(name)) for name in dict.fromkeys(weights)]
        for name in {id(seen): name for name, seen in reversed(known)}.values():
            check_leaks(self.samples, name)

    # --- plan -------------------------------------------------------------------------------------

    def chunks(self) -> list[list[Sample]]:
        """The samples in fixed chunks."""
        samples, size = self.samples.samples, self.options.batch
        return [samples[i:i + size] for i in range(0, len(samples), size)]

    def method_digest(self, method: Method) -> str:
        """`method_digest`, computed once."""
        if method.name not in self.method_digests:
            self.method_digests[method.name] = method_digest(method)
        return self.method_digests[method.name]

    def restored_keys(self, cell: Cell, chunk: list[Sample]) -> list[str]:
        """Keys of the restorations of a chunk.

        All its ids are in each, as kernels may depend on what shares a batch.
        """
        method, scale, options = cell.method, cell.scale, self.options
        self.lr.make(chunk, scale)
        fits = "fit" in method.needs
        seen = digest_of(*(f"{s.id}|{self.lr.digest(s, scale)}|{self._references(method, s)}|"
                           f"{self.fits.digest(method, s) if fits else ''}" for s in chunk))
        common = ("restored", self.method_digest(method), shape_of(options.profile),
                  self.degradation.id, options.precision, scale, options.seed)
        return [digest_of(*common, s.id, seen) for s in chunk]

    @staticmethod
    def _references(method: Method, sample: Sample) -> str:
        """What else of a sample the method sees."""
        seen = [sample.reference.seen] if "references" in method.needs else []
        if method.needs & {"fit", "album"}:
            seen = [sample.reference.seen, *(p.seen for p in sample.album)]
        return "|".join([*seen, *[sample.gt.seen] * ("oracle" in method.needs)])

    # --- work -------------------------------------------------------------------------------------

    def execute(self, compute: bool = True) -> Outcome:
        """Compute what is missing of this shard, and gather the records of the whole plan; only
        gather if not `compute`.

        Raises:
            FsrError: weights were written anew meanwhile, so that a record's key would be of other
                ones.
        """
        self.records = self._read()
        chunks = self.chunks()
        jobs = [(cell, chunk) for cell in self.cells for chunk in chunks]
        mine = [job for i, job in enumerate(jobs) if compute and i % self.world == self.rank]
        retry = self.options.retry
        places, missing, settled = self.records.gather(self._wanted(jobs), retry)
        if mine and not settled:
            self._restore(mine)
            give_back_idle()
            self._measure(mine)
            give_back_idle()
            if self.world > 1:
                # What other shards wrote meanwhile.
                self.records = self._read()
            places, missing, _ = self.records.gather(self._wanted(jobs), retry)
        # Keys are made of content, so a record of an earlier plan (fewer people, say) belongs to
        # this data set too.
        now = {"dataset": self.samples.source.name, "dataset_digest": self.samples.digest}
        records = self.records.frame(places).assign(**now).astype(dict.fromkeys(now, "category"))
        return Outcome(self.options, self.samples, self.cells, records, missing,
                       self.measures.unavailable, self.measures, self.lr, self.left_out,
                       self.computed)

    def again(self, cell: Cell, chunk: list[Sample]) -> tuple[list, list[str]]:
        """Restore samples in one batch, whatever the store holds (fits are read from it): images
        uint8 (S, S, 3) or None, and errors. Nothing is written but a missing fit."""
        return attempt(cell.method, self._batch(cell, chunk), self.options.precision)

    def _read(self) -> Records:
        """Records of what the keys of this plan name in clear."""
        return Records(self.store, method=[cell.method.name for cell in self.cells],
                       scale=self.options.scales, degradation=[self.degradation.id],
                       seed=[self.options.seed])

    def _metric_key(self, metric: Metric, restored: dict, sample: Sample) -> str:
        return self.measures.key(metric, restored, sample)

    def _settled(self, key: str) -> bool:
        return self.records.settled(key, self.options.retry)

    def _wanted(self, jobs: list) -> Iterator[str]:
        for cell, chunk in jobs:
            for sample, key in zip(chunk, self.restored_keys(cell, chunk)):
                yield key
                if not self.records.done(key):
                    continue
                row = self.records.row(key)
                for metric in self.measures.per_sample:
                    yield self._metric_key(metric, row, sample)

    def _note(self, rows: list[dict]) -> None:
        """Write rows as one shard; at the first of a run, also where they come from."""
        runs = self.store.root / "runs" / f"{self.id}.json"
        if not runs.exists():
            arguments = {"profile": self.options.profile.name, "data": self.options.data,
                         "scales": self.options.scales,
                         "methods": self.options.methods, "people": self.options.people,
                         "seed": self.options.seed,
                         "batch": self.options.batch, "precision": self.options.precision,
                         **self.options.fixed.digests(),
                         "degradation": self.degradation.id, "jpeg": libjpeg_version()
                         if self.degradation.libjpeg else None}
            self.store.write(runs, json_text({**describe(arguments), "keys": self.key_parts()})
                             .encode())
        self.store.append("rows", rows)
        self.records.add(rows)

    def key_parts(self) -> dict:
        """What the keys of this run are made of, so that a later one can tell what has changed."""
        return {"methods": {cell.method.name: method_parts(cell.method) for cell in self.cells},
                "metrics": {m.id: metric_parts(m) for m in self.measures.metrics},
                "data": preparation_parts()}

    def _row(self, cell: Cell, sample: Sample, key: str, **values) -> dict:
        blank = {"value": float("nan"), "status": "ok", "image": "", "lr": "", "landmarks": "",
                 "note": ""}
        return {**blank, "key": key, "method": cell.method.name, "weights": cell.method.weights,
                "dataset": self.samples.source.name, "dataset_digest": self.samples.digest,
                "degradation": self.degradation.id, "scale": cell.scale,
                "profile": self.options.profile.name,
                "seed": self.options.seed, "person": sample.person, "sample": sample.id,
                "reference": sample.reference.id, "run": self.id, **values}

    def _restore(self, jobs: list) -> None:
        self._fit(jobs)
        missing = [(cell, chunk, keys) for cell, chunk in jobs
                   if not all(map(self._settled, keys := self.restored_keys(cell, chunk)))]
        with progress(total=sum(len(chunk) for _, chunk, _ in missing), desc="restoring",
                      unit="image") as bar:
            for (cell, chunk, keys), batch in one_ahead(self._batch, missing):
                bar.set_postfix_str(f"{cell.method.name} x{cell.scale}")
                images, errors = attempt(cell.method, batch, self.options.precision)
                check_unchanged(cell.method, self.method_digest(cell.method))
                self._note([self._row(
                    cell, sample, key, metric="restored", note=self._remark(cell, batch, sample),
                    status=f"failed: {error}" if error else "ok", image=image,
                    lr=self.lr.digest(sample, cell.scale),
                    landmarks=found.source if found else "")
                    for sample, key, image, error, found in zip(
                        chunk, keys, kept(self.store, images), errors, batch.landmarks)])
                self.computed["restored"] += len(chunk)
                bar.update(len(chunk))

    def _fit(self, jobs: list) -> None:
        """Make the fits that are missing, as a restoration's key holds the digest of its fit."""
        asked = {(cell.method.name, s.person): (cell.method, s) for cell, chunk in jobs
                 if "fit" in cell.method.needs
                 and not all(map(self._settled, self.restored_keys(cell, chunk)))
                 for s in self._fitted_for(chunk)}
        self.fits.make(list(asked.values()), self.rank / self.world)
        self.computed["fitted"] = self.fits.made

    def _remark(self, cell: Cell, batch: Batch, sample: Sample) -> str:
        """What ran otherwise than on a processor, one sample after the other."""
        fit = self.fits.note(cell.method, sample) if "fit" in cell.method.needs else ""
        return "; ".join(filter(None, (batch.note, fit)))

    def _fitted_for(self, chunk: list[Sample]) -> list[Sample]:
        """Samples whose people's fits a chunk needs."""
        return chunk

    def _batch(self, cell: Cell, chunk: list[Sample]) -> Batch:
        method = cell.method
        lr = to_float(np.stack([self.lr(s, cell.scale) for s in chunk]))
        batch = Batch([s.id for s in chunk], [s.person for s in chunk], lr, cell.scale, [],
                      [s.reference for s in chunk] if "references" in method.needs else [],
                      [s.album for s in chunk] if method.needs & {"fit", "album"} else [],
                      seed=self.options.seed)
        batch.landmarks = self._all_landmarks(method, batch, chunk)
        if "fit" in method.needs:
            self.fits.give(method, batch, chunk)
            self.computed["fitted"] = self.fits.made
        return batch

    def _all_landmarks(self, method: Method, batch: Batch, chunk: list[Sample]) -> list[Landmarks
                                                                                        | None]:
        if "oracle" in method.needs:
            return [Landmarks(s.gt.landmarks.points, TRUTH) for s in chunk]
        if "landmarks" in method.needs:
            return [self._landmarks(image) for image in to_uint8(batch.upsampled)]
        return [None] * len(chunk)

    def _landmarks(self, upsampled: np.ndarray) -> Landmarks:
        from fsrbench.faces.lr import lr_landmarks

        key = image_digest(upsampled)
        if key not in self.landmark_cache:
            self.landmark_cache[key] = lr_landmarks(upsampled, self.options.profile.frame)
        return self.landmark_cache[key]

    def _measure(self, jobs: list) -> None:
        missing = []
        if jobs:
            self.measures.reach()
        for cell, chunk in jobs:
            rows = [self.records.row(key) for key in self.restored_keys(cell, chunk)]
            pairs = [(s, row) for s, row in zip(chunk, rows) if row["status"] == "ok"]
            todo = [m for m in self.measures.per_sample
                    if not all(self._settled(self._metric_key(m, row, s)) for s, row in pairs)]
            if pairs and todo:
                missing.append((cell, pairs, todo))
        self.measures.prefetch([(row["image"], s, row["lr"]) for _, pairs, _ in missing
                                for s, row in pairs])
        with progress(total=sum(len(p) for _, p, _ in missing), desc="measuring",
                      unit="image") as bar:
            for cell, pairs, todo in missing:
                bar.set_postfix_str(f"{cell.method.name} x{cell.scale}")
                restored = [self.store.image(row["image"]) for _, row in pairs]
                rows = []
                for metric in todo:
                    found = self.measures.values(metric, restored, pairs)
                    for (sample, row), value, error in zip(pairs, *found):
                        rows.append(self._row(
                            cell, sample, self._metric_key(metric, row, sample), metric=metric.id,
                            value=value, status=error or "ok", image=row["image"], lr=row["lr"],
                            landmarks=row["landmarks"]))
                self._note(rows)
                give_back_idle()
                self.computed["measured"] += len(rows)
                bar.update(len(pairs))
