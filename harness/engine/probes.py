"""Probes: what a method sees is changed in one thing, and the rest is kept.

A probe changes the samples (another's reference, a morphed face), the batch (landmarks, seed) or
what the method itself makes of one (its z_id). Every method gets those that apply to what it says
it needs; it writes nothing for them. Restorations under a probe are records as any others: they
are made once, and a run that was killed goes on.

The intruder of a person is the person drawn next, of the last the first; that of a sample is the
intruder's sample of the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from fsrbench import registry
from fsrbench.core import Batch, FaceImage, Method, Sample
from fsrbench.engine.altered_batch import averaged, reseeded, shifted, theirs
from fsrbench.engine.keys import code_digest, digest_of
from fsrbench.engine.plan import Cell, Options
from fsrbench.engine.run import Outcome, Run
from fsrbench.engine.samples import SampleSet, with_samples
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.faces.altered import (
    NOBODY,
    between,
    coarse,
    mean_face,
    mirrored,
    relit,
    turned,
)

BASE = "unaltered"


@dataclass(frozen=True)
class Setting:
    """What probes are made from.

    Args:
        options: of the run; samples: those that are probed, in order.
        everyone: all samples of the run.
    """

    options: Options
    samples: SampleSet
    everyone: SampleSet

    @cached_property
    def intruders(self) -> Mapping[str, Sample]:
        """The intruder's sample by sample id.

        Raises:
            FsrError: there is one person only.
        """
        of: dict[str, list[Sample]] = {}
        for s in self.samples.samples:
            of.setdefault(s.person, []).append(s)
        people = list(of)
        if len(people) < 2:
            raise FsrError("probes", f"need two people at least, and {len(people)} here has images "
                           "to test and others to be known by", "give more images, or more people "
                           "with --people")
        return {s.id: of[other][i % len(of[other])]
                for person, other in zip(people, people[1:] + people[:1])
                for i, s in enumerate(of[person])}

    @cached_property
    def nobody(self) -> FaceImage:
        """The mean face of all reference sets of the run."""
        albums = {s.person: s.album for s in self.everyone.samples}
        return mean_face([p for album in albums.values() for p in album],
                         self.options.profile.frame)


def _sees_reference(method: Method) -> bool:
    return bool(method.needs & {"references", "album", "fit"})


def _sees_more(method: Method) -> bool:
    """Whether a method sees the reference set or a fit beside a reference."""
    return "references" in method.needs and bool(method.needs & {"album", "fit"})


def _has_z_id(method: Method) -> bool:
    return callable(getattr(method, "z_id", None))


def _always(method: Method) -> bool:
    return True


@dataclass(frozen=True)
class Probe:
    """One change of the input.

    Args:
        name: as typed; title: as a table shows it; words: what it does, in half a sentence.
        applies: whether a method gets it.
        kind: what is asked of the identity: "towards" (the intruder), "truth" (the ground truth) or
            "away" (from the person).
        sample: the altered sample.
        batch: the altered batch.
        z_id: what stands in place of z_id (N, F), from its own and the intruder's.
        refits: whether a fit is made of the altered reference set; otherwise methods that fit keep
            theirs, as a fit takes longer than all else.
    """

    name: str
    title: str
    words: str
    applies: Callable[[Method], bool]
    kind: str = "away"
    sample: Callable[[Sample, Setting], Sample] | None = None
    batch: Callable[[Batch], Batch] | None = None
    z_id: Callable | None = None
    refits: bool = True


_probes: dict[str, Probe] = {}


def probes() -> dict[str, Probe]:
    """All probes by name, in a table's order."""
    return dict(_probes)


def _add(name: str, title: str, words: str, applies, **how) -> None:
    _probes[name] = Probe(name, title, words, applies, **how)


def _others(sample: Sample, setting: Setting) -> Sample:
    """The intruder's reference, reference set and fit."""
    other = setting.intruders[sample.id]
    return replace(sample, person=other.person, reference=other.reference, album=other.album)


def _only_reference(sample: Sample, setting: Setting) -> Sample:
    return replace(sample, reference=setting.intruders[sample.id].reference)


def _blank(sample: Sample, setting: Setting) -> Sample:
    # One name, so that nobody's fit is made once.
    return replace(sample, person=NOBODY, reference=setting.nobody, album=(setting.nobody,))


def _truth(sample: Sample, setting: Setting) -> Sample:
    # Fits are kept by person, and this album is of one image.
    return replace(sample, person=sample.id, reference=sample.gt, album=(sample.gt,))


def _morphed(sample: Sample, setting: Setting) -> Sample:
    return replace(sample, gt=between(sample.gt, setting.intruders[sample.id].gt))


def _changed(change: Callable[[FaceImage], FaceImage]) -> Callable[[Sample, Setting], Sample]:
    """The reference and all images of the reference set changed."""
    return lambda sample, _: replace(sample, reference=change(sample.reference),
                                     album=tuple(map(change, sample.album)))


def _needs_landmarks(method: Method) -> bool:
    return bool(method.needs & {"landmarks", "oracle"})


_add("other", "other's", "reference, reference set and fit of the intruder", _sees_reference,
     kind="towards", sample=_others)
_add("other-reference", "other's reference alone",
     "reference of the intruder, reference set and fit kept", _sees_more, kind="towards",
     sample=_only_reference)
_add("blank", "blank", "the mean face of all reference sets as reference and reference set",
     _sees_reference, sample=_blank)
_add("truth", "ground truth", "the ground truth as reference and reference set", _sees_reference,
     kind="truth", sample=_truth)
_add("morph", "LR morph",
     "the LR image of a face half way to the intruder's, which is the ground truth then", _always,
     kind="towards", sample=_morphed)
