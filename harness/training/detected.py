"""Landmarks of I_L as the benchmark finds them, in batches on the device of the model.

`faces.lr.lr_landmarks` for a training step: nothing waits for the device, so that the step can be a
CUDA graph. The two differ by the rounding between the two passes of PIL's resizing; tests compare.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from fsrbench import registry
from fsrbench.core import Profile
from fsrbench.faces import lr
from fsrbench.faces.align import five_points
from fsrbench.faces.geometry import FFHQ, template
from fsrbench.faces.retinaface import BGR_MEAN, decode_points, load_retinaface, priors
from fsrbench.weights.catalogue import require


def _rows(size: int, side: int, low: float, high: float) -> torch.Tensor:
    """PIL's bicubic resizing (side, size) of one axis, from low to high in pixels: what it makes of
    the unit vectors."""
    unit = Image.fromarray(np.eye(size, dtype=np.float32))
    made = unit.resize((size, side), Image.Resampling.BICUBIC, (0, low, size, high))
    return torch.from_numpy(np.array(made))


class _Look(torch.nn.Module):
    """One detector on aligned images of one profile."""

    def __init__(self, detector: lr.Detector, profile: Profile):
        super().__init__()
        size, side = profile.size, detector.side
        shown = lr.window(profile.frame, detector.frame or profile.frame) * size
        # A network of its own: that of `lr.network` is shared, and stays where it is.
        self.network = load_retinaface(require(detector.weights), detector.config)
        self.points, mean_face = detector.config.points, template(256, FFHQ)
        for name, value in {
                "across": _rows(size, side, shown[0], shown[2]),
                "down": _rows(size, side, shown[1], shown[3]),
                "anchors": priors(side, side), "mean": torch.tensor(BGR_MEAN)[:, None, None],
                "corner": torch.from_numpy(shown[:2]).float(),
                "extent": torch.from_numpy(shown[2:] - shown[:2]).float(),
                "face": torch.from_numpy(mean_face).float(),
                "five": torch.from_numpy(five_points(mean_face)).float()}.items():
            self.register_buffer(name, value)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (N,) and landmarks (N, 68, 2) in pixels, of images (N, 3, S, S) in [0, 1]."""
        levels = (images * 255 + 0.5).floor()
        seen = (self.down @ levels @ self.across.T + 0.5).floor().clamp(0, 255)
        _, conf, landm = self.network(seen.flip(1) - self.mean)
        score, best = conf.float().softmax(-1)[..., 1].max(1)
        points = decode_points(landm.float(), self.anchors)
        points = points.gather(1, best[:, None, None, None].expand(-1, 1, *points.shape[2:]))[:, 0]
        return score, self.dense(points * self.extent + self.corner - 0.5)

    def dense(self, points: torch.Tensor) -> torch.Tensor:
        """`faces.lr.dense` of a batch."""
        if self.points == 68:
            return points
        mean = self.five.mean(0)
        s, middle = self.five - mean, points.mean(1, keepdim=True)
        t = points - middle
        a, b = (s * t).sum((1, 2)), (s[:, 0] * t[..., 1] - s[:, 1] * t[..., 0]).sum(1)
        linear = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], 1)
        return (self.face - mean) @ (linear / s.square().sum()).transpose(1, 2) + middle


class Detected(torch.nn.Module):
    """All detectors that are here, asked in the benchmark's order.

    Attributes:
        sources: what a record calls their landmarks.
    """

    def __init__(self, profile: Profile, device: torch.device | str):
        super().__init__()
        registry.load("detectors")
        found = lr.present()
        self.sources = [d.source for d in found]
        self.looks = torch.nn.ModuleList(_Look(d, profile) for d in found)
        self.register_buffer("template", torch.from_numpy(template(profile.size, profile.frame))
                             .float())
        self.reach = lr.PLAUSIBLE * profile.size
        self.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Landmarks (N, 68, 2) in pixels of I_L at HQ size (N, 3, S, S) in [0, 1]; the mean face
        where no detector is sure."""
        chosen = self.template.expand(len(images), -1, -1)
        for look in reversed(self.looks):
            score, points = look(images)
            off = (points - self.template).norm(dim=-1).mean(-1)
            kept = (score > lr.SURE) & (off < self.reach)
            chosen = torch.where(kept[:, None, None], points, chosen)
        return chosen
