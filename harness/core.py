"""The nouns of the benchmark: Profile, Sample, Batch, Part, Method."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsrbench.faces.geometry import Frame
from fsrbench.imaging import imresize

if TYPE_CHECKING:
    import torch

    from fsrbench.faces.geometry import Landmarks


@dataclass(frozen=True)
class Profile:
    """Sizes and defaults of a run; the code is the same under both.

    Args:
        name: "mini" or "paper".
        size: side of HQ images in pixels.
        frame: what an aligned image shows.
        data: default of --data.
        people: default of --people; None for all that the protocol draws.
        batch: default of --batch.
    """

    name: str
    size: int
    frame: Frame
    data: str
    people: int | None
    batch: int


@dataclass(frozen=True)
class FaceImage:
    """An aligned HQ image of a person.

    Args:
        id: "person/image".
        digest: of its pixels in the store.
        image: uint8 (S, S, 3).
        landmarks: in its own pixels.
    """

    id: str
    digest: str
    image: np.ndarray
    landmarks: Landmarks

    @cached_property
    def seen(self) -> str:
        """Digest of all that a method sees of it: pixels, and where its landmarks are."""
        points = hashlib.sha256(np.round(self.landmarks.points, 3).tobytes()).hexdigest()
        return f"{self.digest}|{points[:16]}"


@dataclass(frozen=True)
class Sample:
    """One restoration to be made: a ground truth, and the references that a method may see.

    Args:
        id: "person/image" of the ground truth.
        person: identity.
        gt: the ground truth I_G; never handed to a method.
        reference: I_R, drawn from the fine-tune half by the seeded rule.
        album: the whole fine-tune half of the person.
    """

    id: str
    person: str
    gt: FaceImage
    reference: FaceImage
    album: tuple[FaceImage, ...]


@dataclass(frozen=True)
class Person:
    """What a personalised method may fit to: a name and the fine-tune half."""

    name: str
    album: tuple[FaceImage, ...]


@dataclass
class Batch:
    """What a method sees of N samples: everything but the ground truth.

    Args:
        ids: N sample ids; random draws are seeded by them.
        people: N identities.
        lr: (N, 3, h, w) float32 in [0, 1], the low-resolution input, 8-bit values.
        scale: the factor s; HQ images are (s h, s w).
        landmarks: N sets of landmarks of the face in I_L, in HQ pixels, found without looking at
            the ground truth unless the method asks for an "oracle".
        references: N references I_R.
        albums: N fine-tune halves.
        fits: what `Method.fit` returned, by person.
        seed: of the run.
        prepared: what `Method.prepare` made of it; note: for the record, what ran otherwise than
            it should.
        failures: for the method to fill: position of a sample that it cannot restore -> why. Such a
            sample counts as failed, whatever is returned for it. A method never sees samples of a
            person that it could not be fitted to.
    """

    ids: list[str]
    people: list[str]
    lr: np.ndarray
    scale: int
    landmarks: list[Landmarks]
    references: list[FaceImage]
    albums: list[tuple[FaceImage, ...]]
    fits: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    seed: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    prepared: object = field(default=None, init=False)
    note: str = field(default="", init=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Side of the HQ images in pixels."""
        return self.lr.shape[-1] * self.scale

    @cached_property
    def upsampled(self) -> np.ndarray:
        """I_L at HQ size, (N, 3, S, S) float32 in [0, 1]: bicubic, clipped."""
        return np.clip(imresize(self.lr, self.size, self.size), 0, 1).astype(np.float32)

    def noise(self, *words: object, size: int | None = None, channels: int = 3) -> torch.Tensor:
        """Standard normal (N, channels, size, size), of side S unless told; each sample's draw
        depends on its id, the scale, the seed and `words` only.

        Methods that ask with the same words get the same noise, so that their rows are paired.
        """
        from fsrbench.rng import stacked_normal

        side = size or self.size
        return stacked_normal((channels, side, side), self.ids, self.seed, self.scale, *words)

    def uniform(self, *words: object, size: int) -> torch.Tensor:
        """Uniform (N, 1, size, size) in [0, 1), under the rule of `noise`."""
        from fsrbench.rng import stacked_uniform

        return stacked_uniform((1, size, size), self.ids, self.seed, self.scale, *words)


