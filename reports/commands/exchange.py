"""Result files: written from records, and checked by anyone."""

from invoke import Exit

from fsrbench.reports.commands.common import RUN_HELP, guarded, task

_RUN_OPTIONS = ("profile", "data", "scale", "method", "people", "seed", "batch", "store",
                "precision", "degradation", "split", "references")
_SCORE_HELP = {name: f"{text}, as of `invoke score`" for name, text in (
    ("truth", "folder of the ground truths"), ("lq", "folder of the degraded images"),
    ("persons", "CSV file with the columns image and person"))}
_FIXED_HELP = {name: f"{RUN_HELP[name]}; with --restored that of `invoke score`"
               for name in ("split", "references")}


@task(name="export-results", help={
    **{name: RUN_HELP[name] for name in _RUN_OPTIONS}, **_SCORE_HELP, **_FIXED_HELP,
    "metric": "metric, may be repeated (default: those of Table 1)",
    "restored": "folder of outputs, [NAME=]PATH, instead of --method and --data; may be repeated",
    "protocol": "metrics of a published evaluation, with --restored, see `invoke protocols`",
    "allow": "score also outputs that are jpeg, alpha or 16-bit; may be repeated",
    "submitter": "who publishes the file",
    "relation": "author, third party or organiser (default: not said)",
    "timed": "restore one image of each method alone, for seconds and memory",
    "out": "folder for the files, or a file NAME.parquet for a single method (default results)"},
      iterable=["scale", "method", "metric", "restored", "allow"])
@guarded
def export_results(c, profile="mini", data=None, scale=None, method=None, people=None, seed=None,
                   batch=None, store="store", out="results", precision="float32",
                   degradation="bicubic", metric=None, split=None, references=None, restored=None,
                   truth=None, lq=None, persons=None, allow=None, protocol=None, submitter="",
                   relation="not said", timed=False):
    """Write a result file for each method.

    It holds every sample's value, and all that decides it. What is not in the store is computed,
    as by `invoke table1` or, with --restored, by `invoke score`.
    """
    from fsrbench.engine.fixed import Fixed
    from fsrbench.engine.options import open_store, plan
    from fsrbench.engine.options import split as words
    from fsrbench.engine.run import Run
    from fsrbench.engine.scoring import score
    from fsrbench.exchange.collect import export
    from fsrbench.reports.tables.comparisons import TABLE1
    from fsrbench.reports.tables.score import asked_for

    records = open_store(store)
    if restored or truth or protocol:
        asked, _ = asked_for(protocol, words(metric), restored=restored or (), truth=truth,
                             references=references, lq=lq, persons=persons, split=split,
                             allow=words(allow), seed=seed)
        run = score(asked, records)
    else:
        run = Run(plan(profile, data, scale or TABLE1.scales, method,
                       words(metric) or TABLE1.metrics, people, seed, batch, precision,
                       TABLE1.methods, degradation,
                       fixed=Fixed(split or "", references or "")), records)
    print("written: " + ", ".join(map(str, export(run, out, submitter, relation, timed))))


@task(positional=["file"], help={
    "file": "result file, NAME.parquet",
    "images": "folder of the restored images, PERSON/IMAGE.png, or with folders x8, x16, ... in it",
    "data": RUN_HELP["data"].partition(":")[0] + " that the file is of (default: what it says)",
    **_SCORE_HELP, **_FIXED_HELP,
    "rerun": "do not run the method again",
    "store": "folder of prepared faces, images and fits (default store)"})
@guarded
def verify(c, file, images=None, data="", truth=None, lq=None, persons=None, split=None,
           references=None, rerun=True, store="store"):
    """Recompute a result file's numbers; fails on a mismatch."""
    from fsrbench.engine.options import open_store
    from fsrbench.exchange.record import read
    from fsrbench.exchange.rescoring import Given, report
    from fsrbench.exchange.rescoring import verify as follow

    given = Given(data, truth, lq, persons, split, references)
    verdict = follow(read(file), open_store(store), given, images, rerun)
    print(report(verdict), end="")
    if verdict.mismatches:
        raise Exit(f"error: {len(verdict.mismatches)} mismatches", code=1)


@task(positional=["files"], help={
    "files": "result file or a folder of them; several with commas between",
    "images": "folder of images to show, where their pixels are those that a file names",
    "rerun": "run each method again where that can be done here: the row says so, and a file that "
             "does not hold is refused",
    "store": "folder of prepared faces and fits, for --rerun (default store)",
    "out": "folder of the site (default board)"})
@guarded
def board(c, files, images=None, rerun=False, store="store", out="board"):
    """A static site over result files.

    It has a table for each set of files that may be compared, costs, robustness, history, and a
    page for each method and sample; a file that does not hold is refused.
    """
    from pathlib import Path

    from fsrbench.engine.options import open_store
    from fsrbench.reports.board.site import board as write

    several = [files] if Path(files).expanduser().exists() else files.split(",")
    paths, refused = write(several, out, images, open_store(store) if rerun else None)
    for one in refused:
        print(f"refused {one.path}: {one.reasons[0]}")
    if images:
        shown = sum(path.name.startswith("image-") for path in paths)
        print(f"shown: {shown} images of {images} whose pixels a file names")
    print(f"written: {paths[0]} and {len(paths) - 1} more files")


@task(name="convert-results", positional=["file"], help={
    "file": "result file, NAME.parquet",
    "to": "eee (default, every-eval-ever) or hf (Hugging Face's .eval_results)",
    "hf-dataset": "id of the benchmark's data set at Hugging Face, for --to hf",
    "url": "where the result file is published", "out": "folder for the file (default: beside it)"})
@guarded
def convert_results(c, file, to="eee", hf_dataset="", url="", out=None):
    """Write a result file for every-eval-ever or Hugging Face."""
    from pathlib import Path

    from fsrbench.engine.store import write_files
    from fsrbench.exchange.convert import convert
    from fsrbench.exchange.record import read

    record = read(file)
    suffix, text = convert(record, to, hf_dataset, url)
    name = f"{record.path.stem}.{suffix}"
    print(f"written: {write_files(Path(out or record.path.parent).expanduser(), {name: text})[0]}")
