"""StableSR: networks against diffusers and transformers, colour fixes against plain arithmetic, the
sampler, both scripts."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT

from fsrbench import registry
from fsrbench.core import Part
from fsrbench.errors import FsrError
from fsrbench.methods.common.adain import adain
from fsrbench.methods.common.autoencoder import AutoencoderConfig, Decoder, Encoder
from fsrbench.methods.common.diffusion import eps_of, respace, spread_timesteps, v_target
from fsrbench.methods.stablesr import method as stablesr
from fsrbench.methods.stablesr.network import LatentConfig, StableSrUNet
from fsrbench.methods.stablesr.parity import _layout
from fsrbench.methods.stablesr.parts import (
    CfwDecoder,
    StructureConfig,
    TextConfig,
    TextEncoder,
    TimeAwareEncoder,
    VaeEncoder,
    empty_prompt,
    sampled_latent,
    wavelet_fix,
)
from fsrbench.methods.stablesr.sampler import sd_schedule, stablesr_sample
from fsrbench.profiles import PROFILES
from fsrbench.proof.complexity import calls, example
from fsrbench.proof.parity import filled
from fsrbench.weights import catalogue as weights
from fsrbench.weights import networks

SMALL_VAE = AutoencoderConfig(32, (1, 2, 2, 2), blocks=1)
SMALL_UNET = LatentConfig(size=8, width=32, mult=(1, 2), blocks=1, attention=(0,), head=16,
                          context=24, structure=32)
SMALL_STRUCTURE = StructureConfig(width=32, mult=(1, 2), blocks=1, attention=(0,), heads=2,
                                  structure=32)
SMALL_TEXT = TextConfig(width=24, heads=2, layers=3, tokens=77, vocabulary=49408)


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def test_keys_and_counts_are_the_official_ones():
    official = json.loads((ROOT / "tests" / "parity" / "stablesr-parts.json").read_text())
    with torch.device("meta"):
        built = _layout(official["config"])
        text = TextEncoder()
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in built.items()}
    assert counts["model.diffusion_model"] == official["params"]["unet_total"] == 918_930_884
    assert counts["structcond_stage_model"] == official["params"]["time_aware_encoder"]
    assert counts["cfw.decoder"] == official["params"]["cfw_decoder_mix"]
    assert sum(p.numel()
               for p in text.parameters()) == official["params"]["openclip_text_vit_h_14_known"]


def _diffusers_key(key: str, levels: int) -> str:
    """Name in diffusers' AutoencoderKL of a key of latent diffusion."""
    half, _, rest = key.partition(".")
    words = rest.split(".")
    if words[0] in ("down", "up"):
        level = int(words[1]) if words[0] == "down" else levels - 1 - int(words[1])
        kind = {"block": f"resnets.{words[3]}.", "downsample": "downsamplers.0.",
                "upsample": "upsamplers.0."}[words[2]]
        inner = ".".join(words[4 if words[2] == "block" else 3:])
        rest = f"{words[0]}_blocks.{level}.{kind}{inner}"
    for old, new in (("mid.block_1", "mid_block.resnets.0"), ("mid.block_2", "mid_block.resnets.1"),
                     ("mid.attn_1.norm", "mid_block.attentions.0.group_norm"),
                     ("mid.attn_1.q", "mid_block.attentions.0.to_q"),
                     ("mid.attn_1.k", "mid_block.attentions.0.to_k"),
                     ("mid.attn_1.v", "mid_block.attentions.0.to_v"),
                     ("mid.attn_1.proj_out", "mid_block.attentions.0.to_out.0"),
                     ("norm_out", "conv_norm_out"), ("nin_shortcut", "conv_shortcut")):
        rest = rest.replace(old, new)
    return f"{half}.{rest}"


def test_the_autoencoder_is_that_of_diffusers():
    import diffusers

    levels = len(SMALL_VAE.mult)
    theirs = diffusers.AutoencoderKL(
        block_out_channels=SMALL_VAE.widths, layers_per_block=1, latent_channels=4,
        norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",)
        * levels).eval()
    ours = torch.nn.ModuleDict({"encoder": filled(Encoder(SMALL_VAE)),
                                "decoder": filled(Decoder(SMALL_VAE))})
    mapped = {_diffusers_key(key, levels): value for key, value in ours.state_dict().items()}
    known = theirs.state_dict()
    mapped = {key: value.reshape(known[key].shape) for key, value in mapped.items()}
    assert set(known) - set(mapped) == {f"{name}.{kind}"
                                        for name in ("quant_conv", "post_quant_conv")
                                        for kind in ("weight",
                                                     "bias")} and not set(mapped) - set(known)
    theirs.load_state_dict(mapped, strict=False)
    with torch.inference_mode():
        x, z = normal(2, 3, 64, 64), normal(2, 4, 8, 8, seed=1)
        assert torch.allclose(ours["encoder"](x)[0], theirs.encoder(x), atol=1e-4)
        assert torch.allclose(ours["decoder"](z), theirs.decoder(z), atol=1e-4)


