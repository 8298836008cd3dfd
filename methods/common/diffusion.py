"""Gaussian diffusion as plain functions: schedules, q_sample, parameterisations, DDPM and DDIM
steps.

Notation of the paper's appendix B: `betas`, `alpha_bar`, `x_t`, `x0`, `eps`. Tables are float64.
Index i counts the kept timesteps of a respaced schedule; the network always receives the original
timestep. The samplers of DR2, DifFace, PGDiff and DPI are made of `predict`, `posterior` and
`ddim_step`. Source: openai/guided-diffusion, phizaz/diffae (eq. 5-9 of the paper).
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
    def betas(self) -> np.ndarray:
        """Noise added between two kept steps."""
        return 1 - self.alpha_bar / self.alpha_bar_prev

    @property
    def posterior_variance(self) -> np.ndarray:
        """Variance of q(x_{t-1} | x_t, x0); 0 at the first step."""
        return self.betas * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)

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
    """"ddimN" of guided-diffusion: multiples of the integer stride that gives exactly `steps`
    values below T.

    Raises:
        ValueError: no integer stride does.
    """
    for stride in range(1, T + 1):
        if len(range(0, T, stride)) == steps:
            return np.arange(0, T, stride)
    raise ValueError(f"no integer stride gives {steps} of {T} timesteps")


def spread_timesteps(T: int, steps: int) -> np.ndarray:
    """"N" of guided-diffusion: `steps` values from 0 to T - 1 at equal distances, rounded (0, 10,
    .., 50, 61, .. of 100). The distances are added up, as there: with an odd number of steps the
    middle lies between two values, and the sum's last bit decides (499 of 1000 for 21 steps)."""
    distance = (T - 1) / max(1, steps - 1)
    return np.round(np.cumsum([0.0, *[distance] * (steps - 1)])).astype(int)


def trailing_timesteps(T: int, steps: int) -> np.ndarray:
    """`steps` values from T - 1 downwards at equal distances (499, 999 of 1000), so that even one
    step begins where the image is noise (Lin et al., WACV 2024, "trailing")."""
    return np.round(T - np.arange(steps) * T / steps).astype(int)[::-1] - 1


def at(table: np.ndarray, index: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Entries of a float64 table as float32 (N, 1, 1, 1) beside a batch."""
    values = torch.from_numpy(np.asarray(table))[index.cpu()].to(like.device, torch.float32)
    return values.reshape(-1, *[1] * (like.dim() - 1))


def q_sample(schedule: Schedule, x0: torch.Tensor, index: torch.Tensor,
             noise: torch.Tensor) -> torch.Tensor:
    """x_t of q(x_t | x0), eq. 6: sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise."""
    return at(np.sqrt(schedule.alpha_bar), index, x0) * x0 + at(np.sqrt(1 - schedule.alpha_bar),
                                                                index, x0) * noise


class Tables:
    """A schedule's tables on a device, for training steps that must not wait for it.

    Args:
        schedule: whole, not respaced.
    """

    def __init__(self, schedule: Schedule, device: torch.device | str):
        self.signal, self.noise = (torch.from_numpy(np.sqrt(values)).float().to(device)
                                   for values in (schedule.alpha_bar, 1 - schedule.alpha_bar))

    def _at(self, index: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (-1, *[1] * (like.dim() - 1))
        return self.signal[index].reshape(shape), self.noise[index].reshape(shape)

    def q_sample(self, x0: torch.Tensor, index: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """As the function of that name."""
        signal, rest = self._at(index, x0)
        return signal * x0 + rest * noise

    def v_target(self, x0: torch.Tensor, index: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """As the function of that name."""
        signal, rest = self._at(index, x0)
        return signal * noise - rest * x0

    def x0_of_v(self, v: torch.Tensor, x_t: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """x0 that a predicted v means."""
        signal, rest = self._at(index, x_t)
        return signal * x_t - rest * v


def stratified(n: int, T: int, rng: np.random.Generator) -> torch.Tensor:
    """n uniform timesteps, one in each n-th of the range, in random order: the loss varies less
    between batches."""
    u = (np.arange(n) + rng.random(n)) / n
    return torch.from_numpy(rng.permutation((u * T).astype(np.int64)))


def v_target(schedule: Schedule, x0: torch.Tensor, index: torch.Tensor,
             noise: torch.Tensor) -> torch.Tensor:
    """v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022)."""
    return at(np.sqrt(schedule.alpha_bar), index, x0) * noise - at(np.sqrt(1 - schedule.alpha_bar),
                                                                   index, x0) * x0


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
    return at(np.sqrt(schedule.alpha_bar), index, x_t) * x_t - at(np.sqrt(1 - schedule.alpha_bar),
                                                                  index, x_t) * output


def eps_of(schedule: Schedule, x0: torch.Tensor, x_t: torch.Tensor,
           index: torch.Tensor) -> torch.Tensor:
    """The noise that explains x_t given x0."""
    return (at(np.sqrt(1 / schedule.alpha_bar), index, x_t) * x_t - x0) \
        / at(np.sqrt(1 / schedule.alpha_bar - 1), index, x_t)


Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# The next draw of a sampler, (N, C, H, W): samplers name their draws by order of use, as the
# official code makes them.
Draw = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Prediction:
    """What a network's output means at x_t.

    Args:
        x0: clipped to [-1, 1].
        spread: (N, C, H, W) in [-1, 1], where in its range the learned log-variance lies; None for
            fixed variance.
        noise: makes `eps`, which most samplers do not ask for.
    """

    x0: torch.Tensor
    spread: torch.Tensor | None
    noise: Callable[[], torch.Tensor]

    @property
    def eps(self) -> torch.Tensor:
        """As the network gives it, not derived from the clipped x0."""
        return self.noise()


def predict(denoise: Denoise, schedule: Schedule, x_t: torch.Tensor, i: int,
            parameterisation: str = "eps") -> Prediction:
    """Call the network at index i, and read its output; twice the channels mean a learned variance.

    Args:
        denoise: network of (x_t, original timesteps (N,)).
    """
    index, t = steps_of(schedule, x_t, i)
    output = denoise(x_t, t).float()
    spread = output[:, x_t.shape[1]:] if output.shape[1] > x_t.shape[1] else None
    output = output[:, :x_t.shape[1]]
    x0 = x0_of(schedule, output, x_t, index, parameterisation)
    return Prediction(x0.clamp(-1, 1), spread,
                      lambda: output if parameterisation == "eps"
                      else eps_of(schedule, x0, x_t, index))


def steps_of(schedule: Schedule, x: torch.Tensor, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Index i and its original timestep, each (N,) beside a batch."""
    index = torch.full((len(x),), i, dtype=torch.long)
    return index, torch.full((len(x),), int(schedule.timesteps[i]), dtype=torch.long,
                             device=x.device)


