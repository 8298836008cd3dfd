"""What a table says of the judges of identity: whom they have met, and whether they agree."""

from dataclasses import replace

import numpy as np
import pytest

from fsrbench import registry
from fsrbench.engine.options import plan
from fsrbench.engine.run import Run
from fsrbench.engine.stats import Summary
from fsrbench.metrics import family
from fsrbench.profiles import PROFILES
from fsrbench.reports.tables import judges
from fsrbench.reports.tables.render import latex, markdown
from fsrbench.reports.tables.table import Row, Value, build

GAPS = ("gap.people-truthpoints@sface", "gap.people-truthpoints@dlib")


def method(name):
    registry.load()
    return registry.get(name)(PROFILES["mini"])


def test_a_judge_is_seen_by_network_by_card_or_by_declaration():
    both = f"{judges.CONDITIONS} and {judges.TRAINED}"
    assert judges.seen_by(method("idfsr.ft")) == {"sface": both}
    assert judges.seen_by(method("pgdiff.mini-ref")) == {"sface": judges.CONDITIONS}
    assert judges.seen_by(method("pulse.official-prior-id")) == {"sface": judges.CONDITIONS}
    assert judges.seen_by(method("codeformer.mini")) == judges.seen_by(method("bicubic")) == {}
    declared = method("bicubic")
    declared.recognisers = ("frfeature", "arcface-r50")
    assert judges.seen_by(declared) == {"frfeature": judges.TRAINED, "r50": judges.TRAINED}


@pytest.fixture(scope="module")
def table(session_store):
    """Controls and a method that has seen SFace, judged by SFace and dlib."""
    options = plan("mini", "orl", ("16",), ("bicubic", "reference", "idfsr.noref"), GAPS, "2", "0",
                   "20")
    return build(Run(options, session_store).execute(), "t", "T", options.metrics, "celebref-hq")


def test_a_dagger_marks_values_by_a_judge_that_the_method_has_seen(table):
    rows = {row.method: row for row in table.blocks[16]}
    assert {name: [row.values[g].seen for g in GAPS] for name, row in rows.items()} == {
        "bicubic": [False, False], "reference": [False, False], "idfsr.noref": [True, False]}
    line = next(line for line in markdown(table).splitlines() if "w/o reference" in line)
    assert line.count("†") == 1 and r"$\dagger$" in latex(table)
    said = "\n".join(table.notes)
    assert "IDFSR (w/o reference): conditions on and trained with SFace" in said
    assert "chance" not in said  # no rank-1 was asked for
    assert "Scores of SFace and dlib for different people correlate 0." in said
    assert "against the reference sets of all people of the run" in said


def test_a_judge_trained_on_the_data_set_is_named_and_one_alone_gives_no_verdict(session_store):
    options = plan("mini", "orl", ("16",), ("bicubic",), GAPS[:1], "2", "0", "20")
    outcome = Run(options, session_store).execute()
    alone = judges.notes(outcome, options.metrics, {})
    assert any("SFace alone judges identity here" in note for note in alone)
    source = replace(outcome.samples.source, name="casia-webface")
    outcome.samples = replace(outcome.samples, source=source)
    assert "SFace was itself trained on casia-webface." in judges.notes(outcome, options.metrics,
                                                                       {})
    assert judges.notes(outcome, family("psnr"), {}) == []


@pytest.mark.parametrize("leaders, told", [
    (("a", "a"), "agree that a leads"), ((None, None), "tell nobody from the rest"),
    (("a", "b"), "judges disagree: a leads by SFace, b leads by dlib"),
    (("a", None), "judges disagree: a leads by SFace, nobody leads by dlib")])
def test_a_verdict_is_what_two_judges_agree_on(leaders, told):
    metrics, summary = [family(name)[0] for name in GAPS], Summary(0, 0, 0, 9, 0)
    rows = [Row(name, name, "mini", False, 9, 0,
                {m.id: Value(summary, "best" * (name == leader))
                 for m, leader in zip(metrics, leaders)}) for name in ("a", "b")]
    assert told in judges.verdict(rows, *metrics)


def test_scores_of_independent_judges_correlate_less(session_store):
    outcome = Run(plan("mini", "orl", ("16",), ("bicubic",), GAPS, "4", "0", "20"),
                  session_store).execute()
    (pair, r), = judges.correlations(outcome, ("sface", "dlib")).items()
    assert pair == ("sface", "dlib") and 0 < r < 1 and np.isfinite(r)


def test_a_claim_on_identity_is_also_asked_of_the_gap(session_store):
    """A blur against a pasted photograph, as if they were the paper's two methods."""
    from fsrbench.reports.gate import audit
    from fsrbench.reports.gate.evidence import Cell

    options = plan("mini", "orl", ("16",), ("bicubic", "reference"), ("psnr", audit.IDENTITY_BY),
                   "5", "0", "20")
    outcome = Run(options, session_store).execute()
    if outcome.unavailable:
        pytest.skip(str(outcome.unavailable))
    view = audit.ByGap(outcome, {})
    view.methods = {"ft": outcome.cells[1].method, "pt": outcome.cells[0].method}
    assert not view.asked
    found = view.better(Cell("ft", 16, "ids"), Cell("pt", 16, "ids"))
    assert found.answer == "holds" and view.asked
    assert view.better(Cell("pt", 16, "ids"), Cell("ft", 16, "ids")).answer == "does not hold"
    assert view.value(Cell("ft", 16, "psnr")) > 0 > view.value(Cell("ft", 16, "ids"))
    made = {a.claim.id: a.gap for a in audit.audit(outcome, session_store)}
    assert made["ft-beats-pt-ids"].verdict == "not measured"
    assert sum(gap is None for gap in made.values()) > 5


def test_of_few_pairs_of_people_nobody_says_how_independent_judges_are(invoke, album, tmp_path):
    """Two people with one photograph each to be known by: one pair of strangers."""
    import shutil

    shutil.rmtree(album / "s9")
    for image in (2, 4):
        for person in ("s1", "s5"):
            (album / person / f"{image}.pgm").unlink()
    where = ("--data", f"folder:{album}", "--method", "bicubic", "--scale", "16", "--judge", "dlib",
             "--judge", "sface", "--store", tmp_path / "store", "--out", tmp_path)
    for done in (invoke("identity", *where, check=0),
                 invoke("probe", *where, "--probe", "seed", check=0)):
        assert "too few to tell whether they are independent judges" in done.stdout
        assert "correlate" not in done.stdout and "nan" not in done.stdout
        assert "Warning" not in done.stderr


def test_a_correlation_is_of_ten_pairs_or_more():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, judges.PAIRS))
    assert judges.alike(*scores) == pytest.approx(np.corrcoef(*scores)[0, 1])
    assert np.isnan(judges.alike(*scores[:, 1:]))