def test_the_text_tower_is_that_of_transformers():
    """CLIPTextModel's last hidden state but one, under its own final norm."""
    from transformers import CLIPTextConfig, CLIPTextModel

    ours = filled(TextEncoder(SMALL_TEXT))
    config = CLIPTextConfig(vocab_size=49408, hidden_size=24, intermediate_size=96,
                            num_hidden_layers=3,
                            num_attention_heads=2, hidden_act="gelu", eos_token_id=49407)
    theirs = CLIPTextModel(config).eval()
    state = {}
    for key, value in ours.state_dict().items():
        key = key.replace("token_embedding",
                          "embeddings.token_embedding").replace("ln_final", "final_layer_norm")
        key = key.replace("transformer.resblocks", "encoder.layers")
        key = key.replace("ln_1", "layer_norm1").replace("ln_2", "layer_norm2")
        key = key.replace("mlp.c_fc", "mlp.fc1").replace("mlp.c_proj",
                                                         "mlp.fc2").replace(".attn.", ".self_attn.")
        key = "embeddings.position_embedding.weight" if key == "positional_embedding" else key
        if "in_proj_" in key:
            for name, part in zip("qkv", value.chunk(3)):
                state[key.replace("in_proj_", f"{name}_proj.")] = part
        else:
            state[key] = value
    known = theirs.state_dict()
    prefix = "text_model." if any(key.startswith("text_model.") for key in known) else ""
    missing, extra = theirs.load_state_dict({prefix + k: v for k, v in state.items()}, strict=False)
    assert not [key for key in missing if "position_ids" not in key]
    assert {key.removeprefix(prefix) for key in extra} == {"text_projection", "logit_scale"}
    with torch.inference_mode():
        tokens = empty_prompt()
        hidden = theirs(tokens, output_hidden_states=True).hidden_states[-2]
        assert torch.allclose(ours(tokens), ours.ln_final(hidden), atol=1e-5)
    assert tokens[0, :3].tolist() == [49406, 49407, 0] and tokens.shape == (1, 77)


def test_the_fusion_is_a_residual_that_w_scales():
    decoder = filled(CfwDecoder(SMALL_VAE))
    encoder = filled(VaeEncoder(SMALL_VAE))
    _, taps = encoder(normal(1, 3, 64, 64))
    z = normal(1, 4, 8, 8)
    plain = decoder.decoder(decoder.post_quant_conv(z))
    assert torch.allclose(decoder(z, taps, 0.0), plain) and (decoder(z, taps, 0.5)
                                                             - plain).abs().max() > 1e-3


def test_a_latent_is_a_draw_of_its_posterior():
    moments = torch.cat([torch.full((1, 4, 2, 2), 3.0), torch.full((1, 4, 2, 2), 2 * np.log(0.5))],
                        1)
    assert torch.allclose(sampled_latent(moments, torch.ones(1, 4, 2, 2)), torch.tensor(3.5))
    assert torch.isfinite(sampled_latent(moments + 1000, torch.ones(1, 4, 2, 2))).all()


def test_colour_fixes():
    content, style = normal(2, 3, 32, 32), 0.2 * normal(2, 3, 32, 32, seed=1) + 0.3
    fixed = adain(content, style)
    assert torch.allclose(fixed.mean((2, 3)), style.mean((2, 3)), atol=1e-4)
    assert torch.allclose(fixed.std((2, 3)), style.std((2, 3)), atol=1e-3)
    assert torch.allclose(wavelet_fix(content, content), content,
                          atol=1e-5), "high and low parts add up to the whole"
    flat = torch.full_like(style, 0.7)
    assert torch.allclose(wavelet_fix(content, flat) - wavelet_fix(content, flat * 0), flat,
                          atol=1e-5)


