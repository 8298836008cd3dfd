"""Probes: methods of known behaviour are told apart and named, records are made once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fsrbench import registry
from fsrbench.core import Batch, Method
from fsrbench.engine.options import plan
from fsrbench.engine.probes import BASE, Setting, run_probes
from fsrbench.engine.samples import load_samples
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.faces.altered import between, coarse, mirrored, relit, turned
from fsrbench.imaging import imresize, to_float
from fsrbench.reports.analysis import probes as analysis
from fsrbench.reports.analysis.probe_verdicts import agreed
from fsrbench.reports.pages.probed import probe_page
from fsrbench.reports.tables.probe import compute, first_images, markdown

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


@built("fails-once")
def fails_once(batch):
    out = mixes_in(batch)
    out[0] = np.nan
    return out


@built("fails-always", ())
def fails_always(batch):
    raise RuntimeError("no memory")


KNOWN: dict = {}
NAMED = {"returns-reference": "copies its reference", "ignores-it": "ignores its reference",
         "returns-mean-face": "one face for all", "leaks": "leaks the ground truth",
         "leaks-without-reference": "leaks the ground truth",
         "hands-over": "hands over the ground truth", "shuffles-people": "mixes people up",
         "mixes-in": "uses its reference", "fails-once": "uses its reference",
         "fails-always": "restores nothing"}


@pytest.fixture(scope="module")
def table(session_store):
    """All built methods under the probes of references and LR images, of five people."""
    registry.methods()
    with pytest.MonkeyPatch.context() as patch:
        for name, cls in BUILT.items():
            patch.setitem(registry._methods, name, cls)
        options = plan("mini", "example", ("16",), list(BUILT), (), "5", "0", None)
        samples = load_samples(options.data, options.profile, session_store, 5, 0)
        KNOWN.update({s.id: to_float(s.gt.image[None]) for s in samples.samples})
        KNOWN["mean"] = np.mean(list(KNOWN.values()), 0)
        return compute(options, session_store, ("other", "truth", "morph"), 1)


def line_of(table, name):
    return next(line for line in table.lines if line.method.name == name)


@pytest.mark.parametrize("name", NAMED)
def test_methods_of_known_behaviour_are_named(table, name):
    assert NAMED[name] in line_of(table, name).named


def test_a_method_is_named_what_two_judges_agree_on():
    assert agreed([["a", "b"]]) == agreed([["a", "b"], ["a", "b"]]) == ["a", "b"]
    assert agreed([["a", "b"], ["b"]]) == ["b", "judges disagree"]
    assert agreed([["a"], ["b"]]) == ["judges disagree"]


def test_judges_are_named_with_how_independent_they_are(table):
    assert table.judges == ["dlib", "fr_feature"]
    assert all(set(line.said) == set(table.judges) for line in table.lines)
    assert "dlib and fr_feature for different people correlate 0." in "".join(table.doubts)


def test_a_judge_that_a_method_has_seen_counts_where_there_is_no_other(table):
    line = replace(line_of(table, "mixes-in"), said={"SFace": ["x"], "dlib": ["y"]},
                   seen={"SFace": "conditions on"})
    assert line.named == ["y"] and replace(line, said={"SFace": ["x"]}).named == ["x"]
    words = markdown(replace(table, lines=[replace(line, said={"dlib": ["y"], "SFace": ["x"]},
                                                   seen={})]))
    assert "mixes-in: judges disagree: y (by dlib); x (by SFace)." in words
    assert "mixes-in: conditions on SFace, a judge here." in markdown(replace(table, lines=[line]))


def test_a_judge_that_cannot_be_fetched_leaves_the_other_alone(monkeypatch):
    def require(name):
        if name == "fr-feature":
            raise FsrError(f"weights {name}", "could not be fetched", "try again")
    monkeypatch.setattr(analysis, "require", require)
    found, absent = analysis.judging([])
    assert [analysis.recogniser(judge).name for judge in found] == ["dlib"]
    assert "could not be fetched" in absent[0]
    with pytest.raises(FsrError, match="could not be fetched"):
        analysis.judging(["dlib", "frfeature"])


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


class Seen(Method):
    """Paints what it sees: the landmarks' place, the seed and its z_id as grey levels."""

    name, title, calls = "seen", "Seen", []
    needs = frozenset({"references", "landmarks", "fit"})

    def fit(self, person, seed):
        """The mean grey level of the reference set."""
        return {"z": torch.tensor([float(np.mean([p.image for p in person.album]))])}

    def z_id(self, batch):
        """(N, 1) of the fits."""
        return torch.stack([batch.fits[person]["z"] for person in batch.people])

    def restore(self, batch):
        """Grey: levels of landmarks, seed and z_id in three bands of rows."""
        self.calls.append(len(batch))
        out, side = np.zeros((len(batch), 3, batch.size, batch.size), np.float32), batch.size
        for face, z, marks in zip(out, self.z_id(batch), batch.landmarks):
            face[:, :20], face[:, 20:40] = marks.points.mean() / side, batch.seed / 10
            face[:, 40:] = float(z[0]) / 255
        return out


