"""One picture of one person restored with the album of that person: `invoke restore`.

The face is found, cut at the resolution that it has, restored at the profile's size, and pasted back into the enlarged
picture. What is kept beside the result says how far it agrees with the pixels that were given, and how much of it they do
not decide: super-resolution draws what is likely, which is not what was there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsrbench.core import Batch, Method, Person, Picture, Profile
from fsrbench.degrade.named import SCALES, check_scale
from fsrbench.engine.data import IMAGE_SUFFIXES, Entry, Source, prepare
from fsrbench.engine.findings import Excluded
from fsrbench.engine.keys import method_digest
from fsrbench.engine.restoring import attempt, fitted, instance
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.faces.align import ffhq_frame, invert, sample, transform
from fsrbench.faces.detect import find
from fsrbench.faces.geometry import Landmarks
from fsrbench.faces.lr import lr_landmarks
from fsrbench.faces.prepare import Preparation
from fsrbench.imaging import digest, image_digest, imresize, load, resize_matrix, to_float, to_uint8
from fsrbench.registry import get, resolve
from fsrbench.weights.catalogue import require

# The pasted picture is enlarged to at most this long side.
LONGEST = 4096
# Share of the crop's side over which it fades into the enlarged picture.
FEATHER = 0.12


@dataclass(frozen=True)
class Face:
    """A face in a picture, cut at the resolution that it has.

    Args:
        image: the whole picture, uint8 (H, W, 3).
        matrix: 2x3, from pixels of the crop at HQ size to pixels of the picture.
        side: of the crop, in pixels of the picture.
        scale: the factor of the restoration; lr: uint8 (S/s, S/s, 3).
        landmarks: in HQ pixels.
    """

    image: np.ndarray
    matrix: np.ndarray
    side: float
    scale: int
    lr: np.ndarray
    landmarks: Landmarks


@dataclass(frozen=True)
class Restored:
    """A restored face and what is known of it.

    Args:
        face: what was given; crop: uint8 (S, S, 3), the restoration; whole: uint8, the picture with it pasted in.
        album: aligned pictures that served, the reference first; left_out: those that did not.
        disagreement: root mean square difference, in grey levels, between the restoration shrunk again and what was given.
        undecided: (S, S) in [0, 1], how much of each pixel lies in details that vanish when the picture is shrunk.
    """

    face: Face
    crop: np.ndarray
    whole: np.ndarray
    album: tuple[Picture, ...]
    left_out: Excluded
    disagreement: float
    undecided: np.ndarray

    @property
    def undecided_share(self) -> float:
        """Share of the restoration's contrast (its variance) that lies in undecided details."""
        return float(np.square(self.undecided).mean() / max(np.var(self.crop / 255.0), 1e-9))


def locate_face(path: Path, profile: Profile, scale: int | None = None, aligned: bool = False) -> Face:
    """The face to be restored.

    Args:
        scale: factor; the one nearest to the face's resolution by default.
        aligned: the picture is an aligned crop of a face already.

    Raises:
        FsrError: there is no face, or it has the profile's resolution already and no scale is given.
    """
    image = load(path)
    points = None if aligned else _points(image, path)
    matrix = _crop_of(image, profile) if points is None else ffhq_frame(points.points, profile.size, profile.frame)
    step = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    side = step * profile.size
    scale = check_scale(scale, profile.size) if scale else _nearest_scale(side, profile, path)
    small = profile.size // scale
    # The same square at the LR size: its first pixel's centre lies (s - 1) / 2 further in.
    shrink = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])
    lr = sample(image, np.column_stack([matrix[:, :2] * scale, transform(matrix, shrink[:, 2])]), small)
    if points is None:
        upsampled = to_uint8(np.clip(imresize(to_float(lr[None]), profile.size, profile.size), 0, 1))[0]
        landmarks = lr_landmarks(upsampled, profile.frame)
    else:
        landmarks = Landmarks(transform(invert(matrix), points.points), points.source)
    return Face(image, matrix, side, scale, lr, landmarks)


def _points(image: np.ndarray, path: Path) -> Landmarks:
    found = find(image)
    if found is None:
        raise FsrError(f"image {path}", "no face found", "cut the picture to the face; with --aligned a crop that shows the "
                       "face upright from forehead to chin is taken as it is")
    return found


def _crop_of(image: np.ndarray, profile: Profile) -> np.ndarray:
    """Matrix of the central square of a picture."""
    height, width = image.shape[:2]
    side = min(height, width)
    step = side / profile.size
    return np.array([[step, 0, (width - side + step - 1) / 2], [0, step, (height - side + step - 1) / 2]])


