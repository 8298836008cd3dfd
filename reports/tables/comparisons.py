"""The paper's comparisons, Tables 1, 2, 3 and 5: which methods, scales, metrics and data each has,
and how it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fsrbench.engine.plan import Options
from fsrbench.engine.run import Outcome, Run
from fsrbench.engine.store import Store, write_files
from fsrbench.reports.pages.chart import chart
from fsrbench.reports.pages.html import table_page
from fsrbench.reports.tables.render import latex, markdown, tidy
from fsrbench.reports.tables.table import Table, build

# General networks with published weights: what any face method must beat, below the controls.
GENERAL = ("realesrgan", "realsr", "srmd")
# A generator without a network that restores: a search for the face that is I_L when downsampled.
SEARCHED = "pulse.official-prior"
# The paper's order: restorers that know no person, then those that do.
_REFERENCE = ("asffnet", "asffnet-oracle", "dmdnet", "dmdnet-oracle")
METHODS = ("bicubic", "reference", *GENERAL, SEARCHED, "codeformer", "pgdiff", "dr2", "difface",
           "stablesr", "dpi", *_REFERENCE, "idfsr.pt", "idfsr.ft", "idfsr.noref")
# Table 3 has neither of the two newest; Tables 2 and 5 have IDFSR only as fitted.
_WITHOUT_NEWER = tuple(m for m in METHODS if m not in ("stablesr", "dpi"))
_FITTED = tuple(m for m in _WITHOUT_NEWER
                if m not in ("idfsr.pt", "idfsr.noref", *GENERAL, SEARCHED))
# Beside the paper's metrics: others of their kind whose weights can be had.
OTHERS = ("lpips-vgg", "dists", "brisque", "niqe")
# Whether it is this person rather than another, by two judges that no method here has seen.
IDENTITY = ("gap.people-truthpoints@dlib", "gap.people-truthpoints@frfeature",
            "rank1.people-truthpoints@frfeature")
# The paper's seven, each followed by what stands in for it where its weights cannot be had, and by
# those others; verification, and what sets a face apart from others.
_RESTORATION = ("psnr", "ssim", "lpips", "lpips-vgg", "dists", "fid", "kid", "fd", "kd", "clipiqa",
           "musiq", "piqe", "brisque", "niqe", "ids.cosine@dlib")
METRICS = (*_RESTORATION, "idv.0.07@dlib", *IDENTITY)


@dataclass(frozen=True)
class Comparison:
    """A table of methods by metrics.

    Args:
        name: file stem; caption: what it compares.
        scales, methods, metrics: defaults of the command.
        data: `--data` of the paper profile, and of the published numbers.
    """

    name: str
    caption: str
    scales: tuple[str, ...]
    methods: tuple[str, ...] = METHODS
    metrics: tuple[str, ...] = METRICS
    data: str = "celebref-hq"


COMPARISONS = {entry.name: entry for entry in (
    Comparison("table1", "Table 1: restoration", ("8", "16")),
    Comparison("table2", "Table 2: verification and attributes", ("16",), _FITTED,
               ("idv.0.07@dlib", "gender", "emotion", "race", "age")),
    Comparison("table3", "Table 3: restoration at other factors", ("4", "32"), _WITHOUT_NEWER),
    Comparison("table5-casia", "Table 5: other data", ("16",), _FITTED,
               ("fid", "kid", "fd", "kd", "clipiqa", "musiq", "piqe", "ids.cosine@dlib"),
               "casia-webface"),
    Comparison("table5-celebv", "Table 5: other data", ("16",), _FITTED,
               _RESTORATION, "celebv-text"),
)}
TABLE1 = COMPARISONS["table1"]


def write(table: Table, outcome: Outcome, out: Path) -> list[Path]:
    """Write a table as Markdown, CSV, LaTeX, SVG chart and HTML; returns the paths."""
    drawn = chart(table)
    texts = {"md": markdown(table), "csv": tidy(table), "tex": latex(table), "svg": drawn,
             "html": table_page(table, outcome, drawn)}
    return write_files(out, {f"{table.name}.{suffix}": text for suffix, text in texts.items()})


def make(comparison: Comparison, options: Options, store: Store,
         out: Path) -> tuple[Table, list[Path]] | int:
    """Run what is missing and write the table.

    Returns:
        The table and its files; or, for a shard whose siblings are not done, how many records are
        missing.
    """
    run = Run(options, store)
    outcome = run.execute()
    if outcome.missing and run.world > 1:
        return outcome.missing
    table = tabulate(comparison, outcome)
    return table, write(table, outcome, out)


def tabulate(comparison: Comparison, outcome: Outcome) -> Table:
    """The table of a finished run."""
    options = outcome.options
    title = f"{comparison.caption} ({options.data.split(':')[0]}, profile {options.profile.name})"
    return build(outcome, comparison.name, title, options.metrics, comparison.data)