def test_the_wavelet_fix_is_that_of_scipy():
    from scipy.ndimage import correlate

    def low(image):
        for distance in (1, 2, 4, 8, 16):
            kernel = np.zeros((2 * distance + 1,) * 2)
            kernel[::distance, ::distance] = np.outer([1, 2, 1], [1, 2, 1]) / 16
            image = correlate(image, kernel, mode="nearest")
        return image
    content, style = (normal(1, 1, 40, 40, seed=seed) for seed in (0, 1))
    high = content[0, 0].numpy() - low(content[0, 0].double().numpy())
    assert np.allclose(wavelet_fix(content, style)[0, 0], high + low(style[0, 0].double().numpy()),
                       atol=1e-5)


def oracle(schedule, truth, parameterisation):
    index = {int(t): i for i, t in enumerate(schedule.timesteps)}

    def denoise(x, t):
        i = torch.full((len(x),), index[int(t[0])], dtype=torch.long)
        eps = eps_of(schedule, truth, x, i)
        return eps if parameterisation == "eps" else v_target(schedule, truth, i, eps)
    return denoise


@pytest.mark.parametrize("parameterisation", ["eps", "v"])
def test_the_sampler_finds_latents_of_any_size_with_a_perfect_network(parameterisation):
    """Latents are not clipped: the ground truth lies far outside [-1, 1]."""
    schedule, truth, seeds = respace(sd_schedule(),
                                     spread_timesteps(1000, 50)), 3 * normal(2, 4, 8,
                                                                             8), iter(range(99))
    found = stablesr_sample(oracle(schedule, truth, parameterisation), schedule,
                            normal(2, 4, 8, 8, seed=5),
                            lambda: normal(2, 4, 8, 8, seed=next(seeds)), parameterisation)
    assert torch.allclose(found, truth, atol=2e-3) and truth.abs().max() > 5
    assert schedule.timesteps[:4].tolist() == [0, 20, 41, 61] and schedule.timesteps[-1] == 999
    assert np.isclose(np.sqrt(sd_schedule().alpha_bar[-1]), 0.0683, atol=1e-4)


def test_the_guide_rules_all_but_the_last_steps():
    schedule, wanted, asked = respace(sd_schedule(), spread_timesteps(1000, 50)), normal(1, 4, 8,
                                                                                         8), []

    def denoise(x, t):
        asked.append(int(t[0]))
        return eps_of(schedule, wanted * 0, x, torch.full((1,), schedule.timesteps.tolist()
                                                          .index(int(t[0]))))
    stablesr_sample(denoise, schedule, normal(1, 4, 8, 8, seed=1),
                    lambda: normal(1, 4, 8, 8, seed=2), guide=wanted)
    assert asked == schedule.timesteps[:10][::-1].tolist()


@pytest.fixture
def small(monkeypatch):
    """StableSR of small networks at 64 px with random weights."""
    class Small(stablesr.StableSr):
        name, native, steps = "stablesr.small", 64, 50
    method = Small(PROFILES["mini"])
    method.stand_ins = {"unet": filled(StableSrUNet(SMALL_UNET)),
                        "structure": filled(TimeAwareEncoder(SMALL_STRUCTURE)),
                        "text": filled(TextEncoder(SMALL_TEXT)),
                        "vae": filled(VaeEncoder(SMALL_VAE)),
                        "decoder": filled(CfwDecoder(SMALL_VAE))}
    return method


def test_the_whole_loop_at_a_small_size(small):
    """Deterministic, apart from its batch, different for another sample."""
    one, two = example(small, 8), example(small, 8)
    two = replace(two, ids=["noise/2"], lr=1 - two.lr)
    both = replace(one, ids=one.ids + two.ids, people=one.people + two.people,
                   lr=np.concatenate([one.lr, two.lr]), landmarks=one.landmarks * 2)
    together, apart = small.restore(both), torch.cat([small.restore(batch) for batch in (one, two)])
    assert together.shape == (2, 3, 64, 64) and 0 <= together.min() and together.max() <= 1
    assert (together - apart).abs().max() < 2e-3 and torch.equal(small.restore(one), apart[:1])
    assert (small.restore(replace(one, ids=["noise/9"])) - apart[:1]).abs().mean() > 1e-4


