"""MINE against known mutual information, CCA against an independent implementation, projections,
and the command."""

import csv
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from fsrbench.engine.results import results
from fsrbench.engine.store import Store
from fsrbench.reports.analysis import cca, gaussians, mine, projections
from fsrbench.reports.analysis.embeddings import Embeddings

# A quarter of the samples and steps of `invoke analysis --validate`.
QUICK = mine.MineConfig(steps=200, every=50, held=2000, stop=800)


# --- MINE -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("d,nats,seed", [(1, 3.0, 0), (2, 0.5, 1), (5, 1.0, 2), (20, 2.0, 3)])
def test_mine_is_within_15_percent_of_the_truth(d, nats, seed):
    x, y = gaussians.correlated(d, nats, 10000, seed)
    assert mine.mutual_information(x, y, config=QUICK,
                                   seed=seed) == pytest.approx(nats, rel=gaussians.TOLERANCE)


def test_the_gaussians_have_the_mutual_information_that_they_claim():
    """By the determinant formula from the sample covariance, which knows nothing of rho or of the
    rotations."""
    for d, nats in ((1, 3.0), (5, 0.2), (20, 1.0)):
        x, y = gaussians.correlated(d, nats, 40000, 0)
        log_det = [np.linalg.slogdet(np.cov(v.T).reshape(v.shape[1], -1))[1]
                   for v in (x, y, np.hstack([x, y]))]
        assert (log_det[0] + log_det[1] - log_det[2]) / 2 == pytest.approx(nats, abs=0.03)


def test_mine_ignores_units_and_finds_nothing_in_shuffled_pairs():
    x, y = gaussians.correlated(2, 1.0, 6000, 0)
    plain = mine.mutual_information(x, y, config=QUICK)
    assert mine.mutual_information(x * [1e3, -1e-3] + 7, y * 50 - 1,
                                   config=QUICK) == pytest.approx(plain, abs=0.05)
    assert plain == mine.mutual_information(x, y, config=QUICK)
    shuffled = y[np.random.default_rng(0).permutation(len(y))]
    assert abs(mine.mutual_information(x, shuffled, config=QUICK)) < 0.03


def test_what_is_learned_by_heart_does_not_count():
    """Forty independent pairs in 60 dimensions: held out there is nothing, on the training pairs up
    to log 40."""
    x, y = (np.random.default_rng(i).standard_normal((40, 60)) for i in (0, 1))
    few = mine.MineConfig(steps=80, lr=3e-3, every=10, components=16, folds=mine.PARTS)
    assert mine.mutual_information(x, y, config=few) < 0.3
    assert 0.9 * math.log(40) < mine.by_heart(x, y, 300) <= math.log(40) + 1e-5


def test_the_product_draws_two_people_independently():
    people = np.array([0, 0, 0, 1, 1, 2])
    weights = mine.pair_weights(people, True, population=3)
    joint, product = weights.joint.numpy(), weights.log_product.exp().numpy()
    same = people[:, None] == people
    assert joint.sum() == pytest.approx(1) and product.sum() == pytest.approx(1)
    assert joint[~same].sum() == 0 and joint.diagonal().sum() == product.diagonal().sum() == 0
    # people count alike, however many images they have
    assert joint[:3].sum() == pytest.approx(joint[3:5].sum())
    assert product[same].sum() == pytest.approx(1 / 3)
    of_one = mine.pair_weights(people, False, population=3).joint.numpy()
    assert of_one.diagonal() == pytest.approx([1 / 9] * 3 + [1 / 6] * 2 + [1 / 3])


