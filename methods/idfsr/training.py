"""`invoke train --what idfsr`: pre-training (paper 3.3): reconstruct I_G from masked I_L, z_s of I_W and z_id of I_G."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from fsrbench.bank import FaceBank, Jitter, load_bank
from fsrbench.core import PROFILES
from fsrbench.data import divided, open_source
from fsrbench.faces.template import template
from fsrbench.methods.diffusion import ddim_sample, ddim_timesteps, linear_schedule, respace, stratified
from fsrbench.methods.idfsr.conditions import masked_and_warped
from fsrbench.methods.idfsr.configs import ABLATION_DEVIATION, DEVIATIONS, config_of
from fsrbench.methods.idfsr.identity import load_identity
from fsrbench.methods.idfsr.network import IdfsrNet, diffae_state
from fsrbench.methods.idfsr.objective import SCALE_ODDS, SCALES, bicubic_there_and_back, diffusion_loss
from fsrbench.rng import numpy_rng
from fsrbench.store import Store
from fsrbench.train import Task, origin_of, trainable
from fsrbench.weights import load_strict, read_state

# Decay of the average where a variant of the ablation trains some 1,500 steps: 0.999 would hold on to the first of them.
SHORT_EMA = 0.995
# Share of the pairs whose reference is the truth itself, as DiffAE trains, where `mini` does not start from weights.
AUTOENCODED = 0.4
# Profile -> pictures a step of one process, and learning rate of Adam; Table 4's for `paper`.
BUDGETS = {"paper": (24, 1e-4), "mini": (16, 2e-4)}


class Batches:
    """Training examples drawn from a bank of faces by step number."""

    jitter = Jitter(grey=0.35)

    def __init__(self, bank: FaceBank, seed: int, frame, autoencoded: float = 0.0):
        self.bank, self.seed, self.autoencoded = bank, seed, autoencoded
        self.template = template(bank.size, frame)

    def degrade(self, gt: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """I_L at HQ size (N, 3, S, S): bicubic down by a random scale each, 8 bit, bicubic up."""
        drawn = rng.choice(SCALES, len(gt), p=SCALE_ODDS)
        return np.stack([bicubic_there_and_back(image, scale) for image, scale in zip(gt, drawn)])

    def detected(self, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Landmarks as a detector might give them on I_L: anywhere between the true ones and the template, jittered."""
        share = rng.random((len(points), 1, 1))
        noise = rng.normal(0, 0.006 * self.bank.size, (len(points), 1, 2)) + rng.normal(0, 0.3, points.shape)
        return share * points + (1 - share) * self.template + noise

    def soften(self, references: torch.Tensor, alone: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Exposure jitter of the references; those of people with a single picture, which serve as their own
        reference, also lose fine detail and get a colour cast, so that z_s cannot carry the answer."""
        n = len(references)

        def uniform(low, high, channels=1):
            return torch.from_numpy(rng.uniform(low, high, (n, channels, 1, 1)).astype(np.float32))
        mild = (references - 0.5) * uniform(0.9, 1.1) + 0.5 + uniform(-0.05, 0.05)
        strong = ((references - 0.5) * uniform(0.6, 1.3) + 0.5 + uniform(-0.2, 0.2)) * uniform(0.85, 1.15, 3)
        side = int(rng.integers(8, 24))
        small = torch.nn.functional.interpolate(strong, size=side, mode="area")
        strong = torch.nn.functional.interpolate(small, size=references.shape[-1], mode="bicubic")
        return torch.where(torch.from_numpy(alone)[:, None, None, None], strong, mild).clamp(0, 1)

    def __call__(self, step: int, n: int) -> dict:
        """Example batch of a step: gt (N, 3, S, S) in [0, 1], its landmarks, I_M, I_W, and the generator's rest."""
        rng = numpy_rng(self.seed, "idfsr", step)
        index = rng.integers(0, len(self.bank), n)
        own = rng.random(n) < self.autoencoded
        partner = np.where(own, index, [self.bank.partner(i, rng) for i in index])
        flip, grey = rng.random(n) < self.jitter.flip, rng.random(n) < self.jitter.grey
        gt, points = self.bank.crops(index, self.bank.matrices(n, self.jitter, rng), flip, grey)
        alone = (partner == index) & ~own
        references, reference_points = self.bank.crops(
            partner, self.bank.matrices(n, self.jitter, rng), flip ^ alone, grey)
        references = self.soften(references, alone, rng)
        lr_up = self.degrade(gt.numpy(), rng)
        I_M, I_W, _ = masked_and_warped(lr_up, self.detected(points, rng), references.numpy(), reference_points)
        return {"gt": gt, "points": points, "lr": torch.from_numpy(lr_up) * 2 - 1, "I_M": I_M, "I_W": I_W, "rng": rng}


@trainable("idfsr")
class IdfsrTask(Task):
    """IDFSR on the training people of a data set.

    Args:
        data: training data set.
        store: where prepared faces are kept.
        profile: "mini" or "paper".
        case: of the ablation, 0 (the default in the ablation's size) to 5; None for the method itself.
        seed: of split and draws.
        init: weights to start from: DiffAE's checkpoint (paper configuration), or an exported safetensors file.
    """

    ema = 0.999

    def __init__(self, data: str, store: Store, profile: str = "mini", case: int | None = None, seed: int = 0,
                 init: str | None = None):
        source, self.profile = open_source(data, store), PROFILES[profile]
        self.batch, self.lr = BUDGETS[profile]
        people, drawn = divided(source, seed)
        self.data, self.case = source.name, case
        self.config = config_of(profile, case)
        if case is not None and profile == "mini":
            self.ema = SHORT_EMA
        self.model = IdfsrNet(self.config)
        if init:
            self.origin = origin_of(Path(init))
            load_strict(self.model, diffae_state(read_state(Path(init)), self.model), init).requires_grad_(True)
        self.schedule = linear_schedule(self.config.T)
        self.identity = load_identity(profile)
        self.bank = load_bank(source, people, self.profile, store)
        autoencoded = 0.0 if init or profile == "paper" else AUTOENCODED
        self.batches = Batches(self.bank, seed, self.profile.frame, autoencoded)
        self.held_out = Batches(load_bank(source, drawn, self.profile, store), seed, self.profile.frame)

    def conditions(self, model: torch.nn.Module, example: dict) -> tuple:
        """(I_M or I_L or None, z_s or None, z_id or None) of an example batch, as the case wants them."""
        unet = self.config.unet
        I_M = {"masked": example["I_M"], "lr": example["lr"], "none": None}[self.config.condition]
        z_s = model.encoder(example["I_W"]) if unet.style_channels else None
        z_id = self.identity(example["gt"], example["points"]) * self.config.z_id_scale if unet.id_channels else None
        return I_M, z_s, z_id

    def loss(self, model: torch.nn.Module, step: int, batch: int) -> torch.Tensor:
        """Eq. 1 on the step's batch."""
        example = self.batches(step, batch)
        noise = torch.from_numpy(example["rng"].standard_normal(example["gt"].shape, dtype=np.float32))
        index = stratified(batch, self.config.T, example["rng"])
        return diffusion_loss(model, self.config, self.schedule, example["gt"] * 2 - 1, index, noise,
                              *self.conditions(model, example))

    @torch.no_grad()
    def sample(self, model: torch.nn.Module, n: int) -> tuple[torch.Tensor, dict]:
        """Restorations of n held-out pictures with the z_id of their truth, as in training, and the examples they are of."""
        example = self.held_out(-n, n)
        I_M, z_s, _ = self.conditions(model, example)
        z_id = self.identity(example["gt"], example["points"]) * self.config.z_id_scale \
            if self.config.unet.id_channels else None
        noise = torch.from_numpy(numpy_rng("picture").standard_normal(example["gt"].shape, dtype=np.float32))

        def denoise(x, t):
            return model(x if I_M is None else torch.cat([x, I_M], 1), t, z_s, z_id)
        kept = respace(self.schedule, ddim_timesteps(self.config.T, self.config.steps))
        return (ddim_sample(denoise, noise, kept, self.config.parameterisation) + 1) / 2, example

    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """On 64 held-out pictures: PSNR, and the cosine of z_id between restoration and truth (of bicubic: `base`)."""
        restored, example = self.sample(model, 64)
        truth, up = self.identity(example["gt"], example["points"]), (example["lr"] + 1) / 2

        def like(images):
            return float((self.identity(images, example["points"]) * truth).sum(1).mean())
        mse = (restored.clamp(0, 1) - example["gt"]).square().mean((1, 2, 3))
        return {"psnr": float((-10 * mse.log10()).mean()), "cosine": like(restored.clamp(0, 1)), "base": like(up)}

    def picture(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: I_L, I_M, I_W, restoration, truth of 16 held-out pictures."""
        restored, example = self.sample(model, 16)
        rows = [(example["lr"] + 1) / 2, (example["I_M"] + 1) / 2, (example["I_W"] + 1) / 2, restored, example["gt"]]
        grid = torch.cat([torch.cat(list(row), -1) for row in rows], -2)
        return (grid.clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).numpy()

    def card(self) -> dict:
        """Configuration and deviations, for the model card."""
        reduced = [ABLATION_DEVIATION] if self.case is not None and self.profile.name == "mini" else []
        return {"case": self.case, "config": asdict(self.config), "deviations": DEVIATIONS[self.profile.name] + reduced}
