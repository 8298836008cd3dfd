"""RetinaFace: anchors, decoding, detection and loss against facexlib and slow loops; training and
use on LR faces."""

import math

import numpy as np
import pytest
import torch
from facexlib.detection import retinaface_utils as theirs
from facexlib.detection.retinaface import RetinaFace as FacexlibRetinaFace
from facexlib.detection.retinaface import generate_config

from fsrbench.errors import FsrError
from fsrbench.faces.multibox import (
    Truth,
    corners,
    encode_boxes,
    encode_points,
    hard_negatives,
    match,
    multibox_loss,
    overlaps,
    total,
)
from fsrbench.faces.retinaface import (
    MINI_RETINA,
    MOBILE025,
    RESNET50,
    RetinaFace,
    _suppressed,
    decode_boxes,
    decode_points,
    detect,
    load_retinaface,
    priors,
    strongest,
)
from fsrbench.profiles import PROFILES
from fsrbench.proof.parity import filled

MINI_FRAME = PROFILES["mini"].frame


def random_faces(count, rng, points=5):
    """Boxes well inside the image, of the anchors' sizes, and landmarks in them."""
    corner, size = rng.random((count, 2)) * 0.5, 0.1 + rng.random((count, 2)) * 0.4
    boxes = np.concatenate([corner, corner + size], 1)
    inside = corner[:, None] + rng.random((count, points, 2)) * size[:, None]
    return torch.from_numpy(boxes).float(), torch.from_numpy(inside).float()


# --- anchors, coding ------------------------------------------------------------------------------

@pytest.mark.parametrize("height,width", [(96, 96), (64, 64), (101, 333), (7, 40)])
def test_anchors_are_facexlib_s(height, width):
    expected = theirs.PriorBox(generate_config("resnet50"), (height, width)).forward()
    assert torch.allclose(priors(height, width), expected,
                          atol=1e-6) and len(expected) == len(priors(height, width))


def test_decoding_is_facexlib_s_and_undoes_encoding():
    rng, anchors = np.random.default_rng(0), priors(96, 128)
    loc, landm = (torch.from_numpy(rng.normal(0, 1, (len(anchors), n))).float() for n in (4, 10))
    assert torch.allclose(decode_boxes(loc, anchors), theirs.decode(loc, anchors, [0.1, 0.2]),
                          atol=1e-5)
    assert torch.allclose(decode_points(landm, anchors).flatten(1),
                          theirs.decode_landm(landm, anchors, [0.1, 0.2]), atol=1e-5)
    assert torch.allclose(encode_boxes(decode_boxes(loc, anchors), anchors), loc, atol=1e-3)
    assert torch.allclose(encode_points(decode_points(landm, anchors), anchors), landm, atol=1e-3)
    boxes, points = random_faces(len(anchors), rng)
    assert torch.allclose(encode_boxes(boxes, anchors), theirs.encode(boxes, anchors, [0.1, 0.2]),
                          atol=1e-4)
    expected = theirs.encode_landm(points.flatten(1), anchors, [0.1, 0.2])
    assert torch.allclose(encode_points(points, anchors), expected, atol=1e-4)


# --- detection ------------------------------------------------------------------------------------

def with_weights(config):
    """A network with random weights and outputs of a sensible size."""
    network = filled(RetinaFace(config))
    first = network.body.conv1 if config is RESNET50 else network.body.stage1[0][0]
    first.weight.data /= 64
    return network


@pytest.mark.parametrize("config,name", [(RESNET50, "resnet50"), (MOBILE025, "mobile0.25")])
def test_detections_are_facexlib_s_with_the_same_weights(config, name):
    ours = with_weights(config)
    other = FacexlibRetinaFace(name, device="cpu").eval()
    other.load_state_dict(ours.state_dict(), strict=True)
    image = np.random.default_rng(1).integers(0, 256, (150, 170, 3), dtype=np.uint8)
    with torch.no_grad():
        threshold = ours(torch.zeros(1, 3, 150, 170))[1].softmax(-1)[..., 1].median().item()
        rows = other.detect_faces(np.ascontiguousarray(image[..., ::-1]), conf_threshold=threshold)
    found = detect(ours, image[None], threshold)[0]
    assert len(rows) > 5 and np.allclose(found.scores, rows[:, 4], atol=1e-4)
    assert np.allclose(found.boxes, rows[:, :4], atol=0.02)
    assert np.allclose(found.points.reshape(-1, 10), rows[:, 5:], atol=0.02)


