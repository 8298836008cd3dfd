"""Outputs of other programs: matched by name, every fault named, the same values as through an
adapter."""

import csv
import re
import shutil

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from fsrbench.engine.outputs import match, open_folder, read_output
from fsrbench.errors import FsrError


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((64, 64, 3), 90, np.uint8) if image is None else image
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)


def folder(root, *names):
    for name in names:
        save(root / name)
    return open_folder(root, "--restored")


@pytest.fixture(scope="module")
def made(tmp_path_factory, session_store):
    """What `invoke inputs` writes of two people, and bicubic's outputs of it."""
    from fsrbench.engine.inputs import write_inputs
    from fsrbench.engine.options import plan
    from fsrbench.engine.run import Run

    root = tmp_path_factory.mktemp("score")
    options = plan("mini", "orl", ("8",), ("bicubic",), ("psnr", "ids.cosine@dlib"), "2", "0", "4")
    write_inputs(Run(options, session_store), root / "inputs")
    outcome = Run(options, session_store).execute()
    rows = outcome.records[outcome.records["metric"] == "restored"]
    for sample, image in zip(rows["sample"], rows["image"]):
        save(root / "bicubic" / sample.replace(".pgm", ".png"), session_store.image(image))
    return root, options, outcome


def test_files_are_matched_by_path_then_by_bare_name_where_that_is_clear(tmp_path):
    ids = ["a/1.pgm", "a/2.pgm", "b/1.pgm"]
    by_path = match(ids, folder(tmp_path / "path", "a/1.png", "b/1.webp", "a/9.png"))
    assert {k: v.name for k, v in by_path.files.items()} == {"a/1.pgm": "1.png",
                                                             "b/1.pgm": "1.webp"}
    assert by_path.faults == {"a/2.pgm": "missing"} and by_path.extra == ["a/9.png"]
    flat = match(ids, folder(tmp_path / "flat", "a_1.png", "2.png", "1.png"))
    assert {k: v.name for k, v in flat.files.items()} == {"a/1.pgm": "a_1.png", "a/2.pgm": "2.png"}
    assert flat.faults == {"b/1.pgm": "ambiguous: a/1, b/1"}
    assert "a/2.pgm" in match(ids, folder(tmp_path / "flat"), loose=False).faults
    deep = match(ids, folder(tmp_path / "deep", "x/2.png", "y/2.png", "a/1.png", "a/1.bmp"))
    assert deep.faults == {"a/2.pgm": "ambiguous: x/2, y/2", "a/1.pgm": "ambiguous: 1.bmp, 1.png",
                           "b/1.pgm": "missing"}
    bare = tmp_path / "bare" / "a"
    save(bare / "1.png")
    (bare / "1.png").rename(bare / "1")  # an image by its content alone
    assert match(ids, open_folder(tmp_path / "bare", "--restored")).files == {"a/1.pgm": bare / "1"}


def test_the_end_of_a_path_tells_images_of_equal_names_apart(tmp_path):
    for name in ("run/out/a/1", "run/out/b/1", "run/out/c/x/1", "run/2"):
        save(tmp_path / f"{name}.png")
    folder = open_folder(tmp_path, "--restored")
    found = match(["a/1.pgm", "b/1.pgm", "q/2.pgm"], folder)
    assert {id: path.parent.name for id, path in found.files.items()} == {
        "a/1.pgm": "a", "b/1.pgm": "b", "q/2.pgm": "run"}
    assert not found.faults and found.extra == ["run/out/c/x/1.png"]
    both = match(["x/1.pgm", "c/x/1.pgm"], folder)  # one file ends as both
    assert both.faults == {"x/1.pgm": "ambiguous: x/1, c/x/1"}
    assert not match(["a/1.pgm"], folder, loose=False).files


