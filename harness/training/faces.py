"""Everything that a training step needs of faces, in batches on the device of the model.

Equal to what the benchmark does one image at a time with NumPy (`imaging.imresize`, `faces.warp`),
within float32; tests compare. N images of side S; landmarks (N, 68, 2) in pixels. Not to be run
under autocast: bfloat16 cannot tell positions.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.faces.geometry import MIRROR_68
from fsrbench.imaging import resize_matrix

# Factors of the bicubic degradation that trainings draw from, in the order of the matrices below.
FACTORS = (1, 2, 4, 8, 16, 32)
# How often the blind restorers see each; 1 and 2 so that what is sharp is left alone.
FACTOR_ODDS = (0.05, 0.1, 0.15, 0.3, 0.3, 0.1)
LUMA = (0.299, 0.587, 0.114)


@lru_cache(maxsize=8)
def _matrices(size: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Bicubic matrices (factors, S, S) that downsample by each of FACTORS and upsample again; what
    is left over is zero."""
    down, up = (torch.zeros(len(FACTORS), size, size) for _ in range(2))
    for i, factor in enumerate(FACTORS):
        if (small := size // factor) > 0:
            down[i, :small] = torch.from_numpy(resize_matrix(size, small).astype(np.float32))
            up[i, :, :small] = torch.from_numpy(resize_matrix(small, size).astype(np.float32))
    return down.to(device), up.to(device)


@lru_cache(maxsize=8)
def _mirror(device: str) -> torch.Tensor:
    """Mirror image of each of the 78 points, the forehead's (see `faces.warp.with_forehead`) behind
    the others."""
    return torch.from_numpy(np.r_[MIRROR_68, 68 + MIRROR_68[17:27] - 17]).to(device)


def _resized(matrices: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    left = matrices[:, None]
    return left @ images @ left.transpose(-1, -2)


def downsampled(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """I_L of images (N, 3, S, S) in [0, 1]: bicubic, clipped, 8 bit, in the upper left corner of
    (N, 3, S, S).

    Args:
        factor: (N,) positions in FACTORS.
    """
    small = _resized(_matrices(images.shape[-1], str(images.device))[0][factor], images)
    return (small.clamp(0, 1) * 255 + 0.5).floor() / 255


def upsampled(small: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """I_L at HQ size (N, 3, S, S) in [0, 1], bicubic, of what `downsampled` gave."""
    return _resized(_matrices(small.shape[-1], str(small.device))[1][factor], small).clamp(0, 1)


def luma(images: torch.Tensor) -> torch.Tensor:
    """Grey values (N, 1, S, S) of (N, 3, S, S)."""
    return sum(weight * images[:, i:i + 1] for i, weight in enumerate(LUMA))


def mirrored_points(points: torch.Tensor, size: int) -> torch.Tensor:
    """Landmarks of the mirrored image."""
    order = _mirror(str(points.device))[:68]
    return torch.stack([size - 1 - points[:, order, 0], points[:, order, 1]], -1)


def mirrored_triangles(triangles: torch.Tensor) -> torch.Tensor:
    """The same triangles (N, T, 3) of 78 points in the mirrored image."""
    return _mirror(str(triangles.device))[triangles]


def sampled(images: torch.Tensor, linear: torch.Tensor, offset: torch.Tensor, size: int,
            fine: int = 1) -> torch.Tensor:
    """Bilinear crops (N, C, fine size, fine size) whose pixel p lies at linear p + offset; the
    border mirrors.

    Args:
        linear: (N, 2, 2); offset: (N, 2), of the map from crop pixels to pixels of the image.
    """
    axis = (torch.arange(size * fine, device=images.device, dtype=torch.float32) + 0.5) / fine - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    at = torch.einsum("hwk,nik->nhwi", torch.stack([x, y], -1), linear) + offset[:, None, None]
    height, width = images.shape[-2:]
    grid = torch.stack([at[..., 0] / (width - 1), at[..., 1] / (height - 1)], -1) * 2 - 1
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=True)


def with_forehead(points: torch.Tensor) -> torch.Tensor:
    """`faces.warp.with_forehead` of a batch: (N, 78, 2)."""
    from fsrbench.faces.warp import FOREHEAD

    brows = points[:, 17:27]
    return torch.cat([points, brows + FOREHEAD * (brows - points[:, 33:34])], 1)


def warped(reference: torch.Tensor, source: torch.Tensor, target: torch.Tensor,
           triangles: torch.Tensor, forehead: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's face warped onto other landmarks (I_R to I_W, paper 3.2).

    Args:
        reference: (N, 3, S, S), any range; source, target: its landmarks, and where they go.
        triangles: (N, T, 3) of the 78 points, or of the 68 where the face has no `forehead`; unused
            rows repeat a point.

    Returns:
        (N, 3, S, S), zero outside the face, and the face's mask (N, 1, S, S), 1 inside.
    """
    n, size = len(reference), reference.shape[-1]
    if forehead:
        source, target = with_forehead(source), with_forehead(target)

    def corners(points: torch.Tensor) -> torch.Tensor:
        return points.gather(1, triangles.reshape(n, -1, 1).expand(-1, -1, 2)).reshape(n, -1, 3, 2)
    axis = torch.arange(size, device=reference.device, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pixels, parts = torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1), []
    # So many faces at a time as fit the caches of a processor, or the memory of a GPU.
    room = max(1, (1 << 27 if reference.is_cuda else 1 << 20) // (triangles.shape[1] * size * size))
    for start in range(0, n, room):
        some = slice(start, start + room)
        parts.append(_source_of(pixels, corners(target)[some], corners(source)[some]))
    at, inside = (torch.cat(part) for part in zip(*parts))
    grid = (at / (size - 1) * 2 - 1).reshape(n, size, size, 2).clamp(-3, 3)
    mask = inside.reshape(n, 1, size, size).float()
    return F.grid_sample(reference, grid, padding_mode="border", align_corners=True) * mask, mask


def _source_of(pixels: torch.Tensor, target: torch.Tensor,
               source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where pixels come from, (N, P, 2), and which of them lie in a triangle, (N, P).

    Args:
        pixels: (3, P), the last row ones; target, source: corners (N, T, 3, 2) of the triangles.
    """
    n, count = target.shape[:2]
    a, b, c = target.unbind(2)
    det = (b[..., 1] - c[..., 1]) * (a[..., 0]
                                     - c[..., 0]) + (c[..., 0] - b[..., 0]) * (a[..., 1]
                                                                               - c[..., 1])
    flat = det.abs() < 1e-6
    det = torch.where(flat, torch.ones_like(det), det)

    def weight(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        """Barycentric weight of the corner across from the edge p q, as a linear form of a
        pixel."""
        x, y = (p[..., 1] - q[..., 1]) / det, (q[..., 0] - p[..., 0]) / det
        return torch.stack([x, y, -(x * q[..., 0] + y * q[..., 1])], -1)
    forms = torch.stack([first := weight(b, c), second := weight(c, a), -first - second], 1)
    forms[:, 2, :, 2] += 1
    least = (forms.reshape(n, -1, 3) @ pixels).reshape(n, 3, count, -1)
    least = torch.minimum(torch.minimum(least[:, 0], least[:, 1]), least[:, 2])
    # No pixel lies in a flat triangle.
    best, which = least.masked_fill(flat[..., None], -1e9).max(1)
    # The map of each triangle from its pixels to the source: the corners there, weighted by the
    # forms.
    maps = torch.einsum("nktf,ntkc->ntcf", forms, source).reshape(n, count, 6)
    chosen = maps.gather(1, which[..., None].expand(-1, -1, 6)).unflatten(-1, (2, 3))
    return (chosen * pixels.T[:, None]).sum(-1), best >= -1e-5
