"""Parity of the face generator with OpenVINO, by what that made of 20 latents."""

from __future__ import annotations

import torch

from fsrbench.methods.common.mobilestylegan import load_generator
from fsrbench.proof.parity import Recipe, check, error

# An image costs a second, so the everyday check makes one; every style is compared.
IMAGES = 1


@check("mobilestylegan", 1e-3)
def generator_error(fixture: dict, images: int = IMAGES) -> float:
    """Largest difference of the styles, and of the first images: means of squares and pixels."""
    mapping, synthesis = load_generator("cpu")
    styles = mapping(Recipe(fixture).normal((20, 512)))
    worst = [error(styles[:, ::4], fixture["out_w"])]
    rows, columns = torch.from_numpy(fixture["in_at"]).long()
    for i in range(images):
        image = synthesis(styles[i:i + 1])
        squares = torch.nn.functional.avg_pool2d(image, image.shape[-1] // 8)
        worst += [error(squares, fixture["out_small"][i:i + 1]),
                  error(image[..., rows, columns], fixture["out_pixels"][i:i + 1])]
    return max(worst)
