"""StableSR (Wang et al., IJCV 2024): SD 2.1 led by the features of the LR latent, decoded with the LR picture's own details.

Source: IceClear/StableSR (S-Lab 1.0, non-commercial), `sr_val_ddpm_text_T_vqganfin_old.py` (general) and
`..._facerefersampling.py` (face). The official scripts seed every picture alike; here each sample has its own noise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from fsrbench.core import Batch, Method, Part, Profile
from fsrbench.methods.autoencoder import AutoencoderConfig, Decoder
from fsrbench.methods.codeformer import LICENCE as CODEFORMER_LICENCE
from fsrbench.methods.codeformer import CodeFormerOfficial
from fsrbench.methods.diffusion import Draw, Schedule, posterior, q_sample, respace, spread_timesteps, steps_of, x0_of
from fsrbench.methods.prior import resized
from fsrbench.methods.adain import adain
from fsrbench.methods.stablesr_parts import CfwDecoder, TextEncoder, TimeAwareEncoder, VaeEncoder, empty_prompt, sampled_latent
from fsrbench.methods.stablesr_unet import StableSrUNet, call_inputs
from fsrbench.parity import layout
from fsrbench.registry import method
from fsrbench.weights import Url, WeightFile, device, register

LICENCE = "S-Lab 1.0, non-commercial (IceClear/StableSR); SD 2.1 under CreativeML Open RAIL++-M; SPADE CC BY-NC-SA (NVIDIA)"
_HUB = "https://huggingface.co/Iceclear/StableSR/resolve/main"
for _name, _file, _enables in (("stablesr", "stablesr_000117.ckpt", "stablesr.official"),
                               ("stablesr-cfw", "vqgan_cfw_00011.ckpt", "stablesr.official"),
                               ("stablesr-face", "face_stablesr_000050.ckpt", "stablesr.official-face"),
                               ("stablesr-face-cfw", "face_vqgan_cfw_00011.ckpt", "stablesr.official-face")):
    register(WeightFile(_name, _file, "", LICENCE, _enables, (Url(f"{_HUB}/{_file}"),)))

# SD's scale of latents, and the number of steps that the paper's Table 6 gives.
LATENT_SCALE, STEPS = 0.18215, 50
# The face script draws 200 steps, and pulls the latent to the reference's from this respaced index on.
FACE_STEPS, GUIDED_FROM = 200, 10


def sd_schedule(T: int = 1000, first: float = 0.00085, last: float = 0.012) -> Schedule:
    """Betas whose square roots are evenly spaced (Stable Diffusion)."""
    betas = np.linspace(first**0.5, last**0.5, T, dtype=np.float64)**2
    return Schedule(np.cumprod(1 - betas), np.arange(T))


def stablesr_sample(denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], schedule: Schedule, x_T: torch.Tensor,
                    draw: Draw, parameterisation: str = "eps", guide: torch.Tensor | None = None,
                    guided_from: int = GUIDED_FROM) -> torch.Tensor:
    """Latent x0 by ancestral sampling without clipping.

    Args:
        denoise: network of (x_t, original timesteps (N,)).
        guide: latent that x0 is pulled to while the respaced index is at least `guided_from`. The official ten gradient
            steps of rate 0.5 on |guide - x0|^2 / B reach it at once for B = 1; that is the rule here for every sample, where
            the official result depends on the size of the batch.
    """
    x = x_T
    for i in reversed(range(len(schedule))):
        index, t = steps_of(schedule, x, i)
        if guide is not None and i >= guided_from:
            x0 = guide
        else:
            x0 = x0_of(schedule, denoise(x, t).float(), x, index, parameterisation)
        mean, log_variance = posterior(schedule, x0, x, i)
        x = mean + (0.5 * log_variance).exp() * draw() if i else mean
    return x


def noised_latent(latent: torch.Tensor, schedule: Schedule, draw: Draw) -> torch.Tensor:
    """x_T: the LR latent, noised to the last step."""
    return q_sample(schedule, latent, steps_of(schedule, latent, len(schedule) - 1)[0], draw())


class StableSr(Method):
    """The method.

    Class attributes:
        native: side at which it works; steps: of the sampler; dec_w: how much of the LR picture's features is wrapped in.
        parameterisation: what the network predicts.
        autoencoder: shape of the latents; latent_scale: what they are multiplied by for the U-Net.
    """

    title, paper, nfe, steps = "StableSR", "stablesr", STEPS, STEPS
    origin, licence = "StableSR (IJCV 2024), IceClear/StableSR", LICENCE
    weights, native, dec_w, parameterisation = "official", 512, 0.5, "eps"
    autoencoder, latent_scale = AutoencoderConfig(), LATENT_SCALE

    def __init__(self, profile: Profile):
        super().__init__(profile)
        self._context: tuple[torch.nn.Module, torch.Tensor] | None = None

    def settings(self) -> str:
        """What else decides the result."""
        return f"steps={self.steps} dec_w={self.dec_w}"

    def context(self, n: int) -> torch.Tensor:
        """The empty prompt's tokens (n, 77, 1024); the text tower is asked once."""
        network = self.part("text")
        # What a stand-in answered must not outlive it.
        if self._context is None or self._context[0] is not network:
            self._context = network, network(empty_prompt().to(device()))
        return self._context[1].expand(n, -1, -1)

    def encoded(self, images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Scaled latent, a draw of the posterior, and features of pictures (N, 3, native, native) in [-1, 1]."""
        moments, taps = self.part("vae")(images)
        return sampled_latent(moments, noise) * self.latent_scale, taps

    def start(self, latent: torch.Tensor, schedule: Schedule, draw: Draw) -> torch.Tensor:
        """x_T: pure noise (the general script makes a noised LR latent and does not use it)."""
        return draw()

    def guide(self, batch: Batch, draw: Draw) -> torch.Tensor | None:
        """Latent to pull x0 to; none."""
        return None

    def fixed(self, images: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Colours brought to those of I_L."""
        return adain(images, y)

    @torch.no_grad()
    def restore(self, batch: Batch) -> torch.Tensor:
        """(N, 3, S, S) in [0, 1]."""
        y = (resized(torch.from_numpy(batch.upsampled), self.native).clamp(0, 1) * 2 - 1).to(device())
        order, side, channels = itertools.count(), self.native // self.autoencoder.reduction, self.autoencoder.z_channels

        def draw() -> torch.Tensor:
            return batch.noise("stablesr", next(order), size=side, channels=channels).to(device())
        latent, taps = self.encoded(y, draw())
        unet, encoder, context = self.part("unet"), self.part("structure"), self.context(len(batch))
        schedule = respace(sd_schedule(), spread_timesteps(1000, self.steps))
        x0 = stablesr_sample(lambda x, t: unet(x, t, context, encoder(latent, t)), schedule,
                             self.start(latent, schedule, draw), draw, self.parameterisation, self.guide(batch, draw))
        decoded = self.part("decoder")(x0 / self.latent_scale, taps if self.dec_w else None, self.dec_w)
        images = self.fixed(decoded.float(), y)
        return resized(((images + 1) / 2).clamp(0, 1), batch.size).clamp(0, 1).cpu()


def _parts(main: str, cfw: str) -> dict[str, Part]:
    """The five networks in their two files. The paper's parameters and operations are those of the U-Net alone."""
    def taps():
        return {0: torch.zeros(1, 128, 512, 512), 1: torch.zeros(1, 256, 256, 256), 2: torch.zeros(1, 512, 128, 128),
                3: torch.zeros(1, 512, 64, 64)}
    step = torch.long
    return {
        "unet": Part(main, StableSrUNet, call_inputs, prefix="model.diffusion_model."),
        "structure": Part(main, TimeAwareEncoder, lambda: (torch.zeros(1, 4, 64, 64), torch.zeros(1, dtype=step)),
                          prefix="structcond_stage_model.", counted=False),
        "text": Part(main, TextEncoder, lambda: (torch.zeros(1, 77, dtype=step),), prefix="cond_stage_model.model.",
                     keep=("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection",
                           "logit_scale"), counted=False),
        "vae": Part(cfw, VaeEncoder, lambda: (torch.zeros(1, 3, 512, 512),), keep=("encoder.", "quant_conv."), counted=False),
        "decoder": Part(cfw, CfwDecoder, lambda: (torch.zeros(1, 4, 64, 64), taps(), 0.5),
                        keep=("decoder.", "post_quant_conv."), counted=False)}


@method
class StableSrOfficial(StableSr):
    """The general model, with AdaIN of colours as its paper has it."""

    name, parts = "stablesr.official", _parts("stablesr", "stablesr-cfw")


@method
class StableSrFace(StableSr):
    """The face model, led by what CodeFormer makes of I_L: all but its last steps are drawn to that.

    As x0 is given in those steps, the networks are not asked there, which changes nothing.
    """

    name, title, paper = "stablesr.official-face", "StableSR (face, led by CodeFormer)", None
    parts = {**_parts("stablesr-face", "stablesr-face-cfw"),
             "codeformer": replace(CodeFormerOfficial.parts["network"], counted=False)}
    licence = f"{LICENCE}; {CODEFORMER_LICENCE}"
    nfe, steps, dec_w, parameterisation = GUIDED_FROM, FACE_STEPS, 0.0, "v"

    def start(self, latent: torch.Tensor, schedule: Schedule, draw: Draw) -> torch.Tensor:
        """x_T: the LR latent, noised to the last step."""
        return noised_latent(latent, schedule, draw)

    def guide(self, batch: Batch, draw: Draw) -> torch.Tensor:
        """Latent of CodeFormer's result, which has the native size."""
        enlarged = CodeFormerOfficial(self.profile).enlarged(batch) * 2 - 1
        image = self.part("codeformer")(enlarged.to(device())).float().clamp(-1, 1)
        return self.encoded(image, draw())[0]

    def fixed(self, images: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """As they are."""
        return images


@layout("stablesr-parts")
def _layout(official: dict) -> dict[str, torch.nn.Module]:
    """Every network but the text tower, whose keys are OpenCLIP's."""
    return {"model.diffusion_model": StableSrUNet(), "structcond_stage_model": TimeAwareEncoder(),
            "first_stage_model.encoder": VaeEncoder().encoder, "first_stage_model.decoder": Decoder(),
            "cfw.decoder": CfwDecoder().decoder}
