"""From a data set to samples: the protocol applied, leaks refused, what was left out named."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fsrbench.core import FaceImage, Profile, Sample
from fsrbench.engine.copies import DUPLICATE
from fsrbench.engine.counting import counted, fault
from fsrbench.engine.data import (
    FINETUNE,
    TEST,
    TRAIN,
    Entry,
    Prepared,
    Source,
    divided,
    open_source,
    prepare,
    verified,
)
from fsrbench.engine.findings import Findings, together
from fsrbench.engine.fixed import Fixed, fix
from fsrbench.engine.kept import Kept
from fsrbench.engine.looks import Looks, Seen
from fsrbench.engine.splits import (
    draw_reference,
    fingerprint,
    fingerprint_distances,
    halve,
    mirrored,
    signature_distances,
)
from fsrbench.engine.store import Store, write_atomic
from fsrbench.errors import FsrError
from fsrbench.faces.geometry import Landmarks
from fsrbench.faces.prepare import Preparation
from fsrbench.text import read_json
from fsrbench.weights.catalogue import locate

# A test image is one of training where their 512-bit fingerprints differ in so many bits at most:
# 95 % of copies differ
# in at most 26, two LFW photographs in 49 or more.
TRAINED_ON = 32
# A crop of which more than this share is mirrored border is named.
MIRRORED = 0.15


@dataclass(frozen=True)
class SampleSet:
    """Samples of a run.

    Args:
        source: the data set.
        samples: in drawing order of the people, then by id.
        digest: over everything that the protocol decided: images, halves, references.
        excluded: what was left out, and why, and what is remarkable of the rest.
        signatures: (N, 256) of the ground truths.
        rule: how images were halved, in half a sentence.
    """

    source: Source
    samples: list[Sample]
    digest: str
    excluded: Findings
    signatures: np.ndarray
    rule: str = "half of each person's images are for fitting and reference, half for the test"


def load_samples(spec: str, profile: Profile, store: Store, people: int | None, seed: int,
                 fixed: Fixed = Fixed()) -> SampleSet:
    """Apply the paper's protocol to a data set.

    Args:
        spec: `--data`.
        people: evaluate the first so many people drawn who have two usable images; None for all.
        fixed: halves and references that are not to be drawn.

    Raises:
        FsrError: fewer than one person is left with two usable images.
    """
    source = fix(open_source(spec, store), fixed)
    excluded = together([source.findings])
    drawn, found, looks = _draw(source, seed, excluded), [], Looks(store)
    while drawn and (people is None or people > len({sample.person for sample, _ in found})):
        wanted = len(drawn) if people is None else people - len({sample.person
                                                                 for sample, _ in found})
        now = {person: drawn.pop(person) for person in list(drawn)[:wanted]}
        images, seen = _images(source, now, profile, looks, excluded)
        found += [(sample, seen[sample.gt.digest].signature) for person in now for sample
                  in _samples_of(person, images[person], source, seed, looks, seen, excluded)]
        looks.keep()
        kept = counted([sample for sample, _ in found], excluded)
        found = [found[i] for i in kept]
    if not found:
        raise FsrError(f"data set {spec}", "nobody is left with two usable images; "
                       + "; ".join(excluded.lines(3)),
                       "give at least two images of a person that show the face")
    samples = [sample for sample, _ in found]
    rule = ({"rule": f"test images and reference sets are those of {fixed.rule}"} if fixed.rule
            else {})
    return SampleSet(source, samples, samples_digest(samples, profile), excluded,
                     np.stack([code for _, code in found]), **rule)


def _draw(source: Source, seed: int, excluded: Findings) -> dict[str, list[Entry]]:
    """Images of each person drawn, in drawing order; people with a single image are left out."""
    of: dict[str, list[Entry]] = {}
    for entry in source.entries:
        if source.split.get(entry.id) != TRAIN:
            of.setdefault(entry.person, []).append(entry)
    order = divided(source, seed)[1]
    if single := [person for person in order if len(of[person]) < 2]:
        excluded.add("fewer than two images", *single)
    return {person: of[person] for person in order if len(of[person]) >= 2}


def _images(source: Source, of: dict[str, list[Entry]], profile: Profile, looks: Looks,
            excluded: Findings) -> tuple[dict[str, list[FaceImage]], dict[str, Seen]]:
    """Aligned images of these people, and what is known of each by digest; what cannot be used is
    named, and what is remarkable of the others."""
    store = looks.store
    entries = verified(source, [e for own in of.values() for e in own], store, excluded)
    images: dict[str, list[FaceImage]] = {person: [] for person in of}
    prepared = prepare(source, entries, Preparation(profile.size, profile.frame, source.aligned),
                       store)
    seen = looks.of(one.image for one in prepared)
    for one in prepared:
        image = None if one.error else _image(one, store, seen[one.image].flat)
        if why := one.error or fault(image):
            excluded.add(why, one.entry.id)
            continue
        images[one.entry.person].append(image)
        for remark in one.remarks:
            excluded.remarks.add(remark, one.entry.id)
        if one.outside > MIRRORED:
            excluded.remarks.add(f"more than {MIRRORED:.0%} of the crop is mirrored border",
                                 f"{one.entry.id} {one.outside:.0%}")
    return images, seen


def _image(prepared: Prepared, store: Store, flat: bool) -> FaceImage:
    return Kept(prepared.entry.id, prepared.image,
                Landmarks(prepared.points, prepared.landmarks), store, flat)


def _halves(ids: list[str], person: str, split: Mapping[str, str], seed: int) -> tuple[list[str],
                                                                                       list[str]]:
    """(fine-tune half, test half) of one person's images: the frozen ones, or the seed's."""
    if not split:
        return halve(ids, person, seed)
    return tuple([name for name in sorted(ids) if split[name] == part] for part in (FINETUNE, TEST))


def _samples_of(person: str, images: list[FaceImage], source: Source, seed: int, looks: Looks,
                seen: Mapping[str, Seen], excluded: Findings) -> Iterator[Sample]:
    """Samples of one person; near duplicates of a test image leave the fine-tune half."""
    by_id = {p.id: p for p in images}
    finetune, test = _halves(list(by_id), person, source.split, seed)
    if not finetune or not test:
        excluded.add("no usable image in one of the halves" if source.split
                     else "fewer than two usable images", person)
        return
    own = [by_id[name] for name in test]
    close = looks.copies([by_id[name] for name in finetune], own).any(1)
    if close.any():
        excluded.add("near duplicate of a test image", *np.array(finetune)[close].tolist())
    finetune = [name for name, copied in zip(finetune, close) if not copied]
    if not finetune:
        excluded.add("no reference left beside near duplicates", person)
        return
    if pairs := _again(own, looks, seen):
        excluded.remarks.add("test images that may be one photograph, mirrored, cropped or "
                             "covered, and count each",
                             *(f"{test[i]} and {test[j]}" for i, j in pairs))
    album = tuple(by_id[name] for name in finetune)
    for name in test:
        reference = _reference(name, finetune, source, seed)
        if reference is None:
            excluded.add("none of its references can be used", name)
        else:
            yield Sample(name, person, by_id[name], by_id[reference], album)


def _again(test: list[FaceImage], looks: Looks, seen: Mapping[str, Seen]) -> list[tuple[int, int]]:
    """Pairs that only a closer look tells for copies; those that signatures tell are named with
    those of other people (`counting.near_copies`)."""
    codes = np.stack([seen[image.digest].signature for image in test])
    found = looks.copies(test, test) & (signature_distances(codes, codes) > DUPLICATE)
    return [(i, j) for i, j in np.argwhere(found | found.T).tolist() if i < j]


def _reference(name: str, finetune: list[str], source: Source, seed: int) -> str | None:
    """The reference of a test image: the first usable one that is given for it, or one drawn."""
    if not source.references:
        return draw_reference(finetune, name, seed)
    return next((given for given in source.references.get(name, ()) if given in finetune), None)


def samples_digest(samples: list[Sample], profile: Profile) -> str:
    """Digest of all that the protocol decided: images, references, reference sets, size and
    framing."""
    words = [f"{profile.size}|{profile.frame}"]
    words += [f"{s.id}|{s.gt.digest}|{s.reference.digest}|{'|'.join(p.digest for p in s.album)}"
              for s in samples]
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()


def with_samples(base: SampleSet, samples: list[Sample], profile: Profile) -> SampleSet:
    """The same source under other conditions: samples whose ground truths are among the base's,
    with references and reference sets of their own. Its digest is its own, so its records stand
    beside the base's and never among them."""
    place = {sample.id: i for i, sample in enumerate(base.samples)}
    signatures = base.signatures[[place[sample.id] for sample in samples]]
    return SampleSet(base.source, samples, samples_digest(samples, profile), base.excluded,
                     signatures, base.rule)


