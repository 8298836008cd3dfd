"""What probes change of a batch behind its samples: landmarks, seed, z_id. This code is in the keys
of the restorations that are made so (see `fsrbench.engine.probes`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fsrbench.core import Batch
from fsrbench.faces.geometry import Landmarks
from fsrbench.rng import numpy_rng


def shifted(percent: float) -> Callable[[Batch], Batch]:
    """All landmarks of I_L moved by so many percent of the side, in a direction that belongs to the
    sample."""
    def shift(batch: Batch) -> Batch:
        moved = []
        for name, found in zip(batch.ids, batch.landmarks):
            angle = numpy_rng("probe", "landmarks", name).uniform(0, 2 * np.pi)
            by = batch.size * percent / 100 * np.array([np.cos(angle), np.sin(angle)])
            moved.append(Landmarks(found.points + by, found.source))
        return replace(batch, landmarks=moved)
    return shift


def reseeded(batch: Batch) -> Batch:
    """The next seed for the noise of a restoration; fits stay as they are."""
    return replace(batch, seed=batch.seed + 1)


def theirs(own, other):
    """The intruder's z_id (N, F)."""
    return other


def averaged(own, other):
    """The mean of both z_id (N, F), as long as they are in the mean."""
    mean, length = (own + other) / 2, (own.norm(dim=-1) + other.norm(dim=-1)) / 2
    return mean * (length / mean.norm(dim=-1).clamp_min(1e-9))[..., None]
