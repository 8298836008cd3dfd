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
# The step at which one of several starts is chosen. On 24 people of LFW (x8 and x16) the mean loss
# at the end is .1297 of one start, and of the better of two .1277 by the fifth step, .1281 by this
# one, .1288 by the 25th and .1261 by the last; two of these differ by .001 by chance (one standard
# error).
CHOOSE = 10


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


def search(image_of: Callable[[torch.Tensor], torch.Tensor], sphere: Sphere, starts: torch.Tensor,
           downsample: Callable[[torch.Tensor], torch.Tensor], wanted: torch.Tensor,
           further: Callable[[torch.Tensor], torch.Tensor] | None = None,
           steps: int = STEPS, choose: int = CHOOSE) -> tuple[torch.Tensor, torch.Tensor]:
    """Styles (1, K, C) of the lowest loss over the steps, and that loss (1,), of one face.

    Args:
        image_of: images (N, 3, S, S) in about [0, 1] of styles (N, K, C).
        starts: standard normal (N, K, C), where searches start side by side; from step `choose` on
            the one of lowest loss so far goes on alone.
        downsample: of images to I_L's size; wanted: I_L (1, 3, h, w).
        further: a further loss (N,) of images.
    """
    latents = [start[None].clone().requires_grad_(True) for start in starts]
    radii = [latent.detach().norm(dim=-1, keepdim=True) for latent in latents]
    adam = torch.optim.Adam(latents, RATE)
    best, lowest = starts, torch.full((len(starts),), torch.inf, device=starts.device)
    for step in range(steps):
        if step == choose:
            k = int(lowest.argmin())
            latents, radii, best, lowest = [latents[k]], [radii[k]], best[k:k + 1], lowest[k:k + 1]
            adam.param_groups[0]["params"] = latents
        adam.param_groups[0]["lr"] = RATE * rate_at(step, steps)
        latent = torch.cat(latents)
        styles = sphere.styles(latent)
        image = image_of(styles)
        error = (downsample(image) - wanted).square().mean((1, 2, 3)).clamp(min=ENOUGH)
        loss = L2_WEIGHT * error + CROSS_WEIGHT * crossing(styles)
        loss = loss + further(image) if further else loss
        better = loss.detach() < lowest
        lowest = torch.where(better, loss.detach(), lowest)
        best = torch.where(better[:, None, None], latent.detach(), best)
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        with torch.no_grad():
            for one, radius in zip(latents, radii):
                one *= radius / one.norm(dim=-1, keepdim=True)
    k = lowest.argmin()
    return sphere.styles(best[k:k + 1]), lowest[k:k + 1]
