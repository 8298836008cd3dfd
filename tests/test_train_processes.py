"""Two processes of IDFSR's own training, as torchrun starts them, are one with twice the batch: the
same examples, and at each step the same loss."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_train import free_port, weights_of

from fsrbench.training.bank import open_bank
from fsrbench.training.tasks import tasks

STEPS, BATCH = 5, 2
# Of the losses, relative: both sum the same float32 numbers in another order.
TOLERANCE = 1e-4
SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from fsrbench.methods.idfsr.training import IdfsrTask
from fsrbench.training.bank import read_bank
from fsrbench.training.draws import Draws
from fsrbench.training.loop import TrainOptions, train

kind, bank, out, steps, batch = sys.argv[1:]
told = []

class Told(IdfsrTask):
    def examples(self, draws, faces, n, factor=None):
        if kind == "together":  # what two processes draw, in one batch
            seed, name, step = draws.words
            parts = [IdfsrTask.examples(self, Draws("cpu").seed(seed, name, 2 * step + rank), faces,
                                        n // 2) for rank in (0, 1)]
            example = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        else:
            example = super().examples(draws, faces, n)
        told.append([example["index"].tolist(), float(example["noise"].sum())])
        return example
    def loss(self, model, example):
        total, shown = super().loss(model, example)
        told[-1] += [float(total), float(shown)]
        return total, shown
    def validate(self, model):
        return {}
    def grid(self, model):
        return None

task = Told(read_bank(Path(bank)))
train(task, TrainOptions(steps=int(steps), batch=int(batch), warmup=1), Path(out))
Path(out, "told-" + os.environ.get("RANK", "0") + ".json").write_text(json.dumps(told))
"""
TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port")
ACCELERATE = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines",
              "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port")


@pytest.fixture(scope="module")
def bank(tmp_path_factory, session_store, orl_root):
    """Of six people of ORL with four images each."""
    import shutil

    root = tmp_path_factory.mktemp("album")
    for person in ("s1", "s2", "s3", "s5", "s7", "s9"):
        (root / person).mkdir()
        for n in range(1, 5):
            shutil.copy(orl_root / person / f"{n}.pgm", root / person)
    tasks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsrbench.engine.data.draw_people", lambda people, rate, seed: ["s9"])
        return open_bank(f"folder:{root}", session_store, "mini", 0)


def started(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, text=True, timeout=400,
                          capture_output=True, env=environment)


def losses(launcher, kind, bank, out, batch):
    """What each process drew, and its loss at each step."""
    out.mkdir()
    (out / "script.py").write_text(SCRIPT)
    done = started(*launcher, out / "script.py", kind, bank, out, STEPS, batch)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(path.read_text()) for path in sorted(out.glob("told-*.json"))]


@pytest.mark.full
def test_two_processes_have_the_loss_of_one_with_twice_the_batch(bank, tmp_path):
    (one,) = losses((), "together", bank, tmp_path / "one", 2 * BATCH)
    two = losses((*TORCHRUN, free_port()), "apart", bank, tmp_path / "two", BATCH)
    assert len(two) == 2
    for together, *parts in zip(one, *two):
        assert together[0] == parts[0][0] + parts[1][0]
        for i in (2, 3):  # the objective, and what is shown of it
            assert np.isclose(together[i], np.mean([part[i] for part in parts]), rtol=TOLERANCE,
                              atol=0), (together, parts)
    checkpoints = [tmp_path / run / "checkpoint.pt" for run in ("one", "two")]
    assert torch.allclose(*map(weights_of, checkpoints), atol=2e-3)
    assert torch.load(checkpoints[1], weights_only=True)["images"] == STEPS * BATCH * 2
    shown = [together[3] for together in one]
    assert len(set(shown)) == STEPS and np.isfinite(shown).all()


@pytest.mark.full
def test_a_launcher_that_starts_one_process_only_is_told_of(bank, tmp_path):
    """accelerate's does so on a processor; each step would be of half the images."""
    done = started(*ACCELERATE, free_port(), "-m", "invoke", "train", "--what", "idfsr", "--data",
                   bank, "--steps", "1", "--out", tmp_path)
    assert done.returncode != 0 and "accelerate starts one process on a processor" in done.stderr
    assert "ACCELERATE_USE_CPU=true torchrun --nproc_per_node N" in done.stderr
    assert not (tmp_path / "checkpoint.pt").exists()
