"""One image of one person restored with the album of that person: `invoke restore`.

The face is found, handed to the method with all its pixels, and pasted back into the upsampled
image. What the given pixels decide is taken from them, so that a method draws only the rest:
super-resolution draws what is likely, which is not what was there. Mean of 4 people of ORL and 4 of
LFW, landmarks of the ground truth, `idfsr.ft` in the mini profile, by the face's pixels: plain
upsampling, what the method draws, and that with the given pixels in it.

    pixels                    12     16     24     32     44     56
    PSNR, dB   upsampled    22.9   25.0   28.3   31.3   35.8   39.4
               drawn        19.9   20.2   20.3   20.3   20.2   20.8
               restored     22.0   23.7   26.9   29.9   33.9   36.9
    LPIPS      upsampled    .462   .340   .187   .090   .024   .005
               drawn        .131   .113   .120   .129   .121   .108
               restored     .114   .089   .070   .030   .010   .007
    grey       upsampled     4.6    3.9    3.2    2.9    2.5    2.4
    levels     drawn        15.7   18.0   20.9   22.8   24.9   23.9
    apart      restored      2.5    2.3    2.0    1.7    1.4    1.4

Restored faces look like faces where upsampled ones are blurred (LPIPS), and are pixel by pixel no
nearer to the ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fsrbench.album import Embed, doubts, whose
from fsrbench.core import Batch, FaceImage, Method, Person, Profile
from fsrbench.degrade.named import SCALES, check_scale
from fsrbench.engine.findings import Excluded
from fsrbench.engine.fits import fitted
from fsrbench.engine.folders import read_image
from fsrbench.engine.keys import method_digest
from fsrbench.engine.restoring import attempt, instance
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.faces.align import ffhq_frame, invert, transform
from fsrbench.faces.detect import find, find_all
from fsrbench.faces.geometry import TEMPLATE, Landmarks
from fsrbench.faces.lr import lr_landmarks
from fsrbench.given import Given
from fsrbench.imaging import image_digest, imresize, to_float, to_uint8
from fsrbench.registry import get, resolve
from fsrbench.weights.fill import reportable

# The pasted image is upsampled to at most this long side.
LONGEST = 4096
# Share of the crop's side over which it fades into the upsampled image.
FEATHER = 0.12
# From this share of the crop's pixels on nothing is gained: see the table above, 44 and 56 of 64
# pixels.
ENOUGH = 0.75
# An image whose grey values differ less than this (standard deviation) shows nothing; one whose
# colours differ less is grey.
FLAT, GREY = 2.0, 3
ALBUM = {"references", "album", "fit"}  # what a method may need of one


@dataclass(frozen=True)
class Face:
    """A face in an image.

    Args:
        image: the whole image, uint8 (H, W, 3).
        matrix: 2x3, from pixels of the crop at HQ size to pixels of the image.
        size: S, of the crop.
        landmarks: in HQ pixels.
        sure: whether the detector of low-resolution faces sees one there too.
        scale: factor from `lr` to the crop; asked: whether the user gave it.
        number, of: among the faces of the image, from left to right; which: why it was taken.
        remarks: what of the file is not in the image, or was guessed.
    """

    image: np.ndarray
    matrix: np.ndarray
    size: int
    landmarks: Landmarks
    sure: bool
    scale: int
    asked: bool = False
    number: int = 1
    of: int = 1
    which: str = ""
    remarks: tuple[str, ...] = ()

    @cached_property
    def given(self) -> Given:
        """Its pixels as they were given."""
        return Given(self.image, self.matrix, self.size)

    @property
    def side(self) -> float:
        """Side of the crop in pixels of the image."""
        return self.given.side

    @cached_property
    def shown(self) -> np.ndarray:
        """uint8 (S, S, 3), upsampled from the given pixels."""
        return to_uint8(self.given.upsampled[None])[0]

    @cached_property
    def lr(self) -> np.ndarray:
        """uint8 (S/s, S/s, 3), what the method gets: all given pixels, unless a scale was asked for
        that has fewer."""
        return self.given.seen_at(self.size // self.scale)

    @property
    def thrown_away(self) -> bool:
        """Whether the method gets fewer pixels than were given."""
        return self.asked and self.lr.shape[0] < 0.95 * self.side

    @cached_property
    def got(self) -> Given:
        """The pixels that the method got: the given ones, unless some were thrown away."""
        if not self.thrown_away:
            return self.given
        step = self.lr.shape[0] / self.size
        corner = (step - 1) / 2
        return Given(self.lr, np.array([[step, 0, corner], [0, step, corner]]), self.size)

    @property
    def grey(self) -> bool:
        """Whether the image has no colours."""
        return int(np.ptp(self.image.astype(np.int16), -1).max()) <= GREY

    @property
    def place(self) -> str:
        """Where it is, for a list."""
        x, y = self.given.corners.mean(0)
        return f"face {self.number}: {self.side:.0f} pixels, centre at x = {x:.0f}, y = {y:.0f}"


@dataclass(frozen=True)
class Restored:
    """A restored face and what is known of it.

    Args:
        face: what was given; crop: uint8 (S, S, 3), the face that is kept; whole: uint8, the
            image with it pasted in.
        drawn: uint8 (S, S, 3), what the method drew, before the given pixels were put into it.
        restored: uint8 (S, S, 3), with them.
        album: aligned images that served, the reference first; left_out: those that did not.
        apart: root mean square difference to the given pixels, in grey levels, of "upsampled",
            "drawn" and "restored".
        verdict: why the upsampled image is kept, or what is wrong with the restoration; empty where
            nothing is.
        doubts: about the album and the face."""

    face: Face
    crop: np.ndarray
    whole: np.ndarray
    drawn: np.ndarray
    restored: np.ndarray
    album: tuple[FaceImage, ...]
    left_out: Excluded
    apart: dict[str, float]
    verdict: str
    doubts: tuple[str, ...] = ()

    @property
    def kept(self) -> str:
        """What `crop` is: "restored" or "upsampled"."""
        return "upsampled" if self.crop is self.face.shown else "restored"

    @cached_property
    def undecided(self) -> np.ndarray:
        """(S, S) in [0, 1], how much of each pixel of `restored` lies in details that vanish when
        it is downsampled to what the method got."""
        found = self.face.got.undecided(to_float(self.restored[None])[0])
        return np.sqrt(np.square(found).mean(0))

    @property
    def undecided_share(self) -> float:
        """Share of the restoration's contrast (its variance) that lies in undecided details."""
        return float(np.square(self.undecided).mean() / max(np.var(self.restored / 255.0), 1e-9))


