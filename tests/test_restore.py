"""`invoke restore`: geometry on pictures whose values are known, the audit, and the command as a user types it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fsrbench import restore as engine
from fsrbench.errors import FsrError
from fsrbench.faces.align import ffhq_frame, transform
from fsrbench.faces.geometry import Landmarks, template
from fsrbench.imaging import imresize, load, to_float, to_uint8
from fsrbench.profiles import PROFILES

MINI = PROFILES["mini"]


def ramp(x, y):
    """A colour that is a linear function of the position."""
    return np.stack([40 + 1.5 * x, 30 + 1.2 * y, 200 - 0.8 * x - 0.4 * y], -1)


@pytest.fixture
def ramp_with_face(tmp_path, monkeypatch):
    """A ramp of 90 x 80 pixels in which a detector says there is a tilted face, with a crop of about 28 pixels."""
    x, y = np.meshgrid(np.arange(90.0), np.arange(80.0))
    path = tmp_path / "ramp.png"
    Image.fromarray(np.round(ramp(x, y)).astype(np.uint8)).save(path)
    angle, side = np.deg2rad(12), 38
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (template(side) - side / 2) @ turn.T + (45, 40)
    monkeypatch.setattr(engine, "find", lambda image: Landmarks(points, "told"))
    return path


def test_the_face_is_cut_where_it_is(ramp_with_face):
    """LR pixels have the ramp's colour at the centre of the pixels that they stand for."""
    face = engine.locate_face(ramp_with_face, MINI, scale=8)
    assert face.lr.shape == (8, 8, 3) and 25 < face.side < 31 and face.landmarks.source == "told"
    x, y = np.meshgrid(*[np.arange(8) * 8 + 3.5] * 2)
    at = transform(face.matrix, np.stack([x, y], -1))
    assert np.abs(face.lr - ramp(at[..., 0], at[..., 1])).max() < 1.1
    assert np.allclose(face.landmarks.points, template(64, MINI.frame), atol=0.7)
    assert np.allclose(face.matrix, ffhq_frame(transform(face.matrix, face.landmarks.points), 64, MINI.frame))
    assert engine.locate_face(ramp_with_face, MINI).scale == 4, "28 pixels are nearer to 16 than to any other"