def check_leaks(samples: SampleSet, weights: str) -> None:
    """Refuse samples that a set of weights was trained on.

    By content, whatever the folder is called: the fingerprints of all training images stand beside
    the weights. By name, for people of the same data set. Weights without a model card tell nothing
    and are let through.

    Raises:
        FsrError: names the first leaking sample.
    """
    known = training_set(weights)
    if known is None:
        return
    names = {s.id for s in samples.samples
             if samples.source.name == known.data and person_digest(s.person) in known.people}
    trained_on = _words(known.fingerprints)
    for codes in (samples.signatures, mirrored(samples.signatures)):
        for start in range(0, len(samples.samples), 64):
            nearest = fingerprint_distances(_words(fingerprint(codes[start:start + 64])),
                                            trained_on).min(1)
            names |= {samples.samples[start + i].id for i in np.flatnonzero(nearest <= TRAINED_ON)}
    if names:
        raise FsrError(f"weights {weights}",
                       f"were trained on {len(names)} of these test images or their people, "
                       f"first {sorted(names)[0]}", "evaluate on people that they have not seen",
                       code=4)


def _words(fingerprints: np.ndarray) -> np.ndarray:
    """Fingerprints (N, 64) as words of 64 bit (N, 8), which differ in as many bits and are counted
    in an eighth of the steps."""
    return np.ascontiguousarray(fingerprints).view(np.uint64)


