"""Statistics of a table: means, intervals and paired differences by a bootstrap over people.

Pictures of one person are not independent, so whole people are resampled; all methods of a scale are resampled alike, so
differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fsrbench.rng import numpy_rng

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """A cell of a table.

    Args:
        mean: over the samples that have a value; NaN if there are none.
        low, high: 95 % interval of the mean; NaN with fewer than two people.
        n_ok: samples with a value; n_failed: samples without.
        sd: standard deviation of the values over samples; NaN with fewer than two.
    """

    mean: float
    low: float
    high: float
    n_ok: int
    n_failed: int
    sd: float = float("nan")


def weights_of(people: Sequence[str], resamples: int = RESAMPLES, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """How often each person is drawn in each resample, (resamples, P), and the order of people."""
    names = sorted(set(people))
    draws = numpy_rng("bootstrap", seed, len(names)).multinomial(len(names), np.full(len(names), 1 / len(names)),
                                                                 resamples)
    return draws, names


def resampled_means(values: np.ndarray, people: Sequence[str], draws: np.ndarray, names: list[str]) -> np.ndarray:
    """Mean of the values in each resample, (resamples,); NaN values do not count."""
    index = np.searchsorted(names, people)
    ok = np.isfinite(values)
    sums = np.bincount(index, np.where(ok, values, 0), len(names))
    counts = np.bincount(index, ok, len(names))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (draws @ sums) / (draws @ counts)


def interval(means: np.ndarray) -> tuple[float, float]:
    """Percentile interval; NaN if nothing varies because there is a single person."""
    means = means[np.isfinite(means)]
    if not len(means):
        return float("nan"), float("nan")
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def summarise(values: np.ndarray, people: Sequence[str]) -> Summary:
    """Mean and interval of per-sample values; NaN marks a failed sample."""
    values = np.asarray(values, dtype=np.float64)
    ok = np.isfinite(values)
    mean = float(values[ok].mean()) if ok.any() else float("nan")
    low = high = float("nan")
    if len(set(people)) > 1:
        low, high = interval(resampled_means(values, people, *weights_of(people)))
    sd = float(values[ok].std(ddof=1)) if ok.sum() > 1 else float("nan")
    return Summary(mean, low, high, int(ok.sum()), int((~ok).sum()), sd)


def summarise_set(ours: np.ndarray, truth: np.ndarray, people: Sequence[str], n_failed: int,
                  distance: Callable[[np.ndarray, np.ndarray], float], resamples: int = 200) -> Summary:
    """A set metric and its interval, by resampling people's features.

    A resampled set repeats people, which shifts a Frechet distance upwards; the interval is therefore centred on the
    estimate (basic bootstrap on the spread, percentiles of the deviation from the resamples' median).
    """
    estimate = distance(ours, truth)
    low = high = float("nan")
    draws, names = weights_of(people, resamples)
    if len(names) > 1:
        members = [np.flatnonzero(np.asarray(people) == name) for name in names]
        values = []
        for draw in draws:
            picked = np.concatenate([np.tile(members[p], count) for p, count in enumerate(draw) if count])
            values.append(distance(ours[picked], truth[picked]))
        deviation = np.array(values) - np.median(values)
        low, high = (estimate + edge for edge in interval(deviation))
    return Summary(estimate, low, high, len(ours), n_failed)


def tells_apart(a: np.ndarray, b: np.ndarray, people: Sequence[str]) -> bool:
    """Whether the paired, clustered bootstrap excludes a zero difference of two methods on the same samples."""
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if len(set(people)) < 2 or not np.isfinite(difference).any():
        return False
    low, high = interval(resampled_means(difference, people, *weights_of(people)))
    return low > 0 or high < 0
