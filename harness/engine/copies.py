"""Near duplicates: two aligned images that come of one photograph, whatever was done to it.

A copy may be recompressed, rescaled, mirrored, cropped (which moves the alignment), brightened, or
partly covered. What stays is fine structure: high-passed blocks of one image are found again in the
other, all of them moved by one affine map, while two photographs of a person agree in the large and
differ in the fine. So blocks are looked for coarsely, a map is fitted to where they are found, the
image is warped by it, and the blocks are compared where they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter, map_coordinates

from fsrbench.engine.splits import signature, signature_distances
from fsrbench.imaging import imresize

# Measured at 64 px. Of 1,773 pairs of one person in ORL's studio series 10 agree so well, shots of
# one moment that differ in hardly anything (the next pair, s7/3 and s7/6, does in the mouth); of
# 860 such pairs of 60 people in LFW none. Of copies mirrored, turned by 5 degrees, cropped by 5 %
# on all sides or by 10 % on one, with a gamma of 0.6 or 1.6, or with a banner over a fifth, 92 to
# 100 % agree so well on ORL (20 people, on whom the value was chosen) and 99 to 100 % on LFW (60
# people, not chosen on); cropped by 10 % on all sides 82 % and 100 %.
SAME = 0.973
# Copies whose signatures differ by less need no closer look, and what strong compression leaves has
# no fine structure: of copies recompressed at quality 30 to 90 and rescaled by 0.6 to 1.7, 97 % are
# nearer on ORL and 90 % on LFW.
DUPLICATE = 0.005
SIDE = 64
# Blocks of the coarse search (at half the side) and of the fine one: side, step, how far one may
# have moved, high pass.
_COARSE, _FINE = (8, 4, 3, 1.0), (16, 8, 2, 1.5)
# Pairs whose coarse blocks agree less than this by the median are not looked at closer.
_CANDIDATE = 0.7
# Share of the blocks that must agree; the others may be covered, or mirrored border.
_SHARE = 0.35
# Contrast in levels below which a block counts as flat, so that noise in flat parts agrees with
# nothing.
_FLAT = 1.0


@dataclass(frozen=True)
class Blocks:
    """A grid of blocks, and how they are compared.

    Args:
        side: of the image; block, step, reach: in pixels; sigma: of the high pass.
    """

    side: int
    block: int
    step: int
    reach: int
    sigma: float

    @property
    def corners(self) -> list[tuple[int, int]]:
        at = range(self.reach, self.side - self.block - self.reach + 1, self.step)
        return [(y, x) for y in at for x in at]

    @property
    def centres(self) -> np.ndarray:
        return np.array(self.corners) + (self.block - 1) / 2

    def own(self, grey: np.ndarray) -> np.ndarray:
        """The blocks of the grid, high-passed, without their mean and of length one: (K, block^2)
        float32."""
        return self._around(grey, 0)[:, 0]

    def found(self, grey: np.ndarray, own: np.ndarray) -> np.ndarray:
        """How well the blocks (K, block^2, M) of M others agree with an image around where they
        stand: (K, n, n, M), n of 2 reach + 1."""
        n = 2 * self.reach + 1
        return (self._around(grey, self.reach) @ own).reshape(len(own), n, n, -1)

    def _around(self, grey: np.ndarray, reach: int) -> np.ndarray:
        """The blocks that stand up to `reach` pixels beside those of the grid: (K, (2 reach + 1)^2,
        block^2)."""
        views = sliding_window_view(grey - gaussian_filter(grey, self.sigma),
                                    (self.block, self.block))
        near = np.stack([views[y - reach:y + reach + 1, x - reach:x + reach + 1]
                         for y, x in self.corners])
        blocks = near.reshape(len(near), -1, self.block**2)
        blocks = blocks - blocks.mean(-1, keepdims=True)
        return blocks / np.maximum(np.linalg.norm(blocks, axis=-1, keepdims=True),
                                   _FLAT * self.block)


COARSE, FINE = Blocks(SIDE // 2, *_COARSE), Blocks(SIDE, *_FINE)


@dataclass(frozen=True)
class Look:
    """What of an aligned image is compared: grey (64, 64), upright and mirrored, and its
    signature."""

    greys: tuple[np.ndarray, np.ndarray]
    signature: np.ndarray


def look(image: np.ndarray) -> Look:
    """What is compared of an uint8 (S, S, 3) aligned image of any side."""
    grey = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    grey = (grey if grey.shape == (SIDE, SIDE) else imresize(grey, SIDE, SIDE)).astype(np.float32)
    return Look((grey, grey[:, ::-1]), signature(image))


def _halved(grey: np.ndarray) -> np.ndarray:
    return grey.reshape(SIDE // 2, 2, SIDE // 2, 2).mean((1, 3))


def near_duplicates(a: Sequence[Look], b: Sequence[Look]) -> np.ndarray:
    """Whether each of `a` is a copy of each of `b`: (N, M) bool."""
    close = signature_distances(np.stack([x.signature for x in a]),
                                np.stack([y.signature for y in b])) <= DUPLICATE
    greys = [grey for x in a for grey in x.greys]
    blocks = np.stack([COARSE.own(_halved(grey)) for grey in greys], -1)
    for j, other in enumerate(b):
        maps = COARSE.found(_halved(other.greys[0]), blocks)
        agree = np.median(maps.max((1, 2)), 0)
        for i in np.flatnonzero(agree >= _CANDIDATE):
            close[i // 2, j] = close[i // 2, j] or likeness(greys[i], other.greys[0],
                                                            maps[..., i]) >= SAME
    return close


def likeness(a: np.ndarray, b: np.ndarray, maps: np.ndarray) -> float:
    """How well (-1 to 1) the best blocks of `a`, a share of `_SHARE`, agree at least with `b`
    warped onto it.

    Args:
        a, b: grey (64, 64).
        maps: (K, n, n) of the coarse search of a's blocks in b.
    """
    own = FINE.own(a)
    moved, agree = _peaks(maps)
    # A pixel of the coarse image is two wide.
    matrix, offset = _affine(2 * COARSE.centres + 0.5, 2 * (COARSE.centres + moved) + 0.5, agree)
    moved, agree = _peaks(FINE.found(_warped(b, matrix, offset), own[..., None])[..., 0])
    matrix, offset = _affine(FINE.centres, (FINE.centres + moved) @ matrix.T + offset, agree)
    return float(np.quantile((FINE.own(_warped(b, matrix, offset)) * own).sum(-1), 1 - _SHARE))


def _warped(grey: np.ndarray, matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
    at = np.moveaxis(np.indices(grey.shape), 0, -1) @ matrix.T + offset
    return map_coordinates(grey, np.moveaxis(at, -1, 0), order=3, mode="mirror").astype(np.float32)


def _peaks(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each map (K, n, n) is highest, from its centre and by a parabola between pixels: (K,
    2); and the height (K,)."""
    n, rows = maps.shape[-1], np.arange(len(maps))
    y, x = np.divmod(maps.reshape(len(maps), -1).argmax(1), n)
    inner_y, inner_x = y.clip(1, n - 2), x.clip(1, n - 2)
    lines = [np.stack([maps[rows, inner_y + d, x] for d in (-1, 0, 1)]),
             np.stack([maps[rows, y, inner_x + d] for d in (-1, 0, 1)])]
    between = []
    for (before, at, after), inside in zip(lines, (inner_y == y, inner_x == x)):
        bend = np.minimum(before - 2 * at + after, -1e-6)
        between.append(np.where(inside, ((before - after) / (2 * bend)).clip(-0.5, 0.5), 0))
    return np.stack([y, x], -1) - n // 2 + np.stack(between, -1), maps[rows, y, x]


def _affine(source: np.ndarray, target: np.ndarray, agree: np.ndarray) -> tuple[np.ndarray,
                                                                                np.ndarray]:
    """Affine map of points (K, 2) onto others, by blocks that agree; those that moved otherwise
    than most count little."""
    sure = np.square(np.clip(agree - 0.5, 1e-3, None))
    weights = sure
    design = np.column_stack([source, np.ones(len(source))])
    for _ in range(4):
        root = np.sqrt(weights)[:, None]
        solved = np.linalg.lstsq(design * root, target * root, rcond=None)[0]
        left = np.linalg.norm(target - design @ solved, axis=1)
        weights = sure / (1 + np.square(left / max(np.median(left), 0.35)))
    return solved[:2].T, solved[2]
