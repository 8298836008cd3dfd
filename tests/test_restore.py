"""`invoke restore`: geometry on images whose values are known, what is taken from the given pixels,
and the command as a user types it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fsrbench import progress
from fsrbench import restore as engine
from fsrbench.errors import FsrError
from fsrbench.faces.align import ffhq_frame, transform
from fsrbench.faces.geometry import Landmarks, template
from fsrbench.given import Given
from fsrbench.imaging import imresize, load, to_float, to_uint8
from fsrbench.methods.idfsr import fitting
from fsrbench.methods.idfsr.fitting import FITS
from fsrbench.profiles import PROFILES
from fsrbench.reports.pages import restored as page
from fsrbench.reports.pages.ladder import ladder

MINI = PROFILES["mini"]


def ramp(x, y):
    """A colour that is a linear function of the position."""
    return np.stack([40 + 1.5 * x, 30 + 1.2 * y, 200 - 0.8 * x - 0.4 * y], -1)


def ramp_with_face(tmp_path, monkeypatch, side):
    """A ramp of 90 x 80 pixels in which detectors say there is a tilted face of FFHQ's side."""
    x, y = np.meshgrid(np.arange(90.0), np.arange(80.0))
    path = tmp_path / "ramp.png"
    Image.fromarray(np.round(ramp(x, y)).astype(np.uint8)).save(path)
    angle = np.deg2rad(12)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (template(side) - side / 2) @ turn.T + (45, 40)
    monkeypatch.setattr(engine, "find_all", lambda image: [Landmarks(points, "told")])
    monkeypatch.setattr(engine, "lr_landmarks",
                        lambda image, frame: Landmarks(template(64, frame), "told"))
    return path


@pytest.fixture
def small_face(tmp_path, monkeypatch):
    """A path to a ramp with a crop of about 28 pixels."""
    return ramp_with_face(tmp_path, monkeypatch, 38)


def only_face(path, **options):
    """The one face of an image."""
    (face,) = engine.faces_in(path, MINI, **options)
    return face


def test_the_face_is_cut_where_it_is(small_face):
    """LR pixels have the ramp's colour at the centre of the pixels that they stand for."""
    face = only_face(small_face, scale=8)
    assert face.lr.shape == (8, 8, 3) and 25 < face.side < 31 and face.landmarks.source == "told"
    x, y = np.meshgrid(*[np.arange(8) * 8 + 3.5] * 2)
    at = transform(face.matrix, np.stack([x, y], -1))
    assert np.abs(face.lr - ramp(at[..., 0], at[..., 1])).max() < 1.1
    assert np.allclose(face.landmarks.points, template(64, MINI.frame), atol=0.7)
    points = transform(face.matrix, face.landmarks.points)
    assert np.allclose(face.matrix, ffhq_frame(points, 64, MINI.frame))
    x, y = np.meshgrid(*[np.arange(64.0)] * 2)
    at = transform(face.matrix, np.stack([x, y], -1))
    assert np.abs(face.shown - ramp(at[..., 0], at[..., 1])).max() < 1.1


@pytest.mark.parametrize("side, least", [(16, 12), (22, 16), (33, 24), (44, 32), (60, 44),
                                         (76, 56)])
def test_no_given_pixel_is_thrown_away(tmp_path, monkeypatch, side, least):
    """The method gets at least as many pixels as the face has; fewer only where that is asked."""
    path = ramp_with_face(tmp_path, monkeypatch, side)
    face = only_face(path)
    assert abs(face.side - least) < 2 and face.lr.shape[0] >= 0.95 * face.side
    assert face.lr.shape[0] < 2 * face.side / 0.95 and not face.thrown_away
    assert only_face(path, scale=16).thrown_away and only_face(path, scale=16).lr.shape[0] == 4


def test_what_is_pasted_back_lies_where_it_was_cut(small_face):
    """A crop that shows the ramp itself leaves the upsampled ramp as it is; another colour stays
    inside its square."""
    face = only_face(small_face)
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


def test_a_large_image_is_not_blown_up_beyond_reason(small_face, monkeypatch):
    face = only_face(small_face)
    monkeypatch.setattr(engine, "LONGEST", 120)
    assert engine.paste(face, np.zeros((64, 64, 3), np.uint8)).shape == (107, 120, 3)