def test_mine_of_perfect_identity_is_the_entropy_of_the_people():
    """Embeddings that tell 12 people and nothing else share log 12 nats between two images of a
    person."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(12), 20)
    x = 6 * np.eye(12)[people] + 0.3 * rng.standard_normal((240, 12))
    few = mine.MineConfig(steps=120, lr=3e-3, every=10, batch=512)
    found = mine.mutual_information(x, x, people, other=True, config=few)
    assert 0.8 * math.log(12) < found < 1.08 * math.log(12)
    names = rng.permutation(people)  # strangers under one name share nothing
    assert abs(mine.mutual_information(x, x, names, other=True, config=few)) < 0.15


def test_parts_are_even_for_every_person():
    people = np.repeat(np.arange(7), [10, 10, 5, 9, 3, 1, 10])
    part = mine.split(people, np.random.default_rng(0))
    for person in range(7):
        counts = np.bincount(part[people == person], minlength=mine.PARTS)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(part)) <= 1


def test_estimates_leave_the_generator_and_the_threads_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    mine.mutual_information(*gaussians.correlated(1, 0.5, 200, 0),
                            config=mine.MineConfig(steps=5, every=5))
    assert torch.equal(torch.rand(2), expected) and torch.get_num_threads() == threads


# --- CCA ------------------------------------------------------------------------------------------

def _correlated(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 6))
    return x, x[:, :3] @ rng.standard_normal((3, 4)) + 2 * rng.standard_normal((n, 4))


def test_canonical_correlations_are_those_of_scikit_learn():
    from sklearn.cross_decomposition import CCA

    x, y = _correlated(300)
    u, v = CCA(4, max_iter=5000, tol=1e-12).fit(x, y).transform(x, y)
    expected = [np.corrcoef(u[:, i], v[:, i])[0, 1] for i in range(4)]
    assert cca.canonical_correlations(x, y) == pytest.approx(expected, abs=1e-6)
    # The regularised directions without a ridge are the canonical ones.
    a, b = cca.directions(x, y, ridge=0)
    assert [np.corrcoef((x @ a)[:, i], (y @ b)[:, i])[0, 1]
            for i in range(4)] == pytest.approx(expected, abs=1e-6)


def test_canonical_correlations_do_not_depend_on_the_basis_and_bear_lost_rank():
    x, y = _correlated(200)
    plain = cca.canonical_correlations(x, y)
    turn = np.random.default_rng(1).standard_normal((6, 6))
    assert cca.canonical_correlations(x @ turn + 5, y * 100) == pytest.approx(plain)
    assert cca.canonical_correlations(np.hstack([x, x[:, :2]]), y) == pytest.approx(plain)


def test_in_sample_is_biased_where_held_out_is_not():
    x, y = (np.random.default_rng(i).standard_normal((400, 150)) for i in (0, 1))
    inside = cca.canonical_correlations(x, y).mean()
    assert inside > 0.5 and inside == pytest.approx(cca.chance(150, 150, 400), abs=0.01)
    assert abs(cca.held_out_correlations(x, y).mean()) < 0.02
    few = [v[:100] for v in (x, y)]
    assert cca.canonical_correlations(*few) == pytest.approx(1)


def test_held_out_finds_what_is_there():
    x, y = _correlated(2000)
    assert cca.held_out_correlations(x, y, ridge=1e-3)[:2] == pytest.approx(
        cca.canonical_correlations(x, y)[:2], abs=0.05)


def test_held_out_keeps_people_together():
    """A person's own offset on both sides is a relation among images of the same people, not among
    new people."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(12), 10)
    x, y = (5 * rng.standard_normal((12, 8))[people] + rng.standard_normal((120, 8)) for _ in "xy")
    assert cca.held_out_correlations(x, y)[:3].mean() > 0.6
    assert abs(np.mean([cca.held_out_correlations(x, y, people, seed=s)[:3].mean()
                        for s in range(5)])) < 0.35


@pytest.mark.parametrize("p,q,n", [(30, 60, 300), (80, 80, 100), (20, 20, 1000)])
def test_chance_is_what_independent_gaussians_give(p, q, n):
    rng = np.random.default_rng(0)
    measured = [cca.canonical_correlations(rng.standard_normal((n, p)), rng.standard_normal((n, q)))
                .mean() for _ in range(4)]
    assert cca.chance(p, q, n) == pytest.approx(np.mean(measured), abs=0.01)


def test_what_the_papers_bound_takes():
    samples, dimensions = cca.needed(0.17, 512, 1000)
    assert cca.chance(512, 512, 1000) > 0.6
    assert cca.chance(512, 512, samples) < 0.17 <= cca.chance(512, 512, samples - 50)
    assert cca.chance(dimensions, dimensions, 1000) < 0.17 <= cca.chance(dimensions + 1,
                                                                         dimensions + 1, 1000)


# --- projections and clusters ---------------------------------------------------------------------

def _clusters(spread=0.1, people=5, images=10, d=32):
    rng = np.random.default_rng(0)
    names = np.repeat([f"p{i}" for i in range(people)], images)
    vectors = (rng.standard_normal((people, d)).repeat(images, 0) + spread
               * rng.standard_normal((people * images, d)))
    return vectors.astype(np.float32), names


@pytest.mark.parametrize("name", ["t-SNE", "UMAP"])
def test_projections_are_the_same_bytes_and_keep_clusters(name, tmp_path):
    vectors, people = _clusters()
    first = projections.project(name, vectors, Store(tmp_path / "a"))
    assert first.shape == (50, 2) and np.isfinite(first).all()
    assert first.tobytes() == projections.project(name, vectors, Store(tmp_path / "b")).tobytes()
    assert projections.cluster_scores(first, people).purity > 0.95


def test_many_vectors_keep_their_clusters_in_t_sne(tmp_path):
    """By Barnes and Hut's approximation."""
    vectors, people = _clusters(people=30)
    assert len(vectors) > projections.EXACT
    found = projections.project("t-SNE", vectors, Store(tmp_path))
    assert found.shape == (len(vectors), 2) and np.isfinite(found).all()
    assert projections.cluster_scores(found, people).purity > 0.95


