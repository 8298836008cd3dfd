"""Levels and coverages of `fsrbench.engine.stats` by simulation: `python tests/people.py [DATA
SETS]`.

Data are made by the hierarchy that a table has: people differ, images of a person differ less.
Level: how often two equal methods count as different; coverage: how often the 95 % interval holds
the mean that the data were drawn about.
"""

from __future__ import annotations

import sys

import numpy as np

from fsrbench.engine.stats import LEVEL, holm, jackknife_mean, share_interval

PEOPLE = (5, 8, 12, 20, 40, 56)
# Deviations of people from the mean, of mean 0 and variance 1, and their skewness.
SHAPES = {
    "normal (skew 0)": lambda rng, size: rng.normal(size=size),
    "gamma (skew 1)": lambda rng, size: (rng.gamma(4, size=size) - 4) / 2,
    "lognormal (skew 1.75)": lambda rng, size: (
        (np.exp(rng.normal(size=size) / 2) - np.exp(1 / 8)) / 0.604
    ),
    "exponential (skew 2)": lambda rng, size: rng.exponential(size=size) - 1,
    "t of 3 (heavy tails)": lambda rng, size: rng.standard_t(3, size) / np.sqrt(3),
}
# Images of each person.
NUMBERS = {
    "5 each": lambda rng, people: np.full(people, 5),
    "1 to 10": lambda rng, people: rng.integers(1, 11, people),
    "1 to 40, few large": lambda rng, people: np.minimum(rng.geometric(0.15, people), 40),
    "one has half": lambda rng, people: np.append(np.full(people - 1, 3), 3 * people),
}
# Variance of the images of a person, of people 1.
WITHIN = 1.5


def draw(
    rng: np.random.Generator, shape: str, numbers: np.ndarray, data_sets: int
) -> tuple[np.ndarray, np.ndarray]:
    """Values (N, data sets) of mean 0, and whom each is of (N,)."""
    people = np.repeat(np.arange(len(numbers)), numbers)
    of_people = SHAPES[shape](rng, (len(numbers), data_sets))
    return of_people[people] + rng.normal(0, np.sqrt(WITHIN), (len(people), data_sets)), people


def level(
    rng: np.random.Generator,
    count: int,
    shape: str,
    numbers: str,
    data_sets: int,
    layouts: int = 40,
) -> float:
    """Share of data sets in which a mean of 0 counts as not 0, which is one less the interval's
    coverage of 0.

    Args:
        layouts: how many draws of the images' numbers the data sets are spread over.
    """
    apart = []
    for _ in range(layouts):
        values, people = draw(rng, shape, NUMBERS[numbers](rng, count), data_sets // layouts)
        found = jackknife_mean(values, people)
        low, high = found.interval()
        different = found.p_value() <= 1 - LEVEL
        assert (different == ((low > 0) | (high < 0))).all()
        apart.append(different)
    return float(np.mean(apart))


def share_coverage(
    rng: np.random.Generator, count: int, numbers: str, share: float, data_sets: int
) -> float:
    """Coverage of the interval of a share; people differ as a beta of the deviation of half a
    binomial's.
    """
    held = []
    for _ in range(data_sets):
        people = np.repeat(np.arange(count), NUMBERS[numbers](rng, count))
        of_people = rng.beta(3 * share, 3 * (1 - share), count)
        found = jackknife_mean((rng.random(len(people)) < of_people[people]).astype(float), people)
        low, high = share_interval(found, len(people))
        held.append(low <= share <= high)
    return float(np.mean(held))


def marked(rng: np.random.Generator, count: int, equal: int, data_sets: int) -> float:
    """Share of columns of so many equal methods in which the best is told from all others,
    corrected by Holm.
    """
    told = []
    for _ in range(data_sets):
        base, people = draw(rng, "normal (skew 0)", np.full(count, 5), 1)
        values = base + draw(rng, "gamma (skew 1)", np.full(count, 5), equal)[0]
        order = np.argsort(-values.mean(0))
        p = jackknife_mean(values[:, order[:1]] - values[:, order[1:]], people).p_value()
        told.append((holm(p) <= 1 - LEVEL).all())
    return float(np.mean(told))


def main(data_sets: int) -> None:
    """Print the tables."""
    rng = np.random.default_rng(0)
    print("Level in % (coverage is 100 less it), by people\n")
    print("| People differ | Images | " + " | ".join(map(str, PEOPLE)) + " |")
    print("| --- | --- |" + " -: |" * len(PEOPLE))
    for shape in SHAPES:
        for numbers in NUMBERS:
            found = [
                f"{100 * level(rng, count, shape, numbers, data_sets):.1f}" for count in PEOPLE
            ]
            print(f"| {shape} | {numbers} | " + " | ".join(found) + " |", flush=True)
    print("\nCoverage in % of the interval of a share\n")
    for share in (0.02, 0.1, 0.5):
        found = [
            f"{100 * share_coverage(rng, count, '1 to 10', share, data_sets // 10):.1f}"
            for count in PEOPLE
        ]
        print(f"| share {share} | " + " | ".join(found) + " |", flush=True)
    print("\nShare in % of columns of equal methods that have a best\n")
    for equal in (2, 5, 13):
        found = [f"{100 * marked(rng, count, equal, data_sets // 10):.1f}" for count in PEOPLE]
        print(f"| {equal} methods | " + " | ".join(found) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20000)
