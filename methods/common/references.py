"""What ASFFNet and DMDNet share as methods of the benchmark: references, landmarks of I_L, and
samples that cannot be done.

Each is registered under four tags. The paper's protocol gives one reference I_R; `-album` gives all
images of the person's fine-tune half, as the authors use them. Landmarks are detected on I_L;
`-oracle` takes those of the ground truth, which nobody has in practice. A sample whose face no
detector found is counted as failed: the template, which other methods fall back on, is not a
landmark of this face.
"""

from __future__ import annotations

import numpy as np
import torch

from fsrbench.core import Batch, FaceImage, Method, Part
from fsrbench.faces.geometry import TEMPLATE
from fsrbench.imaging import enlarged_by_opencv, to_float
from fsrbench.methods.common.licences import LFW_LICENCE
from fsrbench.methods.common.resizing import resized, rule
from fsrbench.registry import method
from fsrbench.weights.catalogue import Bundled, WeightFile, register
from fsrbench.weights.networks import device

_LEAK = "its authors trained on CelebRef-HQ, whose identities the test may hold"


def scaled(points: np.ndarray, factor: float) -> np.ndarray:
    """Landmarks in the pixels of an image upsampled by a factor."""
    return (points + 0.5) * factor - 0.5


class ReferenceMethod(Method):
    """Prepare each sample from landmarks and references, then restore those that could be prepared.

    Class attributes:
        native: side at which the network works.
        as_opencv: upsample I_L by OpenCV's INTER_AREA, as the authors' scripts do; else
            bicubically.
    """

    nfe, native, as_opencv = 1, 64, False

    def candidates(self, batch: Batch, i: int) -> tuple[FaceImage, ...]:
        """The references that sample i may use."""
        return batch.albums[i] if "album" in self.needs else (batch.references[i],)

    def resizing(self) -> str:
        """To the network's side and back."""
        way = "OpenCV's area of the LR image" if self.as_opencv else "antialiased bicubic"
        return rule(self.profile.size, (self.native,), way)

    def prepare(self, points: np.ndarray, references: tuple[FaceImage, ...]) -> object:
        """What the network needs beside I_L, from the landmarks (68, 2) of I_L in native pixels.

        Raises:
            ValueError: the landmarks are of no use.
        """
        raise TypeError(f"{self.name} prepares nothing")

    def infer(self, lq: torch.Tensor, prepared: list) -> torch.Tensor:
        """Restorations (n, 3, native, native) in [-1, 1] of I_L, likewise."""
        raise TypeError(f"{self.name} has no network")

    def tensors(self, references: tuple[FaceImage, ...]) -> tuple[torch.Tensor, list[np.ndarray]]:
        """References (R, 3, native, native) in [-1, 1], and their landmarks, at the native size."""
        images = resized(torch.from_numpy(to_float([p.image for p in references])),
                         self.native).clamp(0, 1) * 2 - 1
        return images, [scaled(p.landmarks.points, self.native / p.image.shape[0])
                        for p in references]

    @torch.no_grad()
    def restore(self, batch: Batch) -> torch.Tensor:
        """(N, 3, S, S) in [0, 1]; what cannot be restored is told in `batch.failures`, and I_L
        stands in its place."""
        restored, prepared = torch.from_numpy(batch.upsampled.copy()), {}
        for i, found in enumerate(batch.landmarks):
            if found.source == TEMPLATE:
                batch.failures[i] = "no landmarks found in I_L"
                continue
            try:
                points = scaled(found.points, self.native / batch.size)
                prepared[i] = self.prepare(points, self.candidates(batch, i))
            except ValueError as reason:
                batch.failures[i] = str(reason)
        if prepared:
            chosen = list(prepared)
            y = torch.from_numpy(enlarged_by_opencv(batch.lr[chosen], self.native,
                                                    "area")) if self.as_opencv else \
                resized(restored[chosen], self.native).clamp(0, 1)
            x0 = self.infer((y * 2 - 1).to(device()), list(prepared.values()))
            images = resized(((x0.float() + 1) / 2).clamp(0, 1), batch.size)
            restored[chosen] = images.clamp(0, 1).cpu()
        return restored


def register_mini(name: str) -> None:
    """The catalogue's entry of a network trained here."""
    register(WeightFile(f"{name}-mini", f"{name}-mini.safetensors", "", LFW_LICENCE,
                        f"{name}.mini (`invoke train --what {name}`)", (Bundled(),)))


def register_tags(base: type[ReferenceMethod], weights: str, config: object, native: int,
                  licence: str, part: Part) -> None:
    """Register a method under its four tags.

    Args:
        weights: "official" or "mini"; config: of the network `part`; native: side at which it
            works.
    """
    for album in (False, True):
        for oracle in (False, True):
            said = ["album"] * album + ["true landmarks"] * oracle
            method(type(f"{base.__name__}{weights.title()}{'Album' * album}{'Oracle' * oracle}",
                        (base,), {
                "__module__": base.__module__, "__doc__": base.__doc__, "weights": weights,
                "config": config,
                "name": f"{base.paper}.{weights}{'-album' * album}{'-oracle' * oracle}",
                "licence": licence,
                "title": base.title + (f" ({', '.join(said)})" if said else ""),
                "as_opencv": weights == "official",
                "needs": frozenset({"references", "landmarks", *["album"] * album,
                                    *["oracle"] * oracle}),
                "parts": {"network": part}, "profiles": ("mini", "paper") if weights == "official"
                else ("mini",),
                "remark": _LEAK if weights == "official" else "", "native": native}))