BEHIND = ("shifted-2", "seed", "z-id", "z-id-mean", "other", "other-reference", "relit", "blank")


@pytest.fixture
def seen(monkeypatch, tmp_path):
    """Trials of `Seen`, in a store of its own."""
    registry.methods()
    monkeypatch.setitem(registry._methods, "seen", Seen)
    monkeypatch.setattr(Seen, "calls", [])
    options = plan("mini", "example", ("16",), ["seen"], (), "3", "0", None)
    store = Store(tmp_path)
    everyone = load_samples(options.data, options.profile, store, 3, 0)
    setting = Setting(options, first_images(everyone, 2, options), everyone)
    return store, setting, run_probes(setting, store, BEHIND)[0]


def bands(store, trials, probe):
    """Grey levels (N, 3) that were painted under a probe."""
    images = [store.image(name) for name in trials[probe]["seen"].images]
    return np.array([[image[row, 0, 0] for row in (10, 30, 50)] for image in images], float)


def test_each_probe_changes_one_thing(seen):
    store, setting, trials = seen
    base, place = bands(store, trials, BASE), {s.id: i for i, s in
                                               enumerate(setting.samples.samples)}
    intruder = [place[setting.intruders[s.id].id] for s in setting.samples.samples]
    assert all(setting.samples.samples[i].person != s.person
               for i, s in zip(intruder, setting.samples.samples))
    changed = {probe: (np.abs(bands(store, trials, probe) - base) > 0).any(0).tolist()
               for probe in BEHIND}
    landmarks, seed, z = [True, False, False], [False, True, False], [False, False, True]
    assert changed == {"shifted-2": landmarks, "seed": seed, "z-id": z, "z-id-mean": z,
                       "other": z, "blank": z,
                       # a fit takes longest, so these two keep it
                       "other-reference": [False] * 3, "relit": [False] * 3}
    theirs = base[intruder, 2]
    assert bands(store, trials, "z-id")[:, 2].tolist() == theirs.tolist()
    assert bands(store, trials, "other")[:, 2].tolist() == theirs.tolist()
    assert np.abs(bands(store, trials, "z-id-mean")[:, 2] - (base[:, 2] + theirs) / 2).max() <= 1


def test_what_is_restored_is_not_restored_again(seen):
    store, setting, first = seen
    made, fits = len(Seen.calls), len(list((store.root / "fits").iterdir()))
    again = run_probes(setting, store, BEHIND)[0]
    assert len(Seen.calls) == made and len(list((store.root / "fits").iterdir())) == fits == 4
    assert {k: v["seen"].images for k, v in again.items()} == {k: v["seen"].images
                                                               for k, v in first.items()}


