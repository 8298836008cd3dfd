"""What the eye sees first in restorations by the shipped networks: no grid, no specks, no colour on
grey images."""

import numpy as np
import pytest
from scipy.ndimage import median_filter
from test_idfsr import make_batch

from fsrbench import registry
from fsrbench.engine.samples import load_samples
from fsrbench.profiles import PROFILES

CHECKER = 1.3


@pytest.fixture(scope="module")
def shown(session_store):
    """12 samples of six people, and what the diffusion methods make of them at x8."""
    samples = load_samples("orl", PROFILES["mini"], session_store, 6, 0).samples[::2][:12]
    return samples, {name: registry.get(name)(PROFILES["mini"]).restore(make_batch(samples)).numpy()
                     for name in ("idfsr.pt", "dr2.mini", "dpi.mini", "stablesr.mini")}


def checker(images):
    """Energy of the pattern that changes sign from pixel to pixel in both directions; images (N, 3,
    S, S)."""
    a, b, c, d = images[..., ::2, ::2], images[..., 1::2,
                                               1::2], images[..., ::2, 1::2], images[..., 1::2, ::2]
    return np.abs(a + b - c - d).mean()


def speck(images, truth):
    """How far a point sticks out of its surroundings in the mean residual: a speck stands at the
    same place in all images."""
    mean = (images - truth).mean((0, 1))
    rough = np.abs(mean - median_filter(mean, 5))
    return rough.max() / rough.std()


@pytest.mark.full
def test_there_is_no_grid_no_speck_and_no_colour(shown):
    samples, restored = shown
    upsampled = make_batch(samples).upsampled
    truth = np.stack([s.gt.image for s in samples]).transpose(0, 3, 1, 2) / 255
    for name, images in restored.items():
        assert checker(images) < CHECKER * checker(truth), name
        assert speck(images, truth) < 1.3 * speck(upsampled, truth), name
        assert (images.max(1) - images.min(1)).mean() < 0.02, name


def test_the_measures_see_what_they_are_for():
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(0, 0.002, (4, 3, 64, 64)), 2), 3)
    grid = smooth + 0.02 * (np.indices((64, 64)).sum(0) % 2 * 2 - 1)
    assert checker(grid) > 3 * checker(smooth)
    spotted = smooth.copy()
    spotted[:, :, 20, 30] += 0.5
    noise = rng.normal(0, 0.02, smooth.shape)
    assert speck(spotted + noise, smooth) > 1.5 * speck(smooth + noise, smooth)
