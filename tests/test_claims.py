"""Published numbers and the claims audit: the paper's verdicts on itself, and what our records can
and cannot tell."""

import csv
import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fsrbench.engine.results import ALL, Result, put_result, results
from fsrbench.engine.stats import Summary, tells_apart
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.metrics import family
from fsrbench.reports.gate.audit import _commands, audit, judge
from fsrbench.reports.gate.claims import predicates
from fsrbench.reports.gate.evidence import (
    FAILS,
    HOLDS,
    MISSING,
    UNSURE,
    Cell,
    Estimate,
    Finding,
    OurResults,
    PaperResults,
    all_of,
    any_of,
    between,
    opposite,
)
from fsrbench.reports.paper import published as paper

# What the paper's own numbers say to each of its claims, and why.
PAPER = {
    "ft-beats-pt-ids": (HOLDS, "lower at x4, x8, x16, x32"),
    "ft-best-x16": (HOLDS, "best in all seven"),
    "ft-best-x8-but-fid": (HOLDS, "ASFFNet's FID 26.25 is below 26.69"),
    "pt-not-best-pixel-x8": (HOLDS, "CodeFormer leads PSNR, DPI SSIM and LPIPS"),
    "pt-pixel-sota-x16": (FAILS,
                          "DPI has the higher PSNR (23.48 to 23.32) and the lower LPIPS (0.1997 to "
                          "0.2062)"),
    "ft-gain-pixel-15pct": (HOLDS, "13.2 % on average, but 3 to 34 % by metric and scale"),
    "ref-methods-collapse": (HOLDS, "IDS rises by 0.48 and 0.41, CodeFormer's by 0.28"),
    "ids-ft-best-x4": (HOLDS, "and DifFace leads MUSIQ"),
    "noref-competitive-x32": (HOLDS, "never last, IDS 0.6642 below DifFace's 0.8210"),
    "idv-ft-best": (HOLDS, "DifFace leads emotion, 67.4 to 66.2"),
    "most-baselines-idv-below-50": (HOLDS, "4 of 6"),
    "more-references-help": (MISSING, "Fig. 7 prints no numbers"),
    "case1-consistency": (MISSING, "Fig. 8 prints no numbers"),
    "case2-perceptual": (MISSING, "Fig. 8 prints no numbers"),
    "case4-id-drops": (MISSING, "Fig. 8 prints no numbers"),
    "case5-id-drops": (MISSING, "Fig. 8 prints no numbers"),
    "id-style-independent": (HOLDS, "0.186 nats to 2.15 and 0.95"),
    "step-overhead": (HOLDS, "54 to 50 ms"),
    "twenty-steps": (HOLDS, "as whole seconds; by steps it is 6.5 to 8.2 times"),
    "reference-degradation": (MISSING, "Fig. 14 prints no numbers"),
    "crossid-transfer": (MISSING, "Fig. 5 prints no numbers"),
    "warp-imprecision": (MISSING, "Fig. 3 prints no numbers"),
    "pt-ft-sota-x32": (FAILS, "CodeFormer's CLIPIQA 0.6470 is above PT's 0.6327"),
    "video-ft-best": (HOLDS, "best in all seven"),
    "real-ft-best": (HOLDS, "best in all four"),
    "table6-one-unit": (MISSING, "a table cannot show what its numbers count"),
}


def test_every_claim_has_a_predicate_and_the_other_way_round():
    assert [c.id for c in paper.claims()] == list(PAPER) and set(predicates()) == set(PAPER)
    assert all(c.where and c.claim for c in paper.claims())


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_numbers_decide_its_own_claims(name):
    found = judge(name, PaperResults())
    assert found.verdict == PAPER[name][0], (found, PAPER[name][1])
    assert found.evidence


