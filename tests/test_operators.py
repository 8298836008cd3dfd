"""Operators of degradation against SciPy, PyTorch, Pillow and theory."""

from io import BytesIO

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from scipy import integrate, ndimage, signal, stats
from test_degradations import blob

from fsrbench.datasets.degradations import eq10
from fsrbench.datasets.degradations.parity import compared
from fsrbench.degrade import jpeg, kernels, pixels
from fsrbench.degrade.named import get_degradation
from fsrbench.proof.parity import load_fixture

# --- operators ------------------------------------------------------------------------------------


def test_every_array_of_the_fixture_is_within_its_own_tolerance():
    results = compared(load_fixture(ROOT / "tests" / "parity" / "degradation-a.npz"))
    assert len(results) == 22 and all(worst <= tolerance
                                      for worst, tolerance in results.values()), results
    # The codecs agree far better than the two grey levels that a fixture of another library is
    # allowed.
    assert results["cv2_jpeg_rgb"][0] < 1e-6 and results["diffjpeg_rgb"][0] < 1e-5
    assert results["chain_out_bgr"][0] < 1e-5


def test_kernels_are_what_the_densities_say():
    x, y = np.meshgrid(np.arange(-10, 11), np.arange(-10, 11))
    points, c, s = np.stack([x, y], -1), np.cos(0.7), np.sin(0.7)
    turn = np.array([[c, -s], [s, c]])
    covariance = turn @ np.diag([3.0**2, 1.2**2]) @ turn.T
    normal = stats.multivariate_normal([0, 0], covariance).pdf(points)
    assert np.allclose(kernels.blur_kernel("aniso", 21, 3.0, 1.2, 0.7), normal / normal.sum(),
                       atol=1e-14)
    m = np.einsum("...i,ij,...j", points, np.linalg.inv(covariance), points)
    for kind, bell in (("generalized_aniso", np.exp(-0.5 * m**1.7)),
                       ("plateau_aniso", 1 / (1 + m**1.7))):
        assert np.allclose(kernels.blur_kernel(kind, 21, 3.0, 1.2, 0.7, 1.7), bell / bell.sum(),
                           atol=1e-14)
    # An isotropic kernel does not turn.
    turned, plain = kernels.blur_kernel("plateau_iso", 9, 2, 5, 1.0,
                                        1.5), kernels.blur_kernel("plateau_iso", 9, 2, beta=1.5)
    assert np.array_equal(turned, plain)


def test_sinc_is_the_transform_of_a_disc():
    """The ideal low-pass by its definition: the integral of the pass band's cosines, and of them
    what Bessel's J1 sums up."""
    cutoff, kernel = 1.9, kernels.sinc_kernel(13, 1.9)

    def at(distance):
        band = integrate.quad(lambda w: 2 * np.sqrt(max(cutoff**2 - w * w, 0))
                              * np.cos(w * distance), -cutoff, cutoff)[0]
        return band / (4 * np.pi**2)
    distances = np.hypot(*np.meshgrid(np.arange(-6, 7), np.arange(-6, 7)))
    direct = np.vectorize(at)(distances)
    assert np.allclose(kernel, direct / direct.sum(), atol=1e-7) and (kernel < 0).any()


