"""`invoke train --what idfsr`: pre-training (paper 3.3): reconstruct I_G from masked I_L, z_s of
I_W and z_id of I_G."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.errors import FsrError
from fsrbench.faces.geometry import template
from fsrbench.methods.common.diffusion import (
    Tables,
    ddim_sample,
    linear_schedule,
    respace,
)
from fsrbench.methods.common.identity import PREFERENCE, chosen, load_identity
from fsrbench.methods.common.image_loss import lpips
from fsrbench.methods.idfsr.configs import ABLATION_DEVIATION, CASES, DEVIATIONS, config_of
from fsrbench.methods.idfsr.network import IdfsrNet, diffae_state
from fsrbench.profiles import PROFILES
from fsrbench.rng import numpy_rng
from fsrbench.training.bank import STILL, Bank, Faces, Jitter, encodes
from fsrbench.training.detected import Detected
from fsrbench.training.draws import Draws
from fsrbench.training.faces import FACTORS, downsampled, upsampled, warped
from fsrbench.training.tasks import Example, Stage, Task, origin_of, sheet, trainable
from fsrbench.weights.catalogue import locate
from fsrbench.weights.fill import trained
from fsrbench.weights.networks import load_strict, read_state


def _encoder_of_banks(profile: str) -> None:
    @encodes(profile)
    def make():
        # Without an encoder's file a bank serves all trainings but IDFSR's; those of `mini` are
        # fetched.
        if profile != "mini" and not locate(chosen(profile)):
            return "", None
        trained(chosen(profile))
        return chosen(profile), load_identity(profile)


for _profile in PREFERENCE:
    _encoder_of_banks(_profile)


@dataclass(frozen=True)
class Recipe:
    """How a profile is trained; the defaults are the paper's.

    Args:
        batch, lr, ema: of the loop.
        jitter: of the crops.
        odds: how often each of FACTORS is seen.
        detected: whether the landmarks of I_L are those that the benchmark's detectors find on it;
            else they lie between the true ones and the mean face.
        relit: whether references are of another exposure, and coarser where they are the ground
            truth itself.
        paired: share of the examples from people with two or more images; the others are their own
            reference.
        lpips: weight of LPIPS on the predicted x0, beside eq. 1.
        identity: weight of 1 - cosine between z_id and the E_id of the predicted x0, and on which
            share of a batch.
        kept: whether only the timesteps of inference are trained on, all alike.
        borrowed: share of the examples whose z_id is of the reference instead of the ground truth.
    """

    batch: int
    lr: float
    ema: float
    jitter: Jitter = Jitter(0, 0, 0)
    odds: tuple[float, ...] = (0.0, 0.0, 0.25, 0.25, 0.25, 0.25)
    detected: bool = True
    relit: bool = False
    paired: float = 1.0
    lpips: float = 0.0
    identity: float = 0.0
    identity_share: float = 0.25
    kept: bool = False
    borrowed: float = 0.0


# Table 4 for `paper`; `DEVIATIONS` names what it leaves open.
RECIPES = {"paper": Recipe(24, 1e-4, 0.9999),
           "mini": Recipe(32, 8e-4, 0.999, Jitter(grey=0.35), (0.0, 0.0, 0.15, 0.35, 0.35, 0.15),
                          detected=False, relit=True, paired=0.9, lpips=0.5)}
# The last stretch of `mini`. Of what was tried on held-out people this moved the identity most:
# 30,000 images of it took
# the gap with the reference's z_id from .087 to .157, at .003 of LPIPS.
# At the timesteps of inference alone 32,000 more took it from .287, in two steps, to .338.
JUDGED = replace(RECIPES["mini"], lr=3e-4, identity=0.25, kept=True)


@trainable("idfsr")
class IdfsrTask(Task):
    """IDFSR on the training people of a data set.

    Args:
        case: of the ablation, 0 (the default in the ablation's size) to 5; None for the method
            itself.
        init: weights to start from: DiffAE's checkpoint (paper configuration), or an exported
            safetensors file.
        recipe: None for the profile's.
    """

    profiles = ("mini", "paper")
    # The variants of the ablation in two lanes, as they have a smaller budget.
    stages = (Stage("idfsr-first", "idfsr", 0, 0.92, goes_on="idfsr-mini"),
              *(Stage(f"idfsr-mini-case{case}", f"ablation-{case // 3}", case, link="",
                      variant=True, arguments={"case": case})
                for case in CASES))

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0,
                 init: str | None = None, case: int | None = None, recipe: Recipe | None = None):
        self.profile, self.case = PROFILES[bank.origin.profile], case
        self.recipe, self.config = (recipe or RECIPES[self.profile.name],
                                    config_of(self.profile.name, case))
        self.batch, self.lr, self.ema = self.recipe.batch, self.recipe.lr, self.recipe.ema
        super().__init__(bank, device, seed, init)
        if self.recipe.paired and not len(bank.train.several):
            raise FsrError("training idfsr", "nobody in the data has two images",
                           "give a data set of people with several images each", code=2)
        if self.config.unet.id_channels and bank.train.z_id is None:
            raise FsrError("bank of faces",
                           "holds no z_id, as the identity encoder of the profile was not there",
                           "make it anew where `invoke weights` shows one", code=2)
        self.tables = Tables(linear_schedule(self.config.T), self.device)
        self.kept = torch.from_numpy(self.config.timesteps).to(self.device)
        self.template = torch.from_numpy(template(self.profile.size,
                                                  self.profile.frame)).float().to(self.device)
        self.judge = load_identity(self.profile.name, self.device) if self.recipe.identity else None
        self.detector = Detected(self.profile, self.device) if self.recipe.detected else None

    def network(self) -> torch.nn.Module:
        """The network of the profile, or of the ablation's case."""
        return IdfsrNet(self.config)

    def start_from(self, path: Path) -> None:
        """Take DiffAE's weights, or exported ones."""
        self.origin, state = origin_of(path), read_state(path)
        try:
            state = diffae_state(state, self.model)
        except (AttributeError, FsrError, RuntimeError):  # of a first layer that is wider
            diffae = "DiffAE's ffhq256_autoenc last.ckpt, or " * (self.profile.name == "paper")
            raise FsrError(f"--init {path}", "is of no such network",
                           f"give {diffae}what `invoke export --what idfsr` wrote in this profile",
                           code=2) from None
        load_strict(self.model, state, str(path)).requires_grad_(True)

    # --- examples ---------------------------------------------------------------------------------

    def landmarks(self, draws: Draws, points: torch.Tensor, I_L: torch.Tensor) -> torch.Tensor:
        """Landmarks of I_L in [0, 1]: those that are detected, or such as might be: anywhere
        between the true ones and the template, jittered."""
        if self.detector is not None:
            return self.detector(I_L)
        n, share = len(points), draws.uniform(len(points), 1, 1)
        moved = draws.normal(n, 1, 2) * (0.006 * self.profile.size) + draws.normal(n, 68, 2) * 0.3
        return share * points + (1 - share) * self.template + moved

    @staticmethod
    def softened(draws: Draws, references: torch.Tensor, alone: torch.Tensor) -> torch.Tensor:
        """Exposure jitter of the references; those of people with a single image, which serve as
        their own reference, also lose fine detail and get a colour cast, so that z_s cannot carry
        the answer."""
        n, size = len(references), references.shape[-1]

        def uniform(low: float, high: float, channels: int = 1) -> torch.Tensor:
            return draws.uniform(n, channels, 1, 1, low=low, high=high)
        mild = (references - 0.5) * uniform(0.9, 1.1) + 0.5 + uniform(-0.05, 0.05)
        strong = ((references - 0.5) * uniform(0.6, 1.3) + 0.5
                  + uniform(-0.2, 0.2)) * uniform(0.85, 1.15, 3)
        strong = F.interpolate(F.interpolate(strong, size=size // 4, mode="area"), size=size,
                               mode="bicubic")
        return torch.where(alone[:, None, None, None], strong, mild).clamp(0, 1)

    def timesteps(self, draws: Draws, n: int) -> torch.Tensor:
        """Timesteps (n,) to train on: of all, or of those of inference."""
        return (self.kept[draws.stratified(n, len(self.kept))] if self.recipe.kept
                else draws.stratified(n, self.config.T))

    def examples(self, draws: Draws, faces: Faces, n: int, factor: int | None = None) -> Example:
        """Ground truths x0, I_L, I_M and I_W (n, 3, S, S) in [-1, 1], z_id, timesteps and noise.

        Args:
            factor: of the degradation, for held-out faces: they come without jitter, of people with
                two or more images.
        """
        still = factor is not None
        jitter, forehead = STILL if still else self.recipe.jitter, self.config.region == "forehead"
        index = faces.draw(draws, n, 1.0 if still else self.recipe.paired)
        partner = faces.partner(draws, index)
        alone = partner == index
        flip, grey = draws.coins(n, jitter.flip), draws.coins(n, jitter.grey)
        gt, points = faces.crops(draws, index, jitter, flip, grey)
        references, marks = faces.crops(draws, partner, jitter, flip ^ alone, grey)
        if self.recipe.relit and not still:
            references = self.softened(draws, references, alone)
        chosen = torch.full_like(index, FACTORS.index(factor)) if still else draws.choose(
            n, self.recipe.odds)
        I_L = upsampled(downsampled(gt, chosen), chosen)
        I_W, mask = warped(references * 2 - 1, marks, self.landmarks(draws, points, I_L),
                           faces.warp_triangles(index, flip, forehead), forehead)
        if not forehead:  # as in `conditions.masked_and_warped`
            I_W = I_W + (1 - mask) * (references[:, :, :1, :1] * 2 - 1)
        I_L = I_L * 2 - 1
        made = {"x0": gt * 2 - 1, "points": points, "I_L": I_L, "I_M": I_L * (1 - mask), "I_W": I_W,
                "index": index,
                "partner": partner, "t": self.timesteps(draws, n),
                "noise": draws.normal(*gt.shape)}
        if faces.z_id is not None:
            borrowed = draws.coins(n, 0.0 if still else self.recipe.borrowed)
            made["z_id"] = faces.z_id[torch.where(borrowed, partner,
                                                  index)] * self.config.z_id_scale
        return made

    def conditions(self, model: torch.nn.Module, example: Example) -> tuple:
        """(I_M or I_L or None, z_s or None, z_id or None) of an example batch, as the case wants
        them."""
        unet = self.config.unet
        condition = {"masked": example["I_M"], "lr": example["I_L"],
                     "none": None}[self.config.condition]
        return (condition, model.encoder(example["I_W"]) if unet.style_channels else None,
                example["z_id"] if unet.id_channels else None)

    # --- the objective ----------------------------------------------------------------------------

    def loss(self, model: torch.nn.Module, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        """Eq. 1 on v (or eps), with what the recipe adds; shown is eq. 1."""
        x0, t, noise = example["x0"], example["t"], example["noise"]
        condition, z_s, z_id = self.conditions(model, example)
        x_t = self.tables.q_sample(x0, t, noise)
        output = model(x_t if condition is None else torch.cat([x_t, condition], 1), t, z_s,
                       z_id).float()
        if self.config.parameterisation == "eps":
            error = (output - noise).square().mean()
            return error, error
        error = (output - self.tables.v_target(x0, t, noise)).square().mean()
        total, clean = error, self.tables.x0_of_v(output, x_t, t)
        if self.recipe.lpips:
            total = total + self.recipe.lpips * lpips(clean, x0)
        if self.judge is not None:
            total = total + self.recipe.identity * self.stranger(clean, example)
        return total, error

    def stranger(self, x0: torch.Tensor, example: Example) -> torch.Tensor:
        """1 - cosine between z_id and the E_id of the predicted x0 on a share of the batch, whose
        timesteps are random."""
        n = max(1, round(len(x0) * self.recipe.identity_share))
        seen = F.normalize(self.judge.features_of((x0[:n].clamp(-1, 1) + 1) / 2,
                                                  example["points"][:n]))
        return (1 - (seen * F.normalize(example["z_id"][:n])).sum(1)).mean()

    # --- what it has learnt -----------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, model: torch.nn.Module, example: Example, z_id: torch.Tensor
               | None) -> torch.Tensor:
        """Restorations of examples in [-1, 1], with this z_id in the place of theirs."""
        condition, z_s, _ = self.conditions(model, example)
        noise = torch.from_numpy(numpy_rng("picture").standard_normal(tuple(example["x0"].shape),
                                                                      dtype=np.float32))

        def denoise(x, t):
            return model(x if condition is None else torch.cat([x, condition], 1), t, z_s, z_id)
        kept = respace(linear_schedule(self.config.T), self.config.timesteps)
        return ddim_sample(denoise, noise.to(self.device), kept,
                           self.config.parameterisation).clamp(-1, 1)

    def held(self, n: int, factor: int = 16) -> Example:
        """Held-out examples, always the same."""
        return self.examples(Draws(self.device).seed("held out", "idfsr"), self.bank.held, n,
                             factor)

    @torch.no_grad()
    def validate(self, model: torch.nn.Module, n: int = 96) -> dict[str, float]:
        """On held-out people at x16: eq. 1's loss, PSNR and LPIPS with the z_id of the reference;
        and the identity gap (mean cosine by E_id to the person's image less that to the others')
        with the z_id of the ground truth, of the reference, and of another person (`rolled`)."""
        from fsrbench.training.tasks import held_out

        figures = {"held_out": held_out(self, model, 128)}
        if not self.config.unet.id_channels:
            return {**figures, **self.fidelity(self.sample(model, self.held(n), None),
                                               self.held(n))}
        example, known = self.held(n), self.bank.held.z_id
        own = known[example["index"]]
        others = (self.bank.held.person[example["index"]][:, None]
                  != self.bank.held.person[example["index"]])
        judge = self.judge or load_identity(self.profile.name, self.device)
        for name, z_id in (("truth", own), ("reference", known[example["partner"]]),
                           ("rolled", own.roll(1, 0))):
            restored = self.sample(model, example, z_id * self.config.z_id_scale)
            cosine = F.normalize(judge.features_of((restored + 1) / 2, example["points"])) @ own.T
            figures[f"gap_{name}"] = float(cosine.diagonal().mean() - cosine[others].mean())
            if name == "rolled":
                towards = cosine.diagonal(-1).mean() if n > 1 else cosine.mean()
                figures["gap_rolled_to_other"] = float(towards - cosine[others].mean())
            if name == "reference":
                figures |= self.fidelity(restored, example)
        return figures

    def fidelity(self, restored: torch.Tensor, example: Example) -> dict[str, float]:
        """PSNR and LPIPS."""
        mse = ((restored - example["x0"]) / 2).square().mean((1, 2, 3))
        return {"psnr": float((-10 * mse.log10()).mean()),
                "lpips": float(lpips(restored, example["x0"]))}

    def grid(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: I_L, I_M, I_W, restoration with the z_id of the reference and of another person,
        ground truth."""
        example, rows = self.held(16), []
        if self.config.unet.id_channels:
            z_id = self.bank.held.z_id[example["partner"]] * self.config.z_id_scale
            rows = [self.sample(model, example, z) for z in (z_id, z_id.roll(1, 0))]
        else:
            rows = [self.sample(model, example, None)]
        return sheet([example["I_L"], example["I_M"], example["I_W"], *rows, example["x0"]])

    def facts(self) -> dict:
        """Also of which case."""
        return {**super().facts(), "case": self.case}

    def card(self) -> dict:
        """Configuration, recipe and deviations."""
        reduced = ([ABLATION_DEVIATION] if self.case is not None and self.profile.name == "mini"
                   else [])
        return {"case": self.case, "config": asdict(self.config), "training": asdict(self.recipe),
                "factors": FACTORS, "factor_odds": self.recipe.odds,
                "landmarks": self.detector.sources if self.detector else "between true and mean",
                "deviations": DEVIATIONS[self.profile.name] + reduced,
                "recognisers": [chosen(self.profile.name)] * bool(self.recipe.identity)}


@trainable("idfsr-judged")
class JudgedTask(IdfsrTask):
    """The last stretch of the mini IDFSR, in which E_id judges the predicted x0; it starts from the
    pre-trained network.

    Args:
        init: exported weights of `--what idfsr`.
    """

    profiles, weights = ("mini",), "idfsr-mini"
    stages = (Stage("idfsr-mini", "idfsr", 1, 0.08, goes_on="idfsr-mini"),)

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0,
                 init: str | None = None):
        super().__init__(bank, device, seed, init, recipe=JUDGED)

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """The usual one.

        Raises:
            FsrError: there are no weights to go on from.
        """
        if not self.origin:
            raise FsrError("training idfsr-judged", "goes on from the pre-trained network",
                           "give its exported weights by --init", code=2)
        return super().optimizer(lr)
