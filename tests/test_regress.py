"""The gate: planted faults that it must catch, through the command line, and acceptance with its
log."""

import csv
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from fsrbench.engine.provenance import platform_here
from fsrbench.engine.stats import Summary
from fsrbench.engine.tolerance import chaotic_tolerance, spread_of, tolerance
from fsrbench.errors import FsrError
from fsrbench.metrics import family
from fsrbench.proof import calibration
from fsrbench.reports.gate import goldens
from fsrbench.reports.gate.audit import Audit, Judgement
from fsrbench.reports.gate.goldens import FAILED, OK, SKIPPED, Golden
from fsrbench.reports.paper.published import Claim
from fsrbench.reports.tables.comparisons import TABLE1
from fsrbench.weights.catalogue import bundled_folder, cache_folder

QUICK = ("--people", 2, "--scale", 8, "--method", "bicubic", "--method", "codeformer", "--batch",
         10)


def cached(folder: Path) -> Path:
    """A cache of weights with links to what this machine's cache holds."""
    folder.mkdir()
    for path in cache_folder().glob("*"):
        (folder / path.name).symlink_to(path.resolve())
    return folder


@pytest.fixture(scope="module")
def accepted(invoke, tmp_path_factory):
    """A store, goldens accepted from it, and the words of the command."""
    root = tmp_path_factory.mktemp("regress")
    (root / "fixtures").mkdir()
    shutil.copy(ROOT / "tests" / "parity" / "degradation-a.npz", root / "fixtures")
    words = (*QUICK, "--store", root / "store", "--out", root / "out", "--goldens", root / "goldens"
             / "mini.csv", "--fixtures", root / "fixtures")
    invoke("regress", *words, "--accept", "--reason", "the first ones", check=0)
    return SimpleNamespace(root=root, words=words, goldens=root / "goldens" / "mini.csv",
                           out=root / "out")


def cases(out: Path) -> list:
    """(suite, name, "failure", "skipped" or "") of each JUnit test case; the counts of the suites
    must agree."""
    found = []
    root = ElementTree.parse(out / "regress.xml").getroot()
    for suite in root:
        kinds = [next((c.tag for c in case if c.tag != "system-out"), "") for case in suite]
        assert [len(kinds), kinds.count("failure"), kinds.count("skipped")] == [
            int(suite.get(k)) for k in ("tests", "failures", "skipped")]
        found += [(suite.get("name"), case.get("name"), kind) for case, kind in zip(suite, kinds)]
    assert [len(found), sum(k == "failure" for *_, k in found)] == [int(root.get(k))
                                                                    for k in ("tests", "failures")]
    return found


def failures(out: Path) -> set:
    return {(suite, name) for suite, name, kind in cases(out) if kind == "failure"}


def cells():
    """How many cells a table of the two methods has here."""
    return 2 * sum(not m.missing(64) for name in TABLE1.metrics for m in family(name))


def test_what_was_accepted_holds(accepted, invoke):
    done = invoke("regress", *accepted.words, check=0)
    assert "all checks hold" in done.stdout
    assert done.stdout.strip() == (accepted.out / "regress.md").read_text().strip()
    found = cases(accepted.out)
    assert {suite for suite, *_ in found} == {"goldens", "claims", "paper", "weights", "fresh",
                                              "parity", "calibration"}
    with open(accepted.goldens) as handle:
        kept = len(list(csv.DictReader(handle)))
    assert sum(suite == "goldens" for suite, *_ in found) == kept == cells() >= 2 * 7
    assert not failures(accepted.out) and ("parity", "degradation-a", "") in found


