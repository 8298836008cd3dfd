"""One method on one batch: precision, faults, and images out of what it returns."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fsrbench.core import Batch, Method, Profile, Sample
from fsrbench.engine.keys import method_digest
from fsrbench.engine.plan import Cell
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError, reason
from fsrbench.imaging import to_uint8
from fsrbench.weights.catalogue import blame

# How far beyond 0 and 1 a restoration may be: about one level of 8 bit, as half precision rounds.
ROUNDING = 0.005


def instance(cls: type[Method], profile: Profile) -> Method:
    """A method under a profile.

    Raises:
        FsrError: it cannot run under that.
    """
    if profile.name not in cls.profiles:
        raise FsrError(f"method {cls.name}", f"has no {profile.name} profile",
                       f"it has: {', '.join(cls.profiles)}", code=2)
    return cls(profile)


def check_unchanged(method: Method, digest: str) -> None:
    """Refuse to keep what a method made under a digest that is not its own any more.

    Raises:
        FsrError: its weights have been written anew.
    """
    if method_digest(method) != digest:
        raise FsrError(f"method {method.name}", "its weights were written anew while it ran",
                       "start again; what was computed before stays")


@contextlib.contextmanager
def computing(precision: str):
    """Context in which networks run in half precision where that is asked for, with their kernels
    fused where that is.

    Raises:
        FsrError: kernels can be fused on a GPU alone.
    """
    import torch

    from fsrbench.weights.graphs import how
    from fsrbench.weights.networks import device

    kind, _, fused = precision.partition("-")
    if fused and device() == "cpu":
        raise FsrError(f"--precision {precision}", "is for a GPU, and there is none here",
                       f"use {kind}", code=2)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(kind)
    with how(fused=bool(fused)), torch.autocast(device(), half, enabled=half is not None):
        yield


def one_ahead(make: Callable[[Cell, list[Sample]], Batch],
              jobs: Iterable[tuple]) -> Iterator[tuple[tuple, Batch]]:
    """Each job (cell, chunk and more) with its batch, in order; while a GPU restores one, the next
    is made and prepared in a thread."""
    from fsrbench.weights.networks import device

    def prepared(cell: Cell, chunk: list[Sample], *_) -> Batch:
        batch = make(cell, chunk)
        # What fails here fails in `restore` too, which says whose sample it is.
        with contextlib.suppress(Exception):
            cell.method.prepare(batch)
        return batch
    if device() == "cpu":
        yield from ((job, make(*job[:2])) for job in jobs)
        return
    waiting: deque = deque()
    with ThreadPoolExecutor(1, "batches") as worker:
        for job in (*jobs, None):
            if job is not None:
                waiting.append((job, worker.submit(prepared, *job)))
            if len(waiting) > 1 or job is None and waiting:
                done, batch = waiting.popleft()
                yield done, batch.result()


def kept(store: Store, images: Sequence[np.ndarray | None]) -> list[str]:
    """Digests of images that are put into a store, side by side; "" of None."""
    if sum(image is not None for image in images) < 2:
        return [store.put_image(image) if image is not None else "" for image in images]
    with ThreadPoolExecutor(min(8, len(images), os.cpu_count() or 1)) as workers:
        return list(workers.map(lambda image: "" if image is None else store.put_image(image),
                                images))


def attempt(method: Method, batch: Batch, precision: str = "float32") -> tuple[list, list[str]]:
    """Restore a batch; if it fails as a whole, each sample alone. Returns uint8 images or None, and
    errors; samples that have failed before (no fit of their person) are not shown to the method."""
    from fsrbench.weights.graphs import refused

    if batch.failures:
        return _others(method, batch, precision)
    try:
        with computing(precision):
            restored = method.restore(batch)
        batch.note = refused()
        return _checked(restored, batch)
    except FsrError:
        raise
    # A method's fault must not cost the others' results, nor end the program as if all were well.
    except (Exception, SystemExit) as error:
        blame(method.weight_files)
        if len(batch) == 1:
            return [None], [f"{type(error).__name__}: {reason(error)}"]
        print(f"note: {method.name} failed on a batch ({type(error).__name__}: {reason(error)}); "
              f"trying one by one",
              file=sys.stderr)
    images, errors = [], []
    for i in range(len(batch)):
        image, error = attempt(method, _some(batch, [i]), precision)
        images += image
        errors += error
    return images, errors


def _others(method: Method, batch: Batch, precision: str) -> tuple[list, list[str]]:
    """What `attempt` gives of a batch in which some samples have failed before."""
    left = [i for i in range(len(batch)) if i not in batch.failures]
    images, errors = [None] * len(batch), [batch.failures.get(i, "") for i in range(len(batch))]
    if left:
        few = _some(batch, left)
        for i, image, error in zip(left, *attempt(method, few, precision)):
            images[i], errors[i] = image, error
        batch.note = few.note
    return images, errors


def _some(batch: Batch, at: Sequence[int]) -> Batch:
    """The samples at these positions."""
    def pick(values: list) -> list:
        return [values[i] for i in at] if values else []
    return Batch(pick(batch.ids), pick(batch.people), batch.lr[list(at)], batch.scale,
                 pick(batch.landmarks), pick(batch.references), pick(batch.albums), batch.fits,
                 batch.seed)


def _checked(images, batch: Batch) -> tuple[list, list[str]]:
    """uint8 images of what a method returned; a value that is not finite, or the method's own word,
    makes a sample fail.

    A value beyond 0 and 1 makes the whole batch fail: it says that the method returns another
    range, and then its other images are wrong too.
    """
    images = np.asarray(images)
    if images.dtype.kind not in "fiub":
        raise ValueError(f"returned {images.dtype} values, not real numbers")
    images = images.astype(np.float32, copy=False)
    wanted = (len(batch), 3, batch.size, batch.size)
    if images.shape != wanted:
        raise ValueError(f"returned shape {images.shape}, not {wanted}")
    finite = np.isfinite(images).all((1, 2, 3))
    judged = images[[i for i, ok in enumerate(finite) if ok and i not in batch.failures]]
    low, high = (float(judged.min()), float(judged.max())) if judged.size else (0.0, 1.0)
    beyond = (f"returned values from {low:.3g} to {high:.3g}, not from 0 to 1"
              if max(-low, high - 1) > ROUNDING else "")
    levels = to_uint8(np.nan_to_num(images))
    errors = [batch.failures.get(i, beyond if ok else "not finite") for i, ok in enumerate(finite)]
    return [None if error else image for image, error in zip(levels, errors)], errors
