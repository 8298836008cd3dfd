"""The commands: `invoke --list`, `invoke TASK --help`. Heavy packages are imported inside the
bodies."""

import os
import shlex
import sys

from invoke import Exit

from fsrbench.reports.commands.bench import bench
from fsrbench.reports.commands.common import (
    DATA,
    RUN_HELP,
    NumberTask,
    guarded,
    show,
    task,
)
from fsrbench.reports.commands.exchange import board, convert_results, export_results, verify
from fsrbench.reports.commands.faces import faces
from fsrbench.reports.commands.identity import identity
from fsrbench.reports.commands.outputs import inputs, protocols, score
from fsrbench.reports.commands.probe import probe
from fsrbench.reports.commands.tables import (
    TABLE_HELP,
    fixed,
    table1,
    table2,
    table3,
    table5,
)
from fsrbench.reports.commands.training import bank, export, landmarks, train

__all__ = ["bank", "bench", "board", "convert_results", "export", "export_results", "faces",
           "identity", "inputs", "landmarks", "probe", "protocols", "score", "table1", "table2",
           "table3", "table5", "train", "verify"]


@task(help={"out": "folder for the table (default out)"})
@guarded
def table4(c, out="out"):
    """Table 4: the architecture, read from the configurations in code."""
    from fsrbench.reports.tables import table4 as report

    paths = report.table4(out)
    show(paths)


@task(help={
    "name": "a degradation of `invoke data`, or severity for its ten levels",
    "image": "image; its centre square is taken",
    "scale": "factor 4, 8, 16 or 32; may be repeated (default all; for severity full size)",
    "id": "sample id that the draws belong to (default the file's name)",
    "out": "PNG to write (default out/degrade-NAME-IMAGE-DIGEST.png)"},
      iterable=["scale"])
@guarded
def degrade(c, name, image, scale=None, id=None, out=None):
    """Show what a degradation makes of an image, as a ladder."""
    from fsrbench.reports.pages.ladder import ladder

    print(ladder(name, image, scale, id, out))


@task(help=TABLE_HELP, iterable=["scale", "method"])
@guarded
def report(c, profile="mini", data=None, scale=None, method=None, people=None, seed=None,
           batch=None, store="store",
           out="out", precision="float32", fresh=False, retry_failed=False, degradation="bicubic",
           split=None, references=None):
    """One HTML page: tables, every sample, failures, origins."""
    from fsrbench.engine.options import open_store, plan
    from fsrbench.reports.pages import report as pages
    from fsrbench.reports.tables.comparisons import TABLE1

    options = plan(profile, data, scale or TABLE1.scales, method, TABLE1.metrics, people, seed,
                   batch, precision,
                   TABLE1.methods, degradation, retry_failed, fixed(split, references))
    print(f"written: {pages.report(options, open_store(store, fresh and options, out), out)}")


_READ_HELP = {name: text for name, text in RUN_HELP.items() if name not in ("fresh", "degradation")}


@task(help={**_READ_HELP, "scale": "factor, may be repeated (default 4, 8, 16 and 32)",
            "store": "folder of the records; what is not there is not computed (default store)"},
      iterable=["scale", "method"])
@guarded
def claims(c, profile="mini", data=None, scale=None, method=None, people=None, seed=None,
           batch=None, store="store", out="out", precision="float32", split=None, references=None):
    """Which claims of the paper hold: on its own tables, on our records."""
    from fsrbench.engine.options import open_store
    from fsrbench.reports.gate import audit as report

    records = open_store(store, out=out)
    options = report.claims_plan(profile, data, scale, method, people, seed, batch, precision,
                                 fixed(split, references))
    outcome = report.gather(options, records)
    paths = report.write(report.audit(outcome, records), outcome, out)
    show(paths)


@task(help={**{name: text for name, text in _READ_HELP.items()
               if name not in ("split", "references")},
            "store": "folder of the records; what is missing is computed (default store)",
            "fixtures": "folder of parity fixtures (default: those of the repository)",
            "goldens": "CSV file of goldens (default reports/goldens/PROFILE.csv)",
            "accept": "make the present numbers the goldens",
            "reason": "why, for --accept; kept in the goldens' log"},
      iterable=["scale", "method"])
@guarded
def regress(c, profile="mini", data=None, scale=None, method=None, people=None, seed=None,
            batch=None, store="store",
            out="out", precision="float32", fixtures=None, goldens=None, accept=False, reason=""):
    """Which numbers and claims still hold: goldens, parity, calibration."""
    if reason and not accept:
        raise Exit("error: --reason: is for --accept", code=2)
    from pathlib import Path

    from fsrbench.engine.options import open_store, plan
    from fsrbench.reports.gate import regress as report
    from fsrbench.reports.gate.goldens import default_path
    from fsrbench.reports.tables.comparisons import TABLE1

    options = plan(profile, data, scale or TABLE1.scales, method, TABLE1.metrics, people, seed,
                   batch, precision, TABLE1.methods)
    where = (open_store(store, out=out), report.fixtures_folder(fixtures), Path(goldens) if goldens
             else default_path(profile))
    if accept:
        changes = report.accept(options, *where, reason)
        print("\n".join([*changes, f"accepted: {len(changes)} changes, written to {where[2]}"]))
        return
    found = report.regress(options, *where)
    paths = report.write(found, out)
    show(paths)
    if found.failed:
        raise Exit(f"error: {len(found.failed)} checks failed", code=1)


