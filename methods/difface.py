"""DifFace (Yue & Loy, TPAMI 2024): a regression's estimate is diffused part of the way, and denoised again.

Source: zsyOAOA/DifFace (S-Lab License 1.0, non-commercial). The IDFSR paper writes "DiffFace".
"""

from __future__ import annotations

import warnings
from functools import partial

import torch
import torch.nn as nn

from fsrbench.core import Batch, Part
from fsrbench.methods.diffusion import Denoise, Draw, Schedule, ddim_step, ddim_timesteps, predict, q_sample, steps_of
from fsrbench.methods.prior import IDDPM, MINI, PriorMethod, iddpm_config, respaced
from fsrbench.methods.restorer import RESTORER, blindly
from fsrbench.methods.unet import UNet
from fsrbench.parity import check, error, fill_value, filled, layout, recorded
from fsrbench.registry import method
from fsrbench.weights import Url, WeightFile, register

LICENCE = "S-Lab 1.0, non-commercial (zsyOAOA/DifFace)"
register(WeightFile(
    "swinir-difface", "swinir_restoration512_L1.pth", "", LICENCE, "difface.official",
    (Url("https://github.com/zsyOAOA/DifFace/releases/download/V1.0/swinir_restoration512_L1.pth"),)))

# The authors' defaults: of 250 kept steps the last 100, half of DDPM's noise.
KEPT, START, ETA = 250, 100, 0.5

SWINIR = {"img_size": 64, "embed_dim": 180, "depths": [6] * 8, "num_heads": [6] * 8, "window_size": 8, "mlp_ratio": 2,
          "sf": 8, "img_range": 1.0, "unshuffle_scale": 8}


def swinir(config: dict) -> nn.Module:
    """The diffused estimator: spandrel's SwinIR with DifFace's options and its one deviating key (`conv_first.1`).

    Takes and returns (N, 3, H, W) in [0, 1], sides multiples of 64.
    """
    from spandrel.architectures.SwinIR import SwinIR

    with torch.device("cpu"), warnings.catch_warnings():  # its constructor reads values of tensors
        warnings.filterwarnings("ignore", "torch.meshgrid")
        network = SwinIR(
            img_size=config["img_size"], patch_size=1, in_chans=3, embed_dim=config["embed_dim"],
            depths=config["depths"], num_heads=config["num_heads"], window_size=config["window_size"],
            mlp_ratio=config["mlp_ratio"], upscale=config["sf"], img_range=config["img_range"],
            upsampler="nearest+conv", resi_connection="1conv", start_unshuffle=config["unshuffle_scale"])
    network.conv_first = nn.Sequential(nn.Identity(), network.conv_first)
    return network


def difface_sample(denoise: Denoise, schedule: Schedule, estimated: torch.Tensor, start: int, eta: float, draw: Draw,
                   parameterisation: str = "eps") -> torch.Tensor:
    """x0 (N, 3, S, S), not clipped, from an estimate in [-1, 1].

    The estimate is diffused to index `start`, but the first call is at `start` - 1, and eps is the network's own and not
    that of the clipped x0: both as in the official loop.
    """
    x = q_sample(schedule, estimated, steps_of(schedule, estimated, start)[0], draw())
    for i in reversed(range(start)):
        step = predict(denoise, schedule, x, i, parameterisation)
        x = ddim_step(schedule, step.x0, step.eps, i, eta, draw() if i else None)
    return x


class DifFace(PriorMethod):
    """The sampler with an estimate of `y`."""

    title, paper, nfe = "DifFace", "difface", START
    origin = "DifFace (TPAMI 2024), zsyOAOA/DifFace"

    def estimate(self, y: torch.Tensor) -> torch.Tensor:
        """The regression's x0 (N, 3, S, S) in [-1, 1]."""
        raise TypeError(f"{self.name} has no estimator")

    def sample(self, y: torch.Tensor, batch: Batch) -> torch.Tensor:
        """DifFace's x0."""
        return difface_sample(self.part("prior"), respaced(ddim_timesteps(1000, KEPT)), self.estimate(y), START, ETA,
                              self.draws(batch), self.parameterisation)


@method
class DifFaceOfficial(DifFace):
    """The authors' prior and SwinIR."""

    name, weights, licence = "difface.official", "official", LICENCE
    native = 512
    parts = {"prior": IDDPM,
             "estimator": Part("swinir-difface", partial(swinir, SWINIR), lambda: (torch.zeros(1, 3, 512, 512),))}

    def estimate(self, y: torch.Tensor) -> torch.Tensor:
        """SwinIR's estimate."""
        return self.part("estimator")((y + 1) / 2).clamp(0, 1) * 2 - 1


@method
class DifFaceMini(DifFace):
    """The mini prior and the mini restorer."""

    name, weights, profiles = "difface.mini", "mini", ("mini",)
    parts, native, parameterisation = {"prior": MINI, "estimator": RESTORER}, 64, "v"
    licence = "trained on LFW (research use)"

    def estimate(self, y: torch.Tensor) -> torch.Tensor:
        """The restorer's estimate."""
        return blindly(self.part("estimator"), y).clamp(-1, 1)


layout("swinir-difface")(swinir)


@check("swinir-difface", 1e-4)
def _swinir_parity(fixture: dict) -> float:
    network = swinir(fixture["config"])
    # Masks and position indices are as constructed, like in the fixture.
    state = {k: v if "attn_mask" in k or not v.is_floating_point() else torch.from_numpy(fill_value(k, tuple(v.shape)))
             for k, v in network.state_dict().items()}
    network.load_state_dict(state)
    return error(network.eval()(torch.from_numpy(fixture["in_x"])), fixture["out_y"])


@check("difface-algo", 1e-4)
def _parity(fixture: dict) -> float:
    config, noise = fixture["config"], recorded(fixture)
    schedule = respaced(ddim_timesteps(1000, int(config["respacing"].removeprefix("ddim"))))
    estimated, started = torch.from_numpy(fixture["in_restored01"]) * 2 - 1, []

    def draw():
        started.append(next(noise))
        return started[-1]
    x0 = difface_sample(filled(UNet(iddpm_config(config["unet"]))), schedule, estimated, config["start"], config["eta"], draw)
    y_t = q_sample(schedule, estimated, steps_of(schedule, estimated, config["start"])[0], started[0])
    head = fixture["out_timestep_map_head"]
    return max(error(schedule.timesteps[:len(head)], head), error(y_t, fixture["out_yt"]),
               error(((x0 + 1) / 2).clamp(0, 1), fixture["out_out01"]))
