"""What stands beside a table's columns on identity: which judges a method has seen, how independent
they are of each other, and whether they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from fsrbench.core import Method
from fsrbench.engine.run import Outcome
from fsrbench.errors import FsrError
from fsrbench.metrics import Metric, get_feature
from fsrbench.metrics.panel import impostors
from fsrbench.metrics.recognisers import RECOGNISERS
from fsrbench.text import factor, read_json
from fsrbench.weights.catalogue import locate

# Two judges are independent where their scores of pairs of different people correlate less.
INDEPENDENT = 0.7
# Of fewer such pairs a correlation says nothing.
PAIRS = 10
DAGGER = "†"
CONDITIONS, TRAINED = "conditions on", "trained with"


def seen_by(method: Method) -> dict[str, str]:
    """Judges that a method has seen, by name, and how: it needs their network (or another file of
    it), it says so (`recognisers`), or the card of its weights does."""
    declared = {*getattr(method, "recognisers", ()),
                *(name for weights in method.weight_files for name in _of_card(weights))}
    found = {}
    for name, one in RECOGNISERS.items():
        files = {one.weights, *one.also}
        ways = [CONDITIONS] * bool(files & set(method.weight_files)) + [TRAINED] * bool(
            {name, *files} & declared)
        if ways:
            found[name] = " and ".join(ways)
    return found


def _of_card(weights: str) -> Sequence[str]:
    try:
        path = locate(weights)
    except FsrError:  # a file that is not whole, which the run says
        return ()
    card = path.with_suffix(".json") if path else None
    if card is None or not card.exists():
        return ()
    return read_json(card, remedy="export the weights again").get("recognisers", ())


def saw(method: Method, metric: Metric) -> bool:
    """Whether a method has seen the judge of a metric."""
    return metric.recogniser in seen_by(method)


def ranks(metric: Metric) -> bool:
    """Whether more of a metric is better or worse; nearness to the reference, or to I_L, is
    neither."""
    return metric.target not in ("reference", "upsampled")


def notes(outcome: Outcome, columns: Sequence[Metric], blocks: Mapping[int, list]) -> list[str]:
    """What a reader of the columns on identity must know; nothing where there are none."""
    here = [c for c in columns if c.recogniser and c.id not in outcome.unavailable]
    if not here:
        return []
    return [*_chance(outcome, here), *_seen(outcome), *_trained_on(outcome, here),
            *_agreement(outcome, here, blocks)]


def _chance(outcome: Outcome, here: list[Metric]) -> list[str]:
    people = len(outcome.measures.albums)
    if not any(c.id.startswith("rank1") for c in here):
        return []
    return [f"Gap and rank-1 are against the reference sets of the {people} people of this run: "
            f"chance of rank-1 is {1 / people:.1%}, and other people make other values."]


def _seen(outcome: Outcome) -> list[str]:
    ways: dict[tuple[str, str], list[str]] = {}
    for method in dict.fromkeys(cell.method for cell in outcome.cells):
        for name, how in seen_by(method).items():
            ways.setdefault((RECOGNISERS[name].title, how), []).append(method.title)
    said = [f"{', '.join(dict.fromkeys(titles))}: {how} {judge}"
            for (judge, how), titles in ways.items()]
    return [f"{DAGGER} marks values by a judge that the method has seen, which is never marked "
            f"best. {'; '.join(said)}."] if said else []


def _trained_on(outcome: Outcome, here: list[Metric]) -> list[str]:
    source = outcome.samples.source.name
    judges = dict.fromkeys(RECOGNISERS[c.recogniser] for c in here)
    return [f"{one.title} was itself trained on {source}." for one in judges
            if source in one.trained_on] + [
                f"What {one.title} was trained on is not stated." for one in judges
                if not one.trained_on]


def correlations(outcome: Outcome, judges: Sequence[str]) -> dict[tuple[str, str], float]:
    """Correlation of the scores of two judges for pairs of images of different people, over the
    reference sets of the run."""
    scores = {name: impostors(outcome.measures.gallery(get_feature(RECOGNISERS[name].feature)))
              for name in judges}
    return {(a, b): alike(scores[a], scores[b]) for a, b in combinations(judges, 2)}


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two judges' scores (N,) of the same pairs of different people; NaN of fewer
    than `PAIRS`."""
    return float(np.corrcoef(first, second)[0, 1]) if len(first) >= PAIRS else float("nan")


def independence(first: str, second: str, r: float) -> str:
    """What a correlation says of two judges, by their titles, in a sentence."""
    if not np.isfinite(r):
        return (f"{first} and {second}: the run has fewer than {PAIRS} pairs of photographs of "
                "different people, too few to tell whether they are independent judges.")
    return (f"Scores of {first} and {second} for different people correlate {r:.2f}: "
            f"{'independent' if r < INDEPENDENT else 'not independent'} judges "
            f"(less than {INDEPENDENT} counts as that).")


def _agreement(outcome: Outcome, here: list[Metric], blocks: Mapping[int, list]) -> list[str]:
    gaps = {c.recogniser: c for c in here if c.id.startswith("gap.")}
    if len(gaps) < 2:
        return [f"{RECOGNISERS[name].title} alone judges identity here, so no verdict is given."
                for name in gaps]
    said = []
    for (a, b), r in correlations(outcome, list(gaps)).items():
        said.append(independence(RECOGNISERS[a].title, RECOGNISERS[b].title, r))
        said += [f"Identity gap at {factor(scale)}: {verdict(rows, gaps[a], gaps[b])}."
                 for scale, rows in blocks.items() if r < INDEPENDENT]
    return said


def verdict(rows: list, first: Metric, second: Metric) -> str:
    """Who leads by two judges; "judges disagree" where they do not name the same."""
    best = [next((row.title for row in rows if row.values[m.id].mark == "best"), None)
            for m in (first, second)]
    judges = [RECOGNISERS[m.recogniser].title for m in (first, second)]
    if best[0] == best[1]:
        told = "tell nobody from the rest" if best[0] is None else f"agree that {best[0]} leads"
        return f"{judges[0]} and {judges[1]} {told}"
    return "judges disagree: " + ", ".join(
        f"{leader or 'nobody'} leads by {judge}" for leader, judge in zip(best, judges))
