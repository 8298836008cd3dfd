"""MINE: mutual information of two embeddings in nats (Belghazi et al., "Mutual Information Neural
Estimation", 2018).

The Donsker-Varadhan bound I >= E_joint[T] - log E_product[exp T] is maximised over a network T on
one part of the data, with the paper's exponential moving average in the gradient's denominator; a
second part decides when to stop, and a third, which has seen neither, gives the value. So what T
learned by heart does not count, and the value is a lower bound up to sampling noise; it may come
out slightly negative where there is nothing to find.

Images of one person are not independent. The population here is "one of these P people, then an
image of theirs": both expectations are weighted sums over all pairs of images, with two images of
one person making up 1/P of the product of marginals. Samples that stand for themselves (Gaussians)
are people with a single image.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from fsrbench.errors import FsrError
from fsrbench.rng import numpy_rng, seed_of


@dataclass(frozen=True)
class MineConfig:
    """How an estimate is made.

    Args:
        width, rank: of the critic's hidden layers and codes.
        steps, lr, batch: of AdamW, warmed up and let down by a cosine; images in a batch, of whole
            people.
        every: steps between looks at the stopping part; the best critic is kept.
        average: weight of the past in the moving average of E_product[exp T].
        components: principal components, of the training part, that each side is reduced to; None
            for none. A function of an embedding tells no more than the embedding, so the value
            stays a lower bound.
        folds: how many of the PARTS stand as held-out part in turn.
        held, stop: most samples of the held-out and the stopping part that are looked at.
    """

    width: int = 64
    rank: int = 32
    steps: int = 800
    lr: float = 1e-2
    batch: int = 256
    every: int = 50
    average: float = 0.99
    components: int | None = None
    folds: int = 1
    held: int = 4000
    stop: int = 2000


PARTS = 5  # three to train on, one to stop by, one to evaluate


class Side(nn.Module):
    """Code (N, rank) and offset (N, 1) of one side: a small network beside a linear map."""

    def __init__(self, size: int, width: int, rank: int):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(size, width), nn.ELU(), nn.Linear(width, width),
                                     nn.ELU(), nn.Linear(width, rank + 1))
        self.linear = nn.Linear(size, rank + 1, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.network(x) + self.linear(x)
        return out[:, 1:], out[:, :1]


class Critic(nn.Module):
    """T(x, y) = a(x) + b(y) - sum_k s_k (f_k(x) - g_k(y))^2 for all pairs of N x and M y at once,
    (N, M).

    The distance lets one learned scale make T as steep as strong dependence needs (a plain MLP on
    [x, y] or an inner product loses a fifth of 3 nats in one dimension); all pairs at once make log
    E_product[exp T] far less noisy than one permutation does.
    """

    def __init__(self, x_size: int, y_size: int, config: MineConfig):
        super().__init__()
        self.x, self.y = (Side(size, config.width, config.rank) for size in (x_size, y_size))
        self.log_scale = nn.Parameter(torch.full((config.rank,), -math.log(config.rank)))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        (f, a), (g, b) = self.x(x), self.y(y)
        s = self.log_scale.exp()
        return 2 * (f * s) @ g.T - (f.square() @ s)[:, None] - g.square() @ s + a + b.T


@dataclass(frozen=True)
class Weights:
    """Weights (N, N) of the pairs (x_i, y_j) under the joint distribution, and log weights under
    the product."""

    joint: torch.Tensor
    log_product: torch.Tensor


def pair_weights(people: np.ndarray, other: bool, population: int) -> Weights:
    """Weights of all pairs of N images.

    Args:
        people: (N,) integer identity of each image.
        other: a joint pair is of two different images of one person; else x and y of the same
            image.
        population: P, how many people the product draws from; images of one person are 1/P of it.
            An image is never paired with itself there, as two independent draws are never the same
            photograph.

    Raises:
        FsrError: `other`, and nobody has two images.
    """
    return _pair_weights(np.unique(people, return_inverse=True)[1].astype(np.int64).tobytes(),
                         other, population)


@lru_cache(maxsize=4)
def _pair_weights(codes: bytes, other: bool, population: int) -> Weights:
    people = np.frombuffer(codes, dtype=np.int64)
    counts = np.bincount(people)[people].astype(np.float32)
    same = (people[:, None] == people) & ~np.eye(len(people), dtype=bool)
    different = people[:, None] != people
    pairs = same / (counts * np.maximum(counts - 1, 1))[:, None]
    joint = pairs if other else np.diag(1 / counts)
    if not joint.any():
        raise FsrError("mutual information within people",
                       "a fifth of the data holds no two images of one person",
                       f"give people with at least {2 * PARTS} images each")
    product = _unit(different
                    / np.outer(counts, counts)) * (1 - 1 / population) + _unit(pairs) / population
    with np.errstate(divide="ignore"):
        return Weights(torch.from_numpy(_unit(joint)), torch.from_numpy(np.log(_unit(product))))


def _unit(weights: np.ndarray) -> np.ndarray:
    total = weights.sum(dtype=np.float64)
    return (weights / total if total else weights).astype(np.float32)


def bound(scores: torch.Tensor, weights: Weights) -> tuple[torch.Tensor, torch.Tensor]:
    """(E_joint[T], log E_product[exp T]) of scores (N, N); their difference is the Donsker-Varadhan
    bound."""
    return (scores * weights.joint).sum(), torch.logsumexp((scores + weights.log_product).flatten(),
                                                           0)


def split(people: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Part (N,) of each image, 0 to PARTS - 1: every person's images are spread evenly over the
    parts."""
    part = np.empty(len(people), dtype=np.int64)
    codes = np.unique(people, return_inverse=True)[1]
    order = rng.permutation(len(people))
    order = order[np.argsort(rng.permutation(codes.max() + 1)[codes[order]], kind="stable")]
    part[order] = np.arange(len(people)) % PARTS
    return part


