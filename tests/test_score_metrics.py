"""Metrics of the published protocols, against other implementations or their formulas."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from scipy.special import gamma

from fsrbench.metrics import family, metrics
from fsrbench.metrics.face import (
    angle,
    detected,
    face_found,
    landmark_distance,
    reference_distance,
)
from fsrbench.metrics.manifold import frechet_to, precision, recall


def faces(orl_root, *names):
    from fsrbench.imaging import load

    return [load(orl_root / name) for name in names]


def niqe_by_its_formula(image, mean, covariance):
    """NIQE of an uint8 (H, W, 3) image as BasicSR computes it, in NumPy."""
    from fsrbench.imaging import imresize

    y = np.round(image @ np.array([65.481, 128.553, 24.966]) / 255 + 16)
    y = y[:y.shape[0] // 96 * 96, :y.shape[1] // 96 * 96]
    offsets = np.arange(7) - 3
    window = np.exp(-offsets**2 / (2 * (7 / 6) ** 2))
    window = np.outer(window, window) / window.sum() ** 2
    grid = np.arange(0.2, 10.001, 0.001)
    ratios = gamma(2 / grid) ** 2 / (gamma(1 / grid) * gamma(3 / grid))

    def aggd(block):
        block = block.ravel()
        left = np.sqrt(np.mean(block[block < 0] ** 2))
        right = np.sqrt(np.mean(block[block > 0] ** 2))
        g = left / right
        r = np.mean(np.abs(block)) ** 2 / np.mean(block**2)
        r *= (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
        a = grid[np.argmin((ratios - r) ** 2)]
        scale = math.sqrt(gamma(1 / a) / gamma(3 / a))
        return a, left * scale, right * scale

    def features(block):
        a, left, right = aggd(block)
        found = [a, (left + right) / 2]
        for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
            a, left, right = aggd(block * np.roll(block, shift, (0, 1)))
            found += [a, (right - left) * gamma(2 / a) / gamma(1 / a), left, right]
        return found

    scales = []
    for side in (96, 48):
        mu = correlate(y, window, mode="nearest")
        deviation = np.sqrt(np.abs(correlate(y**2, window, mode="nearest") - mu**2))
        normal = (y - mu) / (deviation + 1)
        scales.append([features(normal[i:i + side, j:j + side])
                       for j in range(0, y.shape[1], side) for i in range(0, y.shape[0], side)])
        y = imresize(y / 255, y.shape[0] // 2, y.shape[1] // 2) * 255
    found = np.hstack(scales)
    apart = mean.ravel() - found.mean(0)
    inverse = np.linalg.pinv((covariance + np.cov(found, rowvar=False)) / 2)
    return math.sqrt(apart @ inverse @ apart)


def test_niqe_of_basicsr_is_its_formula():
    from skimage import data

    from fsrbench.weights.catalogue import require

    niqe = {m.id.split(".")[0]: m for m in metrics().values()}["niqe-basicsr"]
    # Of few flat parts, where the last digits of a blur would decide the signs that NIQE counts.
    image = np.ascontiguousarray(data.cat()[:300, :300])
    with np.load(require("niqe")) as known:
        expected = niqe_by_its_formula(image, known["mu_pris_param"], known["cov_pris_param"])
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    assert niqe.function(tensor)[0] == pytest.approx(expected, rel=2e-3)


def by_definition(features, by):
    """Share of vectors within a ball of others, in two loops."""
    radius = [sorted(np.linalg.norm(by - x, axis=1))[3] for x in by]
    return np.mean([any(np.linalg.norm(x - y) <= r for y, r in zip(by, radius)) for x in features])


def test_precision_and_recall_are_their_definition_and_torch_fidelity_s():
    rng = np.random.default_rng(0)
    truth, restored = rng.normal(size=(60, 5)), rng.normal(size=(60, 5)) * 0.6 + 0.3
    ours = precision(restored, truth), recall(restored, truth)
    assert ours == pytest.approx((by_definition(restored, truth), by_definition(truth, restored)))
    assert ours[0] > ours[1] and precision(truth, truth) == recall(truth, truth) == 1
    theirs = pytest.importorskip("torch_fidelity.metric_prc").calculate_precision_recall_full(
        torch.from_numpy(restored), torch.from_numpy(truth))
    assert ours == pytest.approx(theirs)


def test_kernel_distance_is_torch_fidelity_s_estimate_without_pairs():
    from fsrbench.metrics.frechet import kernel_distance

    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(40, 8)), rng.normal(size=(40, 8)) + 0.2
    kernel = [(x @ y.T / 8 + 1) ** 3 for x, y in ((a, a), (a, b), (b, b))]
    off = [k.sum() - np.trace(k) for k in kernel]
    assert kernel_distance(a, b) == pytest.approx((off[0] + off[2] - 2 * off[1]) / (40 * 39))
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    assert kernel_distance(a, b) == pytest.approx(kid.mmd2(*kernel, mmd_est="u-statistic"))


@pytest.mark.parametrize("n", (6, 40))
def test_distance_from_statistics_is_that_of_the_features_they_were_made_of(n):
    from fsrbench.metrics.frechet import frechet_distance

    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(n, 12)), rng.normal(size=(50, 12)) * 2 + 1
    found = frechet_to(a, b.mean(0), np.cov(b, rowvar=False))
    assert found == pytest.approx(frechet_distance(a, b), rel=1e-6)


def test_angle_counts_equal_images_and_never_breaks():
    a = np.array([[1, 0], [1, 0], [3, 3], [1e-8, 1]], np.float32)
    b = np.array([[1, 0], [-2, 0], [0, 1], [1e-8, 1]], np.float32)
    assert angle(a, b) == pytest.approx([0, 180, 45, 0], abs=1e-4)


def test_a_face_is_looked_for_in_each_image_and_no_face_is_no_value(orl_root):
    from fsrbench.faces import detect
    from fsrbench.weights.catalogue import locate

    same, other, stranger = faces(orl_root, "s1/1.pgm", "s1/2.pgm", "s2/1.pgm")
    if not locate(detect.RETINAFACE.name):
        assert (detect.find(same, alone=True).points == detect.find(same).points).all()
    nothing = np.full_like(same, 128)
    vectors = detected([same, other, stranger, nothing], [None] * 4)
    assert face_found(vectors).tolist() == [1, 1, 1, 0]
    moved = vectors.copy()
    moved[:, :136:2] += 3
    moved[:, 1:136:2] += 4
    assert landmark_distance(moved, vectors)[:3] == pytest.approx([5, 5, 5], rel=1e-5)
    assert np.isnan(landmark_distance(vectors, vectors[::-1])[[0, 3]]).all()
    own = reference_distance(vectors[:1], [vectors[[1, 3]]])  # the one without a face is left out
    assert own == pytest.approx(reference_distance(vectors[:1], [vectors[[1]]]))
    assert own < reference_distance(vectors[:1], [vectors[[2]]])
    assert np.isnan(reference_distance(vectors[[0, 3]], [vectors[:0], vectors[:1]])).all()


def test_networks_without_weights_name_the_file_and_how_to_get_it():
    for name, file in (("maniqa", "ckpt_koniq10k.pt"), ("topiq-nr", "cfanet_nr_koniq"),
                       ("topiq-face", "topiq_nr_cgfiqa")):
        why = family(name)[0].missing(512)
        assert not why or file in why and "invoke weights --get" in why


def test_maniqa_is_built_without_a_download_and_loads_its_file_strictly(tmp_path, monkeypatch):
    from fsrbench.metrics import quality

    asked = []
    monkeypatch.setattr("timm.create_model", lambda *_, **k: asked.append(k) or 1 / 0)
    monkeypatch.setattr(quality, "_place", lambda weights: None)
    quality._model.cache_clear()
    with pytest.raises(ZeroDivisionError):
        quality._model("maniqa", ("maniqa-koniq",))
    assert asked == [{"pretrained": False}]