def test_an_edited_number_is_caught(accepted, invoke, tmp_path):
    folder = shutil.copytree(accepted.goldens.parent, tmp_path / "goldens")
    rows = list(csv.DictReader((folder / "mini.csv").open()))
    edited = next(r for r in rows if r["method"] == "codeformer.mini" and r["metric"]
                  .startswith("lpips"))
    edited["value"] = str(float(edited["value"]) + 3 * float(edited["tolerance"]))
    with open(folder / "mini.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    words = [folder / "mini.csv" if w == accepted.goldens else tmp_path / "out" if w == accepted.out
             else w for w in accepted.words]
    done = invoke("regress", *words)
    assert done.returncode == 1 and "error: 1 checks failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert failures(tmp_path / "out") == {("goldens", f"codeformer.mini ×8 {edited['metric']}")}
    assert "the method did not change" in done.stdout


def test_a_flipped_weight_is_caught(accepted, invoke, tmp_path):
    """One number of the last convolution, in a copy of the weights that the cache offers before the
    repository's."""
    from safetensors.torch import load_file, save_file

    state = load_file(bundled_folder() / "codeformer-mini.safetensors")
    flat = state["generator.conv_out.weight"].view(-1)
    worst = flat.abs().argmax()
    flat[worst] = -flat[worst]
    save_file(state, cached(tmp_path / "cache") / "codeformer-mini.safetensors")
    words = [tmp_path / "out" if w == accepted.out else w for w in accepted.words]
    done = invoke("regress", *words, check=1, FSRBENCH_CACHE=str(tmp_path / "cache"))
    found = failures(tmp_path / "out")
    assert {("goldens", "codeformer.mini ×8 lpips.alex@0.1.4"),
            ("weights", "codeformer-mini")} <= found
    assert "the method changed" in done.stdout and not any("bicubic" in name for _, name in found)


@pytest.fixture
def edited_copy(tmp_path):
    """A copy of the code in which SSIM's first constant is wrong; run it as a user would in that
    folder."""
    for folder in ("harness", "methods", "datasets", "reports"):
        left_out = shutil.ignore_patterns("__pycache__",
                                          *(["weights"] if folder == "methods" else []))
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=left_out)
    (tmp_path / "methods" / "weights").symlink_to(bundled_folder())
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    for name in ("tasks.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "fsrbench").symlink_to(tmp_path / "harness")
    pixel = tmp_path / "harness" / "metrics" / "pixel.py"
    text = pixel.read_text()
    assert "0.01**2" in text
    pixel.write_text(text.replace("0.01**2", "0.02**2"))
    return tmp_path


def test_a_metric_s_bug_is_caught_and_the_page_says_what_changed(accepted, edited_copy):
    words = [edited_copy / "out" if w == accepted.out else w for w in accepted.words]
    done = subprocess.run([sys.executable, "-m", "invoke", "regress", *map(str, words)],
                          cwd=edited_copy, text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(edited_copy / "path")})
    assert done.returncode == 1, done.stdout + done.stderr
    assert failures(edited_copy / "out") == {
        ("calibration", f"{metric} of two grey levels") for metric in ("SSIM", "SSIM-Y")}
    page = (edited_copy / "out" / "regress.md").read_text()
    assert ("- ssim.rgb-gauss11: 20 records are new; changed: code of fsrbench.metrics.pixel\n"
            in page)
    assert "- lpips" not in page[page.index("## New records"):page.index("## Claims")]


def test_acceptance_is_refused_where_a_metric_is_wrong(accepted, monkeypatch):
    from fsrbench.engine.options import open_store, plan
    from fsrbench.reports.gate import regress

    wrong = replace(calibration.CALIBRATIONS[0], expected=1.0)
    monkeypatch.setattr(calibration, "run", lambda: [calibration.Result(wrong, 24.0)])
    options = plan("mini", None, ["8"], ["bicubic", "codeformer"], TABLE1.metrics, "2", None, "10")
    with pytest.raises(FsrError, match="1 other checks fail, first calibration PSNR"):
        regress.accept(options, open_store(accepted.root / "store"), accepted.root / "fixtures",
                       accepted.goldens, "better")
    assert len((accepted.goldens.parent / "log.jsonl").read_text().splitlines()) == 1
    with pytest.raises(FsrError, match="say why with --reason"):
        regress.accept(options, None, None, accepted.goldens, " ")
    options = plan("mini", None, ["8"], ["bicubic"], TABLE1.metrics, "1", None, "10")
    with pytest.raises(FsrError, match=r"other samples .*\d+ images by .*, but \d+ images"):
        regress.regress(options, open_store(accepted.root / "store"), accepted.root / "fixtures",
                        accepted.goldens)


