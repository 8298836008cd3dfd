"""The commands: `invoke --list`, `invoke TASK --help`. Heavy packages are imported inside the bodies."""

import functools
import os
import shlex
import subprocess
import sys
import warnings

import invoke
from invoke import Exit, Task
from invoke.parser import Argument

_DATA = "data set: orl (default), lfw[:PATH], folder:PATH, aligned:PATH, synthetic:N, or NAME:PATH of a prepared one"
_TRAINED = "idfsr, idfsr-judged, prior, restorer, corrector, codeformer-vq, codeformer-codes, codeformer-fusion, vae, " \
           "stablesr, asffnet, dmdnet or landmarks"
_RUN_HELP = {
    "profile": "mini (64 px, processor, weights of this repository) or paper (256 px)",
    "data": _DATA,
    "scale": "factor 4, 8, 16 or 32; may be repeated, or 8,16 (default 8 and 16)",
    "method": "method, see `invoke methods` (dr2 is dr2.mini or dr2.official, as the profile), or spandrel:PATH for a "
              "checkpoint of your own; may be repeated (default: the table's)",
    "people": "evaluate so many people (default 12 of ORL in the mini profile, else all that the protocol draws)",
    "seed": "seed of split, references and noise (default 0)",
    "batch": "samples in a chunk (default 20, paper 8)",
    "store": "folder of the records; what is there is not computed again (default store)",
    "out": "folder for the tables (default out)",
    "precision": "of networks: float32 (default), bf16 or fp16 (on a GPU)",
    "degradation": "how LR pictures are made: bicubic (default) or another of `invoke data`",
    "fresh": "delete the store's records first",
}


class _LongName(str):
    """A one-letter name of an option that is typed behind two dashes; invoke itself puts one before it."""

    def lstrip(self, _):
        return self

    rstrip = lstrip

    def replace(self, *_):
        return self

    def __len__(self):
        return 2


class _Word(Argument):
    """A name that is typed without an option; `--help` in its place is not one (`invoke restore --help`)."""

    command = ""

    def set_value(self, value, cast=True):
        if value not in ("--help", "-h"):
            return super().set_value(value, cast)
        raise Exit(code=subprocess.run([sys.executable, "-m", "invoke", "--help", self.command]).returncode)


class _Command(Task):
    """A task that shows its help also where invoke itself would take `--help` for a name."""

    def get_arguments(self, *args, **kwargs):
        arguments = super().get_arguments(*args, **kwargs)
        for i, a in enumerate(arguments):
            if a.positional:
                arguments[i] = _Word(names=a.names, kind=a.kind, help=a.help, positional=True, attr_name=a.attr_name)
                arguments[i].command = self.name
        return arguments


class _NumberTask(_Command):
    """A task whose option --number is also --n, besides invoke's own -n."""

    def get_arguments(self, *args, **kwargs):
        arguments = super().get_arguments(*args, **kwargs)
        for number in (a for a in arguments if a.name == "number"):
            number.names = (*number.names, _LongName("n"))
        return arguments


task = functools.partial(invoke.task, klass=_Command)


def _guarded(body):
    """Show a fault as one line with its exit code, never as a traceback."""
    @functools.wraps(body)
    def run(*args, **kwargs):
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        from fsrbench.errors import FsrError
        from fsrbench.memory import keep_freed_memory

        keep_freed_memory()
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


_TABLE_HELP = {**_RUN_HELP, "retry_failed": "restore and measure again what failed in an earlier run"}


def _comparison(name, choose, text):
    """The task of one of the paper's comparisons; `choose` finds it by what was typed as --data."""
    @_guarded
    def body(c, profile="mini", data=None, scale=None, method=None, people=None, seed=None, batch=None, store="store",
             out="out", precision="float32", fresh=False, retry_failed=False, degradation="bicubic"):
        from fsrbench.engine.options import open_store, plan
        from fsrbench.reports.tables.comparisons import COMPARISONS, make

        table = COMPARISONS[choose(data or "")]
        options = plan(profile, data or (table.data if profile == "paper" else None), scale or table.scales, method,
                       table.metrics, people, seed, batch, precision, table.methods, degradation, retry_failed)
        result = make(table, options, open_store(store, fresh), out)
        if isinstance(result, int):
            print(f"this shard is done; {result} records are with other shards. Run without a shard to make the table.")
            return
        print(result[1][0].read_text())
        print("written: " + ", ".join(map(str, result[1])), file=sys.stderr)
    body.__doc__ = text
    return task(name=name, help=_TABLE_HELP, iterable=["scale", "method"])(body)


