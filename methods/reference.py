"""Reference: the second control row, the identity that costs nothing."""

import numpy as np

from fsrbench.core import Batch, Method
from fsrbench.faces.warp import warp_face
from fsrbench.imaging import to_float
from fsrbench.registry import method


@method
class WarpedReference(Method):
    """The reference's face, warped onto the face region of the upsampled LR image and pasted there.

    What IDFSR is given (I_W over I_M), without any network: a method that is not more like the
    ground truth than this has learnt nothing about the person.
    """

    name, title = "reference", "Warped reference"
    needs = frozenset({"references", "landmarks"})
    licence, origin = "none", "this implementation"

    def restore(self, batch: Batch) -> np.ndarray:
        """(N, 3, S, S) in [0, 1]."""
        restored = batch.upsampled.copy()
        for out, reference, found in zip(restored, batch.references, batch.landmarks):
            image = to_float(reference.image[None])[0]
            face, mask = warp_face(image, reference.landmarks.points, found.points, batch.size)
            out[:, mask] = face[:, mask]
        return restored
