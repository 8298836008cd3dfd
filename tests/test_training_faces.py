"""Faces for training, in batches on the device: the same as the benchmark makes one at a time."""

import numpy as np
import pytest
import torch

from fsrbench.errors import FsrError
from fsrbench.faces.align import arcface_frame, five_points
from fsrbench.faces.detect import find
from fsrbench.faces.warp import warp_face
from fsrbench.imaging import imresize, to_uint8
from fsrbench.methods.asffnet.alignment import landmark_mask, mls_grid
from fsrbench.methods.asffnet.training import landmark_masks, mls_grids
from fsrbench.methods.common.identity import five_points as five_of_batch
from fsrbench.methods.common.identity import frames
from fsrbench.methods.dmdnet.boxes import part_boxes
from fsrbench.methods.dmdnet.training import boxes_of
from fsrbench.methods.dpi.corrector import spread_on_grid
from fsrbench.methods.dpi.training import on_grid
from fsrbench.training.bank import STILL, Jitter, open_bank, read_bank
from fsrbench.training.draws import Draws
from fsrbench.training.faces import FACTORS, downsampled, upsampled, warped
from fsrbench.training.tasks import make, tasks


@pytest.fixture
def path(album, session_store, monkeypatch):
    monkeypatch.setattr("fsrbench.engine.data.draw_people", lambda people, rate, seed: people[:1])
    tasks()  # registers the encoder that a bank has its z_id from, whatever ran before this test
    return open_bank(f"folder:{album}", session_store, "mini", 0)


@pytest.fixture
def faces(path):
    return read_bank(path).train


def pairs(faces, n=8, jitter=Jitter()):
    draws = Draws("cpu").seed("test")
    index = faces.draw(draws, n, 1.0)
    flip, off = torch.arange(n) % 2 == 0, torch.zeros(n, dtype=torch.bool)
    images, points = faces.crops(draws, index, jitter, flip, off)
    references, marks = faces.crops(draws, faces.partner(draws, index), jitter, flip, off)
    return images, points, references, marks, faces.warp_triangles(index, flip)


def test_degradation_is_the_benchmarks(faces):
    images = pairs(faces, len(FACTORS))[0]
    factor = torch.arange(len(FACTORS))
    small = downsampled(images, factor)
    up, grids = upsampled(small, factor), on_grid(small, factor)
    for i, scale in enumerate(FACTORS):
        side = 64 // scale
        expected = np.floor(imresize(images[i].numpy(), side, side).clip(0, 1) * 255 + 0.5) / 255
        # A value on the edge between two bytes may fall to either.
        assert (np.abs(small[i, :, :side, :side].numpy() - expected) > 1e-6).mean() < 2e-3
        assert np.abs(up[i].numpy() - imresize(small[i, :, :side, :side].numpy(), 64, 64)
                      .clip(0, 1)).max() < 1e-6
        by_pil = spread_on_grid([to_uint8(small[i:i + 1, :, :side, :side].numpy())[0]], 64)[0]
        assert (grids[i] - by_pil).abs().max() < 3.1 / 127.5
        assert (grids[i] - by_pil).abs().mean() < 0.3 / 127.5


def test_the_warp_is_the_benchmarks(faces):
    """With the triangles of the landmarks that the face has, as the benchmark makes them anew."""
    _, points, references, marks, triangles = pairs(faces)
    got, mask = warped(references, marks, points, triangles)
    for i in range(len(points)):
        face, inside = warp_face(references[i].numpy(), marks[i].double().numpy(),
                                 points[i].double().numpy(), 64)
        assert (mask[i, 0].bool().numpy() != inside).mean() < 5e-4 and np.abs(got[i].numpy()
                                                                              - face).mean() < 1e-3
        assert inside.sum() > 500


