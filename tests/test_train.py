"""Training: resumable to the bit, averaged, exported with a card that names what was seen."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.methods.common.diffusion import stratified
from fsrbench.methods.idfsr.objective import diffusion_loss
from fsrbench.training.bank import Bank, Origin
from fsrbench.training.export import export
from fsrbench.training.loop import TrainOptions, ema_decay, learning_rate, train
from fsrbench.training.sittings import read_checkpoint
from fsrbench.training.tasks import Task


class Line(Task):
    """Fits y = 3x + 1."""

    name, batch, lr, ema = "line", 8, 0.05, 0.9

    def __init__(self, data="numbers", profile="mini", seed=0):
        super().__init__(Bank(Origin(data, seed, profile, "", (), data), None, None, None),
                         seed=seed)

    def network(self):
        return torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.BatchNorm1d(4),
                                   torch.nn.Linear(4, 1))

    def examples(self, draws, faces, n):
        return {"x": draws.normal(n, 1), "step": draws.words[-1]}

    def loss(self, model, example):
        loss = (model(example["x"]) - 3 * example["x"] - 1).square().mean()
        return loss, loss

    def validate(self, model):
        return {"one": model(torch.ones(1, 1)).item()}

    def grid(self, model):
        return np.zeros((4, 4, 3), np.uint8)


def weights_of(path):
    state = torch.load(path, weights_only=True)
    return torch.cat([v.flatten().float() for part in ("model", "ema")
                      for v in state[part].values()])


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = train(Line(), TrainOptions(steps=60, every=30), tmp_path / "whole")
    cut = TrainOptions(steps=60, every=30, saves=1e-9)

    class Stops(Line):
        def loss(self, model, example):
            if example["step"] == 37:
                raise KeyboardInterrupt
            return super().loss(model, example)
    with pytest.raises(KeyboardInterrupt):
        train(Stops(), cut, tmp_path / "cut")
    resumed = train(Line(), cut, tmp_path / "cut")
    assert torch.equal(weights_of(whole), weights_of(resumed))
    log = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [30, 60] and log[-1]["loss"] < log[0]["loss"]
    assert (tmp_path / "whole" / "grid-0000060.png").exists()


class Interrupted(Line):
    """Is asked to stop in the midst of its eighth step."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def loss(self, model, example):
        if example["step"] == 7:
            os.kill(os.getpid(), self.number)
        return super().loss(model, example)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_keeps_the_step_under_way(tmp_path, number, capsys):
    options, handler = TrainOptions(steps=20), signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(number), options, tmp_path / "cut")
    assert signal.getsignal(number) == handler
    assert torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["step"] == 8
    assert not (tmp_path / "cut" / "log.jsonl").exists()
    resumed, whole = train(Line(), options, tmp_path / "cut"), train(Line(), options,
                                                                     tmp_path / "whole")
    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert "going on from step 8, " in capsys.readouterr().out


def test_a_run_that_is_over_is_left_alone(tmp_path, capsys):
    path = train(Line(), TrainOptions(steps=4), tmp_path)
    assert re.search(r"^step 4, images \d+, .*loss", capsys.readouterr().out)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    assert train(Line(), TrainOptions(steps=3), tmp_path) == path
    assert "step 4 is there already" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_what_is_trained_otherwise_is_told(tmp_path, capsys):
    train(Line(), TrainOptions(steps=2), tmp_path)
    train(Line(), TrainOptions(steps=4, lr=0.5, batch=3), tmp_path)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in said] == ["note: batch 3 from step 2 on",
                                                     "note: lr 0.5 from step 2 on"]


@pytest.mark.parametrize("kept", [0, 500, None])
def test_a_damaged_checkpoint_is_named(tmp_path, kept):
    path = train(Line(), TrainOptions(steps=2), tmp_path)
    path.write_bytes(path.read_bytes()[:kept] if kept is not None else b"<html>404</html>")
    with pytest.raises(FsrError, match=rf"checkpoint {path}: cannot be read \(.+\); delete it"):
        train(Line(), TrainOptions(steps=4), tmp_path)


def test_a_gradient_that_is_not_finite_spoils_no_checkpoint(tmp_path):
    """Of a finite loss; the run goes on from the last good step as if nothing had been."""
    options = TrainOptions(steps=20, saves=1e-9)

    class Breaks(Line):
        def loss(self, model, example):
            loss, shown = super().loss(model, example)
            # The root's slope at 0 is infinite.
            return (loss + (0 * model[0].weight.sum()).sqrt() if example["step"]
                    == 11 else loss), shown
    said = "the gradient is not finite near step 11; resume from .*checkpoint.pt"
    with pytest.raises(FsrError, match=said):
        train(Breaks(), options, tmp_path / "broken")
    assert torch.load(tmp_path / "broken" / "checkpoint.pt", weights_only=True)["step"] == 11
    resumed, whole = train(Line(), options, tmp_path / "broken"), train(Line(), options,
                                                                        tmp_path / "whole")
    assert torch.equal(weights_of(resumed), weights_of(whole))


