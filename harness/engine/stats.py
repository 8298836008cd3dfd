"""Statistics of a table: means, set metrics and differences, each with an interval over people.

Images of one person are not independent, so the unit is the person: a number is computed again
without each person in turn (delete-one jackknife; of means the CR3 variance of clustered data),
and Student's t judges it by how far these lie apart. All methods leave out the same people, so
differences are paired, those of set metrics too. What levels and coverages this has is measured by
tests/people.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, stdtr, stdtrit

LEVEL = 0.95
# Fewest people of an interval or a mark: with four, one outlier decides, and a permutation's
# p-value is 1/8 at least.
LEAST = 5
# People beyond so many are dealt into so many groups, as a set metric is computed anew without
# each.
GROUPS = 100


@dataclass(frozen=True)
class Summary:
    """A cell of a table.

    Args:
        mean: over the samples that have a value; NaN if there are none.
        low, high: 95 % interval of the mean over people; NaN with fewer than `LEAST`.
        n_ok: samples with a value; n_failed: samples without.
        sd: standard deviation of the values over samples, of a set metric over subsets; NaN where
            there is none.
    """

    mean: float
    low: float
    high: float
    n_ok: int
    n_failed: int
    sd: float = math.nan

    def said(self, digits: str) -> str:
        """ "0.117 [0.110, 0.123]" by a format; "(no interval)" where there is none."""
        ends = (
            f"[{self.low:{digits}}, {self.high:{digits}}]"
            if math.isfinite(self.low)
            else "(no interval)"
        )
        return f"{self.mean:{digits}} {ends}"


@dataclass(frozen=True)
class Jackknife:
    """A number (or many) of all samples, and without each group of people.

    Args:
        whole: (...); without: (G, ...); sizes: (G,) samples of each group.
    """

    whole: np.ndarray
    without: np.ndarray
    sizes: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Standard error (...). A sum about the mean without the factor (G - 1) / G: a little
        wide, which few skewed people need."""
        return np.sqrt(((self.without - self.without.mean(0)) ** 2).sum(0))

    @property
    def freedom(self) -> float:
        """Degrees of freedom: the harmonic mean of Satterthwaite's for people of one variance
        (Bell and McCaffrey 2002), which is low where numbers of images are unequal, and of G - 1,
        which is high there."""
        w = self.sizes / self.sizes.sum()
        a, shared = (w / (1 - w)) ** 2, np.eye(len(w)) - w[:, None] - w + (w**2).sum()
        return 2 / (a @ shared**2 @ a / (a @ shared.diagonal()) ** 2 + 1 / (len(w) - 1))

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """95 % interval; NaN with fewer than `LEAST` people."""
        if len(self.sizes) < LEAST:
            return np.full_like(self.whole, np.nan), np.full_like(self.whole, np.nan)
        reach = self.error * stdtrit(self.freedom, (1 + LEVEL) / 2)
        return self.whole - reach, self.whole + reach

    def p_value(self) -> np.ndarray:
        """Two-sided p-value of the number being zero; 1 with fewer than `LEAST` people, or where
        it is zero.
        """
        if len(self.sizes) < LEAST:
            return np.ones_like(self.whole)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stdtr(self.freedom, -np.abs(self.whole) / self.error)
        return np.where(np.isfinite(p), p, 1.0)


def groups_of(people: Sequence[str]) -> np.ndarray:
    """Which group of people each sample is of, (N,): one a person, of many people each of `GROUPS`
    in turn.
    """
    return np.unique(np.asarray(people), return_inverse=True)[1] % GROUPS


