"""Faces: alignment against independent solvers, the warp against scikit-image, detectors on real
faces."""

import numpy as np
import pytest
from skimage.transform import PiecewiseAffineTransform, SimilarityTransform, warp

from fsrbench.errors import FsrError
from fsrbench.faces.align import (
    ARCFACE_5,
    arcface_frame,
    ffhq_frame,
    five_points,
    invert,
    outside_share,
    sample,
    similarity,
    transform,
)
from fsrbench.faces.detect import find
from fsrbench.faces.geometry import FFHQ, MIRROR_68, Frame, template
from fsrbench.faces.lr import lr_landmarks
from fsrbench.faces.warp import face_mask, tps_warp_image, warp_face, with_forehead
from fsrbench.imaging import imresize, load, to_float, to_uint8


def moved(points, rng, spread):
    return points + rng.normal(0, spread, points.shape)


def test_template_is_mirror_symmetric_and_its_own_alignment():
    points = template(256)
    assert np.allclose(points[MIRROR_68] * [-1, 1] + [255, 0], points, atol=0.03)
    # A face that already lies at the template is cut where it is (the mean face is a median of
    # aligned faces).
    assert np.allclose(ffhq_frame(points, 256), [[1, 0, 0], [0, 1, 0]], atol=0.03) or \
        np.allclose(transform(ffhq_frame(points, 256), np.array([[127.5, 127.5]])), 127.5, atol=4)


def test_ffhq_frame_follows_rotation_scale_and_framing():
    points, turn = template(512), np.deg2rad(20)
    rotation = 0.7 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    turned = points @ rotation.T + [40, 25]
    plain, other = ffhq_frame(points, 64), ffhq_frame(turned, 64)
    assert np.allclose(rotation @ plain[:, :2], other[:, :2])
    tight = ffhq_frame(points, 64, Frame(0.5, 0.0))
    assert np.allclose(tight[:, :2], plain[:, :2] / 2)
    middle = np.array([[31.5, 31.5]])
    assert np.allclose(transform(tight, middle), transform(plain, middle))
    lowered = ffhq_frame(points, 64, Frame(1.0, 0.1))
    side = np.linalg.norm(plain[:, 1]) * 64
    assert np.allclose(np.linalg.norm(transform(lowered, middle) - transform(plain, middle)),
                       0.1 * side)


def test_similarity_equals_scikit_image():
    rng = np.random.default_rng(0)
    source, target = rng.random((5, 2)) * 50, rng.random((5, 2)) * 50
    theirs = SimilarityTransform.from_estimate(source, target).params[:2]
    assert np.allclose(similarity(source, target), theirs, atol=1e-9)


def test_arcface_frame_puts_the_five_points_on_the_template():
    points = template(256) * 0.9 + 3
    landed = transform(invert(arcface_frame(points)), five_points(points))
    # a mean face is not ArcFace's face; a similarity cannot do better
    assert np.abs(landed - ARCFACE_5).max() < 4
    assert np.allclose(landed.mean(0), ARCFACE_5.mean(0))


