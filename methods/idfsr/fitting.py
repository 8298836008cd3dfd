"""Fitting of z_id to a person (paper 3.3): the network is frozen, the embedding alone is trained,
by eq. 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fsrbench.core import Person, Profile
from fsrbench.faces.lr import lr_landmarks
from fsrbench.imaging import to_float, to_uint8
from fsrbench.methods.common.diffusion import linear_schedule, stratified
from fsrbench.methods.idfsr.conditions import masked_and_warped
from fsrbench.methods.idfsr.network import IdfsrConfig, IdfsrNet
from fsrbench.methods.idfsr.objective import SCALES, bicubic_there_and_back, diffusion_loss
from fsrbench.progress import progress
from fsrbench.rng import numpy_rng


@dataclass(frozen=True)
class FitConfig:
    """How an embedding is fitted.

    Args:
        steps: optimiser steps.
        lr: of Adam, on z_id as the network takes it; with `falling`, down to 0 along a line.
        batch: images a step, drawn in rounds over the fine-tune half, so that the cost does not
            depend on its size.
        from_mean: start from the mean z_id of the fine-tune half instead of one reference's.
    """

    steps: int
    lr: float
    batch: int
    falling: bool = False
    from_mean: bool = False


# The paper fits 20 minutes on a GPU at learning rate 1e-4 (Table 4); `mini` takes what a processor
# does in seconds. Chosen on 10 held-out people of LFW at x16 (PSNR, LPIPS, gap by dlib's network,
# by SFace): one reference 16.94, .127, .045, .205; their mean 17.10, .129, .056, .239; fitted from
# it at .03 falling 17.49, .118, .056, .211, at .02 falling 17.44, .117, .059, .222, at .012 falling
# 17.39, .119, .061, .231.
FITS = {"mini": FitConfig(steps=40, lr=0.02, batch=10, falling=True, from_mean=True),
        "paper": FitConfig(steps=2000, lr=1e-4, batch=24)}


def _examples(person: Person, profile: Profile, rng: np.random.Generator,
              region: str) -> dict[str, torch.Tensor]:
    """Every image of the reference set at every scale, each with another image as reference: made
    once per person."""
    album = person.album
    hq = to_float(np.stack([p.image for p in album]))
    rows = [(i, scale) for scale in SCALES for i in range(len(album))]
    other = [int(rng.choice([j for j in range(len(album)) if j != i] or [i])) for i, _ in rows]
    lr_up = np.stack([bicubic_there_and_back(hq[i], scale) for i, scale in rows])
    found = [lr_landmarks(image, profile.frame).points for image in to_uint8(lr_up)]
    I_M, I_W, _ = masked_and_warped(lr_up, found, hq[other],
                                    [album[j].landmarks.points for j in other], region)
    return {"x0": torch.from_numpy(hq[[i for i, _ in rows]]) * 2 - 1, "I_M": I_M, "I_W": I_W}


def fit_identity(network: IdfsrNet, config: IdfsrConfig, profile: Profile, person: Person,
                 start: torch.Tensor, seed: int) -> torch.Tensor:
    """z_id (512,) fitted to a person's album.

    Args:
        start: the embedding of a reference, scaled as the network takes it.

    Returns:
        The fitted embedding, on the CPU.
    """
    fit, rng = FITS[profile.name], numpy_rng("fit", seed, person.name)
    device = next(network.parameters()).device
    made = _examples(person, profile, rng, config.region)
    examples = {name: value.to(device) for name, value in made.items()}
    with torch.no_grad():
        z_s = network.encoder(examples["I_W"])
    schedule, count = linear_schedule(config.T), len(person.album)
    z_id = start.clone().to(device).requires_grad_(True)
    optimizer = torch.optim.Adam([z_id], lr=fit.lr)
    rounds = np.concatenate([rng.permutation(count)
                             for _ in range(-(-fit.steps * fit.batch // count))])
    steps = rounds[:fit.steps * fit.batch].reshape(fit.steps, fit.batch)
    for step, images in enumerate(progress(steps, desc=f"fitting to {person.name}", unit="step",
                                           leave=False)):
        if fit.falling:
            optimizer.param_groups[0]["lr"] = fit.lr * (1 - step / fit.steps)
        chosen = torch.from_numpy(images + count * rng.integers(0, len(SCALES), len(images)))
        x0 = examples["x0"][chosen]
        noise = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32)).to(device)
        index = stratified(len(chosen), config.T, rng)
        loss = diffusion_loss(network, config, schedule, x0, index, noise, examples["I_M"][chosen],
                              z_s[chosen], z_id.expand(len(chosen), -1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return z_id.detach().cpu()
