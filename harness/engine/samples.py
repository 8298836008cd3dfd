"""From a data set to samples: the protocol applied, leaks refused, what was left out named."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fsrbench.core import Picture, Profile, Sample
from fsrbench.engine.counting import counted
from fsrbench.engine.data import (
    FINETUNE,
    TEST,
    TRAIN,
    Entry,
    Excluded,
    Prepared,
    Source,
    divided,
    open_source,
    prepare,
    verified,
)
from fsrbench.engine.splits import draw_reference, fingerprint, fingerprint_distances, halve, signature, signature_distances
from fsrbench.engine.store import Store, write_atomic
from fsrbench.errors import FsrError
from fsrbench.faces.geometry import Landmarks
from fsrbench.faces.prepare import Preparation
from fsrbench.text import read_json
from fsrbench.weights.catalogue import locate

# Aligned pictures whose signatures are nearer than this are copies of one photograph. Measured at 64 px: of copies
# recompressed at quality 30 to 90 and rescaled by 0.6 to 1.7, 97 % are nearer than 0.005 on ORL and 90 % on LFW; of 1,773
# pairs of one person in ORL's studio series one is nearer (s28/1 and s28/6, which differ in nothing visible), of 1,378
# such pairs in LFW none.
DUPLICATE = 0.005
# The same against training pictures, in bits of 512-bit fingerprints: 95 % of copies differ in at most 26, two LFW
# photographs in 49 or more.
TRAINED_ON = 32


@dataclass(frozen=True)
class SampleSet:
    """Samples of a run.

    Args:
        source: the data set.
        samples: in drawing order of the people, then by id.
        digest: over everything that the protocol decided: pictures, halves, references.
        excluded: what was left out, and why.
        signatures: (N, 256) of the ground truths.
    """

    source: Source
    samples: list[Sample]
    digest: str
    excluded: Excluded
    signatures: np.ndarray


def load_samples(spec: str, profile: Profile, store: Store, people: int | None, seed: int) -> SampleSet:
    """Apply the paper's protocol to a data set.

    Args:
        spec: `--data`.
        people: evaluate the first so many people drawn; None for all.

    Raises:
        FsrError: fewer than one person is left with two usable pictures.
    """
    source = open_source(spec, store)
    drawn, excluded = _draw(source, people, seed)
    entries = verified(source, [e for person in drawn for e in drawn[person]], store)
    how = Preparation(profile.size, profile.frame, source.aligned)
    pictures: dict[str, list[Picture]] = {person: [] for person in drawn}
    for prepared in prepare(source, entries, how, store):
        if prepared.error:
            excluded.add(prepared.error, prepared.entry.id)
        else:
            pictures[prepared.entry.person].append(_picture(prepared, store))
    samples, signatures = [], []
    for person in drawn:
        for sample, code in _samples_of(person, pictures[person], source, seed, excluded):
            samples.append(sample)
            signatures.append(code)
    kept = counted(samples, excluded)
    samples, signatures = [samples[i] for i in kept], [signatures[i] for i in kept]
    if not samples:
        raise FsrError(f"data set {spec}", "nobody is left with two usable pictures; " + "; ".join(excluded.lines(3)),
                       "give at least two pictures of a person that show the face")
    return SampleSet(source, samples, samples_digest(samples, profile), excluded, np.stack(signatures))


def _draw(source: Source, people: int | None, seed: int) -> tuple[dict[str, list[Entry]], Excluded]:
    """Pictures of each person drawn, in drawing order; people with a single picture are left out."""
    of: dict[str, list[Entry]] = {}
    for entry in source.entries:
        if source.split.get(entry.id) != TRAIN:
            of.setdefault(entry.person, []).append(entry)
    excluded, drawn = Excluded(), {}
    for person in divided(source, seed)[1]:
        if len(of[person]) < 2:
            excluded.add("fewer than two pictures", person)
        elif people is None or len(drawn) < people:
            drawn[person] = of[person]
    return drawn, excluded


def _picture(prepared: Prepared, store: Store) -> Picture:
    return Picture(prepared.entry.id, prepared.image, store.image(prepared.image),
                   Landmarks(prepared.points, prepared.landmarks))


def _halves(ids: list[str], person: str, split: Mapping[str, str], seed: int) -> tuple[list[str], list[str]]:
    """(fine-tune half, test half) of one person's pictures: the frozen ones, or the seed's."""
    if not split:
        return halve(ids, person, seed)
    return tuple([name for name in sorted(ids) if split[name] == part] for part in (FINETUNE, TEST))


def _samples_of(person: str, pictures: list[Picture], source: Source, seed: int, excluded: Excluded):
    """Samples of one person; near duplicates of a test picture leave the fine-tune half."""
    by_id = {p.id: p for p in pictures}
    finetune, test = _halves(list(by_id), person, source.split, seed)
    if not finetune or not test:
        if pictures:
            excluded.add("fewer than two usable pictures", person)
        return
    codes = {name: signature(by_id[name].image) for name in by_id}
    close = signature_distances(np.stack([codes[n] for n in finetune]), np.stack([codes[n] for n in test]))
    for name, distances in zip(list(finetune), close):
        if distances.min() <= DUPLICATE:
            excluded.add("near duplicate of a test picture", name)
            finetune.remove(name)
    if not finetune:
        excluded.add("no reference left beside near duplicates", person)
        return
    album = tuple(by_id[name] for name in finetune)
    for name in test:
        reference = by_id[draw_reference(finetune, name, seed)]
        yield Sample(name, person, by_id[name], reference, album), codes[name]


def samples_digest(samples: list[Sample], profile: Profile) -> str:
    """Digest of all that the protocol decided: images, references, reference sets, size and framing."""
    words = [f"{profile.size}|{profile.frame}"]
    words += [f"{s.id}|{s.gt.digest}|{s.reference.digest}|{'|'.join(p.digest for p in s.album)}" for s in samples]
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()


def with_samples(base: SampleSet, samples: list[Sample], profile: Profile) -> SampleSet:
    """The same source under other conditions: samples whose truths are among the base's, with references and albums of their
    own. Its digest is its own, so its records stand beside the base's and never among them."""
    place = {sample.id: i for i, sample in enumerate(base.samples)}
    signatures = base.signatures[[place[sample.id] for sample in samples]]
    return SampleSet(base.source, samples, samples_digest(samples, profile), base.excluded, signatures)