def test_a_resumed_run_keeps_its_own_origin(tmp_path):
    """Weights named on the way are not those that it started from, and must not get into its
    card."""
    first, other = ({"weights": name, "sha256": name, "images_seen": 5}
                    for name in ("first", "other"))

    class From(Line):
        def __init__(self, origin):
            super().__init__()
            self.origin = origin
    path = train(From(first), TrainOptions(steps=2), tmp_path)
    for origin in (first, {}):
        train(From(origin), TrainOptions(steps=4), tmp_path)
        assert torch.load(path, weights_only=True)["origin"] == first
    with pytest.raises(FsrError, match="did not start from this other; .* leave --init out"):
        train(From(other), TrainOptions(steps=6), tmp_path)


PAIR = """
import sys, torch
from pathlib import Path
from fsrbench.training.loop import TrainOptions, train
from test_train import Line

class Plain(Line):
    lr, together = 0.02, sys.argv[1] == "together"
    def __init__(self):
        # Processes start from different weights; the first one's are taken.
        super().__init__(seed=0)
        if not self.together and __import__("os").environ["RANK"] == "1":
            torch.nn.init.ones_(self.model.weight)
    def network(self):
        return torch.nn.Linear(1, 1)
    def examples(self, draws, faces, n):
        step = draws.words[-1]
        steps = (2 * step, 2 * step + 1) if self.together else (step,)
        return {"x": torch.cat([draws.seed(0, "line", s).normal(n, 1) for s in steps])}

train(Plain(), TrainOptions(steps=20, every=100), Path(sys.argv[2]))
"""


@pytest.mark.full
def test_two_processes_train_as_one_with_both_their_batches(tmp_path):
    def start(kind, out, **environment):
        return subprocess.Popen([sys.executable, "-c", PAIR, kind, out], cwd=Path(__file__).parent,
                                env={
            **os.environ, "OMP_NUM_THREADS": "1", **environment})
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2",
             "LOCAL_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    running = [start("apart", tmp_path / "two", RANK=str(r), LOCAL_RANK=str(r), **group)
               for r in (0, 1)]
    running.append(start("together", tmp_path / "one"))
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    one, two = (tmp_path / name / "checkpoint.pt" for name in ("one", "two"))
    assert torch.allclose(weights_of(one), weights_of(two), atol=1e-5)
    assert torch.load(two, weights_only=True)["images"] == 20 * 8 * 2


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    train(Line(), TrainOptions(steps=2), tmp_path)
    other = Line()
    other.model = torch.nn.Linear(1, 1)
    with pytest.raises(FsrError, match="is of another network"):
        train(other, TrainOptions(steps=4), tmp_path)


@pytest.mark.parametrize("other", [{"data": "letters"}, {"profile": "paper"}, {"seed": 1}])
def test_a_checkpoint_of_other_data_profile_or_seed_is_refused(tmp_path, other):
    train(Line(), TrainOptions(steps=2), tmp_path)
    name = next(iter(other))
    with pytest.raises(FsrError,
                       match=rf"checkpoint .* is of (faces|{name}) (numbers|mini|0), not "
                             rf"{other[name]}"):
        train(Line(**other), TrainOptions(steps=4), tmp_path)


def test_a_training_may_end_by_the_clock(tmp_path):
    state = torch.load(train(Line(), TrainOptions(minutes=0.01), tmp_path), weights_only=True)
    assert state["step"] > 5 and 0.55 < state["seconds"] < 2
    with pytest.raises(FsrError, match="has no end; give --steps or --minutes"):
        train(Line(), TrainOptions(), tmp_path)


def test_a_loss_that_is_not_finite_stops_with_a_remedy(tmp_path):
    class Explodes(Line):
        def loss(self, model, example):
            loss, shown = super().loss(model, example)
            return loss / 0, shown
    with pytest.raises(FsrError,
                       match="the gradient is not finite near step 0; resume .* smaller --lr"):
        train(Explodes(), TrainOptions(steps=4), tmp_path)


def test_schedules():
    options = TrainOptions(steps=1000, cooldown=0.2, warmup=100)
    rates = [learning_rate(s, s / 1000, 1.0, options) for s in range(1000)]
    assert np.allclose([rates[i] for i in (0, 99, 799, 900, 999)], [0.01, 1, 1, 0.5, 0.01])
    assert TrainOptions(steps=100, minutes=2).progress(10, 60) == 0.5
    assert TrainOptions(minutes=2).progress(10**6, 60) == 0.5
    assert ema_decay(0, 0.999) == 0.1 and ema_decay(10**6, 0.999) == 0.999