def test_what_is_wrong_with_a_file_is_said_and_may_be_allowed(tmp_path, monkeypatch):
    grey = Image.fromarray(np.full((64, 64), 40000, np.uint16))
    clear = np.full((64, 64, 4), 200, np.uint8)
    files = {"fine.png": None, "lossy.jpg": None, "small.png": np.zeros((32, 32, 3), np.uint8),
             "deep.png": grey,
             "clear.png": clear,
             "solid.png": np.dstack([clear[..., :3], np.full((64, 64), 255, np.uint8)])}
    for name, image in files.items():
        save(tmp_path / name, image)
    save(tmp_path / "lossless.webp", lossless=True)
    save(tmp_path / "lossy.webp", lossless=False)
    save(tmp_path / "lossy.avif")
    pillow_heif.from_pillow(Image.open(tmp_path / "fine.png")).save(tmp_path / "lossy.heic")
    # As in a process that has met no such file yet.
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    (tmp_path / "broken.png").write_bytes((tmp_path / "fine.png").read_bytes()[:60])
    faults = {path.name: read_output(path, 64)[1] for path in sorted(tmp_path.iterdir())}
    assert faults == {"fine.png": "", "solid.png": "", "lossless.webp": "",
                      "lossy.jpg": "lossy JPEG",
                      "lossy.webp": "lossy WebP", "lossy.avif": "lossy AVIF",
                      "lossy.heic": "lossy HEIC",
                      "small.png": "is 32 x 32 pixels, not 64 x 64",
                      "deep.png": "16 bits a channel", "clear.png": "transparent",
                      "broken.png": "cannot be read (image file is truncated)"}
    image, fault = read_output(tmp_path / "lossy.jpg", 64, {"jpeg"})
    assert fault == "" and image.shape == (64, 64, 3)


def test_a_folder_has_the_values_of_its_adapter_to_the_last_digit(made, session_store):
    from fsrbench.engine.options import plan
    from fsrbench.engine.run import Run

    root, options, first = made
    again = Run(plan("mini", "orl", ("8",), ("bicubic", f"outputs:copy={root / 'bicubic'}"),
                     ("psnr", "ids.cosine@dlib"), "2", "0", "4"), session_store).execute()
    values = again.records.set_index(["method", "metric", "sample"])[["value", "image"]]
    assert values.loc["outputs:copy"].equals(values.loc["bicubic"]) and not first.missing
    assert again.cells[1].method.title == "copy"


def test_score_compares_folders_and_names_every_fault(made, invoke, tmp_path):
    root, *_ = made
    worse, truth = tmp_path / "worse", root / "inputs" / "truth"
    shutil.copytree(root / "bicubic", worse)
    names = sorted(p.relative_to(worse) for p in worse.rglob("*.png"))
    (worse / names[0]).unlink()
    save(worse / names[1], np.zeros((32, 32, 3), np.uint8))
    save(worse / "nobody.png")
    done = invoke("score", "--restored", f"good={root / 'bicubic'}", "--restored", worse, "--truth",
                  truth,
                  "--metric", "psnr", "--store", tmp_path / "store", "--out", tmp_path / "out",
                  check=0)
    count = len(names)
    assert f"worse: failed, missing: 1 ({names[0].as_posix()})" in done.stdout
    assert f"is 32 x 32 pixels, not 64 x 64: 1 ({names[1].as_posix()})" in done.stdout
    assert "worse: 1 files belong to no image of --truth (nobody.png)" in done.stdout
    assert f"{count - 2} (2 failed)" in done.stdout and "2 people" in done.stdout
    assert "as given" in done.stdout
    files = list(csv.DictReader((tmp_path / "out" / "score-files.csv").open()))
    assert sorted(r["file"] for r in files) == sorted([*map(str, names[:2]), "nobody.png"])
    rows = {r["method"]: r for r in csv.DictReader((tmp_path / "out" / "score.csv").open())}
    expected = made[2].records.query("metric == 'psnr.rgb'")["value"].mean()
    assert float(rows["outputs:good"]["mean"]) == pytest.approx(expected, rel=1e-5)
    page = (tmp_path / "out" / "score.html").read_text()
    assert "Ground truth" in page and "Reference<br>" not in page
    assert "×1" not in page and "Scale as" not in page


