"""StableSR's schedule and sampler."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from fsrbench.methods.common.diffusion import Draw, Schedule, posterior, q_sample, steps_of, x0_of

# SD's scale of latents, and the number of steps that the paper's Table 6 gives.
LATENT_SCALE, STEPS = 0.18215, 50
# The face script draws 200 steps, and pulls the latent to the reference's from this respaced index
# on.
FACE_STEPS, GUIDED_FROM = 200, 10


def sd_schedule(T: int = 1000, first: float = 0.00085, last: float = 0.012) -> Schedule:
    """Betas whose square roots are evenly spaced (Stable Diffusion)."""
    betas = np.linspace(first**0.5, last**0.5, T, dtype=np.float64)**2
    return Schedule(np.cumprod(1 - betas), np.arange(T))


def stablesr_sample(denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
                    schedule: Schedule, x_T: torch.Tensor,
                    draw: Draw, parameterisation: str = "eps", guide: torch.Tensor | None = None,
                    guided_from: int = GUIDED_FROM) -> torch.Tensor:
    """Latent x0 by ancestral sampling without clipping.

    Args:
        denoise: network of (x_t, original timesteps (N,)).
        guide: latent that x0 is pulled to while the respaced index is at least `guided_from`. The
            official ten gradient steps of rate 0.5 on |guide - x0|^2 / B reach it at once for B =
            1; that is the rule here for every sample, where the official result depends on the size
            of the batch.
    """
    x = x_T
    for i in reversed(range(len(schedule))):
        index, t = steps_of(schedule, x, i)
        if guide is not None and i >= guided_from:
            x0 = guide
        else:
            x0 = x0_of(schedule, denoise(x, t).float(), x, index, parameterisation)
        mean, log_variance = posterior(schedule, x0, x, i)
        x = mean + (0.5 * log_variance).exp() * draw() if i else mean
    return x


def noised_latent(latent: torch.Tensor, schedule: Schedule, draw: Draw) -> torch.Tensor:
    """x_T: the LR latent, noised to the last step."""
    return q_sample(schedule, latent, steps_of(schedule, latent, len(schedule) - 1)[0], draw())
