"""Gaussian diffusion as plain functions: schedules, q_sample, parameterisations, DDIM.

Notation of the paper's appendix B: `betas`, `alpha_bar`, `x_t`, `x0`, `eps`. Tables are float64. Index i counts the
kept timesteps of a respaced schedule; the network always receives the original timestep.
Source: openai/guided-diffusion, phizaz/diffae (eq. 5-9 of the paper).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Schedule:
    """A noise schedule, whole or respaced.

    Args:
        alpha_bar: (n,) cumulative product at the kept timesteps, in rising order of noise.
        timesteps: (n,) original timesteps that the network is told.
    """

    alpha_bar: np.ndarray
    timesteps: np.ndarray

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def alpha_bar_prev(self) -> np.ndarray:
        """alpha_bar one kept step earlier (1 before the first)."""
        return np.append(1.0, self.alpha_bar[:-1])

    @property
    def alpha_bar_next(self) -> np.ndarray:
        """alpha_bar one kept step later (0 after the last)."""
        return np.append(self.alpha_bar[1:], 0.0)


def linear_schedule(T: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Linear betas, scaled by 1000/T (Ho et al. 2020; paper 3.3)."""
    betas = np.linspace(first * 1000 / T, last * 1000 / T, T, dtype=np.float64)
    return Schedule(np.cumprod(1 - betas), np.arange(T))


def respace(schedule: Schedule, timesteps: list[int] | np.ndarray) -> Schedule:
    """The same process seen at some of its timesteps only."""
    kept = np.sort(np.asarray(timesteps))
    return Schedule(schedule.alpha_bar[kept], schedule.timesteps[kept])


def ddim_timesteps(T: int, steps: int) -> np.ndarray:
    """"ddimN" of guided-diffusion: multiples of the integer stride that gives exactly `steps` values below T.

    Raises:
        ValueError: no integer stride does.
    """
    for stride in range(1, T + 1):
        if len(range(0, T, stride)) == steps:
            return np.arange(0, T, stride)
    raise ValueError(f"no integer stride gives {steps} of {T} timesteps")


def at(table: np.ndarray, index: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Entries of a float64 table as float32 (N, 1, 1, 1) beside a batch."""
    values = torch.from_numpy(np.asarray(table))[index.cpu()].to(like.device, torch.float32)
    return values.reshape(-1, *[1] * (like.dim() - 1))


def q_sample(schedule: Schedule, x0: torch.Tensor, index: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """x_t of q(x_t | x0), eq. 6: sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise."""
    return at(np.sqrt(schedule.alpha_bar), index, x0) * x0 + at(np.sqrt(1 - schedule.alpha_bar), index, x0) * noise


def v_target(schedule: Schedule, x0: torch.Tensor, index: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022)."""
    return at(np.sqrt(schedule.alpha_bar), index, x0) * noise - at(np.sqrt(1 - schedule.alpha_bar), index, x0) * x0


def x0_of(schedule: Schedule, output: torch.Tensor, x_t: torch.Tensor, index: torch.Tensor,
          parameterisation: str) -> torch.Tensor:
    """x0 that a network's output means.

    Args:
        output: what the network returned.
        parameterisation: "eps" (the paper) or "v".
    """
    if parameterisation == "eps":
        return at(np.sqrt(1 / schedule.alpha_bar), index, x_t) * x_t \
            - at(np.sqrt(1 / schedule.alpha_bar - 1), index, x_t) * output
    return at(np.sqrt(schedule.alpha_bar), index, x_t) * x_t - at(np.sqrt(1 - schedule.alpha_bar), index, x_t) * output


def eps_of(schedule: Schedule, x0: torch.Tensor, x_t: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The noise that explains x_t given x0."""
    return (at(np.sqrt(1 / schedule.alpha_bar), index, x_t) * x_t - x0) \
        / at(np.sqrt(1 / schedule.alpha_bar - 1), index, x_t)


Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def ddim_sample(denoise: Denoise, x_T: torch.Tensor, schedule: Schedule, parameterisation: str = "eps",
                progress: Callable[[], None] = lambda: None) -> torch.Tensor:
    """Deterministic DDIM (eta 0) with x0 clipped to [-1, 1] and eps derived again from the clipped x0.

    Args:
        denoise: network of (x_t, original timesteps (N,)).
        x_T: (N, C, H, W) standard normal.
        schedule: respaced schedule; one network call per entry.
        progress: called after each step.

    Source: guided-diffusion `ddim_sample`, Song et al. 2021 eq. 12.
    """
    x = x_T
    for i in reversed(range(len(schedule))):
        index = torch.full((len(x),), i, dtype=torch.long)
        t = torch.full((len(x),), int(schedule.timesteps[i]), dtype=torch.long, device=x.device)
        x0 = x0_of(schedule, denoise(x, t), x, index, parameterisation).clamp(-1, 1)
        eps = eps_of(schedule, x0, x, index)
        x = at(np.sqrt(schedule.alpha_bar_prev), index, x) * x0 \
            + at(np.sqrt(1 - schedule.alpha_bar_prev), index, x) * eps
        progress()
    return x


def ddim_reverse(denoise: Denoise, x0: torch.Tensor, schedule: Schedule, parameterisation: str = "eps") -> torch.Tensor:
    """Stochastic code of an image: DDIM run from x0 to x_T (DiffAE section 3)."""
    x = x0
    for i in range(len(schedule)):
        index = torch.full((len(x),), i, dtype=torch.long)
        t = torch.full((len(x),), int(schedule.timesteps[i]), dtype=torch.long, device=x.device)
        clean = x0_of(schedule, denoise(x, t), x, index, parameterisation).clamp(-1, 1)
        eps = eps_of(schedule, clean, x, index)
        x = at(np.sqrt(schedule.alpha_bar_next), index, x) * clean \
            + at(np.sqrt(1 - schedule.alpha_bar_next), index, x) * eps
    return x