def test_stratified_timesteps_cover_the_range_once():
    index = stratified(10, 1000, np.random.default_rng(0))
    assert sorted((index // 100).tolist()) == list(range(10)) and index.max() < 1000


@pytest.mark.parametrize("parameterisation", ["eps", "v"])
def test_the_loss_is_zero_for_the_true_answer_only(parameterisation):
    from dataclasses import replace

    from fsrbench.methods.common.diffusion import linear_schedule, v_target
    from fsrbench.methods.idfsr.configs import MINI

    schedule, config = linear_schedule(), replace(MINI, parameterisation=parameterisation)
    x0, noise, index = torch.rand(4, 3, 8, 8), torch.randn(4, 3, 8,
                                                           8), torch.tensor([1, 100, 500, 999])
    answer = noise if parameterisation == "eps" else v_target(schedule, x0, index, noise)

    def loss(output):
        return float(diffusion_loss(lambda *_: output, config, schedule, x0, index, noise, None,
                                    None, None))
    assert loss(answer) == 0 < loss(answer + 1)


def test_export_writes_weights_card_and_what_was_seen(tmp_path, album, monkeypatch):
    from fsrbench.engine.samples import check_leaks, load_samples
    from fsrbench.profiles import PROFILES
    from fsrbench.training.bank import open_bank, read_bank
    from fsrbench.weights.networks import load_strict, read_state

    store = Store(tmp_path / "store")
    monkeypatch.setattr("fsrbench.engine.data.draw_people", lambda people, rate, seed: ["s9"])
    task = Line()
    task.bank = read_bank(open_bank(f"folder:{album}", store, "mini", 0))
    monkeypatch.undo()
    checkpoint = train(task, TrainOptions(steps=5), tmp_path / "run")
    card = export(task, checkpoint, tmp_path / "line.safetensors")
    assert card["people"] == 2 and card["images"] == 8 and card["steps"] == 5
    assert card["recipe"]["lr"] == 0.05
    loaded = load_strict(Line().model, read_state(tmp_path / "line.safetensors"), "line")
    assert not any(p.requires_grad for p in loaded.parameters()) and not loaded.training
    assert json.loads((tmp_path / "line.json").read_text()) == card
    monkeypatch.setattr("fsrbench.engine.samples.locate", lambda name: tmp_path
                        / "line.safetensors")
    seen = load_samples(f"folder:{album}", PROFILES["mini"], store, None, 0)
    with pytest.raises(FsrError, match="first s[15]/"):
        check_leaks(seen, "line")
    (album / "s1").rename(tmp_path / "s1")
    (album / "s5").rename(tmp_path / "s5")
    check_leaks(load_samples(f"folder:{album}", PROFILES["mini"], store, None, 0), "line")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not a checkpoint"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    from fsrbench.weights.networks import read_state

    (tmp_path / "cut.pth").write_bytes(content)
    with pytest.raises(FsrError,
                       match=r"weights .*cut\.pth: cannot be read as a checkpoint \(.+\)") as told:
        read_state(tmp_path / "cut.pth")
    assert "torch.load" not in str(told.value), "advice of PyTorch to programmers"
    with pytest.raises(FsrError, match="cannot be read .*; another") as told:
        read_checkpoint(tmp_path / "cut.pth", remedy="another")
    assert "torch.load" not in str(told.value)


def test_trainings_side_by_side_go_on_from_what_has_been_seen(tmp_path):
    from fsrbench.training.side_by_side import zoo

    def exported(name, images, before=None):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
        started = {} if before is None else {"started_from": {"images_seen": before}}
        (tmp_path / f"{name}.json").write_text(json.dumps({"images_seen": images, **started}))

    exported("dmdnet-mini", 200_000)
    exported("idfsr-mini", 30_000, 340_000)
    exported("vae-mini", 80_000)
    exported("stablesr-mini", 260_000)
    exported("codeformer-mini", 600_000)
    lanes = zoo(600_000, 100_000, tmp_path, urgent=["dmdnet-mini"])
    assert [leg.name for leg in lanes[0]] == ["dmdnet-mini"] and lanes[0][0].urgent
    wanted = {leg.name: leg.images for lane in lanes for leg in lane}
    assert wanted["dmdnet-mini"] == 400_000
    assert (wanted["idfsr-first"], wanted["idfsr-mini"]) == (182_000, 48_000)
    assert wanted["stablesr-mini"] == 260_000 and "vae-mini" not in wanted
    assert wanted["asffnet-mini"] == 600_000 and wanted["idfsr-mini-case1"] == 100_000
    assert not {"codeformer-vq", "codeformer-mini"} & set(wanted)  # has seen them all
    new = {leg.name: leg.images for lane in zoo(600_000, 100_000) for leg in lane}
    assert sum(new[name] for name in ("codeformer-vq", "codeformer-codes",
                                      "codeformer-mini")) == 600_000


def test_a_leg_whose_time_the_one_before_has_used_up_still_ends(tmp_path, monkeypatch):
    from fsrbench.training import side_by_side

    seen = {}

    def exported(task, state, path):
        seen[path.stem] = state["images"]
        return {"validation": {}}
    monkeypatch.setattr(side_by_side, "export_state", exported)
    legs = [side_by_side.Leg(name, lambda *_: Line(), 8 * 20_000) for name in ("first", "second")]
    side_by_side.run_lane(legs, None, TrainOptions(), 0.0, tmp_path)
    assert set(seen) == {"first", "second"} and max(seen.values()) < 8 * 20_000