@pytest.mark.parametrize("side,size", [(40, 7), (40, 41), (5, 21), (2, 21), (1, 7)])
def test_correlate_mirrors_without_the_edge_even_on_tiny_images(side, size):
    rng = np.random.default_rng(side)
    image, kernel = rng.random((side, side, 3)) * 255, rng.random((size, size))
    reference = np.stack([ndimage.correlate(image[..., c], kernel, mode="mirror")
                          for c in range(3)], -1)
    padded = np.pad(image, ((size // 2,) * 2, (size // 2,) * 2, (0, 0)), mode="reflect")
    valid = np.stack([signal.correlate(padded[..., c], kernel, mode="valid", method="direct")
                      for c in range(3)], -1)
    for theirs in (valid, *([reference] if side > 1 else [])):
        assert np.allclose(pixels.correlate(image, kernel), theirs, rtol=1e-11)


def test_resizing_is_interpolation_at_pixel_centres():
    rng = np.random.default_rng(0)
    image = rng.random((37, 23, 3)) * 255
    for height, width in ((11, 7), (37, 23), (90, 64), (1, 1)):
        y = np.clip((np.arange(height) + 0.5) * 37 / height - 0.5, 0, 36)
        x = np.clip((np.arange(width) + 0.5) * 23 / width - 0.5, 0, 22)
        grid = np.stack(np.meshgrid(y, x, indexing="ij"))
        theirs = np.stack([ndimage.map_coordinates(image[..., c], grid, order=1) for c in range(3)],
                          -1)
        assert np.allclose(pixels.resize_linear(image, height, width), theirs, atol=1e-10)
    assert np.allclose(pixels.resize(image[:36, :22], "area", size=(12, 11)),
                       image[:36, :22].reshape(12, 3, 11, 2, 3).mean((1, 3)), atol=1e-10)
    assert pixels.resize(image, "bicubic", factor=0.5).shape == (18, 11, 3)


def test_the_two_ways_of_blurring_and_shrinking_agree(monkeypatch):
    image = blob(64).astype(np.float64)
    for i in range(24):
        how = eq10.PRESETS[i % 4].draw(f"s{i}")
        height, width = max(1, int(64 // how.r)), max(1, int(50 // how.r))
        plain = pixels.resize_linear(pixels.correlate(image[:, :50], how.kernel(512)), height,
                                     width)
        for limit in (0, 10**9):
            monkeypatch.setattr(pixels, "_MOST_PRODUCTS", limit)
            assert np.allclose(pixels.blur_and_shrink(image[:, :50], how.kernel(512), height,
                                                      width), plain, atol=1e-9)


def test_sharpening_by_scipy():
    image = blob(80).astype(np.float64)
    line = signal.windows.gaussian(51, 8.0)
    kernel = np.outer(line, line) / line.sum() ** 2

    def blurred(x):
        return np.stack([ndimage.correlate(x[..., c], kernel, mode="mirror") for c in range(3)], -1)
    residual = image - blurred(image)
    mask = blurred((np.abs(residual) > 10).astype(float))
    assert np.allclose(pixels.sharpen(image), mask * np.clip(image + residual / 2, 0, 255)
                       + (1 - mask) * image, atol=1e-9)


def test_rounding_does_not_hang_on_the_last_bit():
    ties = np.arange(-3, 256) + 0.5
    for hair in (0, 1e-10, -1e-10):
        assert np.array_equal(pixels.nearest(ties + hair), np.arange(-3, 256) + 1)
    assert pixels.to_bytes(np.array([-7.0, -0.4, 0.49, 254.5, 255.4,
                                     300.0])).tolist() == [0, 0, 0, 255, 255, 255]


def test_noise_has_the_moments_of_its_law():
    rng = np.random.default_rng(5)
    field = pixels.gaussian_noise(rng, (200, 200), 12.5)
    assert stats.kstest(field.ravel() / 12.5, "norm").pvalue > 0.001 and field.shape == (200, 200,
                                                                                         3)
    assert pixels.gaussian_noise(rng, (9, 8), 1, grey=True).shape == (9, 8, 1)
    # Two values only: 2 photons at full range, so a count's variance is 2 v / 255 and the noise's
    # (255 / 2)^2 times that.
    image = np.zeros((300, 300, 3))
    image[:150] = 102
    noise = pixels.poisson_noise(rng, image, 0.5)
    assert not noise[150:].any() and abs(noise[:150].mean()) < 0.5
    assert np.isclose(noise[:150].var(), 0.25 * 127.5**2 * 2 * 102 / 255, rtol=0.03)
    counts = np.bincount(np.rint((noise[:150] / 0.5 + 102) / 127.5).astype(int).ravel(),
                         minlength=6)
    expected = stats.poisson(0.8).pmf(np.arange(6)) * counts.sum()
    assert stats.chisquare(counts[:5], expected[:5] * counts[:5].sum()
                           / expected[:5].sum()).pvalue > 0.001
    grey = pixels.poisson_noise(rng, blob(32).astype(float), 1.0, grey=True)
    assert grey.shape == (32, 32, 1)


def _pillow(image: np.ndarray, quality: int, subsampling: int) -> np.ndarray:
    code = BytesIO()
    Image.fromarray(image).save(code, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(code)).astype(float)


@pytest.mark.parametrize("quality", [10, 35, 60, 95])
def test_jpeg_against_pillow(quality):
    image = blob(64)
    ours = jpeg.libjpeg(image, quality).astype(float)
    assert np.abs(ours - _pillow(image, quality, 2)).max() <= 2
    # DiffJPEG rounds no pixel and repeats chroma: near in luma, not equal.
    luma = np.array([0.299, 0.587, 0.114])
    apart = (jpeg.diffjpeg(image[None].astype(float), np.array([quality]))[0] - ours) @ luma
    assert 0 < np.abs(apart).mean() < 6 and np.abs(apart).max() < 90


def test_diffjpeg_on_grey_images_is_libjpeg_up_to_rounding():
    """Without chroma, and with the transposed table undone by transposing the image, only integer
    arithmetic differs."""
    grey = blob(64)[..., :1].repeat(3, -1)
    model = jpeg.diffjpeg(grey.transpose(1, 0, 2)[None].astype(float),
                          np.array([50]))[0].transpose(1, 0, 2)
    assert np.abs(model - _pillow(grey, 50, 0)).max() <= 3


def test_diffjpeg_is_batched_with_a_quality_each():
    images = np.stack([blob(48)[:35, :41], 255 - blob(48)[:35, :41],
                       blob(48)[5:40, 3:44]]).astype(float)
    quality = np.array([30.5, 50, 95])
    together = jpeg.diffjpeg(images, quality)
    alone = np.concatenate([jpeg.diffjpeg(images[i:i + 1], quality[i:i + 1]) for i in range(3)])
    assert together.shape == images.shape and np.allclose(together, alone, atol=1e-9)
    errors = np.abs(together - images).mean((1, 2, 3))
    assert errors[0] > errors[2]
    assert quality.tolist() == [30.5, 50, 95] and np.allclose(jpeg.quality_factor([25, 50, 75]),
                                                              [2, 1, 0.5])


def test_the_jpeg_library_is_the_pinned_one_or_named(monkeypatch):
    """Fails where OpenCV's JPEG codec behaves otherwise than the one these records were made with;
    their ids then differ."""
    assert jpeg.libjpeg_digest() == jpeg.PINNED and "JPEG" in jpeg.libjpeg_version().upper()
    assert get_degradation("severity-3").id == "severity-3@1"
    monkeypatch.setattr(jpeg, "PINNED", "00000000")
    assert get_degradation("severity-3").id == f"severity-3@1+jpeg-{jpeg.libjpeg_digest()}"
    assert get_degradation("realesrgan").id == "realesrgan@1"
