"""What the panel is asked: how far is the restored face from the ground truth, the reference and
the LR image, and is it this person rather than another.

Ids carry recogniser, alignment and target: `gap.people-truthpoints@frfeature` holds a restored
image, cut by the ground truth's landmarks, against all people's reference sets. Who is in the run
decides a value of kind "gallery", so its key holds all reference sets.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from fsrbench.metrics import Gallery, Metric, metric
from fsrbench.metrics.identity import cosine_distance, verified
from fsrbench.metrics.recognisers import RECOGNISERS, Recogniser

# Share of pairs of different people that the calibrated threshold lets pass.
FALSE_MATCHES = 0.01
# Images of the reference sets whose pairs are compared: two million pairs.
MOST = 2000


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, F) of length one, float64."""
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def to_people(vectors: np.ndarray, gallery: Gallery) -> np.ndarray:
    """Mean cosine (N, P) of embeddings (N, F) to each person's reference set; images of it without
    a face do not count, and a person of whom none has one is NaN."""
    known = np.isfinite(gallery.vectors).all(1)
    cosines, people = unit(vectors) @ unit(gallery.vectors[known]).T, gallery.people[known]
    member = (people[:, None] == np.arange(gallery.people.max() + 1)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return cosines @ member / member.sum(0)


def _sides(vectors: np.ndarray, gallery: Gallery) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosines (N,) to the own reference set and (N, P) to all, and which of these are others'."""
    cosines = to_people(vectors, gallery)
    own = np.arange(cosines.shape[1]) == gallery.own[:, None]
    seen = np.unique(gallery.people[np.isfinite(gallery.vectors).all(1)])
    return cosines[own], cosines, ~own & np.isin(np.arange(cosines.shape[1]), seen)


def gap(restored: np.ndarray, _truth: np.ndarray, gallery: Gallery) -> np.ndarray:
    """Mean cosine to the person's own reference set less the mean over all other people of that to
    theirs (N,): 0 where the face is as much anybody's."""
    own, cosines, others = _sides(restored, gallery)
    return own - np.where(others, cosines, 0).sum(1) / others.sum(1)


def rank_one(restored: np.ndarray, _truth: np.ndarray, gallery: Gallery) -> np.ndarray:
    """1 where the person's own reference set has the highest mean cosine of all, else 0; NaN where
    no face was found."""
    own, cosines, others = _sides(restored, gallery)
    first = own > np.where(others, cosines, -np.inf).max(1)
    return np.where(np.isfinite(own), first, np.nan)


def impostors(gallery: Gallery) -> np.ndarray:
    """Cosines of all pairs of images of different people of the reference sets; of large ones of
    `MOST` images, evenly spread."""
    known = np.flatnonzero(np.isfinite(gallery.vectors).all(1))
    known = known[::-(-len(known) // MOST)]
    vectors, people = unit(gallery.vectors[known]), gallery.people[known]
    apart = np.triu(people[:, None] != people, 1)
    return (vectors @ vectors.T)[apart]


def verified_here(restored: np.ndarray, truth: np.ndarray, gallery: Gallery) -> np.ndarray:
    """1 where the cosine to the ground truth is above what `FALSE_MATCHES` of the run's own pairs
    of different people reach, else 0."""
    return (1 - cosine_distance(restored, truth)
            > np.quantile(impostors(gallery), 1 - FALSE_MATCHES)).astype(np.float64)


def face_found(restored: np.ndarray, _truth: np.ndarray, _gallery: Gallery) -> np.ndarray:
    """1 where a face was found on the restored image, else 0."""
    return np.isfinite(restored).all(1).astype(np.float64)


_TRUTH = "all cut by the ground truth's or their own landmarks"
_FOUND = "all cut by landmarks that dlib finds on each image"


def distances(judge: Recogniser) -> None:
    """Register how far a restored face is by a judge from the ground truth, the reference, I_L."""
    for target, title in (("truth", "IDS"), ("reference", "IDS to the reference"),
                          ("upsampled", "IDS to I_L")):
        # A distance to the reference, or to I_L, is not better or worse; less is nearer.
        metric(Metric(f"ids-{target}.{target}-truthpoints@{judge.name}",
                      f"{title} ({judge.title})", -1, "identity", cosine_distance,
                      feature=judge.feature, target=target, recogniser=judge.name,
                      words=f"1 - cosine of the embeddings by {judge.title}; 8-bit RGB, {_TRUTH}"))


def galleries(judge: Recogniser, found: bool) -> None:
    """Register what a judge says by the reference sets of all people, by landmarks of the ground
    truth or found on the image itself."""
    points, cut = ("detected", _FOUND) if found else ("truthpoints", _TRUTH)
    tag, by = f"people-{points}@{judge.name}", f"{judge.title}{', detected' * found}"
    common = {"kind": "gallery", "feature": judge.detected if found else judge.feature,
              "recogniser": judge.name}
    # A family of its own, so that a name does not bring both.
    suffix = "-detected" * found
    metric(Metric(f"gap{suffix}.{tag}", f"Gap ({by})", +1, function=gap, target="people",
                  words=f"mean cosine to the person's own reference set less that to the others' "
                        f"by {judge.title}; 8-bit RGB, {cut}", **common))
    metric(Metric(f"rank1{suffix}.{tag}", f"Rank-1 ({by})", +1, function=rank_one, digits=1,
                  percent=True, target="people",
                  words="share whose own reference set has the highest mean cosine of all people's "
                        f"by {judge.title}; 8-bit RGB, {cut}", **common))
    if found:
        metric(Metric(f"found.{tag}", f"Found ({judge.title})", +1, function=face_found, digits=1,
                      percent=True, target="people",
                      words="share of restored images on which dlib's detector sees a face; 8-bit "
                            f"RGB, feature {judge.detected}", **common))
    else:
        metric(Metric(f"idv-fmr{FALSE_MATCHES:g}.truth-truthpoints@{judge.name}",
                      f"IDV at 1 % ({judge.title})", +1, function=verified_here, digits=1,
                      percent=True,
                      words=f"share whose cosine by {judge.title} is above that of all but "
                            f"{FALSE_MATCHES:.0%} of the pairs of different people of the run's "
                            f"reference sets; 8-bit RGB, {cut}", **common))


for _judge in RECOGNISERS.values():
    distances(_judge)
    galleries(_judge, False)
    if _judge.detected:
        galleries(_judge, True)
    if _judge.same and _judge.name not in ("dlib", "vggface"):  # those stand in identity.py
        metric(Metric(f"idv-fixed.{_judge.same:g}-truthpoints@{_judge.name}",
                      f"IDV ({_judge.title})", +1, "identity", partial(verified, _judge.same),
                      feature=_judge.feature, digits=1, percent=True, recogniser=_judge.name,
                      words=f"share at a distance of {_judge.same:g} or less, its library's "
                            f"threshold, by {_judge.title}; 8-bit RGB, {_TRUTH}"))
