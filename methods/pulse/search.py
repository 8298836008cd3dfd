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
# at the end is .1297 of one start, and of the better of two .1277 by this step, .1281 by the tenth,
# .1288 by the 25th and .1261 by the last; two of these differ by .001 by chance (one standard
# error).
CHOOSE = 5


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
    """Styles (F, K, C) of the lowest loss over the steps, and that loss (F,), of F faces, each
    searched for by itself.

    Args:
        image_of: images (N, 3, S, S) in about [0, 1] of styles (N, K, C).
        starts: standard normal (F, N, K, C), where the N searches of a face start side by side;
            from step `choose` on the one of lowest loss so far goes on alone.
        downsample: of images to I_L's size; wanted: I_L (F, 3, h, w).
        further: a further loss (F, N) of images (F, N, 3, S, S).
    """
    faces = torch.arange(len(starts), device=starts.device)
    latent = starts.clone().requires_grad_(True)
    radius = starts.norm(dim=-1, keepdim=True)
    adam = torch.optim.Adam([latent], RATE)
    best, lowest = starts, torch.full(starts.shape[:2], torch.inf, device=starts.device)
    for step in range(steps):
        if step == choose:
            kept = faces, lowest.argmin(1)
            latent = _alone(adam, latent, kept)
            radius, best, lowest = (x[kept][:, None] for x in (radius, best, lowest))
        adam.param_groups[0]["lr"] = RATE * rate_at(step, steps)
        styles = sphere.styles(latent)
        image = image_of(styles.flatten(0, 1))
        small = downsample(image).unflatten(0, styles.shape[:2])
        error = (small - wanted[:, None]).square().mean((2, 3, 4)).clamp(min=ENOUGH)
        near = crossing(styles.flatten(0, 1)).unflatten(0, styles.shape[:2])
        loss = L2_WEIGHT * error + CROSS_WEIGHT * near
        loss = loss + further(image.unflatten(0, styles.shape[:2])) if further else loss
        better = loss.detach() < lowest
        lowest = torch.where(better, loss.detach(), lowest)
        best = torch.where(better[..., None, None], latent.detach(), best)
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        with torch.no_grad():
            latent *= radius / latent.norm(dim=-1, keepdim=True)
    kept = faces, lowest.argmin(1)
    return sphere.styles(best[kept]), lowest[kept]


def _alone(adam: torch.optim.Adam, latent: torch.Tensor, kept: tuple) -> torch.Tensor:
    """One of the latents of each face, which Adam goes on with as if it had always been alone."""
    found = latent.detach()[kept][:, None].requires_grad_(True)
    known = adam.state.pop(latent, {})
    adam.state[found] = {name: value[kept][:, None] if value.ndim else value
                         for name, value in known.items()}
    adam.param_groups[0]["params"] = [found]
    return found
