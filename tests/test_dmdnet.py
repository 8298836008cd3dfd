"""DMDNet: boxes, crops, dictionaries and their mixture against independent arithmetic; the official
layout; gradients."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

from fsrbench.faces.geometry import template
from fsrbench.methods.dmdnet.boxes import part_boxes
from fsrbench.methods.dmdnet.network import SCALES, DmdConfig, DmdNet, cropped, pasted, read, scores
from fsrbench.profiles import PROFILES
from fsrbench.proof.parity import filled

SMALL = DmdConfig(16, slots=8, parts=(16, 16, 24), size=64, spectral=False, learned=True)
FACE = template(512)
PARITY = ROOT / "tests" / "parity"


def uniform(n, seed=0):
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def boxes(n, seed=0):
    """Different boxes for each of n small images."""
    face, rng = template(64, PROFILES["mini"].frame), np.random.default_rng(seed)
    return torch.from_numpy(np.stack([part_boxes(face + rng.uniform(-2, 2, 2), 64)
                                      for _ in range(n)]))


@pytest.fixture(scope="module")
def network():
    return filled(DmdNet(SMALL))


@pytest.fixture
def own():
    """A network that a test may change."""
    return filled(DmdNet(SMALL))


def test_keys_and_shapes_are_the_official_ones():
    official = json.loads((PARITY / "dmdnet.json").read_text())
    with torch.device("meta"):
        network = DmdNet()
    network.load_state_dict({k: torch.empty(v, device="meta") for k, v in official["state_dict"]
                             .items()}, strict=True)
    assert sum(p.numel() for p in network.parameters()) == official["params"] == 40_356_737
    assert sum(b.numel() for b in network.buffers()) == official["buffers"]


def test_learned_memories_have_the_same_keys():
    fixed = DmdNet(DmdConfig(16, slots=8, parts=(16, 16, 24), size=64, spectral=False))
    learned = DmdNet(SMALL)
    assert fixed.state_dict().keys() == learned.state_dict().keys()
    trained = {name for name, _ in learned.named_parameters()} - {name for name,
                                                                  _ in fixed.named_parameters()}
    assert len(trained) == 18 and all("_mem_" in name for name in trained)


def test_boxes_are_the_recorded_ones():
    with np.load(PARITY / "dmdnet-a.npz") as fixture:
        landmarks = [fixture["lq_landmarks"], *fixture["ref_landmarks"]]
        for points, found in zip(landmarks, [*fixture["lq_loc"], *fixture["ref_loc"]], strict=True):
            before = points.copy()
            assert np.array_equal(part_boxes(points, 512), found) and np.array_equal(points, before)


def test_landmarks_beyond_the_margin_count_as_on_it_and_are_left_alone():
    points = FACE.copy()
    points[48] = [-30, 420]
    before, clipped = points.copy(), np.clip(points, 8, 504)
    assert np.array_equal(part_boxes(points, 512),
                          part_boxes(clipped, 512)) and np.array_equal(points, before)


def test_a_mouth_has_a_least_size_and_ends_before_the_edge():
    """Twenty points in one place: 1.1 * 16 pixels either way, and one less to the left; right and
    below 510 at most."""
    points = FACE.copy()
    points[48:68] = [300, 400]
    assert part_boxes(points, 512)[3].tolist() == [283, 383, 317, 417]
    points[48:68] = [500, 502]
    assert part_boxes(points, 512)[3].tolist() == [483, 485, 510, 510]
    points[48:52, 0], points[52:68, 0], points[48:68, 1] = 401, 504, 400
    assert part_boxes(points, 512)[3].tolist() == [427, 344, 510, 456]
    assert part_boxes(points / 8, 64)[3].tolist() == [53, 43, 63, 57]


def test_boxes_of_a_smaller_image_are_those_of_the_large_one():
    """An eighth is exact in binary, so that nothing but the truncation is left."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = FACE + rng.normal(0, 4, FACE.shape) + rng.uniform(-30, 30, 2)
        assert np.array_equal(part_boxes(points / 8, 64), part_boxes(points, 512) // 8)


@pytest.mark.parametrize("size", [64, 512])
def test_a_part_outside_the_image_or_without_extent_is_an_error(size):
    face, flat = FACE * size / 512, FACE.copy()
    flat[17:22, 1] = flat[36:42, 1] = 200
    for points in (face - [0.35 * size, 0], face + [0.38 * size, 0], flat * size / 512):
        with pytest.raises(ValueError, match="not in the image"):
            part_boxes(points, size)
    turned = FACE.copy()
    turned[31:36, 0] = FACE[30, 0]
    turned[29:31, 0] = FACE[30, 0]
    assert part_boxes(turned * size / 512, size).shape == (4, 4), "the nose is not used"


@pytest.mark.parametrize("factor", SCALES.values())
def test_parts_are_slices_resized_and_put_back(factor):
    """Against slicing and `interpolate`, image by image, as the official code does it."""
    side, where = 64 // factor, boxes(3)
    features = torch.randn(3, 5, side, side, generator=torch.Generator().manual_seed(1))
    parts = {row: cropped(features, where[:, row], factor, n) for row, n in ((0, 7), (3, 9))}
    restored, expected = features, features.clone()
    for row, part in parts.items():
        n = part.shape[-1]
        for i, (left, top, right, bottom) in enumerate((where[:, row] // factor).tolist()):
            cut = F.interpolate(features[i:i + 1, :, top:bottom, left:right], (n, n),
                                mode="bilinear", align_corners=False)
            assert torch.allclose(part[i], cut[0], atol=1e-5)
            expected[i, :, top:bottom, left:right] = F.interpolate(
                part[i:i + 1] + 3, (bottom - top, right - left), mode="bilinear",
                align_corners=False)[0]
        restored = pasted(restored, part + 3, where[:, row], factor)
    assert torch.allclose(restored, expected, atol=1e-5)
    assert not torch.equal(restored, features)


def test_the_later_of_two_parts_lies_on_top():
    features, where = torch.zeros(1, 1, 8, 8), torch.tensor([[[0, 0, 40, 40]], [[24, 24, 64, 64]]])
    first = pasted(features, torch.ones(1, 1, 4, 4), where[0], 8)
    both = pasted(first, torch.full((1, 1, 4, 4), 2.0), where[1], 8)[0, 0]
    assert (both[:3, :5] == 1).all() and (both[3:, 3:]
                                          == 2).all() and both[0, 5] == 0 and features.sum() == 0


def test_reading_is_a_convolution_with_the_keys():
    generator = torch.Generator().manual_seed(2)
    query, keys = (torch.randn(n, 4, 6, 6, generator=generator) for n in (3, 9))
    values = torch.randn(9, 16, 6, 6, generator=generator)
    weights = torch.softmax(F.conv2d(query, keys)[:, :, 0, 0] / 3,
                            1)  # the root of 9 slots, not of the features
    assert torch.allclose(scores(query, keys), weights, atol=1e-5)
    expected = sum(weights[:, k, None, None, None] * values[k] for k in range(9))
    assert torch.allclose(read(query, keys, values), expected, atol=1e-5)
    assert torch.allclose(read(query, keys[:1], values[:1]),
                          values[:1].expand(3, -1, -1, -1)), "one slot has all the weight"


def test_an_image_does_not_depend_on_its_batch(network):
    """Neither on the images beside it nor on how many references their people have."""
    lq, where, references, theirs = uniform(3), boxes(3), uniform(6, 1), boxes(6, 1)
    dictionaries, counts = network.memorise(references, theirs, [1, 3, 2]), [0, 1, 4, 6]
    together = {known is None: network(lq, where, known) for known in (None, dictionaries)}
    for i, (start, end) in enumerate(zip(counts, counts[1:])):
        alone = network.memorise(references[start:end], theirs[start:end])
        for known in (None, alone):
            out = network(lq[i:i + 1], where[i:i + 1], known)
            assert torch.allclose(out[0], together[known is None][i], atol=1e-5)


def test_each_image_reads_its_own_person(network):
    lq, where = uniform(1).expand(2, -1, -1, -1), boxes(1).expand(2, -1, -1)
    dictionaries = network.memorise(uniform(2, 1), boxes(2, 1), [1, 1])
    generic, specific = network(lq, where), network(lq, where, dictionaries)
    assert generic.shape == (2, 3, 64, 64) and generic.abs().max() < 1
    assert torch.allclose(generic[0], generic[1], atol=1e-5) and (specific[0]
                                                                  - specific[1]).abs().max() > 1e-3
    assert (specific - generic).abs().amax((1, 2, 3)).min() > 1e-3
    assert torch.allclose(network(lq, where, dictionaries[::-1]), specific.flip(0), atol=1e-5)


def test_references_are_a_set(network):
    """The same image twice says no more than once; order is nothing; another image is something."""
    lq, where, references, theirs = uniform(1), boxes(1), uniform(3, 1), boxes(3, 1)

    def restored(chosen):
        return network(lq, where, network.memorise(references[chosen], theirs[chosen]))
    assert torch.allclose(restored([0]), restored([0, 0, 0]), atol=1e-5)
    assert torch.allclose(restored([0, 1, 2]), restored([2, 0, 1]), atol=1e-5)
    assert (restored([0]) - restored([0, 1, 2])).abs().max() > 1e-4


def test_the_mask_is_the_share_of_the_person_s_own_memory(own):
    """At 0 the dictionary is as good as none, at 1 the generic memories are."""
    lq, where = uniform(1), boxes(1)
    dictionary = own.memorise(uniform(2, 1), boxes(2, 1))
    generic = own(lq, where)

    def mixed(share):
        for name, module in own.named_children():
            if name.endswith("_Mask"):
                module.convCat[-1].weight.zero_()
                module.convCat[-1].bias.fill_(share)
        return own(lq, where, dictionary)
    assert torch.allclose(mixed(0), generic, atol=1e-6)
    whole = mixed(1)
    for name, memory in own.named_parameters():
        if "_mem_value" in name:
            memory.copy_(memory.flip(0, 1) * 2)
    assert torch.allclose(own(lq, where, dictionary), whole,
                          atol=1e-6) and (own(lq, where) - generic).abs().max() > 1e-4
    assert (whole - generic).abs().max() > 1e-3


def test_statistics_are_matched_after_the_mixture(network):
    """What is handed on has each channel's mean of the part, in either mode; AdaIN before the
    mixture would not keep it."""
    where = boxes(2)
    parts = network.parts(network.E_lq(uniform(2)), where)
    dictionaries = network.memorise(uniform(2, 1), boxes(2, 1), [1, 1])
    for known in (None, dictionaries):
        for at, memory in network.memory(network.queries(parts), parts, known).items():
            assert torch.allclose(memory.mean((2, 3)), parts[at].mean((2, 3)), atol=1e-5)


def test_the_nose_is_not_used(network):
    where = boxes(1)
    moved = where.clone()
    moved[:, 2] = torch.tensor([-9, 0, 0, 999])
    assert torch.equal(network(uniform(1), where), network(uniform(1), moved))


def test_gradients_reach_memories_and_references():
    torch.manual_seed(0)
    network, references = DmdNet(SMALL), uniform(3, 1).requires_grad_(True)
    dictionaries = network.memorise(references, boxes(3, 1), [1, 2])
    network(uniform(2), boxes(2), dictionaries).square().mean().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    # What moves all keys of a person alike does not change which one is read.
    without = {name for name in without if not ("_KV.Key." in name and name.endswith("bias"))}
    # The published network carries query heads in E_hq that nothing calls.
    assert without == {name for name, _ in network.named_parameters() if name.startswith("E_hq.")
                       and "_Q." in name}
    assert (references.grad.abs().amax((1, 2, 3)) > 0).all()


def test_only_the_spectral_norm_s_scale_is_lost_without_it():
    """The normed network's convolutions have norm one whatever the weight's; the official file is
    read with it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DmdNet(DmdConfig(16, slots=8, parts=(16, 16, 24), size=64))
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 249 and all(hasattr(m, "weight_orig") for m in convolutions)
    network.train()
    for _ in range(3):
        before = network(uniform(1), boxes(1))
    with torch.no_grad():
        network.up4[0].weight_orig.mul_(5)
    assert torch.allclose(network.eval()(uniform(1), boxes(1)), before, atol=1e-2)
