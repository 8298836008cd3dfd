"""The progressive scale of F.4: eq. 10 on ten fixed levels, from imperceptible to identity gone.

The paper spoils the reference image step by step "until its identity cues vanish completely" and
names neither steps nor ranges. This grid is ours: from level to level blur, downsampling and noise
grow and JPEG quality falls, sigma about as fast as r, s as three deviations on each side. The
kernel is isotropic; a level draws nothing but the noise of a sample. How a size other than 512 px
is treated is said in eq10.py.

What the levels do to identity, measured on people of LFW (150 at 64 px in the `mini` framing; 80 at
256 px in FFHQ's, where the photographs themselves have no more than about 128 px): mean IDS,
`ids.cosine@dlib`, of the image at full size against its ground truth, and rank-1, the share that is
nearer to its own ground truth than to any other.

    level            1      2      3      4      5      6      7      8      9     10
    64 px   PSNR  41.1   31.8   28.4   24.9   22.7   20.0   18.6   16.5   14.8   13.3
            IDS  .0010  .0135  .0343  .0676  .0906  .1211  .1272  .1456  .1518  .1550
            rank  1.00   1.00   1.00    .75    .28    .03    .01    .01    .00    .01
    256 px  PSNR  47.0   41.5   36.3   31.9   28.4   25.3   22.9   20.5   17.8   15.9
            IDS  .0001  .0009  .0040  .0161  .0368  .0668  .0911  .1195  .1367  .1509
            rank  1.00   1.00   1.00   1.00   1.00    .85    .42    .11    .01    .00

Beside it, at 64 and 256 px: another photograph of the same person .0462 and .0443, another person
.1632 and .1688 (5th percentile .1078 and .1116).

`severity-L` as a degradation is level L at full size, then bicubic to the LR size; `spoil` gives it
at full size, as a reference image needs it.
"""

from __future__ import annotations

import numpy as np

from fsrbench.datasets.degradations.eq10 import Pass, one_pass
from fsrbench.degrade.named import degradation_at_full_size
from fsrbench.rng import numpy_rng

VERSION = 1
# Level -> (sigma in px of 512, r, delta in grey levels, q).
LEVELS = {
    1: (0.5, 1.0, 1, 95),
    2: (1.0, 1.5, 2, 90),
    3: (2.0, 2.0, 3, 80),
    4: (3.0, 3.0, 5, 70),
    5: (4.5, 4.0, 8, 60),
    6: (6.0, 6.0, 11, 50),
    7: (9.0, 8.0, 15, 40),
    8: (13.0, 12.0, 20, 30),
    9: (18.0, 20.0, 25, 20),
    10: (26.0, 32.0, 30, 10),
}


def level(number: int) -> Pass:
    """The parameters of a level, 1 to 10."""
    sigma, r, delta, q = LEVELS[number]
    return Pass(3 * sigma, sigma, sigma, 0.0, r, delta, q)


def spoil(image: np.ndarray, number: int, sample_id: str) -> np.ndarray:
    """An uint8 image (H, W, 3) at a level of severity, at its own size."""
    return one_pass(image, level(number), numpy_rng("degradation", f"severity-{number}", VERSION,
                                                    sample_id))


def _register(number: int) -> None:
    sigma, r, delta, q = LEVELS[number]
    summary = (f"eq. 10 at level {number} of {len(LEVELS)} (F.4): blur {sigma:g} px of 512, down "
               f"{r:g}, noise {delta}, "
               f"JPEG {q}, up; then bicubic")

    @degradation_at_full_size(f"severity-{number}", VERSION, summary, libjpeg=True)
    def full(image: np.ndarray, sample_id: str) -> np.ndarray:
        return spoil(image, number, sample_id)


for _number in LEVELS:
    _register(_number)
