"""Methods that fail under the engine: what is counted, refused, tried again."""

from dataclasses import replace

import numpy as np
import pytest
import test_run
import torch
from test_run import csv_of

from fsrbench.core import Batch, Method
from fsrbench.engine.run import Run
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.reports.tables.table import build

with_method = test_run.with_method


class Fragile(Method):
    """Fails on one person, returns NaN for one sample, and counts its calls."""

    name, title = "fragile", "Fragile"
    calls: list = []

    def restore(self, batch: Batch) -> np.ndarray:
        self.calls.append(list(batch.ids))
        if any(i.endswith("/5.pgm") for i in batch.ids):
            raise RuntimeError("no memory for 5")
        out = batch.upsampled.copy()
        out[[i.endswith("/4.pgm") for i in batch.ids]] = np.nan
        return out


def test_a_failing_sample_is_counted_and_costs_nobody_else(quick_plan, tmp_path, with_method):
    with_method(Fragile)
    store, plan = Store(tmp_path), quick_plan(methods=("fragile", "bicubic"), people="4")
    text, outcome = csv_of(plan, store)
    rows = outcome.records[(outcome.records["metric"] == "restored")
                           & (outcome.records["method"] == "fragile")]
    status = dict(zip(rows["sample"], rows["status"]))
    failed = {s for s, why in status.items() if why != "ok"}
    assert failed == {s for s in status if s.endswith(("/4.pgm", "/5.pgm"))} and failed
    assert all(status[s] == "failed: RuntimeError: no memory for 5"
               for s in failed if s.endswith("/5.pgm"))
    assert all(status[s] == "failed: not finite" for s in failed if s.endswith("/4.pgm"))
    line = next(line for line in text.splitlines() if ",fragile,none,psnr" in line).split(",")
    assert line[10:12] == [str(20 - len(failed)), str(len(failed))]
    whole = next(line for line in text.splitlines() if ",bicubic,none,psnr" in line).split(",")
    assert whole[10:12] == ["20", "0"]


class Leaving(Method):
    """Ends the program."""

    name, title = "leaving", "Leaving"

    def restore(self, batch: Batch) -> np.ndarray:
        raise SystemExit(0)


def test_a_method_that_would_end_the_program_has_failed(quick_plan, tmp_path, with_method):
    with_method(Leaving)
    text, outcome = csv_of(quick_plan(methods=("leaving", "bicubic"), people="1"), Store(tmp_path))
    rows = outcome.records[outcome.records["method"] == "leaving"]
    assert {"failed: SystemExit: 0"} <= set(rows["status"])
    assert ",bicubic,none,psnr" in text


def test_a_failure_is_a_result_and_is_tried_again_only_when_asked(quick_plan, tmp_path, with_method,
                                                                  monkeypatch):
    with_method(Fragile)
    store, plan = Store(tmp_path), quick_plan(methods=("fragile",), people="4", batch="2")
    first, _ = csv_of(plan, store)
    monkeypatch.setattr(Fragile, "restore", lambda self, batch: self.calls.append(list(batch.ids))
                        or batch.upsampled)
    Fragile.calls.clear()
    second, again = csv_of(plan, store)
    assert second == first and set(again.computed.values()) == {0} and not Fragile.calls
    text, _ = csv_of(replace(plan, retry=True), store)
    assert ",20,0," in text
    assert Fragile.calls and all(any(i.endswith(("/4.pgm", "/5.pgm")) for i in ids)
                                 for ids in Fragile.calls)


def test_weights_that_change_under_a_run_stop_it(quick_plan, tmp_path, with_method, monkeypatch):
    from fsrbench.weights import catalogue as weights

    path = tmp_path / "cache" / "moving.pth"
    path.parent.mkdir()
    torch.save(1, path)
    monkeypatch.setenv("FSRBENCH_CACHE", str(path.parent))
    monkeypatch.setattr(weights, "_catalogue", {**weights._catalogue, "moving": weights.WeightFile(
        "moving", path.name, "", "none", "a test")})

    class Moving(Method):
        """Its file is written anew at its second chunk."""

        name, title, weight_files, calls = "moving.test", "Moving", ("moving",), 0

        def restore(self, batch):
            Moving.calls += 1
            if Moving.calls == 2:
                torch.save([2, "and longer"], path)
            return torch.from_numpy(batch.upsampled)
    store, plan = Store(tmp_path / "store"), quick_plan(methods=(with_method(Moving),),
                                                        metrics=("psnr",), batch="5")
    with pytest.raises(FsrError,
                       match="method moving.test: its weights were written anew while it ran; "
                             "start again"):
        Run(plan, store).execute()
    assert len(store.read("rows")) == 5
    outcome = Run(plan, store).execute()
    assert outcome.missing == 0 and Moving.calls == 2 + outcome.computed["restored"] // 5


