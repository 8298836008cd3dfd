"""The engine: plan, what is missing, chunks, records.

A cell is one method at one scale on one data set. Its samples are cut into fixed chunks; a chunk is restored, then
measured, and each step is written as one shard, so a crash costs one chunk and shards of a cluster merge by reading.
The key of a record is a digest of everything that decides its value.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from fsrbench import registry
from fsrbench.core import PROFILES, Batch, Method, Person, Picture, Profile, Sample
from fsrbench.degrade.jpeg import libjpeg_version
from fsrbench.degrade.named import Degradation, check_scale, get_degradation
from fsrbench.engine.measure import Measures
from fsrbench.engine.provenance import describe, source_digest
from fsrbench.engine.samples import SampleSet, check_leaks, load_samples
from fsrbench.engine.store import Store, write_atomic
from fsrbench.errors import FsrError, unknown
from fsrbench.faces.geometry import Landmarks
from fsrbench.imaging import image_digest, to_float, to_uint8
from fsrbench.metrics import Metric
from fsrbench.weights.catalogue import file_digest, require

PRECISIONS = ("float32", "bf16", "fp16")
# What a record's landmarks are called where a method was given those of the ground truth.
TRUTH = "ground truth"


@dataclass(frozen=True)
class Options:
    """What a run is asked for.

    Args:
        profile: "mini" or "paper"; data: `--data`; scales; methods: names; metrics: ids.
        people: how many, None for all drawn; seed; batch: samples in a chunk.
        precision: of networks during restoration, one of PRECISIONS.
        lenient: leave out methods whose weights are missing, instead of refusing to run.
    """

    profile: Profile
    data: str
    scales: tuple[int, ...]
    methods: tuple[str, ...]
    metrics: tuple[Metric, ...]
    people: int | None
    seed: int
    batch: int
    degradation: str = "bicubic"
    precision: str = "float32"
    lenient: bool = False


@dataclass(frozen=True)
class Cell:
    """One method at one scale."""

    method: Method
    scale: int


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


def digest_of(*words: object) -> str:
    """Key of a record: sha256 over words."""
    return hashlib.sha256("\x1f".join(str(word) for word in words).encode()).hexdigest()


def shard_of_environment() -> tuple[int, int]:
    """(rank, world) from RANK/WORLD_SIZE or SLURM_ARRAY_TASK_ID/COUNT; (0, 1) outside both.

    Raises:
        FsrError: only half of a pair is set, or the rank is not below the world.
    """
    for rank_name, world_name in (("RANK", "WORLD_SIZE"), ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")):
        rank, world = os.environ.get(rank_name), os.environ.get(world_name)
        if rank is None and world is None:
            continue
        first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", 0)) if rank_name.startswith("SLURM") else 0
        try:
            rank, world = int(rank or "") - first, int(world or "")
        except ValueError:
            raise FsrError("shard", f"{rank_name}={rank!r}, {world_name}={world!r} are not two numbers",
                           "set both or neither", code=2) from None
        if not 0 <= rank < world:
            raise FsrError("shard", f"{rank_name}={rank} is not below {world_name}={world}", "", code=2)
        return rank, world
    return 0, 1


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
        self.samples = samples or load_samples(options.data, options.profile, store, options.people, options.seed)
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

        if any(_detects(cell.method) for cell in self.cells):
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
        seen = [f"{s.id}|{self.lr(s, cell.scale)[1]}|{self._references(cell.method, s)}" for s in chunk]
        return digest_of("restored", self.method_digest(cell.method), self.options.profile, self.degradation.id,
                         self.options.precision, cell.scale, self.options.seed, sample.id, digest_of(*seen))

    @staticmethod
    def _references(method: Method, sample: Sample) -> str:
        """What else of a sample the method sees."""
        seen = [sample.reference.seen] if "references" in method.needs else []
        if method.needs & {"fit", "album"}:
            seen = [sample.reference.seen, *(p.seen for p in sample.album)]
        return "|".join([*seen, *[sample.gt.seen] * ("oracle" in method.needs)])

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
        with _autocast(self.options.precision):
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
                         "batch": self.options.batch, "precision": self.options.precision,
                         "degradation": self.degradation.id, "jpeg": libjpeg_version() if self.degradation.libjpeg else None}
            write_atomic(runs, (json.dumps(describe(arguments), indent=1) + "\n").encode())
        self.store.append("rows", rows)
        self.records.update({row["key"]: row for row in rows})

    def _row(self, cell: Cell, sample: Sample, key: str, **values) -> dict:
        blank = {"value": float("nan"), "status": "ok", "image": "", "lr": "", "landmarks": "", "note": ""}
        return {**blank, "key": key, "method": cell.method.name, "weights": cell.method.weights,
                "dataset": self.samples.source.name, "dataset_digest": self.samples.digest,
                "degradation": self.degradation.id, "scale": cell.scale, "profile": self.options.profile.name,
                "seed": self.options.seed, "person": sample.person, "sample": sample.id,
                "reference": sample.reference.id, "run": self.id, **values}

    def _restore(self, jobs: list) -> None:
        from tqdm import tqdm

        missing = [(cell, chunk, keys) for cell, chunk in jobs
                   if not all(map(self._done, keys := [self.restored_key(cell, chunk, s) for s in chunk]))]
        with tqdm(total=sum(len(chunk) for _, chunk, _ in missing), desc="restoring", unit="image", disable=None) as bar:
            for cell, chunk, keys in missing:
                bar.set_postfix_str(f"{cell.method.name} x{cell.scale}")
                batch = self._batch(cell, chunk)
                with _autocast(self.options.precision):
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
        from tqdm import tqdm

        missing = []
        for cell, chunk in jobs:
            pairs = [(s, self.records[self.restored_key(cell, chunk, s)]) for s in chunk]
            pairs = [(s, row) for s, row in pairs if row["status"] == "ok"]
            todo = [m for m in self.measures.per_sample
                    if not all(self._done(self._metric_key(m, row, s)) for s, row in pairs)]
            if pairs and todo:
                missing.append((cell, pairs, todo))
        self.measures.prefetch([(row["image"], s) for _, pairs, _ in missing for s, row in pairs])
        with tqdm(total=sum(len(p) for _, p, _ in missing), desc="measuring", unit="image", disable=None) as bar:
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


def instance(cls: type[Method], profile: Profile) -> Method:
    """A method under a profile.

    Raises:
        FsrError: it cannot run under that.
    """
    if profile.name not in cls.profiles:
        raise FsrError(f"method {cls.name}", f"has no {profile.name} profile", f"it has: {', '.join(cls.profiles)}", code=2)
    return cls(profile)


def method_digest(method: Method) -> str:
    """Digest of a method: name, settings, source, weights; and those of the detectors whose landmarks it is given."""
    weights = [f"{name}={file_digest(require(name))}" for name in method.weight_files]
    if _detects(method):
        from fsrbench.faces.lr import identity

        weights += [source_digest("fsrbench.faces.lr"), identity()]
    return digest_of(method.name, method.settings(), source_digest(type(method).__module__), *weights)


def check_unchanged(method: Method, digest: str) -> None:
    """Refuse to keep what a method made under a digest that is not its own any more.

    Raises:
        FsrError: its weights have been written anew.
    """
    if method_digest(method) != digest:
        raise FsrError(f"method {method.name}", "its weights were written anew while it ran",
                       "start again; what was computed before stays")


def fitted(store: Store, method: Method, person: Person, seed: int, digest: str) -> tuple[dict, bool]:
    """A person's fit out of the store, or computed and kept there; and whether it was computed.

    Args:
        digest: of the method.

    Raises:
        FsrError: its weights were written anew while it fitted.
    """
    key = digest_of("fit", digest, method.profile, seed, person.name, *[p.seen for p in person.album])
    tensors = store.tensors("fits", key)
    if tensors is not None:
        return tensors, False
    tensors = dict(method.fit(person, seed))
    check_unchanged(method, digest)
    store.put_tensors("fits", key, tensors)
    return tensors, True


def _detects(method: Method) -> bool:
    """Whether a method is given landmarks that were detected on I_L."""
    return "landmarks" in method.needs and "oracle" not in method.needs


def _autocast(precision: str):
    """Context in which networks run in half precision where that is asked for."""
    import contextlib

    import torch

    from fsrbench.weights.networks import device

    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device(), {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


def attempt(method: Method, batch: Batch) -> tuple[list, list[str]]:
    """Restore a batch; if it fails as a whole, each sample alone. Returns uint8 images or None, and errors."""
    try:
        return _checked(method.restore(batch), batch)
    except FsrError:
        raise
    except Exception as error:  # a method's fault must not cost the others' results
        if len(batch) == 1:
            return [None], [f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"]
        print(f"note: {method.name} failed on a batch ({type(error).__name__}: {error}); trying one by one",
              file=sys.stderr)
    images, errors = [], []
    for i in range(len(batch)):
        image, error = attempt(method, _one(batch, i))
        images += image
        errors += error
    return images, errors


def _one(batch: Batch, i: int) -> Batch:
    def pick(values):
        return values[i:i + 1]
    return Batch(pick(batch.ids), pick(batch.people), pick(batch.lr), batch.scale, pick(batch.landmarks),
                 pick(batch.references), pick(batch.albums), batch.fits, batch.seed)


def _checked(images, batch: Batch) -> tuple[list, list[str]]:
    """uint8 pictures of what a method returned; a value that is not finite, or the method's own word, makes a sample fail."""
    images = np.asarray(images, dtype=np.float32)
    wanted = (len(batch), 3, batch.size, batch.size)
    if images.shape != wanted:
        raise ValueError(f"returned shape {images.shape}, not {wanted}")
    finite = np.isfinite(images).all((1, 2, 3))
    pictures = to_uint8(np.nan_to_num(images))
    errors = [batch.failures.get(i, "" if ok else "not finite") for i, ok in enumerate(finite)]
    return [None if error else picture for picture, error in zip(pictures, errors)], errors


def get_profile(name: str) -> Profile:
    """The profile of that name."""
    if name not in PROFILES:
        raise unknown("profile", name, list(PROFILES))
    return PROFILES[name]


def find_picture(samples: SampleSet, sample_id: str) -> Picture:
    """Ground truth of a sample by id."""
    return next(s.gt for s in samples.samples if s.id == sample_id)
