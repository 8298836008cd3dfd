"""The one look of all figures: sizes of a printed page, colours that the colour-blind tell apart,
and the files' bytes."""

from __future__ import annotations

import io

# Inches: a column and the whole width of a two-column page.
ONE_COLUMN, TWO_COLUMNS = 3.35, 6.9
# Inches kept free at the foot for the line that says what the figure is of.
FOOT = 0.2
DPI = 300

# Okabe and Ito's colours without the yellow, which is lost on white; with a marker and a hatch
# each, as a print may be grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (4, 1.5, 1, 1.5)), (0, (7, 2)), (0, (2, 2)),
          (0, (1, 3)))
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++")
GREY, PALE = "#5f5f66", "#d9d9de"

_RC = {
    "font.family": "sans-serif", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False, "legend.handlelength": 3,
    "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "grid.linewidth": 0.4, "grid.color": PALE,
    "axes.grid.axis": "y",
    "axes.axisbelow": True, "hatch.linewidth": 0.5, "svg.fonttype": "none",
    "figure.facecolor": "white",
}


def use(name: str):
    """Context in which a figure is drawn: text stays text, and element ids depend on `name`
    alone."""
    import matplotlib

    return matplotlib.rc_context({**_RC, "svg.hashsalt": name})


def canvas(width: float, height: float, layout: str | None = "constrained"):
    """A matplotlib figure of that size in inches plus the foot, which a layout leaves free."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height + FOOT), layout=layout)
    if layout:
        share = FOOT / (height + FOOT)
        figure.get_layout_engine().set(rect=(0, share, 1, 1 - share))
    return figure


def foot(figure, text: str) -> None:
    """Write the line at the foot."""
    figure.text(0.01, 0.05 / figure.get_figheight(), text, fontsize=5.5, color=GREY, ha="left",
                va="bottom")


def svg(figure, head: str = "") -> str:
    """A figure as an SVG element on white, without date or other traces of when it was drawn.

    Args:
        head: elements put first, such as title and description.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None,
                                                 "Type": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg"):]
    end = drawn.index(">") + 1
    return f'{drawn[:end - 1]} role="img">{head}{drawn[end:]}'


def png(figure) -> bytes:
    """A figure as PNG at print resolution."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    return data.getvalue()


def wrap(text: str, width: int) -> str:
    """Text broken at spaces into lines of at most so many characters."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
