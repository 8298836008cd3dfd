"""`invoke bench --profile`: speeds of whole restorations, and half precision."""

import json
import time

import numpy as np
import pytest
import torch

from fsrbench import registry
from fsrbench.engine.restoring import attempt, kept, one_ahead
from fsrbench.engine.store import Store
from fsrbench.profiles import PROFILES
from fsrbench.reports.gate import speed
from fsrbench.rng import ahead, normal

HEAD = speed._HEAD.split("CUDA")[0].strip()


@pytest.fixture(autouse=True)
def on_a_processor(monkeypatch):
    """Whatever a command sets is undone."""
    monkeypatch.setenv("FSRBENCH_DEVICE", "cpu")


def test_the_command_prints_rows_and_writes_them(invoke, tmp_path):
    done = invoke("bench", "--profile", "mini", "--method", "srmd", "--method", "codeformer",
                  "--batch", "1,2", "--precision", "no", "--device", "cpu", "--out",
                  tmp_path / "speed.json", check=0)
    lines = done.stdout.splitlines()
    assert lines[1].startswith(HEAD) and max(map(len, lines[1:6])) <= 100
    rows = json.loads((tmp_path / "speed.json").read_text())["speeds"]
    assert [(r["method"], r["batch"]) for r in rows] == [
        (m, b) for m in ("srmd.official", "codeformer.mini") for b in (1, 2)]
    for row in rows:
        assert row["images_a_second"] == pytest.approx(row["batch"] / row["seconds"])
        assert 0 < row["network_share"] <= 1 and row["memory"] > 1e7


@pytest.mark.parametrize("words,cause", [
    (("--method", "srmd"), "add --profile paper"),
    (("--profile", "mini", "--precision", "bf17"), "precision 'bf17': unknown"),
    (("--profile", "mini", "--method", "nothing"), "method 'nothing': unknown"),
    (("--profile", "mini", "--device", "tpu"), "is not cpu or cuda"),
    (("--device", "tpu"), "is not cpu or cuda"),
    (("--profile", "paper", "--method", "bicubic,dr2.mini"), "has no paper profile; give "
                                                             "--profile mini"),
    (("--profile", "paper", "--method", "idfsr.ft"), "is fitted to a person first"),
    (("--profile", "mini", "--scale", "5"), "scale 5: impossible"),
    (("--profile", "mini", "--batch", "0"), "--batch 0: is not a whole number"),
    (("--profile", "mini", "--out", "."), "is a folder")])
def test_wrong_words_end_in_a_line(invoke, words, cause):
    assert cause in invoke("bench", *words, check=2).stderr


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(invoke, tmp_path):
    (tmp_path / "file").touch()
    done = invoke("bench", "--profile", "mini", "--method", "bicubic", "--out",
                  tmp_path / "file" / "speed.json", check=3)
    said = f"--out {tmp_path / 'file' / 'speed.json'}: cannot be written"
    assert said in done.stderr and not done.stdout


def test_a_method_that_fails_is_told_and_the_rest_go_on(monkeypatch):
    def broken(self, batch):
        raise ValueError("no more")
    monkeypatch.setattr(registry.get("codeformer.mini"), "restore", broken)
    lines = []
    speed.report(PROFILES["mini"], ["codeformer.mini", "idfsr.case9", "srmd"][::2], batches=(1,),
                 say=lines.append)
    assert "failed: ValueError: no more" in lines[2] and lines[3].startswith("srmd.official ")


def test_whose_steps_are_not_its_authors_is_said_below_the_rows():
    lines = []
    speed.report(PROFILES["mini"], ["idfsr.pt", "srmd"], batches=(1,), say=lines.append)
    assert lines[4:] == [f"idfsr.pt: {registry.get('idfsr.pt')(PROFILES['mini']).remark}"]
    assert lines[4].startswith("idfsr.pt: 2 DDIM steps instead of the paper's 20")


