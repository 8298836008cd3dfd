"""`invoke restore`: which face is meant, and whether the album is of that person."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from skimage import data

from fsrbench import album as albums
from fsrbench import restore as engine
from fsrbench.core import FaceImage
from fsrbench.errors import FsrError
from fsrbench.faces import detect
from fsrbench.faces.geometry import Landmarks
from fsrbench.imaging import load
from fsrbench.profiles import PROFILES
from fsrbench.reports.pages import restored as page

MINI = PROFILES["mini"]


def face_of(orl_root, name, share):
    """An image of the ORL faces, downsampled by that share."""
    image = Image.open(orl_root / f"{name}.pgm")
    size = [round(n * share) for n in image.size]
    return image.resize(size, Image.Resampling.LANCZOS)


@pytest.fixture
def two(tmp_path, orl_root):
    """A larger s5 on the left, a smaller s1 on the right, and albums of both and of s9."""
    image = Image.new("L", (160, 110), 40)
    image.paste(face_of(orl_root, "s5/1", 0.6), (5, 8))
    image.paste(face_of(orl_root, "s1/1", 0.45), (90, 30))
    image.save(tmp_path / "two.png")
    found = SimpleNamespace(image=tmp_path / "two.png", out=tmp_path / "out", root=tmp_path,
                            source=orl_root)
    for person in ("s1", "s5", "s9"):
        (tmp_path / person).mkdir()
        for n in (2, 3, 4):
            shutil.copy(orl_root / person / f"{n}.pgm", tmp_path / person)
    return found


@pytest.fixture
def restore(two, invoke, session_store):
    """Restore what is asked for, by a method that takes no time; without an album by one that
    needs none."""
    def run(image, *words, check=0):
        method = "asffnet" if "--album" in words else "bicubic"
        return invoke("restore", "--image", image, "--method", method, "--store",
                      session_store.root, "--out", two.out, *words, check=check)
    return run


def test_a_method_that_needs_an_album_says_so_before_it_looks(two, invoke, session_store):
    done = invoke("restore", "--image", two.image, "--method", "asffnet", "--store",
                  session_store.root, "--out", two.out, check=2)
    assert done.stderr.count("\n") == 1 and "needs images of the person" in done.stderr


def record(two, name):
    return json.loads((two.out / f"{name}.json").read_text())


def test_of_two_faces_the_command_asks_which(two, restore):
    """With nobody's album and with a third person's; the numbered image shows them."""
    for words in ((), ("--album", two.root / "s9")):
        done = restore(two.image, *words, check=2)
        first, second = done.stdout.splitlines()
        assert first.startswith("face 1: 60 pixels") and second.startswith("face 2: 47 pixels")
        assert "give --face 1 to --face 2" in done.stderr and "two-faces.png" in done.stderr
        assert [path.name for path in two.out.iterdir()] == ["two-faces.png"]
    numbered = load(two.out / "two-faces.png")
    marked = (numbered == (255, 212, 0)).all(-1)
    assert numbered.shape == (440, 640, 3) and marked[:, :320].sum() > 900 < marked[:, 320:].sum()


def test_the_face_that_is_asked_for_is_restored(two, restore):
    for number, side in (("1", 59), ("2", 45)):
        restore(two.image, "--face", number, "--album", two.root / "s1")
        made = record(two, f"two-face{number}")
        assert made["face"] == int(number) and made["faces"] == 2
        assert abs(made["face_pixels"] - side) < 5 and made["which"] == "asked for"
    assert "the face looks like somebody else" in record(two, "two-face1")["doubts"][0]
    assert record(two, "two-face2")["doubts"] == []
    done = restore(two.image, "--face", "3", check=2)
    assert "--face 3: sure faces in" in done.stderr


@pytest.mark.parametrize("person, number", [("s1", 2), ("s5", 1)])
def test_the_album_decides_which_face_it_is(two, restore, person, number):
    """Also where that is the smaller one; and that it has decided is said."""
    done = restore(two.image, "--album", two.root / person)
    assert f"face {number} of 2, the one that is the album's person" in done.stdout
    assert record(two, f"two-face{number}")["doubts"] == []


def test_a_stranger_in_the_album_is_named(two, restore, orl_root):
    shutil.copy(orl_root / "s9" / "5.pgm", two.root / "s1" / "other.pgm")
    Image.fromarray(data.rocket()).save(two.root / "s1" / "rocket.png")
    done = restore(two.image, "--face", "2", "--album", two.root / "s1")
    for name in ("other.pgm", "rocket.png"):
        assert f"warning: {name} looks like somebody else than the rest of the al" in done.stdout
    assert len(record(two, "two-face2")["doubts"]) == 2


def test_the_image_itself_in_the_album_is_named(two, restore, orl_root):
    """As it was before it was downsampled, as it is, and recompressed."""
    face_of(orl_root, "s1/1", 0.45).save(two.root / "alone.png")
    shutil.copy(orl_root / "s1" / "1.pgm", two.root / "s1" / "original.pgm")
    Image.open(orl_root / "s1" / "1.pgm").save(two.root / "s1" / "jpeg.jpg", quality=60)
    shutil.copy(two.root / "alone.png", two.root / "s1" / "small.png")
    restore(two.root / "alone.png", "--album", two.root / "s1")
    doubts = record(two, "alone")["doubts"]
    assert [doubt.split()[0] for doubt in doubts] == ["jpeg.jpg", "original.pgm", "small.png"]
    assert all("is this image itself or nearly" in doubt for doubt in doubts)


def test_an_album_is_read_by_content_and_what_is_no_image_is_named(orl_root, tmp_path,
                                                                   session_store):
    """As phones and messengers leave it: HEIC, no suffix, upper case, rubbish beside it."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    album = tmp_path / "hers"
    (album / "x.png").mkdir(parents=True)
    for n, name in enumerate(("IMG_1.HEIC", "WA0001", "3.JPG"), start=1):
        Image.open(orl_root / "s5" / f"{n}.pgm").convert("RGB").resize((184, 224)).save(
            album / name, {"IMG_1.HEIC": "HEIF", "WA0001": "PNG", "3.JPG": "JPEG"}[name])
    (album / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (album / "notes.txt").write_text("mine")
    (album / "cut.heic").write_bytes((album / "IMG_1.HEIC").read_bytes()[:300])
    images, left_out = albums.open_album(album, PROFILES["mini"], session_store)
    assert [p.id for p in images] == ["hers/3.JPG", "hers/IMG_1.HEIC", "hers/WA0001"]
    told = " ".join(left_out.lines())
    for words in ("dangling link: 1 (gone.jpg)", "a folder in a person's folder: 1 (x.png)",
                  "left alone, not an image: 1 (notes.txt)", "(cut.heic)"):
        assert words in told, told


def test_without_its_file_identities_are_not_compared_and_that_is_said(two, restore, monkeypatch):
    def missing(profile):
        raise FsrError("weights sface", "are missing")
    monkeypatch.setattr("fsrbench.methods.common.identity.load_identity", missing)
    done = restore(two.image, "--face", "2", "--album", two.root / "s1")
    assert "warning: nobody looked whether the album is of this person" in done.stdout
    restore(two.image, "--album", two.root / "s1", check=2)


def test_no_face_is_restored_where_there_is_none(two, restore):
    """Not in a rocket, where dlib sees one; not of black, not even as a crop."""
    Image.fromarray(data.rocket()).save(two.root / "rocket.png")
    Image.new("RGB", (80, 80)).save(two.root / "black.png")
    assert detect.find(data.rocket()) is not None
    done = restore(two.root / "rocket.png", check=3)
    assert "no sure face found (none at a second look: " in done.stderr
    assert "no sure face found;" in restore(two.root / "black.png", check=3).stderr
    done = restore(two.root / "black.png", "--aligned", check=3)
    assert "shows nothing where the face should be" in done.stderr
    assert not two.out.exists()


def test_a_crop_without_a_sure_face_is_restored_with_a_warning(two, invoke, session_store):
    Image.fromarray(data.rocket()[:40, :40]).save(two.root / "sky.png")
    done = invoke("restore", "--image", two.root / "sky.png", "--aligned", "--store",
                  session_store.root, "--out", two.out, check=0)
    assert "warning: no sure face: the detectors see none in this crop" in done.stdout
    assert not record(two, "sky")["sure"]


def test_the_one_face_of_a_photograph_is_one(two, tmp_path):
    """False hits beside a better one do not count."""
    Image.fromarray(data.astronaut()).save(tmp_path / "astronaut.png")
    (face,) = engine.faces_in(tmp_path / "astronaut.png", MINI)
    assert np.abs(face.given.corners.mean(0) - (225, 112)).max() < 10 and not face.grey


def test_a_small_face_in_a_small_image_is_found(two, tmp_path, orl_root):
    """Where the detectors' usual looks see none, a closer one does."""
    canvas = Image.new("L", (100, 100), 40)
    canvas.paste(face_of(orl_root, "s1/1", 0.15), (10, 10))
    canvas.save(tmp_path / "canvas.png")
    assert detect.find(load(tmp_path / "canvas.png")) is None
    (face,) = engine.faces_in(tmp_path / "canvas.png", MINI)
    assert 14 < face.side < 17 and np.abs(face.given.corners.mean(0) - (17, 19)).max() < 3


def test_a_small_face_in_a_wide_image_is_found_or_its_least_size_is_said(two, tmp_path, orl_root):
    canvas = Image.new("L", (1000, 90), 40)
    canvas.paste(face_of(orl_root, "s1/1", 0.32), (500, 30))
    canvas.save(tmp_path / "canvas.png")
    assert not detect.find_all(load(tmp_path / "canvas.png"))
    (face,) = engine.faces_in(tmp_path / "canvas.png", MINI)
    assert np.abs(face.given.corners.mean(0) - (514, 49)).max() < 5
    Image.new("L", (8000, 40), 40).save(tmp_path / "long.png")
    with pytest.raises(FsrError, match="in 8000 x 40 pixels one of 125 is found"):
        engine.faces_in(tmp_path / "long.png", MINI)


def test_what_of_the_file_is_not_in_the_image_is_said(two, restore, tmp_path, invoke):
    image = face_of(two.source, "s1/1", 0.3)
    moving, seen = tmp_path / "moving.gif", "holds several images, the first was taken"
    image.save(moving, save_all=True, append_images=[image.rotate(9)])
    done = restore(moving, "--album", two.root / "s1")
    assert f"note: moving.gif: {seen}" in done.stdout
    assert record(two, "moving")["remarks"] == [seen]
    image.resize((92, 112)).save(moving, save_all=True, append_images=[image.rotate(9)])
    done = invoke("degrade", "--name", "bicubic", "--scale", "4", "--image", moving, "--out",
                  tmp_path / "d.png", check=0)
    assert seen in done.stderr


def test_hits_of_one_face_are_merged_and_weak_ones_dropped(monkeypatch):
    looks = [("hog", [(0, 0, 10, 10, -0.15), (40, 40, 50, 50, 0.5)]),
             ("hog", [(1, 1, 9, 9, -0.05), (60, 0, 70, 10, -0.15)]),
             ("other", [(0, 60, 9, 69, 9.0)])]
    monkeypatch.setattr(detect, "_predict", lambda image, box: np.array([box[:2]], float))

    def seen(some):
        monkeypatch.setattr(detect, "_looks", lambda image, most=2: (
            (source, image, 2.0, boxes) for source, boxes in some))
        return sorted(tuple(m.points[0]) for m in detect.find_all(np.zeros((9, 9, 3), np.uint8)))
    assert seen(looks) == [(0.5, 0.5), (80.5, 80.5)], "the first look at a face, of one detector"
    assert seen([("hog", [(60, 0, 70, 10, -0.15)])]) == [(120.5, 0.5)], "weak, but the only one"


def test_whose_face_it_is_must_be_clear():
    """Cosines of 0.5 and less to the album, in planted directions."""
    def of(distances, sides):
        vectors = np.array([[1 - d, np.sqrt(1 - (1 - d)**2)] for d in distances])
        faces = [SimpleNamespace(shown=i, side=side, landmarks=Landmarks(None, ""))
                 for i, side in enumerate(sides)]
        album = [FaceImage("a/1", "", "album", Landmarks(None, ""))]
        return albums.whose(faces, album, lambda images, points: (
            np.array([[1.0, 0.0]]) if images[0] == "album" else vectors[list(images)]))
    assert of((0.9, 0.3), (40, 20)) == 1 and of((0.3, 0.9, 0.95), (40, 20, 20)) == 0
    assert of((0.9, 0.75), (40, 20)) is None, "neither is"
    assert of((0.6, 0.65), (40, 20)) is None, "both may be"
    assert of((0.9, 0.3), (40, 12)) is None, "too small to tell"


def test_the_panel_marks_what_is_kept_and_says_what_is_wrong(two, restore):
    """In green around the image that is kept, in red what a reader must know."""
    green, red = (26, 127, 55), (179, 38, 30)

    def coloured(name, colour):
        return np.where((load(two.out / f"{name}-before-after.png") == colour).all(-1))
    restore(two.image, "--face", "1", "--album", two.root / "s1")
    restore(two.image, "--face", "2", "--album", two.root / "s1")
    columns = {name: np.median(coloured(name, green)[1]) for name in ("two-face1", "two-face2")}
    start, wide = page.GAP, page.PANEL + page.GAP
    assert start + wide < columns["two-face1"] < start + 2 * wide, "upsampled: 59 of 64 pixels"
    assert start + 2 * wide < columns["two-face2"] < start + 3 * wide
    assert len(coloured("two-face1", red)[0]) > 100 and not len(coloured("two-face2", red)[0])
