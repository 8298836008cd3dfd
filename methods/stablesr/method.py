"""StableSR (Wang et al., IJCV 2024): SD 2.1 led by the features of the LR latent, decoded with the
LR image's own details.

Source: IceClear/StableSR (S-Lab 1.0, non-commercial), `sr_val_ddpm_text_T_vqganfin_old.py`
(general) and `..._facerefersampling.py` (face). The official scripts seed every image alike; here
each sample has its own noise.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from fsrbench.core import Batch, Method, Part, Profile
from fsrbench.methods.common import official_codeformer
from fsrbench.methods.common.adain import adain
from fsrbench.methods.common.autoencoder import AutoencoderConfig
from fsrbench.methods.common.diffusion import Draw, Schedule, respace, spread_timesteps
from fsrbench.methods.common.resizing import resized, rule
from fsrbench.methods.stablesr.mini import (
    MINI_FUSION,
    MINI_STRUCTURE,
    MINI_UNET,
    MINI_VAE,
    ScaledEncoder,
    decoder_inputs,
    empty_context,
)
from fsrbench.methods.stablesr.network import StableSrUNet, call_inputs
from fsrbench.methods.stablesr.parts import (
    CfwDecoder,
    TextEncoder,
    TimeAwareEncoder,
    VaeEncoder,
    empty_prompt,
    sampled_latent,
)
from fsrbench.methods.stablesr.sampler import (
    FACE_STEPS,
    GUIDED_FROM,
    LATENT_SCALE,
    STEPS,
    noised_latent,
    sd_schedule,
    stablesr_sample,
)
from fsrbench.registry import method
from fsrbench.rng import ahead
from fsrbench.weights.catalogue import Url, WeightFile, register
from fsrbench.weights.networks import device

LICENCE = ("S-Lab 1.0, non-commercial (IceClear/StableSR); SD 2.1 under CreativeML Open RAIL++-M; "
           "SPADE CC BY-NC-SA (NVIDIA)")
_HUB = "https://huggingface.co/Iceclear/StableSR/resolve/main"
for _name, _file, _enables in (("stablesr", "stablesr_000117.ckpt", "stablesr.official"),
                               ("stablesr-cfw", "vqgan_cfw_00011.ckpt", "stablesr.official"),
                               ("stablesr-face", "face_stablesr_000050.ckpt",
                                "stablesr.official-face"),
                               ("stablesr-face-cfw", "face_vqgan_cfw_00011.ckpt",
                                "stablesr.official-face")):
    register(WeightFile(_name, _file, "", LICENCE, _enables, (Url(f"{_HUB}/{_file}"),)))


class StableSr(Method):
    """The method.

    Class attributes:
        native: side at which it works; steps: of the sampler; dec_w: how much of the LR image's
            features is wrapped in.
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

    def resizing(self) -> str:
        """To the autoencoder's side and back."""
        return rule(self.profile.size, (self.native,))

    def context(self, n: int) -> torch.Tensor:
        """The empty prompt's tokens (n, 77, 1024); the text tower is asked once."""
        network = self.part("text")
        # What a stand-in answered must not outlive it.
        if self._context is None or self._context[0] is not network:
            self._context = network, network(empty_prompt().to(device()))
        return self._context[1].expand(n, -1, -1)

    def encoded(self, images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor,
                                                                          dict[int, torch.Tensor]]:
        """Scaled latent, a draw of the posterior, and features of images (N, 3, native, native) in
        [-1, 1]."""
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
        y = (resized(torch.from_numpy(batch.upsampled), self.native).clamp(0, 1) * 2
             - 1).to(device())
        shape = {"size": self.native // self.autoencoder.reduction,
                 "channels": self.autoencoder.z_channels}
        draw = ahead(lambda i: batch.noise("stablesr", i, **shape), device())
        latent, taps = self.encoded(y, draw())
        unet, encoder, context = self.part("unet"), self.part("structure"), self.context(len(batch))
        schedule = respace(sd_schedule(), spread_timesteps(1000, self.steps))
        x0 = stablesr_sample(lambda x, t: unet(x, t, context, encoder(latent, t)), schedule,
                             self.start(latent, schedule, draw), draw, self.parameterisation,
                             self.guide(batch, draw))
        decoded = self.part("decoder")(x0 / self.latent_scale, taps if self.dec_w else None,
                                       self.dec_w)
        images = self.fixed(decoded.float(), y)
        return resized(((images + 1) / 2).clamp(0, 1), batch.size).clamp(0, 1).cpu()


