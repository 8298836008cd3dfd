"""z_id and z_s of every image of the people drawn, kept in the store by content.

z_id is E_id's unit vector (paper 3.1). z_s is the style encoder's output for I_W, which in a
restoration is the reference warped onto the LR face; here each image stands as its own reference on
its own landmarks, so z_s belongs to one image. What is fitted to a person is z_id alone (paper
3.3): there is no fitted z_s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fsrbench.core import FaceImage, Sample
from fsrbench.engine.keys import code_digest, digest_of
from fsrbench.engine.plan import Options
from fsrbench.engine.run import Run
from fsrbench.engine.store import Store
from fsrbench.methods.idfsr.conditions import masked_and_warped
from fsrbench.methods.idfsr.method import Idfsr, stack
from fsrbench.progress import progress
from fsrbench.weights.catalogue import file_digest, require
from fsrbench.weights.networks import device

METHOD = "idfsr.ft"
# Raise it when z_id_of or z_s_of below give an image another embedding.
VERSION = "1"


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of N images of P people.

    Args:
        ids: N image ids; people: (N,) names, in drawing order.
        z_id: (N, 512) unit length; z_s: (N, D), both float32.
        fitted: person -> z_id fitted to their fine-tune half (512,), unit length; for the first few
            people only.
        networks: catalogue names of E_id's and the style encoder's weights.
        notes: what was left out, and the set's licence.
    """

    ids: list[str]
    people: np.ndarray
    z_id: np.ndarray
    z_s: np.ndarray
    fitted: dict[str, np.ndarray]
    networks: tuple[str, str]
    notes: list[str]


def images_of(samples: list[Sample]) -> dict[str, list[FaceImage]]:
    """All images of each person, sorted by id: the fine-tune half and the ground truths."""
    found: dict[str, dict[str, FaceImage]] = {}
    for sample in samples:
        of = found.setdefault(sample.person, {p.id: p for p in sample.album})
        of[sample.gt.id] = sample.gt
    return {person: [of[name] for name in sorted(of)] for person, of in found.items()}


@torch.inference_mode()
def z_id_of(method: Idfsr, faces: list[FaceImage]) -> np.ndarray:
    """(N, 512), unit length."""
    images, points = stack(faces)
    return method.identity()(torch.from_numpy(images), points).numpy()


@torch.inference_mode()
def z_s_of(method: Idfsr, faces: list[FaceImage]) -> np.ndarray:
    """(N, D)."""
    images, points = stack(faces)
    _, I_W, _ = masked_and_warped(images, points, images, points, method.config.region)
    return method.part("encoder")(I_W.to(device())).float().cpu().numpy()


def embed(kind: str, weights: str, faces: list[FaceImage],
          compute: Callable[[list[FaceImage]], np.ndarray], store: Store ) -> np.ndarray:
    """Embeddings (N, D) of images in their order; those that the store has are not computed again.

    Args:
        kind: "z_id" or "z_s"; weights: catalogue name of the network's file.
    """
    network = digest_of("embedding", VERSION, kind, file_digest(require(weights)),
                        code_digest("fsrbench.methods.idfsr.method"))
    keys = [digest_of(network, p.seen) for p in faces]
    kept = store.read("features", ("key", "vector"), key=keys)
    known = dict(zip(kept["key"], kept["vector"]))
    missing = [i for i, key in enumerate(keys) if key not in known]
    # One at a time: kernels may depend on what shares a batch, and an image's embedding must not.
    rows = [{"key": keys[i], "feature": f"{kind}@{weights}", "vector": compute([faces[i]])[0]}
            for i in progress(missing, desc=kind, unit="image")]
    store.append("features", rows)
    known.update({row["key"]: row["vector"] for row in rows})
    return np.stack([np.asarray(known[key], dtype=np.float32) for key in keys])


def gather(options: Options, store: Store, fit: int) -> Embeddings:
    """Embeddings of all people that the options draw, and the fits of the first `fit` of them.

    Raises:
        FsrError: weights are missing, a person was seen in training, or nobody has two usable
            images.
    """
    run = Run(options, store)
    method, samples = run.cells[0].method, run.samples.samples
    of = images_of(samples)
    faces = [p for person in of for p in of[person]]
    first = {s.person: s for s in samples}
    names = method.parts["E_id"].weights, method.parts["network"].weights
    z_id = embed("z_id", names[0], faces, lambda some: z_id_of(method, some), store)
    z_s = embed("z_s", names[1], faces, lambda some: z_s_of(method, some), store)
    fits = {person: run.fits.of(method, first[person])["z_id"].numpy()
            for person in progress(list(of)[:fit], desc="fitting z_id", unit="person")}
    return Embeddings([p.id for p in faces], np.repeat(list(of), [len(v) for v in of.values()]),
                      z_id, z_s,
                      {person: z / np.linalg.norm(z) for person, z in fits.items()}, names,
                      [*run.samples.excluded.lines(), f"data: {run.samples.source.licence}"])
