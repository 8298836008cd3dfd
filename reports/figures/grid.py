"""Grids of images: upsampled by repeating pixels, so that what is seen is what was measured, with
zoomed details."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsrbench.reports.figures import style

# Images are brought to at least so many pixels a side, as some viewers smooth small ones.
_LEAST = 256
# Inches: gaps between columns and rows, height of a line of text, room for labels at the left.
GAP, LINE, LABEL = 0.03, 0.115, 0.3


@dataclass(frozen=True)
class Box:
    """A square detail of an image, in pixels of the HQ image: left, top, side; with the colour of
    its frame."""

    left: int
    top: int
    side: int
    colour: str


@dataclass(frozen=True)
class Panel:
    """An image of a grid.

    Args:
        image: uint8 (h, w, 3); None for a place that stays empty.
        text: below it; several lines are allowed.
        missing: what stands in an empty place.
        triangles: points (N, 2) and simplices (M, 3), drawn over it as lines; None for none.
    """

    image: np.ndarray | None = None
    text: str = ""
    missing: str = ""
    triangles: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Row:
    """A row of panels.

    Args:
        label: at the left, written upwards.
        boxes: details of every image, upsampled below it; the last panel with an image shows where
            they are.
        rule: a double dashed line above, as between the paper's scales.
        titles: headings of this row; empty for none.
    """

    label: str
    panels: list[Panel]
    boxes: tuple[Box, ...] = ()
    rule: bool = False
    titles: tuple[str, ...] = ()


def enlarge(image: np.ndarray, least: int = _LEAST) -> np.ndarray:
    """An image whose pixels are repeated to at least that side."""
    factor = max(1, -(-least // image.shape[0]))
    return image.repeat(factor, 0).repeat(factor, 1)


def detail_boxes(points: np.ndarray, size: int) -> tuple[Box, ...]:
    """The right half of the eyes' region and the mouth of a face with 68 landmarks, as squares
    inside the image."""
    boxes = []
    for part, colour in ((points[36:42], style.PALETTE[1]), (points[48:68], style.PALETTE[0])):
        side = min(size, int(np.ceil(max(np.ptp(part, axis=0)) * 1.35)))
        corner = np.clip(np.round(part.mean(0) - side / 2), 0, size - side).astype(int)
        boxes.append(Box(int(corner[0]), int(corner[1]), side, colour))
    return tuple(boxes)


def crop(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """The detail of an image that may be smaller than HQ: whole pixels of it that cover the box,
    never interpolated."""
    factor = size // image.shape[0]
    left, top = box.left // factor, box.top // factor
    right, bottom = -(-(box.left + box.side) // factor), -(-(box.top + box.side) // factor)
    fine = image[top:bottom, left:right].repeat(factor, 0).repeat(factor, 1)
    y, x = box.top - top * factor, box.left - left * factor
    return fine[y:y + box.side, x:x + box.side]


def _heights(rows: list[Row], cell: float) -> list[tuple[float, float, float, float]]:
    """Inches of each row: rule, headings, details, text."""
    return [(0.1 if row.rule else 0, LINE * max((t.count("\n") + 1 for t in row.titles), default=0)
             + 0.02, (cell - GAP) / 2 + GAP if row.boxes else 0,
             LINE * max((p.text.count("\n") + bool(p.text) for p in row.panels), default=0))
            for row in rows]


def image_grid(rows: list[Row], width: float = style.TWO_COLUMNS, size: int = 64,
               columns: int = 0, below: float = 0.0):
    """A matplotlib figure of rows of panels.

    Args:
        width: inches; size: side of HQ images, in whose pixels boxes and landmarks are given.
        columns: how many fit side by side; 0 for as many as the longest row has. below: inches left
            free at the foot.

    Returns:
        The figure; its panels are as wide as the columns allow, its height follows.
    """
    columns = columns or max(len(row.panels) for row in rows)
    label = LABEL if any(row.label for row in rows) else 0.02
    cell = (width - label - GAP * columns) / columns
    heights = _heights(rows, cell)
    total = sum(cell + sum(parts) + GAP for parts in heights) + 0.03 + below
    figure = style.canvas(width, total, None)
    page, y = (width, total + style.FOOT), total + style.FOOT
    for row, (rule, head, detail, text) in zip(rows, heights):
        if row.rule:
            _double_rule(figure, (y - rule / 2) / page[1])
        y -= rule + head
        _row(figure, row, label, y, cell, page, size, text)
        y -= cell + detail + text + GAP
    return figure


def _double_rule(figure, y: float) -> None:
    from matplotlib.lines import Line2D

    height = figure.get_figheight()
    for shift in (-0.012, 0.012):
        figure.add_artist(Line2D([0.005, 0.995], [y + shift / height] * 2, color=style.GREY,
                                 linewidth=0.5, linestyle=(0, (4, 3))))


def _row(figure, row: Row, left: float, top: float, cell: float, page: tuple[float, float],
         size: int, text: float) -> None:
    """One row whose images' upper edge is `top` inches above the page's lower edge."""
    if row.label:
        figure.text(0.07 / page[0], (top - cell / 2) / page[1], row.label, rotation=90, va="center",
                    ha="left", fontsize=6.5)
    shown = [i for i, p in enumerate(row.panels) if p.image is not None]
    for i, panel in enumerate(row.panels):
        x = left + i * (cell + GAP)
        if i < len(row.titles):
            figure.text((x + cell / 2) / page[0], (top + 0.02) / page[1], row.titles[i],
                        ha="center", va="bottom", fontsize=6.5)
        axis = _axis(figure, x, top, cell, page)
        _show(axis, panel, size)
        if panel.image is not None:
            _details(figure, axis, row.boxes, panel, (x, top - cell - GAP, cell), page, size,
                     mark=i == shown[-1])
        below = top - cell - ((cell - GAP) / 2 + GAP if row.boxes else 0)
        figure.text((x + cell / 2) / page[0], (below - 0.015) / page[1], panel.text, ha="center",
                    va="top", fontsize=6, linespacing=1.15)


def _axis(figure, x: float, top: float, side: float, page: tuple[float, float]):
    axis = figure.add_axes((x / page[0], (top - side) / page[1], side / page[0], side / page[1]))
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis


def _show(axis, panel: Panel, size: int) -> None:
    edge = (-0.5, size - 0.5)
    if panel.image is None:
        if panel.missing:
            axis.set_facecolor("#f0f0f2")
            axis.text(0.5, 0.5, panel.missing, transform=axis.transAxes, ha="center", va="center",
                      fontsize=6, color=style.GREY)
        else:
            axis.set_axis_off()
        return
    axis.imshow(enlarge(panel.image), extent=(*edge, *edge[::-1]), interpolation="none",
                aspect="auto")
    if panel.triangles:
        points, simplices = panel.triangles
        axis.triplot(*points.T, simplices, color="white", linewidth=0.9, alpha=0.55)
        axis.triplot(*points.T, simplices, color=style.PALETTE[0], linewidth=0.4)
        axis.plot(*points.T, ".", color=style.PALETTE[5], markersize=1.8)
        axis.set_xlim(*edge)
        axis.set_ylim(*edge[::-1])


def _details(figure, axis, boxes: tuple[Box, ...], panel: Panel, place: tuple[float, float, float],
             page: tuple[float, float], size: int, mark: bool) -> None:
    from matplotlib.patches import Rectangle

    x, top, cell = place
    side = (cell - GAP) / 2
    for i, box in enumerate(boxes):
        inset = _axis(figure, x + i * (side + GAP), top, side, page)
        inset.imshow(enlarge(crop(panel.image, box, size), 128), interpolation="none",
                     aspect="auto")
        for spine in inset.spines.values():
            spine.set(visible=True, color=box.colour, linewidth=0.9,
                      linestyle=("-", (0, (2, 1)))[i])
        if mark:
            axis.add_patch(Rectangle((box.left - 0.5, box.top - 0.5), box.side, box.side,
                                     fill=False, edgecolor=box.colour,
                                     linewidth=0.9, linestyle=("-", (0, (2, 1)))[i]))
