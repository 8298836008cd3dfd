"""GroupNorm of the U-Nets, with what scales its output."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F


class Norm(nn.GroupNorm):
    """GroupNorm that a GPU computes in one kernel with the scales and shifts behind it, and in the
    precision of its input (its sums are float32 in any); autocast would make float32 of half, and
    each further scale is a pass over memory, which is what bounds a U-Net at full size."""

    def forward(self, x: torch.Tensor, *factors: torch.Tensor,
                shift: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised x, times the first factor (N, C, 1, 1), plus the shift, times the others."""
        if self.lean(x):
            return self._at_once(x, factors, shift)
        x = super().forward(x)
        for i, factor in enumerate(factors):
            x = x * factor if i or shift is None else x * factor + shift
        return x

    @staticmethod
    def lean(x: torch.Tensor) -> bool:
        """Whether it is worth it: on a GPU, and not in training."""
        return x.device.type == "cuda" and not torch.is_grad_enabled()

    def _at_once(self, x: torch.Tensor, factors: tuple, shift: torch.Tensor | None) -> torch.Tensor:
        n, c = x.shape[:2]
        weight, bias = self.weight.expand(n, c), self.bias.expand(n, c)
        for i, factor in enumerate(f.flatten(1).float() for f in factors):
            weight, bias = weight * factor, bias * factor
            if shift is not None and not i:
                bias = bias + shift.flatten(1).float()
        # Samples stand beside each other as channels, as each has an affine map of its own.
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x.reshape(1, n * c, *x.shape[2:]), n * self.num_groups,
                                weight.reshape(-1).to(x.dtype), bias.reshape(-1).to(x.dtype),
                                self.eps).reshape(x.shape)
