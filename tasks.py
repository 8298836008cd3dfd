"""The commands: `invoke --list`, `invoke TASK --help`. Heavy packages are imported inside the bodies."""

import functools
import os
import sys

from invoke import Exit, task

_DATA = "data set: orl (default), lfw[:PATH], folder:PATH, aligned:PATH"
_TRAINED = "idfsr, arcface, prior, restorer, corrector, codeformer-vq, -codes, -fusion, asffnet or dmdnet"
_RUN_HELP = {
    "profile": "mini (64 px, processor, weights of this repository) or paper (256 px)",
    "data": _DATA,
    "scale": "factor 4, 8, 16 or 32; may be repeated (default 8 and 16)",
    "method": "method, see `invoke methods` (dr2 is dr2.mini or dr2.official, as the profile), or spandrel:PATH for a "
              "checkpoint of your own; may be repeated (default: the table's)",
    "people": "evaluate so many people (default 12 of ORL in the mini profile, else all that the protocol draws)",
    "seed": "seed of split, references and noise (default 0)",
    "batch": "samples in a chunk (default 20, paper 8)",
    "store": "folder of the records; what is there is not computed again (default store)",
    "out": "folder for the tables (default out)",
    "precision": "of networks: float32 (default), bf16 or fp16 (on a GPU)",
    "fresh": "delete the store's records first",
}


def _guarded(body):
    """Show a fault as one line with its exit code, never as a traceback."""
    @functools.wraps(body)
    def run(*args, **kwargs):
        import warnings

        warnings.filterwarnings("ignore", category=DeprecationWarning)
        from fsrbench.errors import FsrError

        try:
            return body(*args, **kwargs)
        except FsrError as error:
            raise Exit(f"error: {error}", code=error.code) from None
        except BrokenPipeError:  # the reader (`| head`) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Exit(code=0) from None
        except KeyboardInterrupt:
            raise Exit("stopped; the same command goes on from here", code=130) from None
    return run


@task(help=_RUN_HELP, iterable=["scale", "method"])
@_guarded
def table1(c, profile="mini", data=None, scale=None, method=None, people=None, seed=None, batch=None, store="store",
           out="out", precision="float32", fresh=False):
    """Table 1: restore, measure, and set beside the paper."""
    from fsrbench.options import open_store, plan
    from fsrbench.reports import table1 as report

    options = plan(profile, data, scale or report.SCALES, method, report.METRICS, people, seed, batch, precision,
                   report.METHODS)
    result = report.table1(options, open_store(store, fresh), out)
    if isinstance(result, int):
        print(f"this shard is done; {result} records are with other shards. Run without a shard to make the table.")
        return
    table, paths = result
    print(paths[0].read_text())
    print("written: " + ", ".join(map(str, paths)), file=sys.stderr)


@task(help={"out": "folder for the table (default out)", "no-times": "count only; building and timing takes a minute or two"})
@_guarded
def table6(c, out="out", no_times=False):
    """Table 6: parameters, operations, calls and time of each method."""
    from fsrbench.reports import table6 as report

    paths = report.table6(out, not no_times)
    print(paths[0].read_text())
    print("written: " + ", ".join(map(str, paths)), file=sys.stderr)


_ANALYSIS = ("profile", "data", "people", "seed", "store", "out")


@task(help={**{name: _RUN_HELP[name] for name in _ANALYSIS}, "validate": "instead measure MINE on Gaussians of known "
            "mutual information, and fail if one estimate is 15 % off"})
@_guarded
def analysis(c, profile="mini", data=None, people=None, seed=None, store="store", out="out", validate=False):
    """How far z_id and z_s depend on each other: MINE, CCA, Fig. 13."""
    from fsrbench.options import open_store, plan
    from fsrbench.reports.analysis import report
    from fsrbench.reports.analysis.embeddings import METHOD

    if validate:
        paths, outside = report.validation(open_store(store), out)
    else:
        options = plan(profile, data, (8,), [METHOD], [], people, seed, None)
        paths, outside = report.analysis(options, open_store(store), out), 0
    print(paths[0].read_text())
    print("written: " + ", ".join(map(str, paths)), file=sys.stderr)
    if outside:
        raise Exit(f"error: {outside} estimates are off", code=1)


