"""Bicubic: the first control row. Also the example of a method."""

import numpy as np

from fsrbench.core import Batch, Method
from fsrbench.registry import method


@method
class Bicubic(Method):
    """The LR image, upsampled by the same bicubic kernel that shrank it."""

    name, title = "bicubic", "Bicubic"
    licence, origin = "none", "MATLAB imresize, this implementation"

    def restore(self, batch: Batch) -> np.ndarray:
        """(N, 3, S, S) in [0, 1]."""
        return batch.upsampled