table1 = _comparison("table1", lambda data: "table1", "Table 1: restore at x8 and x16, measure, and set beside the paper.")
table2 = _comparison("table2", lambda data: "table2", "Table 2: verification, gender, emotion, race and age at x16.")
table3 = _comparison("table3", lambda data: "table3", "Table 3: restore at x4 and x32.")
table5 = _comparison("table5", lambda data: "table5-celebv" if data.startswith("celebv-text") else "table5-casia",
                     "Table 5: other data at x16: --data casia-webface:PATH or celebv-text:PATH.")


@task(help={"out": "folder for the table (default out)"})
@_guarded
def table4(c, out="out"):
    """Table 4: the architecture, read from the configurations in code."""
    from fsrbench.reports.tables import table4 as report

    paths = report.table4(out)
    print(paths[0].read_text())
    print("written: " + ", ".join(map(str, paths)), file=sys.stderr)


@task(help={
    "name": "a degradation of `invoke data`, or severity for its ten levels", "image": "picture; its centre square is taken",
    "scale": "factor 4, 8, 16 or 32; may be repeated (default all; for severity full size)",
    "id": "sample id that the draws belong to (default the file's name)", "out": "PNG to write (default out/degrade-NAME.png)"},
      iterable=["scale"])
@_guarded
def degrade(c, name, image, scale=None, id=None, out=None):
    """Show what a degradation makes of a picture, as a ladder."""
    from fsrbench.reports.pages.ladder import ladder

    print(ladder(name, image, scale, id, out))


@task(help=_TABLE_HELP, iterable=["scale", "method"])
@_guarded
def report(c, profile="mini", data=None, scale=None, method=None, people=None, seed=None, batch=None, store="store",
           out="out", precision="float32", fresh=False, retry_failed=False, degradation="bicubic"):
    """One HTML page: tables, every sample, failures, origins."""
    from fsrbench.engine.options import open_store, plan
    from fsrbench.reports.pages import report as pages
    from fsrbench.reports.tables.comparisons import TABLE1

    options = plan(profile, data, scale or TABLE1.scales, method, TABLE1.metrics, people, seed, batch, precision,
                   TABLE1.methods, degradation, retry_failed)
    print(f"written: {pages.report(options, open_store(store, fresh), out)}")


_READ_HELP = {name: text for name, text in _RUN_HELP.items() if name not in ("fresh", "degradation")}


@task(help={**_READ_HELP, "scale": "factor, may be repeated (default 4, 8, 16 and 32)",
            "store": "folder of the records; what is not there is not computed (default store)"},
      iterable=["scale", "method"])
@_guarded
def claims(c, profile="mini", data=None, scale=None, method=None, people=None, seed=None, batch=None, store="store",
           out="out", precision="float32"):
    """Which claims of the paper hold: on its own tables, on our records."""
    from fsrbench.engine.options import open_store
    from fsrbench.reports.gate import audit as report

    records = open_store(store)
    outcome = report.gather(report.claims_plan(profile, data, scale, method, people, seed, batch, precision), records)
    paths = report.write(report.audit(outcome, records), outcome, out)
    print(paths[0].read_text())
    print("written: " + ", ".join(map(str, paths)), file=sys.stderr)


@task(help={**_READ_HELP, "store": "folder of the records; what is missing is computed (default store)",
            "fixtures": "folder of parity fixtures (default: those of the repository)",
            "goldens": "CSV file of goldens (default reports/goldens/PROFILE.csv)",
            "accept": "make the present numbers the goldens", "reason": "why, for --accept; kept in the goldens' log"},
      iterable=["scale", "method"])
@_guarded
def regress(c, profile="mini", data=None, scale=None, method=None, people=None, seed=None, batch=None, store="store",
            out="out", precision="float32", fixtures=None, goldens=None, accept=False, reason=""):
    """Which numbers and claims still hold: goldens, parity, calibration."""
    if reason and not accept:
        raise Exit("error: --reason: is for --accept", code=2)
    from pathlib import Path

    from fsrbench.engine.options import open_store, plan
    from fsrbench.reports.gate import regress as report
    from fsrbench.reports.gate.goldens import default_path
    from fsrbench.reports.tables.comparisons import TABLE1

    options = plan(profile, data, scale or TABLE1.scales, method, TABLE1.metrics, people, seed, batch, precision,
                   TABLE1.methods)
    where = open_store(store), report.fixtures_folder(fixtures), Path(goldens) if goldens else default_path(profile)
    if accept:
        changes = report.accept(options, *where, reason)
        print("\n".join([*changes, f"accepted: {len(changes)} changes, written to {where[2]}"]))
        return
    found = report.regress(options, *where)
    paths = report.write(found, out)
    print(paths[0].read_text())
    print("written: " + ", ".join(map(str, paths)), file=sys.stderr)
    if found.failed:
        raise Exit(f"error: {len(found.failed)} checks failed", code=1)


