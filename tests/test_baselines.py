"""DR2, DifFace, PGDiff, DPI: samplers against what they must do, every registered tag through its
whole restoration."""

from dataclasses import replace
from itertools import accumulate, repeat

import numpy as np
import pytest
import torch
from conftest import full_but, judged_by_few, loss_of

from fsrbench import registry
from fsrbench.core import Part
from fsrbench.errors import FsrError
from fsrbench.imaging import imresize
from fsrbench.methods.common.diffusion import (
    ddim_sigma,
    ddim_step,
    ddim_timesteps,
    eps_of,
    linear_schedule,
    posterior,
    predict,
    q_sample,
    spread_timesteps,
    steps_of,
)
from fsrbench.methods.common.prior import respaced
from fsrbench.methods.common.unet import UNet, UNetConfig
from fsrbench.methods.difface.method import difface_sample
from fsrbench.methods.dpi.corrector import (
    MINI_CORRECTOR,
    NOTHING,
    Corrector,
    grid_of,
    spread_on_grid,
)
from fsrbench.methods.dpi.method import dpi_sample, edge_probability
from fsrbench.methods.dr2.method import PARAMETERS, dr2_sample, lowpass, start_index
from fsrbench.methods.pgdiff.method import feature_pull, pgdiff_sample
from fsrbench.methods.pgdiff.network import Restorer, RestorerConfig
from fsrbench.profiles import PROFILES
from fsrbench.proof.complexity import calls, example
from fsrbench.proof.parity import filled
from fsrbench.weights import catalogue as weights
from fsrbench.weights import networks

SMALL = UNetConfig(16, model_channels=32, channel_mult=(1, 2), num_res_blocks=1,
                   attention_sizes=(8,), num_head_channels=32)
FAMILIES = ("dr2", "difface", "pgdiff", "dpi")


def normals(seed=0):
    rng = np.random.default_rng(seed)
    return lambda: torch.from_numpy(rng.standard_normal((2, 3, 16, 16), dtype=np.float32))


def oracle(schedule, truth):
    """A network that knows the truth: eps of (x_t, t)."""
    index = {int(t): i for i, t in enumerate(schedule.timesteps)}

    def denoise(x, t):
        return eps_of(schedule, truth, x, torch.full((len(x),), index[int(t[0])], dtype=torch.long))
    return denoise


@pytest.fixture
def truth():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9


def test_spread_timesteps_are_those_of_guided_diffusion():
    kept = spread_timesteps(1000, 100)
    assert kept[:8].tolist() == [0, 10, 20, 30, 40, 50, 61, 71] and kept[-1] == 999
    for steps in range(1, 1001):
        places = accumulate(repeat(999 / max(1, steps - 1), steps - 1), initial=0.0)
        assert spread_timesteps(1000, steps).tolist() == [*map(round, places)], steps


def test_posterior_is_bayes_rule(truth):
    """Mean and variance of x_{t-1} given x_t and x0, from the three Gaussians themselves."""
    schedule, i, x_t = respaced(ddim_timesteps(1000, 100)), 40, normals()()
    alpha_bar, before, beta = schedule.alpha_bar[i], schedule.alpha_bar_prev[i], schedule.betas[i]
    precision = 1 / (1 - before) + (1 - beta) / beta
    mean = (np.sqrt(before) * truth / (1 - before) + np.sqrt(1 - beta) * x_t / beta) / precision
    ours, log_variance = posterior(schedule, truth, x_t, i)
    assert torch.allclose(ours, mean.float(),
                          atol=1e-5) and np.isclose(log_variance.exp().flatten()[0], 1 / precision)
    assert np.isclose(alpha_bar, before * (1 - beta))
    low, high = (posterior(schedule, truth, x_t, i, torch.full_like(x_t, s))[1].exp()
                 for s in (-1.0, 1.0))
    assert torch.allclose(low, log_variance.exp()
                          .expand_as(low)) and torch.allclose(high, torch.full_like(high, beta))
    assert torch.isfinite(posterior(schedule, truth, x_t, 0)[1]).all()


