"""The faces that trainings draw from: one file, and the same faces as tensors on the device of the
model.

The file holds aligned faces with a margin (WebP), their landmarks, the triangles of their warp, who
they are, and z_id, so that a machine without the data set and its detectors can train from it
(`--data FILE.npz`). Training people and held-out people are told apart by the protocol's own draw.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench import registry
from fsrbench.core import Profile
from fsrbench.engine.store import Store, check_file, told, write_atomic
from fsrbench.errors import FsrError, reason
from fsrbench.profiles import PROFILES
from fsrbench.progress import progress
from fsrbench.training.draws import Draws
from fsrbench.training.faces import luma, mirrored_points, mirrored_triangles, sampled

# The bank shows this much more than the profile's frame, so that a jittered crop stays inside it.
MARGIN = 1.2
# Raise it when the file's format changes: files of another one are made again.
FORMAT = 1
# Of WebP: at 90 a face of 112 px takes 2.5 kB and differs by 1.7 grey levels in the mean from its
# original, a JPEG itself.
QUALITY = 90
# Landmarks are kept in 1/64 of a pixel.
_SUBPIXEL = 64


@dataclass(frozen=True)
class Jitter:
    """Random changes of a crop: uniform ranges, and probabilities of mirroring and of turning
    grey."""

    degrees: float = 4.0
    scale: float = 0.06
    shift: float = 0.03
    flip: float = 0.5
    grey: float = 0.0


STILL = Jitter(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Origin:
    """What a bank was made of.

    Args:
        data: name of the data set; seed: of the split; profile: name.
        encoder: name of the network that gave z_id; empty where there is none.
        people: digests of the training people's names.
        digest: of the file's faces.
    """

    data: str
    seed: int
    profile: str
    encoder: str
    people: tuple[str, ...]
    digest: str


# Profile -> name of its identity encoder, and a function of images (N, 3, S, S) in [0, 1] and
# landmarks (N, 68, 2) to unit-length z_id (N, F).
_encoders: dict[str, Callable[[], tuple[str, Callable]]] = {}


def encodes(profile: str):
    """Decorator: the function makes the identity encoder that banks of this profile keep z_id
    of."""
    def register(make: Callable[[], tuple[str, Callable]]):
        _encoders[profile] = make
        return make
    return register


class Faces:
    """Faces of many people as tensors on a device.

    Args:
        images: uint8 (N, 3, B, B).
        points: (N, 68, 2) landmarks in bank pixels.
        person: (N,) index of the person.
        triangles: (N, T, 3) of the 78 points of each face.
        z_id: (N, F), unit length, or None.
        size: side of the crops to be made.
    """

    def __init__(self, images: torch.Tensor, points: torch.Tensor, person: np.ndarray,
                 triangles: torch.Tensor,
                 z_id: torch.Tensor | None, size: int, device: torch.device | str = "cpu"):
        self.images, self.points, self.triangles = (images.to(device), points.to(device),
                                                    triangles.to(device))
        self.z_id, self.size = None if z_id is None else z_id.to(device), size
        self.plain: torch.Tensor | None = None
        known = np.asarray(person, np.int64)
        count = np.bincount(known)
        order = np.argsort(known, kind="stable")
        first = np.append(0, np.cumsum(count)[:-1])
        rank = np.empty(len(known), np.int64)
        rank[order] = np.arange(len(known)) - first[known[order]]
        self.person, self.order, self.first, self.count, self.rank, self.several = (
            torch.from_numpy(values).to(device) for values in
            (known, order, first, count, rank, np.flatnonzero(count[known] > 1)))

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, draws: Draws, n: int, paired: float = 0.0) -> torch.Tensor:
        """(n,) faces at random; this share of them of people with two or more images."""
        index = draws.below(n, len(self))
        if not paired:
            return index
        return torch.where(draws.coins(n, paired), self.several[draws.below(n, len(self.several))],
                           index)

    def partner(self, draws: Draws, index: torch.Tensor) -> torch.Tensor:
        """Another image of the same person; the same one where there is no other."""
        person = self.person[index]
        others = self.count[person] - 1
        turn = torch.minimum((draws.uniform(len(index)) * others).long(), (others - 1).clamp(min=0))
        turn = torch.where(others > 0, turn + (turn >= self.rank[index]), self.rank[index])
        return self.order[self.first[person] + turn]

    def crops(self, draws: Draws, index: torch.Tensor, jitter: Jitter, flip: torch.Tensor,
              grey: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Jittered crops (n, 3, S, S) in [0, 1] and their landmarks (n, 68, 2).

        Args:
            flip, grey: (n,) bool.
        """
        n, side, size = len(index), self.images.shape[-1], self.size

        def within(reach: float, *shape: int) -> torch.Tensor:
            return draws.uniform(*shape, low=-reach, high=reach)
        angle = within(np.deg2rad(jitter.degrees), n)
        step = side / MARGIN / size * (1 + within(jitter.scale, n))
        shift = within(jitter.shift, n, 2) * side
        rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()], -1),
                                torch.stack([angle.sin(), angle.cos()], -1)], 1)
        linear = step[:, None, None] * rotation
        offset = (side - 1) / 2 + shift - linear.sum(-1) * ((size - 1) / 2)
        images = F.avg_pool2d(sampled(self.images[index].float() / 255, linear, offset, size,
                                      fine=2), 2)
        # The inverse of a rotation by the angle, scaled by the step.
        points = torch.einsum("nij,nkj->nki", rotation.transpose(1, 2), self.points[index]
                              - offset[:, None]) \
            / step[:, None, None]
        turned = flip[:, None, None]
        images = torch.where(turned[..., None], images.flip(-1), images)
        images = torch.where(grey[:, None, None, None], luma(images), images)
        return images, torch.where(turned, mirrored_points(points, size), points)

    def drawn(self, draws: Draws, n: int, jitter: Jitter) -> torch.Tensor:
        """n random faces (n, 3, S, S) in [0, 1], jittered, some mirrored, some grey."""
        flip, grey = draws.coins(n, jitter.flip), draws.coins(n, jitter.grey)
        return self.crops(draws, self.draw(draws, n), jitter, flip, grey)[0]

    def mesh(self, forehead: bool) -> torch.Tensor:
        """Triangles (N, T, 3), of the 68 landmarks alone where there is no forehead; these are made
        when first asked for."""
        if not forehead and self.plain is None:
            found = _triangles(self.points.cpu().numpy(), forehead)
            self.plain = torch.from_numpy(found).to(self.points.device)
        return self.triangles if forehead else self.plain

    def warp_triangles(self, index: torch.Tensor, flip: torch.Tensor,
                       forehead: bool = True) -> torch.Tensor:
        """Triangles (n, T, 3) of these faces, mirrored where the crop is."""
        straight = self.mesh(forehead)[index].long()
        return torch.where(flip[:, None, None], mirrored_triangles(straight), straight)


