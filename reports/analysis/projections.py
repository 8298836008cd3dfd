"""t-SNE and UMAP of z_id and z_s of a few people (Fig. 13), and how well people cluster in the
embeddings themselves.

Scores are computed on the embeddings, by Euclidean distance (for unit-length z_id an order with the
cosine's), because a projection may show clusters that are not there and hide those that are.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from fsrbench.engine.keys import digest_of
from fsrbench.engine.store import Store
from fsrbench.reports.analysis.embeddings import Embeddings
from fsrbench.rng import numpy_rng

NEIGHBOURS = 5
# Vectors that t-SNE compares each with each: of more that takes its time.
EXACT = 250


def _start(vectors: np.ndarray) -> np.ndarray:
    """Where a projection starts: the first two principal components (N, 2), signs fixed, scaled to
    1e-4 of the first."""
    centred = vectors - vectors.mean(0)
    u, s, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    xy = u[:, :2] * s[:2]
    xy *= np.sign(xy[np.abs(xy).argmax(0), [0, 1]])
    return (xy / xy[:, 0].std() * 1e-4).astype(np.float32)


def tsne(vectors: np.ndarray) -> np.ndarray:
    """t-SNE coordinates (N, 2) of N >= 4 vectors, from principal components: exact and by one
    thread up to `EXACT` of them, of more by Barnes and Hut's approximation in half of the steps."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    few = len(vectors) <= EXACT
    with threadpool_limits(1 if few else None):
        return TSNE(perplexity=min(15, (len(vectors) - 1) / 3), init=_start(vectors),
                    method="exact" if few else "barnes_hut", random_state=0, n_jobs=1,
                    max_iter=1000 if few else 500).fit_transform(vectors.astype(np.float32))


def umap(vectors: np.ndarray) -> np.ndarray:
    """UMAP coordinates (N, 2) of N >= 4 vectors, from principal components, one thread."""
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # UMAP says that a fixed seed means one thread
        from umap import UMAP

        start = _start(vectors) * 1e5  # UMAP spreads over about ten units
        return UMAP(n_neighbors=min(10, len(vectors) - 1), init=start, random_state=0,
                    n_jobs=1).fit_transform(vectors.astype(np.float32))


PROJECTIONS = {"t-SNE": (tsne, "scikit-learn"), "UMAP": (umap, "umap-learn")}


def project(name: str, vectors: np.ndarray, store: Store) -> np.ndarray:
    """Coordinates (N, 2) by "t-SNE" or "UMAP", kept in the store by content."""
    import torch

    function, package = PROJECTIONS[name]
    key = digest_of(name, version(package), vectors.shape, vectors.astype(np.float32).tobytes()
                    .hex(), "1")
    kept = store.tensors("sets", key)
    if kept is None:
        kept = {"xy": torch.from_numpy(np.ascontiguousarray(function(vectors), dtype=np.float32))}
        store.put_tensors("sets", key, kept)
    return kept["xy"].numpy()


@dataclass(frozen=True)
class Scores:
    """How well people cluster.

    Args:
        silhouette: by person, -1 to 1; purity: share of the NEIGHBOURS nearest images that are of
            the same person;
        davies_bouldin: 0 is best.
        chance: the three with the names shuffled, mean of 20 shuffles.
    """

    silhouette: float
    purity: float
    davies_bouldin: float
    chance: tuple[float, float, float]


def cluster_scores(vectors: np.ndarray, people: np.ndarray) -> Scores:
    """Scores of (N, D) embeddings of at least two people with two images each."""
    rng = numpy_rng("cluster-chance", len(people))
    shuffled = np.mean([_scores(vectors, rng.permutation(people)) for _ in range(20)], axis=0)
    return Scores(*_scores(vectors, people), tuple(map(float, shuffled)))


def _scores(vectors: np.ndarray, people: np.ndarray) -> tuple[float, float, float]:
    from sklearn.metrics import davies_bouldin_score, silhouette_score
    from sklearn.neighbors import NearestNeighbors

    # A person has only so many other images; more neighbours could not all be theirs.
    k = min(NEIGHBOURS, np.unique(people, return_counts=True)[1].min() - 1)
    near = NearestNeighbors(n_neighbors=k).fit(vectors).kneighbors(return_distance=False)
    purity = (people[near] == people[:, None]).mean()
    return float(silhouette_score(vectors,
                                  people)), float(purity), float(davies_bouldin_score(vectors,
                                                                                      people))


def fitted_places(embeddings: Embeddings) -> tuple[int, float, float]:
    """Where fitted embeddings stand: (how many are nearest to their own person's mean among the
    people fitted, mean cosine of a fitted z_id to that mean, mean cosine of an image's z_id to
    it)."""
    names = list(embeddings.fitted)
    groups = [embeddings.z_id[embeddings.people == name] for name in names]
    means = np.stack([g.mean(0) / np.linalg.norm(g.mean(0)) for g in groups])
    cosines = np.stack(list(embeddings.fitted.values())) @ means.T
    images = np.concatenate([g @ m for g, m in zip(groups, means)])
    right = int((cosines.argmax(1) == np.arange(len(names))).sum())
    return right, float(cosines.diagonal().mean()), float(images.mean())


def selected(embeddings: Embeddings, people: int = 5, images: int = 10) -> np.ndarray:
    """Positions of the images shown: of the first people, the first so many images each."""
    names = list(dict.fromkeys(embeddings.people))[:people]
    return np.concatenate([np.flatnonzero(embeddings.people == name)[:images] for name in names])


def places(embeddings: Embeddings, store: Store) -> list[dict]:
    """Where each image shown and each fitted z_id lies in each projection: rows of embedding,
    projection, person, fitted, x and y. Fitted embeddings are projected together with the
    images'."""
    chosen = selected(embeddings)
    people = embeddings.people[chosen]
    names = [n for n in dict.fromkeys(people) if n in embeddings.fitted]
    both = np.concatenate([embeddings.z_id[chosen],
                           np.reshape([embeddings.fitted[n] for n in names],
                                      (-1, embeddings.z_id.shape[1]))])
    rows = []
    for kind, vectors, extra in (("z_id", both, names), ("z_s", embeddings.z_s[chosen], [])):
        for name in PROJECTIONS:
            for i, (person, (x, y)) in enumerate(zip([*people, *extra],
                                                     project(name, vectors, store))):
                rows.append({"embedding": kind, "projection": name, "person": person,
                             "fitted": i >= len(people), "x": float(x), "y": float(y)})
    return rows