@dataclass(frozen=True)
class Part:
    """A network of a method: how it is built, where its weights are, and what one call takes.

    Args:
        weights: name in the catalogue.
        build: makes the untrained network on the default device.
        inputs: makes the tensors of one call for one image, on the default device; Table 6 counts
            with them.
        prefix: of the network's keys in a file that holds several networks; keys without it are not
            its own.
        keep: prefixes (behind that one) of the keys to take; empty for all.
        counted: whether the paper's Table 6 counts it.
        within: whether its parameters are among those of another part.
    """

    weights: str
    build: Callable[[], torch.nn.Module]
    inputs: Callable[[], tuple[torch.Tensor, ...]]
    keep: tuple[str, ...] = ()
    prefix: str = ""
    counted: bool = True
    within: bool = False


class Method:
    """A method of the benchmark: subclass, name it, register it with `@fsrbench.registry.method`.

    Class attributes:
        name: "method.tag" as typed by users and shown in the CSV ("bicubic", "idfsr.ft").
        title: as the table shows it.
        weights: "none", "mini" (trained here), "official" (its authors' files), "published" (its
            authors' weights as a package registry has them) or "given" (a file of the user's).
        needs: any of "references" (I_R), "album" (the fine-tune half), "landmarks", "oracle" (the
            landmarks are those of the ground truth), "fit" (calls `fit` for each person first).
        parts: its networks by role; their weights must be present.
        weight_files: names in the catalogue of whatever else must be present.
        files: paths of files of its own that decide the result (weights that are in no catalogue,
            tables).
        paper: the method's name in the paper's tables; None where it has no row there.
        profiles: names of the profiles that it can run under.
        nfe: network evaluations of one restoration.
        licence, origin: of weights and idea, for `invoke methods`.
        remark: what stands in a table's notes beside its row.
        spread: only of a method of which the last bit decides the image: how far its means were
            measured to move between machines (see `engine.tolerance.spread_of`).
    """

    name: str
    title: str = ""
    weights: str = "none"
    needs: frozenset[str] = frozenset()
    parts: Mapping[str, Part] = {}
    weight_files: tuple[str, ...] = ()
    files: tuple[str | Path, ...] = ()
    paper: str | None = None
    profiles: tuple[str, ...] = ("mini", "paper")
    nfe: int = 0
    licence: str = ""
    origin: str = ""
    remark: str = ""

    def __init__(self, profile: Profile):
        self.profile = profile
        self.weight_files = tuple(dict.fromkeys([*self.weight_files,
                                                 *(p.weights for p in self.parts.values())]))
        self.stand_ins: dict[str, torch.nn.Module] = {}

    def part(self, role: str) -> torch.nn.Module:
        """The network of that role, loaded once per process; a stand-in where one is set (to count
        calls, to test).

        Raises:
            FsrError: its weights are missing or of another network.
        """
        from fsrbench.weights.networks import load_part

        return self.stand_ins[role] if role in self.stand_ins else load_part(self.parts[role])

    def settings(self) -> str:
        """Whatever else decides the result besides source and weights; part of the record's key."""
        return ""

    def resizing(self) -> str:
        """How an image comes to the side at which the networks work, and back, in words for record
        and report; empty where that side is the profile's."""
        return ""

    def fit(self, person: Person, seed: int) -> Mapping[str, torch.Tensor]:
        """Fit to a person's fine-tune half; the tensors are kept and handed back in
        `Batch.fits`."""
        raise TypeError(f"{self.name} is not a personalised method")

    def together(self) -> int:
        """How many people it does well to fit in one batch, where it runs now."""
        return 1

    def fit_many(self, people: Sequence[Person],
                 seed: int) -> Sequence[Mapping[str, torch.Tensor]]:
        """Fits of several people in their order, each what `fit` makes of one alone but for
        rounding; asked for where `together` says more than one. By default one after the other."""
        return [self.fit(person, seed) for person in people]

    def prepare(self, batch: Batch) -> None:
        """Make what the processor makes for `restore`, into `batch.prepared`: a run prepares the
        next batch while a GPU restores one. By default I_L at full size."""
        batch.upsampled  # noqa: B018  kept by the batch

    def restore(self, batch: Batch) -> torch.Tensor | np.ndarray:
        """(N, 3, S, S) float32 in [0, 1], restorations of the batch in its order."""
        raise TypeError(f"{self.name} does not restore")
