"""Folders and files as people have them: every fault is one clear line, and costs its own image
alone."""

import csv
import os
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(image.repeat(4, 0).repeat(4, 1)).save(path)


def png_of_size(path, width, height):
    """A small PNG file that says to be of that size."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind
                                                                                        + data))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
                     + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b""))


@pytest.fixture
def place(tmp_path):
    for n in range(3):
        save(tmp_path / "t" / "p" / f"{n}.png", n)
        save(tmp_path / "r" / "p" / f"{n}.png", n + 10)
    return tmp_path


def scored(invoke, place, *words, restored="r", check=0):
    named = [str(word).replace("HERE", str(place)) for word in words]
    done = invoke("score", "--restored", place / restored, *named, "--metric", "psnr", "--store",
                  place / "store", "--out", place / "out", check=check)
    if check:
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stdout if check == 0 else done.stderr.replace(str(place), "")


def test_odd_names_links_pipes_and_broken_files_cost_their_own_image_alone(invoke, place):
    wide, odd = unicodedata.normalize("NFC", "\u00e9 \u6f22.png"), "a,\"b|c<i>.png"
    for seed, name in enumerate((wide, odd, "x/y/z/1.png", os.fsdecode(b"\xff\xfe.png")), 20):
        save(place / "t" / name, seed)
        save(place / "r" / unicodedata.normalize("NFD", name), seed + 10)
    for seed, name in enumerate(("link", "pipe", "empty", "folder", "huge", "bomb", "cut"), 40):
        save(place / "t" / f"{name}.png", seed)
    (place / "r" / "link.png").symlink_to("/nowhere/1.png")
    os.mkfifo(place / "r" / "pipe.png")
    (place / "r" / "empty.png").touch()
    (place / "r" / "folder.png").mkdir()
    png_of_size(place / "r" / "huge.png", 9000, 9000)
    png_of_size(place / "r" / "bomb.png", 60000, 60000)
    (place / "r" / "cut.png").write_bytes((place / "t" / "cut.png").read_bytes()[:80])
    (place / "t" / "gone.png").symlink_to("/nowhere/2.png")
    os.mkfifo(place / "t" / "pipe2.png")
    os.mkfifo(place / "r" / "pipe of no suffix")
    out = scored(invoke, place, "--truth", "HERE/t")
    assert "| 7 (7 failed) |" in " ".join(out.split())
    said = {row["file"]: row["what"] for row in csv.DictReader((place / "out" / "score-files.csv")
                                                               .open())}
    assert said == {
        "link.png": "cannot be read (a link to nothing)", "pipe.png": "is no regular file",
        "empty.png": "cannot be read (the file is empty)", "folder.png": "missing",
        "huge.png": "has 9000 x 9000 pixels, more than the 16,777,216 that are scored",
        "bomb.png": "has over 178 million pixels, more than the 16,777,216 that are scored",
        "cut.png": said["cut.png"],
        "gone.png": "ground truth left out: cannot be read (a link to nothing)",
        "pipe2.png": "ground truth left out: is no regular file"}
    assert said["cut.png"].startswith("cannot be read (")


def test_an_image_that_a_metric_cannot_measure_costs_that_value_alone(invoke, place):
    for side in "tr":
        Image.fromarray(np.random.default_rng(3).integers(0, 256, (5, 300, 3), dtype=np.uint8)
                        ).save(place / side / "p" / "thin.png")
    done = invoke("score", "--restored", place / "r", "--truth", place / "t", "--metric",
                  "psnr,ssim,lmd", "--store", place / "store", "--out", place / "out", check=0)
    rows = {row["metric"].partition(".")[0]: (row["n_ok"], row["n_failed"]) for row in
            csv.DictReader((place / "out" / "score.csv").open())}
    assert rows == {"psnr": ("4", "0"), "ssim": ("3", "1"), "lmd": ("0", "4")}, done.stdout
    said = [row for row in csv.DictReader((place / "out" / "score-files.csv").open())
            if row["what"].startswith("ssim")]
    assert [row["file"] for row in said] == ["p/thin.png"] and "Kernel size" in said[0]["what"]


def test_equal_basenames_are_ambiguous_and_nested_folders_are_not(invoke, place):
    for name in ("a/b/0.png", "x/0.png", "deep/er/1.png"):
        save(place / "nest" / name, 1)
    out = scored(invoke, place, "--truth", "HERE/t", restored="nest")
    assert "ambiguous: 1 (p/0.png: a/b/0, x/0)" in out and "missing: 1 (p/2.png)" in out
    said = {row["file"]: row["what"] for row in csv.DictReader((place / "out" / "score-files.csv")
                                                               .open())}
    assert said["p/0.png"] == "ambiguous: a/b/0, x/0"
    assert "| 1 (2 failed) |" in out
    save(place / "two" / "0.png")
    save(place / "two" / "0.bmp")
    assert "0.bmp and 0.png have one name; keep one of them" in scored(
        invoke, place, "--truth", "HERE/two", check=2)


def test_the_truth_s_own_folder_is_named(invoke, place):
    out = scored(invoke, place, "--truth", "HERE/t", restored="t")
    assert "t: 3 of 3 outputs are the ground truth itself." in out


@pytest.mark.parametrize("option,text,why", [
    ("persons", b"", "has no columns image and person in its first line"),
    ("persons", b"image;person\np/0;x\n", "has no columns image and person in its first line"),
    ("persons", b"image,person\n\xfc,x\n", "is no CSV in UTF-8"),
    ("persons", b'image,person\n"p/0,x\n', "is no CSV in UTF-8"),
    ("persons", b"image,person\np/0\n", "line 2 has 1 cells, too few"),
    ("persons", b"image,person\np/0,x\np/0.png,y\n", "line 3: p/0.png is there twice"),
    ("persons", b"image,person\np/0,\np/1,x\np/2,x\n", "names no person for 1 images"),
    ("split", b"image,split\np/0,tset\n", "line 2: 'tset' is none of train, fine-tune, test"),
    ("split", b"image,split\np/0,train\n", "has no image for test"),
    ("split", b"image,split\np/0,test\np/0,train\n", "line 3: p/0 is there twice")])
def test_a_csv_file_that_does_not_fit_is_told_with_its_line(invoke, place, option, text, why):
    (place / "x.csv").write_bytes(text)
    said = scored(invoke, place, "--truth", "HERE/t", f"--{option}", "HERE/x.csv", check=2)
    assert said.startswith(f"error: --{option} /x.csv: ") and why in said


@pytest.mark.parametrize("words,why", [
    (("--truth", "HERE/t/p/0.png"), "--truth /t/p/0.png: no such folder"),
    (("--truth", ""), "--truth: is empty; give a folder of images"),
    (("--truth", "HERE/t", "--restored", ""), "--restored: is empty"),
    (("--truth", "HERE/t", "--restored", "HERE/r"), "is called r like another one"),
    (("--truth", "HERE/t", "--name", " "), "its name has no letter"),
    (("--truth", "HERE/t", "--references", "HERE/store"), "--references /store: holds no image"),
    (("--truth", "HERE/t", "--references", "HERE/other"), "holds nobody's images"),
    (("--truth", "HERE/t", "--split", "HERE"), "--split : cannot be read (Is a directory)"),
    ((), "--metric: none can be measured here: psnr.rgb compares with ground truths"),
    (("--lq", "HERE/other"), "none can be measured here")])
def test_words_that_cannot_be_are_refused_in_one_line(invoke, place, words, why):
    save(place / "other" / "nobody.png")
    assert why in scored(invoke, place, *words, check=2)


def test_a_name_in_any_script_and_with_markup_stands_in_every_format(invoke, place):
    name = "\u6f22\u5b57/\u00e4=<b>|$x$ `rm`"
    out = scored(invoke, place, "--truth", "HERE/t", "--name", name)
    page, tex = ((place / "out" / f"score.{kind}").read_text() for kind in ("html", "tex"))
    assert "| \u6f22\u5b57 \u00e4 b x rm |" in " ".join(out.split())
    assert "<b>|" not in page and "$x$" not in tex and "\u6f22\u5b57" in tex
