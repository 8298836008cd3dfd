"""Fits of people: read from the store, or computed, several at once where that is faster, and
kept."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from fsrbench.core import Batch, Method, Person, Sample
from fsrbench.engine.keys import digest_of, shape_of
from fsrbench.engine.restoring import check_unchanged
from fsrbench.engine.store import Store, locked
from fsrbench.errors import FsrError, reason
from fsrbench.progress import progress
from fsrbench.weights.catalogue import blame, file_digest

# In the file of a fit that was made in one batch with others, how many they were.
PEOPLE = "people in the batch"


def fit_key(method: Method, person: Person, seed: int, digest: str) -> str:
    """Key of a person's fit; digest: of the method."""
    return digest_of("fit", digest, shape_of(method.profile), seed, person.name,
                     *[p.seen for p in person.album])


def fitted(store: Store, method: Method, person: Person, seed: int, digest: str) -> tuple[dict,
                                                                                          bool]:
    """A person's fit out of the store, or computed and kept there; and whether it was computed.

    Args:
        digest: of the method.

    Raises:
        FsrError: its weights were written anew while it fitted.
        Exception: whatever the method raises.
    """
    key = fit_key(method, person, seed, digest)
    tensors = store.tensors("fits", key)
    if tensors is not None:
        return tensors, False
    # A fit made twice may differ, and records are of one: a second process waits, and reads.
    with locked(store.tensors_path("fits", key)):
        tensors = store.tensors("fits", key)
        if tensors is not None:
            return tensors, False
        tensors = _checked(method.fit(person, seed))
        check_unchanged(method, digest)
        store.put_tensors("fits", key, tensors)
    return tensors, True


def fit_people(store: Store, method: Method, people: Sequence[Person], seed: int,
               digest: str) -> tuple[int, dict[str, str]]:
    """Fit people, in one batch, those left out whose fits are in the store or, by then, come there
    from another process; returns how many were fitted, and by name why others could not be.

    Args:
        digest: of the method.

    Raises:
        FsrError: its weights were written anew, or are at fault.
    """
    keys = {fit_key(method, person, seed, digest): person for person in people}
    made, failures = 0, {}
    with ExitStack() as held:
        # In one order everywhere, so that no two processes wait for one another.
        for key in sorted(keys):
            held.enter_context(locked(store.tensors_path("fits", key)))
        missing = {person.name: key for key, person in keys.items()
                   if not store.tensors_path("fits", key).exists()}
        wanted = [person for person in people if person.name in missing]
        for person, found, count in _attempts(method, wanted, seed):
            if isinstance(found, str):
                failures[person.name] = found
                continue
            check_unchanged(method, digest)
            facts = {PEOPLE: str(count)} if count > 1 else {}
            store.put_tensors("fits", missing[person.name], found, **facts)
            made += 1
    return made, failures


def _attempts(method: Method, people: Sequence[Person],
              seed: int) -> Iterator[tuple[Person, dict | str, int]]:
    """Each person with the fit, or with why there is none, and how many were in the batch. What
    fails as a whole, for want of memory or by one person's fault, is tried by halves."""
    if not people:
        return
    try:
        found = ([method.fit(people[0], seed)] if len(people) == 1
                 else method.fit_many(people, seed))
        if len(found) != len(people):
            raise ValueError(f"fit_many returned {len(found)} fits for {len(people)} people")
    except FsrError as error:
        if error.blames_weights:
            raise
        fault = str(error)
    except (Exception, SystemExit) as error:
        blame(method.weight_files)
        fault = f"{type(error).__name__}: {reason(error)}"
    else:
        yield from ((person, _kept(one), len(people)) for person, one in zip(people, found))
        return
    if len(people) == 1:
        yield people[0], fault, 1
        return
    print(f"note: {method.name} could not be fitted to {len(people)} people at once ({fault}); "
          "trying by halves", file=sys.stderr)
    _free()
    half = len(people) // 2
    yield from _attempts(method, people[:half], seed)
    yield from _attempts(method, people[half:], seed)


