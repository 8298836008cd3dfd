"""`invoke train --what prior`: the unconditional 64-px diffusion prior of the `mini` baselines, on training people."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from fsrbench.bank import FaceBank, Jitter, load_bank
from fsrbench.core import PROFILES
from fsrbench.data import divided, open_source
from fsrbench.methods.diffusion import ddim_sample, ddim_timesteps, linear_schedule, q_sample, respace, stratified, v_target
from fsrbench.methods.prior import MINI_PRIOR
from fsrbench.methods.unet import UNet
from fsrbench.rng import normal, numpy_rng
from fsrbench.store import Store
from fsrbench.train import Task, origin_of, trainable
from fsrbench.weights import load_strict, read_state


def training_banks(data: str, store: Store, seed: int, profile: str = "mini") -> tuple[str, FaceBank, FaceBank]:
    """Name of the data set, and faces of the people that the protocol does not draw, and of those that it draws."""
    source = open_source(data, store)
    people, drawn = divided(source, seed)
    banks = [load_bank(source, chosen, PROFILES[profile], store) for chosen in (people, drawn)]
    return source.name, *banks


def crops(bank: FaceBank, n: int, rng: np.random.Generator, jitter: Jitter) -> torch.Tensor:
    """n random faces (n, 3, S, S) in [0, 1], jittered, mirrored, some of them grey."""
    index = rng.integers(0, len(bank), n)
    flip, grey = rng.random(n) < jitter.flip, rng.random(n) < jitter.grey
    return bank.crops(index, bank.matrices(n, jitter, rng), flip, grey)[0]


def v_loss(network: torch.nn.Module, x0: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mean squared error of v at stratified timesteps; x0 (N, 3, S, S) in [-1, 1]."""
    schedule = linear_schedule()
    index = stratified(len(x0), len(schedule), rng)
    noise = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
    output = network(q_sample(schedule, x0, index, noise), index)
    return (output.float() - v_target(schedule, x0, index, noise)).square().mean()


class FaceTask(Task):
    """What the trainings of the mini baselines share: faces to train on and held-out ones, jitter, settings.

    Args:
        data: training data set.
        store: where prepared faces are kept.
        seed: of split and draws.
        init: exported weights to start from.
    """

    batch, lr, ema = 32, 4e-4, 0.9995
    jitter = Jitter(grey=0.35)

    def __init__(self, data: str, store: Store, seed: int = 0, init: str | None = None):
        self.seed, self.model = seed, self.network()
        if init:
            self.origin = origin_of(Path(init))
            load_strict(self.model, read_state(Path(init)), init).requires_grad_(True)
        self.data, self.bank, self.held_out = training_banks(data, store, seed)

    def network(self) -> torch.nn.Module:
        """The untrained network."""
        raise TypeError("a task must build its network")


@trainable("prior")
class PriorTask(FaceTask):
    """The mini prior."""

    def network(self) -> torch.nn.Module:
        """The U-Net."""
        return UNet(MINI_PRIOR)

    def loss(self, model: torch.nn.Module, step: int, batch: int) -> torch.Tensor:
        """Loss on the step's own faces."""
        rng = numpy_rng(self.seed, "prior", step)
        return v_loss(model, crops(self.bank, batch, rng, self.jitter) * 2 - 1, rng)

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """The loss on 256 faces of held-out people, always the same ones with the same noise."""
        rng = numpy_rng("prior", "held out")
        return {"held_out": float(v_loss(model, crops(self.held_out, 256, rng, self.jitter) * 2 - 1, rng))}

    @torch.no_grad()
    def picture(self, model: torch.nn.Module) -> np.ndarray:
        """32 samples in 20 DDIM steps."""
        kept = respace(linear_schedule(), ddim_timesteps(1000, 20))
        faces = (ddim_sample(model, normal((32, 3, 64, 64), "picture"), kept, "v") + 1) / 2
        grid = torch.cat([torch.cat(list(row), -1) for row in faces.chunk(4)], -2)
        return (grid.clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).numpy()

    def card(self) -> dict:
        """Configuration."""
        return {"config": asdict(MINI_PRIOR), "parameterisation": "v, linear betas, T = 1000",
                "deviations": ["64-pixel faces of LFW instead of FFHQ at 256 or 512; v instead of eps with learned variance",
                               "35 % of the training pictures turned grey"]}
