"""PGDiff (Yang et al., NeurIPS 2023): a DDPM from pure noise, each step pulled towards what a
restorer makes of x_t.

Source: pq-yang/PGDiff (NTU S-Lab License 1.0, non-commercial). The official script upsamples by
OpenCV's bilinear, and seeds every image alike; here each sample has its own noise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from fsrbench.core import Batch, Part
from fsrbench.imaging import to_float
from fsrbench.methods.common.arcface import IResNet
from fsrbench.methods.common.diffusion import (
    Denoise,
    Draw,
    Schedule,
    ddim_timesteps,
    posterior,
    predict,
    steps_of,
)
from fsrbench.methods.common.identity import IdentityEncoder
from fsrbench.methods.common.prior import IDDPM, MINI, PriorMethod, respaced
from fsrbench.methods.common.restorer import RESTORER
from fsrbench.methods.common.sface import SIDE, SFace
from fsrbench.methods.pgdiff.network import Restorer
from fsrbench.registry import method
from fsrbench.weights.catalogue import WeightFile, register
from fsrbench.weights.networks import device
from fsrbench.weights.shared import SFACE

LICENCE = "S-Lab 1.0, non-commercial (pq-yang/PGDiff)"
register(WeightFile("pgdiff-restorer", "rrdb_iter_100000.pth", "", LICENCE, "pgdiff.official"))

# "ddpm100" and the default guidance; the README's range for restoration is 0.05 to 0.1.
STEPS, GUIDANCE = 100, 0.1
# Repetitions N of a step while s_end T < i < s_start T; i is the index of the respaced schedule, so
# that with 100 steps nothing is ever repeated: an official quirk.
REPEATS, REPEAT_FROM, REPEAT_TO = 1, 0.7, 1.0
REFERENCE_WEIGHT = 25.0


Restore = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
# Gradient (N, 3, S, S) with respect to x0 of a further loss.
Pull = Callable[[torch.Tensor], torch.Tensor]


def pgdiff_sample(denoise: Denoise, restore: Restore, schedule: Schedule, y: torch.Tensor,
                  x_T: torch.Tensor, draw: Draw,
                  scale: float = GUIDANCE, parameterisation: str = "eps", pull: Pull | None = None,
                  indices: range | None = None, repeats: int = REPEATS,
                  bounds: tuple[float, float] = (REPEAT_FROM * 1000,
                                                 REPEAT_TO * 1000)) -> torch.Tensor:
    """x0 (N, 3, S, S), not clipped.

    The gradient of |target - x0|^2 is taken with respect to x0 alone, not through the network, as
    the official code does.

    Args:
        y: I_L at full size, in [-1, 1]; x_T: standard normal; draw: noise of each step but the
            last.
        scale: s of the guidance.
        indices: of the schedule, falling; all of it by default.
        repeats: N, how often a step whose index lies between `bounds` is made.
    """
    x = x_T
    for i in indices or reversed(range(len(schedule))):
        target = None
        for _ in range(repeats if bounds[0] < i < bounds[1] else 1):
            step = predict(denoise, schedule, x, i, parameterisation)
            if target is None:
                target = restore(x, y, steps_of(schedule, x, i)[1]).clamp(-1, 1)
            mean, log_variance = posterior(schedule, step.x0, x, i, step.spread)
            gradient = 2 * (step.x0 - target)
            if pull:
                gradient = gradient + pull(step.x0)
            x = mean - scale * log_variance.exp() * gradient
            x = x + (0.5 * log_variance).exp() * draw() if i else x
    return x


class PgDiff(PriorMethod):
    """The sampler.

    Class attributes:
        steps: of the sampler; guidance: its scale s.
    """

    title, paper, steps, nfe, enlarged_by = "PGDiff", "pgdiff", STEPS, STEPS, "bilinear"
    guidance = GUIDANCE
    origin = "PGDiff (NeurIPS 2023), pq-yang/PGDiff"
    pull = None

    def restored(self, x_t: torch.Tensor, y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The restorer's x0 (N, 3, S, S)."""
        raise TypeError(f"{self.name} has no restorer")

    def settings(self) -> str:
        """Steps and scale of the guidance."""
        return f"steps={self.steps} guidance={self.guidance}"

    def sample(self, y: torch.Tensor, batch: Batch) -> torch.Tensor:
        """PGDiff's x0."""
        draw = self.draws(batch)
        pull = self.pull(batch) if self.pull else None
        return pgdiff_sample(self.part("prior"), self.restored,
                             respaced(ddim_timesteps(1000, self.steps)), y, draw(), draw,
                             self.guidance, parameterisation=self.parameterisation, pull=pull)