def test_ddim_with_full_noise_is_ddpm(truth):
    schedule, i, x_t, noise = respaced(ddim_timesteps(1000, 50)), 20, normals()(), normals(1)()
    assert np.isclose(ddim_sigma(schedule, 1.0)[i] ** 2, schedule.posterior_variance[i])
    eps = eps_of(schedule, truth, x_t, steps_of(schedule, x_t, i)[0])
    mean, log_variance = posterior(schedule, truth, x_t, i)
    assert torch.allclose(ddim_step(schedule, truth, eps, i, 1.0, noise),
                          mean + (log_variance / 2).exp() * noise, atol=1e-4)


def test_an_output_of_six_channels_is_mean_and_spread(truth):
    schedule = linear_schedule()
    step = predict(lambda x, t: torch.cat([x, x * 0 + 0.25], 1), schedule, truth, 500)
    assert step.spread.shape == truth.shape and (step.spread
                                                 == 0.25).all() and torch.equal(step.eps, truth)
    assert predict(lambda x, t: x, schedule, truth, 500).spread is None
    assert step.x0.abs().max() <= 1


def test_every_sampler_finds_the_truth_with_a_perfect_network(truth):
    draw, same = normals(), torch.zeros(2, 1, 8, 8)
    schedule = respaced(ddim_timesteps(1000, 250))
    found = difface_sample(oracle(schedule, truth), schedule, truth * 0, 100, 0.5, draw)
    assert torch.allclose(found, truth, atol=1e-3)
    schedule = respaced(spread_timesteps(1000, 100))
    assert torch.allclose(dr2_sample(oracle(schedule, truth), schedule, truth, 4, 22, 42, draw),
                          truth, atol=1e-3)
    schedule = respaced(ddim_timesteps(1000, 100))
    found = pgdiff_sample(oracle(schedule, truth), lambda x, y, t: truth, schedule, truth, draw(),
                          draw)
    assert torch.allclose(found, truth, atol=1e-3)
    schedule = respaced(ddim_timesteps(1000, 20))
    C_0 = torch.where(grid_of(16).bool(), truth, NOTHING)
    found = dpi_sample(oracle(schedule, truth), lambda C, t, y: y, schedule, C_0, draw(), draw,
                       lambda: same)
    assert torch.allclose(found, truth, atol=2e-3)


def test_each_sampler_is_led_by_its_guide(truth):
    """With a network that knows nothing (x0 = 0), half way down, the guide is what tells two runs
    apart."""
    def blank(schedule):
        return oracle(schedule, truth * 0)

    def alike(change, guide):
        return np.corrcoef(change.flatten(), guide.flatten())[0, 1]
    draw, schedule = normals(), respaced(ddim_timesteps(1000, 100))

    def halfway(scale, target, pull=None):
        return pgdiff_sample(blank(schedule), lambda x, y, t: target, schedule, truth, normals(3)(),
                             normals(4), scale, pull=pull, indices=range(99, 49, -1))
    assert alike(halfway(0.1, truth) - halfway(0.0, truth), truth) > 0.99
    wanted = truth.mean((2, 3), keepdim=True)
    pull = feature_pull(lambda x0: x0.mean((2, 3), keepdim=True), wanted)
    assert alike(halfway(0.1, truth * 0, pull) - halfway(0.1, truth * 0),
                 wanted.expand_as(truth)) > 0.99
    schedule = respaced(ddim_timesteps(1000, 20))
    C_0 = torch.where(grid_of(16).bool(), truth, NOTHING)
    seen = {}
    dpi_sample(blank(schedule), lambda C, t, y: y, schedule, C_0, draw(), draw,
               lambda: torch.zeros(2, 1, 8, 8), seen=lambda i, x, C: seen.update({i: x}))
    on_grid = seen[8][..., ::2, ::2] / np.sqrt(schedule.alpha_bar_prev[8])
    assert np.corrcoef(on_grid.flatten(), truth[..., ::2, ::2].flatten())[0, 1] > 0.7


