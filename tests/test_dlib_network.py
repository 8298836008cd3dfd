"""dlib's recogniser in torch against dlib itself, and the reading of its file."""

import numpy as np
import pytest

from fsrbench.errors import FsrError
from fsrbench.faces.detect import find
from fsrbench.imaging import load
from fsrbench.metrics.dlib_network import DlibNetwork, embed, read_dlib
from fsrbench.metrics.identity import chip
from fsrbench.weights.catalogue import require


@pytest.fixture(scope="module")
def chips(orl_root):
    """Faces of six people, and noise."""
    paths = [orl_root / f"s{person}" / f"{n}.pgm" for person in range(1, 7) for n in (1, 2, 3)]
    images = [load(path) for path in paths]
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    return np.stack([*(chip(image, find(image).points) for image in images), noise])


def test_embeddings_are_dlib_s_own(chips):
    import dlib

    theirs = np.array(dlib.face_recognition_model_v1(str(require(
        "dlib-recognition"))).compute_face_descriptor(list(chips)))
    assert np.abs(embed(chips) - theirs).max() < 2e-6
    lengths = np.linalg.norm(theirs, axis=1)
    assert lengths.min() > 1, "six decimal places of numbers near zero would prove nothing"


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17])
def test_who_else_is_embedded_changes_no_bit(chips, count):
    assert embed(chips[-count:]).tobytes() == embed(chips)[-count:].tobytes()


def test_every_tensor_of_the_file_is_read():
    state = read_dlib(require("dlib-recognition"))
    assert set(state) == set(DlibNetwork().state_dict())
    floats = sum(value.numel() for value in state.values())
    # 29 affine layers, of two numbers a channel, are folded in, and the rest is a few bytes each.
    assert 4 * floats > 0.99 * require("dlib-recognition").stat().st_size


@pytest.mark.parametrize("spoil", [lambda data: data[:len(data) // 2],
                                   lambda data: data.replace(b"affine_", b"bn_con2"),
                                   lambda data: b"a web page"])
def test_another_file_is_refused_by_name(tmp_path, spoil):
    path = tmp_path / "dlib.dat"
    path.write_bytes(spoil(require("dlib-recognition").read_bytes()))
    with pytest.raises(FsrError, match="dlib.dat.*is not dlib's recogniser"):
        read_dlib(path)
