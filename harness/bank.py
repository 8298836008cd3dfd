"""Faces in memory for training: aligned with a margin, cropped with jitter on the fly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.core import Profile
from fsrbench.data import Preparation, Source, prepare, verified
from fsrbench.errors import FsrError
from fsrbench.faces.template import MIRROR_68, Frame
from fsrbench.store import Store

# The bank shows this much more than the profile's frame, so that a jittered crop stays inside it.
MARGIN = 1.2


@dataclass(frozen=True)
class Jitter:
    """Random changes of a crop: uniform ranges, and probabilities of mirroring and of turning grey."""

    degrees: float = 4.0
    scale: float = 0.06
    shift: float = 0.03
    flip: float = 0.5
    grey: float = 0.0


@dataclass
class FaceBank:
    """Aligned faces of many people.

    Args:
        images: uint8 (N, 3, B, B).
        points: (N, 68, 2) landmarks in bank pixels.
        person: (N,) index of the person.
        ids: N "person/image".
        size: side of the crops to be made.
    """

    images: torch.Tensor
    points: np.ndarray
    person: np.ndarray
    ids: list[str]
    size: int

    def __post_init__(self) -> None:
        self.members = [np.flatnonzero(self.person == p) for p in range(self.person.max() + 1)]

    def __len__(self) -> int:
        return len(self.images)

    def partner(self, index: int, rng: np.random.Generator) -> int:
        """Another picture of the same person; the same one where there is no other."""
        others = self.members[self.person[index]]
        others = others[others != index]
        return int(rng.choice(others)) if len(others) else index

    def signatures(self) -> np.ndarray:
        """Signatures (N, 256) of all pictures as the profile crops them, to recognise them later."""
        from fsrbench.datasets.splits import signature

        still, rng, found = Jitter(0, 0, 0), np.random.default_rng(0), []
        for index in np.array_split(np.arange(len(self)), max(1, len(self) // 256)):
            off = np.zeros(len(index), bool)
            crops, _ = self.crops(index, self.matrices(len(index), still, rng), off, off)
            found += [signature(image) for image in (crops * 255).round().byte().permute(0, 2, 3, 1).numpy()]
        return np.stack(found)

    def matrices(self, n: int, jitter: Jitter, rng: np.random.Generator) -> np.ndarray:
        """n random 2x3 maps from crop pixels to bank pixels."""
        angle = np.deg2rad(rng.uniform(-jitter.degrees, jitter.degrees, n))
        bank = self.images.shape[-1]
        step = bank / MARGIN / self.size * (1 + rng.uniform(-jitter.scale, jitter.scale, n))
        shift = rng.uniform(-jitter.shift, jitter.shift, (n, 2)) * bank
        linear = step[:, None, None] * np.stack([np.stack([np.cos(angle), -np.sin(angle)], -1),
                                                 np.stack([np.sin(angle), np.cos(angle)], -1)], 1)
        middle = np.full(2, (self.size - 1) / 2)
        offset = (bank - 1) / 2 + shift - linear @ middle
        return np.concatenate([linear, offset[..., None]], -1)

    def crops(self, index: np.ndarray, matrices: np.ndarray, flip: np.ndarray,
              grey: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """Crops and their landmarks.

        Args:
            index: (n,) which pictures; matrices: (n, 2, 3); flip, grey: (n,) bool.

        Returns:
            (n, 3, S, S) float32 in [0, 1] and (n, 68, 2) landmarks in crop pixels.
        """
        images = self.images[index].float() / 255
        crops = F.avg_pool2d(sample_similarity(images, matrices, self.size, fine=2), 2)
        inverse = np.linalg.inv(matrices[:, :, :2])
        points = (self.points[index] - matrices[:, None, :, 2]) @ inverse.transpose(0, 2, 1)
        flip_t, grey_t = torch.from_numpy(flip)[:, None, None, None], torch.from_numpy(grey)[:, None, None, None]
        crops = torch.where(flip_t, crops.flip(-1), crops)
        luma = (crops * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
        mirrored = points[:, MIRROR_68] * [-1, 1] + [self.size - 1, 0]
        return torch.where(grey_t, luma, crops), np.where(flip[:, None, None], mirrored, points)


def sample_similarity(images: torch.Tensor, matrices: np.ndarray, size: int, fine: int = 1) -> torch.Tensor:
    """Bilinear crops (N, C, fine size, fine size) whose pixel p lies at matrix(p) of each image; the border mirrors."""
    axis = (torch.arange(size * fine, dtype=torch.float64) + 0.5) / fine - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([x, y, torch.ones_like(x)], -1)
    at = torch.einsum("hwk,nik->nhwi", grid, torch.as_tensor(matrices, dtype=torch.float64))
    extent = torch.tensor([images.shape[-1] - 1, images.shape[-2] - 1])
    return F.grid_sample(images, (at / extent * 2 - 1).float(), padding_mode="reflection", align_corners=True)


def load_bank(source: Source, people: list[str], profile: Profile, store: Store) -> FaceBank:
    """A bank of all pictures of these people in which a face was found.

    Raises:
        FsrError: there is none.
    """
    chosen = set(people)
    entries = verified(source, [e for e in source.entries if e.person in chosen], store)
    frame = Frame(profile.frame.scale * MARGIN, profile.frame.drop)
    how = Preparation(round(profile.size * 1.75), frame, source.aligned)
    kept = [p for p in prepare(source, entries, how, store) if not p.error] if entries else []
    if not kept:
        raise FsrError(f"data set {source.name}", "no face is left for training or for holding out",
                       "give a data set of which the protocol draws a part only (lfw)", code=2)
    names = {name: i for i, name in enumerate(sorted({p.entry.person for p in kept}))}
    images = np.stack([store.image(p.image) for p in kept])
    return FaceBank(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), np.stack([p.points for p in kept]),
                    np.array([names[p.entry.person] for p in kept]), [p.entry.id for p in kept], profile.size)
