"""`invoke train --what vae`, then `--what stablesr`: the autoencoder and the latent diffusion of `stablesr.mini`."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from fsrbench.methods.diffusion import q_sample, respace, spread_timesteps, stratified, v_target
from fsrbench.methods.picture_loss import LPIPS_WEIGHT, picture_loss
from fsrbench.methods.prior_training import FaceTask, crops
from fsrbench.methods.adain import adain
from fsrbench.methods.restorer_training import SCALE_ODDS, SCALES, enlarged, shrunk, strip
from fsrbench.methods.stablesr import noised_latent, sd_schedule, stablesr_sample
from fsrbench.methods.stablesr_mini import (MINI_FUSION, MINI_STRUCTURE, MINI_UNET, MINI_VAE, StableSrMini, empty_context,
                                            mini_denoiser, mini_vae)
from fsrbench.methods.stablesr_parts import sampled_latent
from fsrbench.rng import normal, numpy_rng
from fsrbench.store import Store
from fsrbench.train import origin_of, trainable
from fsrbench.weights import load_strict, read_state, require

# Of the divergence from a standard normal, summed over a picture's latent: small, as in latent diffusion.
KL_WEIGHT = 1e-6
# Most noise that is mixed into a latent before it is decoded with fusion, as a share of its deviation.
WEAR = 0.5
# Steps of the sampler in pictures of the training.
STEPS = 20


def divergence(moments: torch.Tensor) -> torch.Tensor:
    """Mean over pictures of KL(posterior, standard normal)."""
    mean, log_variance = moments.float().chunk(2, 1)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()


def noise_like(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Standard normal of the same shape."""
    return torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32))


class _LatentTask(FaceTask):
    """What both share: faces, and their LR pictures enlarged.

    Class attributes:
        name: of the draws; judged: how many held-out pictures are validated on, and how many of them restored.
    """

    name: str
    judged: tuple[int, int] = (128, 32)

    def example(self, step: int, n: int, bank) -> tuple[torch.Tensor, torch.Tensor, np.random.Generator]:
        """x0 and y (n, 3, S, S) in [-1, 1], and the generator's rest."""
        rng = numpy_rng(self.seed, self.name, step)
        faces = crops(bank, n, rng, self.jitter)
        return faces * 2 - 1, enlarged(shrunk(faces, rng), faces.shape[-1]), rng


def _psnr(images: torch.Tensor, truth: torch.Tensor) -> float:
    error = ((images.float().clamp(-1, 1) - truth) / 2).square().mean((1, 2, 3))
    return float((-10 * (error + 1e-6).log10()).mean())


