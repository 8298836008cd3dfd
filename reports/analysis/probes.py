"""What probes do to restorations: where the identity goes, what it costs, what is copied.

All identities are cosines of a judge's embeddings, cut by the ground truth's landmarks. T(p) is the
mean embedding of the photographs of a person p that are not probed themselves. With q the intruder
of p and R(p) the unaltered restoration of p's image:

- towards = [T(q)·R' - T(q)·R(p)] / [T(q)·R(q) - T(q)·R(p)]: how far the altered restoration R' goes
  from p to q, 1 being as far as the method's own restoration of q; 0 where the change did nothing.
- away = [T(p)·R(p) - T(p)·R'] / [T(p)·R(p) - T(p)·R(q)]: how much of p it loses, 1 being all that
  the restoration of p has over that of q.
- truth = [G·R' - G·R(p)] / [1 - G·R(p)] with G of the ground truth: 1 where R' is the ground truth.
- shows = [T(q)·R(q) - T(q)·R(p)], as a share of the same of the people's references: what of a
  photograph's identity the unaltered restorations have. Where its interval holds zero the method
  shows nobody, and there is nothing that could move.

Each is a ratio of two means over samples; its interval leaves out each person in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fsrbench.core import FaceImage, Profile, Sample
from fsrbench.engine.lr_images import lr_images
from fsrbench.engine.measure import Measures
from fsrbench.engine.probes import BASE, Probe, Setting, Trial, probes
from fsrbench.engine.stats import LEAST, Summary, combined, jackknife_mean, summarise
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError, unknown
from fsrbench.faces.lr import lr_landmarks
from fsrbench.faces.warp import face_mask, warp_face
from fsrbench.imaging import imresize, to_float, to_uint8
from fsrbench.metrics import Gallery, Metric, family, get_feature, metrics
from fsrbench.metrics.panel import impostors, unit
from fsrbench.metrics.recognisers import RECOGNISERS, Recogniser
from fsrbench.weights.catalogue import require

# Who judges unless told: no method here conditions on either or was trained with it, and they are
# independent of each other.
JUDGES = ("dlib", "frfeature")
# Levels within which a pixel of a reference counts as seen again; the noise of rounding to 8 bit,
# so that no PSNR is infinite.
NEAR, ROUNDING = 6, 1 / 12


def judging(names: Sequence[str]) -> tuple[list[Metric], list[str]]:
    """The metrics of judges, whose embeddings are compared, and why one that nobody asked for is
    not here.

    Args:
        names: recognisers or metrics; empty for `JUDGES`.

    Raises:
        FsrError: a name is of no judge, or its weights are missing.
    """
    found, absent = [], []
    for name in dict.fromkeys(names or JUDGES):
        try:
            found.append(_judge(name))
        except FsrError as error:
            if names or not found:
                raise
            absent.append(str(error))
    return found, absent


def _judge(name: str) -> Metric:
    known = metrics()
    if found := known.get(f"ids-truth.truth-truthpoints@{name}"):
        pass
    elif name in known or name in {m.id.split(".")[0] for m in known.values()}:
        found = family(name)[0]
    else:
        raise unknown("judge", name, list(RECOGNISERS))
    if found.kind != "identity":
        raise FsrError(f"--judge {name}", "compares no embeddings of faces",
                       f"give {' or '.join(JUDGES)}, say", code=2)
    for weights in get_feature(found.feature).weight_files:
        require(weights)
    return found


def recogniser(judge: Metric) -> Recogniser:
    """Who a judge is."""
    return next(one for one in RECOGNISERS.values() if one.feature == judge.feature)


def embedder(store: Store, profile: Profile, judge: Metric) -> Callable:
    """The judge: from images by digest, each with the sample by whose ground truth's landmarks it
    is cut, to unit embeddings (N, F), which are kept in the store; NaN for a failed image (an empty
    digest)."""
    measures, feature = Measures(store, (judge,), profile), get_feature(judge.feature)

    def embed(images: Sequence[tuple[str, Sample]]) -> np.ndarray:
        # In place of an image that failed its ground truth, for the number of dimensions.
        found = measures.embedded(feature, [(sample, name or sample.gt.digest)
                                            for name, sample in images]).astype(np.float64)
        return unit(found * [[1.0 if name else np.nan] for name, _ in images])
    return embed


def as_sample(face: FaceImage, person: str) -> Sample:
    """A photograph as a ground truth of its own, to be embedded by its own landmarks."""
    return Sample(face.id, person, face, face, ())


@dataclass(frozen=True)
class People:
    """Who is who by the judge.

    Args:
        names: of the people; targets: T of each, (P, F); truth, reference: embeddings (N, F) of the
            samples' ground truths and references.
    """

    names: list[str]
    targets: np.ndarray
    truth: np.ndarray
    reference: np.ndarray


def people_of(setting: Setting, embed: Callable) -> People:
    """The judge's view of the run's photographs."""
    samples, probed = setting.samples.samples, {s.id for s in setting.samples.samples}
    of: dict[str, list[Sample]] = {s.person: [] for s in samples}
    for s in setting.everyone.samples:
        if s.person in of:
            of[s.person].append(s)
    # A person with no other image is judged by those that are probed.
    others = {name: [s for s in own if s.id not in probed] or own for name, own in of.items()}
    shown = [s for own in others.values() for s in own]
    vectors = dict(zip((s.id for s in shown), embed([(s.gt.digest, s) for s in shown])))
    means = np.stack([np.mean([vectors[s.id] for s in own], 0) for own in others.values()])
    photographs = [as_sample(s.reference, s.person) for s in samples]
    return People(list(of), unit(means),
                  embed([(s.gt.digest, s) for s in samples]),
                  embed([(s.gt.digest, s) for s in photographs]))


def ratio(above: np.ndarray, below: np.ndarray, people: Sequence[str]) -> Summary:
    """Mean of `above` (N,) as a share of the mean of `below`, with its interval over people; NaN
    where `below` is not told from zero."""
    ok = np.isfinite(above) & np.isfinite(below)
    n, failed = int(ok.sum()), int((~ok).sum())
    nothing = Summary(np.nan, np.nan, np.nan, n, failed)
    if not n:
        return nothing
    who = [p for p, kept in zip(people, ok) if kept]
    parts = [jackknife_mean(values[ok], who) for values in (above, below)]
    least = parts[1].interval()[0] if len(set(who)) >= LEAST else parts[1].whole
    if not least > 1e-9:
        return nothing
    found = combined(lambda a, b: a / b, parts)
    low, high = map(float, found.interval())
    return Summary(float(found.whole), low, high, n, failed)


def psnr(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """PSNR in dB over the pixels of a mask, of uint8 images; NaN of no pixels."""
    if not mask.any():
        return float("nan")
    error = np.square(image[mask].astype(np.float64) - truth[mask]).mean()
    return float(10 * np.log10(255**2 / (error + ROUNDING)))


def share_seen(image: np.ndarray, references: Sequence[FaceImage], points: Sequence[np.ndarray],
               mask: np.ndarray) -> float:
    """Share of the face's pixels that are those of a reference, within `NEAR` levels: as it is, or
    warped onto one of the landmarks in `points`; the most of all."""
    best = 0.0
    for reference in references:
        pasted = [(reference.image.astype(np.float64), mask)]
        source = to_float(reference.image[None])[0]
        for to in points:
            face, inside = warp_face(source, reference.landmarks.points, to, len(mask))
            pasted.append((face.transpose(1, 2, 0) * 255.0, inside & mask))
        for shown, where in pasted:
            if where.any():
                near = np.abs(image[where] - shown[where]).max(-1) <= NEAR
                best = max(best, float(near.sum() / mask.sum()))
    return best


@dataclass(frozen=True)
class Effect:
    """What a probe did to a method.

    Args:
        moved: of the identity, see the module's text; `Probe.kind` says which.
        inside, outside: change of PSNR in dB inside and outside the face's mask.
        changed: mean absolute change of the face in grey levels.
        copied: share of the reference's face that appears with it and does not without it; NaN
            where the probe changes no reference.
        like_truth: cosine of the altered restoration to the ground truth.
        failed: restorations that failed.
    """

    moved: Summary
    inside: Summary
    outside: Summary
    changed: Summary
    copied: Summary
    like_truth: float
    failed: int


@dataclass(frozen=True)
class Base:
    """What an unaltered method does.

    Args:
        shows: of a photograph's identity, see the module's text.
        mixed: share of samples that are of another person of the run, by half of what a
            photograph's identity is.
        n_ok, failed: restorations that are there, and that failed.
    """

    shows: Summary
    mixed: float
    n_ok: int
    failed: int


class Evidence:
    """Values of all trials.

    Args:
        setting: what the probes were made from; trials: by probe and method.
        store: of images and embeddings; judge: whose embeddings are compared.
    """

    def __init__(self, setting: Setting, store: Store, trials: Mapping[str, Mapping[str, Trial]],
                 judge: Metric):
        self.setting, self.store, self.trials = setting, store, trials
        self.judge = recogniser(judge)
        self.samples = setting.samples.samples
        self.persons = [s.person for s in self.samples]
        self.embed = embedder(store, setting.options.profile, judge)
        # All at once, as many images are spread over the cores.
        self.embed([(image, s) for of in trials.values() for trial in of.values()
                    for image, s in zip(trial.images, trial.samples) if image]
                   + [(s.gt.digest, s) for s in setting.everyone.samples])
        self.people = people_of(setting, self.embed)
        place = {s.id: i for i, s in enumerate(self.samples)}
        self.intruder = np.array([place[setting.intruders[s.id].id] for s in self.samples])
        self._found: dict[tuple[str, str], np.ndarray] = {}
        self.own = np.array([self.people.names.index(p) for p in self.persons])

    def cosines(self, trial: Trial) -> np.ndarray:
        """Cosine of each restoration to each person, (N, P)."""
        return self.embed(list(zip(trial.images, trial.samples))) @ self.people.targets.T

    def _of(self, cosines: np.ndarray, person: np.ndarray) -> np.ndarray:
        return cosines[np.arange(len(cosines)), person]

    @cached_property
    def photograph(self) -> np.ndarray:
        """How much nearer to a person the own reference is than the intruder's, (N,)."""
        c, q = self.people.reference @ self.people.targets.T, self.own[self.intruder]
        return self._of(c[self.intruder], q) - self._of(c, q)

    def base(self, method: str) -> Base:
        """What a method does unaltered."""
        trial = self.trials[BASE][method]
        c, q = self.cosines(trial), self.own[self.intruder]
        ok = np.isfinite(c).all(1)
        # Less each person's mean, as to a judge all blurred faces are like the same few people.
        rest = c - np.nanmean(c, 0) if ok.any() else c
        others = np.where(np.arange(c.shape[1]) == self.own[:, None], -np.inf, rest).max(1)
        taken = (others - self._of(rest, self.own))[ok] > self.photograph.mean() / 2
        return Base(ratio(self._of(c[self.intruder], q) - self._of(c, q), self.photograph,
                          self.persons), float(taken.mean()) if ok.any() else np.nan,
                    int(ok.sum()), int((~ok).sum()))

    def moved(self, probe: Probe, method: str) -> Summary:
        """The movement that the probe is about."""
        before, after = (self.trials[name][method] for name in (BASE, probe.name))
        b, a = self.cosines(before), self.cosines(after)
        if probe.kind == "truth":
            near, far = self._like_truth(after), self._like_truth(before)
            return ratio(near - far, 1 - far, self.persons)
        if probe.kind == "towards":
            q = self.own[self.intruder]
            return ratio(self._of(a, q) - self._of(b, q),
                         self._of(b[self.intruder], q) - self._of(b, q), self.persons)
        own = self._of(b, self.own)
        return ratio(own - self._of(a, self.own), own - self._of(b[self.intruder], self.own),
                     self.persons)

    def _mean_like_truth(self, trial: Trial) -> float:
        return float(np.nanmean(self._like_truth(trial))) if any(trial.images) else float("nan")

    def _like_truth(self, trial: Trial) -> np.ndarray:
        """Cosine of each restoration to the ground truth that stands under no probe, (N,)."""
        return (self.embed(list(zip(trial.images, trial.samples))) * self.people.truth).sum(1)

    def effect(self, probe: Probe, method: str) -> Effect:
        """What a probe did to a method."""
        before, after = (self.trials[name][method] for name in (BASE, probe.name))
        rows = np.array([self._pixels(before, after, i) for i in range(len(self.samples))])
        inside, outside, changed, copied = (summarise(column, self.persons) for column in rows.T)
        return Effect(self.moved(probe, method), inside, outside, changed, copied,
                      self._mean_like_truth(after), after.images.count(""))

    def seen(self, method: str, effects: Mapping[str, Effect]) -> dict[str, Effect]:
        """Effects that another judge measured, with the identities that this one sees."""
        return {name: replace(effect, moved=self.moved(probes()[name], method),
                              like_truth=self._mean_like_truth(self.trials[name][method]))
                for name, effect in effects.items()}

    def strangers(self) -> np.ndarray:
        """Cosines of all pairs of photographs of different people of the run."""
        shown = self.setting.everyone.samples
        people = np.unique([s.person for s in shown], return_inverse=True)[1]
        return impostors(Gallery(self.embed([(s.gt.digest, s) for s in shown]), people, people))

    def _pixels(self, before: Trial, after: Trial, i: int) -> tuple[float, float, float, float]:
        """Change of PSNR inside and outside the face, of its grey levels, and the share copied."""
        if not (before.images[i] and after.images[i]):
            return (float("nan"),) * 4
        old, new = (self.store.image(t.images[i]) for t in (before, after))
        size, sees = len(new), after.samples[i]
        masks = [face_mask(t.samples[i].gt.landmarks.points, size) for t in (before, after)]
        change = [psnr(new, sees.gt.image, m1) - psnr(old, before.samples[i].gt.image, m0)
                  for m0, m1 in (masks, [~m for m in masks])]
        levels = float(np.abs(new.astype(float) - old)[masks[0]].mean())
        if not after.method.needs & {"references", "album"} \
                or sees.reference.digest == before.samples[i].reference.digest:
            return (*change, levels, float("nan"))
        references = [sees.reference, *(sees.album if "album" in after.method.needs else ())]
        to = [sees.gt.landmarks.points, self.found(sees)]
        chance, seen = (share_seen(image, references, to, masks[1]) for image in (old, new))
        return (*change, levels, (seen - chance) / (1 - chance) if chance < 1 else 0.0)

    def found(self, sample: Sample) -> np.ndarray:
        """Landmarks (68, 2) of the face in I_L, as methods get them."""
        if (place := (sample.id, sample.gt.digest)) not in self._found:
            scale, size = self.setting.options.scales[0], self.setting.options.profile.size
            lr = lr_images(self.setting.options.degradation, self.store)(sample, scale)
            large = np.clip(imresize(to_float(lr[None]), size, size), 0, 1).astype(np.float32)
            frame = self.setting.options.profile.frame
            self._found[place] = lr_landmarks(to_uint8(large)[0], frame).points
        return self._found[place]

    @cached_property
    def like_photograph(self) -> float:
        """Mean cosine of the people's references to the ground truths."""
        return float((self.people.reference * self.people.truth).sum(1).mean())

    def effects(self, method: str) -> dict[str, Effect]:
        """What each probe that a method got did to it."""
        return {name: self.effect(probe, method) for name, probe in probes().items()
                if method in self.trials.get(name, {})}