def test_acceptance_needs_a_reason_and_keeps_it(accepted, invoke, tmp_path):
    folder = shutil.copytree(accepted.goldens.parent, tmp_path / "goldens")
    before = (folder / "mini.csv").read_bytes()
    first = json.loads((folder / "log.jsonl").read_text())
    assert first["reason"] == "the first ones" and first["cells"] == cells()
    assert not first["changes"]
    words = [folder / "mini.csv" if w == accepted.goldens else w for w in accepted.words]
    old = (folder / "mini.csv").read_text().splitlines()
    fields = old[1].split(",")
    (folder / "mini.csv").write_text("\n".join([old[0], ",".join([*fields[:3], "1.5", *fields[4:]]),
                                                *old[2:]]) + "\n")
    done = invoke("regress", *words, "--accept", "--reason", "PSNR was wrong")
    assert done.returncode == 0 and "accepted: 1 changes" in done.stdout
    assert (folder / "mini.csv").read_bytes() == before
    entry = json.loads((folder / "log.jsonl").read_text().splitlines()[1])
    change, = entry["changes"]
    assert entry["reason"] == "PSNR was wrong" and change["what"] == "bicubic ×8 psnr.rgb"
    assert change["old"].startswith("1.5 of 10") and change["new"].startswith(fields[3])
    head = subprocess.run(["git", "show", "-s", "--format=%H %cI", "HEAD"], cwd=ROOT, text=True,
                          capture_output=True).stdout
    assert f"{entry['commit']} {entry['date']}" == head.strip() or not head


@pytest.mark.parametrize("more,code,text", [
    (("--method", "bicubix"), 2, "did you mean 'bicubic'"),
    (("--reason", "because"), 2, "--reason: is for --accept"),
    (("--accept",), 2, "say why with --reason"), (("--goldens", "nowhere.csv"), 3, "none there")])
def test_wrong_arguments_end_in_one_line(invoke, tmp_path, more, code, text):
    done = invoke("regress", *QUICK, "--store", tmp_path, *more)
    assert done.returncode == code and text in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


# --- rules ----------------------------------------------------------------------------------------


def golden(**changes) -> Golden:
    return replace(Golden(8, "m", "psnr.rgb", 20.0, 0.01, 10, 10, "", "d", "s"), **changes)


def outcome(**changes):
    plain = {"unavailable": {}, "left_out": {},
             "cells": [SimpleNamespace(method=SimpleNamespace(name="m"), scale=8)],
             "options": SimpleNamespace(lenient=True, scales=(8,))}
    return SimpleNamespace(**{**plain, **changes})


@pytest.mark.parametrize("now,status,text", [
    (golden(value=20.009), OK, "moved +0.009"), (golden(value=19.98), FAILED,
                                                 "method did not change"),
    (golden(value=19.98, digest="e"), FAILED, "the method changed (d to e)"),
    (golden(value=20.0, digest="e"), OK, "d to e"),
    (golden(n_ok=9), FAILED, "10 of 10 had a value, now 9"),
    (golden(value=float("nan")), FAILED, "nan"),
])
def test_a_cell_against_its_golden(now, status, text):
    check, = goldens.judge([golden()], [now], outcome())
    assert check.status == status and text in check.text


