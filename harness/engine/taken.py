"""Images of a user's folders, taken as they are: read once, and kept by content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from fsrbench.engine.data import pooled
from fsrbench.engine.keys import code_digest, digest_of, preparation_digest
from fsrbench.engine.outputs import PNG, read_whole
from fsrbench.engine.splits import signature
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.faces.geometry import TEMPLATE, Landmarks
from fsrbench.progress import progress

# Deviation over pixels, in levels of 8 bit, below which an image shows nothing.
FLAT = 1.0
_CHUNK = 256


@dataclass(frozen=True)
class Taken:
    """An image file that was read.

    Args:
        image: digest of its pixels; empty where it could not be read.
        size: (height, width); landmarks: found in it, or none, from `TEMPLATE` where no face was.
        signature: see `splits.signature`; flat: it is of one colour.
        error: why it cannot be used; remarks: of reading it.
    """

    image: str = ""
    size: tuple[int, int] = (0, 0)
    landmarks: Landmarks = Landmarks(np.empty((0, 2)), "")
    signature: np.ndarray | None = None
    flat: bool = False
    error: str = ""
    remarks: tuple[str, ...] = ()


def _take(faces: bool, store: Store, job: tuple[str, Path]) -> tuple[dict, list[float]]:
    """Row of the table "prepared" and signature of a file; the image goes into the store here, so
    that none waits in memory."""
    key, path = job
    row = {"key": key, "image": "", "points": [], "landmarks": "", "outside": 0.0, "error": "",
           "remarks": ""}
    try:
        data, read = read_whole(path)
    except FsrError as error:
        return {**row, "error": error.cause}, []
    pixels = read.pixels
    if faces:
        from fsrbench.faces.detect import find

        found = find(pixels)
        row |= {"points": found.points.ravel().tolist() if found else [],
                "landmarks": found.source if found else TEMPLATE}
    row["image"] = store.put_image(pixels, data if data.startswith(PNG) else b"")
    row["remarks"] = "\n".join(read.remarks)
    flat = cv2.meanStdDev(pixels)[1].max() < FLAT
    return row, [*pixels.shape[:2], float(flat), *map(float, signature(pixels))]


def take(files: Mapping[str, Path], digests: Mapping[str, str], store: Store,
         faces: bool) -> Iterator[tuple[str, Taken]]:
    """Name and image of each file, in order; what was read before comes from the store's records.

    Args:
        files: by name; digests: sha256 by name.
        faces: look for a face.
    """
    how = preparation_digest() if faces else code_digest("fsrbench.imaging")
    keys = {name: digest_of("taken", how, faces, digests[name]) for name in files}
    looks = {key: digest_of("look", code_digest(__name__), key) for key in keys.values()}
    rows = {row["key"]: row for row in store.read("prepared", key=keys.values()).to_dict("records")
            if row["error"] or store.holds(row["image"])}
    seen = store.read("features", key=looks.values())
    seen = dict(zip(seen["key"], seen["vector"]))
    jobs = {key: files[name] for name, key in keys.items()
            if key not in rows or not rows[key]["error"] and looks[key] not in seen}
    done = pooled(partial(_take, faces, store), list(jobs.items()),
                  _CHUNK if faces else len(jobs) + 1)
    for part in _parts(progress(done, total=len(jobs), desc="reading images", unit="image")):
        store.append("prepared", [row for row, _ in part])
        fresh = {looks[row["key"]]: np.asarray(look, np.float32) for row, look in part if look}
        store.append("features", [{"key": key, "feature": "look", "vector": vector}
                                  for key, vector in fresh.items()])
        rows.update({row["key"]: row for row, _ in part})
        seen.update(fresh)
    for name, key in keys.items():
        yield name, _taken(rows[key], seen.get(looks[key]))


def _parts(rows: Iterator) -> Iterator[list]:
    part = []
    for row in rows:
        part.append(row)
        if len(part) == _CHUNK:
            yield part
            part = []
    yield part


def _taken(row: Mapping, look: Sequence[float] | None) -> Taken:
    if row["error"]:
        return Taken(error=row["error"])
    points = np.asarray(row["points"], dtype=np.float64).reshape(-1, 2)
    return Taken(row["image"], (int(look[0]), int(look[1])), Landmarks(points, row["landmarks"]),
                 np.asarray(look[3:]).astype(np.int8), bool(look[2]),
                 remarks=tuple(row["remarks"].splitlines()))
