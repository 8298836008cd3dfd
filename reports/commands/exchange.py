"""Result files: written from records, and checked by anyone."""

from invoke import Exit

from fsrbench.reports.commands.common import RUN_HELP, guarded, task

_RUN_OPTIONS = ("profile", "data", "scale", "method", "people", "seed", "batch", "store",
                "precision", "degradation", "split", "references")
_SCORE_HELP = {"truth": "folder of the ground truths, as of `invoke score`",
               "persons": "CSV file with the columns image and person, as of `invoke score`"}


@task(name="export-results", help={
    **{name: RUN_HELP[name] for name in _RUN_OPTIONS}, **_SCORE_HELP,
    "metric": "metric, may be repeated (default: those of Table 1)",
    "restored": "folder of outputs, [NAME=]PATH, with --truth instead of --method and --data; may "
                "be repeated",
    "allow": "score also outputs that are jpeg, alpha or 16-bit; may be repeated",
    "submitter": "who publishes the file", "relation": "author, third party or organiser",
    "timed": "restore one image of each method alone, for seconds and memory",
    "out": "folder for the files, or a file NAME.parquet for a single method (default results)"},
      iterable=["scale", "method", "metric", "restored", "allow"])
@guarded
def export_results(c, profile="mini", data=None, scale=None, method=None, people=None, seed=None,
                   batch=None, store="store", out="results", precision="float32",
                   degradation="bicubic", metric=None, split=None, references=None, restored=None,
                   truth=None, persons=None, allow=None, submitter="", relation="not said",
                   timed=False):
    """Write a result file for each method: every sample's value, and all that decides it.

    What is not in the store is computed, as by `invoke table1` or, with --restored and --truth, by
    `invoke score`.
    """
    from fsrbench.engine.fixed import Fixed
    from fsrbench.engine.options import open_store, plan
    from fsrbench.engine.options import split as words
    from fsrbench.engine.run import Run
    from fsrbench.engine.scoring import Asked, score
    from fsrbench.exchange.collect import export
    from fsrbench.reports.tables.comparisons import IDENTITY, TABLE1

    records, metrics = open_store(store), words(metric) or TABLE1.metrics
    if restored or truth:
        usual = [name for name in metrics if metric or name not in IDENTITY]
        run = score(Asked(restored or (), truth, persons=persons, metrics=usual,
                          allow=words(allow), seed=seed), records)
    else:
        run = Run(plan(profile, data, scale or TABLE1.scales, method, metrics, people, seed, batch,
                       precision, TABLE1.methods, degradation,
                       fixed=Fixed(split or "", references or "")), records)
    print("written: " + ", ".join(map(str, export(run, out, submitter, relation, timed))))


@task(positional=["file"], help={
    "file": "result file, NAME.parquet",
    "images": "folder of the restored images, PERSON/IMAGE.png, or with folders x8, x16, ... in it",
    "data": RUN_HELP["data"].partition(":")[0] + " that the file is of (default: what it says)",
    **_SCORE_HELP, "split": RUN_HELP["split"], "references": RUN_HELP["references"],
    "rerun": "do not run the method again",
    "store": "folder of prepared faces, images and fits (default store)"})
@guarded
def verify(c, file, images=None, data="", truth="", persons=None, split=None, references=None,
           rerun=True, store="store"):
    """Recompute a result file's numbers as far as that can be done here, and fail on a mismatch."""
    from fsrbench.engine.fixed import Fixed
    from fsrbench.engine.options import open_store
    from fsrbench.exchange.record import read
    from fsrbench.exchange.rescoring import Given, report
    from fsrbench.exchange.rescoring import verify as follow

    given = Given(data, truth, persons, Fixed(split or "", references or ""))
    verdict = follow(read(file), open_store(store), given, images, rerun)
    print(report(verdict), end="")
    if verdict.mismatches:
        raise Exit(f"error: {len(verdict.mismatches)} mismatches", code=1)


@task(positional=["files"], help={
    "files": "result file or a folder of them; several with commas between",
    "images": "folder of images to show, where their pixels are those that a file names",
    "out": "folder of the site (default board)"})
@guarded
def board(c, files, images=None, out="board"):
    """Write a static site over result files: a table for each set that may be compared, costs,
    robustness, history, a page for each method and sample; a file that does not hold is refused."""
    from pathlib import Path

    from fsrbench.reports.board.site import board as write

    several = [files] if Path(files).expanduser().exists() else files.split(",")
    paths, refused = write(several, out, images)
    for one in refused:
        print(f"refused {one.path}: {one.reasons[0]}")
    print(f"written: {paths[0]} and {len(paths) - 1} more files")