@task(help={"out": "folder for the table (default out)", "no-times": "count only; building and timing takes a minute or two",
            "store": "folder of the records, where the claims find the counts and times (default store)"})
@_guarded
def table6(c, out="out", no_times=False, store="store"):
    """Table 6: parameters, operations, calls and time of each method."""
    from fsrbench.engine.options import open_store
    from fsrbench.reports.tables import table6 as report

    paths = report.table6(out, not no_times, open_store(store))
    print(paths[0].read_text())
    print("written: " + ", ".join(map(str, paths)), file=sys.stderr)


_ANALYSIS = ("profile", "data", "people", "seed", "store", "out")


@task(help={**{name: _RUN_HELP[name] for name in _ANALYSIS}, "validate": "instead measure MINE on Gaussians of known "
            "mutual information, and fail if one estimate is 15 % off"})
@_guarded
def analysis(c, profile="mini", data=None, people=None, seed=None, store="store", out="out", validate=False):
    """How far z_id and z_s depend on each other: MINE, CCA, Fig. 13."""
    from fsrbench.engine.options import open_store, plan
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


@task(help={
    "number": "number of a figure; may be repeated (default: all)",
    "profile": _RUN_HELP["profile"], "data": _DATA + "; may be repeated, figure 12 has a part for each",
    "method": "method of the grids 4 and 12; may be repeated (default: the paper's)", "people": _RUN_HELP["people"],
    "seed": _RUN_HELP["seed"], "batch": _RUN_HELP["batch"], "store": _RUN_HELP["store"],
    "out": "folder for the figures (default out)"}, iterable=["number", "data", "method"], klass=_NumberTask)
@_guarded
def figure(c, number=None, profile="mini", data=None, method=None, people=None, seed=None, batch=None, store="store",
           out="out"):
    """Figures of the paper: picture, caption and numbers of each."""
    from fsrbench.reports.figures.draw import draw

    code = draw(number or (), profile, data or (), method or (), people, seed, batch, store, out)
    if code:
        raise Exit("error: not every figure could be drawn", code=code)


@task(help={
    "case": "variant 1 to 5, beside the default (0); may be repeated (default: all whose weights are here)",
    **{name: text for name, text in _RUN_HELP.items() if name not in ("method", "precision", "fresh", "scale", "degradation")},
    "scale": "factor 4, 8, 16 or 32; may be repeated (default 16)"}, iterable=["case", "scale"])
@_guarded
def ablation(c, case=None, profile="mini", data=None, scale=None, people=None, seed=None, batch=None, store="store",
             out="out"):
    """Ablation of the components (Fig. 8): raw table and normalised."""
    from fsrbench.engine.options import open_store, plan, whole
    from fsrbench.reports.tables import ablation as report

    methods = report.methods_of([whole("case", x) for x in case or ()])
    options = plan(profile, data, scale or report.SCALES, methods, report.METRICS, people, seed, batch,
                   defaults=report.METHODS)
    paths = report.ablation(options, open_store(store), out)
    print(paths[0].read_text())
    print("written: " + ", ".join(map(str, paths)), file=sys.stderr)


@task(help={"fixtures": "folder of NAME-*.npz and NAME.json (default: those of the repository)"})
@_guarded
def parity(c, fixtures=None):
    """Compare networks and samplers with recorded official ones."""
    from fsrbench.proof.parity import default_folder, report

    text, failed = report(fixtures or default_folder())
    print(text)
    if failed:
        raise Exit(f"error: {failed} comparisons failed", code=1)


@task(help={"get": "fetch this file, verify it, put it into the cache"})
@_guarded
def weights(c, get=None):
    """Weight files: what is here, what is missing, what each enables."""
    from fsrbench.listing import fetched, weights_table

    print(fetched(get) if get else weights_table())


@task(help={**{name: _RUN_HELP[name] for name in ("profile", "people", "seed", "batch", "store", "out", "precision")},
            "data": _DATA + "; may be repeated: casia-webface and celebv-text are Table 5's, the first of all is the others'"},
      iterable=["data"])
