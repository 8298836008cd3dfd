"""Which ground truths count: images of a face, each photograph once, each person once. What does
not count is named.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsrbench.core import FaceImage, Sample
from fsrbench.engine.findings import Excluded
from fsrbench.engine.kept import Kept
from fsrbench.engine.splits import signature_distances
from fsrbench.faces.geometry import TEMPLATE

# Deviation over pixels, in levels of 8 bit, below which an image shows nothing: any restoration of
# it is perfect.
FLAT = 1.0


def counted(samples: Sequence[Sample], excluded: Excluded) -> list[int]:
    """Places of the samples that count, in their order; the others are added to `excluded`.

    Copies are told by content: the same aligned pixels. Of a photograph that stands there several
    times the first counts, of people who share one (in whichever half) the first.
    """
    first: dict[str, str] = {}
    owner: dict[str, str] = {}
    twins: dict[str, str] = {}
    for s in samples:
        for content in (s.gt.digest, *(p.digest for p in s.album)):
            earlier = owner.setdefault(content, s.person)
            if earlier != s.person:
                twins.setdefault(s.person, earlier)
    kept = []
    for i, s in enumerate(samples):
        if s.person in twins:
            reason, name = (
                f"the same person as {twins[s.person]}, as they share a photograph",
                s.person,
            )
            if name in excluded.reasons.get(reason, ()):
                continue
        else:
            why = fault(s.gt)
            reason, name = (f"test {why}" if why else _copy(s, first)), s.id
        if reason:
            excluded.add(reason, name)
        else:
            first[s.gt.digest] = s.id
            kept.append(i)
    return kept


def is_flat(image: np.ndarray) -> bool:
    """Whether an uint8 (H, W, 3) image is of one colour."""
    return bool(image.std((0, 1)).max() < FLAT)


def fault(face: FaceImage) -> str:
    """Why an aligned image can be neither ground truth nor reference; empty if it can."""
    known = face.flat if isinstance(face, Kept) else None
    if is_flat(face.image) if known is None else known:
        return "image of one colour"
    return "image in which no face is found" if face.landmarks.source == TEMPLATE else ""


def _copy(sample: Sample, first: dict[str, str]) -> str:
    return (
        f"copy of the test image {first[sample.gt.digest]}" if sample.gt.digest in first else ""
    )


def near_copies(
    samples: Sequence[Sample], signatures: np.ndarray, nearest: float
) -> list[tuple[str, str]]:
    """Ids of pairs of ground truths whose signatures are so near that they may be copies of one
    photograph.
    """
    found = []
    for start in range(0, len(samples), 512):
        close = signature_distances(signatures[start : start + 512], signatures) <= nearest
        found += [
            (samples[start + i].id, samples[j].id) for i, j in np.argwhere(close) if start + i < j
        ]
    return found
