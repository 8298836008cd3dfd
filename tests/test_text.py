"""Tables as text, and progress where nobody looks at a terminal."""

import csv
import io
import re
import time

import pytest
from conftest import ROOT

from fsrbench import progress
from fsrbench.errors import FsrError
from fsrbench.text import csv_table, json_text, markdown_table, read_json


def test_a_narrow_column_is_still_a_markdown_table():
    """A rule of one character is `:` alone, which readers of Markdown do not take for a table."""
    text = markdown_table(["", "n"], [["a", 1], ["bc", 20]], left=1)
    assert text.splitlines() == ["|     |   n |", "| --- | --: |", "| a   |   1 |", "| bc  |  20 |"]


def test_csv_reads_back():
    rows = [["a,b", 'say "x"', "two\nlines"], ["", "0", "é"]]
    assert list(csv.reader(io.StringIO(csv_table(["x", "y", "z"], rows)))) == [["x", "y", "z"],
                                                                               *rows]


def test_long_work_in_a_log_says_where_it_is_and_short_work_says_nothing(monkeypatch, capsys):
    assert list(progress.progress(range(5), desc="restoring", unit="images")) == list(range(5))
    with progress.progress(desc="restoring", total=900, unit="images") as bar:
        for _ in range(900):
            bar.set_postfix_str("bicubic x8")
            bar.set_postfix(loss=3)
            bar.update(1)
    assert capsys.readouterr().err == ""
    # One clock goes over the parts of a command, each of which may be short.
    monkeypatch.setattr(progress, "_EVERY", 0.2)
    progress.begin()
    for part in ("restoring", "measuring"):
        for _ in progress.progress(range(3), desc=part, unit="images"):
            time.sleep(0.05)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("measuring: ") and "left" not in line, "too early to tell"
    # Of work within other work the outer one has the lines.
    for _ in progress.progress(range(4), desc="fitting", unit="people"):
        for _ in progress.progress(range(2), desc="fitting to her", unit="steps"):
            time.sleep(0.05)
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(line.startswith("fitting: ") for line in lines)
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    with progress.progress(desc="restoring", total=4, unit="images") as bar:
        bar.set_postfix_str("bicubic x8", refresh=False)
        for _ in range(4):
            bar.update(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("restoring: 4 of 4, 00:0") and lines[-1].endswith("bicubic x8")
    assert not any("\r" in line for line in lines)
    with progress.progress(desc="training of 5 min", unit="steps") as bar:
        bar.update(3)
    assert capsys.readouterr().err.splitlines()[-1].startswith("training of 5 min: 3 steps, 00:0")


def test_a_broken_json_file_is_named(tmp_path):
    path = tmp_path / "card.json"
    path.write_text(json_text({"sha256": "ä", "n": [1]}))
    assert read_json(path, "sha256", "n") == {"sha256": "ä",
                                              "n": [1]} and path.read_text().endswith("}\n")
    for text, cause in (("{", "Expecting"), ("[1]", "holds no object"), ("3", ""),
                        ('{"n": 1}', "has no 'sha256'"), ("\x00", "")):
        path.write_text(text)
        with pytest.raises(FsrError, match=f"file {path}: is damaged .*{cause}.*; write it again"):
            read_json(path, "sha256", remedy="write it again")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FsrError, match="is damaged"):
        read_json(path)
    with pytest.raises(FsrError, match="cannot be read"):
        read_json(tmp_path / "none.json")


def test_json_files_are_read_in_one_place():
    """Each of our modules that reads or writes one goes by `fsrbench.text`; what is left is no file
    of its own."""
    left = {"harness/text.py", "harness/exchange/record.py", "harness/proof/parity.py",
            "harness/training/bank.py", "harness/training/loop.py",
            "harness/training/side_by_side.py", "harness/weights/formats.py",
            "reports/pages/site.py", "reports/gate/goldens.py", "reports/pages/explorer.py",
            "harness/engine/shards.py"}
    found = {str(p.relative_to(ROOT)) for folder in ("harness", "reports")
             for p in (ROOT / folder).rglob("*.py")
             if re.search(r"json\.(load|dump)s?\(", p.read_text())}
    assert found <= left