@method
class PgDiffOfficial(PgDiff):
    """The authors' prior and restorer."""

    name, weights, licence = "pgdiff.official", "official", LICENCE
    native = 512
    parts = {"prior": IDDPM, "restorer": Part("pgdiff-restorer", Restorer, lambda: (
        torch.zeros(1, 3, 512, 512), torch.zeros(1, 3, 512, 512), torch.zeros(1, dtype=torch.long)),
        keep=("generator.", "time_embed."), counted=False)}

    def restored(self, x_t: torch.Tensor, y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The RRDB restorer's x0."""
        return self.part("restorer")(x_t, y, t)


@method
class PgDiffMini(PgDiff):
    """The mini prior and the mini restorer."""

    name, weights, profiles = "pgdiff.mini", "mini", ("mini",)
    parts, native, parameterisation = {"prior": MINI, "restorer": RESTORER}, 64, "v"
    # LPIPS on held-out people of LFW, x8 and x16: .132 and .156 with 50 steps at 0.1, .122 and .143
    # with 20 at 0.2, .110 and .140 with 20 at 0.5, .108 and .139 with 50 at 0.3, .116 and .159 with
    # 20 at 1; 100 steps at 0.2 have .108 at x8.
    steps = nfe = 20
    guidance = 0.5
    licence = "trained on LFW (research use)"
    remark = "20 steps at guidance 0.5 instead of the authors' 100 at 0.1: chosen on LFW"

    def restored(self, x_t: torch.Tensor, y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The mini restorer's x0."""
        return self.part("restorer")(torch.cat([x_t, y], 1), t)


def feature_pull(features: Callable[[torch.Tensor], torch.Tensor], wanted: torch.Tensor) -> Pull:
    """Gradient of REFERENCE_WEIGHT |features(x0) - wanted|^2."""
    def pull(x0: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x0 = x0.detach().requires_grad_(True)
            loss = REFERENCE_WEIGHT * (features(x0) - wanted).square().sum()
            return torch.autograd.grad(loss, x0)[0]
    return pull


def whole_face(x0: torch.Tensor) -> torch.Tensor:
    """The official input of ArcFace: the whole image at 112, without alignment."""
    return F.interpolate(x0, size=(112, 112), mode="bilinear", antialias=True)


@method
class PgDiffOfficialRef(PgDiffOfficial):
    """The authors' reference task: x0 is also pulled towards the ArcFace features of I_R."""

    name, title, paper = "pgdiff.official-ref", "PGDiff (reference)", None
    needs = frozenset({"references"})
    parts = {**PgDiffOfficial.parts,
             "E_id": Part("arcface-r50", partial(IResNet, (3, 4, 14, 3)),
                          lambda: (torch.zeros(1, 3, 112, 112),))}

    def pull(self, batch: Batch) -> Pull:
        """Towards the features of the batch's references."""
        images = torch.from_numpy(to_float([p.image
                                            for p in batch.references])).to(device()) * 2 - 1
        network = self.part("E_id")
        return feature_pull(lambda x0: network(whole_face(x0)), network(whole_face(images)))


@method
class PgDiffMiniRef(PgDiffMini):
    """The reference task with SFace, on aligned faces."""

    name, title, paper = "pgdiff.mini-ref", "PGDiff (reference)", None
    # The two pulls together are too much at 0.5. On three people who do not exist, x8, LPIPS and
    # IDS are .442 and .130 there, .254 and .080 at 0.1, .312 and .117 with 100 steps at 0.1.
    guidance = GUIDANCE
    remark = "20 steps instead of the authors' 100"
    needs = frozenset({"references", "landmarks"})
    parts = {**PgDiffMini.parts,
             "E_id": Part(SFACE.name, SFace, lambda: (torch.zeros(1, 3, SIDE, SIDE),))}

    def pull(self, batch: Batch) -> Pull:
        """Towards the features of the batch's references."""
        encoder, points = IdentityEncoder(self.part("E_id"), SIDE), [found.points
                                                                     for found in batch.landmarks]
        images = torch.from_numpy(to_float([p.image for p in batch.references])).to(device())
        wanted = encoder.features(images, [p.landmarks.points for p in batch.references])
        return feature_pull(lambda x0: encoder.features((x0 + 1) / 2, points), wanted)