def test_dr2_keeps_the_low_frequencies_of_the_input(truth):
    schedule, y = respaced(spread_timesteps(1000, 100)), truth
    expected = imresize(imresize(y.numpy(), 4, 4), 16, 16)
    assert np.allclose(lowpass(y, 4).numpy(), expected, atol=1e-6)
    wrong = oracle(schedule, torch.roll(truth, 1, 0))
    states = []

    def watching(x, t):
        states.append(x)
        return wrong(x, t)
    dr2_sample(watching, schedule, y, 4, 3, 20, normals())
    index = steps_of(schedule, y, 4)[0]
    last = lowpass(states[-2], 4) - lowpass(q_sample(schedule, y, index, torch.zeros_like(y)), 4)
    assert last.std() < 0.1 < (lowpass(torch.roll(truth, 1, 0), 4) - lowpass(y, 4)).std()


@pytest.mark.parametrize("N,tau,omega", [(1, 10, 15), (2, 10, 20), (4, 22, 42), (8, 35, 60),
                                         (16, 35, 65), (32, 90, 99)])
def test_dr2_starts_where_the_official_rule_says(N, tau, omega):
    assert start_index(N, tau) == omega


def test_edges_are_scaled_per_image():
    """The official code takes the extremes over the batch; an image must not depend on its
    neighbours here."""
    draw = torch.Generator().manual_seed(0)
    quiet, loud = torch.rand(1, 3, 16, 16, generator=draw) * 0.1, torch.rand(1, 3, 16, 16,
                                                                             generator=draw) * 2 - 1
    both = edge_probability(torch.cat([quiet, loud]))
    # Up to the last bits, which a kernel may set otherwise for a batch of two.
    torch.testing.assert_close(both, torch.cat([edge_probability(quiet), edge_probability(loud)]),
                               rtol=0, atol=1e-6)
    assert (both.amax((1, 2, 3)) == 1).all() and (both >= 0).all()
    assert (edge_probability(torch.zeros(1, 3, 16, 16)) == 0).all()


def test_the_grid_holds_the_lr_image(truth):
    from PIL import Image

    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    C_0 = spread_on_grid([small], 64)
    side = np.asarray(Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.array_equal((C_0[0, :, ::2, ::2].permute(1, 2, 0).numpy() * 127.5 + 127.5).round(),
                          side)
    assert (C_0[grid_of(64).expand_as(C_0) == 0] == np.float32(NOTHING)).all()


def test_a_fresh_corrector_returns_what_it_was_given():
    network, y = Corrector(MINI_CORRECTOR), torch.randn(1, 3, 64, 64)
    assert torch.equal(network(torch.randn(1, 3, 64, 64), torch.tensor([5]), y), y)


@pytest.mark.parametrize("name", sorted(n for n in registry.methods()
                                        if n.split(".")[0] in FAMILIES))
def test_every_tag_restores_with_networks_standing_in(name):
    """The whole path of each tag, official ones at their own size, without weights; NFE is what is
    really called."""
    cls = registry.get(name)
    profile = "mini" if "mini" in name else "paper"
    method = cls(PROFILES[profile])
    counted = calls(method, 16)
    assert set(counted) == set(method.parts) and counted["prior"] == method.nfe
    beside = {"restorer": method.nfe, "corrector": 19, "enhancer": 1, "estimator": 1, "E_id": None}
    assert all(beside[role] in (n, None) for role, n in counted.items() if role != "prior")
    assert method.stand_ins == {} and cls.licence and cls.origin and cls.weights in ("mini",
                                                                                     "official")
    for part in method.parts.values():
        assert part.weights in method.weight_files and part.weights in weights.catalogue()


def test_dr2_calls_its_prior_as_often_as_the_rule_says():
    counted = {scale: calls(registry.get("dr2.mini-raw")(PROFILES["mini"]), scale)["prior"]
               for scale in PARAMETERS}
    assert counted == {4: 21, 8: 26, 16: 31, 32: 31}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_does_not_depend_on_its_batch(family, monkeypatch):
    """Same noise and same image, alone and with others; random networks, so that every draw
    matters."""
    # A fifth of the steps, each of which draws as the others do.
    monkeypatch.setattr("fsrbench.methods.pgdiff.method.PgDiffMini.steps", 20)
    monkeypatch.setattr("fsrbench.methods.difface.method.KEPT", 50)
    monkeypatch.setattr("fsrbench.methods.difface.method.DifFaceMini.start", 20)
    method = registry.get(f"{family}.mini")(PROFILES["mini"])
    for role, part in method.parts.items():
        torch.manual_seed(len(role))
        network = filled(part.build())
        method.stand_ins[role] = network
    one, two = example(method, 8), example(method, 8)
    two = replace(two, ids=["noise/2"], lr=1 - two.lr)
    both = replace(one, ids=one.ids + two.ids, people=one.people + two.people,
                   lr=np.concatenate([one.lr, two.lr]), landmarks=one.landmarks * 2)
    together = method.restore(both)
    apart = torch.cat([method.restore(batch) for batch in (one, two)])
    assert together.shape == (2, 3, 64, 64) and (together - apart).abs().max() < 2e-3
    assert (together[0] - together[1]).abs().mean() > 1e-2
    again = method.restore(replace(one, ids=["noise/7"]))
    assert (again - apart[:1]).abs().mean() > 1e-3, "the draws do not depend on the sample"


def test_family_names_take_the_profile_s_tag():
    assert registry.resolve("dr2", "mini") == "dr2.mini"
    assert registry.resolve("dr2", "paper") == "dr2.official"
    assert registry.resolve("asffnet-oracle", "mini") == "asffnet.mini-oracle"
    assert [registry.resolve("stablesr", p) for p in ("mini", "paper")] == ["stablesr.mini",
                                                                            "stablesr.official"]
    assert registry.resolve("stablesr-face", "mini") == "stablesr.official-face", \
        "what has no mini version is official in both"
    assert registry.resolve("dr2.official", "mini") == "dr2.official"
    assert registry.resolve("bicubic", "mini") == "bicubic"
    assert [registry.family(n) for n in ("dr2.mini", "dr2.official", "idfsr.ft", "dr2.mini-raw",
                                         "bicubic")] == \
        ["dr2", "dr2", "idfsr.ft", "dr2.mini-raw", "bicubic"]
    with pytest.raises(FsrError, match="method 'dr3': unknown"):
        registry.resolve("dr3", "mini")


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """Put a state dict into the cache under a name of its own; returns a part that loads it."""
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "_catalogue", dict(weights._catalogue))

    def put(state, build, keep=()):
        name = f"test-{len(list(tmp_path.iterdir()))}"
        weights.register(weights.WeightFile(name, f"{name}.pth", "", "none", "a test"))
        torch.save(state, tmp_path / f"{name}.pth")
        return Part(name, build, tuple, keep)
    return put


