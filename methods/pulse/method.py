"""PULSE on MobileStyleGAN: a face of the generator that is I_L when downsampled, by search alone.

Not as its authors ran it: they search StyleGAN1 at 1024 px with its noise, once; here the generator
is MobileStyleGAN, whose noise is constant, read by its linear heads at 64 or 256 px, each style of
the layers that these use is a latent, and of two starts the better one goes on after a twentieth of
the steps. The search draws in bfloat16 where that is fast; the face found is drawn in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed

from fsrbench.core import Batch, Method
from fsrbench.faces.geometry import Frame
from fsrbench.imaging import resize_matrix, to_float
from fsrbench.methods.common.identity import IdentityEncoder
from fsrbench.methods.common.mobilestylegan import LICENCE, STYLE, WEIGHTS, load_generator
from fsrbench.methods.common.mobilestylegan_heads import HEADS, LAYERS, load_head
from fsrbench.methods.common.sface import SIDE, SFace
from fsrbench.methods.pulse.drawing import Drawing, Span
from fsrbench.methods.pulse.search import CHOOSE, STEPS, Sphere, fitted_sphere, search
from fsrbench.registry import method
from fsrbench.rng import normal
from fsrbench.weights.catalogue import require
from fsrbench.weights.networks import device, load_strict, read_state
from fsrbench.weights.shared import SFACE

# A further loss (F, N) of images (F, N, 3, S, S) in about [0, 1].
Further = Callable[[torch.Tensor], torch.Tensor]
STARTS = 2
# 1 - cosine to the reference set weighs as much as a hundredth of squared error.
IDENTITY_WEIGHT = 1.0


@lru_cache(maxsize=2)
def _sphere(place: str) -> Sphere:
    with torch.inference_mode(False), torch.no_grad():
        found = fitted_sphere(load_generator("cpu")[0](normal((8192, STYLE), "sphere")))
    return Sphere(found.mean.to(place), found.deviation.to(place))


@lru_cache(maxsize=2)
def _encoder(place: str) -> IdentityEncoder:
    with torch.inference_mode(False):
        network = load_strict(SFace(), read_state(require(SFACE.name)), SFACE.name)
        return IdentityEncoder(network.to(place), SIDE)


def cut(size: int, side: int, frame: Frame, place: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices (size, side), of rows and columns, that cut a frame out of one of FFHQ, linearly."""
    def rows(drop: float) -> torch.Tensor:
        step = side * frame.scale / size
        at = step * (torch.arange(size) + 0.5) + side * (0.5 - frame.scale / 2 + drop) - 0.5
        weights = (1 - (at.clamp(0, side - 1)[:, None] - torch.arange(side)).abs()).clamp(min=0)
        return weights.to(place)
    return rows(frame.drop), rows(0.0)


