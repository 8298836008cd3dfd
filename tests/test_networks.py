"""Networks and samplers: sizes, what conditions do and do not, initialisation, round trips."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT

from fsrbench.errors import FsrError
from fsrbench.methods.common.diffusion import (
    ddim_reverse,
    ddim_sample,
    ddim_timesteps,
    eps_of,
    linear_schedule,
    q_sample,
    respace,
    trailing_timesteps,
    v_target,
    x0_of,
)
from fsrbench.methods.idfsr.configs import CASES, MINI, PAPER, case_config
from fsrbench.methods.idfsr.network import IdfsrNet, diffae_state
from fsrbench.proof import parity
from fsrbench.proof.parity import Recipe, filled

SMALL = replace(MINI, unet=replace(MINI.unet, image_size=32, attention_sizes=(4,)))


def count(config):
    with torch.device("meta"):
        return sum(p.numel() for p in IdfsrNet(config).parameters())


def test_paper_configuration_has_the_papers_parameters():
    assert count(PAPER) == 168_495_747
    assert round(count(PAPER) / 2**20, 1) == 160.7


def test_paper_configuration_takes_diffae_s_checkpoint():
    """Key for key, but for the first convolution, which gets DiffAE's three channels and three of
    zeros."""
    import json

    layout = json.loads((ROOT / "tests" / "parity" / "diffae-ffhq256-autoenc.json")
                        .read_text())["state_dict"]
    with torch.device("meta"):
        network = IdfsrNet(PAPER)
    state = {k: torch.empty(v, device="meta") for k, v in layout.items()}
    own = {k: list(v.shape) for k, v in network.state_dict().items()}
    assert {k for k in own if own[k]
            != layout.get(k)} == {"input_blocks.0.0.weight"} and own.keys() == layout.keys()
    small = replace(PAPER, unet=replace(PAPER.unet, image_size=32, model_channels=32,
                                        channel_mult=(1, 2),
                                        attention_sizes=(), style_channels=64, id_channels=64),
                    encoder_mult=(1, 2))
    six, three = IdfsrNet(small), IdfsrNet(replace(small, unet=replace(small.unet, in_channels=3,
                                                                       id_channels=0)))
    wrapped = {"state_dict": {**{f"ema_model.{k}": v for k, v in three.state_dict().items()},
                              **{f"model.{k}": v * 0 for k, v in three.state_dict().items()},
                              "ema_model.latent_net.w": torch.zeros(1), "x_T": torch.zeros(1)}}
    six.load_state_dict(diffae_state(wrapped, six), strict=True)
    x = torch.randn(2, 3, 32, 32)
    noise_only = torch.cat([x, torch.randn(2, 3, 32, 32)], 1)
    first, theirs = six.input_blocks[0][0], three.input_blocks[0][0]
    assert torch.allclose(first(noise_only), theirs(x), atol=1e-6)
    assert state.keys() == own.keys()
    with pytest.raises(FsrError, match="no input_blocks.0.0.weight"):
        diffae_state({"w": torch.zeros(1)}, six)


def test_one_identity_token_adds_the_same_vector_everywhere():
    """What a literal reading of the paper does, and why `mini` takes more tokens."""
    from fsrbench.methods.common.unet import Attention

    attention = filled(Attention(64, 1))
    x, tokens = torch.randn(2, 64, 8, 8), torch.randn(2, 3, 64)
    change = attention(x, tokens[:, :1]) - x
    assert torch.allclose(change, change[:, :, :1, :1].expand_as(change), atol=1e-5)
    several = attention(x, tokens) - x
    assert several.std((2, 3)).mean() > 1e-2


@pytest.mark.parametrize("case", CASES)
def test_each_case_sees_exactly_its_conditions(case):
    config = case_config(SMALL, case)
    network = filled(IdfsrNet(config))
    unet = config.unet
    x, t = torch.randn(2, unet.in_channels, 32, 32), torch.tensor([10, 900])
    z_s = torch.randn(2, unet.style_channels) if unet.style_channels else None
    z_id = torch.randn(2, unet.id_channels) if unet.id_channels else None
    out = network(x, t, z_s, z_id)
    assert out.shape == (2, 3, 32, 32)
    assert (network(x, t, None if z_s is None else z_s + 1, z_id) != out).any() == (z_s is not None)
    assert (network(x, t, z_s, None if z_id is None else z_id + 1)
            != out).any() == (z_id is not None)
    assert (network(x, t + 50, z_s, z_id) != out).any()
    assert hasattr(network, "encoder") == bool(unet.style_channels)


def test_an_unknown_case_is_named_with_those_that_exist():
    with pytest.raises(FsrError, match="case 6: unknown; known: 0, 1, 2, 3, 4, 5"):
        case_config(MINI, 6)


def test_cases_keep_the_rest_of_the_network():
    assert count(case_config(PAPER,
                             4)) == count(PAPER)  # cross-attention costs no parameters (paper E.2)
    assert count(case_config(PAPER, 5)) == count(case_config(PAPER, 2)) < count(PAPER)


def test_eq_2_without_the_one():
    from fsrbench.methods.common.unet import ResBlock

    for plus_one in (True, False):
        config = replace(SMALL.unet, plus_one=plus_one)
        block = filled(ResBlock(64, 64, config))
        x, emb = torch.randn(1, 64, 8, 8), torch.randn(1, config.embed_channels)
        z = torch.randn(1, config.style_channels)
        h = block.in_layers(x)
        scale, shift = block.emb_layers(emb)[:, :, None, None].chunk(2, 1)
        style = block.cond_emb_layers(z)[:, :, None, None]
        one = float(plus_one)
        wanted = (one + style) * ((one + scale) * block.out_layers[0](h) + shift)
        assert torch.allclose(block(x, emb, z), x + block.out_layers[1:](wanted), atol=1e-5)


def test_linear_schedule_is_the_published_one():
    schedule = linear_schedule()
    betas = 1 - schedule.alpha_bar / schedule.alpha_bar_prev
    assert np.allclose(betas[[0, -1]], [1e-4, 0.02]) and np.allclose(np.diff(betas),
                                                                     np.diff(betas)[0])
    assert np.isclose(schedule.alpha_bar[-1], 4.036e-5, rtol=1e-3)
    assert (ddim_timesteps(1000, 20) == np.arange(0, 1000, 50)).all()
    with pytest.raises(ValueError, match="no integer stride"):
        ddim_timesteps(1000, 999)


def test_trailing_timesteps_begin_at_noise_alone():
    """As in diffusers: `round(arange(T, 0, -T / steps)) - 1`."""
    assert [trailing_timesteps(1000, n).tolist() for n in (1, 2, 3)] == [
        [999], [499, 999], [332, 666, 999]]
    for n in (5, 7, 20, 250):
        assert (trailing_timesteps(1000, n)
                == np.round(np.arange(1000, 0, -1000 / n)).astype(int)[::-1] - 1).all()


@pytest.mark.parametrize("parameterisation", ["eps", "v"])
def test_parameterisations_agree(parameterisation):
    schedule, x0, noise = linear_schedule(), torch.rand(4, 3, 8, 8) * 2 - 1, torch.randn(4, 3, 8, 8)
    index = torch.tensor([0, 10, 500, 900])
    x_t = q_sample(schedule, x0, index, noise)
    output = noise if parameterisation == "eps" else v_target(schedule, x0, index, noise)
    assert torch.allclose(x0_of(schedule, output, x_t, index, parameterisation), x0, atol=2e-3)
    assert torch.allclose(eps_of(schedule, x0, x_t, index), noise, atol=2e-3)


def test_ddim_with_a_perfect_network_finds_the_image_and_calls_it_once_a_step():
    schedule = linear_schedule()
    kept, x0, calls = respace(schedule, ddim_timesteps(1000, 20)), torch.rand(2, 3, 8,
                                                                              8) * 1.8 - 0.9, []

    def perfect(x, t):
        calls.append(int(t[0]))
        return eps_of(schedule, x0, x, t)
    found = ddim_sample(perfect, torch.randn(2, 3, 8, 8), kept)
    assert torch.allclose(found, x0, atol=1e-4) and calls == list(range(950, -1, -50))
    code = ddim_reverse(perfect, x0, kept)
    assert code.shape == x0.shape


def test_a_recipe_is_read_whatever_its_numbers():
    recipe = Recipe({"recipe": "rng=default_rng(7); x=rng.uniform(-2, 1,(1, 3, 8, 8)).astype(f4); "
                               "low=rng.uniform(-2, 1, "
                               "(1,3,4,4)).astype(f4); input=bilinear(low->8)+0.25*x; t=12"})
    rng = np.random.default_rng(7)
    expected = [rng.uniform(-2, 1, (1, 3, n, n)).astype(np.float32) for n in (8, 4)]
    assert recipe.shapes == [(1, 3, 8, 8), (1, 3, 4, 4)]
    assert all(np.array_equal(recipe.uniform(s), e) for s, e in zip(recipe.shapes, expected))
    assert recipe.number(r"([\d.]+)\*x") == 0.25 and recipe.number(r"t=(\d+)") == 12
    with pytest.raises(ValueError, match="has no w="):
        recipe.number(r"w=(\d+)")


@pytest.mark.parametrize("name", [
    *(pytest.param(name, marks=pytest.mark.full) for name in ("codeformer", "asffnet512", "dmdnet",
                                                              "stablesr-parts")),
    "arcface-r50"])
def test_a_check_draws_the_inputs_that_the_recipe_says(tmp_path, name):
    """With another seed in its text the recorded outputs are of other inputs, and the check must
    not pass."""
    recorded = dict(np.load(ROOT / "tests" / "parity" / f"{name}-a.npz"))
    other = str(recorded["recipe"]).replace("default_rng(0)", "default_rng(1)")
    np.savez(tmp_path / f"{name}-b.npz", **{**recorded, "recipe": np.array(other)})
    result, = parity.run(tmp_path)
    assert result.verdict == "failed" and result.error > 100 * result.tolerance


def test_a_misread_input_shows():
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert parity.input_error(x, {"input_sample": x[..., ::4, ::4].numpy()}) == 0
    assert parity.input_error(x, {"input_sample": x[..., 1::4, ::4].numpy()}) > 0.1


def test_checks_read_what_a_recording_says_of_itself():
    """Recordings with the whole schedule, a kernel of another size, an encoder of its own depth."""
    from fsrbench.datasets.degradations.parity import _kernels
    from fsrbench.methods.idfsr.parity import diffae_network
    from fsrbench.methods.pgdiff.parity import _schedule

    assert [len(_schedule(text)) for text in ("", "ddpm100")] == [1000, 100]
    params = {"k": 13, "sig": 1.5, "sx": 2.4, "sy": 0.8, "th": 0.6, "bg": 2.5, "bp": 1.4, "wc": 1.7,
              "sz": 7}
    made = {name: kernel
            for name, kernel, _ in _kernels({"params": params, "k_sinc": np.zeros((21, 21))})}
    assert made["k_sinc"].shape == (21, 21) and made["k_iso"].shape == (13, 13)
    official = json.loads((ROOT / "tests" / "parity" / "diffae-ffhq256-autoenc.json")
                          .read_text())["config"]
    with torch.device("meta"):
        counts = [sum(p.numel()
                      for p in diffae_network({**official,
                                               "enc_num_res_block": n}).encoder.parameters())
                  for n in (1, 2)]
    assert counts[0] < counts[1]