def test_networks_are_called_as_often_as_the_scripts_do():
    general = calls(registry.get("stablesr.official")(PROFILES["paper"]), 16)
    assert general == {"unet": 50, "structure": 50, "text": 1, "vae": 1, "decoder": 1}
    assert calls(registry.get("stablesr.mini")(PROFILES["mini"]),
                 8) == {"unet": 20, "structure": 20, "vae": 1, "decoder": 1}
    face = registry.get("stablesr.official-face")(PROFILES["paper"])
    assert set(face.weight_files) == {"codeformer", "stablesr-face", "stablesr-face-cfw"}
    assert calls(face, 16) == {"unet": 10, "structure": 10, "text": 1, "vae": 2, "decoder": 1,
                               "codeformer": 1}


def test_the_face_script_is_led_by_codeformer_at_512():
    """The guide is CodeFormer's own image, clipped, of the native size; nothing is fused, no
    colours are fixed."""
    method, seen = registry.get("stablesr.official-face")(PROFILES["paper"]), {"vae": [],
                                                                               "decoder": []}

    def vae(x):
        seen["vae"].append(x)
        return torch.zeros(len(x), 8, 64, 64), {}

    def decoder(z, taps, w):
        seen["decoder"].append((taps, w))
        return torch.zeros(len(z), 3, 512, 512)
    method.stand_ins = {"vae": vae, "decoder": decoder, "codeformer": lambda x: x * 3,
                        "unet": lambda x, *rest: x * 0,
                        "structure": lambda z, t: {}, "text": lambda tokens: torch.zeros(1, 77,
                                                                                         1024)}
    out = method.restore(example(method, 16))
    y, image = seen["vae"]
    assert image.shape == y.shape == (1, 3, 512, 512) and image.abs().max() == 1 < 3 * y.abs().max()
    assert seen["decoder"] == [(None, 0.0)] and torch.allclose(out, torch.tensor(0.5))


def test_what_a_stand_in_said_of_the_prompt_does_not_outlive_it(small):
    first = small.context(2)
    assert first.shape == (2, 77,
                           24) and small.context(1).data_ptr() == first.data_ptr(), "asked once"
    small.stand_ins["text"] = lambda tokens: torch.zeros(1, 77, 24)
    assert (small.context(1) == 0).all() and (first != 0).any()


def test_networks_of_one_file_are_told_apart_by_prefix(tmp_path, monkeypatch):
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "_catalogue", dict(weights._catalogue))
    weights.register(weights.WeightFile("both", "both.ckpt", "", "none", "a test"))
    structure, text = filled(TimeAwareEncoder(SMALL_STRUCTURE)), filled(TextEncoder(SMALL_TEXT))
    state = {f"structcond_stage_model.{k}": v for k, v in structure.state_dict().items()}
    state |= {f"cond_stage_model.model.{k}": v for k, v in text.state_dict().items()}
    state |= {"cond_stage_model.model.attn_mask": torch.zeros(77, 77), "betas": torch.zeros(1000)}
    torch.save({"state_dict": state, "global_step": 3}, tmp_path / "both.ckpt")
    official = registry.get("stablesr.official").parts
    parts = {role: replace(official[role], weights="both", build=build) for role, build in (
        ("structure", lambda: TimeAwareEncoder(SMALL_STRUCTURE)),
        ("text", lambda: TextEncoder(SMALL_TEXT)))}
    assert all(isinstance(part, Part) for part in parts.values())
    for role, network in (("structure", structure), ("text", text)):
        loaded = networks.load_part(parts[role]).state_dict()
        assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())


def test_a_file_of_lightning_is_read_without_its_code(tmp_path, monkeypatch):
    """It names the class of a callback, which is not installed here, and must not be imported."""
    import sys
    import types

    name = "pytorch_lightning.callbacks.model_checkpoint"
    modules = {".".join(name.split(".")[:n]): types.ModuleType(".".join(name.split(".")[:n]))
               for n in (1, 2, 3)}
    callback = type("ModelCheckpoint", (), {"__module__": name})
    modules[name].ModelCheckpoint = callback
    with monkeypatch.context() as patched:
        for key, module in modules.items():
            patched.setitem(sys.modules, key, module)
        torch.save({"state_dict": {"w": torch.ones(2)},
                    "callbacks": {callback: {"best_model_path": ""}}}, tmp_path / "a.ckpt")
    assert torch.equal(networks.unwrap(networks.read_state(tmp_path / "a.ckpt"))["w"],
                       torch.ones(2))
    torch.save({"state_dict": {}, "other": types.SimpleNamespace()}, tmp_path / "b.ckpt")
    with pytest.raises(FsrError, match="cannot be read"):
        networks.read_state(tmp_path / "b.ckpt")