def jackknife_mean(values: np.ndarray, people: Sequence[str]) -> Jackknife:
    """Mean of values (N, ...) over samples; people without a value do not count.

    Args:
        values: NaN for a sample without; then in all columns.
    """
    values, group = np.asarray(values, dtype=np.float64), groups_of(people)
    ok = np.isfinite(values.reshape(len(values), -1)).all(1)
    member = (group[ok] == np.unique(group[ok])[:, None]).astype(np.float64)
    sums, sizes = np.tensordot(member, values[ok], 1), member.sum(1)
    if len(sizes) < 2:
        return Jackknife(values[ok].mean(0), np.empty((0, *values.shape[1:])), sizes[:0])
    left = (sizes.sum() - sizes).reshape(-1, *[1] * (values.ndim - 1))
    return Jackknife(values[ok].mean(0), (sums.sum(0) - sums) / left, sizes)


def jackknife_set(
    ours: np.ndarray,
    truth: np.ndarray,
    people: Sequence[str],
    function: Callable[[np.ndarray, np.ndarray], float],
) -> Jackknife:
    """A function of two sets of features (N, F), of whole people; nobody is left out where there
    are too few.
    """
    group, whole = groups_of(people), np.float64(function(ours, truth))
    sizes = np.bincount(group)
    if len(sizes) < LEAST:
        return Jackknife(whole, np.empty(0), sizes[:0])
    return Jackknife(
        whole,
        np.array([function(ours[group != g], truth[group != g]) for g in range(len(sizes))]),
        sizes,
    )


def combined(function: Callable[..., float], parts: Sequence[Jackknife]) -> Jackknife:
    """A function of several numbers of the same samples: what it makes of them, with all and
    without each group.
    """
    return Jackknife(
        np.float64(function(*[p.whole for p in parts])),
        np.array([function(*row) for row in zip(*[p.without for p in parts])]),
        parts[0].sizes,
    )


def share_interval(share: Jackknife, n: int) -> tuple[float, float]:
    """95 % interval of a share of n samples of yes and no, within 0 and 1 (Korn and Graubard
    1998): Clopper and Pearson's of as many independent samples as have this error; of as many as
    there are people where all agree."""
    p, people = float(share.whole), len(share.sizes)
    if people < LEAST:
        return math.nan, math.nan
    narrower = stdtrit(n - 1, (1 + LEVEL) / 2) / stdtrit(share.freedom, (1 + LEVEL) / 2)
    alike = min(n, p * (1 - p) / share.error**2 * narrower**2) if share.error > 0 else people
    yes, tail = p * alike, (1 - LEVEL) / 2
    return (
        float(betaincinv(yes, alike - yes + 1, tail)) if yes > 0 else 0.0,
        float(betaincinv(yes + 1, alike - yes, 1 - tail)) if yes < alike else 1.0,
    )


def summarise(values: np.ndarray, people: Sequence[str], share: bool = False) -> Summary:
    """Mean and interval of per-sample values (N,); NaN marks a failed sample.

    Args:
        share: the values are yes (1) and no (0).
    """
    values = np.asarray(values, dtype=np.float64)
    found = values[np.isfinite(values)]
    n, failed = len(found), len(values) - len(found)
    if not n:
        return Summary(math.nan, math.nan, math.nan, 0, failed)
    mean = jackknife_mean(values, people)
    low, high = share_interval(mean, n) if share else map(float, mean.interval())
    return Summary(
        float(found.mean()), low, high, n, failed, float(found.std(ddof=1)) if n > 1 else math.nan
    )


def p_value(a: np.ndarray, b: np.ndarray, people: Sequence[str]) -> float:
    """Two-sided p-value of two methods (N,) being equal in the mean on the same samples, whole
    people being exchanged.
    """
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if not np.isfinite(difference).any():
        return 1.0
    return float(jackknife_mean(difference, people).p_value())


def tells_apart(a: np.ndarray, b: np.ndarray, people: Sequence[str]) -> bool:
    """Whether two methods differ in the mean, as one comparison; never with fewer than `LEAST`
    people.
    """
    return p_value(a, b, people) <= 1 - LEVEL


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values corrected for being several (Holm 1979), in their order."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def too_few(people: int) -> str:
    """Why so many people have neither interval nor mark; empty where they have."""
    return (
        ""
        if people >= LEAST
        else f"No interval and no mark are of fewer than {LEAST} people, and these are {people}"
    )