def smooth_image():
    """(64, 64, 3) without detail."""
    rng = np.random.default_rng(0)
    return to_uint8(imresize(rng.random((1, 3, 5, 5)) * 0.5 + 0.25, 64, 64).clip(0, 1))[0]


def test_given_pixels_tell_what_they_decide():
    """Texture that vanishes when downsampled is undecided to its full strength, and contradicts
    nothing; an offset contradicts by itself."""
    smooth, step = smooth_image(), 0.25
    lr = to_uint8(imresize(to_float(smooth[None]), 16, 16).clip(0, 1))[0]
    matrix = np.array([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2]])
    given = Given(lr, matrix, 64)
    checker = np.where(np.indices((64, 64)).sum(0) % 2, 20, -20)[..., None]
    textured = (smooth.astype(int) + checker).astype(np.uint8)

    def undecided(image):
        return np.sqrt(np.square(given.undecided(to_float(image[None])[0])).mean()) * 255
    assert given.disagreement(smooth) < 0.5 and undecided(smooth) < 1, "rounding alone"
    assert abs(given.disagreement(textured) - given.disagreement(smooth)) < 0.5
    assert abs(undecided(textured) - 20) < 1
    assert Given((lr + 10).astype(np.uint8), matrix, 64).disagreement(smooth) == \
        pytest.approx(10, abs=0.5)


def test_the_disagreement_is_that_of_the_image_that_was_given(small_face):
    """It is measured at the size and turn of the given pixels, over those inside the face: an
    offset of 14 levels is one of 14, and what lies outside does not count."""
    face = only_face(small_face)
    x, y = np.meshgrid(*[np.arange(64.0)] * 2)
    at = transform(face.matrix, np.stack([x, y], -1))
    right = np.round(ramp(at[..., 0], at[..., 1])).astype(np.uint8)
    assert face.given.disagreement(right) < 1
    assert face.given.disagreement(right + 14) == pytest.approx(14, abs=0.7)
    assert 0.85 * face.side**2 < face.given.inside.sum() < 1.15 * face.side**2
    spoilt = face.image.copy()
    spoilt[:12] = 255
    assert replace(face, image=spoilt).given.disagreement(right) < 1


def test_the_given_pixels_are_put_into_a_drawing(small_face):
    """Whatever a method draws, the result agrees with the given pixels better than the upsampled
    image does, and what they leave open is mostly as it was drawn (back-projection adds to it)."""
    face = only_face(small_face)
    rng = np.random.default_rng(0)
    noisy = rng.integers(40, 215, face.image.shape, dtype=np.uint8)
    face = replace(face, image=noisy)
    drawn = rng.random((3, 64, 64)) * 0.2 + 0.4
    agreed = face.given.agreed(drawn)
    apart = [face.given.disagreement(to_uint8(x[None])[0])
             for x in (drawn, face.given.upsampled, agreed)]
    assert apart[2] < 0.75 * apart[1] < apart[1] < apart[0]
    kept, asked = face.given.undecided(agreed), face.given.undecided(drawn)
    assert np.corrcoef(kept.ravel(), asked.ravel())[0, 1] > 0.6


@pytest.fixture
def person(tmp_path, orl_root):
    """An album of s1 and a small image of s1 in a larger dark frame."""
    album = tmp_path / "album of s1"
    album.mkdir()
    for n in (2, 3, 4):
        Image.open(orl_root / "s1" / f"{n}.pgm").save(album / f"{n}.png")
    (album / "notes.txt").write_text("not an image")
    Image.fromarray(np.zeros((30, 30), np.uint8)).save(album / "nobody.png")
    image = Image.open(orl_root / "s1" / "1.pgm")
    canvas = Image.new("L", (100, 75), 40)
    canvas.paste(image.resize((28, 34), Image.Resampling.LANCZOS), (40, 20))
    canvas.save(tmp_path / "small.png")
    return SimpleNamespace(album=album, image=tmp_path / "small.png", store=tmp_path / "store",
                           out=tmp_path / "out")