def test_suppression_is_the_greedy_one():
    rng = np.random.default_rng(2)
    boxes, points = random_faces(200, rng)
    scores = torch.from_numpy(rng.random(200)).float()
    left, kept = [i for i in np.argsort(-scores.numpy()) if scores[i] > 0.3], []
    while left:
        kept.append(left[0])
        left = [i for i in left[1:] if iou(boxes[kept[-1]].tolist(), boxes[i].tolist()) <= 0.4]
    found = _suppressed(boxes, scores, points, 0.3, 0.4)
    assert 5 < len(kept) < 120 and np.array_equal(found.boxes, boxes[kept].numpy())
    assert np.array_equal(found.scores, scores[kept]
                          .numpy()) and np.array_equal(found.points, points[kept].numpy())


def test_an_image_does_not_depend_on_its_batch():
    network, images = (with_weights(MINI_RETINA),
                       np.random.default_rng(3).integers(0, 256, (5, 96, 96, 3), dtype=np.uint8))
    together = detect(network, images, 0.4)
    for image, one in zip(images, together):
        alone = detect(network, image[None], 0.4)[0]
        assert np.allclose(alone.boxes, one.boxes, atol=1e-3) and np.allclose(alone.points,
                                                                              one.points, atol=1e-3)
    scores, points = strongest(network, images)
    assert np.allclose(scores, [f.scores[0] for f in together])
    assert np.allclose(points, [f.points[0] for f in together])
    assert np.abs(points[0] - points[1]).max() > 1e-3


# --- matching and loss ----------------------------------------------------------------------------

def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_matching_rules():
    anchors = priors(64, 64)
    far, small = torch.tensor([[0.9, 0.9, 0.905, 0.905]]), torch.tensor([[0.30, 0.30, 0.46, 0.46]])
    exact = corners(anchors)[[37]]
    assert match(torch.zeros(0, 4), anchors).eq(-1).all() and match(far, anchors).eq(-1).all()
    owners = match(torch.cat([far, exact]), anchors)
    assert owners[37] == 1 and not owners.eq(0).any()
    shared = overlaps(exact, corners(anchors))[0]
    assert torch.equal(owners.eq(1), shared >= 0.35)
    # A face that no anchor overlaps by 0.35 still has its best one.
    best = overlaps(small, corners(anchors))[0]
    assert 0.2 <= best.max() and match(small, anchors)[best.argmax()] == 0
    weak = torch.tensor([[0.30, 0.30, 0.37, 0.70]])
    shared = overlaps(weak, corners(anchors))[0]
    assert 0.2 <= shared.max() < 0.35
    assert match(weak, anchors).eq(0).nonzero().tolist() == [[int(shared.argmax())]]


def test_matching_and_targets_are_facexlib_s():
    rng, anchors = np.random.default_rng(4), priors(128, 128)
    for _ in range(20):
        boxes, points = random_faces(3, rng)
        loc, landm = torch.zeros(1, len(anchors), 4), torch.zeros(1, len(anchors), 10)
        conf = torch.zeros(1, len(anchors)).long()
        theirs.match(0.35, boxes, anchors, [0.1, 0.2], torch.ones(3), points.flatten(1), loc, conf,
                     landm, 0)
        face = match(boxes, anchors)
        positive = face >= 0
        assert torch.equal(conf[0] == 1, positive) and positive.any()
        assert torch.allclose(loc[0][positive], encode_boxes(boxes[face[positive]],
                                                             anchors[positive]), atol=1e-4)
        assert torch.allclose(landm[0][positive], encode_points(points[face[positive]],
                                                                anchors[positive]), atol=1e-4)


