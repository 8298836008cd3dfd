"""Tables: marks, formats, published numbers."""

import copy
import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest

from fsrbench.engine.run import Run
from fsrbench.engine.stats import Summary, jackknife_set, summarise
from fsrbench.engine.store import Store
from fsrbench.metrics import family
from fsrbench.reports.pages.chart import chart
from fsrbench.reports.pages.html import table_page
from fsrbench.reports.paper.published import published
from fsrbench.reports.tables import render
from fsrbench.reports.tables.table import Measured, Row, Table, Value, build, leading


@pytest.fixture(scope="module")
def outcome(quick_plan, tmp_path_factory):
    plan = quick_plan(scales=("8", "16"), metrics=("psnr", "lpips", "fd", "clipiqa"), people="5")
    return Run(plan, Store(tmp_path_factory.mktemp("tables"))).execute()


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
    assert {r["metric"] for r in rows if r["metric"].startswith("fd.")} == {"fd.alexnet@gt#n25"}
    one = next(r for r in rows if r["method"] == "bicubic" and r["metric"] == "psnr.rgb"
               and r["scale"] == "16")
    values = outcome.records.query(
        "method == 'bicubic' and scale == 16 and metric == 'psnr.rgb'")["value"]
    assert float(one["mean"]) == pytest.approx(values.mean(), rel=1e-5) and one["n_ok"] == "25"
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
    text, page, tex = render.markdown(table), table_page(table, outcome,
                                                         chart(table)), render.latex(table)
    for row in table.blocks[8]:
        for column in table.columns:
            shown = render.number(column, row.values[column.id].summary
                                  and row.values[column.id].summary.mean)
            assert shown in text and shown in page and shown.replace("%", r"\%") in tex
    assert text.count("| Method") == 2 and page.count("<table") == 2 and tex.count(r"\toprule") == 2
    assert "invoke weights --get clip-rn50" in text
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    # scales x samples x (methods + LR, ground truth, reference)
    assert page.count("<img") == 2 * 10 * (2 + 3)


PEOPLE = np.repeat([f"p{i}" for i in range(12)], 4)


def marks_of(values, people=PEOPLE, metric=None):
    return leading(metric or family("psnr")[0], {k: Measured(summarise(v, people), v)
                                                 for k, v in values.items()}, list(people))