def test_frames_boxes_masks_and_grids_are_the_methods(faces):
    _, points, _, marks, _ = pairs(faces)
    linear, offset = frames(points, 112)
    fallback = torch.zeros(4, 4, dtype=torch.long)
    for i, (p, q) in enumerate(zip(points.double().numpy(), marks.double().numpy())):
        expected = arcface_frame(p, 112)
        assert np.allclose(linear[i], expected[:, :2],
                           atol=1e-4) and np.allclose(offset[i], expected[:, 2], atol=1e-3)
        assert np.allclose(five_of_batch(points)[i], five_points(p), atol=1e-4)
        assert np.array_equal(landmark_masks(points, 64)[i].numpy(), landmark_mask(p, 64))
        assert np.abs(mls_grids(marks / 4, points / 4, 16)[i].numpy()
                      - mls_grid(q / 4, p / 4, 16)).max() < 1e-4
        assert np.array_equal(boxes_of(points, 64, fallback)[i].numpy(), part_boxes(p, 64))
    assert (boxes_of(points + 200, 64, fallback) == 0).all()


def test_crops_keep_landmarks_on_the_face(faces):
    """Landmarks follow the jitter: detecting again on the crop finds them where they were
    computed."""
    images, points = pairs(faces, 12)[:2]
    assert images.shape == (12, 3, 64, 64) and 0 <= images.min() and images.max() <= 1
    found = [find(np.ascontiguousarray(image)) for image in to_uint8(images.numpy())]
    errors = [np.abs(f.points - p.numpy()).mean() for f, p in zip(found, points) if f]
    assert len(errors) >= 7 and np.median(errors) < 1.2


def test_partners_are_other_images_of_the_same_person(faces):
    draws, everyone = Draws("cpu").seed(0), torch.arange(len(faces)).repeat(20)
    partner = faces.partner(draws, everyone)
    assert (faces.person[partner] == faces.person[everyone]).all() and (partner != everyone).all()
    for i in range(len(faces)):
        others = {j for j in range(len(faces)) if faces.person[j] == faces.person[i] and j != i}
        assert set(partner[everyone == i].tolist()) == others


def test_draws_belong_to_their_words_and_follow_their_odds():
    draws = Draws("cpu")
    first = draws.seed("a", 1).normal(5)
    assert torch.equal(draws.seed("a", 1).normal(5), first) and not torch.equal(draws.seed("a", 2)
                                                                                .normal(5), first)
    shares = torch.bincount(draws.choose(20000, (0.0, 0.2, 0.5, 0.3)), minlength=4) / 20000
    assert shares[0] == 0 and torch.allclose(shares, torch.tensor([0.0, 0.2, 0.5, 0.3]), atol=0.015)
    t = draws.stratified(10, 1000)
    assert sorted((t // 100).tolist()) == list(range(10)) and t.tolist() != sorted(t.tolist())


def test_a_bank_file_stands_for_its_data_set(path, album, session_store, tmp_path):
    again = make("prior", data=str(path), profile="mini", seed=0)
    own = make("prior", data=f"folder:{album}", store=session_store)
    assert torch.equal(again.bank.train.images,
                       own.bank.train.images) and again.bank.origin == own.bank.origin
    assert again.bank.origin.encoder == "sface" and len(again.bank.origin.people) == 2
    still, _ = again.bank.train.crops(Draws("cpu"), torch.arange(4), STILL,
                                      *[torch.zeros(4, dtype=torch.bool)] * 2)
    assert again.bank.train.z_id.shape == (8, 128) and still.shape == (4, 3, 64, 64)
    with pytest.raises(FsrError,
                       match="is of profile mini and seed 0; give --profile mini --seed 0"):
        make("prior", data=str(path), seed=1)
    for name, content in (("cut.npz", path.read_bytes()[:5000]), ("other.npz", b"PK"),
                          ("none.npz", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(FsrError, match=rf"bank .*{name}: "):
            make("prior", data=str(tmp_path / name))


def test_a_training_refuses_what_it_does_not_take(path):
    with pytest.raises(FsrError, match="--profile paper: prior has no paper version"):
        make("prior", data=str(path), profile="paper")
    with pytest.raises(FsrError, match="--degradation: does not apply to prior"):
        make("prior", data=str(path), degradation="bicubic")
    with pytest.raises(FsrError, match="--case: does not apply to restorer"):
        make("restorer", data=str(path), case=0)