def slow_owners(anchors, truth):
    """The face of each positive anchor."""
    owner, as_corners = {}, [(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                             for x, y, w, h in anchors.tolist()]
    table = [[iou(b, a) for a in as_corners] for b in truth.boxes.tolist()]
    for a in range(len(anchors)):
        values = [row[a] for row in table]
        if values and max(values) >= 0.35:
            owner[a] = int(np.argmax(values))
    for g, row in enumerate(table):
        if max(row) >= 0.2:
            owner[int(np.argmax(row))] = g
    return owner


def slow_loss(loc, logits, landm, anchors, truths):
    """The three losses, anchor by anchor."""
    box = face = landmark = 0.0
    positives = known = 0
    owners = [slow_owners(anchors, truth) for truth in truths]
    usual = int(sum(map(len, owners)) / max(1, sum(map(bool, owners))))
    for n, (truth, owner) in enumerate(zip(truths, owners)):

        def entropy(a, label):
            z = logits[n, a].tolist()
            return math.log(sum(math.exp(v) for v in z)) - z[label]
        others = sorted((entropy(a, 0) for a in range(len(anchors)) if a not in owner),
                        reverse=True)
        face += sum(others[:min(7 * (len(owner) or usual), len(anchors) - 1)])
        for a, g in owner.items():
            x, y, w, h = anchors[a].tolist()
            left, top, right, bottom = truth.boxes[g].tolist()
            wanted = [((left + right) / 2 - x) / (0.1 * w), ((top + bottom) / 2 - y) / (0.1 * h),
                      math.log((right - left) / w) / 0.2, math.log((bottom - top) / h) / 0.2]
            box += sum(smooth(p - t) for p, t in zip(loc[n, a].tolist(), wanted))
            face += entropy(a, 1)
            positives += 1
            if truth.known[g]:
                wanted = [v for px, py in truth.points[g].tolist()
                          for v in ((px - x) / (0.1 * w), (py - y) / (0.1 * h))]
                landmark += sum(smooth(p - t) for p, t in zip(landm[n, a].tolist(), wanted))
                known += 1
    return {"box": box / max(1, positives), "face": face / max(1, positives), "points": landmark
            / max(1, known)}


def smooth(d):
    return 0.5 * d * d if abs(d) < 1 else abs(d) - 0.5


def test_loss_is_that_of_a_slow_loop():
    # Boxes of which no two anchors are equally good, so that rounding decides nothing.
    rng, anchors = np.random.default_rng(9), priors(96, 96)
    truths = []
    for count, known in ((2, (True, False)), (1, (True,)), (0, ()), (3, (True, True, False))):
        boxes, points = random_faces(count, rng)
        truths.append(Truth(boxes, points, torch.tensor(known, dtype=torch.bool)))
    outputs = [torch.from_numpy(rng.normal(0, 1, (4, len(anchors), n))).float().requires_grad_()
               for n in (4, 2, 10)]
    losses, expected = multibox_loss(tuple(outputs), anchors, truths), slow_loss(*outputs, anchors,
                                                                                 truths)
    for name, value in expected.items():
        assert value > 0 and losses[name].item() == pytest.approx(value, rel=1e-4), name
    assert total(losses).item() == pytest.approx(2 * expected["box"] + expected["face"]
                                                 + expected["points"], rel=1e-4)
    total(losses).backward()
    assert all(torch.isfinite(out.grad).all() and out.grad.abs().max() > 0 for out in outputs)


def test_hard_negatives_are_the_seven_worst_for_each_positive():
    logits = torch.zeros(2, 50, 2)
    logits[..., 1] = torch.arange(50.0)
    positive = torch.zeros(2, 50, dtype=torch.bool)
    positive[0, [49, 3]] = True
    kept = hard_negatives(logits, positive)
    assert kept[0].nonzero().flatten().tolist() == list(range(35, 49))
    # An image without a face keeps as many as the others on average.
    assert kept[1].nonzero().flatten().tolist() == list(range(36, 50))


# --- files ----------------------------------------------------------------------------------------

def test_official_files_load_with_and_without_their_prefix(tmp_path):
    state = filled(RetinaFace(MOBILE025)).state_dict()
    for name, saved in (("plain.pth", state),
                        ("prefixed.pth", {f"module.{k}": v for k, v in state.items()})):
        torch.save(saved, tmp_path / name)
        network = load_retinaface(tmp_path / name, MOBILE025)
        assert all(torch.equal(v, state[k]) for k, v in network.state_dict()
                   .items()) and not network.training
    with pytest.raises(FsrError,
                       match="prefixed.pth: not of this network: missing body.conv1.weight"):
        load_retinaface(tmp_path / "prefixed.pth", RESNET50)
    torch.save({k: v for k, v in state.items() if k != "ssh1.conv7x7_3.0.weight"}
               | {"fc.weight": torch.zeros(1)}, tmp_path / "cut.pth")
    with pytest.raises(FsrError, match="missing ssh1.conv7x7_3.0.weight, unexpected fc.weight"):
        load_retinaface(tmp_path / "cut.pth", MOBILE025)
