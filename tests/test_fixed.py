"""`--split` and `--references`: what they fix is used, written down and another data set; what is
wrong is one line."""

import json

import pytest

from fsrbench.engine.fixed import Fixed
from fsrbench.engine.samples import load_samples
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.profiles import PROFILES

MINI = PROFILES["mini"]
SPLIT = """image,split
s1/1.pgm,fine-tune
s1/2.pgm,test
s1/3.pgm,fine-tune
s1/4.pgm,unused
s5/1.pgm,test
s5/2.pgm,fine-tune
"""
REFERENCES = "image,references\ns1/2.pgm,s1/3.pgm,s1/1.pgm\ns5/1.pgm,s5/2.pgm\n"


@pytest.fixture
def files(tmp_path):
    """Write both files; returns what names them."""
    def write(split=None, references=None):
        given = {}
        for name, text in (("split", split), ("references", references)):
            if text is not None:
                (tmp_path / f"{name}.csv").write_text(text)
                given[name] = str(tmp_path / f"{name}.csv")
        return Fixed(**given)
    return write


def loaded(album, store, fixed, seed=0):
    return load_samples(f"folder:{album}", MINI, store, None, seed, fixed)


def test_the_split_of_a_file_is_used_whatever_the_seed(album, session_store, files):
    found = [loaded(album, session_store, files(SPLIT), seed) for seed in (0, 1)]
    for samples in found:
        albums = {s.id: {p.id for p in s.album} for s in samples.samples}
        assert albums == {"s1/2.pgm": {"s1/1.pgm", "s1/3.pgm"}, "s5/1.pgm": {"s5/2.pgm"}}
        unnamed = samples.excluded.remarks.reasons["not in the files of the split, unused"]
        assert set(unnamed) == {"s5/3.pgm", "s5/4.pgm", *(f"s9/{n}.pgm" for n in (1, 2, 3, 4))}
    assert found[0].digest != loaded(album, session_store, Fixed()).digest


@pytest.mark.parametrize("split", [SPLIT, None])
def test_the_references_of_a_file_are_used_whatever_the_seed(album, session_store, files, split):
    found = [loaded(album, session_store, files(split, REFERENCES), seed) for seed in (0, 1)]
    for samples in found:
        assert {s.id: s.reference.id for s in samples.samples} == {"s1/2.pgm": "s1/3.pgm",
                                                                   "s5/1.pgm": "s5/2.pgm"}
        assert {len(s.album) for s in samples.samples if s.person == "s1"} == {2}
    other = loaded(album, session_store,
                   files(split, REFERENCES.replace("s1/3.pgm,s1/1.pgm", "s1/1.pgm,s1/3.pgm")))
    assert other.digest != found[0].digest


def test_what_prepare_freezes_is_a_split_too(album, session_store, files):
    rows = [line.split(",") for line in SPLIT.splitlines()[1:]]
    text = "person,image,path,sha256,split\n" + "".join(
        f"{name.split('/')[0]},{name.split('/')[1]},{name},,{part}\n" for name, part in rows)
    assert loaded(album, session_store, files(text)).digest == loaded(album, session_store,
                                                                      files(SPLIT)).digest


@pytest.mark.parametrize("split,references,said", [
    (SPLIT.replace("s1/2", "s1/22"), None,
     "line 3: folder has no image 's1/22.pgm', did you mean 's1/2.pgm'?"),
    (SPLIT.replace("s1/4.pgm,unused", "s1/4.pgm,tests"), None,
     "'tests' is none of train, fine-tune, test, unused"),
    (SPLIT.replace("s1/4.pgm,unused", "s1/4.pgm,train"), None,
     "person s1 is in train and in fine-tune"),
    (SPLIT + "s1/1.pgm,test\n", None, "line 8: s1/1.pgm is there twice"),
    (SPLIT.replace("test", "unused"), None, "has no image for test"),
    ("s1/1.pgm,test\n", None, "has no columns image and split in its first line"),
    ("", None, "has no columns image and split"),
    (SPLIT + "s1/4.pgm\n", None, "line 8 has 1 cells, too few"),
    (None, REFERENCES.replace("s1/2.pgm,s1/3", "s1/2.pgm,s1/2"),
     "line 2: s1/2.pgm is its own reference"),
    (None, REFERENCES.replace("s5/1.pgm,s5/2", "s5/1.pgm,s1/4"),
     "s1/4.pgm is of another person than s5/1.pgm"),
    (None, REFERENCES + "s1/3.pgm,s1/4.pgm\n", "s1/3.pgm is a ground truth and a reference"),
    (None, "image,references\ns1/2.pgm,\n", "s1/2.pgm has no reference"),
    (None, "image,references\n", "has no image"),
    (None, "references,image\ns1/3.pgm,s1/2.pgm\n", "has the column image behind references"),
    (SPLIT.replace(",", ";"), None, "in its first line, which is 'image;split'"),
    (SPLIT, REFERENCES.replace("s1/3", "s1/4"), "s1/4.pgm is unused in the split, not fine-tune"),
    (SPLIT, REFERENCES.replace("s1/2.pgm,s1/3", "s1/1.pgm,s1/3").replace(",s1/1.pgm\n", "\n"),
     "s1/1.pgm is fine-tune in the split, not test")])
def test_a_wrong_file_is_one_line(album, session_store, files, split, references, said):
    with pytest.raises(FsrError) as caught:
        loaded(album, session_store, files(split, references))
    assert said in str(caught.value) and caught.value.code == 2


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'image,split\n"s1/1.pgm,test',
                                     b"image,split\ns1\0/1.pgm,test\n"])
def test_a_file_that_is_no_csv_is_one_line(album, session_store, tmp_path, content):
    (tmp_path / "odd.csv").write_bytes(content)
    for path in (tmp_path / "odd.csv", tmp_path / "none.csv", tmp_path):
        with pytest.raises(FsrError) as caught:
            loaded(album, session_store, Fixed(split=str(path)))
        assert caught.value.code == 2 and " at 0x" not in str(caught.value)


def test_the_command_takes_both_and_the_record_names_them(album, files, tmp_path, invoke):
    fixed = files(SPLIT, REFERENCES)
    words = ("table1", "--data", f"folder:{album}", "--method", "bicubic", "--scale", "8",
             "--store", tmp_path / "store",
             "--out", tmp_path / "out", "--split", fixed.split, "--references", fixed.references)
    text = invoke(*words, check=0).stdout
    assert "test images and reference sets are those of split.csv (--split, sha256" in text
    assert "not in the files of the split, unused: 6" in text
    run = json.loads(next((tmp_path / "store" / "runs").glob("*.json")).read_text())
    said = json.dumps(run)
    assert all(digest in said for digest in fixed.digests().values())
    rows = Store(tmp_path / "store").read("rows")
    assert dict(zip(rows["sample"], rows["reference"])) == {"s1/2.pgm": "s1/3.pgm",
                                                            "s5/1.pgm": "s5/2.pgm"}
    fault = invoke(*words[:-2], "--references", tmp_path / "none.csv")
    assert fault.returncode == 2 and fault.stderr.count("\n") <= 2
    assert "none.csv: cannot be read" in fault.stderr
    for name in ("table1", "report", "claims", "ablation", "figure", "analysis", "paper"):
        assert "--references" in invoke("--help", name).stdout
