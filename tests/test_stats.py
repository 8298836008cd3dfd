"""Statistics: intervals that cover, differences that are paired, failures that count."""

import numpy as np
import pytest

from people import SHAPES, level, marked, share_coverage

from fsrbench.engine.stats import (
    GROUPS,
    LEAST,
    combined,
    groups_of,
    holm,
    jackknife_mean,
    jackknife_set,
    summarise,
    tells_apart,
    too_few,
)
from fsrbench.metrics.frechet import frechet_distance


def clustered(rng, people=20, each=5, spread=1.0, noise=0.3, mean=0.0):
    centre = rng.normal(mean, spread, people)
    values = (centre[:, None] + rng.normal(0, noise, (people, each))).ravel()
    return values, np.repeat([f"p{i}" for i in range(people)], each)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [5, 8, 12, 20, 40, 56])
def test_two_equal_methods_differ_in_one_of_twenty_tables(shape, count):
    """The level is 3 to 7 %, and with it the coverage 93 to 97 %, within the simulation's own
    error; where one person has half of the images it is lower, never higher."""
    rng = np.random.default_rng(count)
    for numbers in ("5 each", "1 to 10"):
        found = level(rng, count, shape, numbers, 2000, layouts=20)
        assert 0.03 - 0.01 < found < 0.07 + 0.01, (shape, numbers, found)
    assert level(rng, count, shape, "one has half", 2000, layouts=20) < 0.04


def test_a_difference_is_found_where_there_is_one():
    rng, found = np.random.default_rng(1), []
    for _ in range(100):
        values, people = clustered(rng, people=8)
        found.append(tells_apart(values + 0.4 + rng.normal(0, 0.3, len(values)), values, people))
    assert np.mean(found) > 0.9


def test_the_interval_of_a_share_covers_and_stays_a_share():
    rng = np.random.default_rng(0)
    for count in (5, 12, 40):
        assert all(share_coverage(rng, count, "1 to 10", share, 200) > 0.91
                   for share in (0.02, 0.5))
    people = np.repeat([f"p{i}" for i in range(12)], 5)
    nobody = summarise(np.zeros(60), people, share=True)
    assert (nobody.low, nobody.high) == (0, pytest.approx(1 - 0.025
                                                          ** (1 / 12)))  # exact, of twelve people
    everybody = summarise(np.ones(60), people, share=True)
    assert (everybody.low, everybody.high) == (pytest.approx(0.025 ** (1 / 12)), 1)


def test_a_column_of_equal_methods_hardly_ever_has_a_best():
    rng = np.random.default_rng(2)
    assert marked(rng, 8, 2, 300) < 0.08 and marked(rng, 8, 6, 300) < 0.03


def test_holm_is_his():
    """His step-down by hand: 0.01 of four, 0.02 of three, 0.03 of two; the last never below those
    before."""
    assert np.allclose(holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1, 1] and len(holm([])) == 0


def test_equal_numbers_of_images_give_student_s_t():
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(3)
    values, people = clustered(rng, people=9, each=4)
    theirs = ttest_1samp(values.reshape(9, 4).mean(1), 0)
    ours = jackknife_mean(values, people)
    assert ours.freedom == pytest.approx(8)
    assert ours.error == pytest.approx(theirs.statistic**-1 * values.mean() * np.sqrt(9 / 8))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_fewer_than_five_people_give_no_interval_and_no_mark_and_say_so(count):
    values, people = clustered(np.random.default_rng(0), people=count)
    found = summarise(values, people)
    assert found.mean == pytest.approx(values.mean()) and np.isnan([found.low, found.high]).all()
    assert np.isnan(summarise(values > 0, people, share=True).high)
    assert not tells_apart(values, values + 1 + values**2, people)
    assert f"fewer than {LEAST} people, and these are {count}" in too_few(count)
    assert not too_few(LEAST)


def test_interval_knows_that_images_of_one_person_go_together():
    values, people = clustered(np.random.default_rng(1))
    together = summarise(values, people)
    apart = summarise(values, [str(i) for i in range(len(values))])
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_failed_samples_are_counted_and_do_not_change_the_mean():
    found = summarise(np.array([1.0, np.nan, 3.0, np.nan]), ["a", "a", "b", "b"])
    assert (found.mean, found.n_ok, found.n_failed) == (2.0, 2, 2)
    nothing = summarise(np.array([np.nan, np.nan]), ["a", "b"])
    assert np.isnan(nothing.mean) and nothing.n_ok == 0 and nothing.n_failed == 2
    values, people = clustered(np.random.default_rng(1), people=6)
    values[people == "p0"] = np.nan  # of five people, not of six
    assert jackknife_mean(values, people).sizes.tolist() == [5] * 5
    assert np.isfinite(summarise(values, people).low)


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
    assert not tells_apart(values, values, people)


def a_set(rng, people=10, each=5, shift=0.5):
    """Features of restorations by two equal methods, of their ground truths, and people."""
    names = np.repeat([f"p{i}" for i in range(people)], each)
    truth = rng.normal(size=(people, 16)).repeat(each, 0) + rng.normal(size=(people * each, 16))
    return *(truth + rng.normal(shift, 0.3, truth.shape) for _ in range(2)), truth, names


def test_set_metric_interval_contains_its_estimate():
    ours, _, truth, people = a_set(np.random.default_rng(5))
    found = jackknife_set(ours, truth, people, frechet_distance)
    low, high = found.interval()
    assert low < found.whole < high and found.whole == frechet_distance(ours, truth)
    without = people != "p3"
    assert found.without[3] == frechet_distance(ours[without], truth[without])


def test_two_equal_methods_differ_in_few_distances_of_sets():
    """People are left out of both alike, so the difference is paired; its level by simulation."""
    rng, told = np.random.default_rng(6), []
    for _ in range(150):
        a, b, truth, people = a_set(rng, people=6, each=3)
        pair = [jackknife_set(x, truth, people, frechet_distance) for x in (a, b)]
        told.append(combined(np.subtract, pair).p_value() <= 0.05)
    assert np.mean(told) < 0.09


def test_set_metrics_see_paired_what_their_intervals_do_not():
    a, b, truth, people = a_set(np.random.default_rng(7))
    pair = [jackknife_set(x, truth, people, frechet_distance) for x in (a, a + 0.01)]
    (low, high), (other_low, other_high) = (p.interval() for p in pair)
    assert high > other_low and combined(np.subtract, pair).p_value() < 0.05


def test_many_people_are_left_out_in_groups():
    people = [f"p{i}" for i in range(1000)]
    assert len(set(groups_of(people))) == GROUPS
    values = np.random.default_rng(0).normal(size=1000)
    assert jackknife_mean(values, people).error == pytest.approx(1 / np.sqrt(1000), rel=0.25)