def posterior_at(schedule: Schedule, x0: torch.Tensor, x_t: torch.Tensor, index: torch.Tensor,
                 spread: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and log-variance of p(x_{t-1} | x_t): Ho et al. 2020 eq. 7; Nichol & Dhariwal 2021 eq.
    15 where learned.

    The fixed log-variance, and the lower end of the learned one, is that of q(x_{t-1} | x_t, x0),
    which is 0 at index 0 and therefore taken from index 1 there.
    """
    betas, before, alpha_bar, variance = (schedule.betas, schedule.alpha_bar_prev,
                                          schedule.alpha_bar, schedule.posterior_variance)
    mean = at(betas * np.sqrt(before) / (1 - alpha_bar), index, x_t) * x0 \
        + at((1 - before) * np.sqrt(1 - betas) / (1 - alpha_bar), index, x_t) * x_t
    low = at(np.log(np.append(variance[1:2], variance[1:])), index, x_t)
    if spread is None:
        return mean, low
    share = (spread + 1) / 2
    return mean, share * at(np.log(betas), index, x_t) + (1 - share) * low


def posterior(schedule: Schedule, x0: torch.Tensor, x_t: torch.Tensor, i: int,
              spread: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """`posterior_at` one index for the whole batch."""
    return posterior_at(schedule, x0, x_t, steps_of(schedule, x_t, i)[0], spread)


def ddim_sigma(schedule: Schedule, eta: float) -> np.ndarray:
    """Deviation of the noise that a DDIM step adds (Song et al. 2021, eq. 16)."""
    before = schedule.alpha_bar_prev
    return eta * np.sqrt((1 - before) / (1 - schedule.alpha_bar)) * np.sqrt(1 - schedule.alpha_bar
                                                                            / before)


def ddim_step(schedule: Schedule, x0: torch.Tensor, eps: torch.Tensor, i: int, eta: float = 0.0,
              noise: torch.Tensor | None = None) -> torch.Tensor:
    """x_{t-1} of a DDIM step (Song et al. 2021, eq. 12); no noise enters at index 0."""
    index, _ = steps_of(schedule, x0, i)
    before, sigma = schedule.alpha_bar_prev, ddim_sigma(schedule, eta)
    x = at(np.sqrt(before), index, x0) * x0 + at(np.sqrt(1 - before - sigma**2), index, x0) * eps
    return x + at(sigma, index, x0) * noise if eta and i else x


def ddim_sample(denoise: Denoise, x_T: torch.Tensor, schedule: Schedule,
                parameterisation: str = "eps",
                progress: Callable[[], None] = lambda: None) -> torch.Tensor:
    """Deterministic DDIM (eta 0) with x0 clipped to [-1, 1] and eps derived again from the clipped
    x0.

    Args:
        denoise: network of (x_t, original timesteps (N,)).
        x_T: (N, C, H, W) standard normal.
        schedule: respaced schedule; one network call per entry.
        progress: called after each step.

    Source: guided-diffusion `ddim_sample`, Song et al. 2021 eq. 12.
    """
    x = x_T
    for i in reversed(range(len(schedule))):
        x0 = predict(denoise, schedule, x, i, parameterisation).x0
        x = ddim_step(schedule, x0, eps_of(schedule, x0, x, steps_of(schedule, x, i)[0]), i)
        progress()
    return x


def ddim_reverse(denoise: Denoise, x0: torch.Tensor, schedule: Schedule,
                 parameterisation: str = "eps") -> torch.Tensor:
    """Stochastic code of an image: DDIM run from x0 to x_T (DiffAE section 3)."""
    x = x0
    for i in range(len(schedule)):
        index, _ = steps_of(schedule, x, i)
        clean = predict(denoise, schedule, x, i, parameterisation).x0
        eps = eps_of(schedule, clean, x, index)
        x = at(np.sqrt(schedule.alpha_bar_next), index, x) * clean \
            + at(np.sqrt(1 - schedule.alpha_bar_next), index, x) * eps
    return x