def test_what_would_outlast_the_limit_is_left_out():
    lines = []
    speed.report(PROFILES["mini"], ["srmd"], batches=(1, 10**9), seconds=20, say=lines.append)
    assert "left out: would take" in lines[3]
    assert speed.report(PROFILES["mini"], ["srmd"], seconds=1e-9,
                        say=lines.append)[0].fault == "left out: the time is over"


def test_a_measurement_ends_with_the_time(monkeypatch):
    """Also where one restoration would take longer than all that is left."""
    now, calls = [0.0], []

    def restore(self, batch):
        for _ in range(1000):
            calls.append(now[0])
            self.part("prior")(*self.parts["prior"].inputs())
            now[0] += 1.5
        return batch.upsampled
    monkeypatch.setattr(speed.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(registry.get("difface.mini"), "restore", restore)
    lines = []
    found = speed.report(PROFILES["mini"], ["difface.mini", "srmd"], seconds=4, batches=(1, 2),
                         say=lines.append)
    assert [s.fault for s in found] == ["left out: the time was over meanwhile",
                                        "left out: the time is over"]
    assert len(calls) == 4 and len(lines) == 4


def test_idfsr_comes_first_and_each_set_of_networks_once():
    names = speed.chosen(PROFILES["paper"], ())
    assert names[0] == "idfsr.pt" and len(names) == len(set(names))
    assert {"dr2.official", "difface.official", "pgdiff.official", "dpi.official",
            "codeformer.official", "stablesr.official", "asffnet.official",
            "dmdnet.official"} < set(names)
    assert not any(name.endswith(("-album", "-oracle")) for name in names)


@pytest.mark.parametrize("name", ["asffnet.mini", "dmdnet.mini", "codeformer.mini", "dr2.mini",
                                  "srmd.official"])
def test_half_precision_gives_images(name, monkeypatch):
    """Networks whose last layer answers in half precision failed here."""
    monkeypatch.setattr("fsrbench.methods.dr2.method.dr2_sample", lambda d, s, y, *_: y)
    method = registry.get(name)(PROFILES["mini"])
    with speed.random_weights(method, speed.Clock()):
        images, errors = attempt(method, speed.batch_of(method, 8, 2), "bf16")
    assert errors == ["", ""] and all(i.shape == (64, 64, 3) for i in images)


def test_the_next_batch_is_made_while_one_is_restored(monkeypatch):
    monkeypatch.setattr("fsrbench.weights.networks.device", lambda: "cuda")
    made, prepared = [], []

    class Cell:
        class method:
            prepare = prepared.append

    def make(cell, chunk):
        made.append(chunk)
        if chunk == 3:
            raise OSError("gone")
        return chunk * 10
    found = one_ahead(make, [(Cell, i, "key") for i in range(4)])
    assert next(found) == ((Cell, 0, "key"), 0)
    for _ in range(100):
        if made == [0, 1]:
            break
        time.sleep(0.01)
    assert made == [0, 1]
    assert [batch for _, batch in (next(found), next(found))] == [10, 20]
    with pytest.raises(OSError, match="gone"):
        next(found)
    assert prepared == [0, 10, 20]


def test_draws_ahead_are_the_same_draws():
    plain, early = (ahead(lambda i: normal((2, 3), "draw", i), place) for place in ("cpu", "meta"))
    assert all(early().device.type == "meta" for _ in range(5))
    assert torch.equal(plain(), normal((2, 3), "draw", 0))
    assert torch.equal(plain(), normal((2, 3), "draw", 1))
    # "cpu:0" is not the word for a processor, so the draws come from the threads.
    threads = ahead(lambda i: normal((2, 3), "draw", i), "cpu:0")
    assert all(torch.equal(threads(), normal((2, 3), "draw", i)) for i in range(20))


def test_images_kept_side_by_side_have_their_places(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(5)] + [None]
    store = Store(tmp_path)
    names = kept(store, images)
    assert names[5] == "" and kept(store, [None]) == [""]
    assert all(np.array_equal(store.image(n), i) for n, i in zip(names, images[:5]))