def test_a_cell_that_is_gone_or_new_fails_and_one_not_asked_for_does_not():
    assert [c.status for c in goldens.judge([golden()], [], outcome())] == [FAILED]
    left = goldens.judge([golden()], [], outcome(left_out={"m": "weights m: missing"}))
    assert left[0].status == FAILED and "weights m: missing" in left[0].text
    assert [c.status for c in goldens.judge([], [golden()], outcome())] == [FAILED]
    assert goldens.judge([golden()], [],
                         outcome(unavailable={"psnr.rgb": "why"}))[0].status == SKIPPED
    fewer = outcome(options=SimpleNamespace(lenient=False, scales=(8,)))
    assert goldens.judge([golden(method="x")], [], fewer)[0].status == SKIPPED
    assert goldens.judge([golden(scale=16)], [], outcome())[0].status == SKIPPED
    with pytest.raises(FsrError, match="other samples"):
        goldens.judge([golden()], [golden(samples="t")], outcome())


def test_what_was_within_the_paper_s_interval_stays_there():
    was = golden(paper="within")
    assert goldens.judge([was], [golden(paper="within")], outcome())[0].status == OK
    assert goldens.judge([was], [golden(paper="differs")], outcome())[0].status == FAILED
    assert goldens.judge([golden(paper="differs")], [was], outcome())[0].status == OK


@pytest.mark.parametrize("before,now,whole,status", [
    ("holds", "holds", True, OK), ("holds", "does not hold", True, FAILED),
    ("holds", "cannot tell", True, FAILED),
    ("holds", "not measured", True, SKIPPED), ("holds", "does not hold", False, SKIPPED),
    ("does not hold", "holds", True, OK), ("cannot tell", "does not hold", True, OK)])
def test_a_claim_that_held_must_hold(before, now, whole, status):
    seen = Audit(Claim("x", "Table 1", "text"), Judgement("holds", ""), Judgement(now, "numbers"))
    assert goldens.judge_claims({"x": {"paper": "holds", "ours": before}}, [seen],
                                whole)[0].status == status
    assert goldens.judge_claims({"x": {"paper": "does not hold", "ours": now}}, [seen],
                                whole)[0].status == FAILED
    assert goldens.judge_claims({}, [seen], whole)[0].status == FAILED


def test_a_claim_on_times_fails_no_gate():
    from fsrbench.reports.gate.claims import predicates

    assert set(goldens.TIMES) <= set(predicates())
    seen = Audit(Claim("twenty-steps", "Table 6", "text"), Judgement("holds", ""),
                 Judgement("does not hold", "numbers"))
    check, = goldens.judge_claims({"twenty-steps": {"paper": "holds", "ours": "holds"}}, [seen],
                                  True)
    assert check.status == goldens.SKIPPED and "belongs to the machine" in check.text


def test_tolerance_is_of_arithmetic_and_of_whole_samples_and_blocks():
    psnr, verified, piqe = family("psnr")[0], family("idv.0.07@dlib")[0], family("piqe")[0]
    assert tolerance(psnr, 20.0, 59) == pytest.approx(20 * 3.3e-4)
    assert tolerance(verified, 0.5, 59) == 1 / 59
    assert tolerance(piqe, 26.0, 59) == pytest.approx(26 * 3.3e-4 + 100 / 17 / 59)
    # A gap of next to nothing is a difference of cosines that are not.
    assert tolerance(psnr, -2e-6, 59, 0.01) == pytest.approx(0.01 * 3.3e-4)
    assert tolerance(psnr, 20.0, 59, 0.01) == tolerance(psnr, 20.0, 59)


def summary(mean: float, reach: float) -> Summary:
    return Summary(mean, mean - reach, mean + reach, 59, 0)


def chaotic(spread: float):
    """A method whose images the last bit decides, as a class may declare it."""
    return SimpleNamespace(name="m", spread=spread) if spread else SimpleNamespace(name="m")


def row_of(mean: float, spread: float, column) -> Golden:
    """What the gate keeps of a cell of a mean, half an interval of 0.3."""
    row = SimpleNamespace(method="m", n_ok=59, n_failed=0, values={
        column.id: SimpleNamespace(summary=summary(mean, 0.3), verdict="")})
    table = SimpleNamespace(blocks={8: [row]}, columns=[column], degradation="bicubic")
    made = outcome(cells=[SimpleNamespace(method=chaotic(spread), scale=8)],
                   samples=SimpleNamespace(digest="d" * 64),
                   options=SimpleNamespace(seed=0, precision="float32", lenient=True, scales=(8,)))
    found, = goldens.current(table, made, SimpleNamespace(method_digest=lambda method: "e" * 64))
    return found


