"""Fitting of z_id to people (paper 3.3): the network is frozen, the embeddings alone are trained,
by eq. 1."""

from __future__ import annotations

from collections.abc import Sequence
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
        image_bytes: memory that each image of a step takes.
    """

    steps: int
    lr: float
    batch: int
    image_bytes: int
    falling: bool = False
    from_mean: bool = False


# The paper fits 20 minutes on a GPU at learning rate 1e-4 (Table 4); `mini` takes what a processor
# does in seconds. Chosen on 12 held-out people of LFW at x16 (PSNR, LPIPS, gap by fr_feature, by
# SFace): one reference 18.17, .107, .428, .426; their mean 18.28, .106, .514, .507; fitted from it
# in 40 steps at .02 18.70, .102, .547, .505, or, at the timesteps of inference alone, 18.59, .103,
# .550, .519; in 24 steps at .03 18.57, .101, .552, .520.
FITS = {"mini": FitConfig(steps=24, lr=0.03, batch=10, image_bytes=14_000_000, falling=True,
                          from_mean=True),
        "paper": FitConfig(steps=2000, lr=1e-4, batch=24, image_bytes=1_800_000_000)}
# At most so many people in one batch, and this share of a GPU's memory for them.
MOST, SHARE = 16, 0.8


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


class _Fit:
    """What the fit of one person draws, and what it is computed from: the same whoever else is in
    the batch.

    Args:
        person: with a fine-tune half of N images.
    """

    def __init__(self, network: IdfsrNet, config: IdfsrConfig, profile: Profile, person: Person,
                 seed: int):
        fit, self.config, self.count = FITS[profile.name], config, len(person.album)
        self.rng = numpy_rng("fit", seed, person.name)
        device = next(network.parameters()).device
        made = _examples(person, profile, self.rng, config.region)
        self.examples = {name: made[name].to(device) for name in ("x0", "I_M")}
        with torch.no_grad():
            self.examples["z_s"] = network.encoder(made["I_W"].to(device))
        rounds = np.concatenate([self.rng.permutation(self.count)
                                 for _ in range(-(-fit.steps * fit.batch // self.count))])
        self.steps = rounds[:fit.steps * fit.batch].reshape(fit.steps, fit.batch)

    def drawn(self, step: int) -> dict[str, torch.Tensor]:
        """The examples, noise and timesteps of a step, on the device but for the timesteps."""
        images, rng = self.steps[step], self.rng
        chosen = torch.from_numpy(images + self.count * rng.integers(0, len(SCALES), len(images)))
        found = {name: values[chosen] for name, values in self.examples.items()}
        noise = torch.from_numpy(rng.standard_normal(found["x0"].shape, dtype=np.float32))
        return {**found, "noise": noise.to(found["x0"].device),
                "index": stratified(len(chosen), self.config.T, rng)}


def fit_identities(network: IdfsrNet, config: IdfsrConfig, profile: Profile,
                   people: Sequence[Person], starts: torch.Tensor, seed: int) -> torch.Tensor:
    """z_id of people (N, 512), each fitted to the own album, all in one batch.

    What a person's fit draws depends on the person and the seed; Adam works on each value apart,
    and the losses are added up, so that the people see nothing of one another but in rounding.

    Args:
        starts: (N, 512), embeddings of references, scaled as the network takes them.

    Returns:
        The fitted embeddings, on the CPU.
    """
    fit = FITS[profile.name]
    device = next(network.parameters()).device
    fits = [_Fit(network, config, profile, person, seed) for person in people]
    schedule = linear_schedule(config.T)
    z_id = starts.clone().to(device).requires_grad_(True)
    optimizer = torch.optim.Adam([z_id], lr=fit.lr)
    who = people[0].name if len(people) == 1 else f"{len(people)} people"
    for step in progress(range(fit.steps), desc=f"fitting to {who}", unit="step", leave=False):
        if fit.falling:
            optimizer.param_groups[0]["lr"] = fit.lr * (1 - step / fit.steps)
        drawn = [one.drawn(step) for one in fits]
        batch = {name: torch.cat([one[name] for one in drawn]) for name in drawn[0]}
        of_images = z_id[:, None].expand(-1, fit.batch, -1).flatten(0, 1)
        loss = diffusion_loss(network, config, schedule, batch["x0"], batch["index"],
                              batch["noise"], batch["I_M"], batch["z_s"], of_images)
        optimizer.zero_grad()
        # The sum of the people's losses, each the mean of as many images.
        (loss * len(people)).backward()
        optimizer.step()
    return z_id.detach().cpu()


def people_at_once(profile: Profile, free: int) -> int:
    """How many people's fits go into one batch.

    Args:
        free: bytes of memory.
    """
    fit = FITS[profile.name]
    return int(max(1, min(MOST, SHARE * free // (fit.batch * fit.image_bytes))))
