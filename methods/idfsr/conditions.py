"""The conditions of IDFSR, made once per image: masked I_M, warped I_W (paper 3.1, 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fsrbench.faces.warp import warp_face


def masked_and_warped(lr_up: np.ndarray, lr_points: Sequence[np.ndarray], references: np.ndarray,
                      reference_points: Sequence[np.ndarray],
                      region: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """I_M, I_W and the mask.

    Args:
        lr_up: (N, 3, S, S) in [0, 1], I_L at HQ size.
        lr_points: N landmark sets (68, 2) of the face in I_L, in HQ pixels.
        references: (N, 3, S, S) in [0, 1], I_R.
        reference_points: N landmark sets of the references.
        region: of `IdfsrConfig`.

    Returns:
        I_M (N, 3, S, S): I_L in [-1, 1] with the face region set to 0 (mid-grey);
        I_W (N, 3, S, S): the reference's face in [-1, 1] warped onto that region;
        the region (N, 1, S, S), 1 inside.
    """
    size, warped, masks = lr_up.shape[-1], [], []
    for reference, src, dst in zip(references, reference_points, lr_points):
        face, mask = warp_face(reference * 2 - 1, src, dst, size, region == "forehead")
        if region == "landmarks":
            # Listing 1 maps what lies outside to (-1, -1), and its border repeats.
            face = np.where(mask, face, reference[:, :1, :1] * 2 - 1)
        warped.append(face)
        masks.append(mask)
    mask = torch.from_numpy(np.stack(masks))[:, None].float()
    return (torch.from_numpy(lr_up) * 2 - 1) * (1 - mask), torch.from_numpy(np.stack(warped)), mask