@task(help={"out": "folder for the table (default out)",
            "no-times": "count only; building and timing takes a minute or two",
            "store": "folder of the records, where the claims find the counts and times (default "
                     "store)"})
@guarded
def table6(c, out="out", no_times=False, store="store"):
    """Table 6: parameters, operations, calls and time of each method."""
    from fsrbench.engine.options import open_store
    from fsrbench.reports.tables import table6 as report

    paths = report.table6(out, not no_times, open_store(store, out=out))
    show(paths)


_ANALYSIS = ("profile", "data", "people", "seed", "store", "out", "split", "references")


@task(help={**{name: RUN_HELP[name] for name in _ANALYSIS},
            "validate": "instead measure MINE on Gaussians of known "
            "mutual information, and fail if one estimate is 15 % off"})
@guarded
def analysis(c, profile="mini", data=None, people=None, seed=None, store="store", out="out",
             validate=False, split=None, references=None):
    """How far z_id and z_s depend on each other: MINE, CCA, Fig. 13."""
    from fsrbench.engine.options import open_store, plan
    from fsrbench.reports.analysis import report
    from fsrbench.reports.analysis.embeddings import METHOD

    if validate:
        paths, outside = report.validation(open_store(store, out=out), out)
    else:
        options = plan(profile, data, (8,), [METHOD], [], people, seed, None,
                       fixed=fixed(split, references))
        paths, outside = report.analysis(options, open_store(store, out=out), out), 0
    show(paths)
    if outside:
        raise Exit(f"error: {outside} estimates are off", code=1)


@task(help={
    "number": "number of a figure; may be repeated (default: all)",
    "profile": RUN_HELP["profile"], "data": DATA
    + "; may be repeated, figure 12 has a part for each",
    "method": "method of the grids 4 and 12; may be repeated (default: the paper's)",
    "people": RUN_HELP["people"],
    "seed": RUN_HELP["seed"], "batch": RUN_HELP["batch"], "store": RUN_HELP["store"],
    "out": "folder for the figures (default out)", "split": RUN_HELP["split"],
    "references": RUN_HELP["references"]},
      iterable=["number", "data", "method"], klass=NumberTask)
@guarded
def figure(c, number=None, profile="mini", data=None, method=None, people=None, seed=None,
           batch=None, store="store", out="out", split=None, references=None):
    """Figures of the paper: image, caption and numbers of each."""
    from fsrbench.reports.figures.draw import draw

    code = draw(number or (), profile, data or (), method or (), people, seed, batch, store, out,
                fixed(split, references))
    if code:
        raise Exit("error: not every figure could be drawn", code=code)


@task(help={
    "case": "variant 1 to 5, beside the default (0); may be repeated (default: all whose weights "
            "are here)",
    **{name: text for name, text in RUN_HELP.items() if name not in ("method", "precision", "fresh",
                                                                     "scale", "degradation")},
    "scale": "factor 4, 8, 16 or 32; may be repeated (default 16)"}, iterable=["case", "scale"])
@guarded
def ablation(c, case=None, profile="mini", data=None, scale=None, people=None, seed=None,
             batch=None, store="store", out="out", split=None, references=None):
    """Ablation of the components (Fig. 8): raw table and normalised."""
    from fsrbench.engine.options import open_store, plan, whole
    from fsrbench.reports.tables import ablation as report

    methods = report.methods_of([whole("case", x) for x in case or ()])
    options = plan(profile, data, scale or report.SCALES, methods, report.METRICS, people, seed,
                   batch, defaults=report.METHODS, fixed=fixed(split, references))
    paths = report.ablation(options, open_store(store, out=out), out)
    show(paths)


@task(help={"fixtures": "folder of NAME-*.npz and NAME.json (default: those of the repository)"})
@guarded
def parity(c, fixtures=None):
    """Compare networks and samplers with recorded official ones."""
    from fsrbench.proof.parity import default_folder, report
    from fsrbench.weights.places import device

    device()
    text, failed = report(fixtures or default_folder())
    print(text)
    if failed:
        raise Exit(f"error: {failed} comparisons failed", code=1)


@task(help={"get": "fetch this file, verify it, put it into the cache"})
@guarded
def weights(c, get=None):
    """Weight files: what is here, what is missing, what each enables."""
    from fsrbench.listing import fetched, weights_table

    print(fetched(get) if get else weights_table())


