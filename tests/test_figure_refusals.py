"""Figures that are refused or cannot be drawn."""

import pytest
import test_figures
from test_figures import run

from fsrbench.errors import FsrError
from fsrbench.reports.figures.draw import draw
from fsrbench.reports.figures.registry import figures

small = test_figures.small


def test_wrong_words_end_in_one_line(invoke, tmp_path):
    from fsrbench.reports.tables import ablation

    for words, text in ((("figure", "--n", "99"), "figure 99: unknown; known: 1, 2, 3"),
                        (("ablation", "--case", "9"),
                         "ablation case 9: unknown; known: 0 (Default), 1 (LR), 2 (masked LR)")):
        done = invoke(*words, "--store", tmp_path / "store", "--out", tmp_path / "out", check=2)
        assert text in done.stderr and len(done.stderr.strip()
                                           .splitlines()) == 1 and "Traceback" not in done.stderr
    with pytest.raises(FsrError, match="--n x: is not a whole number"):
        draw(["x"], "mini", (), (), None, None, None, str(tmp_path / "store"),
             str(tmp_path / "out"))
    assert ablation.methods_of([4]) == ("idfsr.case0",
                                        "idfsr.case4") and ablation.methods_of([]) == ()


def test_a_figure_that_cannot_be_drawn_costs_no_other(small, tmp_path, monkeypatch, capsys):
    from fsrbench.reports.figures import registry

    def broken(context):
        raise FsrError("weights idfsr-nowhere", "missing", code=3)
    monkeypatch.setattr(registry, "_figures",
                        {2: figures()[2], 3: registry.Entry(3, "Broken", broken),
                         10: figures()[10]})
    assert run(small, out="partly") == 3
    assert {p.suffix for p in (small / "partly").glob("figure10.*")} == {".svg", ".png", ".txt",
                                                                         ".csv"}
    assert "figure 3 was not drawn: weights idfsr-nowhere: missing" in capsys.readouterr().err