def test_published_wrappers_are_undone(checkpoint):
    unet = UNet(SMALL)
    state = unet.state_dict()
    wrapped = {"plain": state, "module": {f"module.{k}": v for k, v in state.items()},
               "named": {"state_dict": state},
               "both": {"state_dict": {f"module.{k}": v for k, v in state.items()}},
               "average": {"params_ema": state}}
    for kind, saved in wrapped.items():
        loaded = networks.load_part(checkpoint(saved, lambda: UNet(SMALL)))
        assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(),
                                                     state.values())), kind
    config = RestorerConfig(mid_channels=8, num_blocks=1, growth_channels=4)
    ours = Restorer(config).state_dict()
    saved = {"state_dict": {**ours, "loss.weight": torch.zeros(1),
                            "discriminator.w": torch.zeros(2)}, "epoch": 3}
    networks.load_part(checkpoint(saved, lambda: Restorer(config), ("generator.", "time_embed.")))


def test_a_file_that_is_written_anew_is_read_anew(checkpoint, tmp_path):
    part = checkpoint(UNet(SMALL).state_dict(), lambda: UNet(SMALL))
    first, same = networks.load_part(part), networks.load_part(part)
    other = UNet(SMALL).state_dict()
    torch.save(other, tmp_path / f"{part.weights}.pth")
    second = networks.load_part(part)
    assert first is same and second is not first
    assert all(torch.equal(a, b) for a, b in zip(second.state_dict().values(), other.values()))


