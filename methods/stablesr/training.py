"""`invoke train --what vae`, then `--what stablesr`: the autoencoder and the latent diffusion of
`stablesr.mini`."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from fsrbench.methods.common.adain import adain
from fsrbench.methods.common.diffusion import Tables, respace, spread_timesteps
from fsrbench.methods.common.image_loss import LPIPS_WEIGHT, image_loss
from fsrbench.methods.common.prior_training import FaceTask, psnr
from fsrbench.methods.stablesr.method import StableSrMini
from fsrbench.methods.stablesr.mini import (
    MINI_FUSION,
    MINI_STRUCTURE,
    MINI_UNET,
    MINI_VAE,
    empty_context,
    mini_denoiser,
    mini_vae,
)
from fsrbench.methods.stablesr.parts import sampled_latent
from fsrbench.methods.stablesr.sampler import noised_latent, sd_schedule, stablesr_sample
from fsrbench.rng import normal
from fsrbench.training.bank import Bank, Faces
from fsrbench.training.draws import Draws
from fsrbench.training.faces import FACTOR_ODDS, FACTORS
from fsrbench.training.tasks import Example, Stage, held_out, origin_of, sheet, trainable
from fsrbench.weights.catalogue import require
from fsrbench.weights.networks import load_strict, read_state

# Of the divergence from a standard normal, summed over an image's latent: small, as in latent
# diffusion.
KL_WEIGHT = 1e-6
# Most noise that is mixed into a latent before it is decoded with fusion, as a share of its
# deviation.
WEAR = 0.5
# Steps of the sampler in images of the training.
STEPS = 20


def divergence(moments: torch.Tensor) -> torch.Tensor:
    """Mean over images of KL(posterior, standard normal)."""
    mean, log_variance = moments.float().chunk(2, 1)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()


@trainable("vae")
class VaeTask(FaceTask):
    """The autoencoder; half of each batch is decoded from its latent alone, the other half with
    I_L's features.

    The authors train the fusion afterwards, on what their diffusion makes of I_L. Here it is
    trained at once, on latents of the ground truth that are worn by noise: with whole latents the
    fusion would have nothing to add. As with theirs, no gradient reaches the encoder through I_L's
    features.
    """

    batch, lr, ema = 32, 6e-4, 0.999
    stages = (Stage("vae-mini", "stablesr", 0, 0.3),)

    def network(self) -> torch.nn.Module:
        """Encoder and decoder."""
        return mini_vae()

    def examples(self, draws: Draws, faces: Faces, n: int) -> Example:
        """Faces, I_L, and noise of the latents' shape, twice, with the share of it that wears."""
        made = self.degraded(draws, faces, n)
        shape = (n, MINI_VAE.z_channels, *[faces.size // MINI_VAE.reduction] * 2)
        return {"x0": made["x0"], "y": made["y"], "noise": draws.normal(*shape),
                "wear": draws.normal(*shape), "share": draws.uniform(n, 1, 1, 1, high=WEAR)}

    @staticmethod
    def worn(z: torch.Tensor, example: Example) -> torch.Tensor:
        """Latents with noise in them, each with its own share of 0 to WEAR, of the same deviation
        as before."""
        share, noise = (example[name][-len(z):] for name in ("share", "wear"))
        return (1 - share.square()).sqrt() * z + share * noise

    def loss(self, model: torch.nn.Module, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        """Image loss of both halves, and the divergence; shown is the former."""
        x0, half = example["x0"], len(example["x0"]) // 2
        moments, _ = model["encoder"](x0)
        example["moments"] = moments.detach()
        z = sampled_latent(moments, example["noise"])
        decoded = [model["decoder"](z[:half])] if half else []
        with torch.no_grad():
            taps = model["encoder"](example["y"][half:])[1]
        decoded.append(model["decoder"](self.worn(z[half:], example), taps, 1.0))
        loss = image_loss(torch.cat(decoded), x0)
        return loss + KL_WEIGHT * divergence(moments), loss

    def after(self, model: torch.nn.Module, example: Example, draws: Draws) -> None:
        """Keep the latents' scale."""
        model["encoder"].adjust(example["moments"])

    def decoded(self, model: torch.nn.Module, n: int) -> tuple[torch.Tensor, ...]:
        """Held-out ground truth, I_L, and three decodings: of the latent, of a worn one, of that
        with fusion."""
        example = self.held(n)
        x0, y = example["x0"], example["y"]
        mean, taps = model["encoder"](x0)[0].chunk(2, 1)[0], model["encoder"](y)[1]
        worn = self.worn(mean, example)
        return x0, y, model["decoder"](mean), model["decoder"](worn), model["decoder"](worn, taps,
                                                                                       1.0)

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Held-out loss, and PSNR of 128 images: as they are, from worn latents, and from these
        with fusion."""
        x0, _, whole, worn, fused = self.decoded(model, 128)
        return {"held_out": held_out(self, model), "psnr": psnr(whole, x0),
                "psnr_worn": psnr(worn, x0),
                "psnr_fused": psnr(fused, x0), "scale": float(model["encoder"].scale)}

    @torch.no_grad()
    def grid(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: bicubic, decoded, decoded from worn latents, with fusion, ground truth of 16
        held-out images."""
        x0, y, whole, worn, fused = self.decoded(model, 16)
        return sheet([y, whole, worn, fused, x0])

    def card(self) -> dict:
        """Configuration and deviations."""
        return {"config": asdict(MINI_VAE), "fusion": asdict(MINI_FUSION), "factors": FACTORS,
                "factor_odds": FACTOR_ODDS, "deviations": [
                    f"64-pixel faces of LFW; L1 and {LPIPS_WEIGHT} LPIPS (AlexNet) without "
                    f"adversarial loss",
                    "fusion trained with the autoencoder, on noisy latents of the ground truth "
                    "instead of outputs of the diffusion"]}


@trainable("stablesr")
class StableSrTask(FaceTask):
    """U-Net and time-aware encoder, from scratch and together, on v of the ground truth's latent.

    Args:
        vae: exported weights of the autoencoder; those of the catalogue by default.
    """

    batch, lr, ema = 32, 8e-4, 0.9995
    stages = (Stage("stablesr-mini", "stablesr", 1, 0.7, link="vae", linked="vae-mini",
                    goes_on="stablesr-mini"),)

    def __init__(self, bank: Bank, device: torch.device | str = "cpu", seed: int = 0,
                 init: str | None = None, vae: str | None = None):
        super().__init__(bank, device, seed, init)
        path = Path(vae) if vae else require("vae-mini")
        self.vae = load_strict(mini_vae(), read_state(path), str(path)).to(self.device)
        self.made_with, self.schedule = origin_of(path), sd_schedule()
        self.tables = Tables(self.schedule, self.device)

    def network(self) -> torch.nn.Module:
        """U-Net and time-aware encoder."""
        return mini_denoiser()

    def examples(self, draws: Draws, faces: Faces, n: int) -> Example:
        """Latents of faces and of I_L, timesteps and noise."""
        made = self.degraded(draws, faces, n)
        shape = (2 * n, MINI_VAE.z_channels, MINI_UNET.size, MINI_UNET.size)
        moments, taps = self.vae["encoder"](torch.cat([made["x0"], made["y"]]))
        z, z_y = sampled_latent(moments, draws.normal(*shape)).chunk(2)
        return {"x0": made["x0"], "y": made["y"], "z": z, "z_y": z_y,
                "t": draws.stratified(n, len(self.schedule)), "noise": draws.normal(*z.shape)}

    def v(self, model: torch.nn.Module, x: torch.Tensor, t: torch.Tensor,
          z_y: torch.Tensor) -> torch.Tensor:
        """The prediction at x_t, led by the latent of I_L."""
        return model["unet"](x, t, empty_context(len(x), x.device),
                             model["structure"](z_y, t)).float()

    def loss(self, model: torch.nn.Module, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean squared error of v at stratified timesteps."""
        z, t, noise = example["z"], example["t"], example["noise"]
        output = self.v(model, self.tables.q_sample(z, t, noise), t, example["z_y"])
        error = (output - self.tables.v_target(z, t, noise)).square().mean()
        return error, error

    def restored(self, model: torch.nn.Module, n: int) -> tuple[torch.Tensor, torch.Tensor,
                                                                torch.Tensor]:
        """Held-out ground truth, I_L, and restorations in STEPS steps."""
        example, order = self.held(n), itertools.count()
        z_y, taps = example["z_y"], self.vae["encoder"](example["y"])[1]
        schedule = respace(self.schedule, spread_timesteps(1000, STEPS))

        def draw() -> torch.Tensor:
            return normal(tuple(z_y.shape), "picture", next(order)).to(self.device)
        z = stablesr_sample(lambda x, t: self.v(model, x, t, z_y), schedule,
                            noised_latent(z_y, schedule, draw), draw, "v")
        images = adain(self.vae["decoder"](z, taps, StableSrMini.dec_w).float(), example["y"])
        return example["x0"], example["y"], images

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Held-out loss; PSNR of 64 restorations, and of their bicubic upsampling (`base`)."""
        x0, y, images = self.restored(model, 64)
        return {"held_out": held_out(self, model), "psnr": psnr(images, x0), "base": psnr(y, x0)}

    @torch.no_grad()
    def grid(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: bicubic, restored, ground truth of 16 held-out images."""
        x0, y, images = self.restored(model, 16)
        return sheet([y, images, x0])

    def card(self) -> dict:
        """Configurations, the autoencoder that it belongs to, and deviations."""
        return {"config": asdict(MINI_UNET), "structure": asdict(MINI_STRUCTURE),
                "vae": self.made_with, "factors": FACTORS,
                "factor_odds": FACTOR_ODDS, "parameterisation": "v, SD's betas, T = 1000",
                "deviations": [
                    "64-pixel faces of LFW, 16x16 latents; U-Net and encoder trained together from "
                    "scratch, without text",
                    "bicubic factors instead of blind degradation"]}