def test_sampling_identity_shrinking_and_mirroring():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    identity = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    assert (sample(image, identity, 32) == image).all()
    half = sample(image, np.array([[2.0, 0, 0.5], [0, 2.0, 0.5]]), 16)
    blocks = image.reshape(16, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(half - blocks).max() <= 0.5 + 1e-9
    shifted = sample(image, identity + [[0, 0, -3], [0, 0, 0]], 32)
    assert (shifted[:, 0] == image[:, 3]).all()
    assert outside_share(identity + [[0, 0, -16], [0, 0, 0]], 32, 32, 32) == 0.5


@pytest.mark.parametrize("points", [68, 78, 20])
@pytest.mark.parametrize("size", [64, 256])
def test_warp_equals_scikit_image(points, size):
    rng = np.random.default_rng(points + size)
    face = (with_forehead(template(size))[rng.permutation(78)[:points]] if points
            != 68 else template(size))
    source, target = moved(face, rng, size / 80) * 0.95 + size / 50, moved(face, rng, size / 160)
    image = rng.random((size + 9, size - 5, 3))
    theirs = warp(image, PiecewiseAffineTransform.from_estimate(target, source),
                  output_shape=(size, size), mode="edge")
    ours = tps_warp_image(image, source, target, (size, size))
    assert np.abs(ours.astype(int) - (theirs * 255).astype(np.uint8)).mean() < 1 / 255
    assert (ours != tps_warp_image(image, target, source, (size, size))).any()


def test_warp_onto_itself_changes_nothing_inside_and_clears_outside():
    points = template(64)
    image = np.random.default_rng(0).random((3, 64, 64)).astype(np.float32)
    warped, mask = warp_face(image, points, points, 64)
    assert np.abs(warped - image)[:, mask].max() < 1e-5
    assert (warped[:, ~mask] == 0).all() and (mask == face_mask(points, 64)).all()
    assert 0.2 < mask.mean() < 0.6 and mask[24, 32] and not mask[:, 2].any()


@pytest.mark.parametrize("bad", [np.zeros((68, 2)), np.full((68, 2), np.nan)])
def test_landmarks_that_span_no_face_are_refused(bad):
    with pytest.raises(FsrError, match="do not span a face"):
        face_mask(bad, 64)


def test_detection_finds_real_faces_at_any_size(orl_root):
    image = load(orl_root / "s5" / "1.pgm")
    found = find(image)
    assert found.source == "dlib-hog+dlib68" and found.points.shape == (68, 2)
    big = to_uint8(imresize(to_float(image[None]), image.shape[0] * 5, image.shape[1] * 5))[0]
    assert np.abs(find(big).points / 5 - found.points).mean() < 2
    assert find(np.zeros((90, 90, 3), np.uint8)) is None
    assert find(np.random.default_rng(0).integers(0, 256, (40, 300, 3), dtype=np.uint8)) is None


@pytest.mark.parametrize("width", [20, 24])
def test_small_faces_of_a_large_image_are_found(width):
    """A face of so many pixels from ear to ear in one of 1,500."""
    from PIL import Image
    from skimage.data import astronaut

    whole, rng = astronaut(), np.random.default_rng(0)
    points, scale = find(whole).points, width / 93
    texture = rng.integers(60, 200, (40, 60, 3), dtype=np.uint8)
    scene = np.array(Image.fromarray(texture).resize((1500, 1000), Image.Resampling.BICUBIC))
    small = np.asarray(Image.fromarray(whole).resize((round(512 * scale),) * 2,
                                                     Image.Resampling.BICUBIC))
    scene[300:300 + len(small), 500:500 + len(small)] = small
    found = find(scene).points
    assert np.abs(found.mean(0) - points.mean(0) * scale - (500, 300)).max() < 1
    assert np.ptp(found, axis=0) == pytest.approx(np.ptp(points, axis=0) * scale, rel=0.15)


def test_a_crop_of_a_small_face_is_named(tmp_path):
    from PIL import Image
    from skimage.data import astronaut

    from fsrbench.engine.data import open_source, prepare, verified
    from fsrbench.engine.store import Store
    from fsrbench.faces.prepare import Preparation

    (tmp_path / "a" / "p").mkdir(parents=True)
    for side in (512, 150):
        Image.fromarray(astronaut()).resize((side, side)).save(tmp_path / "a" / "p" / f"{side}.png")
    store, source = Store(tmp_path / "store"), open_source(f"folder:{tmp_path / 'a'}")
    made = prepare(source, verified(source, source.entries, store), Preparation(64), store)
    assert [p.remarks for p in made] == [(), ()] and not any(p.error for p in made)
    large = prepare(source, verified(source, source.entries, store), Preparation(256), store)
    assert [bool(p.remarks) for p in large] == [True, False]  # 150.png, 512.png


def test_lr_landmarks_fall_back_to_the_template_and_say_so(orl_root, monkeypatch):
    from fsrbench.faces.prepare import Preparation, align

    image, truth, _ = align(load(orl_root / "s5" / "1.pgm"), Preparation(64, Frame(0.75, 0.03)))
    sharp = lr_landmarks(image, Frame(0.75, 0.03))
    assert sharp.source != "template" and np.abs(sharp.points - truth.points).mean() < 1
    gone = to_uint8(imresize(imresize(to_float(image[None]), 4, 4), 64, 64))[0]
    monkeypatch.setattr("fsrbench.faces.lr.DETECTORS", ())
    lost = lr_landmarks(gone, Frame(0.75, 0.03))
    assert lost.source == "template" and np.allclose(lost.points, template(64, Frame(0.75, 0.03)))


def test_an_aligned_image_is_only_cropped(orl_root):
    from fsrbench.faces.prepare import Preparation, align

    image = load(orl_root / "s5" / "1.pgm")
    ffhq, _, _ = align(image, Preparation(128, FFHQ))
    again, _, outside = align(ffhq, Preparation(64, Frame(0.5, 0.0), aligned=True))
    middle = ffhq[32:96, 32:96]
    assert (again == middle).all() and outside == 0
    nothing = np.zeros((128, 128, 3), np.uint8)
    _, landmarks, _ = align(nothing, Preparation(64, FFHQ, aligned=True))
    assert landmarks.source == "template" and np.allclose(landmarks.points, template(64), atol=0.51)