@dataclass
class Bank:
    """Training faces and held-out faces, on one device."""

    origin: Origin
    train: Faces
    held: Faces
    fingerprints: np.ndarray


# --- the file -------------------------------------------------------------------------------------

def open_bank(data: str, store: Store | None, profile: str, seed: int) -> Path:
    """The bank file that `--data` names: itself, or that of a data set, made once and kept in the
    store.

    Raises:
        FsrError: the file is of another profile or seed, or no face is left.
    """
    if data.endswith(".npz") or Path(data).is_file():
        path = Path(data)
        origin = origin_of_bank(path)
        if (origin.profile, origin.seed) != (profile, seed):
            raise FsrError(f"bank {path}", f"is of profile {origin.profile} and seed {origin.seed}",
                           f"give --profile {origin.profile} --seed {origin.seed}, or the data set "
                           f"itself", code=2)
        return path
    from fsrbench.engine.data import divided, open_source
    from fsrbench.imaging import digest

    source = open_source(data, store)
    people, drawn = divided(source, seed)
    name, _ = _encoder(profile)
    key = digest(repr((FORMAT, QUALITY, source.name, str(source.root), len(source.entries), seed,
                       profile, name, [(e.id, e.sha256) for e in source.entries])).encode())[:16]
    path = store.root / "banks" / f"{source.name}-{profile}-{key}.npz"
    if not path.exists():
        write_bank(path, source, (people, drawn), profile, seed, store)
    return path


