"""Table 6: counts against the paper's own figures, and against counts made another way."""

import csv
import math

import pytest
import torch

from fsrbench import registry
from fsrbench.core import Part
from fsrbench.profiles import PROFILES
from fsrbench.proof.complexity import Cost, Count, cost, count, seconds
from fsrbench.reports.tables import table6


def test_counts_of_a_network_that_can_be_counted_by_hand():
    def build():
        return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.GroupNorm(4, 8),
                                   torch.nn.Conv2d(8, 2, 1))
    part = Part("none", build, lambda: (torch.zeros(1, 3, 10, 10),))
    macs = 100 * 8 * 27 + 100 * 2 * 8
    assert count(part) == Count(3 * 8 * 9 + 8 + 16 + 8 * 2 + 2, macs, 3 * 8 * 9 + 8 + 8 * 2 + 2,
                                macs)
    assert seconds(part, 1) > 0


@pytest.fixture(scope="module")
def costs():
    return table6.gather(timed=False)


@pytest.mark.full
def test_the_paper_s_figures_come_out_of_the_counts(costs):
    found = {(r["method"], r["quantity"]): r for r in table6.rows(costs)}
    verdicts = {key: r["verdict"] for key, r in found.items() if r["verdict"]}
    for method in ("pgdiff.official", "dr2.official", "difface.official"):
        assert verdicts[method, "thop_params_m"] == verdicts[method,
                                                             "thop_gmacs"] == "reproduced", method
    assert verdicts["idfsr.pt", "counted_mi"] == verdicts["stablesr.official",
                                                          "counted_m"] == "reproduced"
    assert found["stablesr.official", "counted_m"]["ours"] == 918.930884
    assert [verdicts[key] for key in (("dpi.official", "thop_params_m"),
                                      ("dpi.official", "thop_gmacs"),
                                      ("idfsr.pt", "thop_gmacs"),
                                      ("dr2.official", "nfe"))] == ["not reproduced"] * 4
    assert found["idfsr.pt", "counted_mi"]["ours"] * 2**20 == 168_495_747
    assert {m: found[m, "nfe"]["ours"] for m in costs} == {
        "stablesr.official": 50,
        "pgdiff.official": 100, "dr2.official": 31, "difface.official": 100, "dpi.official": 20,
        "idfsr.pt": 20}
    # specs: true multiply-accumulates of the priors at their own size, and parameters of
    # everything.
    macs = {role: costs[m].counts[role].macs / 1e9 for m, role in (("dpi.official", "prior"),
                                                                   ("pgdiff.official", "restorer"))}
    assert round(macs["prior"], 2) == 193.97 and round(macs["restorer"], 2) == 295.04
    assert costs["difface.official"].counts["prior"].parameters == 159_788_454
    assert costs["dr2.official"].parameters == 93_563_910 + 85_793_412


@pytest.mark.full
def test_files_and_notes(costs, tmp_path, monkeypatch):
    monkeypatch.setattr(table6, "gather", lambda timed: costs)
    md, tidy, page = table6.table6(tmp_path, timed=False)
    rows = list(csv.DictReader(tidy.open()))
    assert {r["method"] for r in rows} == set(costs) and {"quantity", "ours", "paper",
                                                          "verdict"} <= rows[0].keys()
    text = md.read_text()
    assert "160.7 ✓" in text and "145.53 ✗" in text and "prior ×31, enhancer ×1" in text
    assert "<table class" in page.read_text()
    assert "http" not in page.read_text().split("</style>")[1]


def test_time_is_of_calls_and_ratios_are_to_idfsr():
    method = registry.get("dpi.official")(PROFILES["paper"])
    one = Cost(method, {role: Count(1, 1.0, 1, 1.0) for role in method.parts},
               {"prior": 20, "corrector": 19}, {"prior": 2.0, "corrector": 0.5})
    assert one.step_seconds == 2.5 and one.total_seconds == 49.5 and one.nfe == 20
    assert one.total_macs == 39
    base = registry.get("idfsr.pt")(PROFILES["paper"])
    other = Cost(base, {role: Count(1, 1.0, 1, 1.0) for role in base.parts},
                 {"network": 20, "encoder": 1, "E_id": 1},
                 {"network": 5.0, "encoder": 1.0, "E_id": 0.0})
    rows = {(r["method"], r["quantity"]): r
            for r in table6.rows({"dpi.official": one, "idfsr.pt": other})}
    assert rows["dpi.official", "step_ratio"]["ours"] == 0.5
    assert rows["dpi.official", "total_ratio"]["ours"] == 49.5 / 101
    assert math.isclose(rows["dpi.official", "step_ratio"]["paper"], 50 / 54)
    assert other.parameters == 2, "the encoder lies within the network"


def test_mini_methods_are_counted_too():
    c = cost(registry.get("dr2.mini")(PROFILES["mini"]), 8)
    assert c.calls == {"prior": 26, "enhancer": 1} and 1e6 < c.parameters < 1e7


@pytest.mark.full
def test_the_command(costs, invoke, tmp_path, monkeypatch):
    monkeypatch.setattr(table6, "gather", lambda timed: {} if timed else costs)
    done = invoke("table6", "--no-times", "--out", tmp_path / "out", "--store", tmp_path / "store",
                  check=0)
    assert "PGDiff" in done.stdout.splitlines()[2]
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {".md", ".csv", ".html"}
