"""People who may be one person under two names, by the embeddings behind IDS."""

from __future__ import annotations

import numpy as np

from fsrbench.engine.run import Outcome
from fsrbench.metrics import get_feature

# dlib's network as DeepFace uses it, and its threshold. Mean distance (1 - cosine) of ground truths
# of two people: of 120 pairs of ORL and 435 of LFW at 64 px the nearest are .085 and .077 apart; of
# one person's own images, 16 and 30 people, the farthest .045 and .063.
FEATURE, THRESHOLD = "dlib-chip@1", 0.07


def _embeddings(outcome: Outcome) -> dict[str, np.ndarray]:
    """Unit vectors (N, F) of each person's ground truths, as far as they were computed."""
    measures, found, feature = outcome.measures, {}, get_feature(FEATURE)
    keys = {measures.feature_key(feature, sample.gt.digest, sample): sample.person
            for sample in outcome.samples.samples}
    for key, vector in measures.vectors.of(keys).items():
        found.setdefault(keys[key], []).append(vector / np.linalg.norm(vector))
    return {person: np.stack(vectors) for person, vectors in found.items()}


def twins(outcome: Outcome) -> list[tuple[str, str, float]]:
    """Two people and their distance, the nearest first; those further apart than the threshold are
    left out. Empty where no metric of the run needs the network."""
    if not any(metric.feature == FEATURE for metric in outcome.measures.metrics):
        return []
    of = _embeddings(outcome)
    if not of:
        return []
    # The mean of all cosines of two people is the product of their means.
    means, names = np.stack([vectors.mean(0) for vectors in of.values()]), list(of)
    apart = 1 - means @ means.T
    found = [(names[a], names[b], float(apart[a, b]))
             for a, b in np.argwhere(np.triu(apart <= THRESHOLD, 1))]
    return sorted(found, key=lambda pair: pair[2])
