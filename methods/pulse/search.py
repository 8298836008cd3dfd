"""PULSE's search (Menon et al., CVPR 2020): the face of a generator whose downsampled image is I_L.

Styles layer by layer, each on the sphere of its first draw, mapped to where the mapping network
puts its own; Adam on the error of the downsampled image and on the geodesic distance between the
styles, so that they stay near one. Source: adamian98/pulse (losses, steps, schedule and rates).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

STEPS, RATE, L2_WEIGHT, CROSS_WEIGHT, ENOUGH = 100, 0.4, 100.0, 0.05, 1e-3


@dataclass(frozen=True)
class Sphere:
    """Mean and standard deviation (C,) of the mapping network's styles before their leaky ReLU."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def styles(self, latent: torch.Tensor) -> torch.Tensor:
        """Styles (..., C) of standard normal latents."""
        return F.leaky_relu(latent * self.deviation + self.mean, 0.2)


def fitted_sphere(styles: torch.Tensor) -> Sphere:
    """The sphere of styles (N, C) of a mapping network that ends in a leaky ReLU of slope 0.2."""
    before = F.leaky_relu(styles, 5)
    return Sphere(before.mean(0), before.std(0))


def rate_at(step: int, steps: int = STEPS) -> float:
    """Share of the rate: up from a tenth, down again by nine tenths of the steps, then to 0.001."""
    turn = 0.9 * steps
    if step < turn:
        return (9 * (1 - abs(step / turn - 0.5) * 2) + 1) / 10
    return 0.1 + (step - turn) / (steps - turn) * (0.001 - 0.1)


def crossing(styles: torch.Tensor) -> torch.Tensor:
    """Mean square angle (N,) between the styles (N, K, C) of a face, times C / 8."""
    one, other = styles[:, :, None], styles[:, None]
    apart = ((one - other).square().sum(-1) + 1e-9).sqrt()
    together = ((one + other).square().sum(-1) + 1e-9).sqrt()
    return (2 * torch.atan2(apart, together)).square().mean((1, 2)) * styles.shape[-1] / 8


def search(image_of: Callable[[torch.Tensor], torch.Tensor], sphere: Sphere, latent: torch.Tensor,
           downsample: Callable[[torch.Tensor], torch.Tensor], wanted: torch.Tensor,
           further: Callable[[torch.Tensor], torch.Tensor] | None = None,
           steps: int = STEPS) -> tuple[torch.Tensor, torch.Tensor]:
    """Each face's image of lowest loss over the steps, and that loss (N,).

    Args:
        image_of: images (N, 3, S, S) in about [0, 1] of styles (N, K, C).
        latent: standard normal (N, K, C), where the search starts.
        downsample: of images to I_L's size; wanted: I_L (N, 3, h, w).
        further: a further loss (N,) of images.
    """
    latent = latent.clone().requires_grad_(True)
    radius = latent.detach().norm(dim=-1, keepdim=True)
    adam = torch.optim.Adam([latent], RATE)
    best, lowest = None, torch.full((len(latent),), torch.inf, device=latent.device)
    for step in range(steps):
        adam.param_groups[0]["lr"] = RATE * rate_at(step, steps)
        styles = sphere.styles(latent)
        image = image_of(styles)
        error = (downsample(image) - wanted).square().mean((1, 2, 3)).clamp(min=ENOUGH)
        loss = L2_WEIGHT * error + CROSS_WEIGHT * crossing(styles)
        loss = loss + further(image) if further else loss
        better = loss.detach() < lowest
        lowest = torch.where(better, loss.detach(), lowest)
        shown = image.detach()
        best = shown if best is None else torch.where(better[:, None, None, None], shown, best)
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        with torch.no_grad():
            latent *= radius / latent.norm(dim=-1, keepdim=True)
    return best, lowest
