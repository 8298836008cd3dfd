"""How a recogniser joins the panel whose network stands beside the methods, as it is in torch."""

from __future__ import annotations

from collections.abc import Callable

from fsrbench.metrics import Feature, feature, panel
from fsrbench.metrics.recognisers import RECOGNISERS, Recogniser


def join(judge: Recogniser, embed: Callable) -> None:
    """Give the panel one more judge, with all metrics that need no detection.

    Args:
        judge: who it is; embed: as a feature's function that cuts by landmarks.

    Raises:
        ValueError: the feature's id is taken.
    """
    feature(Feature(judge.feature, embed, (judge.weights,), aligned=True))
    RECOGNISERS[judge.name] = judge
    panel.distances(judge)
    panel.galleries(judge, False)
