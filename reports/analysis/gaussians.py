"""Correlated Gaussians of known mutual information, I = -d/2 log(1 - rho^2): how well MINE
measures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fsrbench.engine.keys import code_digest, digest_of
from fsrbench.engine.store import Store
from fsrbench.progress import progress
from fsrbench.reports.analysis.mine import MineConfig, mutual_information
from fsrbench.rng import numpy_rng
from fsrbench.text import csv_table, markdown_table

DIMENSIONS, NATS, SEEDS, SAMPLES = (1, 2, 5, 20), (0.2, 1.0, 3.0), (0, 1, 2), 40000
TOLERANCE = 0.15


def correlated(d: int, nats: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """x, y (n, d) standard normal with that mutual information; each side is rotated, so that
    coordinates do not match."""
    rng = numpy_rng("gaussians", d, nats, seed)
    rho = math.sqrt(1 - math.exp(-2 * nats / d))
    x = rng.standard_normal((n, d))
    y = rho * x + math.sqrt(1 - rho**2) * rng.standard_normal((n, d))
    turn_x, turn_y = (np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in "xy")
    return x @ turn_x, y @ turn_y


@dataclass(frozen=True)
class Case:
    """One estimate beside the ground truth, in nats."""

    d: int
    nats: float
    seed: int
    estimate: float

    @property
    def error(self) -> float:
        """Relative."""
        return self.estimate / self.nats - 1


def _estimate(d: int, nats: float, seed: int, n: int) -> float:
    return mutual_information(*correlated(d, nats, n, seed), config=MineConfig(), seed=seed)


def validate(store: Store, dimensions=DIMENSIONS, nats=NATS, seeds=SEEDS,
             n: int = SAMPLES) -> list[Case]:
    """All estimates, on as many processes as there are cores; each is kept in the store when it is
    made."""
    import torch
    from joblib import Parallel, delayed
    jobs = [(d, i, seed, n) for d in dimensions for i in nats for seed in seeds]
    code = code_digest(__name__)
    keys = {job: digest_of("mine-gaussians", code, torch.__version__, MineConfig(), *job)
            for job in jobs}
    missing = [job for job in jobs if store.tensors("sets", keys[job]) is None]
    done = Parallel(n_jobs=-1, return_as="generator")(delayed(_estimate)(*job) for job in missing)
    for job, value in zip(missing, progress(done, total=len(missing), desc="MINE on Gaussians",
                                            unit="estimate")):
        store.put_tensors("sets", keys[job], {"nats": torch.tensor(value, dtype=torch.float64)})
    return [Case(d, i, seed, float(store.tensors("sets", keys[d, i, seed, n])["nats"]))
            for d, i, seed, _ in jobs]


def markdown(cases: list[Case]) -> str:
    """One line a dimension and truth: mean, range and largest error of its seeds."""
    lines = []
    for d, nats in dict.fromkeys((c.d, c.nats) for c in cases):
        of = [c for c in cases if (c.d, c.nats) == (d, nats)]
        values, worst = [c.estimate for c in of], max((c.error for c in of), key=abs)
        lines.append([d, f"{nats:.2f}", len(of),
                      *(f"{v:.3f}" for v in (np.mean(values), min(values), max(values))),
                      f"{worst:+.1%}",
                      f"{'within' if abs(worst) <= TOLERANCE else 'outside'} {TOLERANCE:.0%}"])
    head = ["d", "True, nats", "Seeds", "Mean", "Lowest", "Highest", "Largest error", "Verdict"]
    return markdown_table(head, lines, left=0) + "\n"


def tidy(cases: list[Case]) -> str:
    """CSV, one line an estimate."""
    return csv_table(["d", "true_nats", "seed", "estimate", "relative_error"],
                     ([c.d, c.nats, c.seed, f"{c.estimate:.6g}", f"{c.error:.4f}"] for c in cases))