def copy_bank(data: str, out: str | None, store: Store, profile: str, seed: int) -> str:
    """Write the bank of a data set where a user wants it; returns what there is to say of it."""
    if out:
        check_file(out)
    path = open_bank(data, store, profile, seed)
    known = origin_of_bank(path)
    target = Path(out or f"{known.data}.npz")
    if target.resolve() != path.resolve():
        write_atomic(target, path.read_bytes())
    return (f"{target}: {target.stat().st_size / 1e6:.1f} MB, faces of {len(known.people)} people "
            f"to train on" + (
         f", z_id by {known.encoder}" if known.encoder
         else "; no z_id, as no identity encoder of the profile is here"))


def _encoder(profile: str) -> tuple[str, Callable | None]:
    registry.load("trainings")  # the encoder of a profile stands beside the training that needs it
    return _encoders[profile]() if profile in _encoders else ("", None)


def write_bank(path: Path, source, people: tuple[list[str], list[str]], profile: str, seed: int,
               store: Store) -> None:
    """Write the bank file of a data set; `people` are those who train and those who are held
    out."""
    from fsrbench.engine.samples import person_digest
    from fsrbench.engine.splits import fingerprint, signature
    from fsrbench.imaging import digest

    shown, (name, encode), arrays, trained = PROFILES[profile], _encoder(profile), {}, []
    for half, chosen in zip(("train", "held"), people):
        images, points, person, names = _prepared(source, chosen, shown, store)
        faces = Faces(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(points),
                      person, torch.zeros(len(images), 1, 3, dtype=torch.uint8), None, shown.size)
        crops, marks = _still(faces)
        if half == "train":
            trained = sorted(map(person_digest, names))
            arrays["fingerprints"] = fingerprint(np.stack([signature(image) for image in
                                                           (crops.permute(0, 2, 3, 1) * 255).round()
                                                           .byte().numpy()]))
        blobs = [_webp(image) for image in images]
        arrays |= {f"{half}.blob": np.frombuffer(b"".join(blobs), np.uint8),
                   f"{half}.lengths": np.array([len(b) for b in blobs], np.int32),
                   f"{half}.person": person.astype(np.int32),
                   f"{half}.points": np.round(points * _SUBPIXEL).astype(np.int16),
                   f"{half}.triangles": _triangles(points)}
        if encode is not None:
            arrays[f"{half}.z_id"] = _encoded(encode, crops, marks).numpy().astype(np.float16)
    arrays["origin"] = np.array(json.dumps({
        "format": FORMAT, "data": source.name, "seed": seed, "profile": profile, "encoder": name,
        "digest": digest(arrays["train.blob"].tobytes())[:16],
        "people": trained}))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def _prepared(source, people: list[str], profile: Profile,
              store: Store) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Aligned faces uint8 (N, B, B, 3) of these people, their landmarks, who they are, and the
    names of those."""
    from fsrbench.engine.data import prepare, verified
    from fsrbench.faces.geometry import Frame
    from fsrbench.faces.prepare import Preparation

    chosen = set(people)
    entries = verified(source, [e for e in source.entries if e.person in chosen], store)
    frame = Frame(profile.frame.scale * MARGIN, profile.frame.drop)
    how = Preparation(round(profile.size * 1.75), frame, source.aligned)
    kept = [p for p in prepare(source, entries, how, store) if not p.error] if entries else []
    if not kept:
        raise FsrError(f"data set {source.name}", "no face is left for training or for holding out",
                       "give a data set of which the protocol draws a part only (lfw)", code=2)
    names = {name: i for i, name in enumerate(sorted({p.entry.person for p in kept}))}
    return (np.stack([store.image(p.image) for p in kept]), np.stack([p.points for p in kept])
            .astype(np.float32),
            np.array([names[p.entry.person] for p in kept], np.int64), list(names))


def _still(faces: Faces) -> tuple[torch.Tensor, torch.Tensor]:
    """All faces as the profile shows them, without jitter, and their landmarks."""
    draws, found = Draws("cpu"), []
    for index in torch.arange(len(faces)).split(256):
        off = torch.zeros(len(index), dtype=torch.bool)
        found.append(faces.crops(draws, index, STILL, off, off))
    return tuple(torch.cat(parts) for parts in zip(*found))


def _encoded(encode: Callable, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    batches = list(zip(images.split(64), points.split(64)))
    return torch.cat([encode(image, marks.numpy()) for image, marks in progress(batches,
                                                                                desc="identity")])


def _triangles(points: np.ndarray, forehead: bool = True) -> np.ndarray:
    """Delaunay triangles (N, T, 3) of each face's 78 points, or 68 without the forehead's; short
    rows are filled with the flat triangle (0, 0, 0)."""
    from scipy.spatial import Delaunay

    from fsrbench.faces.warp import with_forehead

    outlines = (with_forehead(p) if forehead else p for p in points.astype(np.float64))
    found = [Delaunay(outline).simplices for outline in outlines]
    padded = np.zeros((len(found), max(map(len, found)), 3), np.uint8)
    for row, simplices in zip(padded, found):
        row[:len(simplices)] = simplices
    return padded


def _webp(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()


def _opened(path: Path):
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        # NumPy's own words advise to load what may be code.
        cause = (told(error) if isinstance(error, OSError) else "it holds no arrays"
                 if "pickle" in str(error) else reason(error))
        raise FsrError(f"bank {path}", f"cannot be read ({cause})",
                       "make it by `invoke bank --data NAME --out FILE.npz`", code=2) from None


def origin_of_bank(path: Path) -> Origin:
    """What a bank file was made of.

    Raises:
        FsrError: it is none, or of another format.
    """
    with _opened(path) as file:
        known = json.loads(str(file["origin"])) if "origin" in file else {}
    if known.pop("format", None) != FORMAT:
        raise FsrError(f"bank {path}", "is no bank of faces of this version",
                       "make it by `invoke bank`", code=2)
    return Origin(**{**known, "people": tuple(known["people"])})


def read_bank(path: Path, device: torch.device | str = "cpu") -> Bank:
    """The faces of a bank file on a device."""
    origin = origin_of_bank(path)
    with _opened(path) as file:
        arrays = {name: file[name] for name in file.files}
    halves = [_faces(arrays, half, PROFILES[origin.profile].size, device)
              for half in ("train", "held")]
    return Bank(origin, *halves, arrays["fingerprints"])


def _faces(arrays: dict[str, np.ndarray], half: str, size: int, device: torch.device
           | str) -> Faces:
    from PIL import Image

    blob, ends = arrays[f"{half}.blob"].tobytes(), np.cumsum(arrays[f"{half}.lengths"])
    images = np.stack([np.asarray(Image.open(io.BytesIO(blob[end - length:end])).convert("RGB"))
                       for end, length in zip(ends, arrays[f"{half}.lengths"])])
    z_id = arrays.get(f"{half}.z_id")
    return Faces(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
                 torch.from_numpy(arrays[f"{half}.points"].astype(np.float32) / _SUBPIXEL),
                 arrays[f"{half}.person"], torch.from_numpy(arrays[f"{half}.triangles"]),
                 None if z_id is None else F.normalize(torch.from_numpy(z_id.astype(np.float32))),
                 size, device)