def test_a_fit_under_which_weights_change_is_not_kept(tmp_path, monkeypatch):
    from fsrbench.core import Person
    from fsrbench.engine import fits, restoring
    from fsrbench.profiles import PROFILES

    class Fitting(Method):
        name, title, needs = "fitting.test", "Fitting", frozenset({"fit"})

        def fit(self, person, seed):
            return {"z": torch.zeros(1)}
    store, method = Store(tmp_path), Fitting(PROFILES["mini"])
    monkeypatch.setattr(restoring, "method_digest", lambda _: "of the new file")
    with pytest.raises(FsrError, match="method fitting.test: its weights were written anew"):
        fits.fitted(store, method, Person("a", ()), 0, "of the old file")
    assert not list(tmp_path.rglob("fits/*"))
    assert fits.fitted(store, method, Person("a", ()), 0,
                       "of the new file")[1] and list(tmp_path.rglob("fits/*"))


class WrongShape(Method):
    """Returns images of the wrong size."""

    name, title = "wrong-shape", "Wrong shape"

    def restore(self, batch: Batch) -> np.ndarray:
        return batch.lr


def test_a_wrong_shape_is_a_failure_with_both_shapes(quick_plan, tmp_path, with_method):
    with_method(WrongShape)
    _, outcome = csv_of(quick_plan(methods=("wrong-shape", "bicubic")), Store(tmp_path))
    status = outcome.records.loc[outcome.records["method"] == "wrong-shape", "status"].unique()
    assert list(status) == ["failed: ValueError: returned shape (1, 3, 8, 8), not (1, 3, 64, 64)"]


class Ranged(Method):
    """Returns the upsampled image in another range."""

    name, title = "ranged", "Ranged"
    factor, offset = 2, -1

    def restore(self, batch: Batch) -> np.ndarray:
        low, high = batch.upsampled.min((1, 2, 3),
                                        keepdims=True), batch.upsampled.max((1, 2, 3),
                                                                            keepdims=True)
        return (batch.upsampled - low) / (high - low) * self.factor + self.offset


@pytest.mark.parametrize("factor, offset, said", [
    (2, -1, "returned values from -1 to 1, not from 0 to 1"),
    (255, 0, "returned values from 0 to 255, not from 0 to 1"),
    (1, 0.01, "returned values from 0.01 to 1.01, not from 0 to 1"), (1.004, -0.002, ""),
    (1, 0, "")])
def test_a_method_of_another_range_is_refused_with_it(quick_plan, tmp_path, with_method,
                                                      monkeypatch, factor, offset, said):
    with_method(Ranged)
    monkeypatch.setattr(Ranged, "factor", factor)
    monkeypatch.setattr(Ranged, "offset", offset)
    text, outcome = csv_of(quick_plan(methods=("ranged", "bicubic")), Store(tmp_path))
    status = outcome.records.loc[outcome.records["method"] == "ranged", "status"].unique()
    assert list(status) == ([f"failed: {said}"] if said else ["ok"])
    assert said in "\n".join(build(outcome, "t", "T", outcome.options.metrics, "celebref-hq").notes)


def test_one_image_of_another_range_spoils_its_batch_and_one_that_is_not_finite_does_not():
    from fsrbench.engine.restoring import _checked

    images = np.full((3, 3, 8, 8), 0.5)
    images[0, 0, 0, 0], images[2] = -0.5, np.inf
    batch = Batch(["a", "b", "c"], [], np.zeros((3, 3, 8, 8)), 1, [], [], [])
    made, errors = _checked(images, batch)
    assert errors == ["returned values from -0.5 to 0.5, not from 0 to 1"] * 2 + ["not finite"]
    assert made == [None] * 3
    with pytest.raises(ValueError, match="returned complex64 values, not real numbers"):
        _checked(np.zeros((3, 3, 8, 8), np.complex64), batch)
