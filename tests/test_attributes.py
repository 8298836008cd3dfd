"""Attributes of Table 2: the stand-ins against dlib's own cutting of chips, and how answers are
compared."""

import numpy as np
import pytest

from fsrbench.faces.detect import find
from fsrbench.imaging import load
from fsrbench.metrics import family, get_feature, metrics
from fsrbench.metrics.attributes import _MEANS, YEARS, _session, age_difference, agreement


@pytest.fixture(scope="module")
def faces(orl_root):
    """Images and landmarks of three people, two images each."""
    metrics()
    images = [load(orl_root / person / f"{n}.pgm") for person in ("s1", "s5", "s10")
              for n in (1, 4)]
    return images, [find(image).points for image in images]


@pytest.mark.parametrize("weights, size", [("dlib-age", 64), ("dlib-gender", 32)])
def test_stand_ins_see_what_dlib_would_cut(faces, weights, size):
    """The same network on chips of dlib's own `get_face_chip_details`, with its default padding."""
    import dlib

    images, points = faces
    chips = []
    for image, p in zip(images, points):
        corners = dlib.points([dlib.point(int(round(x)), int(round(y)))
                               for x, y in p[[45, 42, 36, 39, 33]]])
        shape = dlib.full_object_detection(dlib.rectangle(0, 0, 92, 112), corners)
        chips.append(dlib.extract_image_chip(image, dlib.get_face_chip_details(shape, size, 0.2)))
    batch = ((np.stack(chips).astype(np.float32) - _MEANS) / 256).transpose(0, 3, 1, 2)
    wanted = _session(weights).run(None, {"images": np.ascontiguousarray(batch)})[0]
    found = get_feature(f"{weights}-chip@1").function(images, points)
    assert found.shape == wanted.shape and np.allclose(found.sum(1), 1, atol=1e-3)
    if weights == "dlib-age":
        assert np.median(np.abs(found @ YEARS - wanted
                                @ YEARS)) < 2.5, "dlib rounds landmarks to pixels"
    else:
        assert (found.argmax(1) == wanted.argmax(1)).all()
    assert np.abs(found - wanted).mean() < np.abs(found - np.roll(wanted, 2, 0)).mean()


def test_people_agree_with_themselves(faces):
    images, points = faces
    for name in ("dlib-age-chip@1", "dlib-gender-chip@1"):
        answers = get_feature(name).function(images, points)
        if "age" in name:
            assert (age_difference(answers, answers) == 0).all()
            assert age_difference(answers[::2], answers[1::2]).mean() < 15
        else:
            assert agreement(answers, answers).all() and agreement(answers[::2],
                                                                   answers[1::2]).mean() > 0.5


def test_answers_are_compared_as_the_paper_says():
    a, b = np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([[0.45, 0.55], [0.1, 0.9]])
    assert agreement(a, b).tolist() == [1, 0]
    assert age_difference(np.array([[30.0], [41]]), np.array([[35.0], [40]])).tolist() == [5, 1]
    young, old = np.zeros((1, 81)), np.zeros((1, 81))
    young[0, 0], old[0, 80] = 1, 1
    assert age_difference(young, old)[0] == pytest.approx(79.75)


def test_names_say_whose_answer_it_is():
    """DeepFace's columns are the paper's; a stand-in has another id and no published value beside
    it."""
    for attribute in ("gender", "emotion", "race", "age"):
        own = [m for m in family(attribute) if m.id.endswith("@deepface")]
        assert len(own) == 1 and own[0].paper and not own[0].stand_in
        assert all(m.stand_in and not m.paper for m in family(attribute) if m not in own)
    missing = [m.missing() for m in family("emotion")]
    said = "facial_expression_model_weights.pth is missing; run `invoke weights --get"
    assert missing == [""] or said in missing[0]
