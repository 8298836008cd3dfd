"""Tables: marks, formats, published numbers."""

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest

from fsrbench.engine.run import Run
from fsrbench.engine.stats import Summary, summarise
from fsrbench.engine.store import Store
from fsrbench.metrics import family
from fsrbench.reports.pages.chart import chart
from fsrbench.reports.pages.html import table_page
from fsrbench.reports.paper.published import published
from fsrbench.reports.tables import render
from fsrbench.reports.tables.table import Row, Table, Value, _marks, build


@pytest.fixture
def outcome(quick_plan, tmp_path):
    plan = quick_plan(scales=("8", "16"), metrics=("psnr", "lpips", "fd", "clipiqa"))
    return Run(plan, Store(tmp_path)).execute()


@pytest.fixture
def table(outcome):
    return build(outcome, "table1", "Table 1: test", outcome.options.metrics, "celebref-hq")


def test_published_numbers_of_the_paper():
    assert published("celebref-hq", 8, "idfsr-ft", "psnr") == 28.85
    assert published("celebref-hq", 16, "dpi", "ids") == 0.5532
    assert published("celebref-hq", 32, "asffnet", "psnr") is None
    assert published("celebref-hq", 16, None, "psnr") is None
    assert published("casia-webface", 16, "idfsr-ft", "ids") == 0.5090


def test_csv_is_tidy_and_recomputable(table, outcome):
    rows = list(csv.DictReader(io.StringIO(render.tidy(table))))
    assert tuple(rows[0]) == render.CSV_COLUMNS and len(rows) == 2 * 2 * 4
    one = next(r for r in rows if r["method"] == "bicubic" and r["metric"] == "psnr.rgb" and r["scale"] == "16")
    values = outcome.records.query("method == 'bicubic' and scale == 16 and metric == 'psnr.rgb'")["value"]
    assert float(one["mean"]) == pytest.approx(values.mean(), rel=1e-5) and one["n_ok"] == "10"
    assert float(one["ci_low"]) < float(one["mean"]) < float(one["ci_high"])
    missing = next(r for r in rows if r["metric"].startswith("clipiqa"))
    assert missing["mean"] == "" and missing["n_ok"] == "0"


def test_set_metric_is_the_distance_of_the_stored_features(table, outcome):
    from fsrbench.metrics.frechet import frechet_distance

    metric = family("fd")[0]
    records = outcome.records.query("method == 'reference' and scale == 8 and metric == 'restored'")
    images = dict(zip(records["sample"], records["image"]))
    pairs = [(s, images[s.id]) for s in outcome.samples.samples]
    expected = frechet_distance(*outcome.measures.set_features(metric, pairs))
    row = next(r for r in table.blocks[8] if r.method == "reference")
    assert row.values[metric.id].summary.mean == pytest.approx(expected)


def test_markdown_html_and_latex_show_the_same_numbers(table, outcome):
    text, page, tex = render.markdown(table), table_page(table, outcome, chart(table)), render.latex(table)
    for row in table.blocks[8]:
        for column in table.columns:
            shown = render.number(column, row.values[column.id].summary and row.values[column.id].summary.mean)
            assert shown in text and shown in page and shown.replace("%", r"\%") in tex
    assert text.count("| Method") == 2 and page.count("<table") == 2 and tex.count(r"\toprule") == 2
    assert "invoke weights --get clip-rn50" in text
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert page.count("<img") == 2 * 4 * (2 + 3)  # scales x samples x (methods + LR, truth, reference)


def test_marks_need_a_difference_that_the_bootstrap_sees():
    metric, rng = family("psnr")[0], np.random.default_rng(0)
    people = np.repeat([f"p{i}" for i in range(12)], 4)

    def method(name):
        return type(name, (), {"name": name})()
    base = rng.normal(20, 1, 48)
    values = {("a", metric.id): base + 1, ("b", metric.id): base, ("c", metric.id): base + rng.normal(0, 0.5, 48)}
    summaries = {key: summarise(v, people) for key, v in values.items()}
    marks = _marks(metric, [method(n) for n in "abc"], values, summaries, people)
    assert marks == {"a": "best"}
    values["c", metric.id] = base - 1
    summaries["c", metric.id] = summarise(base - 1, people)
    assert _marks(metric, [method(n) for n in "abc"], values, summaries, people) == {"a": "best", "b": "second"}
    lower = replace(metric, direction=-1)
    assert _marks(lower, [method(n) for n in "abc"], values, summaries, people) == {"c": "best", "b": "second"}


def test_controls_are_never_best(table):
    assert all(v.mark == "" for rows in table.blocks.values() for row in rows for v in row.values.values())


def test_difference_only_where_comparable():
    metric = family("psnr")[0]
    row = Row("idfsr.ft", "IDFSR (FT)", "trained", False, 9, 1,
              {metric.id: Value(Summary(28.0, 27.0, 29.0, 9, 1), "best", 28.85)})
    table = Table("t", "T", "celebref-hq", "bicubic", "paper", (metric,), {}, {8: [row]}, comparable=True)
    text = render.markdown(table)
    assert "-0.85" in text and "28.85" in text and "**28.00**" in text and "9 (1 failed)" in text
    assert "-0.85" not in render.markdown(replace(table, comparable=False))
    assert r"\textbf{28.00}" in render.latex(table)