def _kept(found: object) -> dict | str:
    try:
        return _checked(found)
    except (TypeError, ValueError) as error:
        return str(error)


def _checked(found: object) -> dict:
    """What a method has fitted.

    Raises:
        TypeError: it is no mapping of tensors; ValueError: a value is not finite.
    """
    import torch

    if not isinstance(found, Mapping) or not all(isinstance(x, torch.Tensor)
                                                 for x in found.values()):
        raise TypeError("fit returned no tensors by name")
    for name, tensor in found.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"the fitted {name} is not finite")
    return dict(found)


def _free() -> None:
    """Give back the memory of a GPU that a failed attempt held."""
    import torch

    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()


class Fits:
    """The fits of a run.

    Args:
        store: where they are kept; seed: of the run; digest: of a method.

    Attributes:
        made: how many were computed; failures: (method, person) -> why there is none.
    """

    def __init__(self, store: Store, seed: int, digest: Callable[[Method], str]):
        self.store, self.seed, self._digest = store, seed, digest
        self.made, self.failures = 0, {}
        self._digests: dict[tuple[str, str], str] = {}

    def key(self, method: Method, sample: Sample) -> str:
        """Key of the fit that a sample is restored with."""
        return fit_key(method, person_of(sample), self.seed, self._digest(method))

    def digest(self, method: Method, sample: Sample) -> str:
        """Digest of the fit that a sample is restored with; empty where it is still to be made.

        A fit made anew on another machine may differ, so its content is in the key of what it
        restores, not only what it was made of.
        """
        place = method.name, sample.person
        if place not in self._digests:
            path = self.store.tensors_path("fits", self.key(method, sample))
            if not path.exists():
                return ""
            self._digests[place] = file_digest(path)
        return self._digests[place]

    def of(self, method: Method, sample: Sample) -> dict:
        """The fit that a sample is restored with, computed where it is not kept."""
        tensors, new = fitted(self.store, method, person_of(sample), self.seed,
                              self._digest(method))
        self.made += new
        return tensors

    def make(self, asked: Sequence[tuple[Method, Sample]], share: float = 0.0) -> None:
        """Make the fits that are missing, of several people in one batch where a method likes
        that.

        Args:
            asked: a sample of each person; share: of them, at which this process begins, so that
                others that were asked for the same people do not wait for it.
        """
        missing = [(m, s) for m, s in asked if not self.digest(m, s)]
        at = int(share * len(missing))
        by_method: dict[str, list[tuple[Method, Sample]]] = {}
        for method, sample in (*missing[at:], *missing[:at]):
            by_method.setdefault(method.name, []).append((method, sample))
        with progress(total=len(missing), desc="fitting", unit="person", quiet=not missing) as bar:
            for pairs in by_method.values():
                method, width = pairs[0][0], max(1, pairs[0][0].together())
                for first in range(0, len(pairs), width):
                    self._some(method, [person_of(s) for _, s in pairs[first:first + width]])
                    bar.update(len(pairs[first:first + width]))

    def _some(self, method: Method, people: Sequence[Person]) -> None:
        made, failures = fit_people(self.store, method, people, self.seed, self._digest(method))
        self.made += made
        self.failures |= {(method.name, name): why for name, why in failures.items()}

    def give(self, method: Method, batch: Batch, chunk: Sequence[Sample]) -> None:
        """Put fits into the batch of these samples; those of a person without one have failed."""
        for i, sample in enumerate(chunk):
            why = self.failures.get((method.name, sample.person))
            if why:
                batch.failures[i] = f"not fitted to {sample.person}: {why}"
            elif sample.person not in batch.fits:
                batch.fits[sample.person] = self.of(method, sample)

    def note(self, method: Method, sample: Sample) -> str:
        """What a record says of how its fit was made; nothing where it was made alone."""
        if not self.digest(method, sample):
            return ""
        count = self.store.facts("fits", self.key(method, sample)).get(PEOPLE)
        return f"fitted in one batch with others ({count} people)" if count else ""


def person_of(sample: Sample) -> Person:
    """Whom a method is fitted to for a sample."""
    return Person(sample.person, sample.album)