@pytest.mark.parametrize("cell,value,name,verdict", [
    (("celebref-hq", "16", "dpi", "ids"), 0.36, "ft-best-x16", FAILS),
    (("celebref-hq", "16", "idfsr-ft", "ids"), 0.5227, "ft-beats-pt-ids", UNSURE),
    (("celebref-hq", "8", "asffnet", "fid"), 26.70, "ft-best-x8-but-fid", FAILS),
    (("celebref-hq", "16", "pgdiff", "idv_percent"), 50.1, "most-baselines-idv-below-50", FAILS),
    (("rtx3090", "", "difface", "total_s"), 6.0, "twenty-steps", FAILS),
    (("celebref-hq", "32", "codeformer", "clipiqa"), 0.63, "pt-ft-sota-x32", HOLDS),
])
def test_another_number_gives_another_verdict(monkeypatch, cell, value, name, verdict):
    from fsrbench.reports.gate import evidence

    changed = {**paper.cells(), cell: paper.Published(value, paper.cells()[cell].quantity, "")}
    monkeypatch.setattr(evidence, "cells", lambda: changed)
    assert judge(name, PaperResults()).verdict == verdict


def test_each_claim_has_a_command_that_measures_it(invoke):
    known = invoke("--list", check=0).stdout
    for claim in paper.claims():
        names = _commands(claim.where)
        assert names and all(f"  {name.split()[0]} " in known for name in names), claim.where


def test_evidence_names_the_numbers_that_decided():
    found = judge("pt-pixel-sota-x16", PaperResults())
    assert found.evidence == ("psnr ×16: idfsr-pt 23.32, dpi 23.48; "
                              "lpips ×16: idfsr-pt 0.2062, dpi 0.1997")
    assert judge("ids-ft-best-x4",
                 PaperResults()).evidence.endswith("(without stablesr ×4, dpi ×4)")


# --- published numbers ----------------------------------------------------------------------------


def test_published_numbers_have_unit_direction_and_rounding():
    found = paper.find("celebref-hq", 16, "idfsr-ft", "psnr")
    assert (found.value, found.quantity.unit, found.quantity.direction,
            found.table) == (24.09, "dB", 1, "table1")
    assert {c.quantity.metric for c in paper.cells().values()} == set(paper.quantities())
    # a tolerance is half a unit of the last printed digit, or more
    for c in paper.cells().values():
        assert c.value == pytest.approx(round(c.value, c.quantity.digits), abs=1e-9)
    assert paper.find("rtx3090", "", "stablesr", "flops_g").bound == "at least"
    assert paper.published("rtx3090", "", "stablesr", "flops_g") is None
    for metric in ("psnr", "ssim", "lpips", "fid", "clipiqa", "musiq", "ids"):
        ours = next(m for m in family(metric) if m.paper == metric)
        assert ours.direction == paper.quantities()[metric].direction


def test_facts_are_read_with_what_the_paper_leaves_open():
    facts = paper.facts()
    assert float(facts["mine_id_style"].value) == 0.186 and facts["sampler_steps"].where == "3.3"
    assert "586" in facts["cca_mean_max"].note


@pytest.mark.parametrize("low,mean,high,comparable,expected", [
    (28.4, 28.6, 29.3, True, "within"), (27.0, 28.85, 30.7, True, "cannot tell"),
    (27.0, 28.0, 29.0, True, "cannot tell"),
    (27.0, 28.0, 28.80, True, "differs"), (28.855, 29.0, 30.0, True, "cannot tell"),
    (28.86, 29.0, 30.0, True, "differs"),
    (28.86, 28.9, 28.95, True, "within"), (math.nan, 28.852, math.nan, True, "cannot tell"),
    (math.nan, 20.0, math.nan, True, "cannot tell"), (27.0, 28.0, 29.0, False, "not comparable"),
    (math.nan, math.nan, math.nan, True, "")])
def test_verdict_of_a_cell(low, mean, high, comparable, expected):
    found = paper.find("celebref-hq", 8, "idfsr-ft", "psnr")
    assert paper.verdict(Summary(mean, low, high, 9, 0), found, comparable) == expected
    assert paper.verdict(None, found, comparable) == paper.verdict(Summary(1, 1, 1, 1, 0), None,
                                                                   comparable) == ""