def test_a_killed_run_goes_on(seen, monkeypatch):
    store, setting, _ = seen
    before, restore = len(Seen.calls), Seen.restore

    def stopped(self, batch):
        if len(Seen.calls) - before > 1:
            raise KeyboardInterrupt
        return restore(self, batch)
    more = ("coarse", "turned", "mirrored")
    monkeypatch.setattr(Seen, "restore", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_probes(setting, store, more)
    monkeypatch.setattr(Seen, "restore", restore)
    run_probes(setting, store, more)
    assert len(Seen.calls) == before + 3


def test_shards_share_the_work_and_make_one_table(seen, monkeypatch):
    store, setting, _ = seen
    setting = replace(setting, options=replace(setting.options, batch=2, seed=3))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    # without a fit of another shard's people their keys are not known yet
    assert isinstance(run_probes(setting, store, ("z-id", "shifted-1")), int)
    half = len(Seen.calls)
    monkeypatch.setenv("RANK", "1")
    run_probes(setting, store, ("z-id", "shifted-1"))
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    made = len(Seen.calls)
    trials, _ = run_probes(setting, store, ("z-id", "shifted-1"))
    assert made > half and len(Seen.calls) == made and set(trials) == {BASE, "z-id", "shifted-1"}


def test_altered_images_keep_landmarks_on_the_face(seen):
    face = seen[1].samples.samples[0].gt
    points, size = face.landmarks.points, face.image.shape[0]
    back = mirrored(mirrored(face))
    assert back.digest == face.digest and np.allclose(back.landmarks.points, points)
    # the eye that is seen left stays the one that is called left
    assert mirrored(face).landmarks.points[36, 0] < mirrored(face).landmarks.points[45, 0]
    assert between(face, face).digest == face.digest
    aside = turned(face).landmarks.points
    assert np.allclose(aside[:, 1], points[:, 1]) and np.ptp(aside[:, 0]) < np.ptp(points[:, 0])
    nose = (aside[30, 0] - aside[0, 0]) / (aside[16, 0] - aside[0, 0])
    assert nose > (points[30, 0] - points[0, 0]) / (points[16, 0] - points[0, 0]) + 0.1
    dark, light = np.split(relit(face).image.astype(int) - face.image, 2, 1)
    assert dark.mean() < 0 < light.mean()
    assert coarse(face).image.shape == (size, size, 3)


def test_a_failure_is_counted_and_costs_no_other(table):
    once, never = line_of(table, "fails-once"), line_of(table, "fails-always")
    assert once.base.failed == once.effects["other"].failed == 1 and once.base.n_ok == 4
    # who failed, and whose intruder failed
    assert once.effects["other"].moved.n_ok == 3 and once.effects["other"].moved.mean > 0.2
    assert once.effects["other"].inside.n_failed == 1
    assert never.base.n_ok == 0 and np.isnan(never.effects["morph"].moved.mean)
    text = markdown(table)
    assert "fails-once: 1 of the restorations under other failed" in text
    assert "fails-always: 5 of the restorations under unaltered failed" in text
    assert "fails-always" in probe_page(table)


def test_the_command_writes_table_and_page(invoke, session_store, tmp_path):
    words = ("probe", "--people", "2", "--method", "bicubic", "--method", "reference", "--probe",
             "other,morph", "--store", session_store.root, "--out", tmp_path)
    done = invoke(*words, check=0)
    assert "copies its reference" in done.stdout and "fewer than 5 people" in done.stdout
    page = (tmp_path / "probe.html").read_text()
    # LR image, reference and two methods, of two people under three columns, less one that does
    # not apply, and two photographs of each
    assert page.count("<img") == 2 * (4 * 3 - 1 + 2) and "not its input" in page
    assert page.index("How to read it") < page.index("<table")
    assert len((tmp_path / "probe.csv").read_text().splitlines()) == 1 + 2 + 5 * 3
    assert "copies its reference" in (tmp_path / "probe.tex").read_text()


@pytest.mark.parametrize("words, said", [
    (("--probe", "othr"), "probe 'othr': unknown; did you mean 'other'?"),
    (("--people", "1"), "probes: need two people at least, and 1 here has images to test"),
    (("--scale", "8,16"), "probes: are of one scale at a time; give one --scale"),
    (("--judge", "psnr"), "--judge psnr: compares no embeddings of faces"),
    (("--judge", "dlip"), "judge 'dlip': unknown; did you mean 'dlib'?"),
    (("--judge", "dlib,adaface"), "weights adaface-ir50-ms1mv2: missing"),
    (("--images", "0"), "--images 0: is not a whole number of at least 1")])
def test_wrong_words_end_in_one_line(invoke, session_store, tmp_path, words, said):
    done = invoke("probe", "--method", "bicubic", *words, "--store", session_store.root, "--out",
                  tmp_path)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr
