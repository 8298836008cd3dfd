"""SRMD's network (CVPR 2018): twelve convolutions on the LR image and a code of its degradation."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

LAYERS, WIDTH, FACTOR = 12, 128, 4
# The blur in the 15 principal components of its authors' kernels, as nihui/srmd-ncnn-vulkan (MIT)
# gives it to the network for every image: bicubic downsampling's.
BICUBIC = (-1.12360956e-08, -1.36899159e-08, 1.85637958e-02, 2.86066886e-08, 3.35292965e-02,
           8.37272935e-08, -2.54424009e-07, -3.16234976e-02, -1.35169253e-02, -1.10466090e-08,
           3.84753793e-02, 3.79465739e-08, -2.44916752e-01, -8.02213490e-01, -5.40549755e-01)


class Srmd(nn.Module):
    """(N, 3 + code, H, W), the image in [0, 1], to (N, 3, 4H, 4W), not clipped.

    Args:
        code: channels beside the image's: 15 of the blur, and for the network with noise one of its
            standard deviation.
    """

    def __init__(self, code: int):
        super().__init__()
        widths = [3 + code, *[WIDTH] * (LAYERS - 1), 3 * FACTOR**2]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1)
                                    for a, b in zip(widths, widths[1:]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return F.pixel_shuffle(self.layers[-1](x), FACTOR)


def with_code(images: torch.Tensor, code: tuple[float, ...]) -> torch.Tensor:
    """(N, 3 + code, H, W): the images and the same code at each pixel."""
    planes = torch.tensor(code, dtype=images.dtype).view(1, -1, 1, 1)
    return torch.cat([images, planes.expand(len(images), -1, *images.shape[-2:])], 1)