def check_leaks(samples: SampleSet, weights: str) -> None:
    """Refuse samples that a set of weights was trained on.

    By content, whatever the folder is called: the fingerprints of all training pictures stand beside the weights. By
    name, for people of the same data set. Weights without a model card tell nothing and are let through.

    Raises:
        FsrError: names the first leaking sample.
    """
    known = training_set(weights)
    if known is None:
        return
    names = {s.id for s in samples.samples
             if samples.source.name == known.data and person_digest(s.person) in known.people}
    for start in range(0, len(samples.samples), 256):
        seen = fingerprint(samples.signatures[start:start + 256])
        nearest = fingerprint_distances(seen, known.fingerprints).min(1)
        names |= {samples.samples[start + i].id for i in np.flatnonzero(nearest <= TRAINED_ON)}
    if names:
        raise FsrError(f"weights {weights}", f"were trained on {len(names)} of these test pictures or their people, "
                       f"first {sorted(names)[0]}", "evaluate on people that they have not seen", code=4)


@dataclass(frozen=True)
class TrainingSet:
    """What a set of weights has seen: data set, digests of the people's names, fingerprints (N, 64) of the pictures."""

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
        return TrainingSet(str(known["data"]), frozenset(known["people"].tolist()), known["fingerprints"])


def write_training_set(path: Path, data: str, people: Iterable[str], fingerprints: np.ndarray) -> None:
    """Write what a set of weights has seen, to stand beside them; no name and no image can be read back from it.

    Args:
        people: their `person_digest`; fingerprints: see `splits.fingerprint`.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, data=np.array(data), fingerprints=fingerprints, people=np.array(sorted(people)))
    write_atomic(path, buffer.getvalue())


def person_digest(name: str) -> str:
    """Short digest of a person's name, for the list of training people beside a set of weights."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]
