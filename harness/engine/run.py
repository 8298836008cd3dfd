"""The engine: plan, what is missing, chunks, records.

A cell is one method at one scale on one data set. Its samples are cut into fixed chunks; a chunk is restored, then
measured, and each step is written as one shard, so a crash costs one chunk and shards of a cluster merge by reading.
The key of a record is a digest of everything that decides its value.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from fsrbench import registry
from fsrbench.core import Batch, Method, Person, Picture, Sample
from fsrbench.degrade.jpeg import libjpeg_version
from fsrbench.degrade.named import Degradation, check_scale, get_degradation
from fsrbench.engine.keys import detects, digest_of, method_digest, method_parts, metric_parts, preparation_parts, shape_of
from fsrbench.engine.measure import Measures
from fsrbench.engine.plan import TRUTH, Cell, Options, shard_of_environment
from fsrbench.engine.provenance import describe
from fsrbench.engine.restoring import attempt, autocast, check_unchanged, fit_key, fitted, instance
from fsrbench.engine.samples import SampleSet, check_leaks, load_samples
from fsrbench.engine.store import Store, write_atomic
from fsrbench.errors import FsrError
from fsrbench.faces.geometry import Landmarks
from fsrbench.imaging import image_digest, to_float, to_uint8
from fsrbench.metrics import Metric
from fsrbench.progress import progress
from fsrbench.weights.catalogue import file_digest, require


@dataclass
class Outcome:
    """What a run leaves behind for tables.

    Args:
        records: the rows of this plan, as a frame; missing: how many are still to be computed (by other shards).
        unavailable: metric id -> why it cannot run here; left_out: method -> why it has no row.
    """

    options: Options
    samples: SampleSet
    cells: list[Cell]
    records: object
    missing: int
    unavailable: dict[str, str]
    measures: Measures
    left_out: dict[str, str] = field(default_factory=dict)
    computed: dict[str, int] = field(default_factory=dict)


class Run:
    """One invocation over a plan.

    Args:
        options: the plan.
        store: where records are.
        samples: what is restored; None for what the protocol makes of the options.
    """

    def __init__(self, options: Options, store: Store, samples: SampleSet | None = None):
        self.options, self.store = options, store
        self.degradation: Degradation = get_degradation(options.degradation)
        for scale in options.scales:
            check_scale(scale, options.profile.size)
        self.left_out: dict[str, str] = {}
        self.cells = [Cell(m, scale) for scale in options.scales for m in self._methods()]
        self.samples = samples or load_samples(options.data, options.profile, store, options.people, options.seed,
                                               options.fixed)
        for cell in self.cells:
            for weights in cell.method.weight_files:
                check_leaks(self.samples, weights)
        self._check_detectors()
        self.measures = Measures(store, options.metrics, options.profile)
        self.id = uuid.uuid4().hex
        self.rank, self.world = shard_of_environment()
        self.lr_cache: dict[tuple[str, int], tuple[np.ndarray, str]] = {}
        self.landmark_cache: dict[str, Landmarks] = {}
        self.method_digests: dict[str, str] = {}
        self.fit_digests: dict[tuple[str, str], str] = {}
        self.records: dict[str, dict] = {}
        self.computed = {"restored": 0, "measured": 0, "fitted": 0}

    def _methods(self) -> list[Method]:
        """The methods, each with what it needs; whatever is missing is said before anything runs."""
        built, typed = [], {}
        for name in self.options.methods:
            cls = registry.get(name)
            # A made method has many spellings, and two of one maker may claim one name.
            first = typed.setdefault(cls.name, name)
            if registry.get(first) is not cls:
                raise FsrError(f"method {name}", f"would share the name {cls.name} with {first}", "rename one of them", code=2)
            if first != name:
                continue
            method = instance(cls, self.options.profile)
            try:
                for weights in method.weight_files:
                    require(weights)
            except FsrError as error:
                if not self.options.lenient:
                    raise
                self.left_out[name] = str(error)
                continue
            built.append(method)
        if not built:
            raise FsrError("methods", "none of the default ones has its weights here", "see `invoke methods`")
        return built

    def _check_detectors(self) -> None:
        """Refuse samples that a detector of landmarks was trained on, where a method is given what it finds."""
        from fsrbench.faces.lr import present

        if any(detects(cell.method) for cell in self.cells):
            for detector in present():
                check_leaks(self.samples, detector.weights)

    # --- plan -----------------------------------------------------------------------------------------------------

    def chunks(self) -> list[list[Sample]]:
        """The samples in fixed chunks."""
        samples, size = self.samples.samples, self.options.batch
        return [samples[i:i + size] for i in range(0, len(samples), size)]

    def lr(self, sample: Sample, scale: int) -> tuple[np.ndarray, str]:
        """LR picture of a sample and its digest."""
        self._degrade([sample], scale)
        return self.lr_cache[sample.id, scale]

    def _degrade(self, samples: list[Sample], scale: int) -> None:
        """Make the LR pictures that are not there yet."""
        missing = [s for s in samples if (s.id, scale) not in self.lr_cache]
        if missing:
            made = self.degradation.apply_batch([s.gt.image for s in missing], scale, [s.id for s in missing])
            self.lr_cache |= {(s.id, scale): (image, image_digest(image)) for s, image in zip(missing, made)}

    def method_digest(self, method: Method) -> str:
        """`method_digest`, computed once."""
        if method.name not in self.method_digests:
            self.method_digests[method.name] = method_digest(method)
        return self.method_digests[method.name]

    def restored_key(self, cell: Cell, chunk: list[Sample], sample: Sample) -> str:
        """Key of a restoration. The ids of its chunk are part of it: kernels may depend on what shares a batch."""
        self._degrade(chunk, cell.scale)
        seen = [f"{s.id}|{self.lr(s, cell.scale)[1]}|{self._references(cell.method, s)}|{self._fit_digest(cell.method, s)}"
                for s in chunk]
        return digest_of("restored", self.method_digest(cell.method), shape_of(self.options.profile), self.degradation.id,
                         self.options.precision, cell.scale, self.options.seed, sample.id, digest_of(*seen))

    @staticmethod
    def _references(method: Method, sample: Sample) -> str:
        """What else of a sample the method sees."""
        seen = [sample.reference.seen] if "references" in method.needs else []
        if method.needs & {"fit", "album"}:
            seen = [sample.reference.seen, *(p.seen for p in sample.album)]
        return "|".join([*seen, *[sample.gt.seen] * ("oracle" in method.needs)])

    def _fit_digest(self, method: Method, sample: Sample) -> str:
        """Digest of the fit that a sample is restored with; empty for methods without, and where it is still to be made.

        A fit made anew on another machine may differ, so its content is in the key, not only what it was made of.
        """
        if "fit" not in method.needs:
            return ""
        place = method.name, sample.person
        if place not in self.fit_digests:
            key = fit_key(method, Person(sample.person, sample.album), self.options.seed, self.method_digest(method))
            path = self.store.tensors_path("fits", key)
            if not path.exists():
                return ""
            self.fit_digests[place] = file_digest(path)
        return self.fit_digests[place]

    # --- work -----------------------------------------------------------------------------------------------------

    def execute(self, compute: bool = True) -> Outcome:
        """Compute what is missing of this shard, and gather the records of the whole plan; only gather if not `compute`.

        Raises:
            FsrError: weights were written anew meanwhile, so that a record's key would be of other ones.
        """
        self.records = self._read()
        chunks = self.chunks()
        jobs = [(cell, chunk) for cell in self.cells for chunk in chunks]
        mine = [job for i, job in enumerate(jobs) if compute and i % self.world == self.rank]
        self._restore(mine)
        self._measure(mine)
        wanted = list(self._wanted(jobs))
        if self.world > 1:
            # What other shards wrote meanwhile.
            self.records = self._read()
        # Keys are made of content, so a record of an earlier plan (fewer people, say) belongs to this data set too.
        now = {"dataset": self.samples.source.name, "dataset_digest": self.samples.digest}
        rows = [{**self.records[key], **now} for key in wanted if key in self.records]
        import pandas as pd

        return Outcome(self.options, self.samples, self.cells, pd.DataFrame(rows), len(wanted) - len(rows),
                       self.measures.unavailable, self.measures, self.left_out, self.computed)

    def again(self, cell: Cell, sample: Sample) -> tuple[np.ndarray | None, str]:
        """Restore one sample alone, whatever the store holds (a fit is read from it): uint8 (S, S, 3) or None, and the error.
        Nothing is written but a missing fit."""
        with autocast(self.options.precision):
            images, errors = attempt(cell.method, self._batch(cell, [sample]))
        return images[0], errors[0]

    def _read(self) -> dict[str, dict]:
        """Records by key; where a failure was tried again, the success counts."""
        rows = self.store.read("rows").to_dict("records")
        return {row["key"]: row for row in sorted(rows, key=lambda row: row["status"] == "ok")}

    def _metric_key(self, metric: Metric, restored: dict, sample: Sample) -> str:
        return self.measures.key(metric, restored["key"], restored["image"], sample)

    def _done(self, key: str) -> bool:
        return self.records.get(key, {}).get("status") == "ok"

    def _settled(self, key: str) -> bool:
        """Whether a record needs no work: a failure is a result, unless it is to be tried again."""
        return self._done(key) if self.options.retry else key in self.records

    def _wanted(self, jobs: list) -> Iterator[str]:
        for cell, chunk in jobs:
            for sample in chunk:
                key = self.restored_key(cell, chunk, sample)
                yield key
                if not self._done(key):
                    continue
                for metric in self.measures.per_sample:
                    yield self._metric_key(metric, self.records[key], sample)

    def _note(self, rows: list[dict]) -> None:
        """Write rows as one shard; at the first of a run, also where they come from."""
        runs = self.store.root / "runs" / f"{self.id}.json"
        if not runs.exists():
            arguments = {"profile": self.options.profile.name, "data": self.options.data, "scales": self.options.scales,
                         "methods": self.options.methods, "people": self.options.people, "seed": self.options.seed,
                         "batch": self.options.batch, "precision": self.options.precision, **self.options.fixed.digests(),
                         "degradation": self.degradation.id, "jpeg": libjpeg_version() if self.degradation.libjpeg else None}
            write_atomic(runs, (json.dumps({**describe(arguments), "keys": self.key_parts()}, indent=1) + "\n").encode())
        self.store.append("rows", rows)
        self.records.update({row["key"]: row for row in rows})

    def key_parts(self) -> dict:
        """What the keys of this run are made of, so that a later one can tell what has changed."""
        return {"methods": {cell.method.name: method_parts(cell.method) for cell in self.cells},
                "metrics": {m.id: metric_parts(m) for m in self.measures.metrics}, "data": preparation_parts()}

    def _row(self, cell: Cell, sample: Sample, key: str, **values) -> dict:
        blank = {"value": float("nan"), "status": "ok", "image": "", "lr": "", "landmarks": "", "note": ""}
        return {**blank, "key": key, "method": cell.method.name, "weights": cell.method.weights,
                "dataset": self.samples.source.name, "dataset_digest": self.samples.digest,
                "degradation": self.degradation.id, "scale": cell.scale, "profile": self.options.profile.name,
                "seed": self.options.seed, "person": sample.person, "sample": sample.id,
                "reference": sample.reference.id, "run": self.id, **values}

    def _restore(self, jobs: list) -> None:
        self._fit(jobs)
        missing = [(cell, chunk, keys) for cell, chunk in jobs
                   if not all(map(self._settled, keys := [self.restored_key(cell, chunk, s) for s in chunk]))]
        with progress(total=sum(len(chunk) for _, chunk, _ in missing), desc="restoring", unit="image") as bar:
            for cell, chunk, keys in missing:
                bar.set_postfix_str(f"{cell.method.name} x{cell.scale}")
                batch = self._batch(cell, chunk)
                with autocast(self.options.precision):
                    images, errors = attempt(cell.method, batch)
                check_unchanged(cell.method, self.method_digest(cell.method))
                rows = []
                for sample, key, image, error, found in zip(chunk, keys, images, errors, batch.landmarks):
                    rows.append(self._row(
                        cell, sample, key, metric="restored", status="ok" if image is not None else f"failed: {error}",
                        image=self.store.put_image(image) if image is not None else "",
                        lr=self.lr(sample, cell.scale)[1], landmarks=found.source if found else ""))
                self._note(rows)
                self.computed["restored"] += len(chunk)
                bar.update(len(chunk))

    def _fit(self, jobs: list) -> None:
        """Make the fits that are missing, as a restoration's key holds the digest of its fit."""
        asked = {(cell.method.name, s.person): (cell.method, s) for cell, chunk in jobs if "fit" in cell.method.needs
                 for s in chunk}
        missing = [(method, s) for method, s in asked.values() if not self._fit_digest(method, s)]
        for method, s in progress(missing, desc="fitting", unit="person", quiet=not missing):
            self.fit(method, Person(s.person, s.album))

    def _batch(self, cell: Cell, chunk: list[Sample]) -> Batch:
        method = cell.method
        lr = to_float(np.stack([self.lr(s, cell.scale)[0] for s in chunk]))
        batch = Batch([s.id for s in chunk], [s.person for s in chunk], lr, cell.scale, [],
                      [s.reference for s in chunk] if "references" in method.needs else [],
                      [s.album for s in chunk] if method.needs & {"fit", "album"} else [], seed=self.options.seed)
        batch.landmarks = self._all_landmarks(method, batch, chunk)
        if "fit" in method.needs:
            batch.fits = {s.person: self.fit(method, Person(s.person, s.album)) for s in chunk}
        return batch

    def _all_landmarks(self, method: Method, batch: Batch, chunk: list[Sample]) -> list[Landmarks | None]:
        if "oracle" in method.needs:
            return [Landmarks(s.gt.landmarks.points, TRUTH) for s in chunk]
        if "landmarks" in method.needs:
            return [self._landmarks(picture) for picture in to_uint8(batch.upsampled)]
        return [None] * len(chunk)

    def _landmarks(self, upsampled: np.ndarray) -> Landmarks:
        from fsrbench.faces.lr import lr_landmarks

        key = image_digest(upsampled)
        if key not in self.landmark_cache:
            self.landmark_cache[key] = lr_landmarks(upsampled, self.options.profile.frame)
        return self.landmark_cache[key]

    def fit(self, method: Method, person: Person) -> dict:
        """A person's fit, computed once per method and kept."""
        tensors, new = fitted(self.store, method, person, self.options.seed, self.method_digest(method))
        self.computed["fitted"] += new
        return tensors

    def _measure(self, jobs: list) -> None:
        missing = []
        for cell, chunk in jobs:
            pairs = [(s, self.records[self.restored_key(cell, chunk, s)]) for s in chunk]
            pairs = [(s, row) for s, row in pairs if row["status"] == "ok"]
            todo = [m for m in self.measures.per_sample
                    if not all(self._settled(self._metric_key(m, row, s)) for s, row in pairs)]
            if pairs and todo:
                missing.append((cell, pairs, todo))
        self.measures.prefetch([(row["image"], s) for _, pairs, _ in missing for s, row in pairs])
        with progress(total=sum(len(p) for _, p, _ in missing), desc="measuring", unit="image") as bar:
            for cell, pairs, todo in missing:
                bar.set_postfix_str(f"{cell.method.name} x{cell.scale}")
                restored = [self.store.image(row["image"]) for _, row in pairs]
                rows = []
                for metric in todo:
                    for (sample, row), value, error in zip(pairs, *self.measures.values(metric, restored, pairs)):
                        rows.append(self._row(
                            cell, sample, self._metric_key(metric, row, sample), metric=metric.id,
                            value=value, status=error or "ok", image=row["image"], lr=row["lr"],
                            landmarks=row["landmarks"]))
                self._note(rows)
                self.computed["measured"] += len(rows)
                bar.update(len(pairs))


def find_picture(samples: SampleSet, sample_id: str) -> Picture:
    """Ground truth of a sample by id."""
    return next(s.gt for s in samples.samples if s.id == sample_id)
