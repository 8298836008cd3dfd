"""What the probes call a method: the rule, and all its thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fsrbench.core import Method
from fsrbench.engine.stats import Summary
from fsrbench.reports.analysis.probes import Base, Effect

# A face that changes by less than so many grey levels in the mean does not depend on the input.
SAME = 1.0
# An input that moves the identity by less, at the upper end of the interval, does not decide it;
# one that moves it by more, at the lower end, does.
IGNORED = 0.1
# A share of the reference's pixels beyond which a restoration is a copy.
COPIED = 0.5
# A share of samples beyond which people are mixed up.
MIXED = 0.5

# Where judges call a method by other names.
DISAGREE = "judges disagree"

RULE = f"""\
The rule, with the interval's end where there is one and the mean where there is none:
- restores nothing: every restoration failed.
- mixes people up: at least {MIXED:.0%} of the unaltered restorations are of another person of the \
run, by half of what a photograph's identity is.
- leaks the ground truth: the restoration is as like the ground truth as the person's reference \
is, though the reference is the intruder's, and likewise where the LR image is half the intruder's.
- copies its reference: at least {COPIED:.0%} of the intruder's reference is seen in the face.
- hands over the ground truth: at least {COPIED:.0%} of the ground truth is seen in the face where \
it is the reference, and less of any other reference.
- one face for all: neither the LR image nor the reference changes the face by {SAME:g} grey level.
- ignores the LR image: its morph changes the face by less than {SAME:g} grey level.
- ignores its reference (reference set, fit): those of the intruder change the face by less than \
{SAME:g} grey level, or move less than {IGNORED:.0%} of the identity.
- ignores the reference beside it: likewise, of the intruder's reference alone, where the method \
has a reference set or a fit as well.
- uses its reference (reference set, fit): it moves more than {IGNORED:.0%} of the identity.
- sees its reference (reference set, fit): it changes the face, but the method shows nobody whose \
identity could move.
- shows nobody: the unaltered restorations of two people are not told apart by the judge, so that \
nothing can move.
- not told: none of these; no reference: likewise, of a method that takes none.
- judges disagree: one judge names a method so and another does not. A judge that the method has \
seen is not asked where there is another. Where two judges are not independent, that they agree is \
little more than one judge's word."""


def _low(s: Summary) -> float:
    return s.low if math.isfinite(s.low) else s.mean


def _high(s: Summary) -> float:
    return s.high if math.isfinite(s.high) else s.mean


def _same(effect: Effect | None) -> bool:
    """Whether an input changes nothing that is seen; also of one that there is not."""
    return effect is None or effect.changed.mean < SAME


def _ignored(effect: Effect) -> bool:
    return _same(effect) or _high(effect.moved) < IGNORED


def _leaks(effects: Mapping[str, Effect], photograph: float) -> bool:
    """Whether the ground truth is in the restorations though no input is of it alone."""
    after = [effects[name].like_truth for name in ("other", "morph") if name in effects]
    # Of a method without a reference half the LR image is the person's, which may do at x4.
    sure = "morph" in effects and ("other" in effects or _same(effects["morph"]))
    return sure and min(after) >= photograph


def _faults(base: Base, effects: Mapping[str, Effect], photograph: float) -> list[str]:
    other, truth, morph = (effects.get(name) for name in ("other", "truth", "morph"))
    if base.mixed >= MIXED:
        return ["mixes people up"]
    if _leaks(effects, photograph):
        return ["leaks the ground truth"]
    if other and other.copied.mean >= COPIED:
        return ["copies its reference"]
    if truth and truth.copied.mean >= COPIED:
        return ["hands over the ground truth"]
    if morph and _same(morph):
        return ["one face for all" if _same(other) else "ignores the LR image"]
    return []


def verdict(method: Method, base: Base, effects: Mapping[str, Effect],
            photograph: float) -> list[str]:
    """What a method is called, the worst first.

    Args:
        effects: by probe name; photograph: mean cosine of a person's reference to the ground truth.
    """
    if not base.n_ok:
        return ["restores nothing"]
    found, other = _faults(base, effects, photograph), effects.get("other")
    what = next((words for need, words in (("fit", "fit"), ("album", "reference set"))
                 if need in method.needs), "reference")
    if other and not found:
        if _ignored(other):
            found.append(f"ignores its {what}")
        elif _low(other.moved) > IGNORED:
            found.append(f"uses its {what}")
        elif math.isnan(other.moved.mean):
            found.append(f"sees its {what}")
    beside = effects.get("other-reference")
    if beside and _ignored(beside):
        found.append("ignores the reference beside it")
    if not _low(base.shows) > 0:
        found.append("shows nobody")
    return found or ["not told" if other else "no reference"]


def agreed(said: Sequence[list[str]]) -> list[str]:
    """What all judges call a method, the worst first, and whether one of them says more."""
    shared = [name for name in said[0] if all(name in names for names in said)]
    return shared if all(len(names) == len(shared) for names in said) else [*shared, DISAGREE]