def test_an_image_is_restored_with_an_album(person, invoke, monkeypatch):
    monkeypatch.setitem(FITS, "mini", replace(FITS["mini"], steps=4))
    words = ("restore", "--image", person.image, "--album", person.album, "--store", person.store,
             "--out", person.out)
    done = invoke(*words, check=0)
    assert "left out, no face found: 1 (nobody.png)" in done.stdout
    assert "likely, not true" in done.stdout and "warning" not in done.stdout
    assert "the first time it is fitted to the album" in done.stderr
    record = json.loads((person.out / "small.json").read_text())
    assert record["method"] == "idfsr.ft" and record["weights"] == "mini"
    assert len(record["album"]) == 3 and record["kept"] == "restored" and record["grey"]
    apart = record["grey_levels_from_given"]
    assert record["disagreement_grey_levels"] == apart["restored"] < apart["upsampled"]
    face, whole = (load(person.out / f"small-{name}.png") for name in ("face", "restored"))
    assert face.shape == (64, 64, 3) and whole.shape[0] > 150 and face.std() > 20
    assert not np.ptp(face, -1).any() and not np.ptp(whole, -1).any(), "grey stays grey"
    with Image.open(person.out / "small-restored.png") as image:
        assert image.info["Comment"] == record["notice"]
    sheet = load(person.out / "small-before-after.png")
    assert sheet.shape[1] > 5 * 256 and sheet.shape[0] > 256
    fits = list((person.store / "fits").iterdir())
    invoke(*words, check=0)
    assert list((person.store / "fits").iterdir()) == fits
    assert np.array_equal(load(person.out / "small-face.png"), face)
    other = load_other(invoke, person)
    assert not np.array_equal(other, face)
    assert np.array_equal(load(person.out / "small-face.png"), face), "kept beside it"


def load_other(invoke, person):
    """The face as a method without an album restores it."""
    invoke("restore", "--image", person.image, "--method", "bicubic", "--store", person.store,
           "--out", person.out, check=0)
    record = json.loads((person.out / "small-bicubic.json").read_text())
    assert record["album"] == [] and record["undecided_share"] < 0.02
    assert record["disagreement_grey_levels"] < 5
    return load(person.out / "small-bicubic-face.png")


@pytest.mark.parametrize("words, message", [
    (("--method", "idfsr.ft"), "method idfsr.ft: needs images of the person; give --album DIR"),
    (("--method", "asffnet-oracle"), "takes its landmarks from the ground truth, which nobody has "
     "here; use asffnet.mini"),
    (("--method", "bicubic,realsr"), "--method bicubic,realsr: restore takes one; call it for"),
    (("--album", "nowhere"), "album nowhere: no such folder"),
    (("--scale", "3"), "scale 3: impossible"),
    (("--face", "2"), "small.png: 1; give a lower number"),
    (("--face", "two"), "--face two: is not a whole number of at least 1"),
    (("--image", "nowhere.png"), "image nowhere.png: cannot be read"),
    (("--out", "README.md"), "--out README.md: cannot be written"),
])
def test_what_cannot_be_restored_is_said_in_one_line(person, invoke, words, message):
    image = () if "--image" in words else ("--image", person.image)
    out = () if "--out" in words else ("--out", person.out)
    done = invoke("restore", *image, *words, "--store", person.store, *out)
    assert "restoring" not in done.stderr or "--method" in words
    assert done.returncode and message in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error")]) == 1


def test_images_without_or_with_a_large_face(person, orl_root):
    with pytest.raises(FsrError, match="nobody.png: no sure face found; .* --aligned"):
        engine.faces_in(person.album / "nobody.png", MINI)
    path = orl_root / "s1" / "1.pgm"
    with pytest.raises(FsrError, match="shows the face at [0-9]+ pixels, .* restores to 64; there "
                                       "is nothing to gain"):
        engine.choose([only_face(path)], path, None, [], None)
    asked = engine.choose([only_face(path, scale=8)], path, None, [], None)
    assert asked.lr.shape == (8, 8, 3) and asked.thrown_away and asked.got.count == 8
    detail = to_float(asked.shown[None])[0]
    assert np.square(asked.given.undecided(detail)).mean() < 1e-3 * detail.var()
    assert np.square(asked.got.undecided(detail)).mean() > 0.02 * detail.var()
    back = imresize(asked.got.agreed(np.full((3, 64, 64), 0.5)), 8, 8)
    assert np.abs(back - to_float(asked.lr[None])[0]).mean() < 0.02


