"""ASFFNet and DMDNet as methods: selection, warp and masks against independent arithmetic; what
happens without landmarks."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import example_of

from fsrbench import registry
from fsrbench.engine.plan import TRUTH
from fsrbench.engine.run import Run
from fsrbench.engine.store import Store
from fsrbench.faces.geometry import Landmarks, template
from fsrbench.methods.asffnet.alignment import (
    EYES,
    INNER,
    affine_residual,
    distances,
    landmark_mask,
    mls_grid,
)
from fsrbench.methods.common.references import scaled
from fsrbench.methods.dmdnet.boxes import part_boxes
from fsrbench.methods.dmdnet.network import MINI_DMD, DmdNet
from fsrbench.profiles import PROFILES
from fsrbench.proof.complexity import example
from fsrbench.proof.parity import filled
from fsrbench.reports.pages.html import table_html
from fsrbench.reports.tables.render import markdown, tidy
from fsrbench.reports.tables.table import _is_ranked, build
from fsrbench.training.tasks import make

FACE = template(512)
TURN = np.array([[0.95, 0.12], [-0.1, 1.05]])


def test_an_affine_copy_of_the_face_is_no_distance_away():
    rng = np.random.default_rng(0)
    candidates = np.stack([FACE + rng.normal(0, 9, FACE.shape), FACE @ TURN + 7,
                           FACE + rng.normal(0, 3, FACE.shape)])
    found = distances(FACE, candidates)
    assert found.argmin() == 1 and found[1] < 1e-8 and found[2] < found[0]


def test_the_residual_is_that_of_the_normal_equations():
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(22, 2)) * 50, rng.normal(size=(22, 2)) * 50
    X = np.c_[source, np.ones(22)]
    expected = np.linalg.norm(X @ (np.linalg.inv(X.T @ X) @ X.T @ target) - target)
    assert affine_residual(source, target) == pytest.approx(expected, rel=1e-9)
    assert len(EYES) == 22 and len(INNER) == 51


def nodes(grid):
    """Where a grid looks, as (x, y) in nodes."""
    side = len(grid)
    return grid.astype(float) * (side / 2) + side / 2


def test_moving_least_squares_reproduces_affine_maps():
    """Independent of any weights: if all points move affinely, every node does."""
    side, points = 64, FACE / 8
    y, x = np.mgrid[0:side, 0:side]
    here = np.stack([x, y], -1)
    assert np.allclose(nodes(mls_grid(points, points, side)), here, atol=1e-3)
    moved = points @ TURN + [2, -1]
    looks = nodes(mls_grid(moved, points, side))
    expected = here @ TURN + [2, -1]
    inside = ((expected > 0.1) & (expected < side - 1.1)).all(-1)
    assert inside.mean() > 0.7 and np.allclose(looks[inside], expected[inside], atol=1e-2)
    assert (nodes(mls_grid(points + [40, 0], points, side))[:, -1, 0]
            == 0).all(), "outside, the official code looks at 0"


def test_moving_least_squares_takes_landmarks_to_landmarks():
    rng, side = np.random.default_rng(2), 128
    points = np.round(FACE / 4)
    moved = points + rng.normal(0, 1.5, points.shape)
    looks = nodes(mls_grid(moved, points, side))
    for i in (36, 45, 30, 48, 54):
        x, y = points[i].astype(int)
        assert np.linalg.norm(looks[y, x] - moved[i]) < 1.5


def test_the_mask_marks_inner_landmarks_only():
    mask = landmark_mask(FACE, 512)
    assert mask.shape == (1, 512, 512) and set(np.unique(mask)) == {0, 1}
    x, y = FACE[30].astype(int)
    assert mask[0, y, x] == 1 and mask[0, int(FACE[8][1]), int(FACE[8][0])] == 0
    assert landmark_mask(FACE + 600, 512).sum() == 0
    small = landmark_mask(template(64), 64)
    assert 51 < small.sum() < 51 * 9


def ready(name, samples=2):
    """A method with random networks, and a batch of different samples with landmarks."""
    method = registry.get(name)(PROFILES["mini"])
    for role, part in method.parts.items():
        method.stand_ins[role] = filled(part.build())
    batches = [example(method, 8) for _ in range(samples)]
    batch = batches[0]
    rng = np.random.default_rng(3)
    batch = replace(
        batch, ids=[f"noise/{i}" for i in range(samples)], people=["noise"] * samples,
        lr=rng.random((samples, 3, 8, 8), dtype=np.float32), references=batch.references * samples,
        landmarks=[Landmarks(template(64, PROFILES["mini"].frame) + i, "test")
                   for i in range(samples)],
        albums=[tuple(replace(batch.references[0], id=f"noise/{k}", landmarks=Landmarks(
            batch.references[0].landmarks.points * (1 - 0.02 * k), "test"),
                              image=rng.integers(0, 256, (64, 64, 3), np.uint8))
            for k in range(3))] * samples)
    return method, batch


FAMILIES = ("asffnet", "dmdnet")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_does_not_depend_on_its_batch_and_a_failed_one_leaves_the_others(family):
    method, batch = ready(f"{family}.mini")
    whole = method.restore(batch)
    alone = method.restore(replace(batch, ids=batch.ids[1:], people=batch.people[1:],
                                   lr=batch.lr[1:],
                                   references=batch.references[1:], landmarks=batch.landmarks[1:],
                                   albums=batch.albums[1:]))
    assert whole.shape == (2, 3, 64, 64) and (whole[1:]
                                              - alone).abs().max() < 1e-4 and not batch.failures
    blind = replace(batch, landmarks=[Landmarks(batch.landmarks[0].points, "template"),
                                      batch.landmarks[1]], failures={})
    restored = method.restore(blind)
    assert blind.failures == {0: "no landmarks found in I_L"} and (restored[1]
                                                                   - whole[1]).abs().max() < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_album_is_used_where_the_tag_says_so(family):
    one, batch = ready(f"{family}.mini")
    several, _ = ready(f"{family}.mini-album")
    assert (one.restore(batch) - several.restore(batch)).abs().max() > 1e-3
    again = replace(batch, albums=[(reference,) for reference in batch.references])
    assert (one.restore(batch) - several.restore(again)).abs().max() < 1e-6


def test_landmarks_are_scaled_about_pixel_centres():
    assert np.allclose(scaled(np.array([[0.0, 63.0]]), 8), [[3.5, 507.5]])


def test_official_tags_say_what_their_authors_trained_on():
    known = registry.methods()
    official = [n for n in known if n.split(".")[0] in FAMILIES and ".official" in n]
    assert len(official) == 8 and all("CelebRef-HQ" in known[n].remark for n in official)
    for name in (n for n in known if n.split(".")[0] in FAMILIES):
        assert ("oracle" in known[name].needs) == name.endswith("-oracle")
        assert ("album" in known[name].needs) == ("-album" in name)


def test_samples_without_landmarks_are_counted_and_shown_as_a_dash(quick_plan, tmp_path,
                                                                   monkeypatch):
    monkeypatch.setattr("fsrbench.faces.lr.DETECTORS", ())
    monkeypatch.setattr("fsrbench.engine.run.reportable", lambda method: None)
    monkeypatch.setattr("fsrbench.engine.keys.trained", lambda name: Path(__file__))
    monkeypatch.setattr("fsrbench.engine.run.check_leaks", lambda samples, weights: None)
    for name in ("asffnet.mini", "asffnet.mini-oracle"):
        cls = registry.get(name)
        monkeypatch.setattr(cls, "part", lambda self, role: filled(self.parts[role].build()),
                            raising=False)
    plan = quick_plan(methods=("bicubic", "asffnet.mini", "asffnet.mini-oracle"), metrics=("psnr",),
                      people="1")
    outcome = Run(plan, Store(tmp_path)).execute()
    table = build(outcome, "t", "T", plan.metrics, "celebref-hq")
    rows = {row.method: row for row in table.blocks[8]}
    n = rows["bicubic"].n_ok
    assert (rows["asffnet.mini"].n_ok, rows["asffnet.mini"].n_failed) == (0, n)
    assert (rows["asffnet.mini-oracle"].n_ok, rows["asffnet.mini-oracle"].n_failed) == (n, 0)
    text = markdown(table)
    line = next(line for line in text.splitlines() if line.startswith("| ASFFNet  "))
    assert "–" in line and f"0 ({n} failed)" in line
    assert f"ASFFNet at x8: {n} of {n} failed (no landmarks found in I_L)" in text
    lines = [line for line in csv.DictReader(io.StringIO(tidy(table))) if line["method"]
             == "asffnet"]
    assert [(line["mean"], line["n_ok"], line["n_failed"]) for line in lines] == [("", "0", str(n))]
    assert f'<td title="{n} failed">–</td>' in table_html(table, 8)
    # Neither the truth's landmarks nor the few samples that could be done make a row the best.
    assert not any(_is_ranked(outcome, 8, cell.method) for cell in outcome.cells)
    kept = outcome.records
    assert set(kept.loc[kept["method"] == "asffnet.mini-oracle", "landmarks"]) == {TRUTH}


def test_the_network_s_warp_reads_the_reference():
    """With the true pair and a turned one, the same network must give different images."""
    method, batch = ready("asffnet.mini", 1)
    turned = replace(batch.references[0], image=batch.references[0].image[::-1].copy())
    assert (method.restore(batch)
            - method.restore(replace(batch, references=[turned]))).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_pair_is_two_images_of_one_person(family, album, session_store, monkeypatch):
    monkeypatch.setattr("fsrbench.engine.data.draw_people", lambda people, rate, seed: people[:1])
    task = make(family, data=f"folder:{album}", store=session_store, seed=0)
    pairs = example_of(task, 1, 8)
    assert pairs["y"].shape == pairs["x0"].shape == pairs["references"].shape == (8, 3, 64, 64)
    assert (pairs["points"] - pairs["reference_points"]).abs().max() > 0.5
    assert (pairs["references"] - pairs["x0"]).abs().mean() > 0.05


def test_one_reference_is_read_as_a_dictionary_of_one():
    """The short way that training takes gives what the whole dictionary would."""
    face = part_boxes(template(64, PROFILES["mini"].frame), 64)
    network, boxes = filled(DmdNet(MINI_DMD)), torch.from_numpy(np.stack([face] * 2))
    lq, references = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        whole = network(lq, boxes, network.memorise(references, boxes, [1, 1]))
        assert (network(lq, boxes, network.remember(references, boxes)) - whole).abs().max() < 1e-5
        assert (network(lq, boxes) - whole).abs().max() > 1e-4