@_guarded
def paper(c, profile="mini", data=None, people=None, seed=None, batch=None, store="store", out="out", precision="float32"):
    """Every table and figure, the analysis, the claims and the report."""
    sets = list(data or [])
    run = dict(profile=profile, data=sets[0] if sets else None, people=people, seed=seed, store=store, out=out)
    batched = {**run, "batch": batch}
    exact = {**batched, "precision": precision}
    others = [s for s in sets if s.startswith(("casia-webface", "celebv-text"))] or [run["data"]]
    parts = [("Table 1", table1, exact), ("Table 2", table2, exact), ("Table 3", table3, exact),
             ("Table 4", table4, {"out": out}), *[("Table 5", table5, {**exact, "data": s}) for s in others],
             ("Table 6", table6, {"out": out, "store": store}), ("ablation", ablation, batched), ("analysis", analysis, run),
             ("figures", figure, {**batched, "data": sets}), ("claims", claims, exact), ("report", report, exact)]
    failed = []
    for name, part, options in parts:
        print(f"\n== {name}", file=sys.stderr)
        try:
            part(c, **options)
        except Exit as reason:
            # One part's lack must not cost the others; what it is stands in its line.
            print(f"{name}: {reason}", file=sys.stderr)
            failed.append(name)
    if failed:
        raise Exit(f"error: {len(failed)} of {len(parts)} parts failed: {', '.join(failed)}", code=1)


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


@task(positional=["name"], help={
    "name": "celebref-hq, casia-webface or celebv-text", "root": "folder that holds the data set as published",
    "threshold": "quality that a picture or clip must have (default: the one that leaves the paper's number of pictures)",
    "quality": "measure of quality: hyperiqa (default, the paper's; needs its weights) or piqe (needs none)",
    "seed": "of the draw and the halves (default: celebref-hq the first that gives the paper's counts, else 0)",
    "store": "folder of the records; the manifest goes into its manifests/ (default store)"})
@_guarded
def prepare(c, name, root, threshold=None, quality=None, seed=None, store="store"):
    """Check a data set of the paper, select its pictures, freeze the split; the same command resumes."""
    from fsrbench.datasets.common.frozen import Choice, prepare_named
    from fsrbench.engine.options import decimal, open_store, whole

    choice = Choice(whole("seed", seed), decimal("threshold", threshold), quality)
    print(prepare_named(name, root, choice, open_store(store)))


_FACES = "training data set, or a file of `invoke bank` (default lfw)"


@task(help={
    "what": _TRAINED, "data": _FACES, "profile": "mini or paper", "case": "variant of the ablation, 0 (its default) to 5",
    "steps": "stop at this step, counted from the first sitting (default 60000, or none with --minutes)",
    "minutes": "stop after so many minutes, counted from the first sitting", "batch": "images a step", "lr": "learning rate",
    "precision": "no (float32) or bf16 (twice as fast where lscpu shows avx512_bf16 or amx_bf16, and on a GPU)",
    "compile": "compile the network by torch.compile", "every": "steps between sample images",
    "saves": "minutes between checkpoints",
    "init": "weights to start from: an exported safetensors file; for idfsr in the paper profile DiffAE's checkpoint, for "
            "landmarks RetinaFace's",
    "degradation": "of the LR images of landmarks, see `invoke data` (default: random scaling)",
    "store": "folder of prepared faces", "out": "folder of the run (default runs/WHAT)", "seed": "seed of split and draws"})
@_guarded
def train(c, what, data="lfw", profile="mini", case=None, steps=None, minutes=None, batch=None, lr=None, precision="no",
          compile=False, every="5000", saves="5", init=None, degradation=None, store="store", out=None, seed=None):
    """Train a network of ours; the same command resumes."""
    from fsrbench.engine.options import decimal, open_store, whole
    from fsrbench.training.export import train_named
    from fsrbench.training.loop import TrainOptions

    limit = decimal("minutes", minutes)
    count = whole("steps", steps, 1) if steps else None if limit else 60000
    options = TrainOptions(count, limit, whole("batch", batch, 1), decimal("lr", lr), precision=precision,
                           every=whole("every", every, 1), saves=decimal("saves", saves), compile=compile)
    path = train_named(what, options, out, data=data, store=open_store(store), profile=profile,
                       case=whole("case", case), seed=whole("seed", seed or 0), init=init, degradation=degradation)
    print(f"checkpoint: {path}")


@task(help={"data": _FACES, "out": "file to write (default lfw.npz, by the data set's name)", "profile": "mini or paper",
            "seed": "seed of the split", "store": "folder of prepared faces"})