def faced(size, side, apart):
    """A face of so many pixels and what is kept of it."""
    step = side / size
    image = np.zeros((side, side, 3), np.uint8)
    face = engine.Face(image, np.array([[step, 0, 0], [0, step, 0]]), size, None, True, 1)
    other = np.ones((size, size, 3), np.uint8)
    kept, why = engine.judge(face, other, apart)
    return kept is face.shown, why


def test_where_nothing_is_gained_the_upsampled_face_is_kept():
    near, far = {"restored": 1.5, "upsampled": 2.5}, {"restored": 4.0, "upsampled": 2.5}
    assert faced(64, 44, near) == (False, "")
    upsampled, why = faced(64, 44, far)
    assert upsampled and "further from the given pixels (4.0 grey levels)" in why
    upsampled, why = faced(64, 56, near)
    assert upsampled and "56 pixels show nearly all that 64 can" in why
    assert faced(256, 180, near) == (False, "") and faced(256, 200, near)[0]


def shrunk(orl_root, tmp_path, side):
    """An image of s1 whose face has so many pixels, and the face as the original shows it."""
    truth = only_face(orl_root / "s1" / "1.pgm", scale=4)
    image = truth.image
    size = [round(n * side / truth.side) for n in image.shape[1::-1]]
    small = to_uint8(np.clip(imresize(to_float(image[None]), *size[::-1]), 0, 1))[0]
    path = tmp_path / f"face{side}.png"
    Image.fromarray(small).save(path)
    scale = np.array(size) / image.shape[1::-1]
    marks = (transform(truth.matrix, truth.landmarks.points) + 0.5) * scale - 0.5
    return path, Landmarks(marks, "told"), truth.shown


def decibels(image, truth):
    return -10 * np.log10(np.square(image / 255.0 - truth / 255.0).mean())


def test_a_face_of_44_pixels_is_not_spoilt(orl_root, tmp_path, monkeypatch, session_store):
    """What is kept is near the upsampled image in PSNR, far above what the method drew."""
    path, marks, truth = shrunk(orl_root, tmp_path, 44)
    monkeypatch.setattr(engine, "find_all", lambda image: [marks])
    face, method = only_face(path), engine.open_method("codeformer", MINI)
    made = engine.restore(method, face, [], engine.Excluded(), session_store)
    upsampled, drawn, kept = (decibels(x, truth) for x in (face.shown, made.drawn, made.crop))
    assert made.kept == "restored" and face.lr.shape[0] == 64
    assert kept > drawn + 1.5 and kept > upsampled - 1.5 and upsampled > 28
    assert made.apart["restored"] < 0.7 * made.apart["upsampled"] < made.apart["drawn"]


def test_a_face_of_56_pixels_is_left_as_it_is_and_that_is_said(orl_root, tmp_path, invoke):
    path, _, _ = shrunk(orl_root, tmp_path, 56)
    done = invoke("restore", "--image", path, "--out", tmp_path, "--store", tmp_path / "s", check=0)
    assert "Nothing is gained by restoring" in done.stdout and "nothing is drawn" in done.stdout
    record = json.loads((tmp_path / "face56.json").read_text())
    assert record["kept"] == "upsampled" and record["verdict"] in done.stdout
    shown = only_face(path).shown
    assert np.array_equal(load(tmp_path / "face56-face.png"), shown)
    assert not np.array_equal(load(tmp_path / "face56-drawn.png"), shown), "the drawing is offered"


def test_asked_to_throw_pixels_away_it_says_so(person, invoke):
    done = invoke("restore", "--image", person.image, "--scale", "16", "--store", person.store,
                  "--out", person.out, check=0)
    assert "The method got 4 of " in done.stdout and "from a face of 4 pixels" in done.stdout
    assert "sharper" not in done.stdout, "the upsampled face has all the pixels"
    apart = json.loads((person.out / "small.json").read_text())["grey_levels_from_given"]
    assert apart["restored"] > 2 * apart["upsampled"], "against the given pixels, not the 4 left"


