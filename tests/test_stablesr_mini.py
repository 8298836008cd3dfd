"""StableSR's mini version: the size of its files, its method, its two trainings."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import example_of, judged_by_few, loss_of
from test_stablesr import normal

from fsrbench import registry
from fsrbench.errors import FsrError
from fsrbench.methods.stablesr.mini import MINI_VAE, ScaledEncoder, mini_denoiser, mini_vae
from fsrbench.methods.stablesr.parts import sampled_latent
from fsrbench.profiles import PROFILES
from fsrbench.proof.complexity import example
from fsrbench.proof.parity import filled


def test_files_of_the_mini_networks_stay_small():
    sizes = [sum(p.numel() for p in build().parameters()) for build in (mini_vae, mini_denoiser)]
    assert sizes[0] < 2.5e6 and sizes[1] < 3.9e6
    parts = registry.get("stablesr.mini").parts
    for build, roles in ((mini_vae, {"encoder": "vae", "decoder": "decoder"}),
                         (mini_denoiser, {"unet": "unet", "structure": "structure"})):
        state = build().state_dict()
        for prefix, role in roles.items():
            keys = {key.removeprefix(f"{prefix}.") for key in state if key.startswith(f"{prefix}.")}
            assert parts[role].prefix == f"{prefix}." and keys == set(parts[role].build()
                                                                      .state_dict())


def test_the_mini_method_does_not_depend_on_the_batch():
    method = registry.get("stablesr.mini")(PROFILES["mini"])
    method.steps = 10
    method.stand_ins = {role: filled(part.build()) for role, part in method.parts.items()}
    one = example(method, 8)
    two = replace(one, ids=["noise/2"], lr=1 - one.lr)
    both = replace(one, ids=one.ids + two.ids, people=one.people * 2,
                   lr=np.concatenate([one.lr, two.lr]), landmarks=one.landmarks * 2)
    together, apart = method.restore(both), torch.cat([method.restore(batch)
                                                       for batch in (one, two)])
    assert together.shape == (2, 3, 64, 64) and (together - apart).abs().max() < 2e-3
    assert (together[0] - together[1]).abs().mean() > 1e-2


def test_the_scale_brings_latents_to_a_deviation_of_1():
    encoder, x = filled(ScaledEncoder(MINI_VAE)), normal(2, 3, 64, 64)
    encoder.scale.fill_(1.0)
    plain, _ = encoder(x)
    assert torch.allclose(sampled_latent(encoder(x)[0], torch.ones(1)), plain[:, :4]
                          + (plain[:, 4:] / 2).exp(), atol=1e-5)
    for _ in range(300):
        encoder.adjust(plain * encoder.scale)
    scaled, _ = encoder(x)
    assert abs(scaled[:, :4].std() - 1) < 0.02 and abs(float(encoder.scale) - 1) > 0.05
    noise = normal(2, 4, 16, 16)
    assert torch.allclose(sampled_latent(scaled, noise), encoder.scale
                          * sampled_latent(plain, noise), atol=1e-4)


@pytest.fixture
def training(album, session_store, monkeypatch):
    """Make a training on two of three people."""
    from fsrbench.training.tasks import make

    monkeypatch.setattr("fsrbench.engine.data.draw_people", lambda people, rate, seed: people[:1])
    return lambda what, **more: judged_by_few(make(
        what, data=f"folder:{album}", store=session_store, seed=0, **more))


def learns(task, steps=8):
    """Draws by step, and lowers its loss on one batch."""
    def loss(step):
        return loss_of(task, step)
    task.model.eval()
    first = loss(3).item()
    assert loss(3).item() == first != loss(4).item()
    optimizer = task.optimizer(1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        example = example_of(task, 3)
        with torch.autocast("cpu", torch.bfloat16):
            value = task.loss(task.model.train(), example)[0]
        value.backward()
        optimizer.step()
        task.after(task.model, example, None)
    assert value.dtype == torch.float32 and all(p.grad is not None for p in task.model.parameters())
    task.model.eval()
    assert loss_of(task, 3).item() < 0.95 * first
    image = task.grid(task.model)
    assert image.dtype == np.uint8 and image.shape[2] == 3 and json.dumps(task.card())
    assert np.isfinite(list(task.validate(task.model).values())).all()


@pytest.mark.full
def test_the_mini_trainings_follow_each_other(training, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path / "none"))
    monkeypatch.setattr("fsrbench.weights.catalogue.bundled_folder", lambda: tmp_path)
    monkeypatch.setattr("fsrbench.methods.stablesr.training.STEPS", 2)
    with pytest.raises(FsrError, match="weights vae-mini: missing"):
        training("stablesr")
    first = training("vae")
    learns(first)
    assert first.model["encoder"].scale != 1
    save_file({k: v.half().contiguous() for k, v in first.model.state_dict().items()},
              tmp_path / "vae-mini.safetensors")
    second = training("stablesr")
    kept = {k: v.clone() for k, v in second.vae.state_dict().items()}
    learns(second)
    assert all(torch.equal(v, second.vae.state_dict()[k])
               for k, v in kept.items()), "the autoencoder stays as it was"
    assert second.card()["vae"]["weights"] == "vae-mini.safetensors"