def _between(size: int, small: int, place: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Bicubic downsampling of square images to a side, differentiable."""
    matrix = torch.from_numpy(resize_matrix(size, small).astype(np.float32)).to(place)
    return lambda images: matrix @ images @ matrix.T


def fast(place: str) -> torch.dtype:
    """bfloat16 where a device multiplies in it, which halves the time and leaves the losses as they
    are; on other processors it takes up to 17 times as long as float32. Like other hardware it is
    not in a record's key; `Pulse.spread` says what follows."""
    able = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not say
    return torch.bfloat16 if (place != "cpu" or able.get("avx512_bf16")
                              or able.get("amx_bf16")) else torch.float32


def seen(matrix: torch.Tensor) -> Span:
    """Columns, from one to another, outside which a matrix is zero."""
    found = matrix.any(0).nonzero().flatten().tolist()
    return found[0], found[-1] + 1


@lru_cache(maxsize=4)
def _drawing(place: str, side: int, dtype: torch.dtype, rows: Span, columns: Span) -> Drawing:
    with torch.inference_mode(False), torch.no_grad():
        drawing = Drawing(load_generator("cpu")[1], load_head(side), LAYERS[side], rows, columns)
        return drawing.to(place, dtype, memory_format=torch.channels_last)


@dataclass(frozen=True)
class Window:
    """A frame cut out of the generator's images, of which no more is drawn.

    Args:
        size: side of the frame's images; side: of the generator's, 64 or 256.
    """

    size: int
    side: int
    frame: Frame
    place: str

    @cached_property
    def _matrices(self) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.inference_mode(False):
            return cut(self.size, self.side, self.frame, self.place)

    @cached_property
    def _spans(self) -> tuple[Span, Span]:
        return seen(self._matrices[0]), seen(self._matrices[1])

    def drawing(self, dtype: torch.dtype) -> Drawing:
        """What draws it, in a precision; made once."""
        return _drawing(self.place, self.side, dtype, *self._spans)

    def image_of(self, styles: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Images (N, 3, size, size) in [0, 1], not clipped, of styles (N, K, 512), drawn in a
        precision."""
        drawing = self.drawing(dtype)
        rows, columns = (matrix[:, slice(*span)]
                         for matrix, span in zip(self._matrices, drawing.seen))
        return rows @ ((drawing(styles.to(dtype)).float() + 1) / 2) @ columns.T


@method
class Pulse(Method):
    """By I_L alone."""

    name, title, weights, paper = "pulse.official-prior", "PULSE", "published", None
    weight_files = (*WEIGHTS, HEADS.name)
    # Samples that a thread searches for together, by the generator's side: one alone leaves a
    # processor waiting for memory (10.5 ms a step and sample, 6.5 of four), at 256 px one fills it.
    # Of a number that is not a multiple of four the last may be rounded otherwise than the first.
    together = {64: 4, 256: 1}
    # Twice the largest move between bfloat16 and float32, each its own choice of faces: of the 14
    # columns of ORL at x8 (59 images of 12 people) one moved by .26 of half its interval (BRISQUE,
    # 42.20 to 43.33) when faces were searched for one by one; by four .09 at most (a gap), PSNR by
    # .04 (21.49 to 21.45), their root mean square .045.
    # A search of 30 steps moves PSNR, LPIPS-VGG, DISTS and IDS by more than is allowed.
    spread = 0.5
    # The last one draws the face that was found.
    nfe = STEPS + (STARTS - 1) * CHOOSE + 1
    licence = f"method: non-commercial (adamian98/pulse); generator: {LICENCE}"
    origin = "PULSE (CVPR 2020), adamian98/pulse, on MobileStyleGAN of random-face"
    remark = ("MobileStyleGAN in place of StyleGAN1, by its linear head at 64 px (256 in the paper "
              "profile), without noise to search; the better of two starts; the search runs in "
              "bfloat16 where the processor does")

    def further(self, batch: Batch, samples: list[int], place: str) -> Further | None:
        """A further loss of images, whose faces are these samples in this order."""
        return None

    def restore(self, batch: Batch) -> torch.Tensor:
        """(N, 3, S, S) in [0, 1].

        A hundred steps make much of the last bit, which the size of a batch or the number of
        threads may decide, though not who else is in it: so a search is always of as many samples,
        some of them twice if need be, on a processor by one thread.
        """
        place, threads = device(), torch.get_num_threads()
        window = Window(batch.size, 64 if batch.size <= 64 else 256, self.profile.frame, place)
        _sphere(place), window.drawing(fast(place)), window.drawing(torch.float32)
        size = self.together[window.side]
        groups = [list(range(i, i + size)) for i in range(0, len(batch), size)]
        groups = [[min(i, len(batch) - 1) for i in group] for group in groups]
        try:
            return torch.cat(Parallel(threads if place == "cpu" else 1, prefer="threads")(
                delayed(self._found)(batch, group, window) for group in groups))[:len(batch)]
        finally:
            torch.set_num_threads(threads)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _found(self, batch: Batch, samples: list[int], window: Window) -> torch.Tensor:
        """The faces found for these samples, (N, 3, S, S) in [0, 1]."""
        torch.set_num_threads(1)
        place = window.place
        shape, words = (LAYERS[window.side] + 1, STYLE), (batch.seed, batch.scale, "pulse")
        starts = torch.stack([torch.stack([normal(shape, *words, n, batch.ids[i])
                                           for n in range(STARTS)]) for i in samples])
        with torch.autocast(torch.device(place).type, enabled=False):
            styles, _ = search(
                partial(window.image_of, dtype=fast(place)), _sphere(place), starts.to(place),
                _between(batch.size, batch.lr.shape[-1], place),
                torch.from_numpy(batch.lr[samples]).to(place),
                self.further(batch, samples, place))
            return window.image_of(styles, torch.float32).detach().clamp(0, 1).cpu()


@method
class PulseIdentity(Pulse):
    """By I_L and the reference set: the image is also to be the person's, by SFace."""

    name, title = "pulse.official-prior-id", "PULSE (reference)"
    needs = frozenset({"references", "album", "landmarks"})
    weight_files = (*Pulse.weight_files, SFACE.name)
    # The recogniser takes most of the time, and gains nothing by four.
    together = {64: 1, 256: 1}
    remark = f"{Pulse.remark}; searched under SFace"

    def further(self, batch: Batch, samples: list[int], place: str) -> Further:
        """1 - cosine to the mean of the reference set's embeddings."""
        encoder, albums = _encoder(place), [batch.albums[i] for i in samples]
        people = torch.stack([encoder(
            torch.from_numpy(to_float(np.stack([p.image for p in album]))),
            [p.landmarks.points for p in album]).mean(0) for album in albums]).to(place)
        marks = torch.from_numpy(np.stack([batch.landmarks[i].points for i in samples])
                                 .astype(np.float32)).to(place)

        def loss(images: torch.Tensor) -> torch.Tensor:
            points = marks[:, None].expand(-1, images.shape[1], -1, -1).flatten(0, 1)
            found = encoder.features_of(images.flatten(0, 1), points).unflatten(0, images.shape[:2])
            return IDENTITY_WEIGHT * (1 - F.cosine_similarity(found, people[:, None], dim=-1))
        return loss