def faces_in(path: Path, profile: Profile, scale: int | None = None,
             aligned: bool = False) -> list[Face]:
    """The faces of an image that are sure, from left to right.

    Args:
        scale: factor; by default the coarsest that keeps all the given pixels.
        aligned: the image is cut to one upright face, which need not be sure.

    Raises:
        FsrError: there is none.
    """
    read = read_image(path)
    image = read.pixels
    if aligned:
        faces = [_face(image, _centre_square(image, profile), None, profile, scale)]
    else:
        faces = _found(image, profile, scale)
    sure = [face for face in faces if face.sure or aligned]
    if not sure:
        weak = f" (none at a second look: {faces[0].place.partition(': ')[2]})" if faces else ""
        height, width = image.shape[:2]
        raise FsrError(f"image {path}", f"no sure face found{weak}",
                       f"cut the image to the face (in {width} x {height} pixels one of "
                       f"{max(32, max(width, height) // 64)} is found, often a smaller one); with "
                       "--aligned a crop that shows the face upright from forehead to chin is "
                       "taken as it is")
    return [replace(face, number=i + 1, of=len(sure), remarks=read.remarks)
            for i, face in enumerate(sure)]


def _found(image: np.ndarray, profile: Profile, scale: int | None) -> list[Face]:
    """Faces of an image, from left to right; where none is sure, also the one of the finer search
    for a single face, which takes long in a large image."""
    def faces(marks: list[Landmarks]) -> list[Face]:
        return [_face(image, ffhq_frame(found.points, profile.size, profile.frame), found, profile,
                      scale) for found in marks]
    seen = faces(find_all(image))
    if not any(face.sure for face in seen) and (small := find(image)):
        seen += faces([small])
    return sorted(seen, key=lambda face: tuple(face.given.corners.mean(0)))