@dataclass(frozen=True)
class TrainingSet:
    """What a set of weights has seen: data set, digests of the people's names, fingerprints (N, 64)
    of the images."""

    data: str
    people: frozenset[str]
    fingerprints: np.ndarray


def training_set(weights: str) -> TrainingSet | None:
    """The training set that a model card names; None without a card."""
    path = locate(weights)
    card = path.with_suffix(".json") if path else None
    if card is None or not card.exists():
        return None
    name = read_json(card, remedy="export the weights again, or fetch the card").get("trained_on")
    return _read_training_set(card.with_name(name)) if name else None


@lru_cache(maxsize=4)
def _read_training_set(path: Path) -> TrainingSet:
    with np.load(path, allow_pickle=False) as known:
        return TrainingSet(str(known["data"]), frozenset(known["people"].tolist()),
                           known["fingerprints"])


def write_training_set(path: Path, data: str, people: Iterable[str],
                       fingerprints: np.ndarray) -> None:
    """Write what a set of weights has seen, to stand beside them; no name and no image can be read
    back from it.

    Args:
        people: their `person_digest`; fingerprints: see `splits.fingerprint`.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, data=np.array(data), fingerprints=fingerprints,
                        people=np.array(sorted(people)))
    write_atomic(path, buffer.getvalue())


def person_digest(name: str) -> str:
    """Short digest of a person's name, for the list of training people beside a set of weights."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]