class Scaler:
    """Principal components, then mean 0 and deviation 1 of each coordinate, all learned on the
    training part; the mutual information of what varies does not depend on units."""

    def __init__(self, values: np.ndarray, components: int | None):
        from sklearn.decomposition import PCA

        reduce = components is not None and components < values.shape[1]
        self.pca = PCA(min(components, *values.shape),
                       svd_solver="full").fit(values) if reduce else None
        reduced = self._reduced(values)
        self.mean, self.sd = reduced.mean(0), reduced.std(0)
        self.sd[self.sd < 1e-8 * max(self.sd.max(), 1e-30)] = 1.0  # what does not vary stays 0

    def _reduced(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, dtype=np.float64)
        return values if self.pca is None else self.pca.transform(values)

    def __call__(self, values: np.ndarray) -> torch.Tensor:
        """(N, D) float32, cut at 5 deviations: one stray image must not decide the value."""
        return torch.from_numpy(np.clip((self._reduced(values) - self.mean) / self.sd, -5,
                                        5)).float()


def _batches(people: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of about `size` images of whole people; all of them if they are few."""
    members = np.split(np.argsort(people, kind="stable"),
                       np.cumsum(np.unique(people, return_counts=True)[1])[:-1])
    while True:
        order = rng.permutation(len(members))
        ends = np.cumsum([len(members[i]) for i in order])
        cuts = np.searchsorted(ends, np.arange(size, max(ends[-1], size) + 1, size), side="right")
        for chunk in np.split(order, cuts) if ends[-1] > size else [np.arange(len(members))]:
            picked = np.concatenate([members[i]
                                     for i in chunk]) if len(chunk) else np.empty(0, dtype=np.int64)
            if len(picked) > size // 2 or ends[-1] <= size:
                yield picked


def training(critic: Critic, batches: Iterator[tuple[torch.Tensor, torch.Tensor, Weights]],
             config: MineConfig ) -> Iterator[int]:
    """Train a critic in place, the rate warmed up and then a cosine; yields the step after every
    `config.every` steps."""
    def rate(step: int) -> float:
        return min((step + 1) / (0.1 * config.steps), 1.0) * (1 + math.cos(math.pi * step
                                                                           / config.steps)) / 2
    optimizer = torch.optim.AdamW(critic.parameters(), lr=config.lr, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    mean = None  # log of the moving average of E_product[exp T]
    for step, (x, y, weights) in zip(range(1, config.steps + 1), batches):
        joint, product = bound(critic(x, y), weights)
        now = product.detach()
        mean = now if mean is None else torch.logaddexp(mean + math.log(config.average),
                                                        now + math.log1p(-config.average))
        # Its gradient is that of E_joint[T] - E_product[exp T] / average: the bias correction of
        # the paper's eq. 12.
        loss = (product - mean).exp() - joint
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(critic.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % config.every == 0 or step == config.steps:
            yield step


def new_critic(x_size: int, y_size: int, config: MineConfig, seed: int) -> Critic:
    """An untrained critic; the draw leaves torch's own generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Critic(x_size, y_size, config)


@torch.no_grad()
def value(critic: Critic, x: torch.Tensor, y: torch.Tensor, weights: Weights) -> float:
    """The bound in nats on a set of images."""
    joint, product = bound(critic(x, y), weights)
    return float(joint - product)


def _fold(x: np.ndarray, y: np.ndarray, people: np.ndarray, part: np.ndarray, fold: int,
          other: bool, config: MineConfig, seed: int) -> float:
    """Bound on part `fold`, of a critic stopped by the next part and trained on the rest."""
    held = np.flatnonzero(part == fold)[:config.held]
    stop = np.flatnonzero(part == (fold + 1) % PARTS)[:config.stop]
    train = np.flatnonzero((part != fold) & (part != (fold + 1) % PARTS))
    scale_x, scale_y = Scaler(x[train], config.components), Scaler(y[train], config.components)
    sets = {k: (scale_x(x[i]), scale_y(y[i])) for k, i in (("train", train), ("stop", stop),
                                                           ("held", held))}
    population = len(np.unique(people))
    weights = {k: pair_weights(people[i], other, population)
               for k, i in (("stop", stop), ("held", held))}

    def batches():
        for i in _batches(people[train], config.batch, numpy_rng("mine-batches", seed, fold)):
            yield sets["train"][0][i], sets["train"][1][i], pair_weights(people[train[i]], other,
                                                                         population)
    critic = new_critic(sets["train"][0].shape[1], sets["train"][1].shape[1], config,
                        seed_of("mine-critic", seed, fold))
    # A critic that never helps on the stopping part is worth nothing: T = 0.
    best, kept = 0.0, None
    for _ in training(critic, batches(), config):
        now = value(critic, *sets["stop"], weights["stop"])
        if now > best:
            best, kept = now, copy.deepcopy(critic)
    return value(kept, *sets["held"], weights["held"]) if kept else 0.0


def mutual_information(x: np.ndarray, y: np.ndarray, people: np.ndarray | None = None,
                       other: bool = False,
                       config: MineConfig = MineConfig(), seed: int = 0) -> float:
    """Mutual information of x (N, D) and y (N, E) in nats, on held-out images, the mean over
    `config.folds` of them.

    Args:
        people: (N,) identity of each image; None where samples are independent.
        other: pair each x with the y of another image of the same person.
        seed: of split, critic and batches. The value does not depend on torch's threads: one is
            used.
    """
    people = np.arange(len(x)) if people is None else np.unique(people, return_inverse=True)[1]
    part = split(people, numpy_rng("mine-split", seed))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return float(np.mean([_fold(x, y, people, part, fold, other, config, seed)
                              for fold in range(config.folds)]))
    finally:
        torch.set_num_threads(threads)


def by_heart(x: np.ndarray, y: np.ndarray, steps: int, seed: int = 0) -> float:
    """The bound on the very images that the critic was trained on, pairs of one image included in
    the product.

    What a common MINE script does. For N images it tends to log N with training, whatever they
    show: kept here only to say what an estimate from ten images can mean.
    """
    config = MineConfig(steps=steps, every=steps)
    n = len(x)
    weights = Weights(torch.eye(n) / n, torch.full((n, n), -2 * math.log(n)))
    a, b = (torch.from_numpy((v - v.mean(0)) / (v.std(0) + 1e-6)).float() for v in (x, y))
    critic = new_critic(a.shape[1], b.shape[1], config, seed_of("mine-by-heart", seed))
    for _ in training(critic, iter(lambda: (a, b, weights), None), config):
        pass
    return value(critic, a, b, weights)