def _parts(main: str, cfw: str) -> dict[str, Part]:
    """The five networks in their two files. The paper's parameters and operations are those of the
    U-Net alone."""
    def taps():
        return {0: torch.zeros(1, 128, 512, 512), 1: torch.zeros(1, 256, 256, 256),
                2: torch.zeros(1, 512, 128, 128), 3: torch.zeros(1, 512, 64, 64)}
    step = torch.long
    return {
        "unet": Part(main, StableSrUNet, call_inputs, prefix="model.diffusion_model."),
        "structure": Part(main, TimeAwareEncoder, lambda: (torch.zeros(1, 4, 64, 64),
                                                           torch.zeros(1, dtype=step)),
                          prefix="structcond_stage_model.", counted=False),
        "text": Part(main, TextEncoder, lambda: (torch.zeros(1, 77, dtype=step),),
                     prefix="cond_stage_model.model.",
                     keep=("token_embedding.", "positional_embedding", "transformer.", "ln_final.",
                           "text_projection", "logit_scale"), counted=False),
        "vae": Part(cfw, VaeEncoder, lambda: (torch.zeros(1, 3, 512, 512),),
                    keep=("encoder.", "quant_conv."), counted=False),
        "decoder": Part(cfw, CfwDecoder, lambda: (torch.zeros(1, 4, 64, 64), taps(), 0.5),
                        keep=("decoder.", "post_quant_conv."), counted=False)}


@method
class StableSrOfficial(StableSr):
    """The general model, with AdaIN of colours as its paper has it."""

    name, parts = "stablesr.official", _parts("stablesr", "stablesr-cfw")


@method
class StableSrFace(StableSr):
    """The face model, led by what CodeFormer makes of I_L: all but its last steps are drawn to
    that.

    As x0 is given in those steps, the networks are not asked there, which changes nothing.
    """

    name, title, paper = "stablesr.official-face", "StableSR (face, led by CodeFormer)", None
    parts = {**_parts("stablesr-face", "stablesr-face-cfw"),
             "codeformer": replace(official_codeformer.NETWORK, counted=False)}
    licence = f"{LICENCE}; {official_codeformer.LICENCE}"
    nfe, steps, dec_w, parameterisation = GUIDED_FROM, FACE_STEPS, 0.0, "v"

    def start(self, latent: torch.Tensor, schedule: Schedule, draw: Draw) -> torch.Tensor:
        """x_T: the LR latent, noised to the last step."""
        return noised_latent(latent, schedule, draw)

    def guide(self, batch: Batch, draw: Draw) -> torch.Tensor:
        """Latent of CodeFormer's result, which has the native size."""
        enlarged = official_codeformer.enlarged(batch) * 2 - 1
        image = self.part("codeformer")(enlarged.to(device())).float().clamp(-1, 1)
        return self.encoded(image, draw())[0]

    def fixed(self, images: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """As they are."""
        return images


@method
class StableSrMini(StableSr):
    """The networks trained here."""

    name, weights, profiles = "stablesr.mini", "mini", ("mini",)
    # LPIPS on held-out people of LFW, x8 and x16: .108 and .174 with 4 steps, .100 and .159 with
    # 10, .095 and .158 with 20, .099 and .156 with 40, .097 and .156 with 200.
    steps = nfe = 20
    licence = "trained on LFW (research use)"
    remark = "20 steps instead of the authors' 50: chosen on LFW"
    native, autoencoder, latent_scale, parameterisation = 64, MINI_VAE, 1.0, "v"
    parts = {
        "unet": Part("stablesr-mini", partial(StableSrUNet, MINI_UNET),
                     partial(call_inputs, MINI_UNET), prefix="unet."),
        "structure": Part("stablesr-mini", partial(TimeAwareEncoder, MINI_STRUCTURE), lambda: (
            torch.zeros(1, 4, MINI_UNET.size, MINI_UNET.size), torch.zeros(1, dtype=torch.long)),
                          prefix="structure."),
        "vae": Part("vae-mini", partial(ScaledEncoder, MINI_VAE),
                    lambda: (torch.zeros(1, 3, 64, 64),), prefix="encoder."),
        "decoder": Part("vae-mini", partial(CfwDecoder, MINI_VAE, MINI_FUSION), decoder_inputs,
                        prefix="decoder.")}

    def context(self, n: int) -> torch.Tensor:
        """Of no prompt."""
        return empty_context(n, device())

    def start(self, latent: torch.Tensor, schedule: Schedule, draw: Draw) -> torch.Tensor:
        """x_T: the LR latent, noised to the last step."""
        return noised_latent(latent, schedule, draw)
