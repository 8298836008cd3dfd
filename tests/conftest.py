"""Shared by the tests: real faces out of the installed ORL package, small reference sets of them,
and quick plans."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def orl_root() -> Path:
    """Folder of the ORL faces."""
    from fsrbench.engine.data import open_source

    return open_source("orl").root


@pytest.fixture(scope="session", autouse=True)
def quick():
    """Nothing is computed twice for the same images, and nothing waits for the disk: a test's
    files need not outlast the machine."""
    from remembered import share

    with pytest.MonkeyPatch.context() as patch:
        share(patch)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def session_store(tmp_path_factory):
    """A store that tests may share where they do not count what is in it."""
    from fsrbench.engine.store import Store

    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def album(tmp_path, orl_root) -> Path:
    """A reference set of three people with four images each."""
    root = tmp_path / "album"
    for person in ("s1", "s5", "s9"):
        (root / person).mkdir(parents=True)
        for n in (1, 2, 3, 4):
            shutil.copy(orl_root / person / f"{n}.pgm", root / person)
    return root


@pytest.fixture(scope="session")
def quick_plan():
    """Factory of small plans: control methods and pixel metrics unless told otherwise."""
    from fsrbench.engine.options import plan

    def make(data="orl", scales=("8",), methods=("bicubic", "reference"), metrics=("psnr", "ssim"),
             people="2", seed="0", batch="4"):
        return plan("mini", str(data), scales, methods, metrics, people, seed, batch)
    return make


if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker has one core. Numba, which UMAP needs, would set torch too to as many threads as
    # there are cores, and these wait for each other; a pool of processes would only cost its start.
    # What runs as a process of its own has its pool.
    os.environ.update(NUMBA_NUM_THREADS="1", LOKY_MAX_CPU_COUNT="1")


# Modules whose tests share what takes long to make, each of which stays in one worker; UMAP is
# compiled anew by each worker that needs it, for a quarter of a minute.
TOGETHER = {"test_analysis": "umap", "test_figures": "umap", **{name: name for name in (
    "test_complexity", "test_comparisons", "test_figure_refusals", "test_layout", "test_probe",
    "test_regress", "test_report")}}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand out the modules of `TOGETHER` whole and first, all other tests one by one, so that no
    worker is left alone with a long module at the end."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return TOGETHER.get(Path(nodeid.partition("::")[0]).stem, nodeid)
    return Scheduling(config, log)


@contextlib.contextmanager
def _written(files):
    """Send what this process and those it starts write, output and errors, to two files."""
    names, kept = ("stdout", "stderr"), [os.dup(n) for n in (1, 2)]
    streams = [getattr(sys, name) for name in names]
    for stream in streams:
        stream.flush()
    for n, (name, file) in enumerate(zip(names, files), 1):
        os.dup2(file.fileno(), n)
        # Stays open: what keeps hold of it (a handler of a log) then writes to what comes back.
        setattr(sys, name, open(n, "w", encoding="utf-8", buffering=1, closefd=False))
    try:
        yield
    finally:
        for n, (name, stream, descriptor) in enumerate(zip(names, streams, kept), 1):
            getattr(sys, name).flush()
            setattr(sys, name, stream)
            os.dup2(descriptor, n)
            os.close(descriptor)


@contextlib.contextmanager
def _shown_warnings():
    """Write warnings to standard error as outside of pytest, which would keep them."""
    def show(message, category, filename, lineno, file=None, line=None):
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        warnings.showwarning = show
        yield


def _exit_code(argv) -> int:
    """Run `invoke` here as its own script does; a fault that it does not catch is shown as
    Python shows it."""
    from invoke import Program, __version__

    program = Program(name="Invoke", binary="inv[oke]", binary_names=["invoke", "inv"],
                      version=__version__)
    try:
        program.run(argv)
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _called(words, environment) -> subprocess.CompletedProcess:
    """What `invoke` does and writes at the root under such an environment, in this process."""
    argv = ["invoke", *map(str, words)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", argv)
            patch.setattr(sys, "path", list(sys.path))
            patch.chdir(ROOT)
            with _written((out, err)), _shown_warnings():
                code = _exit_code(argv)
        texts = [file.seek(0) or file.read().decode() for file in (out, err)]
    return subprocess.CompletedProcess(argv, code, *texts)


def _started(words, environment) -> subprocess.CompletedProcess:
    """What `invoke` does and writes as a process of its own."""
    words = [sys.executable, "-m", "invoke", *map(str, words)]
    # A path that a test adds goes behind the one that the tests themselves run from.
    paths = [place["PYTHONPATH"] for place in (os.environ, environment) if "PYTHONPATH" in place]
    path = {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}
    merged = {**os.environ, **environment, **path}
    merged.pop("LOKY_MAX_CPU_COUNT", None)
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=merged)


def _runner(how):
    def run(*words, check=None, **environment):
        done = how(words, environment)
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done
    return run


@pytest.fixture(scope="session")
def invoke():
    """Run `invoke` at the root as a user does, but in this process, which has the heavy imports
    behind it; returns what a finished process would: returncode, stdout, stderr."""
    return _runner(_called)


@pytest.fixture(scope="session")
def invoke_process():
    """Run `invoke` at the root as a process of its own, where that is the point; returns the
    finished process."""
    return _runner(_started)


def full_but(names, *quick):
    """Parameters of a test, of which these alone run without `invoke test --all`: the others show
    the same of their kin."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.full) for name in names]


def example_of(task, step, n=4):
    """The examples of a training's step, as the loop draws them."""
    from fsrbench.training.draws import Draws

    with torch.no_grad():
        return task.examples(Draws(task.device).seed(task.seed, task.name, step), task.bank.train,
                             n)


def loss_of(task, step, n=4):
    """The objective of a training's step."""
    return task.loss(task.model, example_of(task, step, n))[0]


def judged_by_few(task, n=4):
    """Let a training judge itself on so few held-out faces; returns it."""
    examples, held = task.examples, task.bank.held
    task.examples = lambda draws, faces, wanted: examples(
        draws, faces, min(wanted, n) if faces is held else wanted)
    return task
