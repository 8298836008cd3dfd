"""`invoke identity`: who is this face, on a page."""

import csv

import numpy as np
import pytest

from fsrbench.engine.options import plan
from fsrbench.engine.run import Run
from fsrbench.engine.stats import Summary
from fsrbench.errors import FsrError
from fsrbench.metrics import family
from fsrbench.reports.analysis.identity_figures import cosines
from fsrbench.reports.pages import identity
from fsrbench.reports.tables import judges

JUDGES = ("--judge", "sface", "--judge", "dlib")


def of(low, high):
    return Summary((low + high) / 2, low, high, 9, 0)


def test_an_answer_is_a_whole_interval_and_a_verdict_two_independent_judges():
    assert [identity.answer(of(*ends)) for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))] == [
        identity.PERSON, identity.ANOTHER, identity.NOBODY]
    assert identity.answer(of(np.nan, np.nan)) == ""
    alike = {("a", "b"): 0.5, ("a", "c"): 0.8, ("b", "c"): 0.6}
    both = {"a": identity.PERSON, "b": identity.PERSON, "c": identity.NOBODY}
    assert identity.verdict(both, alike) == identity.PERSON
    # a and c agree, but are of one mind anyway
    kin = {"a": identity.PERSON, "b": identity.NOBODY, "c": identity.PERSON}
    assert identity.verdict(kin, {**alike, ("b", "c"): 0.6}) == identity.DISAGREE
    assert identity.verdict({"a": "", "b": ""}, alike) == ""
    # a and c say the same and are of one mind: nobody contradicts them, and nobody else confirms
    assert identity.verdict({"a": identity.NOBODY, "c": identity.NOBODY}, alike) == identity.ALONE


def test_which_metrics_are_asked_of_which_judges():
    names = identity.asked(("sface",))
    assert "gap.people-truthpoints@sface" in names and "found.people-detected@sface" in names
    assert not [name for name in names if name.endswith("@frfeature")]
    assert all(family(name) for name in identity.asked())
    with pytest.raises(FsrError, match="judge.*did you mean 'sface'"):
        identity.asked(("sfce",))


@pytest.fixture(scope="module")
def written(invoke, tmp_path_factory):
    """The page of five people with six images each; of so few pairs any two judges correlate."""
    out = tmp_path_factory.mktemp("identity")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "INDEPENDENT", 1.0)
        return out, invoke("identity", "--data", "example", "--scale", "8,16", "--method",
                           "bicubic,reference", *JUDGES, "--map", "reference",
                           "--store", out / "store", "--out", out, check=0)


def test_the_page_tells_a_copy_from_a_blur(written):
    out, done = written
    assert "At ×16 two independent judges take the face for the person's: Warped reference." \
        in done.stdout
    assert "At ×16 two independent judges take the face for nobody's in particular: Bicubic." \
        in done.stdout
    rows = {(r["scale"], r["method"], r["metric"]): r for r in
            csv.DictReader(open(out / "identity.csv"))}
    gap = {name: float(rows["16", name, "gap.people-truthpoints@sface"]["mean"])
           for name in ("ground-truth", "reference", "bicubic")}
    assert gap["ground-truth"] > gap["reference"] > 0.3 > 0.1 > gap["bicubic"]
    assert float(rows["16", "ground-truth", "found.people-detected@sface"]["mean"]) > 0.9
    assert rows["16", "ground-truth", "psnr.rgb"]["mean"] == ""


def test_the_page_holds_its_figures_and_no_mark_where_less_is_not_worse(written):
    out, _ = written
    page = (out / "identity.html").read_text()
    assert page.count("<svg") == page.count("<figcaption>") == 3 and "Ground truth" in page
    told = [page.index(words) for words in ("The gap says", "take the face for the person",
                                            "<svg", "<table", "<h2>Notes", "Data: ")]
    assert told == sorted(told)
    for name in ("identity", "identity-map", "identity-scales"):
        assert (out / f"{name}.svg").read_text().startswith("<svg")


def test_the_map_s_rows_are_people_and_its_columns_their_reference_sets(session_store):
    gap = family("gap.people-truthpoints@sface")[0]
    outcome = Run(plan("mini", "example", ("16",), ("bicubic", "reference"), (gap.id,), "5", "0",
                       "20"), session_store).execute()
    for method in (None, "reference"):
        found, nearest = cosines(outcome, gap, method, 16)
        assert (found.argmax(1) == np.arange(5)).all()
        assert nearest.sum() == np.trace(nearest) == len(outcome.samples.samples)
    blurred = cosines(outcome, gap, "bicubic", 16)[1]
    assert blurred.sum() == len(outcome.samples.samples) > np.trace(blurred)


def test_one_person_alone_and_an_unknown_method_of_the_map_are_one_line(invoke, tmp_path,
                                                                       session_store):
    where = ("--store", session_store.root, "--out", tmp_path)
    alone = invoke("identity", "--people", "1", "--scale", "16", "--method", "bicubic", *JUDGES,
                   *where)
    assert alone.returncode == 2 and "needs the reference sets of two people" in alone.stderr
    wrong = invoke("identity", "--people", "2", "--scale", "16", "--method", "bicubic", *JUDGES,
                   "--map", "bicubc", *where)
    assert wrong.returncode == 2 and "did you mean 'bicubic'" in wrong.stderr
    assert "Traceback" not in alone.stderr + wrong.stderr


def test_what_a_judge_lacks_is_told_with_its_own_remedy_and_a_wrong_map_before_the_run(
        invoke, tmp_path, monkeypatch):
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path))
    where = ("--people", "2", "--scale", "16", "--method", "bicubic", "--store", tmp_path / "store",
             "--out", tmp_path)
    absent = invoke("identity", "--judge", "adaface", *where)
    assert absent.returncode == 2 and "weights --get adaface-ir50-ms1mv2" in absent.stderr
    assert "two people" not in absent.stderr
    wrong = invoke("identity", "--judge", "dlib", "--map", "idfsr", *where)
    assert "--map 'idfsr': unknown; known: bicubic" in wrong.stderr
    assert "restoring" not in wrong.stderr


@pytest.fixture
def fails(monkeypatch):
    """A method that restores nothing at x16, and at no other scale where it is "fails.always"."""
    from fsrbench import registry
    from fsrbench.core import Method

    registry.methods()
    for name, scales in (("fails.sometimes", (16,)), ("fails.always", (8, 16))):
        def restore(self, batch, scales=scales):
            if batch.size // batch.lr.shape[-1] in scales:
                raise RuntimeError("no memory")
            return batch.upsampled
        monkeypatch.setitem(registry._methods, name, type("Fails", (Method,), {
            "name": name, "title": name, "restore": restore}))


@pytest.mark.parametrize("name, maps", [("fails.always", 1), ("fails.sometimes", 2)])
def test_a_method_that_restores_nothing_leaves_a_page_without_its_map(
        fails, name, maps, session_store, tmp_path):
    gaps = [f"gap.people-truthpoints@{judge}" for judge in ("dlib", "sface")]
    options = plan("mini", "example", ("8", "16"), (name,), ("psnr", "lpips", *gaps), "2", "0",
                   "20")
    shown = "fails.sometimes" if maps == 2 else None
    identity.make(options, session_store, tmp_path, shown)
    assert (tmp_path / "identity-map.svg").read_text().count("<image") == maps
    assert f"{name} at x16" in (tmp_path / "identity.md").read_text()
    if maps == 1:
        with pytest.raises(FsrError, match="--map fails.always: restored nothing"):
            identity.make(options, session_store, tmp_path, name)
