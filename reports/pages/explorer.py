"""The report's explorer: every restoration of a run, by person, scale, method and metric.

A small run stands in the page. Of a large one the images, and the rows of each cell, lie beside it
in a folder and are read when they are shown.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import re
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from fsrbench.core import Sample
from fsrbench.engine.data import pooled
from fsrbench.engine.plan import Cell
from fsrbench.engine.run import Outcome
from fsrbench.engine.store import Store, told, write_atomic
from fsrbench.errors import FsrError
from fsrbench.progress import progress
from fsrbench.reports.pages.site import Section
from fsrbench.reports.tables.render import labelled

# Images are shown, not measured, from the page: lossy at this quality they take a third of their
# size.
QUALITY = 92
# Pixels of all restorations up to which they stand in the page: 12,000 of 64 px, 750 of 256 px.
EMBEDDED = 12_000 * 64 * 64
FOLDER = "explorer-data"
_OURS = re.compile(r"rows-\d+\.js|[0-9a-f]{64}\.webp")

HTML = """<p>Every restoration of the run. Images are compressed for viewing; the store has the
exact ones.</p>
<form id="filters" aria-label="Filter">
<label>Person <select name="person"><option value="">all</option></select></label>
<label>Scale <select name="scale"></select></label>
<label>Method <select name="method"><option value="">all</option></select></label>
<label>Worst first by <select name="metric"></select></label>
<label class="check"><input type="checkbox" name="best"> best first</label></form>
<p id="count" role="status"></p><div class="explorer"><ol id="cards"></ol>
<aside id="detail" aria-live="polite"><p>Choose an image.</p></aside></div>
<button id="more" type="button">Show more</button>"""


def section() -> Section:
    """The frame that the page's script fills."""
    return Section("explorer", "Explorer", HTML)


def _webp(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()


def _value(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.6g}")


def data(outcome: Outcome, out: Path) -> dict:
    """What the page's script reads: methods, metrics, and samples with their images or, of a large
    run, where these lie below `out`.

    Raises:
        FsrError: the folder cannot be written.
    """
    shared = {"methods": {c.method.name: labelled(c.method.title, c.method.weights)
                          for c in outcome.cells},
              "metrics": [{"id": m.id, "title": m.title, "direction": m.direction,
                           "digits": m.digits, "percent": m.percent}
                          for m in outcome.measures.per_sample]}
    pixels = len(outcome.cells) * len(outcome.samples.samples) * outcome.options.profile.size**2
    try:
        if pixels <= EMBEDDED:
            _clear(out / FOLDER)
            return {**_embedded(outcome), **shared}
        return {**_beside(outcome, out / FOLDER), **shared}
    except OSError as error:
        raise FsrError(f"--out {out / FOLDER}", f"cannot be written ({told(error)})",
                       "give another --out") from None


def rows_of(outcome: Outcome, cell: Cell) -> Iterator[tuple[Sample, str, str, list, str]]:
    """Sample, digests of LR image and restoration, values and fault of each sample of a cell."""
    at = cell.method.name, cell.scale
    restored = outcome.rows(*at, "restored")
    known = dict(zip(restored["sample"], zip(restored["image"], restored["status"])))
    of = [dict(zip(rows["sample"], rows["value"]))
          for rows in (outcome.rows(*at, m.id) for m in outcome.measures.per_sample)]
    for sample in outcome.samples.samples:
        image, status = known[sample.id]
        yield (sample, outcome.lr.digest(sample, cell.scale), image,
               [_value(values.get(sample.id, math.nan)) for values in of],
               "" if status == "ok" else status.removeprefix("failed: "))


def _embedded(outcome: Outcome) -> dict:
    """Rows and images, each image once."""
    store, places, images, rows = outcome.measures.store, {}, [], []

    def place(digest: str) -> int | None:
        if digest and digest not in places:
            places[digest] = len(images)
            images.append(base64.b64encode(_webp(store.image(digest))).decode())
        return places.get(digest)
    for cell in progress(outcome.cells, desc="collecting images", unit="cell"):
        for sample, lr, image, values, why in rows_of(outcome, cell):
            rows.append([sample.id, sample.person, cell.scale, cell.method.name,
                         place(sample.gt.digest), place(sample.reference.digest), place(lr),
                         place(image), values, why])
    return {"rows": rows, "images": images}


def _beside(outcome: Outcome, folder: Path) -> dict:
    """Samples, and the file of each cell's rows; these and the images are written, and what an
    earlier report alone needed is deleted."""
    samples = outcome.samples.samples
    at, cells = {s.id: i for i, s in enumerate(samples)}, {}
    shown = {d for s in samples for d in (s.gt.digest, s.reference.digest)}
    for number, cell in enumerate(outcome.cells):
        rows = [[at[sample.id], lr, image or None, values, why]
                for sample, lr, image, values, why in rows_of(outcome, cell)]
        shown.update(digest for row in rows for digest in row[1:3] if digest)
        name, file = f"{cell.scale}|{cell.method.name}", f"rows-{number}.js"
        text = json.dumps(rows, separators=(",", ":"), allow_nan=False)
        write_atomic(folder / file, f"explorerRows({json.dumps(name)},{text});\n".encode(),
                     lasting=False)
        cells[name] = file
    _clear(folder, {*shown, *(Path(file).stem for file in cells.values())})
    _write_images(outcome.measures.store, shown, folder / "images")
    return {"rows": [], "folder": FOLDER, "cells": cells,
            "samples": [[s.id, s.person, s.gt.digest, s.reference.digest] for s in samples]}


def _clear(folder: Path, kept: Collection[str] = ()) -> None:
    """Delete what this program wrote there, but for so named files, and folders that are then
    empty."""
    for path in [*folder.glob("rows-*.js"), *folder.glob("images/??/*.webp")]:
        if _OURS.fullmatch(path.name) and path.stem not in kept:
            path.unlink()
    for part in [*folder.glob("images/??"), folder / "images", folder]:
        with contextlib.suppress(OSError):
            part.rmdir()


def _write_images(store: Store, shown: set[str], folder: Path) -> None:
    todo = sorted(shown - {path.stem for path in folder.glob("??/*.webp")})
    done = pooled(partial(_write_image, store, folder), todo)
    for _ in progress(done, total=len(todo), desc="writing images", unit="image"):
        pass


def _write_image(store: Store, folder: Path, digest: str) -> None:
    # What is lost with the machine is written again.
    write_atomic(folder / digest[:2] / f"{digest}.webp", _webp(store.image(digest)), lasting=False)