@_guarded
def bank(c, data="lfw", out=None, profile="mini", seed=None, store="store"):
    """Write the faces of a data set as one file, to train from where the data set and its detectors are not."""
    from fsrbench.engine.options import open_store, whole
    from fsrbench.training.bank import copy_bank

    print(copy_bank(data, out, open_store(store), profile, whole("seed", seed or 0)))


@task(help={"what": _TRAINED, "checkpoint": "of `invoke train` (default runs/WHAT/checkpoint.pt)",
            "to": "safetensors file to write (default methods/weights/WHAT-PROFILE.safetensors)", "data": _FACES,
            "profile": "mini or paper", "case": "variant of the ablation, 0 to 5", "store": "folder of prepared faces",
            "seed": "seed", "degradation": "that landmarks were trained on, for the card"})
@_guarded
def export(c, what, checkpoint=None, to=None, data="lfw", profile="mini", case=None, degradation=None, store="store",
           seed=None):
    """Write a trained network's EMA and its model card."""
    from fsrbench.engine.options import open_store, whole
    from fsrbench.training.export import export_named

    print(export_named(what, checkpoint, to, data=data, store=open_store(store), profile=profile,
                       case=whole("case", case), seed=whole("seed", seed or 0), degradation=degradation))


@task(help={"profile": _RUN_HELP["profile"], "data": _DATA, "scale": "factor; may be repeated (default 4, 8 and 16)",
            "degradation": "see `invoke data` (default bicubic)", "people": "so many people (default: all that are drawn)",
            "store": "folder of prepared faces", "seed": "seed of the split"}, iterable=["scale"])
@_guarded
def landmarks(c, profile="mini", data=None, scale=None, degradation="bicubic", people=None, store="store", seed=None):
    """Errors of the landmarks that are found on LR pictures, by detector."""
    from fsrbench.engine.options import open_store, whole
    from fsrbench.profiles import get_profile
    from fsrbench.reports.tables.landmarks import SCALES, report

    chosen, scales = get_profile(profile), tuple(whole("scale", s, 1) for s in scale) or SCALES
    print(report(chosen, data or chosen.data, scales, degradation, open_store(store), whole("people", people, 1),
                 whole("seed", seed or 0)))


@task(help={
    "image": "picture with the face, of any size", "album": "folder of pictures of the same person, of any size",
    "method": "see `invoke methods` (default: idfsr.ft with an album, codeformer without)",
    "scale": "factor 4, 8, 16 or 32 (default: what the face's resolution needs)",
    "aligned": "the picture is cut to an upright face already; do not look for it",
    "profile": "mini (64 px) or paper (256 px)", "seed": "seed of the noise (default 0)",
    "store": "folder of prepared faces and fits (default store)", "out": "folder for the pictures (default out)"})
@_guarded
def restore(c, image, album=None, method=None, scale=None, aligned=False, profile="mini", seed=None, store="store", out="out"):
    """Restore the face of a picture with the person's album."""
    from pathlib import Path

    from fsrbench import restore as engine
    from fsrbench.engine.options import open_store, whole
    from fsrbench.profiles import get_profile
    from fsrbench.reports.pages.restored import notice, write

    chosen, kept = get_profile(profile), open_store(store)
    made = engine.open_method(method or ("idfsr.ft" if album else "codeformer"), chosen)
    face = engine.locate_face(Path(image).expanduser(), chosen, whole("scale", scale, 1), aligned)
    pictures, left_out = engine.open_album(Path(album).expanduser(), chosen, kept) if album else ([], engine.Excluded())
    restored = engine.restore(made, face, pictures, left_out, kept, whole("seed", seed or 0))
    for line in left_out.lines():
        print(f"note: album: {line}")
    print(f"x{face.scale}, face of {face.side:.0f} pixels, landmarks: {face.landmarks.source}. {notice(made, restored)}")
    print("written: " + ", ".join(map(str, write(restored, made, Path(image), Path(out)))))


@task
@_guarded
def bench(c):
    """How fast the parts are on this machine."""
    from fsrbench.reports.gate.bench import report

    print(report())


@task(help={"only": "only tests whose name contains this", "all": "also those of full-size networks"})
def test(c, only=None, all=False):
    """Run the tests, one worker for each core."""
    words = [sys.executable, "-m", "pytest", "-n", "logical", "--maxprocesses", "8", *([] if all else ["-m", "not full"])]
    # A worker has one core.
    result = c.run(shlex.join([*words, *(["-k", only] if only else [])]), warn=True, pty=False,
                   env={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")})
    if result.exited:
        raise Exit("error: tests failed", code=result.exited)