def test_marks_need_a_difference_that_people_agree_on():
    rng = np.random.default_rng(0)
    base = rng.normal(20, 1, 48)
    values = {"a": base + 1, "b": base, "c": base + rng.normal(0, 0.5, 48)}
    assert marks_of(values) == {"a": "best"}
    values["c"] = base - 1 + rng.normal(0, 0.1, 48)
    assert marks_of(values) == {"a": "best", "b": "second"}
    assert marks_of(values, metric=replace(family("psnr")[0], direction=-1)) == {"c": "best",
                                                                                 "b": "second"}
    few = PEOPLE < "p4"  # p0 to p3, p10 and p11 sort before
    assert marks_of({k: v[few] for k, v in values.items()}, ["a", "b", "c", "d"]
                    * (few.sum() // 4)) == {}
    values["a"][3] = np.nan  # the mean of those that were easy enough is no lead
    assert marks_of(values) == {"b": "best"}


def test_a_lead_over_the_next_alone_is_not_the_best():
    """The third is lower in the mean but by too few people; the old rule looked at the next one
    only."""
    rng, wild = np.random.default_rng(1), np.zeros(48)
    wild[PEOPLE == "p1"] = -30
    base = rng.normal(20, 1, 48)
    values = {"a": base + 0.3, "b": base + rng.normal(0, 0.1, 48), "c": base + 0.5 + wild}
    assert marks_of(values) == {} and values["c"].mean() < values["b"].mean()


def test_set_metrics_are_marked_by_paired_differences():
    from fsrbench.metrics.frechet import frechet_distance

    rng, metric = np.random.default_rng(7), family("fd")[0]
    truth = rng.normal(size=(12, 16)).repeat(4, 0) + rng.normal(size=(48, 16))
    a = truth + rng.normal(0.5, 0.3, truth.shape)
    found = {}
    for name, features in (("a", a), ("b", a + 0.01), ("twin", a + 0.01)):
        jackknife = jackknife_set(features, truth, PEOPLE, frechet_distance)
        found[name] = Measured(Summary(float(jackknife.whole), *jackknife.interval(), 48, 0),
                               left_out=jackknife)
    assert found["a"].summary.high > found["b"].summary.low  # unpaired intervals tell nothing
    assert leading(metric, {k: found[k] for k in "ab"}, list(PEOPLE)) == {"a": "best"}
    assert leading(metric, {k: found[k] for k in ("b", "twin")}, list(PEOPLE)) == {}


def test_controls_are_never_best(table):
    assert all(v.mark == "" for rows in table.blocks.values() for row in rows
               for v in row.values.values())


def test_difference_only_where_comparable():
    metric = family("psnr")[0]

    def text(verdict):
        value = Value(Summary(28.0, 27.0, 29.0, 9, 1), "best", 28.85, verdict)
        row = Row("idfsr.ft", "IDFSR (FT)", "trained", False, 9, 1, {metric.id: value})
        table = Table("t", "T", "celebref-hq", "bicubic", "paper", (metric,), {}, {8: [row]},
                      comparable=True)
        assert (r"\textbf{28.00}" in render.latex(table) and ",-0.85," in render.tidy(table)
                or verdict == "not comparable")
        return render.markdown(table)
    assert "-0.85 ?" in text("cannot tell") and "28.85" in text("cannot tell")
    assert "**28.00**" in text("cannot tell")
    assert "-0.85 ✓" in text("within") and "-0.85 ✗" in text("differs")
    assert "9 (1 failed)" in text("within")
    assert "-0.85" not in text("not comparable") and "28.85" in text("not comparable")


def as_the_paper(outcome, people=None, **changes):
    """The outcome as if its data were the paper's: names and sizes are changed, records stay."""
    samples = outcome.samples.samples
    if people:
        samples = [replace(s, person=f"p{i % people}") for i, s in enumerate(samples)]
    cells = [replace(cell, method=copy.copy(cell.method)) for cell in outcome.cells]
    for cell in cells:
        cell.method.paper, cell.method.weights = "idfsr-ft", changes.get("weights", "official")
    source = replace(outcome.samples.source, name=changes.get("data", "celebref-hq"))
    profile = replace(outcome.options.profile, size=changes.get("size", 256))
    return replace(outcome, cells=cells,
                   samples=replace(outcome.samples, source=source, samples=samples),
                   options=replace(outcome.options, profile=profile,
                                   degradation=changes.get("degradation", "bicubic")))


@pytest.mark.parametrize("changes, why", [
    ({}, ""), ({"people": 9}, "there are 9 people, not 5"),
    ({"data": "orl"}, "the data set is orl, not celebref-hq"),
    ({"size": 64}, "images have 64 px, not 256"), ({"degradation": "severity-1"},
                                                   "the degradation is severity-1, not bicubic"),
    ({"weights": "mini"},
     "No difference is drawn of rows that are not the paper's: Bicubic (mini), Warped")])
def test_a_difference_needs_the_paper_s_data_people_size_weights_and_network(outcome, monkeypatch,
                                                                             changes, why):
    from fsrbench.reports.paper import published as paper
    from fsrbench.reports.tables import table as tables

    monkeypatch.setattr(tables, "tested_people", lambda name: range(5, 6))
    metrics = [*family("psnr"), *family("ids.cosine@dlib")]
    made = build(as_the_paper(outcome, **changes), "t", "T", metrics[:1], "celebref-hq")
    verdicts = {r.values["psnr.rgb"].verdict for rows in made.blocks.values() for r in rows}
    drawn = verdicts <= {"within", "differs",
                         "cannot tell"} and "difference" in render.markdown(made)
    assert drawn == (why == "") and (why in render.markdown(made))
    assert paper.tested_people("celebref-hq") == range(56, 57)
    assert 1030 in paper.tested_people("casia-webface")


def test_dlib_s_distance_is_never_set_against_the_paper_s(quick_plan, session_store, monkeypatch):
    from fsrbench.reports.tables import table as tables

    monkeypatch.setattr(tables, "tested_people", lambda name: range(1, 99))
    outcome = Run(quick_plan(metrics=("psnr", "ids.cosine@dlib"), people="2"),
                  session_store).execute()
    made = build(as_the_paper(outcome), "t", "T", outcome.options.metrics, "celebref-hq")
    row = made.blocks[8][0]
    assert row.values["psnr.rgb"].verdict == "cannot tell"
    assert row.values["ids.cosine@dlib"].verdict == "not comparable"
    text = render.markdown(made)
    assert "No difference from the paper is drawn of IDS: its network is dlib's" in text
    # Of two people: neither interval nor mark, and why.
    assert "No interval and no mark are of fewer than 5 people, and these are 2" in text
    assert all(r["ci_low"] == "" for r in csv.DictReader(io.StringIO(render.tidy(made))))


def test_a_table_says_in_words_what_its_columns_are(table):
    notes = "\n".join(table.notes)
    assert ("PSNR (psnr.rgb): dB by a peak of 255, 8-bit RGB in 0 to 255, mean over channels, "
            "no border cropped; against") in notes
    assert "AlexNet's five pooled layers, 1,152 dimensions" in notes
    assert "1,942 at 5, 843 at 30" in notes
    assert "each left out in turn" in notes and "corrected by Holm" in notes
    assert not any(n.startswith("CLIPIQA (clipiqa")
                   for n in table.notes)  # not here, so not described


def test_metrics_of_a_table_by_command(invoke, session_store, tmp_path):
    words = ("table1", "--people", "1", "--method", "bicubic", "--scale", "8", "--store",
             session_store.root, "--out", tmp_path)
    done = invoke(*words, "--metric", "psnr,psnr-y", "--metric", "ssim-y-crop8", check=0)
    rows = {r["metric"]: float(r["mean"]) for r in csv.DictReader((tmp_path / "table1.csv").open())}
    assert list(rows) == ["psnr.rgb", "psnr-y.bt601", "ssim-y.bt601-gauss11-crop8"]
    # Grey images: luma is the same but for its range.
    assert rows["psnr-y.bt601"] == pytest.approx(rows["psnr.rgb"] + 20 * np.log10(255 / 219),
                                                 abs=1e-4)
    assert "SSIM-Y (8 px cropped)" in done.stdout and "8 px cropped at each border" in done.stdout
    wrong = invoke(*words, "--metric", "psmr-y", check=2)
    assert len(wrong.stderr.strip().splitlines()) == 1 and "did you mean 'psnr-y'" in wrong.stderr
    small = invoke(*words, "--metric", "psnr-crop30", check=2)
    assert "crop30: leaves less than 11 px of an image of 64 px" in small.stderr