def test_what_is_pasted_back_lies_where_it_was_cut(ramp_with_face):
    """A crop that shows the ramp itself leaves the enlarged ramp as it is; another colour stays inside its square."""
    face = engine.locate_face(ramp_with_face, MINI)
    x, y = np.meshgrid(*[np.arange(64.0)] * 2)
    at = transform(face.matrix, np.stack([x, y], -1))
    same = engine.paste(face, np.round(ramp(at[..., 0], at[..., 1])).astype(np.uint8))
    tall, wide = same.shape[:2]
    assert abs(wide - 90 * 64 / face.side) < 1 and abs(tall - 80 * 64 / face.side) < 1
    plain = to_uint8(np.clip(imresize(to_float(face.image[None]), tall, wide), 0, 1))[0]
    assert np.abs(same.astype(int) - plain)[8:-8, 8:-8].max() <= 2
    painted = engine.paste(face, np.zeros((64, 64, 3), np.uint8))
    changed = (painted != plain).any(-1)
    assert 0.6 * 64**2 < changed.sum() <= 65**2 and not painted[tall // 2, wide // 2].any()


def test_a_large_picture_is_not_blown_up_beyond_reason(ramp_with_face, monkeypatch):
    face = engine.locate_face(ramp_with_face, MINI)
    monkeypatch.setattr(engine, "LONGEST", 120)
    assert engine.paste(face, np.zeros((64, 64, 3), np.uint8)).shape == (107, 120, 3)


def test_the_audit_tells_what_the_given_pixels_decide():
    """Texture that vanishes when shrunk is undecided to its full strength, and contradicts nothing."""
    rng = np.random.default_rng(0)
    picture = to_uint8(imresize(rng.random((1, 3, 5, 5)) * 0.5 + 0.25, 64, 64).clip(0, 1))[0]
    lr = to_uint8(imresize(to_float(picture[None]), 16, 16).clip(0, 1))[0]
    undecided, disagreement = engine.audit(picture, lr)
    assert undecided.mean() < 0.01 and disagreement < 0.5, "rounding alone"
    checker = np.where(np.indices((64, 64)).sum(0) % 2, 20, -20)[..., None]
    textured, unchanged = engine.audit((picture.astype(int) + checker).astype(np.uint8), lr)
    assert abs(np.sqrt(np.square(textured).mean()) * 255 - 20) < 1 and abs(unchanged - disagreement) < 0.5
    assert engine.audit(picture, (lr + 10).astype(np.uint8))[1] == pytest.approx(10, abs=0.5)


@pytest.fixture
def person(tmp_path, orl_root):
    """An album of s1 and a small picture of s1 in a larger dark frame."""
    album = tmp_path / "album of s1"
    album.mkdir()
    for n in (2, 3, 4):
        Image.open(orl_root / "s1" / f"{n}.pgm").save(album / f"{n}.png")
    (album / "notes.txt").write_text("not a picture")
    Image.fromarray(np.zeros((30, 30), np.uint8)).save(album / "nobody.png")
    picture = Image.open(orl_root / "s1" / "1.pgm")
    canvas = Image.new("L", (100, 75), 40)
    canvas.paste(picture.resize((28, 34), Image.Resampling.LANCZOS), (40, 20))
    canvas.save(tmp_path / "small.png")
    return SimpleNamespace(album=album, image=tmp_path / "small.png", store=tmp_path / "store", out=tmp_path / "out")


def test_a_picture_is_restored_with_an_album(person, invoke):
    words = ("restore", "--image", person.image, "--album", person.album, "--store", person.store, "--out", person.out)
    done = invoke(*words, check=0)
    assert "left out, no face found: 1 (nobody.png)" in done.stdout and "likely, not true" in done.stdout
    record = json.loads((person.out / "small.json").read_text())
    assert record["method"] == "idfsr.ft" and record["weights"] == "mini" and len(record["album"]) == 3
    face, whole = (load(person.out / f"small-{name}.png") for name in ("face", "restored"))
    assert face.shape == (64, 64, 3) and whole.shape[0] > 150 and face.std() > 20
    with Image.open(person.out / "small-restored.png") as picture:
        assert picture.info["Comment"] == record["notice"]
    sheet = load(person.out / "small-before-after.png")
    assert sheet.shape[1] > 5 * 256 and sheet.shape[0] > 256
    fits = list((person.store / "fits").iterdir())
    invoke(*words, check=0)
    assert list((person.store / "fits").iterdir()) == fits and np.array_equal(load(person.out / "small-face.png"), face)
    other = load_other(invoke, person)
    assert not np.array_equal(other, face)


def load_other(invoke, person):
    """The face as a method without an album restores it."""
    invoke("restore", "--image", person.image, "--method", "bicubic", "--store", person.store, "--out", person.out, check=0)
    record = json.loads((person.out / "small.json").read_text())
    assert record["album"] == [] and record["undecided_share"] < 0.02 and record["disagreement_grey_levels"] < 5
    return load(person.out / "small-face.png")


@pytest.mark.parametrize("words, message", [
    (("--method", "idfsr.ft"), "method idfsr.ft: needs pictures of the person; give --album DIR"),
    (("--method", "asffnet-oracle"), "takes its landmarks from the ground truth, which nobody has here; use asffnet.mini"),
    (("--album", "nowhere"), "album nowhere: no such folder"),
    (("--scale", "3"), "scale 3: impossible"),
    (("--image", "nowhere.png"), "image nowhere.png: cannot be read"),
])
def test_what_cannot_be_restored_is_said_in_one_line(person, invoke, words, message):
    image = () if "--image" in words else ("--image", person.image)
    done = invoke("restore", *image, *words, "--store", person.store, "--out", person.out)
    assert done.returncode and message in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_pictures_without_or_with_a_large_face(person, orl_root, tmp_path):
    with pytest.raises(FsrError, match="nobody.png: no face found; .* --aligned"):
        engine.locate_face(person.album / "nobody.png", MINI)
    assert engine.locate_face(person.album / "nobody.png", MINI, aligned=True).lr.shape == (16, 16, 3)
    with pytest.raises(FsrError, match="shows the face at [0-9]+ pixels, .* restores to 64; there is nothing to gain"):
        engine.locate_face(orl_root / "s1" / "1.pgm", MINI)
    assert engine.locate_face(orl_root / "s1" / "1.pgm", MINI, scale=8).lr.shape == (8, 8, 3)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FsrError, match="no picture can serve .it holds no picture"):
        engine.open_album(empty, MINI, SimpleNamespace(root=tmp_path, read=lambda table: __import__("pandas").DataFrame()))