def test_verdict_in_percent():
    found = paper.find("celebref-hq", 16, "idfsr-ft", "idv_percent")
    assert paper.verdict(Summary(0.9, 0.86, 0.94, 9, 0), found, True, 100) == "within"
    assert paper.verdict(Summary(0.9, 0.70, 0.99, 9, 0), found, True, 100) == "cannot tell"
    assert paper.verdict(Summary(0.9, 0.86, 0.94, 9, 0), found, True) == "differs"


# --- answers --------------------------------------------------------------------------------------


def test_logic_of_answers():
    h, f, u, m = (Finding(a, a[:4]) for a in (HOLDS, FAILS, UNSURE, MISSING))
    assert [all_of(parts).answer for parts in ([h, h], [h, u], [h, u, m],
                                               [h, u, m, f])] == [HOLDS, UNSURE, MISSING, FAILS]
    assert [any_of(parts).answer for parts in ([f, f], [f, u], [f, u, m],
                                               [f, u, m, h])] == [FAILS, UNSURE, MISSING, HOLDS]
    assert opposite(h).answer == FAILS and opposite(u).answer == UNSURE
    assert all_of([h, f, f]).text == "does"


def test_a_number_against_a_range():
    answers = [between(e, 0, 1, "{}").answer for e in (Estimate(.5, .4, .6), Estimate(.9, .8, 1.1),
                                                       Estimate(2, 1.5, 3), None,
                                                       Estimate(.5, math.nan, math.nan))]
    assert answers == [HOLDS, UNSURE, FAILS, MISSING, UNSURE]


def fake(values, metrics=("psnr", "ids.cosine@dlib", "idv.0.07@dlib"), people=12, oracle=(),
         failed=()):
    """An outcome of {(method's paper name, scale, metric id): per-sample values}; `failed` names
    (method, scale, sample)."""
    methods = {name: SimpleNamespace(name=f"{name}.mini", paper=name,
                                     needs=frozenset(["oracle"] * (name in oracle)))
               for name, _, _ in values}
    n = len(next(iter(values.values())))
    samples = [SimpleNamespace(id=f"s{i}", person=f"p{i * people // n}") for i in range(n)]
    rows = []
    for (name, scale, metric), of in values.items():
        lost = [i for m, s, i in failed if (m, s) == (name, scale)]
        rows += [{"method": f"{name}.mini", "scale": scale, "metric": "restored", "sample": s.id,
                  "value": np.nan,
                  "status": "failed: x" if i in lost else "ok"} for i, s in enumerate(samples)]
        rows += [{"method": f"{name}.mini", "scale": scale, "metric": metric, "sample": s.id,
                  "value": v, "status": "ok"}
                 for i, (s, v) in enumerate(zip(samples, of)) if i not in lost]
    return SimpleNamespace(
        records=pd.DataFrame(rows), unavailable={},
        samples=SimpleNamespace(samples=samples, source=SimpleNamespace(name="orl")),
        cells=[SimpleNamespace(method=methods[name], scale=scale) for name, scale, _ in values],
        options=SimpleNamespace(metrics=tuple(m for name in metrics for m in family(name)),
                                profile=SimpleNamespace(name="mini")))


IDS = "ids.cosine@dlib"


def curves(rng, shift, noise=0.002, scales=(4, 8, 16, 32)):
    """IDS of PT, and of FT lower by `shift` with little noise: paired differences see what separate
    intervals do not."""
    base = np.repeat(rng.normal(0.3, 0.1, 12), 4) + rng.normal(0, 0.02, 48)
    values = {}
    for scale in scales:
        values["idfsr-pt", scale, IDS] = base
        values["idfsr-ft", scale, IDS] = base - shift + rng.normal(0, noise, 48)
    return values


@pytest.mark.parametrize("shift,noise,expected", [(0.01, 0.002, HOLDS), (-0.01, 0.002, FAILS),
                                                  (0.0005, 0.05, UNSURE)])
def test_our_records_are_judged_by_paired_differences(shift, noise, expected):
    values = curves(np.random.default_rng(0), shift, noise)
    view = OurResults(fake(values), {})
    assert judge("ft-beats-pt-ids", view).verdict == expected
    people = [f"p{i // 4}" for i in range(48)]
    apart = [tells_apart(values["idfsr-ft", s, IDS], values["idfsr-pt", s, IDS], people)
             for s in (4, 8, 16, 32)]
    assert any(apart) == (expected != UNSURE)


