"""Table 1: quantitative comparison at x8 and x16 (paper 4.3)."""

from __future__ import annotations

from pathlib import Path

from fsrbench.errors import FsrError
from fsrbench.reports.chart import chart
from fsrbench.reports.html import table_page
from fsrbench.reports.render import latex, markdown, tidy
from fsrbench.reports.tables import Table, build
from fsrbench.run import Options, Outcome, Run
from fsrbench.store import Store, write_atomic

SCALES = ("8", "16")
# The paper's order: restorers that know no person, then those that do.
METHODS = ("bicubic", "reference", "codeformer", "pgdiff", "dr2", "difface", "stablesr", "dpi", "asffnet",
           "asffnet-oracle", "dmdnet", "dmdnet-oracle", "idfsr.pt", "idfsr.ft", "idfsr.noref")
# The paper's seven, each followed by what stands in for it where its weights cannot be had; and verification.
METRICS = ("psnr", "ssim", "lpips", "fid", "fd", "clipiqa", "musiq", "piqe", "ids.cosine@dlib", "idv.0.07@dlib")


def write(table: Table, outcome: Outcome, out: Path) -> list[Path]:
    """Write a table as Markdown, CSV, LaTeX, SVG chart and HTML; returns the paths."""
    texts = {"md": markdown(table), "csv": tidy(table), "tex": latex(table), "svg": chart(table),
             "html": table_page(table, outcome)}
    paths = []
    for suffix, text in texts.items():
        paths.append(Path(out) / f"{table.name}.{suffix}")
        try:
            write_atomic(paths[-1], text.encode())
        except OSError as error:
            raise FsrError(f"--out {out}", f"cannot be written ({error.strerror})", "give another folder") from None
    return paths


def table1(options: Options, store: Store, out: Path) -> tuple[Table, list[Path]] | int:
    """Run what is missing and write Table 1.

    Returns:
        The table and its files; or, for a shard whose siblings are not done, how many records are missing.
    """
    run = Run(options, store)
    outcome = run.execute()
    if outcome.missing and run.world > 1:
        return outcome.missing
    table = table1_of(outcome)
    return table, write(table, outcome, out)


def table1_of(outcome: Outcome) -> Table:
    """Table 1 of a finished run."""
    options = outcome.options
    return build(outcome, "table1", f"Table 1: {options.data.split(':')[0]}, profile {options.profile.name}",
                 options.metrics, "celebref-hq")
