"""A training that the machine has no memory for is refused before it begins, in one line."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, full_but
from test_training_device import fake_bank

from fsrbench import memory
from fsrbench.errors import FsrError
from fsrbench.methods.common import image_loss
from fsrbench.training import footprint
from fsrbench.training.loop import Trainer, TrainOptions, train
from fsrbench.training.tasks import tasks

PERSON = np.sort(np.random.default_rng(0).integers(0, 12, 40)).astype(np.int64)


def task_of(name, *of, **arguments):
    return tasks()[name](fake_bank(PERSON, *of, device="cpu"), **arguments)


@pytest.fixture
def paper():
    """The paper's training on a processor, with landmarks out of the air."""
    task = task_of("idfsr", "paper", 256, 512)
    task.detector = lambda I_L: torch.rand(len(I_L), 68, 2) * 256
    return task


@pytest.fixture
def free(monkeypatch):
    """Sets how much memory there is."""
    def of(gigabytes):
        monkeypatch.setattr(footprint, "free_memory", lambda: int(gigabytes * 1e9))
    return of


@pytest.mark.full
def test_the_paper_s_training_is_refused_with_the_batch_that_fits(paper, free, tmp_path):
    free(23)
    with pytest.raises(FsrError, match="training idfsr: takes about 109 GB of memory with batch "
                                       "24, and 23 GB are free here; give --batch 4$") as refused:
        train(paper, TrainOptions(steps=1), tmp_path / "run")
    assert refused.value.code == 3 and not list(tmp_path.rglob("*.pt"))
    # What it names fits, one more does not.
    assert footprint.training_bytes(paper, 4) <= 23e9 < footprint.training_bytes(paper, 5)


def test_not_even_one_image_fits_and_each_of_several_processes_has_its_share(free, monkeypatch):
    paper = task_of("idfsr", "paper", 256, 512)
    monkeypatch.setattr(footprint, "training_bytes", lambda task, batch, *_: int(batch * 4.5e9))
    free(3)
    with pytest.raises(FsrError, match=r"not even --batch 1 fits \(4.5 GB\): train on a machine"):
        footprint.refuse_too_large(paper, 24)
    free(120)
    footprint.refuse_too_large(paper, 24)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(FsrError, match="60 GB are free"):
        footprint.refuse_too_large(paper, 24)


@pytest.mark.parametrize("name", full_but(
    sorted({*tasks()} - {"stablesr", "idfsr-judged", "landmarks"}), "idfsr", "prior", "vae"))
def test_reckoning_changes_nothing_of_a_training(name, free):
    """Nothing fake is left in what the process keeps, nor a number drawn; and no network takes
    more than what a training is let go on with unreckoned."""
    free(0.01)
    states, bank = [], fake_bank(PERSON, device="cpu")
    for reckoned in (True, False):
        task = tasks()[name](bank)
        task.origin = {"weights": "the stage before"}
        if reckoned:
            found = footprint.step_bytes(task, 8)
            assert 1e6 < found < (footprint.PIXEL_BYTES * 8 * 64 ** 2
                                  + (footprint.WEIGHTS - 4) * footprint.weight_bytes(task))
        torch.manual_seed(3)
        trainer = Trainer(task, TrainOptions(steps=2, batch=2))
        trainer.advance(0)
        states.append(trainer.model.state_dict())
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


def test_half_precision_takes_less_and_the_first_time_takes_what_the_second_does():
    """Also where the loss needs a network that is then loaded and kept."""
    image_loss._network.__wrapped__.cache_clear()
    task = task_of("idfsr")
    half = footprint.step_bytes(task, 8, "bf16")
    assert half == footprint.step_bytes(task, 8, "bf16") < 0.8 * footprint.step_bytes(task, 8)


@pytest.mark.full
def test_a_training_takes_what_is_reckoned():
    # Of a smaller batch what the libraries take, which differs from run to run, is a tenth of it.
    done = subprocess.run([sys.executable, "tests/peak.py", "48"], cwd=ROOT, text=True, check=True,
                          capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    reckoned, taken = map(int, done.stdout.split())
    assert 0.8 * reckoned < taken < 1.1 * reckoned


def test_a_small_training_is_not_reckoned(free, monkeypatch):
    free(16)
    monkeypatch.setattr(footprint, "training_bytes", lambda *_: pytest.fail("was reckoned"))
    footprint.refuse_too_large(task_of("idfsr"), 32)


def machine(root, free_kb, **files):
    (root / "proc").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:  {free_kb} kB\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("-", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_free_memory_is_the_machine_s_or_its_group_s(tmp_path):
    assert memory.free_memory(machine(tmp_path / "a", 2000)) == 2000 * 1024
    two = {"memory-max": "1000000\n", "memory-current": "700000\n",
           "memory-stat": "anon 5\ninactive_file 100000\n"}
    assert memory.free_memory(machine(tmp_path / "b", 2000, **two)) == 400_000
    assert memory.free_memory(machine(tmp_path / "c", 2000,
                                      **{**two, "memory-max": "max\n"})) == 2000 * 1024
    one = {"memory__memory-limit_in_bytes": "1000000", "memory__memory-usage_in_bytes": "900000",
           "memory__memory-stat": "total_inactive_file 50000\n"}
    assert memory.free_memory(machine(tmp_path / "d", 2000, **one)) == 150_000
    assert memory.free_memory(machine(tmp_path / "e", 2000, **{
        **one, "memory__memory-limit_in_bytes": "9223372036854771712"})) == 2000 * 1024
    assert memory.free_memory(tmp_path / "nowhere") is None
    assert memory.free_memory() > 1e8


def test_a_gpu_that_is_too_small_is_said_in_a_line(tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")
    monkeypatch.setattr(Trainer, "advance", full)
    with pytest.raises(FsrError, match="training: the GPU's memory is too small for batch 4 .CUDA "
                                       "out of memory. Tried .*; give a smaller --batch"):
        train(task_of("idfsr"), TrainOptions(steps=1, batch=4), tmp_path)