def _face(image: np.ndarray, matrix: np.ndarray, found: Landmarks | None, profile: Profile,
          scale: int | None) -> Face:
    given = Given(image, matrix, profile.size)
    seen = lr_landmarks(to_uint8(given.upsampled[None])[0], profile.frame)
    marks = Landmarks(transform(invert(matrix), found.points), found.source) if found else seen
    factor = check_scale(scale, profile.size) if scale else _finest(given.side, profile.size)
    return Face(image, matrix, profile.size, marks, seen.source != TEMPLATE, factor, bool(scale))


def _centre_square(image: np.ndarray, profile: Profile) -> np.ndarray:
    """Matrix of the central square of an image."""
    height, width = image.shape[:2]
    side = min(height, width)
    step = side / profile.size
    x, y = ((n - side + step - 1) / 2 for n in (width, height))
    return np.array([[step, 0, x], [0, step, y]])


def _finest(side: float, size: int) -> int:
    """The largest factor whose LR image has no fewer pixels than a face of `side` pixels."""
    return max((s for s in (2, *SCALES) if size % s == 0 and size // s >= 0.95 * side), default=1)


def choose(faces: list[Face], path: Path, number: int | None, album: list[FaceImage],
           embed: Embed | None) -> Face | None:
    """The face that is meant: the only one, the one of that number, or the one that is clearly the
    album's; else None.

    Raises:
        FsrError: there is no face of that number, or nothing is to be seen or gained.
    """
    if number and number > len(faces):
        raise FsrError(f"--face {number}", f"sure faces in {path}: {len(faces)}",
                       "give a lower number", code=2)
    if number or len(faces) == 1:
        chosen = replace(faces[(number or 1) - 1], which="asked for" if number else "")
    else:
        found = whose(faces, album, embed) if album and embed else None
        if found is None:
            return None
        chosen = replace(faces[found], which="the one that is the album's person")
    _check(chosen, path)
    return chosen


def _check(face: Face, path: Path) -> None:
    if face.shown.std() < FLAT or not face.given.inside.any():
        raise FsrError(f"image {path}", "shows nothing where the face should be (one tone)",
                       "give an image of a face")
    if not face.asked and face.side > face.size:
        raise FsrError(f"image {path}",
                       f"shows the face at {face.side:.0f} pixels, the profile restores to "
                       f"{face.size}",
                       "there is nothing to gain; --scale 4 would downsample it first", code=2)


def open_method(name: str, profile: Profile, album: bool = True) -> Method:
    """The method of that name, ready to run; `album` says whether images of the person are there.

    Raises:
        FsrError: it is unknown, lacks a file, looks at the ground truth, or needs an album.
    """
    method = instance(get(resolve(name, profile.name)), profile)
    if "oracle" in method.needs:
        raise FsrError(f"method {method.name}",
                       "takes its landmarks from the ground truth, which nobody has here",
                       f"use {method.name.replace('-oracle', '')}", code=2)
    reportable(method)
    if method.needs & ALBUM and not album:
        raise FsrError(f"method {method.name}", "needs images of the person", "give --album DIR",
                       code=2)
    return method


@dataclass
class _Finer(Batch):
    """A batch whose LR images are finer than any factor that methods know, which they are told as
    4."""

    factor: int = 1

    @property
    def size(self) -> int:
        """As in `Batch`."""
        return self.lr.shape[-1] * self.factor


def restore(method: Method, face: Face, album: list[FaceImage], left_out: Excluded, store: Store,
            embed: Embed | None = None, seed: int = 0) -> Restored:
    """Restore a face.

    Args:
        album: of the person; the image whose pose is nearest becomes the reference.
        embed: to compare identities by; None to compare none.

    Raises:
        FsrError: the method fails.
    """
    said = doubts(face, album, embed) if album and embed else []
    batch, album = _batch(method, face, album, store, seed)
    images, errors = attempt(method, batch)
    if images[0] is None:
        raise FsrError(f"method {method.name}", f"could not restore this face ({errors[0]})",
                       "try another method", code=1)
    drawn = greyed(images[0]) if face.grey else images[0]
    restored = to_uint8(face.got.agreed(to_float(drawn[None])[0])[None])[0]
    images = {"upsampled": face.shown, "drawn": drawn, "restored": restored}
    apart = {name: face.given.disagreement(image) for name, image in images.items()}
    kept, verdict = judge(face, restored, apart)
    if not face.sure:
        said.insert(0, "no sure face: the detectors see none in this crop")
    return Restored(face, kept, paste(face, kept), drawn, restored, tuple(album), left_out, apart,
                    verdict, tuple(said))


def judge(face: Face, restored: np.ndarray, apart: dict[str, float]) -> tuple[np.ndarray, str]:
    """The face to keep, and why; no reason where the restoration is kept and none speaks against
    it."""
    if face.thrown_away:
        return restored, (f"The method got {face.lr.shape[0]} of {face.side:.0f} pixels, as "
                          f"--scale {face.scale} asks; the upsampled face has them all.")
    if face.side > ENOUGH * face.size:
        return face.shown, (f"Nothing is gained by restoring: {face.side:.0f} pixels show nearly "
                            f"all that {face.size} can. The upsampled face is kept.")
    if apart["restored"] > apart["upsampled"]:
        return face.shown, ("Nothing is gained by restoring: the restored face is further from the "
                            f"given pixels ({apart['restored']:.1f} grey levels) than the "
                            f"upsampled "
                            f"one ({apart['upsampled']:.1f}), which is kept.")
    return restored, ""


def greyed(image: np.ndarray) -> np.ndarray:
    """Luma (BT.601) of an uint8 image in all three channels."""
    luma = np.floor(image @ np.array([0.299, 0.587, 0.114]) + 0.5).astype(np.uint8)
    return np.repeat(luma[..., None], 3, -1)


def _batch(method: Method, face: Face, album: list[FaceImage], store: Store,
           seed: int) -> tuple[Batch, list[FaceImage]]:
    """The batch of one, and the album with the reference first."""
    def apart(reference: FaceImage) -> float:
        between = reference.landmarks.points - face.landmarks.points
        return float(np.linalg.norm(between, axis=1).mean())
    used = sorted(album, key=apart) if method.needs & ALBUM else []
    # Noise belongs to the image, whatever the file is called.
    batch = _Finer([image_digest(face.lr)], ["album"], to_float(face.lr[None]),
                   max(face.scale, min(SCALES)), [face.landmarks], used[:1], [tuple(album)],
                   seed=seed, factor=face.scale)
    if "fit" in method.needs:
        person, own = Person("album", tuple(album)), method_digest(method)
        batch.fits = {"album": fitted(store, method, person, seed, own)[0]}
    return batch, used


def paste(face: Face, crop: np.ndarray) -> np.ndarray:
    """The image, upsampled so that the face has the crop's resolution, with the crop faded into
    it."""
    from scipy.ndimage import map_coordinates

    height, width = face.image.shape[:2]
    factor = max(1.0, min(crop.shape[0] / face.side, LONGEST / max(height, width)))
    tall, wide = round(height * factor), round(width * factor)
    canvas = np.clip(imresize(to_float(face.image[None])[0], tall, wide), 0, 1).transpose(1, 2, 0)
    x, y = np.meshgrid((np.arange(wide) + 0.5) * width / wide - 0.5, (np.arange(tall) + 0.5)
                       * height / tall - 0.5)
    at = transform(invert(face.matrix), np.stack([x, y], -1))
    rows, columns = np.where(((at > -0.5) & (at < crop.shape[0] - 0.5)).all(-1))
    inside = at[rows, columns]
    drawn = np.stack([map_coordinates(crop[..., c] / 255.0, inside[:, ::-1].T, order=3,
                                      mode="nearest") for c in range(3)], -1)
    edge = (np.minimum(inside + 0.5, crop.shape[0] - 0.5 - inside).min(1)
            / (FEATHER * crop.shape[0])).clip(0, 1)
    weight = (0.5 - 0.5 * np.cos(np.pi * edge))[:, None]
    canvas[rows, columns] = weight * drawn.clip(0, 1) + (1 - weight) * canvas[rows, columns]
    return to_uint8(canvas.transpose(2, 0, 1)[None])[0]
