"""Probes: methods of known behaviour are told apart and named, records are made once."""

import numpy as np
import pytest

from fsrbench.core import Batch, Method
from fsrbench.engine.probes import BASE
from fsrbench.engine.samples import load_samples
from fsrbench.imaging import imresize, to_float
from fsrbench.reports.tables.probe import compute

BUILT = {}


def built(name, needs=("references",)):
    """Register a restoring function as a method of known behaviour."""
    def decorate(function):
        BUILT[name] = type(name.title().replace("-", ""), (Method,), {
            "name": name, "title": name, "needs": frozenset(needs),
            "restore": lambda self, batch: np.clip(function(batch), 0, 1).astype(np.float32)})
        return function
    return decorate


def faces(batch: Batch) -> np.ndarray:
    """(N, 3, S, S) of the references."""
    return to_float(np.stack([p.image for p in batch.references]))


@built("returns-reference")
def returns_reference(batch):
    return faces(batch)


@built("ignores-it")
def ignores_it(batch):
    return batch.upsampled


@built("returns-mean-face")
def returns_mean_face(batch):
    return np.repeat(KNOWN["mean"], len(batch), 0)


@built("leaks")
def leaks(batch):
    return np.concatenate([KNOWN[name] for name in batch.ids])


@built("leaks-without-reference", ())
def leaks_without_reference(batch):
    return leaks(batch)


@built("hands-over")
def hands_over(batch):
    """Its reference where I_L is the same image, else I_L."""
    out = batch.upsampled.copy()
    for i, face in enumerate(faces(batch)):
        small = np.clip(imresize(face, *batch.lr.shape[-2:]), 0, 1)
        if np.abs(small - batch.lr[i]).max() < 0.02:
            out[i] = face
    return out


@built("shuffles-people")
def shuffles_people(batch):
    return np.roll(faces(batch), 1, 0)


@built("mixes-in")
def mixes_in(batch):
    """Uses it: the reference's detail over I_L."""
    small = np.clip(imresize(faces(batch), *batch.lr.shape[-2:]), 0, 1)
    return batch.upsampled + 0.6 * (faces(batch) - imresize(small, batch.size, batch.size))


KNOWN: dict = {}
NAMED = {"returns-reference": "copies its reference", "ignores-it": "ignores its reference",
         "returns-mean-face": "one face for all", "leaks": "leaks the ground truth",
         "leaks-without-reference": "leaks the ground truth",
         "hands-over": "hands over the ground truth", "shuffles-people": "mixes people up",
         "mixes-in": "uses its reference"}


@pytest.fixture(scope="module")
def table(session_store):
    """All built methods under the probes of references and LR images, of five people."""
    from fsrbench import registry
    from fsrbench.engine.options import plan

    registry.methods()
    with pytest.MonkeyPatch.context() as patch:
        for name, cls in BUILT.items():
            patch.setitem(registry._methods, name, cls)
        options = plan("mini", "orl", ("16",), list(BUILT), (), "5", "0", None)
        samples = load_samples(options.data, options.profile, session_store, 5, 0)
        KNOWN.update({s.id: to_float(s.gt.image[None]) for s in samples.samples})
        KNOWN["mean"] = np.mean(list(KNOWN.values()), 0)
        return compute(options, session_store, ("other", "truth", "morph"))


def line_of(table, name):
    return next(line for line in table.lines if line.method.name == name)


@pytest.mark.parametrize("name", NAMED)
def test_methods_of_known_behaviour_are_named(table, name):
    assert NAMED[name] in line_of(table, name).named


def test_movement_is_of_the_reference_where_it_decides_and_of_nothing_where_not(table):
    moved = {name: line_of(table, name).effects["other"].moved for name in NAMED
             if "other" in line_of(table, name).effects}
    # not 1 to the digit: one face is cut by two people's landmarks
    assert moved["returns-reference"].mean == pytest.approx(1, abs=0.1)
    assert moved["mixes-in"].mean > 0.2
    assert abs(moved["leaks"].mean) < 1e-9
    # whoever shows one face has no identity that could move
    assert np.isnan(moved["returns-mean-face"].mean)
    truth = {name: line_of(table, name).effects["truth"].moved.mean for name in moved}
    assert truth["returns-reference"] == pytest.approx(1, abs=1e-6) == truth["hands-over"]


def test_copied_share_is_of_what_the_reference_brings(table):
    copied = {name: line_of(table, name).effects["other"].copied.mean for name in NAMED
              if "other" in line_of(table, name).effects}
    assert copied["returns-reference"] == 1
    assert copied["ignores-it"] == copied["leaks"] == copied["returns-mean-face"] == 0
    assert copied["mixes-in"] < 0.5


def test_methods_get_the_probes_that_fit_their_needs(table):
    assert set(line_of(table, "leaks-without-reference").effects) == {"morph"}
    assert set(line_of(table, "leaks").effects) == {"other", "truth", "morph"}
    assert set(table.trials) == {BASE, "other", "truth", "morph"}