def test_a_row_that_last_bits_decide_may_move_by_what_was_measured_and_no_further():
    psnr = family("psnr")[0]
    plain, moves = row_of(20.0, 0.0, psnr), row_of(20.0, 0.8, psnr)
    assert plain.tolerance == tolerance(psnr, 20.0, 59)
    assert moves.tolerance == pytest.approx(plain.tolerance + 0.8 * 0.3)
    for golden, value, status in ((moves, 20.2, OK), (moves, 19.8, OK), (plain, 20.2, FAILED),
                                  (moves, 20.3, FAILED), (moves, 19.7, FAILED)):
        check, = goldens.judge([golden], [replace(golden, value=value)], outcome())
        assert check.status == status, check.text


def test_without_an_interval_a_spread_allows_nothing():
    assert chaotic_tolerance(summary(20.0, 0.5), 0.4) == pytest.approx(0.2)
    assert chaotic_tolerance(summary(20.0, 0.5), spread_of(chaotic(0.0))) == 0
    assert chaotic_tolerance(Summary(20.0, float("nan"), float("nan"), 4, 0), 0.4) == 0


@pytest.mark.parametrize("spread, device, status, text", [
    (0.8, None, FAILED, "levels change"), (0.8, "another GPU", SKIPPED, "made with other device"),
    (0.0, "another GPU", FAILED, "levels change")])
def test_an_image_restored_again_may_differ_only_from_another_machine_s(
        tmp_path, spread, device, status, text):
    """And only of a method whose images the last bit decides; a small change is none."""
    from fsrbench.reports.gate import regress

    facts = platform_here() | ({"device": device} if device else {})
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r.json").write_text(json.dumps(facts))
    sample, kept = SimpleNamespace(id="a"), np.full((4, 4, 3), 100, np.uint8)
    records = pd.DataFrame([{"method": "m", "scale": 8, "metric": "restored", "status": "ok",
                             "sample": "a", "image": "i", "run": "r"}])
    store = SimpleNamespace(root=tmp_path, image=lambda digest: kept)
    cell = SimpleNamespace(method=chaotic(spread), scale=8)

    def check(image):
        return regress._restored_again(SimpleNamespace(
            run=SimpleNamespace(again=lambda cell, chunk: ([image], [""])),
            outcome=SimpleNamespace(records=records, measures=SimpleNamespace(store=store),
                                    samples=SimpleNamespace(samples=[sample]))), cell)
    found = check(kept + 9)
    assert found.status == status and text in found.text
    assert check(kept).status == OK


def test_calibrations_hold_and_can_fail(monkeypatch):
    assert all(r.ok for r in calibration.run())
    assert {c.metric.split(".")[0]
            for c in calibration.CALIBRATIONS} == {"psnr", "ssim", "psnr-y", "ssim-y", "lpips",
                                                   "fd", "kd",
                                                                         "ids", "idv"}
    wrong = [replace(c, expected=c.expected + 2 * c.tolerance + 1e-3)
             for c in calibration.CALIBRATIONS]
    assert not any(r.ok for r in calibration.run(tuple(wrong)))
    broken = replace(calibration.CALIBRATIONS[0], measure=lambda function: 1 / 0)
    result, = calibration.run((broken,))
    assert not result.ok and "ZeroDivisionError" in result.error


def test_workflow_runs_the_commands_that_exist(invoke):
    text = (ROOT / ".github" / "workflows" / "regress.yml").read_text()
    assert 'pip install -e ".[test]"' in text and "upload-artifact" in text
    assert "index-url" not in text
    listed = invoke("--list", check=0).stdout
    for line in (w for w in text.splitlines() if "run: invoke" in w):
        assert line.split("invoke ")[1].split()[0] in listed