def _nearest_scale(side: float, profile: Profile, path: Path) -> int:
    """The factor whose LR size is nearest to a face of `side` pixels."""
    known = [s for s in SCALES if profile.size % s == 0 and profile.size // s >= 2]
    if side * np.sqrt(2) > profile.size:
        raise FsrError(f"image {path}", f"shows the face at {side:.0f} pixels, and profile {profile.name} restores to "
                       f"{profile.size}", "there is nothing to gain; --scale 4 would shrink it first", code=2)
    return min(known, key=lambda s: abs(np.log(profile.size / side) - np.log(s)))


def open_album(folder: Path, profile: Profile, store: Store) -> tuple[list[Picture], Excluded]:
    """Aligned pictures of a person's folder in the order of their names, and what was left out.

    Raises:
        FsrError: no picture of the folder shows a face.
    """
    if not folder.is_dir():
        raise FsrError(f"album {folder}", "no such folder", "give a folder of pictures of the person", code=2)
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    entries = tuple(Entry(folder.name, p.name, p.name, digest(p.read_bytes())) for p in paths)
    source, left_out, pictures = Source("album", folder, entries, "the user's own pictures"), Excluded(), []
    for prepared in prepare(source, entries, Preparation(profile.size, profile.frame), store):
        if prepared.error:
            left_out.add(prepared.error, prepared.entry.image)
        else:
            pictures.append(Picture(prepared.entry.id, prepared.image, store.image(prepared.image),
                                    Landmarks(prepared.points, prepared.landmarks)))
    if not pictures:
        reasons = "; ".join(left_out.lines()) or "it holds no picture"
        raise FsrError(f"album {folder}", f"no picture can serve ({reasons})", "give pictures that show the person's face")
    return pictures, left_out


def open_method(name: str, profile: Profile) -> Method:
    """The method of that name, ready to run.

    Raises:
        FsrError: it is unknown, lacks a file, or looks at the ground truth.
    """
    method = instance(get(resolve(name, profile.name)), profile)
    if "oracle" in method.needs:
        raise FsrError(f"method {method.name}", "takes its landmarks from the ground truth, which nobody has here",
                       f"use {method.name.replace('-oracle', '')}", code=2)
    for weights in method.weight_files:
        require(weights)
    return method


def restore(method: Method, face: Face, album: list[Picture], left_out: Excluded, store: Store, seed: int = 0) -> Restored:
    """Restore a face.

    Args:
        album: of the person; the picture whose pose is nearest becomes the reference.

    Raises:
        FsrError: the method needs an album and there is none, or it fails.
    """
    if method.needs & {"references", "album", "fit"} and not album:
        raise FsrError(f"method {method.name}", "needs pictures of the person", "give --album DIR", code=2)
    batch, album = _batch(method, face, album, store, seed)
    images, errors = attempt(method, batch)
    if images[0] is None:
        raise FsrError(f"method {method.name}", f"could not restore this face ({errors[0]})", "try another method", code=1)
    undecided, disagreement = audit(images[0], face.lr)
    return Restored(face, images[0], paste(face, images[0]), tuple(album), left_out, disagreement, undecided)


def _batch(method: Method, face: Face, album: list[Picture], store: Store, seed: int) -> tuple[Batch, list[Picture]]:
    """The batch of one, and the album with the reference first."""
    def apart(picture: Picture) -> float:
        return float(np.linalg.norm(picture.landmarks.points - face.landmarks.points, axis=1).mean())
    used = sorted(album, key=apart) if method.needs & {"references", "album", "fit"} else []
    # Noise belongs to the picture, whatever the file is called.
    batch = Batch([image_digest(face.lr)], ["album"], to_float(face.lr[None]), face.scale, [face.landmarks], used[:1],
                  [tuple(album)], seed=seed)
    if "fit" in method.needs:
        batch.fits = {"album": fitted(store, method, Person("album", tuple(album)), seed, method_digest(method))[0]}
    return batch, used


def audit(crop: np.ndarray, lr: np.ndarray) -> tuple[np.ndarray, float]:
    """What the given pixels say of a restoration.

    Args:
        crop: uint8 (S, S, 3), the restoration; lr: uint8 (s, s, 3), what was given.

    Returns:
        (S, S) in [0, 1]: root mean square over colours of the crop's part in the null space of shrinking, whatever stands there
        gives the same given pixels; and the root mean square, in grey levels, of the shrunk crop - lr.
    """
    restored, shrink = to_float(crop[None]), resize_matrix(crop.shape[0], lr.shape[0])
    kept = np.linalg.pinv(shrink) @ shrink
    undecided = np.sqrt(np.square(restored - kept @ restored @ kept.T).mean((0, 1)))
    return undecided, float(np.sqrt(np.square(shrink @ restored @ shrink.T - to_float(lr[None])).mean()) * 255)


def paste(face: Face, crop: np.ndarray) -> np.ndarray:
    """The picture, enlarged so that the face has the crop's resolution, with the crop faded into it."""
    from scipy.ndimage import map_coordinates

    height, width = face.image.shape[:2]
    factor = max(1.0, min(crop.shape[0] / face.side, LONGEST / max(height, width)))
    tall, wide = round(height * factor), round(width * factor)
    canvas = np.clip(imresize(to_float(face.image[None])[0], tall, wide), 0, 1).transpose(1, 2, 0)
    x, y = np.meshgrid((np.arange(wide) + 0.5) * width / wide - 0.5, (np.arange(tall) + 0.5) * height / tall - 0.5)
    at = transform(invert(face.matrix), np.stack([x, y], -1))
    rows, columns = np.where(((at > -0.5) & (at < crop.shape[0] - 0.5)).all(-1))
    inside = at[rows, columns]
    drawn = np.stack([map_coordinates(crop[..., c] / 255.0, inside[:, ::-1].T, order=3, mode="nearest") for c in range(3)], -1)
    edge = (np.minimum(inside + 0.5, crop.shape[0] - 0.5 - inside).min(1) / (FEATHER * crop.shape[0])).clip(0, 1)
    weight = (0.5 - 0.5 * np.cos(np.pi * edge))[:, None]
    canvas[rows, columns] = weight * drawn.clip(0, 1) + (1 - weight) * canvas[rows, columns]
    return to_uint8(canvas.transpose(2, 0, 1)[None])[0]
