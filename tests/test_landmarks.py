"""Landmarks of LR faces: the training of their detector, the shipped one, and what a run does with
it."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import example_of, loss_of
from test_retinaface import MINI_FRAME, with_weights

from fsrbench.errors import FsrError
from fsrbench.faces import lr
from fsrbench.faces.align import five_points
from fsrbench.faces.geometry import FFHQ, MIRROR_68, Frame, template
from fsrbench.faces.retinaface import (
    MINI_RETINA,
    RESNET50,
    detect,
    load_retinaface,
)
from fsrbench.profiles import PROFILES
from fsrbench.training.export import export
from fsrbench.training.landmarks import RECIPES, box_of, shuffled, there_and_back
from fsrbench.training.tasks import make

# --- training -------------------------------------------------------------------------------------


@pytest.fixture
def task(album, session_store, monkeypatch):
    """Make the training on two of three people."""
    monkeypatch.setattr("fsrbench.engine.data.draw_people", lambda people, rate, seed: people[:1])
    return lambda **options: make("landmarks", data=f"folder:{album}", store=session_store,
                                  **options)


def test_mirrored_images_have_their_landmarks_swapped(task):
    made = task()
    made.jitter = type(made.jitter)(0, 0, 0, flip=0.0)
    plain = example_of(made, 0, 6)["examples"]
    made.jitter = type(made.jitter)(0, 0, 0, flip=1.0)
    mirrored = example_of(made, 0, 6)["examples"]
    assert (plain.originals[plain.face] == mirrored.originals[plain.face][:, :, ::-1]).mean() > 0.98
    assert np.allclose(mirrored.points, plain.points[:, MIRROR_68] * [-1, 1] + [63, 0])
    five, swapped = five_points(plain.points), five_points(mirrored.points)
    assert np.allclose(swapped, five[:, [1, 0, 2, 4, 3]] * [-1, 1]
                       + [63, 0]) and (swapped[:, 0, 0] < swapped[:, 1, 0]).all()


def test_labels_hold_the_face_and_shuffled_images_hold_none(task):
    made = task()
    examples = example_of(made, 1, 64)["examples"]
    truths = made.truths(examples)
    assert 0 < (~examples.face).sum() < 24
    assert [len(t.boxes) for t in truths] == examples.face.astype(int).tolist()
    inside = [(b[0] - 1e-6 <= p.min(0).values).all() for t in truths
              for b, p in zip(t.boxes.reshape(-1, 2, 2), t.points)]
    assert all(inside) and len(truths[int(examples.face.argmax())].points[0]) == 68
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    other = shuffled(image, np.random.default_rng(1))
    assert (other != image).any() and np.array_equal(np.sort(other.reshape(-1, 3), 0),
                                                     np.sort(image.reshape(-1, 3), 0))
    assert examples.images.std((1, 2)).mean() < examples.originals.std((1, 2)).mean()


def test_a_named_degradation_makes_the_lr_images(task, monkeypatch):
    from fsrbench.degrade import named as degradations
    seen = []

    def black(image, scale, name):
        seen.append((scale, name))
        return np.zeros((image.shape[0] // scale,) * 2 + (3,), np.uint8)
    monkeypatch.setitem(degradations._degradations, "black",
                        degradations.Degradation("black", 1, "", black))
    made = task(degradation="black")
    assert not example_of(made, 3, 8)["examples"].images.any()
    assert {s for s, _ in seen} <= {4, 8, 16, 32} and len({n for _, n in seen}) == 8
    assert made.card()["degradation"] == "black@1"
    with pytest.raises(FsrError, match="degradation 'blakc': unknown; did you mean"):
        task(degradation="blakc")


def test_a_short_training_lowers_the_held_out_error(task, tmp_path):
    torch.manual_seed(0)
    made = task()
    before = made.validate(made.model.eval(), 4)
    optimizer = made.optimizer(2e-3)
    for step in range(40):
        made.model.train()
        optimizer.zero_grad()
        loss_of(made, step, 8).backward()
        torch.nn.utils.clip_grad_norm_(made.model.parameters(), made.clip)
        optimizer.step()
    after = made.validate(made.model.eval(), 4)
    assert after["x8"] < before["x8"] / 2 and after["x8"] < 8
    assert before["base"] == after["base"] < 5
    assert made.grid(made.model).shape[2] == 3
    torch.save({"ema": made.model.state_dict(), "images": 320, "step": 40, "batch": 8,
                "seconds": 1.0, "recipe": {}}, tmp_path / "c.pt")
    card = export(made, tmp_path / "c.pt", tmp_path / "mini.safetensors")
    assert card["parameters"] == sum(p.numel() for p in made.model.parameters())
    assert card["config"]["points"] == 68
    again = task(init=str(tmp_path / "mini.safetensors"))
    assert again.origin["images_seen"] == 320 and all(p.requires_grad
                                                      for p in again.model.parameters())


def test_the_paper_s_fine_tuning_starts_from_the_official_file(task, tmp_path, monkeypatch):
    """A step of ResNet-50 (at 128 px instead of 512); labels are the official network's where it
    finds a face."""
    path = tmp_path / "detection_Resnet50_Final.pth"
    # Backwards, as the fill itself is refused where landmarks of the HQ images come from.
    torch.save({f"module.{k}": v.flatten().flip(0).view_as(v)
                for k, v in with_weights(RESNET50).state_dict().items()}, path)
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("fsrbench.faces.detect._boxes_retinaface", lambda image: [])
    detector = replace(lr.FINE_TUNED, side=128)
    monkeypatch.setitem(RECIPES, "paper", replace(RECIPES["paper"], detector=detector))
    made = task(profile="paper", init=str(path))
    optimizer = made.optimizer(1e-3)
    assert isinstance(optimizer,
                      torch.optim.SGD) and made.batch == 4 and made.origin["weights"] == path.name
    examples = example_of(made, 0, 1)["examples"]
    large = np.stack([lr.enlarged(image, 128) for image in examples.originals])
    (found,), (truth,) = detect(made.teacher, large, 0.5), made.truths(examples)
    assert len(found.boxes) and np.allclose(truth.boxes[0], found.boxes[0] / 128, atol=1e-5)
    assert np.allclose(truth.points[0], found.points[0] / 128, atol=1e-5)
    made.teacher = None
    (truth,) = made.truths(examples)
    assert np.allclose(truth.points[0], (five_points(examples.points[0]) + 0.5) / 256, atol=1e-5)
    assert np.allclose(truth.boxes[0], (box_of(examples.points[0]) + 0.5) / 256, atol=1e-5)
    loss = loss_of(made, 0, 1)
    loss.backward()
    assert torch.isfinite(loss) and made.model.body.conv1.weight.grad.abs().max() > 0
    made.bank.train.images[:, 2] //= 2  # none is turned grey
    examples = example_of(made, 1, 12)["examples"]
    red, blue = (examples.originals[examples.face, ..., i].mean((1, 2)) for i in (0, 2))
    assert len(red) > 6 and (blue < 0.6 * red).all()


def test_train_and_export_by_command(invoke, album, tmp_path):
    """Two steps on a reference set that poses as LFW, of which the protocol draws one person."""
    words = ("--what", "landmarks", "--data", f"lfw:{album}", "--store", tmp_path / "store",
             "--degradation", "bicubic")
    done = invoke("train", *words, "--steps", "2", "--batch", "2", "--every", "2", "--out",
                  tmp_path / "run", check=0)
    assert "checkpoint: " in done.stdout and (tmp_path / "run" / "grid-0000002.png").exists()
    log = json.loads((tmp_path / "run" / "log.jsonl").read_text())
    assert log["images"] == 4 and {"x4", "x8", "x16", "base", "sure_x8", "false"} <= set(log)
    target = tmp_path / "mini.safetensors"
    invoke("export", *words, "--checkpoint", tmp_path / "run" / "checkpoint.pt", "--to", target,
           check=0)
    card = json.loads(target.with_suffix(".json").read_text())
    assert card["degradation"] == "bicubic@1" and card["people"] == 2
    assert load_retinaface(target, MINI_RETINA)


def test_other_trainings_refuse_a_degradation(album, session_store):
    with pytest.raises(FsrError, match="--degradation: does not apply to prior"):
        make("prior", data=f"folder:{album}", store=session_store, degradation="bicubic")


# --- use ------------------------------------------------------------------------------------------

def test_the_window_shows_the_detector_s_frame():
    for frame, shown in ((MINI_FRAME, MINI_FRAME), (MINI_FRAME, FFHQ)):
        assert np.allclose(lr.window(frame, shown), [0, 0, 1, 1])
    shown = lr.window(FFHQ, MINI_FRAME)
    corner, extent = shown[:2] * 256, (shown[2:] - shown[:2]) * 256
    moved = (template(64, MINI_FRAME) + 0.5) / 64 * extent + corner - 0.5
    assert np.allclose(moved, template(256, FFHQ), atol=1e-6)


def test_five_points_carry_the_template():
    turn = np.array([[0.9, -0.2], [0.2, 0.9]])
    face = template(64, Frame(0.75, 0.03)) @ turn.T + [3, 5]
    assert np.allclose(lr.dense(five_points(face)), face, atol=1e-6) and lr.dense(face) is face


def test_found_landmarks_are_in_the_image_s_own_pixels(monkeypatch):
    """Whatever the detector's size: a face at the middle of its square is at the middle of the
    image."""
    detector = lr.MINI
    monkeypatch.setattr(lr, "strongest", lambda model,
                        images: (np.ones(1), np.full((1, 68, 2), images.shape[1] / 2)))
    for size in (64, 256):
        _, points = lr.look(detector, None, np.zeros((1, size, size, 3), np.uint8), MINI_FRAME)
        assert np.allclose(points, (size - 1) / 2)


@pytest.fixture
def only_mini(monkeypatch):
    """The shipped small detector, whatever else is here."""
    monkeypatch.setattr(lr, "DETECTORS", (lr.MINI,))


def test_the_template_stands_in_where_no_detector_is_sure(only_mini, monkeypatch, orl_root):
    from fsrbench.faces.prepare import Preparation, align
    from fsrbench.imaging import load

    face, truth, _ = align(load(orl_root / "s5" / "1.pgm"), Preparation(64, MINI_FRAME))
    for side, most in ((64, 3), (16, 3), (8, 3),
                       (4, 5)):  # at x16 this face's turn can hardly be seen
        found = lr.lr_landmarks(there_and_back(face, side), MINI_FRAME)
        assert found.source == "landmarks-mini" and np.linalg.norm(found.points - truth.points,
                                                                   axis=1).mean() < most
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for image in (noise, np.zeros_like(noise), shuffled(face, np.random.default_rng(0))):
        lost = lr.lr_landmarks(image, MINI_FRAME)
        assert lost.source == "template" and np.allclose(lost.points, template(64, MINI_FRAME))
    monkeypatch.setattr(lr, "SURE", 1.0)
    assert lr.lr_landmarks(face, MINI_FRAME).source == "template"


def test_the_shipped_detector_beats_the_template_at_x4_and_x8(only_mini, orl_root, session_store):
    """On people whom it has not seen, of another data set; at x16 it is there no better than the
    template, and no worse."""
    from fsrbench.engine.samples import load_samples

    samples = load_samples("orl", PROFILES["mini"], session_store, 6, 0).samples
    truth, mean_face = np.stack([s.gt.landmarks.points for s in samples]), template(64, MINI_FRAME)
    base = np.linalg.norm(mean_face - truth, axis=-1).mean()
    for side, share in ((16, 0.8), (8, 0.8), (4, 1.05)):
        points = [lr.lr_landmarks(there_and_back(s.gt.image, side), MINI_FRAME).points
                  for s in samples]
        assert np.linalg.norm(np.stack(points) - truth, axis=-1).mean() < share * base


def test_records_depend_on_the_detector_and_its_training_people_are_refused(
        quick_plan, session_store, monkeypatch):
    from fsrbench.engine import run

    plan = quick_plan(methods=("bicubic", "reference", "asffnet.mini", "asffnet.mini-oracle"))

    def digests():
        made = run.Run(plan, session_store)
        return {cell.method.name: made.method_digest(cell.method) for cell in made.cells}
    before = digests()
    with monkeypatch.context() as without:
        without.setattr(lr, "present", lambda: ())
        after = digests()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"reference", "asffnet.mini"}
    asked = []
    monkeypatch.setattr(run, "check_leaks", lambda samples, weights: asked.append(weights))
    run.Run(quick_plan(methods=("bicubic",)), session_store)
    assert "landmarks-mini" not in asked
    run.Run(quick_plan(methods=("reference",)), session_store)
    assert "landmarks-mini" in asked


def test_errors_by_command(invoke, tmp_path):
    done = invoke("landmarks", "--people", "2", "--scale", "8", "--store", tmp_path / "store",
                  check=0)
    lines = (re.split(r"\s{2,}", line) for line in done.stdout.splitlines())
    rows = {line[1]: line[2:] for line in lines if line[0] == "x8"}
    assert {"template", "landmarks-mini", "what methods are given"} <= set(rows)
    assert float(rows["landmarks-mini"][1]) < float(rows["template"][1])
    assert "scale 5: impossible" in invoke("landmarks", "--people", "2", "--scale", "5", "--store",
                                           tmp_path / "store", check=2).stderr


def test_the_card_of_the_shipped_detector_tells_what_it_is():
    from fsrbench.weights.catalogue import file_digest, require

    path = require("landmarks-mini")
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["sha256"] == file_digest(path) and path.stat().st_size < 4e6
    found = card["validation"]
    assert found["x4"] < found["x8"] < found["x16"] < found["base"]
