"""What a figure is drawn from: runs over the record store, under the protocol or under conditions
of the figure's own.

A condition is another set of samples (`with_samples`): the same ground truth with another
reference, another reference set, another person's fit. Each condition is one `Run`, so its
restorations are batched, have records of their own and are made once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fsrbench.core import FaceImage, Sample
from fsrbench.engine.lr_images import lr_images
from fsrbench.engine.options import narrowed
from fsrbench.engine.plan import Options
from fsrbench.engine.results import put_mean
from fsrbench.engine.run import Outcome, Run
from fsrbench.engine.samples import SampleSet, load_samples, with_samples
from fsrbench.engine.stats import too_few
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.metrics import Metric, family, get_feature
from fsrbench.metrics.identity import cosine_distance

IDS = "ids.cosine@dlib"


@dataclass
class Context:
    """What a figure may use.

    Args:
        options: profile, data, people, seed and batch of all runs; scales, methods and metrics are
            each figure's own.
        store: of the records.
        data: all data sets asked for; the first is that of `options`.
        methods: methods asked for, where a figure lets the user choose; empty for its own.
    """

    options: Options
    store: Store
    data: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    @cached_property
    def samples(self) -> SampleSet:
        """The protocol's samples."""
        return load_samples(self.options.data, self.options.profile, self.store,
                            self.options.people, self.options.seed, self.options.fixed)

    def of(self, data: str) -> Context:
        """The same on another data set."""
        return self if data == self.options.data else replace(self, options=replace(self.options,
                                                                                    data=data))

    def run(self, methods: tuple[str, ...], scales: tuple[int, ...],
            metrics: tuple[str, ...] = (IDS,),
            samples: list[Sample] | None = None, lenient: bool = False) -> Results:
        """Restore and measure whatever of this is not in the store yet.

        Args:
            methods: names, whose tag the profile decides.
            samples: conditions of the figure's own (see `with_samples`); None for the protocol's.
            lenient: leave out methods whose weights are missing.

        Raises:
            FsrError: other shards still work on the records, or something needed is missing.
        """
        profile = self.options.profile
        options = narrowed(self.options, scales, methods, metrics, lenient)
        chosen = self.samples if samples is None else with_samples(self.samples, samples, profile)
        outcome = Run(options, self.store, chosen).execute()
        if outcome.missing:
            raise FsrError("figure", f"{outcome.missing} records are missing",
                           "finish all shards, then run again")
        return Results(outcome)

    def keep(self, name: str, values: np.ndarray, people: list[str]) -> None:
        """Keep a figure's mean over people where the claims find it (see
        `fsrbench.engine.results`)."""
        put_mean(self.store, self.options.profile.name, name, values, people,
                 f"{len(set(people))} people of {self.samples.source.name}, seed "
                 f"{self.options.seed}")

    def lr(self, sample: Sample, scale: int) -> np.ndarray:
        """The low-resolution image of a sample, uint8."""
        return lr_images(self.options.degradation, self.store)(sample, scale)

    def protocol(self, n: int, people: int, scales: tuple[int, ...] = (),
                 trained: bool = True) -> str:
        """The sentences of a caption that say what it is of.

        Args:
            n: images restored or shown; trained: whether networks made what is shown.
        """
        o, source = self.options, self.samples.source
        text = f"Data: {source.name}, {people} people, n = {n} images of {o.profile.size} px"
        if scales:
            text += f", {o.degradation} {self.scales(scales)}"
        text += ("; half of each person's images are for reference and fitting, half are for the "
                 "test" if trained else "")
        text += f"; seed {o.seed}, profile {o.profile.name}."
        text += f" {few}." if trained and (few := too_few(people)) else ""
        if trained and o.profile.name == "mini":
            text += (" Networks: mini where nothing else is said, small and shortly trained for "
                     "this project; they show the method, not the paper's quality.")
        return text

    def footline(self, n: int, people: int, scales: tuple[int, ...] = (),
                 trained: bool = True) -> str:
        """The same in a line, for the figure's foot."""
        o = self.options
        words = [f"profile {o.profile.name}" if trained else "",
                 f"{self.samples.source.name}, {o.profile.size} px",
                 f"{people} people", f"n = {n}", self.scales(scales), f"seed {o.seed}"]
        return " · ".join(word for word in words if word)

    @staticmethod
    def scales(scales: tuple[int, ...]) -> str:
        """"×8, ×16"."""
        return ", ".join(f"×{scale}" for scale in scales)


class Results:
    """An outcome, asked by method, scale and sample."""

    def __init__(self, outcome: Outcome):
        self.outcome, self.samples = outcome, outcome.samples.samples
        self.titles = {cell.method.name: cell.method.title for cell in outcome.cells}
        self.weights = {cell.method.name: cell.method.weights for cell in outcome.cells}
        r = outcome.records
        self._rows = {(m, int(x), s, k): (v, i) for m, x, s, k, v, i in
                      zip(r["method"], r["scale"], r["sample"], r["metric"], r["value"],
                          r["image"])}

    def image(self, method: str, scale: int, sample: str) -> np.ndarray | None:
        """A restoration, uint8; None where it failed."""
        name = self.digest(method, scale, sample)
        return self.outcome.measures.store.image(name) if name else None

    def digest(self, method: str, scale: int, sample: str) -> str:
        """Digest of a restoration; empty where it failed."""
        return self._rows[method, scale, sample, "restored"][1]

    def value(self, method: str, scale: int, sample: str, metric: str = IDS) -> float:
        """A value; NaN where restoration or metric failed."""
        return self._rows.get((method, scale, sample, metric), (float("nan"), ""))[0]

    def values(self, method: str, scale: int, metric: str = IDS) -> np.ndarray:
        """Values in the order of the samples."""
        return np.array([self.value(method, scale, s.id, metric) for s in self.samples])

    def embeddings(self, images: list[tuple[str, Sample]], metric: str = IDS) -> np.ndarray:
        """Embeddings (N, F) of images by digest, each cut by the landmarks of its sample's ground
        truth."""
        chosen: Metric = family(metric)[0]
        return self.outcome.measures.embedded(get_feature(chosen.feature),
                                              [(sample, name) for name, sample in images])

    def distances(self, a: list[tuple[str, Sample]], b: list[tuple[str, Sample]]) -> np.ndarray:
        """IDS of pairs of images, (N,)."""
        return cosine_distance(self.embeddings(a), self.embeddings(b))


def as_sample(face: FaceImage, person: str) -> Sample:
    """An image as a ground truth of its own, so that it can be embedded by its own landmarks."""
    return Sample(face.id, person, face, face, ())


def truth(results: Results, sample: Sample) -> np.ndarray:
    """The ground truth's image, uint8."""
    return next(s.gt.image for s in results.outcome.samples.samples if s.id == sample.id)


def people_of(samples: list[Sample]) -> list[str]:
    """People in drawing order."""
    return list(dict.fromkeys(sample.person for sample in samples))


def first_of_each(samples: list[Sample], people: int) -> list[Sample]:
    """The first test image of each of the first people drawn."""
    return [next(s for s in samples if s.person == person)
            for person in people_of(samples)[:people]]


def at_ranks(samples: list[Sample], values: np.ndarray, shares: tuple[float, ...]) -> list[Sample]:
    """The samples at shares (0 to 1) of the order by value, lowest first; failed ones do not count.
    Ties go by id."""
    order = sorted((i for i in range(len(samples)) if np.isfinite(values[i])),
                   key=lambda i: (values[i], samples[i].id))
    places = [round(share * (len(order) - 1)) for share in shares]
    return [samples[order[place]] for place in dict.fromkeys(places)] if order else []
