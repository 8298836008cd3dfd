"""A person's own images: read, aligned, and asked whether they are of one person, and of the one
that is to be restored.

Identities are compared by SFace, which the caller hands in: mean distance (1 - cosine) to the
album's images. Measured on 15 people of ORL and 25 of LFW at 64 pixels: none of 198 images was
further than STRANGER from the four others of its person, all of 160 strangers were. Faces of 18 and
26 pixels were further than UNLIKE from their own album in 2 of 76 cases, from others' in 19 of 20,
and nearer than LIKE to others' in 1 of 100. At 12 pixels own and others' overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fsrbench.core import FaceImage, Profile
from fsrbench.engine.data import Entry, Source, prepare
from fsrbench.engine.findings import Findings
from fsrbench.engine.folders import images_in, is_folder
from fsrbench.engine.kept import Kept
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.faces.geometry import Landmarks
from fsrbench.faces.prepare import Preparation
from fsrbench.imaging import digest, imresize

if TYPE_CHECKING:
    from fsrbench.restore import Face

# Unit vectors (N, F) of images uint8 (S, S, 3) with landmarks (68, 2).
Embed = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray]
# Further from the rest of the album than this an image is of somebody else.
STRANGER = 0.637
# So near to the album a face is the person's, and so far somebody else's; faces of fewer pixels are
# not told apart.
LIKE, UNLIKE, LEAST = 0.7, 0.76, 16
# At most this far apart are 70 of 76 copies of the same photograph, restored from 18 or 26 pixels,
# and 8 of 76 other images of the person; 6 of those are of ORL's studio series, whose images differ
# little.
COPY = 0.018


def open_album(folder: Path, profile: Profile, store: Store) -> tuple[list[FaceImage], Findings]:
    """Aligned images of a person's folder in the order of their names, and what was left out or
    has to be said of them.

    Raises:
        FsrError: no image of the folder shows a face.
    """
    if not is_folder(folder):
        raise FsrError(f"album {folder}", "no such folder",
                       "give a folder of images of the person", code=2)
    left_out, entries = Findings(), []
    for path in images_in(folder, left_out):
        try:
            entries.append(Entry(folder.name, path.name, path.name, digest(path.read_bytes())))
        except OSError as error:
            left_out.add(f"cannot be read ({error.strerror})", path.name)
    source = Source("album", folder, tuple(entries), "the user's own images")
    images = []
    for prepared in prepare(source, entries, Preparation(profile.size, profile.frame), store):
        for remark in prepared.remarks:
            left_out.remarks.add(remark, prepared.entry.image)
        if prepared.error:
            left_out.add(prepared.error, prepared.entry.image)
        else:
            images.append(Kept(prepared.entry.id, prepared.image,
                               Landmarks(prepared.points, prepared.landmarks), store))
    if not images:
        reasons = "; ".join(left_out.lines()) or "it holds no image"
        raise FsrError(f"album {folder}", f"no image can serve ({reasons})",
                       "give images that show the person's face")
    return images, left_out


def _vectors(images: Sequence[FaceImage], embed: Embed) -> np.ndarray:
    return embed([p.image for p in images], [p.landmarks.points for p in images])


def _apart(faces: Sequence[Face], album: Sequence[FaceImage], embed: Embed) -> np.ndarray:
    """Mean distance (N,) of each face to the album."""
    seen = embed([f.shown for f in faces], [f.landmarks.points for f in faces])
    return 1 - (seen @ _vectors(album, embed).T).mean(1)


def whose(faces: Sequence[Face], album: Sequence[FaceImage], embed: Embed) -> int | None:
    """Position of the one face that is the album's person and none of the others; None where that
    is not clear."""
    apart = _apart(faces, album, embed)
    best, second = np.argsort(apart)[:2]
    seen = min(face.side for face in faces) >= LEAST
    return int(best) if seen and apart[best] < LIKE and apart[second] > UNLIKE else None


def doubts(face: Face, album: Sequence[FaceImage], embed: Embed) -> list[str]:
    """What speaks against the album, one sentence each."""
    names = [reference.id.partition("/")[2] for reference in album]
    said = [f"{name} is this image itself or nearly: what is restored may be copied from it"
            for name, reference in zip(names, album)
            if copy_distance(face.shown, reference.image, face.given.count) < COPY]
    if len(album) > 1:
        vectors = _vectors(album, embed)
        apart = (1 - vectors @ vectors.T).sum(1) / (len(album) - 1)
        said += [f"{name} looks like somebody else than the rest of the album ({far:.2f} apart; "
                 f"images of one person are at most {STRANGER:.2f})"
                 for name, far in zip(names, apart) if far > STRANGER]
    far = float(_apart([face], album, embed)[0])
    if face.side >= LEAST and far > UNLIKE:
        said.append(f"the face looks like somebody else than the album's ({far:.2f} apart; a face "
                    f"of the same person is at most {UNLIKE:.2f})")
    return said


def copy_distance(crop: np.ndarray, other: np.ndarray, count: int) -> float:
    """1 - correlation of what two aligned images show coarsely, at 64 pixels, where they lie best
    on each other.

    Args:
        crop: uint8 (S, S, 3), upsampled from `count` pixels; other: uint8 (S, S, 3), looked at as
            coarsely."""
    size, inner, reach, count = 64, 52, 4, min(count, 64)
    start, nearest = (size - inner) // 2, 2.0
    seen = imresize(crop.mean(-1), size, size)[start:start + inner, start:start + inner]
    blurred = imresize(other.mean(-1), count, count)
    for side in (60, 62, 64, 66, 68):
        windows = sliding_window_view(imresize(blurred, side, side), (inner, inner))
        middle = (side - inner) // 2
        span = slice(max(0, middle - reach), middle + reach + 1)
        nearest = min(nearest, float((1 - _coarse(windows[span, span]) @ _coarse(seen)).min()))
    return nearest


def _coarse(grey: np.ndarray) -> np.ndarray:
    """(..., 256) of unit length: grey values (..., H, W) on a 16x16 grid, without their mean."""
    grid = imresize(np.ascontiguousarray(grey), 16, 16).reshape(*grey.shape[:-2], 256)
    grid = grid - grid.mean(-1, keepdims=True)
    return grid / np.maximum(np.linalg.norm(grid, axis=-1, keepdims=True), 1e-9)