@task(help={"fixtures": "folder of NAME-*.npz and NAME.json (default: those of the repository)"})
@_guarded
def parity(c, fixtures=None):
    """Compare networks and samplers with recorded official ones."""
    from fsrbench.parity import default_folder, report

    text, failed = report(fixtures or default_folder())
    print(text)
    if failed:
        raise Exit(f"error: {failed} comparisons failed", code=1)


@task(help={"get": "fetch this file, verify it, put it into the cache"})
@_guarded
def weights(c, get=None):
    """Weight files: what is here, what is missing, what each enables."""
    from fsrbench.listing import weights_table
    from fsrbench.weights import fetch

    print(f"{get}: {fetch(get)}" if get else weights_table())


@task
@_guarded
def methods(c):
    """Registered methods: weights, needs, origin, licence."""
    from fsrbench.listing import methods_table

    print(methods_table())


@task
@_guarded
def data(c):
    """Registered data sets and degradations."""
    from fsrbench.listing import data_table

    print(data_table())


@task(help={
    "what": _TRAINED, "data": _DATA, "profile": "mini or paper", "case": "ablation case 1-5 of idfsr",
    "steps": "stop at this step, counted from the first sitting", "batch": "pictures a step", "lr": "learning rate",
    "precision": "no (float32) or bf16", "every": "steps between sample pictures", "minutes": "between checkpoints",
    "init": "weights to start from: an exported safetensors file; for idfsr in the paper profile DiffAE's checkpoint",
    "store": "folder of prepared faces", "out": "folder of the run (default runs/WHAT)", "seed": "seed of the draws"})
@_guarded
def train(c, what, data="lfw", profile="mini", case="0", steps="60000", batch=None, lr=None, precision="no",
          every="5000", minutes="5", init=None, store="store", out=None, seed=None):
    """Train a network of ours; the same command resumes."""
    from fsrbench.options import decimal, open_store, whole
    from fsrbench.train import TrainOptions, train_named

    options = TrainOptions(whole("steps", steps, 1), whole("batch", batch, 1), decimal("lr", lr), precision=precision,
                           every=whole("every", every, 1), minutes=decimal("minutes", minutes))
    path = train_named(what, options, out, data=data, store=open_store(store), profile=profile,
                       case=whole("case", case), seed=whole("seed", seed or 0), init=init)
    print(f"checkpoint: {path}")


@task(help={"what": _TRAINED, "checkpoint": "of `invoke train` (default runs/WHAT/checkpoint.pt)",
            "to": "safetensors file to write (default methods/weights/WHAT-PROFILE.safetensors)", "data": _DATA,
            "profile": "mini or paper", "case": "ablation case", "store": "folder of prepared faces", "seed": "seed"})
@_guarded
def export(c, what, checkpoint=None, to=None, data="lfw", profile="mini", case="0", store="store", seed=None):
    """Write a trained network's averaged weights and their model card."""
    from fsrbench.options import open_store, whole
    from fsrbench.train import export_named

    print(export_named(what, checkpoint, to, data=data, store=open_store(store), profile=profile,
                       case=whole("case", case), seed=whole("seed", seed or 0)))


@task
@_guarded
def bench(c):
    """How fast the parts are on this machine."""
    from fsrbench.bench import report

    print(report())


@task(help={"only": "only tests whose name contains this"})
def test(c, only=None):
    """Run the tests."""
    from shlex import join

    result = c.run(join([sys.executable, "-m", "pytest", *(["-k", only] if only else [])]), warn=True, pty=False)
    if result.exited:
        raise Exit("error: tests failed", code=result.exited)
