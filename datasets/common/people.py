"""People who do not exist: styles of the face generator, several images of each, and judges.

A person is a style w. Another image of the person mixes into it another face's coarse styles (pose,
hair), a little of its middle ones (expression), and more of its fine ones (light, colour). An image
is kept if every judge calls it the person of the first one, and drawn again with less mixed in if
not; a person whom a judge calls one of those before is refused. So what is kept depends on the seed
and on the people before: N people are the first N of more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from fsrbench.faces.detect import find
from fsrbench.imaging import to_float, to_uint8
from fsrbench.methods.common.identity import IdentityEncoder
from fsrbench.methods.common.mobilestylegan import load_generator, whole
from fsrbench.methods.common.mobilestylegan_heads import downsampled
from fsrbench.methods.common.sface import SIDE, SFace
from fsrbench.metrics import get_feature, metrics
from fsrbench.metrics.identity import DLIB, cosine_distance
from fsrbench.rng import normal
from fsrbench.weights.catalogue import at_hand, require
from fsrbench.weights.networks import load_strict, read_state
from fsrbench.weights.shared import SFACE

# Side of the images that are kept: the paper profile's.
SIZE = 256
# How far from the mean style a person is (StyleGAN's truncation). Less makes smooth faces, but too
# few people: of two drawn at 0.7 SFace calls 14 % one, dlib 5 %; at 1 they call 2 % and 0.7 % so.
TRUNCATION = 1.0
# Styles of these layers (first, end), and what share of another face's is mixed in at first.
MIXED = {"pose": (0, 2, 0.4), "expression": (2, 4, 0.25), "light": (5, 8, 0.6)}
# Images of a person; tries for each beside the first; how much less is mixed in at the next try.
IMAGES, TRIES, LESS = 6, 4, 0.6


@dataclass(frozen=True)
class Judge:
    """A recogniser.

    Args:
        embed: embeddings (N, F) of uint8 images and their landmarks.
        threshold: cosine distance up to which it calls two images one person, by its authors.
    """

    embed: Callable[[list[np.ndarray], list[np.ndarray]], np.ndarray]
    threshold: float


@lru_cache(maxsize=1)
def _encoder() -> IdentityEncoder:
    state = read_state(require(SFACE.name))
    return IdentityEncoder(load_strict(SFace(), state, SFACE.name), SIDE)


def _by_sface(images: list[np.ndarray], points: list[np.ndarray]) -> np.ndarray:
    return _encoder()(torch.from_numpy(to_float(np.stack(images))), points).numpy()


def _by_dlib(images: list[np.ndarray], points: list[np.ndarray]) -> np.ndarray:
    metrics()
    return get_feature("dlib-chip@1").function(images, points)


# OpenCV's model zoo: one person from a cosine of 0.363; DeepFace: up to a distance of 0.07.
JUDGES = {SFACE.name: Judge(_by_sface, 1 - 0.363), DLIB.name: Judge(_by_dlib, 0.07)}


def panel() -> dict[str, Judge]:
    """The judges whose weights are here or can be fetched, by name, the cheaper one first."""
    return {name: judge for name, judge in JUDGES.items() if at_hand(name)}


@dataclass(frozen=True)
class Face:
    """An image, its landmarks and its embeddings by judge."""

    image: np.ndarray
    points: np.ndarray
    told: dict[str, np.ndarray]


@dataclass
class Count:
    """How many images were drawn, and why some were not kept."""

    drawn: int = 0
    kept: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def refuse(self, why: str, images: int = 1) -> None:
        """Count images that are not kept."""
        self.refused[why] = self.refused.get(why, 0) + images


@lru_cache(maxsize=1)
def _mean_style() -> torch.Tensor:
    with torch.inference_mode(False), torch.no_grad():
        return load_generator("cpu")[0](normal((4096, 512), "mean style")).mean(0)


@torch.no_grad()
def style_of(*words: object) -> torch.Tensor:
    """A style (1, 8, 512) that depends on the words only."""
    drawn = load_generator("cpu")[0](normal((1, 512), *words))
    return whole(_mean_style() + TRUNCATION * (drawn - _mean_style())).clone()


def varied(style: torch.Tensor, strength: float, *words: object) -> torch.Tensor:
    """The style with others mixed in, each range of layers from a face of its own."""
    style = style.clone()
    for name, (first, end, share) in MIXED.items():
        step = style_of(*words, name)[:, first:end] - style[:, first:end]
        style[:, first:end] += strength * share * step
    return style


@torch.no_grad()
def rendered(style: torch.Tensor) -> np.ndarray:
    """The image (SIZE, SIZE, 3) uint8 of a style (1, 8, 512), in FFHQ's frame.

    One at a time and on a processor, so that neither a batch nor a device decides a bit of it.
    """
    image = downsampled(load_generator("cpu")[1](style), SIZE)
    return to_uint8(((image + 1) / 2).numpy())[0]


def alike(judges: dict[str, Judge], one: Face, other: Face) -> list[bool]:
    """Whether each judge calls two faces one person."""
    return [cosine_distance(one.told[name][None], other.told[name][None])[0] <= judge.threshold
            for name, judge in judges.items()]


def seen(judges: dict[str, Judge], image: np.ndarray) -> Face | None:
    """An image as the judges see it; None where no face is found."""
    found = find(image)
    if found is None:
        return None
    told = {name: judge.embed([image], [found.points])[0] for name, judge in judges.items()}
    return Face(image, found.points, told)


def drawn(judges: dict[str, Judge], style: torch.Tensor, count: Count) -> Face | None:
    """The face of a style, counted; None where there is none."""
    count.drawn += 1
    face = seen(judges, rendered(style))
    if face is None:
        count.refuse("no face found")
    return face


def another(judges: dict[str, Judge], style: torch.Tensor, first: Face, count: Count,
            *words: object) -> Face | None:
    """Another image of a person; None where no try is one."""
    for attempt in range(TRIES):
        face = drawn(judges, varied(style, LESS**attempt, *words, attempt), count)
        if face and all(alike(judges, first, face)):
            return face
        if face:
            count.refuse("not the person")
    return None


def person(judges: dict[str, Judge], before: list[Face], count: Count,
           *words: object) -> list[Face] | None:
    """Images of the person of these words, the first one unmixed; None if the person is refused.

    Args:
        before: first images of the people before.
    """
    style = style_of(*words)
    first = drawn(judges, style, count)
    if first is None:
        return None
    if any(any(alike(judges, first, other)) for other in before):
        count.refuse("a person like one before")
        return None
    faces = [first]
    for i in range(1, IMAGES):
        if (face := another(judges, style, first, count, *words, i)) is None:
            count.refuse("of a person with too few", len(faces))
            return None
        faces.append(face)
    count.kept += len(faces)
    return faces