@trainable("vae")
class VaeTask(_LatentTask):
    """The autoencoder; half of each batch is decoded from its latent alone, the other half with the LR picture's features.

    The authors train the fusion afterwards, on what their diffusion makes of I_L. Here it is trained at once, on latents
    of the truth that are worn by noise: with whole latents the fusion would have nothing to add. As with theirs, no gradient
    reaches the encoder through the LR picture's features.
    """

    name = "vae"

    def network(self) -> torch.nn.Module:
        """Encoder and decoder."""
        return mini_vae()

    def loss(self, model: torch.nn.Module, step: int, batch: int) -> torch.Tensor:
        """Picture loss of both halves, and the divergence."""
        x0, y, rng = self.example(step, batch, self.bank)
        moments, _ = model["encoder"](x0)
        if model.training:
            model["encoder"].adjust(moments)
        z, half = sampled_latent(moments, noise_like(moments.chunk(2, 1)[0], rng)), batch // 2
        decoded = [model["decoder"](z[:half])] if half else []
        with torch.no_grad():
            taps = model["encoder"](y[half:])[1]
        worn = self.worn(z[half:], rng)
        decoded.append(model["decoder"](worn, taps, 1.0))
        return picture_loss(torch.cat(decoded), x0) + KL_WEIGHT * divergence(moments)

    @staticmethod
    def worn(z: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Latents with noise in them, each with its own share of 0 to WEAR, of the same deviation as before."""
        share = torch.from_numpy(rng.random((len(z), 1, 1, 1), dtype=np.float32)) * WEAR
        return (1 - share.square()).sqrt() * z + share * noise_like(z, rng)

    def decoded(self, model: torch.nn.Module, n: int) -> tuple[torch.Tensor, ...]:
        """Held-out truth, LR pictures, and three decodings: of the latent, of a worn one, of that with fusion."""
        x0, y, rng = self.example(-1, n, self.held_out)
        mean, taps = model["encoder"](x0)[0].chunk(2, 1)[0], model["encoder"](y)[1]
        worn = self.worn(mean, rng)
        return x0, y, model["decoder"](mean), model["decoder"](worn), model["decoder"](worn, taps, 1.0)

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """Loss of held-out pictures and PSNR: as they are, from worn latents, and from these with fusion."""
        x0, _, whole, worn, fused = self.decoded(model, self.judged[0])
        return {"held_out": float(picture_loss(whole, x0)), "psnr": _psnr(whole, x0), "psnr_worn": _psnr(worn, x0),
                "psnr_fused": _psnr(fused, x0), "scale": float(model["encoder"].scale)}

    @torch.no_grad()
    def picture(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: bicubic, decoded, decoded from worn latents, with fusion, truth of 16 held-out pictures."""
        x0, y, whole, worn, fused = self.decoded(model, 16)
        return strip([y, whole, worn, fused, x0])

    def card(self) -> dict:
        """Configuration and deviations."""
        return {"config": asdict(MINI_VAE), "fusion": asdict(MINI_FUSION), "scales": SCALES, "scale_odds": SCALE_ODDS,
                "deviations": [
                    f"64-pixel faces of LFW; L1 and {LPIPS_WEIGHT} LPIPS (AlexNet) without adversarial loss",
                    "fusion trained with the autoencoder, on noisy latents of the truth instead of outputs of the diffusion"]}


@trainable("stablesr")
class StableSrTask(_LatentTask):
    """U-Net and time-aware encoder, from scratch and together, on v of the truth's latent.

    Args:
        vae: exported weights of the autoencoder; those of the catalogue by default.
    """

    name = "stablesr"

    def __init__(self, data: str, store: Store, seed: int = 0, init: str | None = None, vae: str | None = None):
        path = Path(vae) if vae else require("vae-mini")
        self.vae = load_strict(mini_vae(), read_state(path), str(path))
        self.made_with, self.schedule = origin_of(path), sd_schedule()
        super().__init__(data, store, seed, init)

    def network(self) -> torch.nn.Module:
        """U-Net and time-aware encoder."""
        return mini_denoiser()

    @torch.no_grad()
    def latents(self, images: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Draws of the latents of pictures, and the encoder's features."""
        moments, taps = self.vae["encoder"](images)
        return sampled_latent(moments, noise_like(moments.chunk(2, 1)[0], rng)), taps

    @staticmethod
    def v(model: torch.nn.Module, x: torch.Tensor, t: torch.Tensor, z_y: torch.Tensor) -> torch.Tensor:
        """The prediction at x_t, led by the latent of I_L."""
        return model["unet"](x, t, empty_context(len(x)), model["structure"](z_y, t)).float()

    def error(self, model: torch.nn.Module, step: int, n: int, bank) -> torch.Tensor:
        """Mean squared error of v at stratified timesteps."""
        x0, y, rng = self.example(step, n, bank)
        z, z_y = self.latents(torch.cat([x0, y]), rng)[0].chunk(2)
        index = stratified(n, len(self.schedule), rng)
        noise = noise_like(z, rng)
        output = self.v(model, q_sample(self.schedule, z, index, noise), index, z_y)
        return (output - v_target(self.schedule, z, index, noise)).square().mean()

    def loss(self, model: torch.nn.Module, step: int, batch: int) -> torch.Tensor:
        """The error on the step's own faces."""
        return self.error(model, step, batch, self.bank)

    def restored(self, model: torch.nn.Module, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Held-out truth, LR pictures, and restorations in STEPS steps."""
        x0, y, rng = self.example(-1, n, self.held_out)
        (z_y, taps), order = self.latents(y, rng), itertools.count()
        schedule = respace(self.schedule, spread_timesteps(1000, STEPS))

        def draw() -> torch.Tensor:
            return normal(tuple(z_y.shape), "picture", next(order))
        z = stablesr_sample(lambda x, t: self.v(model, x, t, z_y), schedule, noised_latent(z_y, schedule, draw), draw, "v")
        return x0, y, adain(self.vae["decoder"](z, taps, StableSrMini.dec_w).float(), y)

    @torch.no_grad()
    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """The error on held-out faces; PSNR of some restorations, and of their bicubic enlargement (`base`)."""
        x0, y, images = self.restored(model, self.judged[1])
        return {"held_out": float(self.error(model, -1, self.judged[0], self.held_out)), "psnr": _psnr(images, x0),
                "base": _psnr(y, x0)}

    @torch.no_grad()
    def picture(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: bicubic, restored, truth of 16 held-out pictures."""
        x0, y, images = self.restored(model, 16)
        return strip([y, images, x0])

    def card(self) -> dict:
        """Configurations, the autoencoder that it belongs to, and deviations."""
        return {"config": asdict(MINI_UNET), "structure": asdict(MINI_STRUCTURE), "vae": self.made_with, "scales": SCALES,
                "scale_odds": SCALE_ODDS, "parameterisation": "v, SD's betas, T = 1000", "deviations": [
                    "64-pixel faces of LFW, 16x16 latents; U-Net and encoder trained together from scratch, without text",
                    "bicubic factors instead of blind degradation"]}
