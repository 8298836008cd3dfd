"""Parts of the figures that need no run: the architecture drawn, details, ranks, the registry."""

import numpy as np
import pytest
import torch

from fsrbench.errors import FsrError
from fsrbench.reports.figures.registry import figure, figures, get_figure


def test_the_architecture_counts_every_parameter_and_sees_every_condition():
    from fsrbench.methods.idfsr.configs import CASES, CONFIGS, config_of
    from fsrbench.methods.idfsr.network import IdfsrNet
    from fsrbench.reports.figures.architecture import trace

    for config in (*CONFIGS.values(), *[config_of("mini", case) for case in CASES]):
        blocks, parts = trace(config)
        with torch.device("meta"):
            network = IdfsrNet(config)
        assert sum(parts.values()) == sum(p.numel() for p in network.parameters())
        assert {b.path for b in blocks} <= {name for name, _ in network.named_modules()}
        own = [b for b in blocks if b.half != "encoder"]
        assert all(("z_s" in b.takes) == bool(config.unet.style_channels) for b in own if b.kind
                   == "residual block")
        assert all(("cross" in b.kind) == bool(config.unet.id_channels)
                   for b in own if "attention" in b.kind)
        assert all(b.kind != "cross-attention" and not b.takes for b in blocks if b.half
                   == "encoder")
        assert own[0].size == own[-1].size == config.unet.image_size // config.unet.patch
    assert sum(trace(CONFIGS["paper"])[1].values()) == 168_495_747


def test_enlarged_details_are_whole_pixels():
    from fsrbench.reports.figures.grid import Box, crop, enlarge

    image = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)
    assert (enlarge(image)[::4, ::4] == image).all() and (enlarge(image)[3::4, 3::4] == image).all()
    assert (crop(image, Box(5, 9, 12, ""), 64) == image[9:21, 5:17]).all()
    small = image[::8, ::8]
    assert (crop(small, Box(5, 9, 12, ""), 64) == small.repeat(8, 0).repeat(8, 1)[9:21, 5:17]).all()


def test_ranks_skip_failures_and_keep_order():
    from types import SimpleNamespace

    from fsrbench.reports.figures.context import at_ranks

    samples = [SimpleNamespace(id=name) for name in "abcde"]
    values = np.array([3.0, np.nan, 1.0, 2.0, 5.0])
    assert [s.id for s in at_ranks(samples, values, (0, 0.5, 1))] == ["c", "a", "e"]
    assert at_ranks(samples, np.full(5, np.nan), (0, 1)) == []


def test_a_number_is_taken_once():
    assert 2 in figures()
    with pytest.raises(FsrError, match="figure 2: registered twice"):
        figure(2, "Another")(lambda context: None)
    with pytest.raises(FsrError, match="figure 15: unknown; known: 1, 2, 3"):
        get_figure(15)


def test_a_band_of_figure_7_is_student_s_t_of_people():
    from scipy.stats import t

    from fsrbench.reports.figures.album_size import band

    values = np.random.default_rng(0).normal(size=(2, 7))
    for row, (mean, low, high) in zip(values, band(values, [f"p{i}" for i in range(7)])):
        without = [np.delete(row, i).mean() for i in range(7)]
        reach = t.ppf(0.975, 6) * np.sqrt(sum((w - np.mean(without)) ** 2 for w in without))
        assert (mean, low, high) == pytest.approx((row.mean(), row.mean() - reach,
                                                   row.mean() + reach))
