"""Statistics: intervals that cover, differences that are paired, failures that count."""

import numpy as np
import pytest

from fsrbench.engine.stats import summarise, summarise_set, tells_apart
from fsrbench.metrics.frechet import frechet_distance


def clustered(rng, people=20, each=5, spread=1.0, noise=0.3, mean=0.0):
    centre = rng.normal(mean, spread, people)
    values = (centre[:, None] + rng.normal(0, noise, (people, each))).ravel()
    return values, np.repeat([f"p{i}" for i in range(people)], each)


def test_interval_covers_the_truth_about_nineteen_times_in_twenty():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        values, people = clustered(rng)
        found = summarise(values, people)
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 200 <= 0.98  # percentile bootstrap of 20 clusters is a little narrow


def test_interval_knows_that_pictures_of_one_person_go_together():
    values, people = clustered(np.random.default_rng(1))
    together = summarise(values, people)
    apart = summarise(values, [str(i) for i in range(len(values))])
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_failed_samples_are_counted_and_do_not_change_the_mean():
    found = summarise(np.array([1.0, np.nan, 3.0, np.nan]), ["a", "a", "b", "b"])
    assert (found.mean, found.n_ok, found.n_failed) == (2.0, 2, 2)
    nothing = summarise(np.array([np.nan, np.nan]), ["a", "b"])
    assert np.isnan(nothing.mean) and nothing.n_ok == 0 and nothing.n_failed == 2


def test_one_person_gives_a_mean_without_an_interval():
    found = summarise(np.array([1.0, 2.0]), ["a", "a"])
    assert found.mean == 1.5 and np.isnan(found.low) and np.isnan(found.high)


def test_order_of_samples_does_not_matter():
    values, people = clustered(np.random.default_rng(2))
    order = np.random.default_rng(3).permutation(len(values))
    a, b = summarise(values, people), summarise(values[order], people[order])
    assert np.allclose([a.mean, a.low, a.high], [b.mean, b.low, b.high])


def test_paired_differences_see_what_separate_intervals_do_not():
    rng = np.random.default_rng(4)
    values, people = clustered(rng)
    better = values + 0.1 + rng.normal(0, 0.05, len(values))
    a, b = summarise(values, people), summarise(better, people)
    assert a.high > b.low and tells_apart(better, values, people)
    assert not tells_apart(values, values + rng.normal(0, 1, len(values)), people)
    assert not tells_apart(values, values + 1, ["one"] * len(values))


def test_set_metric_interval_contains_its_estimate():
    rng = np.random.default_rng(5)
    people = np.repeat([f"p{i}" for i in range(10)], 5)
    truth = rng.normal(size=(50, 16))
    ours = truth + rng.normal(0.5, 0.3, truth.shape)
    found = summarise_set(ours, truth, people, 2, frechet_distance)
    assert found.low < found.mean < found.high and (found.n_ok, found.n_failed) == (50, 2)
    assert found.mean == pytest.approx(frechet_distance(ours, truth))