def test_what_is_missing_or_left_over_is_named(checkpoint):
    state = UNet(SMALL).state_dict()
    short = {k: v for k, v in state.items() if k != "out.2.bias"}
    with pytest.raises(FsrError, match="missing out.2.bias"):
        networks.load_part(checkpoint(short, lambda: UNet(SMALL)))
    with pytest.raises(FsrError, match="unexpected extra.w"):
        networks.load_part(checkpoint({**state, "extra.w": torch.zeros(1)}, lambda: UNet(SMALL)))
    with pytest.raises(FsrError, match=r"out.2.bias is \(6,\), not \(3,\)"):
        networks.load_part(checkpoint({**state, "out.2.bias": torch.zeros(6)}, lambda: UNet(SMALL)))


@pytest.mark.parametrize("what", full_but(["prior", "restorer", "corrector", "asffnet", "dmdnet"],
                                          "restorer", "corrector"))
def test_each_mini_training_draws_by_step_and_learns(what, album, session_store, monkeypatch):
    import json

    from fsrbench.training.tasks import make

    with pytest.raises(FsrError, match="no face is left for training"):
        make(what, data=f"folder:{album}", store=session_store, seed=0)
    monkeypatch.setattr("fsrbench.engine.data.draw_people", lambda people, rate, seed: people[:1])
    task = make(what, data=f"folder:{album}", store=session_store, seed=0)
    assert len(task.bank.train) == 8 and len(task.bank.held) == 4
    judged_by_few(task)
    monkeypatch.setattr("fsrbench.methods.common.prior_training.ddim_timesteps",
                        lambda T, _: ddim_timesteps(T, 2))
    optimizer = task.optimizer(1e-3)

    def loss(step):
        return loss_of(task, step).item()
    first = loss(3)
    assert loss(3) == first != loss(4)
    for _ in range(12):
        optimizer.zero_grad()
        loss_of(task, 3).backward()
        optimizer.step()
    assert loss(3) < 0.95 * first
    shipped = weights.bundled_folder() / f"{what}-mini.safetensors"
    again = make(what, data=f"folder:{album}", store=session_store, seed=0, init=str(shipped))
    assert again.origin["images_seen"] > 50_000 and all(p.requires_grad
                                                        for p in again.model.parameters())
    kept = networks.read_state(shipped)
    assert all(torch.equal(value, kept[key].float()) for key, value in again.model.state_dict()
               .items())
    image = task.grid(task.model.eval())
    assert image.dtype == np.uint8 and image.shape[2] == 3 and json.dumps(task.card())
    assert all(np.isfinite(v) for v in task.validate(task.model).values())


def test_the_shipped_mini_networks_do_what_they_are_for(session_store):
    """On ORL faces, which no training saw: the restorer and the corrector are nearer to the ground
    truth than what they get, and the prior tells noise from a face."""
    from fsrbench.engine.samples import load_samples
    from fsrbench.imaging import to_float, to_uint8
    from fsrbench.methods.common.restorer import blindly
    from fsrbench.profiles import PROFILES

    faces = to_float(np.stack([s.gt.image for s in load_samples("orl", PROFILES["mini"],
                                                                session_store, 4, 0).samples]))
    x0 = torch.from_numpy(faces) * 2 - 1
    small = to_uint8(imresize(faces, 8, 8))
    y = torch.from_numpy(imresize(to_float(small), 64, 64).clip(0, 1).astype(np.float32)) * 2 - 1

    def part(method, role):
        return registry.get(method)(PROFILES["mini"]).part(role)
    with torch.inference_mode():
        restored = blindly(part("difface.mini", "estimator"), y)
        assert (restored - x0).square().mean() < 0.9 * (y - x0).square().mean()
        schedule, noise = linear_schedule(), torch.randn(x0.shape,
                                                         generator=torch.Generator().manual_seed(0))
        index = torch.full((len(x0),), 300)
        seen = predict(part("dpi.mini", "prior"), schedule, q_sample(schedule, x0, index, noise),
                       300, "v").x0
        assert (seen - x0).square().mean() < 0.25 * x0.var()
        C_0, on_grid = spread_on_grid(list(small), 64), grid_of(64)
        corrected = part("dpi.mini", "corrector")(C_0 * on_grid,
                                                  torch.zeros(len(x0), dtype=torch.long),
                                                  C_0 * on_grid)
        assert ((corrected - x0) * on_grid).square().mean() < 0.95 * ((C_0 - x0)
                                                                      * on_grid).square().mean()