def test_an_output_that_is_mended_is_scored_anew(made, invoke, tmp_path):
    root, *_ = made
    mine = tmp_path / "mine"
    shutil.copytree(root / "bicubic", mine)
    one = sorted(mine.rglob("*.png"))[0]
    good = one.read_bytes()
    words = ("score", "--restored", mine, "--truth", root / "inputs" / "truth", "--metric", "psnr",
             "--store", tmp_path / "store", "--out", tmp_path / "out")
    one.write_bytes(good[:50])
    assert "(1 failed)" in invoke(*words, check=0).stdout
    one.write_bytes(good)
    assert "failed" not in invoke(*words, check=0).stdout.replace("failed samples", "")


@pytest.mark.parametrize("words,text", [
    ((), "score: needs --restored DIR, and --truth DIR where there are ground truths"),
    (("--restored", "/nowhere", "--truth", "/nowhere"), "--restored /nowhere: no such folder"),
    (("--restored", "HERE", "--truth", "/nowhere"), "--truth /nowhere: no such folder"),
    (("--restored", "HERE", "--truth", "HERE", "--allow", "blur"),
     "--allow 'blur': unknown; known: 16-bit, alpha, jpeg")])
def test_wrong_words_end_in_one_line(invoke, tmp_path, words, text):
    save(tmp_path / "a.png")
    words = [word.replace("HERE", str(tmp_path)) for word in words]
    text = text.replace("HERE", str(tmp_path))
    done = invoke("score", *words, "--store", tmp_path / "s", "--out", tmp_path / "o", check=2)
    assert text in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_list_of_persons_names_all_images(invoke, tmp_path):
    save(tmp_path / "t" / "a.png")
    save(tmp_path / "t" / "b.png")
    words = ("score", "--restored", tmp_path / "t", "--truth", tmp_path / "t", "--store",
             tmp_path / "s")
    (tmp_path / "who.csv").write_text("image,person\na.png,x\n")
    done = invoke(*words, "--persons", tmp_path / "who.csv", check=2)
    assert "names no person for 1 images, first b" in done.stderr
    (tmp_path / "who.csv").write_text("file,name\na.png,x\n")
    assert "has no columns image and person" in invoke(*words, "--persons", tmp_path / "who.csv",
                                                       check=2).stderr


def test_ground_truths_that_show_nothing_or_stand_twice_do_not_count(made, invoke, tmp_path):
    """Any restoration of one colour is perfect, and a copy would count twice; nor is a store below
    the folder a part of it."""
    root, *_ = made
    mine = tmp_path / "mine"
    shutil.copytree(root / "inputs" / "truth", mine)
    one = sorted(mine.rglob("*.png"))[0]
    save(mine / "s99" / "flat.png")
    shutil.copy(one, one.with_name("copy.png"))
    words = ("score", "--restored", f"same={mine}", "--truth", mine, "--metric", "psnr",
             "--store", mine / "store", "--out", tmp_path / "out")
    first = invoke(*words, check=0).stdout
    assert "test image of one colour: 1 (s99/flat.png)" in first
    assert "copy of the test image" in first
    for text in (first, invoke(*words, check=0).stdout):
        assert re.search(r"\| same +\| given +\| +10 \|", text)
        assert "same: 10 of 10 outputs are the ground truth itself" in text


def test_inputs_keep_what_lies_there(made, invoke):
    root, *_ = made
    done = invoke("inputs", "--people", "2", "--out", root / "inputs", check=2)
    assert "is not empty; give a new folder" in done.stderr
    rows = list(csv.DictReader((root / "inputs" / "samples.csv").open()))
    assert all((root / "inputs" / row[name]).exists() for row in rows
               for name in ("lq", "reference", "truth"))
    with pytest.raises(FsrError, match="holds no image"):
        (root / "empty").mkdir()
        (root / "empty" / "notes.txt").write_text("none")
        open_folder(root / "empty", "--restored")
