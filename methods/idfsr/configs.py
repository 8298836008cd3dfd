"""The configurations of IDFSR: `paper`, `mini`, and the ablation cases as deltas, of equal size, on
either."""

from __future__ import annotations

from dataclasses import replace

from fsrbench.errors import FsrError
from fsrbench.methods.common.unet import UNetConfig
from fsrbench.methods.idfsr.network import IdfsrConfig

# Table 4; 168,495,747 parameters = 160.69 x 2^20, the paper's "160.7 M" of Table 6.
# z_id takes the place of features behind a GroupNorm, whose 512 values DiffAE's rows of k and v
# expect with variance 1.
PAPER = IdfsrConfig(
    UNetConfig(256, in_channels=6, style_channels=512, id_channels=512, dropout=0.1),
    encoder_mult=(1, 1, 2, 2, 4, 4, 4), z_id_scale=512**0.5)

# Small enough to train on two cores; `DEVIATIONS` names each difference from the paper. On
# held-out people of LFW at x16 (reference's z_id; LPIPS, gap by SFace) the network that all
# timesteps had trained had .133, .194 with 20 DDIM steps, .125, .210 with 10, .114, .257 with 4,
# .107, .287 with 2 and .105, .289 with one, which is no sampler any more; trained on at the
# timesteps of two, it has .105, .338 with these.
MINI = IdfsrConfig(
    UNetConfig(64, in_channels=6, model_channels=16, channel_mult=(1, 2, 4, 8), num_res_blocks=1,
               attention_sizes=(8,),
               num_head_channels=32, resblock_updown=False, style_channels=160, id_channels=128,
               id_tokens=4, id_project=True, group_channels=4),
    encoder_mult=(1, 2, 4, 8), parameterisation="v", z_id_scale=128**0.5,
    region="forehead", steps=2, spacing="trailing")

DEVIATIONS = {
    "paper": [
        "t_s and z_f of eq. 2 are 1 + what the linear layers give, as in DiffAE, whose weights the "
        "training starts from: the same function and gradients as eq. 2 with biases greater by 1",
        "z_id (the paper does not say how long it is) has length sqrt(512), as DiffAE's attention "
        "expects of features behind a GroupNorm",
        "cross-attention is on z_id as one token, so its softmax is 1 everywhere (the paper counts "
        "no parameters for more)",
        "the style encoder keeps self-attention: it must not see z_id",
        "landmarks of I_L are those of the detectors that are here (see landmarks): 68 points, or "
        "the mean face laid on RetinaFace's five, as Listing 1 needs a mesh; where none is sure, "
        "the mean face",
        "landmarks of the ground truth, and so the alignment, are by the HQ detector of the "
        "benchmark, once for each image",
        "the masked face is mid-grey (the paper does not say which colour)",
        "one model for all factors, of which 4, 8, 16 and 32 are equally frequent (the paper tests "
        "these and does not say which it trains on)",
        "mirroring with probability 1/2 and nothing else, as DiffAE; z_id is of the image as it "
        "was, not mirrored",
        "people with a single image are not trained on, as the reference is another image",
        "timesteps of a batch are drawn one in each part of 0..T-1: uniform, with less variance",
        "batch 24 for each process: the paper's 96 are four processes; gradients are cut to norm 1 "
        "and the EMA is .9999, as DiffAE",
        "the learning rate warms up over 200 steps and falls over the last fifth; so does the EMA "
        "warm up (the paper and DiffAE: constant)",
        "training images come out of a bank: WebP of quality 90, resampled once",
        "a fit takes 2,000 steps for the paper's 20 minutes, at batch 24, over all four factors",
    ],
    "mini": [
        "64-pixel faces, framed at 0.75 of FFHQ's side",
        "narrow network (see config), GroupNorm in groups of 4 channels, plain resampling, z_s of "
        "160 values",
        "z_id becomes 4 tokens by a learned linear map, so that cross-attention is not a constant",
        "v-prediction instead of eps; linear betas and T = 1000 as the paper",
        "2 DDIM steps, at timesteps 999 and 499, instead of 20, as each further one makes the "
        "faces rougher and less the person's; the method's last images train these two timesteps "
        "alone",
        "LPIPS (AlexNet, weight 0.5) on the predicted x0 beside eq. 1, and in the last images 0.25 "
        "(1 - cosine) between z_id "
        "and the E_id of the predicted x0: in so few images eq. 1 alone learns no face",
        "trained from scratch on LFW instead of CelebRef-HQ after DiffAE's FFHQ weights; 90 % of "
        "the examples are from people "
        "with two or more images",
        "35 % of the training images turned grey; factors 4, 8, 16, 32 mixed in one model",
        "people with a single image serve as their own mirrored, coarsened reference",
        "landmarks of the low-resolution face are drawn between the true ones and the mean face",
        "E_id is SFace instead of ArcFace",
        "fitting starts from the mean z_id of the fine-tune half instead of one reference's; 24 "
        "steps, the learning rate falls",
    ],
}

CONFIGS = {"paper": PAPER, "mini": MINI}

# What the ablation's variants, the default among them, are deltas on. In `mini` it is narrower than
# the method itself, as six networks are trained for one figure; all six alike, so that they compare
# with each other and with nothing else.
ABLATION = {"paper": PAPER, "mini": replace(
    MINI, unet=replace(MINI.unet, channel_mult=(1, 2, 2, 3), num_head_channels=48),
    encoder_mult=(1, 2, 2, 3))}
ABLATION_DEVIATION = ("a variant of the ablation: no level is wider than three times the base "
                      "width, all train equally short, at all timesteps alike, and E_id judges "
                      "none")

# Paper 5.4, Fig. 8; 0 is the default there. Cases 1 and 2 start from a diffusion model without
# style and identity; case 3 conditions by features and attention only; cases 4 and 5 take one
# embedding from the full method.
CASES = {
    0: {"condition": "masked", "style": True, "identity": True},
    1: {"condition": "lr", "style": False, "identity": False},
    2: {"condition": "masked", "style": False, "identity": False},
    3: {"condition": "none", "style": True, "identity": True},
    4: {"condition": "masked", "style": True, "identity": False},
    5: {"condition": "masked", "style": False, "identity": True},
}
CASE_TITLES = {0: "Default", 1: "Case 1: LR", 2: "Case 2: masked LR", 3: "Case 3: embeddings only",
               4: "Case 4: without z_id", 5: "Case 5: without z_s"}


def case_config(config: IdfsrConfig, case: int) -> IdfsrConfig:
    """The configuration of an ablation case as a delta on a full one; 0 is the full one itself.

    Raises:
        FsrError: there is no such case.
    """
    if case not in CASES:
        raise FsrError(f"ablation case {case}", "unknown", f"known: {', '.join(map(str, CASES))}",
                       code=2)
    delta, unet = CASES[case], config.unet
    unet = replace(unet, in_channels=3 if delta["condition"] == "none" else unet.in_channels)
    if not delta["style"]:
        unet = replace(unet, style_channels=0)
    if not delta["identity"]:
        unet = replace(unet, id_channels=0, id_project=False)
    return replace(config, unet=unet, condition=delta["condition"])


def config_of(profile: str, case: int | None = None) -> IdfsrConfig:
    """The configuration of a profile: of the method itself, or of one of the ablation's
    variants."""
    return CONFIGS[profile] if case is None else case_config(ABLATION[profile], case)
