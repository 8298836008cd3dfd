"""No degradation: outputs that are scored as they are, whose LR images this program has not seen
(`invoke score`)."""

from __future__ import annotations

import numpy as np

from fsrbench.degrade.named import degradation


@degradation("given", 1, "none: outputs of another program, whose LR images were not given")
def given(image: np.ndarray, scale: int, sample_id: str) -> np.ndarray:
    """The image itself."""
    return image
