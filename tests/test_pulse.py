"""PULSE: the authors' losses, schedule and sphere, and a face that is I_L when downsampled."""

import functools

import numpy as np
import pytest
import torch

from fsrbench import registry
from fsrbench.core import Batch
from fsrbench.engine.samples import load_samples
from fsrbench.faces.geometry import FFHQ, Frame
from fsrbench.faces.prepare import Preparation, align
from fsrbench.imaging import imresize, load, to_float
from fsrbench.methods.common.mobilestylegan import load_generator
from fsrbench.methods.common.mobilestylegan_heads import small_image
from fsrbench.methods.pulse import method as pulse
from fsrbench.methods.pulse.search import (
    RATE,
    Sphere,
    crossing,
    fitted_sphere,
    rate_at,
    search,
)
from fsrbench.profiles import PROFILES
from fsrbench.rng import normal

MINI = PROFILES["mini"]


def _batch(samples, scale=8):
    truths = to_float(np.stack([s.gt.image for s in samples]))
    small = imresize(truths, 64 // scale, 64 // scale).clip(0, 1)
    lr = np.round(small * 255).astype(np.float32) / 255
    return Batch([s.id for s in samples], [s.person for s in samples], lr, scale,
                 [s.gt.landmarks for s in samples], [s.reference for s in samples],
                 [s.album for s in samples])


@pytest.fixture(scope="module")
def samples(session_store):
    """Of two people in turns."""
    found = load_samples("orl", MINI, session_store, 2, seed=0).samples
    return [sample for i in range(5) for sample in found[i::5]]


def test_schedule_is_the_authors():
    """linear1cycledrop of 100 steps: a tenth, all at 45, a tenth at 90, then to a thousandth."""
    assert [rate_at(s) for s in (0, 45, 90, 100)] == pytest.approx([0.1, 1, 0.1, 0.001])
    assert rate_at(22.5) == pytest.approx(0.55) and rate_at(95) == pytest.approx(0.0505)


def test_crossing_is_the_angle_between_styles():
    assert crossing(normal((2, 1, 512), "one").expand(-1, 4, -1)).max() < 1e-3
    right = torch.zeros(1, 2, 512)
    right[0, 0, 0], right[0, 1, 1] = 2, 3
    # Two of four pairs are at a right angle.
    assert crossing(right).item() == pytest.approx((np.pi / 2)**2 / 2 * 512 / 8, rel=1e-4)


def test_sphere_gives_back_styles_of_its_spread():
    before = normal((4000, 8), "before") * torch.arange(1, 9) + 0.5
    sphere = fitted_sphere(torch.nn.functional.leaky_relu(before, 0.2))
    assert torch.allclose(sphere.mean, before.mean(0), atol=1e-4)
    assert torch.allclose(sphere.deviation, before.std(0), atol=1e-4)
    styles = sphere.styles(torch.ones(1, 8))
    assert torch.allclose(styles, sphere.mean + sphere.deviation, atol=1e-5)


def test_search_stays_on_the_sphere_and_keeps_the_best_step():
    seen, sphere = [], Sphere(torch.zeros(6), torch.ones(6))

    def image_of(styles):
        seen.append(styles.detach())
        return styles.flatten(1)[:, :12].view(-1, 3, 2, 2)
    start = normal((3, 2, 6), "start")
    wanted = image_of(sphere.styles(normal((1, 2, 6), "goal")))
    seen.clear()
    styles, loss = search(image_of, sphere, start[None], lambda x: x, wanted, steps=30, choose=10)
    latents = [torch.where(s < 0, s * 5, s) for s in seen]
    assert [len(x) for x in latents] == [3] * 10 + [1] * 20
    losses = [100 * (s.flatten(1).view(-1, 3, 2, 2) - wanted).square().mean((1, 2, 3)).clamp(
        min=1e-3) + 0.05 * crossing(s) for s in seen]
    chosen = torch.stack(losses[:10]).min(0).values.argmin()
    alone = [x[chosen] if len(x) > 1 else x[0] for x in latents]
    assert all(torch.allclose(x.norm(dim=-1), start[chosen].norm(dim=-1), atol=1e-4)
               for x in alone)
    values = torch.stack([x[chosen] if len(x) > 1 else x[0] for x in losses])
    assert loss.item() == pytest.approx(values.min().item(), abs=1e-4) and loss < losses[0].min()
    assert torch.allclose(styles[0], seen[int(values.argmin())][-1 if values.argmin() >= 10
                                                                else int(chosen)], atol=1e-6)
    first = (latents[1] - start).abs().max()
    assert first <= 2 * RATE * 0.1, "a first step of Adam's rate, and back to the sphere"
    # The one that goes on is searched as if it had always been alone.
    by_itself, _ = search(image_of, sphere, start[None, chosen:chosen + 1], lambda x: x, wanted,
                          steps=30)
    assert torch.allclose(by_itself, styles, atol=1e-5)


def test_faces_that_are_searched_for_together_do_not_see_each_other():
    """Each with the start that is the better one of its own."""
    sphere = Sphere(torch.zeros(6), torch.ones(6))

    def found(start, wanted):
        return search(lambda styles: styles.flatten(1)[:, :12].view(-1, 3, 2, 2), sphere, start,
                      lambda x: x, wanted, steps=30, choose=10)
    starts, wanted = normal((4, 2, 2, 6), "starts"), normal((4, 3, 2, 2), "wanted")
    styles, losses = found(starts, wanted)
    for i in range(4):
        alone = found(starts[i:i + 1], wanted[i:i + 1])
        assert torch.allclose(styles[i:i + 1], alone[0], atol=1e-5)
        assert torch.allclose(losses[i:i + 1], alone[1], atol=1e-4)


@pytest.mark.parametrize("size, side, frame", [(64, 64, Frame(0.75, 0.03)), (256, 256, FFHQ)])
def test_cutting_is_that_of_prepared_images(size, side, frame, orl_root):
    image = np.resize(load(orl_root / "s1" / "1.pgm"), (side, side, 3))
    wanted = align(image, Preparation(size, frame, aligned=True))[0]
    rows, columns = pulse.cut(size, side, frame, "cpu")
    found = rows @ torch.from_numpy(to_float(image[None]))[0] @ columns.T
    assert np.abs(found.permute(1, 2, 0).numpy() * 255 - wanted).max() < 0.51


def test_restoration_is_a_face_that_is_i_l_downsampled(samples, monkeypatch):
    """In a quarter of the steps, which is nearer to I_L than the start by far."""
    few = functools.partial(search, steps=25)
    monkeypatch.setattr(pulse, "search", few)
    monkeypatch.setattr(pulse, "STARTS", 1)
    batch = _batch(samples[:1])
    with torch.inference_mode():
        restored = registry.get("pulse.official-prior")(MINI).restore(batch).numpy()
        monkeypatch.setattr(pulse, "search", functools.partial(search, steps=1))
        start = registry.get("pulse.official-prior")(MINI).restore(batch).numpy()
    assert restored.shape == (1, 3, 64, 64) and 0 <= restored.min() and restored.max() <= 1
    error, before = (np.square(imresize(x, 8, 8) - batch.lr).mean() for x in (restored, start))
    assert error < 0.2 * before


def test_a_sample_does_not_depend_on_its_batch(samples, monkeypatch):
    """Bit for bit, though four are searched for at once."""
    given = []

    def found(image_of, sphere, starts, downsample, wanted, further):
        given.append((starts, torch.get_num_threads()))
        return search(image_of, sphere, starts, downsample, wanted, steps=12, choose=3)
    monkeypatch.setattr(pulse, "search", found)
    method, threads = registry.get("pulse.official-prior")(MINI), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        all_six = method.restore(_batch(samples[:6]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    for i in (1, 5):
        alone = method.restore(_batch(samples[i:i + 1]))
        assert torch.equal(all_six[i:i + 1], alone) and not torch.equal(all_six[:1], alone)
    turned = method.restore(_batch([*samples[5::-1], samples[0]]))
    assert torch.equal(turned[:6].flip(0), all_six) and torch.equal(turned[6], all_six[0])
    assert len(given) == 6 and all(n == 1 for _, n in given)
    assert {starts.shape for starts, _ in given} == {(4, 2, 4, 512)}
    starts = torch.cat([starts for starts, _ in given[:2]]).flatten(0, 1).flatten(1)
    assert len(starts.unique(dim=0)) == 12, "each start of each sample is its own"


@pytest.mark.parametrize("rows, columns", [
    ((0, 64), (0, 64)), ((9, 59), (7, 57)), ((0, 40), (30, 60)), ((20, 30), (33, 34)),
    ((63, 64), (0, 1))])
def test_a_window_is_that_part_of_the_image(rows, columns):
    """Of a face, of corners and of a single column; and so are its gradients."""
    styles = pulse._sphere("cpu").styles(normal((2, 4, 512), "styles")).requires_grad_()
    drawing = pulse._drawing("cpu", 64, torch.float32, rows, columns)
    shown = (..., slice(*drawing.seen[0]), slice(*drawing.seen[1]))
    assert all(seen[0] <= span[0] and span[1] <= seen[1]
               for seen, span in zip(drawing.seen, (rows, columns)))
    found, wanted = drawing(styles), small_image(load_generator("cpu")[1], styles, 64)[shown]
    assert found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-5)
    slope, exact = (torch.autograd.grad(x.square().sum(), styles)[0] for x in (found, wanted))
    assert torch.allclose(slope, exact, atol=1e-5 * exact.abs().max())


def test_no_more_is_drawn_than_the_frame_shows():
    """In the mini profile less than three quarters of the last convolution's positions."""
    window = pulse.Window(64, 64, MINI.frame, "cpu")
    last = window.drawing(torch.float32).layers[-1].conv2
    assert last.noise.shape[-2] * last.noise.shape[-1] < 3 / 4 * 32**2
    styles = pulse._sphere("cpu").styles(normal((1, 4, 512), "styles"))
    rows, columns = pulse.cut(64, 64, MINI.frame, "cpu")
    whole = (small_image(load_generator("cpu")[1], styles, 64) + 1) / 2
    assert torch.allclose(window.image_of(styles, torch.float32), rows @ whole @ columns.T,
                          atol=1e-5)


def test_half_precision_draws_the_same_faces():
    styles = pulse._sphere("cpu").styles(normal((2, 4, 512), "styles"))
    window = pulse.Window(64, 64, MINI.frame, "cpu")
    exact, half = (window.image_of(styles, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert half.dtype == torch.float32 and (half - exact).square().mean().sqrt() < 0.004


def test_identity_is_searched_towards_the_reference_set(samples):
    method, batch = registry.get("pulse.official-prior-id")(MINI), _batch(samples[:2])
    assert samples[0].person != samples[1].person
    own = torch.from_numpy(to_float(samples[0].gt.image[None])).repeat(2, 1, 1, 1).requires_grad_()
    # The first sample's truth in place of two images of each.
    shown = own[None].expand(2, -1, -1, -1, -1)
    further = method.further(batch, [0, 0], "cpu")(shown)
    batch.albums.reverse()
    assert further.shape == (2, 2)
    assert (further < method.further(batch, [0, 0], "cpu")(shown) - 0.2).all()
    assert torch.allclose(method.further(batch, [1, 0], "cpu")(shown)[1],
                          method.further(batch, [0], "cpu")(shown[:1])[0], atol=1e-5)
    assert torch.autograd.grad(further.sum(), own)[0].abs().max() > 0