@task(help={**{name: RUN_HELP[name] for name in ("profile", "people", "seed", "batch", "store",
                                                 "out", "precision", "split", "references")},
            "data": DATA
            + "; may be repeated: casia-webface and celebv-text are Table 5's, the first of all is "
              "the others'"},
      iterable=["data"])
@guarded
def paper(c, profile="mini", data=None, people=None, seed=None, batch=None, store="store",
          out="out", precision="float32", split=None, references=None):
    """Every table and figure, the analysis, the claims and the report."""
    sets = list(data or [])
    run = dict(profile=profile, data=sets[0] if sets else None, people=people, seed=seed,
               store=store, out=out, split=split, references=references)
    batched = {**run, "batch": batch}
    exact = {**batched, "precision": precision}
    others = [s for s in sets if s.startswith(("casia-webface", "celebv-text"))] or [run["data"]]
    parts = [("Table 1", table1, exact), ("Table 2", table2, exact), ("Table 3", table3, exact),
             ("Table 4", table4, {"out": out}), *[("Table 5", table5, {**exact, "data": s})
                                                  for s in others],
             ("Table 6", table6, {"out": out, "store": store}), ("ablation", ablation, batched),
             ("analysis", analysis, run),
             ("figures", figure, {**batched, "data": sets}), ("claims", claims, exact),
             ("report", report, exact)]
    from fsrbench.engine.options import check_data, open_store, plan

    # What is wrong with all parts is said once, before any.
    plan(profile, run["data"], (), (), (), people, seed, batch, precision,
         fixed=fixed(split, references))
    check_data(sets, open_store(store, out=out))
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
        raise Exit(f"error: {len(failed)} of {len(parts)} parts failed: {', '.join(failed)}",
                   code=1)


@task
@guarded
def methods(c):
    """Registered methods: weights, needs, origin, licence."""
    from fsrbench.listing import methods_table

    print(methods_table())


@task
@guarded
def data(c):
    """Registered data sets and degradations."""
    from fsrbench.listing import data_table

    print(data_table())


@task(positional=["name"], help={
    "name": "celebref-hq, casia-webface or celebv-text",
    "root": "folder that holds the data set as published",
    "threshold": "quality that an image or clip must have (default: the one that leaves the "
                 "paper's number of images)",
    "quality": "measure of quality: hyperiqa (default, the paper's; needs its weights) or piqe "
               "(needs none)",
    "seed": "of the draw and the halves (default: celebref-hq the first that gives the paper's "
            "counts, else 0)",
    "store": "folder of the records; the manifest goes into its manifests/ (default store)"})
@guarded
def prepare(c, name, root=None, threshold=None, quality=None, seed=None, store="store"):
    """Check a data set of the paper, select its images, freeze the split (resumable)."""
    from fsrbench.datasets.common.frozen import Choice, prepare_named
    from fsrbench.engine.options import decimal, open_store, whole

    choice = Choice(whole("seed", seed), decimal("threshold", threshold), quality)
    print(prepare_named(name, root, choice, open_store(store)))


@task(help={
    "image": "image with the face, of any size",
    "album": "folder of images of the same person, of any size",
    "method": "see `invoke methods` (default: idfsr.ft with an album, codeformer without; of those "
              "with published weights realsr is the sharpest, srmd nearest to the given pixels)",
    "scale": "factor 4, 8, 16 or 32, to downsample the face first (default: all its pixels)",
    "face": "number of the face, where the image shows several",
    "seed": "seed of the noise (default 0)",
    "aligned": "the image is cut to an upright face already; do not look for it",
    "profile": "mini (default, 64 px) or paper (256 px)",
    "store": "folder of prepared faces and fits (default store)",
    "out": "folder for the images (default out)"})
@guarded
def restore(c, image, album=None, method=None, scale=None, face=None, aligned=False, profile="mini",
            seed=None, store="store", out="out"):
    """Restore the face of an image with the person's album."""
    from pathlib import Path

    from fsrbench.engine.options import open_store, whole
    from fsrbench.profiles import get_profile
    from fsrbench.reports.pages.restored import run

    folder = Path(album).expanduser() if album else None
    records = open_store(store, out=out)
    print(run(Path(image).expanduser(), folder, method, get_profile(profile), records,
              Path(out).expanduser(), whole("scale", scale, 1), aligned, whole("face", face, 1),
              whole("seed", seed or 0)))


@task(help={"only": "only tests whose name contains this",
            "all": "also those of full-size networks, and those that measure much"})
def test(c, only=None, all=False):
    """Run the tests, one worker for each core."""
    words = [sys.executable, "-m", "pytest", "-n", "logical", "--maxprocesses", "8",
             *([] if all else ["-m", "not full"])]
    # A worker has one core.
    result = c.run(shlex.join([*words, *(["-k", only] if only else [])]), warn=True, pty=False,
                   env={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")})
    if result.exited == 5 and only:  # of pytest: none ran
        raise Exit(f"error: --only {only}: no test's name contains this", code=2)
    if result.exited:
        raise Exit("error: tests failed", code=result.exited)