def test_a_scale_that_was_not_run_is_not_measured_unless_another_refutes():
    rng = np.random.default_rng(0)
    assert judge("ft-beats-pt-ids", OurResults(fake(curves(rng, 0.01, scales=(8, 16))),
                                               {})).verdict == MISSING
    found = judge("ft-beats-pt-ids", OurResults(fake(curves(rng, -0.01, scales=(8, 16))), {}))
    assert found.verdict == FAILS and "×8" in found.evidence
    assert found.evidence.endswith("idfsr-pt ×4 ×32)")


def test_rows_with_failures_and_rows_that_saw_the_truth_do_not_count():
    rng = np.random.default_rng(0)
    values = {(name, 16, "psnr.rgb"): rng.normal(level, 0.1, 48) for name, level in
              (("idfsr-pt", 20), ("dpi", 19), ("asffnet", 25), ("dmdnet", 26))}
    view = OurResults(fake(values, oracle=("dmdnet",), failed=[("asffnet", 16, 3)]), {})
    found = view.best("idfsr-pt", 16, "psnr", ("dpi", "asffnet", "dmdnet"))
    assert found.answer == HOLDS and "dpi 19" in found.text
    assert view.absent == ["asffnet ×16 (1 of 48 failed)", "dmdnet"]
    assert view.best("asffnet", 16, "psnr", ("dpi",)).answer == MISSING
    assert view.best("idfsr-pt", 16, "psnr", ("stablesr",)).answer == MISSING


def test_percentages_are_in_the_paper_s_unit_and_rates_at_the_edge_cannot_be_told():
    rates = {"codeformer": 0.9, "pgdiff": 0.1, "dr2": 0.5, "difface": 0.1}
    values = {(m, 16, "idv.0.07@dlib"): np.tile([1.0] * round(10 * r) + [0.0] * round(10 * (1 - r)),
                                                12)
              for m, r in rates.items()}
    rng = np.random.default_rng(1)
    for key in values:
        rng.shuffle(values[key])
    found = judge("most-baselines-idv-below-50", OurResults(fake(values), {}))
    assert found.verdict == UNSURE and "2 of 4 below 50 %" in found.evidence
    assert "dr2 50.0" in found.evidence


def test_other_data_sets_of_the_paper_are_not_stood_in_for():
    view = OurResults(fake(curves(np.random.default_rng(0), 0.01)), {})
    assert view.value(Cell("idfsr-ft", 16, "ids")) is not None
    assert view.value(Cell("idfsr-ft", 16, "ids", "celebv-text")) is None


# --- named results --------------------------------------------------------------------------------


def test_results_are_kept_by_name_and_profile(tmp_path):
    store = Store(tmp_path)
    put_result(store, "mini", Result("ablation/case4/ids-default", "k", 0.02, 0.01, 0.03, 59,
                                     "paired"))
    put_result(store, "mini", Result("ablation/case4/ids-default", "k2", 0.04, 0.03, 0.05, 59))
    put_result(store, ALL, Result("table6/dpi/step_ms", "k", 50.0))
    found = results(store, "mini")
    assert found["ablation/case4/ids-default"].value == 0.04
    assert math.isnan(found["table6/dpi/step_ms"].low)
    assert set(results(store, "paper")) == {"table6/dpi/step_ms"}
    for bad in (Result("../x", "k", 1.0), Result("X", "k", 1.0), Result("x", "k", math.nan)):
        with pytest.raises(FsrError):
            put_result(store, "mini", bad)
    (tmp_path / "results" / "mini" / "broken.json").write_text("{")
    with pytest.raises(FsrError, match="damaged"):
        results(store, "mini")