@pytest.mark.parametrize("method", ["dr2", "dpi", "stablesr", "asffnet", "dmdnet", "reference"])
def test_every_method_takes_a_face_as_fine_as_it_is(orl_root, tmp_path, monkeypatch, method,
                                                    session_store):
    """Also those that know few factors, or look at the LR image itself."""
    path, marks, _ = shrunk(orl_root, tmp_path, 44)
    monkeypatch.setattr(engine, "find_all", lambda image: [marks])
    face = only_face(path)
    album = [engine.FaceImage("a/1", "1", face.shown, face.landmarks)]
    made = engine.restore(engine.open_method(method, MINI), face, album, engine.Excluded(),
                          session_store)
    assert made.drawn.std() > 10 and made.kept == "restored"


def test_a_grey_image_stays_grey_and_a_coloured_one_keeps_its_colours(small_face, monkeypatch,
                                                                      session_store):
    """Whatever colours a method draws."""
    coloured = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    monkeypatch.setattr(engine, "attempt", lambda method, batch: ([coloured], [""]))
    face, method = only_face(small_face), engine.open_method("bicubic", MINI)
    plain = replace(face, image=engine.greyed(face.image))
    assert plain.grey and not face.grey
    for given, grey in ((plain, True), (face, False)):
        made = engine.restore(method, given, [], engine.Excluded(), session_store)
        for image in (made.crop, made.whole, made.drawn):
            assert (np.ptp(image, -1).max() == 0) == grey


def test_what_differs_is_kept_apart_and_nothing_is_replaced(tmp_path):
    """Another method's, image's or seed's outputs, a picture that the user changed, and a file that
    is nobody's; the very same outputs find their own name again."""
    out = tmp_path / "out"

    def name(data, method="idfsr.ft"):
        files = {"-face.png": data, "-drawn.png": b"", ".json": b"{}"}
        (path, *_) = page._write(out, "face24", files, method)
        return path.name.removesuffix("-face.png")
    wanted = ["face24", "face24-realsr", "face24-idfsr.ft", "face24-idfsr.ft-2"]
    made = [b"1", b"2", b"3", b"4"], ["idfsr.ft", "realsr", "idfsr.ft", "idfsr.ft"]
    assert [*map(name, *made)] == wanted == [*map(name, *made)]
    (out / "face24-face.png").write_bytes(b"retouched")
    (out / "face24-idfsr.ft-2-drawn.png").unlink()
    assert name(b"1") == "face24-idfsr.ft-3" and name(b"4") == "face24-idfsr.ft-2"
    assert (out / "face24-face.png").read_bytes() == b"retouched"
    for end in (".json", "-face.png"):
        (out / f"mine{end}").write_bytes(b"the user's own")
        (path, *_) = page._write(out, "mine", {"-face.png": b"5", ".json": b"{}"}, "realsr")
        assert path.name == "mine-realsr-face.png"
        assert (out / f"mine{end}").read_bytes() == b"the user's own"
        (out / f"mine{end}").unlink()
    (out / "mine-face.png").mkdir()
    assert page._write(out, "mine", {"-face.png": b"6"})[0].name == "mine-2-face.png"


def test_ladders_of_two_images_of_one_name_are_kept_apart(tmp_path, monkeypatch):
    """`invoke degrade` names its sheet after the degradation, the image and its content."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    for i, path in enumerate(("face24.png", "x/face24.png")):
        Image.fromarray(np.full((64, 64, 3), i, np.uint8)).save(path)
    first, second = (ladder("bicubic", path, ["8"]) for path in ("face24.png", "x/face24.png"))
    assert first != second and first.exists() and second.exists()
    assert ladder("bicubic", "face24.png", ["8"]) == first
    assert first.name.startswith("degrade-bicubic-face24-")


def test_a_long_fit_says_how_far_it_is(person, monkeypatch, capsys):
    """Steps done and left, where no terminal is, in lines."""
    monkeypatch.setattr(progress, "_EVERY", 0)
    monkeypatch.setitem(FITS, "mini", replace(FITS["mini"], steps=3))
    monkeypatch.setattr(fitting, "diffusion_loss", lambda *parts: parts[-1].square().mean())
    album = [engine.FaceImage("a/1", "1", smooth_image(), Landmarks(template(64), "told"))]
    method = engine.open_method("idfsr.ft", MINI)
    method.fit(engine.Person("her", tuple(album)), 0)
    assert "fitting to her: 2 of 3, " in capsys.readouterr().err
