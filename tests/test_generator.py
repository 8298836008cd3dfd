"""The face generator: equal to OpenVINO's, differentiable, the same in any batch; its heads."""

import copy

import pytest
import torch
from conftest import ROOT

from fsrbench.errors import FsrError
from fsrbench.methods.common import mobilestylegan
from fsrbench.methods.common.mobilestylegan import load_generator, unfolded, whole
from fsrbench.methods.common.mobilestylegan_heads import (
    LinearHead,
    downsampled,
    fit_head,
    small_image,
)
from fsrbench.methods.common.mobilestylegan_parity import generator_error
from fsrbench.proof.parity import load_fixture
from fsrbench.rng import normal
from fsrbench.weights.openvino import read_constants

FIXTURE = ROOT / "tests" / "parity" / "mobilestylegan-a.npz"


@pytest.fixture(scope="module")
def generator():
    return load_generator("cpu")


@pytest.mark.parametrize("images", [1, pytest.param(20, marks=pytest.mark.full)])
def test_generator_is_openvino_s(images):
    fixture = load_fixture(FIXTURE)
    with torch.inference_mode():
        assert generator_error(fixture, images) < 1e-3
        assert generator_error({**fixture, "out_w": fixture["out_w"] + 0.002}, 0) > 1e-3


def test_inverse_wavelet_is_the_transposed_convolutions_of_the_file():
    """Rows first, then columns, by the two filters that the file keeps for each channel."""
    x = normal((2, 20, 6, 6), "wavelet")
    low, high = torch.tensor([1.0, 1.0]) / 2**0.5, torch.tensor([1.0, -1.0]) / 2**0.5

    def transposed(x, kernel, stride):
        weight = kernel.view(1, 1, *stride).expand(x.shape[1], -1, -1, -1)
        return torch.nn.functional.conv_transpose2d(x, weight, stride=stride, groups=x.shape[1])
    a, b, c = x[:, 5:].view(2, 5, 3, 6, 6).unbind(2)
    left = transposed(x[:, :5], low, (2, 1)) + transposed(a, high, (2, 1))
    right = transposed(b, low, (2, 1)) + transposed(c, high, (2, 1))
    wanted = transposed(left, low, (1, 2)) + transposed(right, high, (1, 2))
    assert torch.allclose(unfolded(x), wanted, atol=1e-6)


def test_an_image_does_not_depend_on_its_batch_and_a_style_may_differ_by_layer(generator):
    mapping, synthesis = generator
    with torch.inference_mode():
        w = mapping(normal((3, 512), "styles"))
        together = synthesis.features(w, 3)
        assert torch.allclose(together[1:2], synthesis.features(w[1:2], 3), atol=1e-5)
        assert torch.equal(together, synthesis.features(whole(w), 3))
        mixed = whole(w).clone()
        mixed[:, 3:] = w[:1, None]
        assert torch.equal(synthesis.features(mixed, 2), synthesis.features(w, 2))
        assert not torch.allclose(synthesis.features(mixed, 3)[1:], together[1:], atol=1e-2)


def test_gradients_reach_the_latent(generator):
    mapping, synthesis = generator
    z = normal((1, 512), "latent").double().requires_grad_(True)
    direction = normal((1, 512), "direction").double()
    networks = [copy.deepcopy(n).double() for n in (mapping, synthesis)]

    def value(z):
        return networks[1].features(networks[0](z), 2).square().mean()
    slope = (torch.autograd.grad(value(z), z)[0] * direction).sum()
    with torch.no_grad():
        steps = (value(z + 1e-5 * direction) - value(z - 1e-5 * direction)) / 2e-5
    assert slope.abs() > 1e-4 and torch.isclose(slope, steps, rtol=1e-4)


def test_a_file_that_is_no_ir_or_another_s_is_one_error(tmp_path):
    layers, values = tmp_path / "a.xml", tmp_path / "a.bin"
    values.write_bytes(b"\0" * 8)
    layer = ('<net><layers><layer type="Const" name="c"><data element_type="f32" shape="{}" '
             'offset="0" size="{}"/></layer></layers></net>')
    for text in ("no xml", layer.format("2, 2", 16), layer.format("3", 8)):
        layers.write_text(text)
        with pytest.raises(FsrError, match="is no IR of a.bin"):
            read_constants(layers, values)
    layers.write_text(layer.format("2", 8))
    assert [(n, v.tolist()) for n, v in read_constants(layers, values)] == [("c", [0, 0])]


def test_files_name_their_licence_and_what_is_upstream():
    from fsrbench.weights.catalogue import get_entry

    for name in mobilestylegan.WEIGHTS:
        assert "Apache-2.0" in get_entry(name).licence and "FFHQ" in get_entry(name).licence


# What the cards say of held-out images, less two standard deviations.
@pytest.mark.parametrize("size, least", [(64, 17.0), (256, 19.8)])
def test_small_heads_show_the_same_face(generator, size, least):
    mapping, synthesis = generator
    with torch.inference_mode():
        style = mapping(normal((1, 512), "a face")) * 0.7
        wanted = downsampled(synthesis(style), size).clamp(-1, 1)
        found = small_image(synthesis, style, size).clamp(-1, 1)
    psnr = -10 * torch.log10((found - wanted).square().mean() / 4)
    assert found.shape == wanted.shape and psnr > least


def test_a_head_is_fitted_by_least_squares():
    """To images that are linear in the features, on a generator small enough to see all of them."""
    synthesis = load_generator("cpu")[1]
    true = LinearHead(512)
    torch.nn.init.normal_(true.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    styles = whole(normal((2, 512), "fit"))
    with torch.no_grad():
        images = true(synthesis.features(styles, 3))
        head = fit_head(synthesis, styles, 64, 1, lambda a, b: images[a:b])
        again = head(synthesis.features(styles, 3))
    assert (again - images).abs().max() < 0.02 * images.abs().max()
