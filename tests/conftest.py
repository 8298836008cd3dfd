"""Shared by the tests: real faces out of the installed ORL package, small albums of them, and quick plans."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def orl_root() -> Path:
    """Folder of the ORL faces."""
    from fsrbench.engine.data import open_source

    return open_source("orl").root


@pytest.fixture(scope="session")
def session_store(tmp_path_factory):
    """A store that tests may share where they do not count what is in it."""
    from fsrbench.engine.store import Store

    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def album(tmp_path, orl_root) -> Path:
    """An album of three people with four pictures each."""
    root = tmp_path / "album"
    for person in ("s1", "s5", "s9"):
        (root / person).mkdir(parents=True)
        for n in (1, 2, 3, 4):
            shutil.copy(orl_root / person / f"{n}.pgm", root / person)
    return root


@pytest.fixture
def quick_plan():
    """Factory of small plans: control methods and pixel metrics unless told otherwise."""
    from fsrbench.engine.options import plan

    def make(data="orl", scales=("8",), methods=("bicubic", "reference"), metrics=("psnr", "ssim"), people="2",
             seed="0", batch="4"):
        return plan("mini", str(data), scales, methods, metrics, people, seed, batch)
    return make


@pytest.fixture
def invoke(tmp_path):
    """Run `invoke` at the root as a user does; returns the finished process."""
    def run(*words, check=None, **environment):
        done = subprocess.run([sys.executable, "-m", "invoke", *map(str, words)], cwd=ROOT, capture_output=True,
                              text=True, env={**os.environ, **environment})
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done
    return run


def example_of(task, step, n=4):
    """The examples of a training's step, as the loop draws them."""
    from fsrbench.training.draws import Draws

    with torch.no_grad():
        return task.examples(Draws(task.device).seed(task.seed, task.name, step), task.bank.train, n)


def loss_of(task, step, n=4):
    """The objective of a training's step."""
    return task.loss(task.model, example_of(task, step, n))[0]
