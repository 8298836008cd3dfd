"""`invoke analysis`: how far z_id and z_s depend on each other, and what the paper's figures of it
can mean (appendix E.5).

What E.5 leaves open is read as follows; each reading stands in the output.
"Ten images from the same identity": with ten samples no held-out estimate exists, and one by heart
tends to log 10 = 2.303 nats (shown). The estimates here are over all people drawn, ten images each,
a pair being the two embeddings of one image (z_id with z_s) or of two different images of one
person (z_id with z_id, z_s with z_s, and z_id with z_s once more).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsrbench.engine.keys import code_digest, digest_of
from fsrbench.engine.plan import Options
from fsrbench.engine.results import Result, put_result
from fsrbench.engine.store import Store, write_files
from fsrbench.errors import FsrError
from fsrbench.progress import progress
from fsrbench.reports.analysis import cca, gaussians, projections
from fsrbench.reports.analysis.embeddings import Embeddings, gather
from fsrbench.reports.analysis.mine import PARTS, MineConfig, by_heart, mutual_information
from fsrbench.reports.figures.context import Context
from fsrbench.reports.figures.registry import get_figure, write
from fsrbench.reports.paper.published import facts
from fsrbench.rng import numpy_rng
from fsrbench.text import csv_table, markdown_table

SEEDS = 3
# For a hundred images or a few hundred: fewer steps, looks at the stopping part more often, 16
# principal components. Chosen once, on ORL, for the highest bound on z_id with z_id.
FEW = MineConfig(rank=16, steps=150, lr=3e-3, batch=1024, every=10, components=16, folds=PARTS)
# Name, title, the two embeddings, and whether a pair is of two images of a person instead of one
# image.
PAIRINGS = (("mine_id_style", "z_id with z_s, same image", "z_id", "z_s", False),
            ("mine_id_style_other", "z_id with z_s, two images of a person", "z_id", "z_s", True),
            ("mine_id_id", "z_id with z_id, two images of a person", "z_id", "z_id", True),
            ("mine_style_style", "z_s with z_s, two images of a person", "z_s", "z_s", True))
# Steps after which the estimate by heart is looked at.
BY_HEART = (10, 40, 160)


@dataclass(frozen=True)
class Line:
    """One figure of the report.

    Args:
        part: "mine", "by heart", "cca" or "clusters"; name: for the CSV and, where `kept`, of the
            result in the store.
        low, high: lowest and highest of the seeds or splits; NaN where there is one value.
        control: the same where there is nothing to find (shuffled pairs, independent Gaussians,
            shuffled names).
        paper: key of the paper's figure in facts.csv.
    """

    part: str
    name: str
    title: str
    value: float
    low: float
    high: float
    n: int
    control: float = math.nan
    paper: str = ""
    kept: bool = False


def _spread(values: list[float]) -> tuple[float, float, float]:
    return float(np.mean(values)), float(min(values)), float(max(values))


def _estimate(x: np.ndarray, y: np.ndarray, people: np.ndarray, other: bool, seed: int,
              store: Store) -> float:
    """One estimate, kept in the store by everything that decides it."""
    import torch

    key = digest_of("mine", code_digest("fsrbench.reports.analysis.mine"), torch.__version__, FEW,
                    other, seed, *people,
                    *[np.ascontiguousarray(v, dtype=np.float32).tobytes().hex() for v in (x, y)])
    kept = store.tensors("sets", key)
    if kept is None:
        kept = {"nats": torch.tensor(mutual_information(x, y, people, other, FEW, seed),
                                     dtype=torch.float64)}
        store.put_tensors("sets", key, kept)
    return float(kept["nats"])


def mine_lines(e: Embeddings, store: Store, seeds: int = SEEDS) -> list[Line]:
    """Mutual information of the four pairings; the control is one estimate with the y of other
    images, whoever is on them."""
    lines, shuffled = [], numpy_rng("mine-shuffle", len(e.ids)).permutation(len(e.ids))
    with progress(total=len(PAIRINGS) * (seeds + 1), desc="MINE", unit="estimate") as bar:
        for name, title, left, right, other in PAIRINGS:
            x, y, values = getattr(e, left), getattr(e, right), []
            for seed, order in [*((s, slice(None)) for s in range(seeds)), (0, shuffled)]:
                values.append(_estimate(x, y[order], e.people, other, seed, store))
                bar.update()
            lines.append(Line("mine", name, title, *_spread(values[:-1]), len(e.ids), values[-1],
                              name if name in facts() else "", kept=True))
    return lines


def by_heart_lines(e: Embeddings, people: int = 3, images: int = 10) -> list[Line]:
    """E.5 to the letter: ten images of one person, trained and evaluated on the same; mean and
    range over a few people, beside independent Gaussians of the same shape."""
    groups = [np.flatnonzero(e.people == name)[:images] for name in dict.fromkeys(e.people)]
    groups = [g for g in groups if len(g) == max(map(len, groups))][:people]
    lines = []
    for name, x, y in (("id_style", e.z_id, e.z_s), ("id_id", e.z_id, e.z_id),
                       ("style_style", e.z_s, e.z_s)):
        for steps in BY_HEART:
            values = [by_heart(x[g], y[g], steps) for g in groups]
            noise = [numpy_rng("by-heart", side).standard_normal((len(groups[0]), v.shape[1]))
                     for side, v in enumerate((x, y))]
            lines.append(Line("by heart", f"by_heart_{name}_{steps}",
                              f"{name.replace('_', ' with ')}, {steps} steps",
                              *_spread(values), len(groups[0]), by_heart(*noise, steps)))
    return lines


def cca_lines(e: Embeddings, splits: int = 5) -> list[Line]:
    """Mean canonical correlation in-sample and held out (by people, and by images), beside
    independent Gaussians."""
    n, p, q = len(e.ids), e.z_id.shape[1], e.z_s.shape[1]
    noise = [numpy_rng("cca-control", side).standard_normal((n, d))
             for side, d in enumerate((p, q))]

    def held_out(x, y, groups) -> list[float]:
        return [float(cca.held_out_correlations(x, y, groups, seed=s).mean())
                for s in range(splits)]
    lines = [Line("cca", "cca_mean", "in-sample", float(cca.canonical_correlations(e.z_id, e.z_s)
                                                        .mean()), math.nan,
                  math.nan, n, float(cca.canonical_correlations(*noise).mean()), "cca_mean_max",
                  kept=True)]
    for name, title, groups in (("cca_mean_heldout", "held out, other people", e.people),
                                ("cca_mean_heldout_images",
                                 "held out, other images of the same people", None)):
        lines.append(Line("cca", name, title, *_spread(held_out(e.z_id, e.z_s, groups)), n,
                          float(np.mean(held_out(*noise, groups))), "cca_mean_max", kept=True))
    return lines


def cca_at_the_papers_size(n: int = 1000, d: int = 512) -> list[Line]:
    """The same on independent Gaussians of the paper's size, where the ground truth is zero, and
    what chance predicts."""
    x, y = (numpy_rng("cca-paper-size", side).standard_normal((n, d)) for side in "xy")
    inside, held = cca.canonical_correlations(x,
                                              y).mean(), cca.held_out_correlations(x, y,
                                                                                   folds=2).mean()
    title = f"independent Gaussians, N = {n}, {d} dimensions a side"
    return [Line("cca", "cca_gaussians", f"in-sample: {title}", float(inside), math.nan, math.nan,
                 n, cca.chance(d, d, n)),
            Line("cca", "cca_gaussians_heldout", f"held out: {title}", float(held), math.nan,
                 math.nan, n, 0.0)]


def cluster_lines(e: Embeddings) -> list[Line]:
    """Cluster scores of the images of Fig. 13."""
    chosen, lines = projections.selected(e), []
    for kind, title, vectors in (("id", "z_id", e.z_id), ("style", "z_s", e.z_s)):
        scores = projections.cluster_scores(vectors[chosen], e.people[chosen])
        for name, chance in zip(("silhouette", "purity", "davies_bouldin"), scores.chance):
            lines.append(Line("clusters", f"{name}_{kind}", f"{title}, {name.replace('_', '-')}",
                              getattr(scores, name), math.nan, math.nan, len(chosen), chance))
    return lines


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _grid(lines: list[Line], control: str) -> str:
    rows = []
    for line in lines:
        bound = "< " if line.paper.endswith("_max") else ""
        rows.append([line.title, *map(_number, (line.value, line.low, line.high)), str(line.n),
                     _number(line.control),
                     bound + facts()[line.paper].value if line.paper else ""])
    return markdown_table(["", "Value", "Lowest", "Highest", "n", control, "Paper"], rows, left=1)


def _head(e: Embeddings, options: Options) -> str:
    counts = np.unique(e.people, return_counts=True)[1]
    text = (f"# Dependence of z_id and z_s (paper E.5, Fig. 13)\n\n{len(e.ids)} images of "
            f"{len(counts)} people "
            f"({counts.min()} to {counts.max()} each) of {options.data.partition(':')[0]}, "
            f"{options.profile.name} profile, "
            f"seed {options.seed}. z_id: {e.networks[0]}, {e.z_id.shape[1]} values; z_s: style "
            f"encoder of {e.networks[1]}, "
            f"{e.z_s.shape[1]} values.")
    if options.profile.name != "paper":
        text += (" The paper's networks, dimensions and data are others, so its figures stand "
                 "beside ours for orientation and "
                 "are not comparable.")
    return text


def _mine_section(mine: list[Line], heart: list[Line], people: int) -> list[str]:
    theirs = ", ".join(facts()[line.paper].value for line in mine if line.paper)
    return [
        "## Mutual information (MINE, nats)", _grid(mine, "Shuffled"),
        f"- Lower bounds, on images that neither trained nor stopped the critic: mean, lowest and "
        f"highest of {SEEDS} seeds "
        f"(each a new split into {PARTS} parts, all of which are evaluated in turn). Who is on an "
        f"image is at most "
        f"log {people} = {math.log(people):.3f} nats; what both embeddings know of that is "
        f"shared.\n"
        "- E.5 says \"ten images from the same identity\" and no more. Here a pair is what the row "
        "says, over all people; "
        "the product of marginals draws two people independently.",
        "## The same by heart: ten images of one person, evaluated where trained",
        _grid(heart, "Gaussians"),
        f"- With N images and no held-out part, MINE tends to log N ({math.log(10):.3f} for ten) "
        f"for anything, "
        "independent Gaussians included (last column but one); how far it gets is a matter of "
        "steps. The paper's "
        f"{theirs} are all below log 10: if they are of ten samples, they tell how long was "
        f"trained, not how much is shared."]


def _cca_section(lines: list[Line]) -> list[str]:
    bound, chance = facts()["cca_mean_max"].value, cca.chance(512, 512, 1000)
    samples, dimensions = cca.needed(float(bound), 512, 1000)
    return [
        "## Canonical correlation, mean over all pairs", _grid(lines, "Chance"),
        f"- Held out: directions from 4 of 5 parts (ridge {cca.RIDGE} of the mean variance), "
        f"correlations on the fifth; mean, "
        "lowest and highest of the splits. In-sample values are exact, without ridge; with as many "
        "dimensions as images "
        "they are 1 for anything.\n"
        "- Chance: the same computation on independent Gaussians of the same shape; in the "
        "Gaussians' own rows Wachter's law, "
        "and zero.\n"
        f"- The paper's \"below {bound}\" from 1,000 samples in 512 dimensions cannot be an "
        f"in-sample mean: independent data "
        f"give {chance:.3f}. In-sample it takes some {round(samples, -2):,} independent samples, "
        f"or at most {dimensions} "
        "dimensions a side at 1,000; or it is held out or heavily regularised, which E.5 does not "
        "say. Its test set has "
        f"{facts()['test_images'].value} images."]


def _cluster_section(lines: list[Line], e: Embeddings) -> list[str]:
    right, own, images = projections.fitted_places(e)
    return [
        "## Clusters by person", _grid(lines, "Shuffled names"),
        f"- On the embeddings of Fig. 13's images, not on the projections. Purity: of the "
        f"{projections.NEIGHBOURS} nearest. "
        "Davies-Bouldin: lower is better.\n"
        f"- Fitted z_id: {right} of {len(e.fitted)} are nearest to their own person's mean; cosine "
        f"to it {own:.3f}, of the "
        f"images themselves {images:.3f}. What is fitted is z_id alone (paper 3.3)."]


def markdown(lines: list[Line], e: Embeddings, options: Options) -> str:
    """The report."""
    of = {part: [line for line in lines if line.part == part]
          for part in ("mine", "by heart", "cca", "clusters")}
    sections = [_head(e, options), *_mine_section(of["mine"], of["by heart"], len(set(e.people))),
                *_cca_section(of["cca"]),
                *_cluster_section(of["clusters"], e), "## Notes",
                "\n".join(f"- {note}" for note in e.notes)]
    return "\n\n".join(sections) + "\n"


def tidy(lines: list[Line]) -> str:
    """CSV, one line a figure."""
    rows = []
    for line in lines:
        value, low, high, control = ("" if math.isnan(v) else f"{v:.6g}"
                                     for v in (line.value, line.low, line.high, line.control))
        rows.append([line.part, line.name, value, low, high, line.n, control,
                     facts()[line.paper].value if line.paper else ""])
    return csv_table(["part", "name", "value", "low", "high", "n", "control", "paper"], rows)


def keep(lines: list[Line], e: Embeddings, options: Options, store: Store) -> None:
    """Write the named results into the store."""
    key = digest_of("analysis", options.profile.name, *e.ids, e.z_id.tobytes().hex(),
                    e.z_s.tobytes().hex(), FEW, SEEDS)
    for line in lines:
        if line.kept:
            put_result(store, options.profile.name, Result(
                line.name, key, line.value, line.low, line.high, line.n,
                f"{line.title}; {len(set(e.people))} people of {options.data.partition(':')[0]}; "
                f"low and high are the range "
                "over seeds or splits"))


def analysis(options: Options, store: Store, out: Path | str, fitted: int = 5) -> list[Path]:
    """Gather, estimate, and write analysis.md and .csv and figure 13 into a folder; returns the
    paths.

    Raises:
        FsrError: a single person, weights that are missing, or too few images of each person.
    """
    if options.people == 1:
        raise FsrError("--people 1", "is too few",
                       "dependence and clusters need at least two people", code=2)
    e = gather(options, store, fitted)
    lines = [*mine_lines(e, store), *by_heart_lines(e), *cca_lines(e), *cca_at_the_papers_size(),
             *cluster_lines(e)]
    keep(lines, e, options, store)
    paths = write_files(out, {"analysis.md": markdown(lines, e, options),
                              "analysis.csv": tidy(lines)})
    return [*paths, *write(get_figure(13), Context(options, store), Path(out))]


def validation(store: Store, out: Path | str) -> tuple[list[Path], int]:
    """MINE on Gaussians of known mutual information: writes mine-validation.md and .csv; (paths,
    estimates outside)."""
    cases = gaussians.validate(store)
    outside = sum(abs(c.error) > gaussians.TOLERANCE for c in cases)
    head = (f"# MINE on correlated Gaussians\n\n{gaussians.SAMPLES} samples each, a fifth of them "
            f"held out, d dimensions a "
            "side, I = -d/2 log(1 - rho^2).\n\n")
    tail = (f"\n{len(cases) - outside} of {len(cases)} estimates are within "
            f"{gaussians.TOLERANCE:.0%} of the ground truth.\n")
    return write_files(out, {"mine-validation.md": head + gaussians.markdown(cases) + tail,
                        "mine-validation.csv": gaussians.tidy(cases)}), outside
