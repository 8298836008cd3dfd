"""Tables as text, and progress where nobody looks at a terminal."""

import csv
import io

from fsrbench import progress
from fsrbench.text import csv_table, markdown_table


def test_a_narrow_column_is_still_a_markdown_table():
    """A rule of one character is `:` alone, which readers of Markdown do not take for a table."""
    text = markdown_table(["", "n"], [["a", 1], ["bc", 20]], left=1)
    assert text.splitlines() == ["|     |   n |", "| --- | --: |", "| a   |   1 |", "| bc  |  20 |"]


def test_csv_reads_back():
    rows = [["a,b", 'say "x"', "two\nlines"], ["", "0", "é"]]
    assert list(csv.reader(io.StringIO(csv_table(["x", "y", "z"], rows)))) == [["x", "y", "z"], *rows]


def test_long_work_in_a_log_says_where_it_is_and_short_work_says_nothing(monkeypatch, capsys):
    assert list(progress.progress(range(5), desc="restoring", unit="images")) == list(range(5))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    with progress.progress(desc="restoring", total=4, unit="images") as bar:
        bar.set_postfix_str("bicubic x8", refresh=False)
        for _ in range(4):
            bar.update(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("restoring: 4 of 4, 00:0") and lines[-1].endswith("bicubic x8")
    assert not any("\r" in line for line in lines)