@pytest.mark.parametrize("name,scalars,expected", [
    ("id-style-independent", {"mine_id_style": (.2, .1, .3), "mine_id_id": (2, 1.8, 2.2),
                              "mine_style_style": (1, .9, 1.1),
                              "cca_mean": (.15, .14, .16)}, HOLDS),
    ("id-style-independent", {"mine_id_style": (.2, .1, .3), "mine_id_id": (2, 1.8, 2.2),
                              "mine_style_style": (1, .9, 1.1), "cca_mean": (.7, .69, .71)}, FAILS),
    ("case4-id-drops", {"ablation/case4/ids-default": (.02, .01, .03)}, HOLDS),
    ("case4-id-drops", {"ablation/case4/ids-default": (.02, -.01, .05)}, UNSURE),
    ("more-references-help", {"references/2-5/ids": (-.05, -.06, -.04),
                              "references/5-10/ids": (-.01, -.02, .0)}, HOLDS),
    ("more-references-help", {"references/2-5/ids": (-.02, -.03, -.01),
                              "references/5-10/ids": (-.05, -.06, -.04)}, FAILS),
    ("step-overhead", {"table6/idfsr/step_ms": (100, 99, 101), "table6/dpi/step_ms": (64, 63, 65)},
     FAILS),
    ("table6-one-unit", {f"table6/{m}/{q}": (v, v, v)
                         for m, v in (("pgdiff", 159.7), ("idfsr", 168.5))
                         for q in ("counted_m", "thop_params_m")}, FAILS),
    ("reference-degradation", {"degraded-reference/mild/ids": (.01, .0, .02),
                               "degraded-reference/severe/ids": (.2, .15, .25)}, HOLDS),
    ("crossid-transfer", {"crossid/towards-a/ids": (.1, .05, .15)}, HOLDS),
    ("warp-imprecision", {"warp/jittered/ids": (.15, .12, .2)}, FAILS),
    ("case1-consistency",
     {**{f"ablation/{c}/{m}": (1, .9, 1.1) for c in ("default", *(f"case{i}" for i in range(2, 6)))
                              for m in ("psnr", "ssim")}, "ablation/case1/psnr": (2, 1.9, 2.1),
                           "ablation/case1/ssim": (2, 1.9, 2.1),
      "ablation/case1/lpips-default": (.1, .05, .2)}, HOLDS),
])
def test_claims_of_named_results(name, scalars, expected):
    kept = {n: Result(n, "k", *v) for n, v in scalars.items()}
    assert judge(name, OurResults(fake(curves(np.random.default_rng(0), 0.01)),
                                  kept)).verdict == expected


# --- the command ----------------------------------------------------------------------------------


def test_audit_reads_what_is_there_and_computes_nothing(quick_plan, tmp_path):
    from fsrbench.engine.run import Run
    from fsrbench.reports.gate.audit import gather

    store = Store(tmp_path)
    plan = quick_plan(methods=("bicubic", "codeformer"))
    empty = gather(plan, store)
    assert empty.missing and not len(empty.records)
    assert {a.ours.verdict for a in audit(empty, store)} == {MISSING}
    Run(plan, store).execute()
    before = sorted(p.name for p in (tmp_path / "rows").iterdir())
    assert gather(plan, store).missing == 0 and sorted(p.name for p in (tmp_path / "rows")
                                                       .iterdir()) == before


def test_the_command_writes_verdicts(invoke, tmp_path):
    words = ("--people", 2, "--method", "bicubic", "--store", tmp_path / "store", "--out",
             tmp_path / "out")
    done = invoke("claims", *words, check=0)
    assert done.stdout.strip() == (tmp_path / "out" / "claims.md").read_text().strip()
    found = json.loads((tmp_path / "out" / "claims.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out" / "claims.csv").open()))
    assert [f["claim"]["id"] for f in found] == [r["id"] for r in rows] == list(PAPER)
    assert [f["paper"]["verdict"] for f in found] == [v for v, _ in PAPER.values()]
    assert not (tmp_path / "store" / "rows").exists()
    assert "`invoke figure --n 14`" in done.stdout and "`invoke table6`" in done.stdout
    done = invoke("claims", *words[:2], "--method", "bicubix", *words[4:], check=2)
    assert len(done.stderr.strip().splitlines()) == 1 and "did you mean 'bicubic'" in done.stderr