_add("mirrored", "mirrored", "references mirrored", _sees_reference, sample=_changed(mirrored),
     refits=False)
_add("relit", "relit", "references lit from the right", _sees_reference, sample=_changed(relit),
     refits=False)
_add("coarse", "×4 coarse", "references downsampled by 4 and upsampled again", _sees_reference,
     sample=_changed(coarse), refits=False)
_add("turned", "turned 30°", "references' faces turned aside by 30 degrees", _sees_reference,
     sample=_changed(turned), refits=False)
for _percent in (1, 2, 4):
    _add(f"shifted-{_percent}", f"landmarks {_percent} %",
         f"landmarks of the LR image moved by {_percent} % of the side", _needs_landmarks,
         batch=shifted(_percent))
_add("seed", "seed", "the next seed for the noise; fits stay", _always, batch=reseeded)
_add("z-id", "other's z_id", "the intruder's z_id, all else kept", _has_z_id, kind="towards",
     z_id=theirs)
_add("z-id-mean", "mean z_id", "the mean of z_id and the intruder's", _has_z_id, kind="towards",
     z_id=averaged)


class ProbeRun(Run):
    """A run of altered samples, or of samples whose batches are altered.

    Args:
        setting: what probes are made from.
        probe: the change; None for none.
        methods: as typed.
    """

    def __init__(self, setting: Setting, store: Store, probe: Probe | None,
                 methods: Sequence[str]):
        self.probe, self.setting = probe, setting
        options = replace(setting.options, methods=tuple(methods))
        super().__init__(options, store, _altered(setting, probe, store, _fits(methods)))
        for cell in self.cells:
            if probe and probe.z_id:
                cell.method.z_id = self._mixed(cell, cell.method.z_id)

    def _batch(self, cell: Cell, chunk: list[Sample]) -> Batch:
        batch = super()._batch(cell, chunk)
        return self.probe.batch(batch) if self.probe and self.probe.batch else batch

    def _fitted_for(self, chunk: list[Sample]) -> list[Sample]:
        """Also of the intruders whose z_id are taken."""
        if not (self.probe and self.probe.z_id):
            return chunk
        return [*chunk, *(self.setting.intruders[s.id] for s in chunk)]

    def _mixed(self, cell: Cell, z_id: Callable) -> Callable:
        """A method's `z_id` that sees the intruders' samples as well."""
        def mixed(batch: Batch):
            others = [self.setting.intruders[name] for name in batch.ids]
            return self.probe.z_id(z_id(batch), z_id(super(ProbeRun, self)._batch(cell, others)))
        return mixed

    def restored_keys(self, cell: Cell, chunk: list[Sample]) -> list[str]:
        """As of any run; of what is changed behind the samples also which change, and what it
        takes of the intruders."""
        keys = super().restored_keys(cell, chunk)
        if not self.probe or self.probe.sample:
            return keys
        others = [self.setting.intruders[s.id] for s in chunk] if self.probe.z_id else []
        seen = super().restored_keys(cell, others) if others else []
        code = code_digest("fsrbench.engine.altered_batch")
        return [digest_of("probe", self.probe.name, code, key, *seen) for key in keys]


def _fits(methods: Sequence[str]) -> bool:
    return all("fit" in registry.get(name).needs for name in methods)


def _altered(setting: Setting, probe: Probe | None, store: Store, fits: bool) -> SampleSet:
    """The samples under a probe; their images are in the store.

    Args:
        fits: whether they are for methods that fit.
    """
    own = setting.samples.samples
    if not probe or not probe.sample:
        return setting.samples
    made = [probe.sample(s, setting) for s in own]
    if fits and not probe.refits:
        made = [replace(new, album=s.album) for new, s in zip(made, own)]
    for face in {p.digest: p for s in made for p in (s.gt, s.reference, *s.album)}.values():
        store.put_image(face.image)
    return with_samples(setting.samples, made, setting.options.profile)


@dataclass(frozen=True)
class Trial:
    """What one method made under one probe.

    Args:
        method: of the registry.
        samples: as it saw them, in order; images: digests of its restorations, empty where failed.
    """

    method: Method
    samples: list[Sample]
    images: list[str]


def _trials(run: ProbeRun, outcome: Outcome) -> Iterator[Trial]:
    rows = outcome.records
    for cell in run.cells:
        of = rows[(rows["method"] == cell.method.name) & (rows["metric"] == "restored")]
        image = dict(zip(of["sample"], of["image"]))
        yield Trial(cell.method, run.samples.samples, [image[s.id] for s in run.samples.samples])


def run_probes(setting: Setting, store: Store,
               names: Sequence[str]) -> tuple[dict[str, dict[str, Trial]], dict[str, str]] | int:
    """Restore whatever is not in the store yet.

    Returns:
        Trials by probe (the first is `BASE`) and method name, and why methods were left out; or how
        many records other shards still have to make.
    """
    base = ProbeRun(setting, store, None, setting.options.methods)
    typed = [name for name in setting.options.methods if name not in base.left_out]
    found, missing = {}, 0
    for probe in (None, *(_probes[name] for name in names)):
        groups = [typed] if not probe or probe.refits else [
            [n for n in typed if _fits([n]) is fits] for fits in (False, True)]
        for group in groups:
            chosen = [n for n in group if not probe or probe.applies(registry.get(n))]
            if not chosen:
                continue
            run = ProbeRun(setting, store, probe, chosen) if probe else base
            run.landmark_cache = base.landmark_cache
            outcome = run.execute()
            missing += outcome.missing
            if not outcome.missing:
                found.setdefault(probe.name if probe else BASE, {}).update(
                    {t.method.name: t for t in _trials(run, outcome)})
    return missing or (found, base.left_out)
