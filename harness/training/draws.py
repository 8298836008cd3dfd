"""Random numbers of a training step, made on the device of the model, without asking the device for
anything.

Nothing here waits for the device or depends on a drawn value in shape, so that a whole step can be
captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from fsrbench.rng import seed_of


class Draws:
    """A generator that is seeded anew for every step, so that a resumed run draws what an
    uninterrupted one would have.

    Args:
        device: of the tensors. The same seed gives other numbers on another kind of device.
    """

    def __init__(self, device: torch.device | str):
        self.device, self.words = torch.device(device), ()
        # Without CUDA a fake device has no generator of its own; fake tensors hold no numbers
        # anyway.
        absent = self.device.type == "cuda" and not torch.cuda.is_available()
        self.generator = None if absent else torch.Generator(self.device)

    def seed(self, *words: object) -> Draws:
        """Start the numbers that belong to these words, which are kept in `words`."""
        self.words = words
        if self.generator is not None:
            self.generator.manual_seed(seed_of(*words))
        return self

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """Uniform in [low, high)."""
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def coins(self, n: int, probability: float) -> torch.Tensor:
        """(n,) bool, true with that probability."""
        return self.uniform(n) < probability

    def below(self, n: int, bound: int) -> torch.Tensor:
        """(n,) int64, uniform in 0 .. bound - 1."""
        return (self.uniform(n) * bound).long().clamp(max=bound - 1)

    def choose(self, n: int, odds: Sequence[float]) -> torch.Tensor:
        """(n,) int64 positions in `odds`, which add up to one."""
        drawn, at = self.uniform(n), torch.zeros(n, dtype=torch.long, device=self.device)
        for edge in accumulate(odds[:-1]):
            at = at + (drawn >= edge)
        return at

    def order(self, n: int) -> torch.Tensor:
        """(n,) int64, a permutation."""
        return self.uniform(n).argsort()

    def stratified(self, n: int, T: int) -> torch.Tensor:
        """n uniform timesteps, one in each n-th of 0 .. T - 1, in random order: the loss varies
        less between batches."""
        u = (torch.arange(n, device=self.device) + self.uniform(n)) / n
        return (u * T).long().clamp(max=T - 1)[self.order(n)]