def test_cluster_scores_on_clusters_that_are_known():
    vectors, people = _clusters()
    tight = projections.cluster_scores(vectors, people)
    loose = projections.cluster_scores(*_clusters(spread=2.0))
    assert tight.silhouette > 0.8 and tight.purity == 1 and tight.davies_bouldin < 0.3
    assert loose.silhouette < tight.silhouette and loose.davies_bouldin > tight.davies_bouldin
    # Shuffled names: no cluster, and as many neighbours of one's own as chance gives, 9 of 49.
    assert tight.chance[0] < 0 and tight.chance[1] == pytest.approx(9 / 49, abs=0.05)
    moved = projections.cluster_scores(vectors * 3 + 1, people)
    assert (moved.silhouette, moved.purity) == pytest.approx((tight.silhouette, tight.purity),
                                                             abs=1e-4)


def test_figure_marks_people_and_fits(tmp_path):
    z_id, people = _clusters()
    z_id /= np.linalg.norm(z_id, axis=1, keepdims=True)
    fitted = {name: z_id[people == name].mean(0) for name in ("p0", "p1", "p2")}
    fitted = {name: z / np.linalg.norm(z) for name, z in fitted.items()}
    fitted["p2"] = fitted["p1"]
    e = Embeddings([str(i) for i in range(50)], people, z_id, _clusters(2.0, d=8)[0], fitted,
                   ("a", "b"), [])
    right, own, images = projections.fitted_places(e)
    assert right == 2 and own < 0.9 < images
    rows = projections.places(e, Store(tmp_path))
    assert rows == projections.places(e, Store(tmp_path)) and len(rows) == 2 * (50 + 3) + 2 * 50
    assert {(r["embedding"], r["projection"]) for r in rows if r["fitted"]} == {("z_id", "t-SNE"),
                                                                                ("z_id", "UMAP")}
    for name in ("t-SNE", "UMAP"):
        shown = {r["person"]: np.array([r["x"], r["y"]]) for r in rows if r["fitted"]
                 and r["projection"] == name}
        of = [(r["person"], np.array([r["x"], r["y"]])) for r in rows
              if not r["fitted"] and (r["embedding"], r["projection"]) == ("z_id", name)]
        nearest = {p: min(of, key=lambda place: np.linalg.norm(place[1] - at))[0]
                   for p, at in shown.items()}
        assert nearest == {"p0": "p0", "p1": "p1", "p2": "p1"}, "p2 was given p1's"


# --- the command ----------------------------------------------------------------------------------

@pytest.fixture
def people_of_two(invoke, tmp_path, monkeypatch):
    """Run the command on two people, whose fits and estimates, no number of which is looked at,
    take few steps."""
    from fsrbench.methods.idfsr import fitting
    from fsrbench.reports.analysis import report

    monkeypatch.setattr(report, "FEW", replace(report.FEW, steps=20, every=10))
    monkeypatch.setitem(fitting.FITS, "mini", replace(fitting.FITS["mini"], steps=4, batch=2))

    def run():
        return invoke("analysis", "--people", "2", "--store", tmp_path / "store", "--out",
                      tmp_path / "out", check=0)
    return run


def test_the_command_on_two_people(people_of_two, tmp_path):
    text = people_of_two().stdout
    assert "not comparable" in text and re.search(r"z_id with z_s, same image .*\| 0\.186 \|",
                                                  text)
    assert re.search(r"in-sample +\| +1\.000 .*< 0\.17 \|",
                     text) and "20 images of 2 people" in text
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"analysis.md", "analysis.csv"} | {
        f"figure13.{suffix}" for suffix in ("svg", "txt", "csv")}
    rows = {row["name"]: row for row in csv.DictReader((tmp_path / "out" / "analysis.csv").open())}
    kept = results(Store(tmp_path / "store"), "mini")
    assert {"mine_id_style", "mine_id_id", "mine_style_style", "cca_mean",
            "cca_mean_heldout"} <= set(kept)
    for name, result in kept.items():
        assert float(rows[name]["value"]) == pytest.approx(result.value, rel=1e-5,
                                                           abs=1e-9) and result.n == 20
    low, value, high = (float(rows["mine_id_id"][key]) for key in ("low", "value", "high"))
    assert low <= value <= high
    features = set((tmp_path / "store" / "features").iterdir())
    again = people_of_two()
    assert again.stdout == text and set((tmp_path / "store" / "features").iterdir()) == features


@pytest.mark.parametrize("words,code,text", [
    (("--people", "none"), 2, "--people none: is not a whole number"),
    (("--profile", "huge"), 2, "profile 'huge': unknown"),
    (("--people", "1"), 2, "--people 1: is too few")])
def test_wrong_words_end_in_one_line(invoke, tmp_path, words, code, text):
    done = invoke("analysis", *words, "--store", tmp_path / "store", "--out", tmp_path / "out",
                  check=code)
    assert text in done.stderr and len(done.stderr.strip().splitlines()) == 1
