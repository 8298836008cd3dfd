"""From what a user typed to a plan; every wrong argument ends in one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from fsrbench.core import Profile
from fsrbench.degrade.named import degradations
from fsrbench.engine.fixed import Fixed
from fsrbench.engine.plan import PRECISIONS, Options
from fsrbench.engine.store import Store, check_folder
from fsrbench.errors import FsrError, unknown
from fsrbench.metrics import family
from fsrbench.profiles import get_profile
from fsrbench.registry import resolve


def whole(name: str, text: str | int | None, least: int = 0) -> int | None:
    """A whole number of at least `least`; None stays None.

    Raises:
        FsrError: it is not one.
    """
    if text is None:
        return None
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value < 2**63:  # what a record can hold
        raise FsrError(f"--{name} {text}", f"is not a whole number of at least {least}"
                       + " and below 2^63" * (value > least), code=2)
    return value


def decimal(name: str, text: str | float | None) -> float | None:
    """A positive number; None stays None.

    Raises:
        FsrError: it is not one.
    """
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise FsrError(f"--{name} {text}", "is not a positive number", code=2)
    return value


def split(words: Sequence[str] | None) -> list[str]:
    """Words of a repeated option, each of which may hold several with commas between; one with a
    colon ("spandrel:PATH", whose path may hold commas) stays whole."""
    parts = (part for word in words or () for part in ([word] if ":" in str(word) else str(word)
                                                       .split(",")))
    return [str(part).strip() for part in parts if str(part).strip()]


def check_precision(name: str) -> str:
    """A known precision.

    Raises:
        FsrError: it is unknown.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, list(PRECISIONS))
    return name


def plan(profile: str | Profile, data: str | None, scales: Sequence[str], methods: Sequence[str],
         metrics: Sequence[str],
         people: str | None, seed: str | None, batch: str | None, precision: str = "float32",
         defaults: Sequence[str] = (), degradation: str = "bicubic", retry: bool = False,
         fixed: Fixed = Fixed()) -> Options:
    """Options of a run from a command line's words.

    Args:
        profile: its name, or one that is made for the data; methods: names, or families whose tag
            the profile decides; empty for `defaults`, of which those are left out (and named) whose
            weights are missing.
        metrics: ids or families, in order.
    """
    if degradation not in degradations():
        raise unknown("degradation", degradation, list(degradations()))
    chosen = profile if isinstance(profile, Profile) else get_profile(profile)
    wanted = whole("people", people, 1)
    return Options(
        profile=chosen, data=data or chosen.data,
        scales=tuple(dict.fromkeys(whole("scale", str(s).lstrip("x"), 1) for s in split(scales))),
        methods=tuple(dict.fromkeys(resolve(name, chosen.name) for name in split(methods)
                                    or defaults)),
        metrics=tuple(dict.fromkeys(m for name in metrics for m in family(name))),
        # The default number of people belongs to the default data set.
        people=wanted if wanted or data else chosen.people,
        seed=whole("seed", seed or 0), batch=whole("batch", batch, 1) or chosen.batch,
        precision=check_precision(precision), lenient=not methods, retry=retry, fixed=fixed,
        degradation=degradation)


def narrowed(options: Options, scales: Iterable[int], methods: Iterable[str],
             metrics: Iterable[str], lenient: bool) -> Options:
    """The same options for other scales, methods (families' tags as the profile decides) and
    metrics (ids or families)."""
    return replace(options, scales=tuple(dict.fromkeys(scales)), lenient=lenient,
                   methods=tuple(dict.fromkeys(resolve(name, options.profile.name)
                                               for name in methods)),
                   metrics=tuple(dict.fromkeys(m for name in metrics for m in family(name))))


def check_data(names: Iterable[str], store: Store) -> None:
    """Refuse what is no data set before anything is computed; one that only lacks its files costs
    no more than the parts that need it.

    Raises:
        FsrError: a name is unknown, or its argument wrong.
    """
    from fsrbench.engine.data import open_source

    for name in names:
        try:
            open_source(name, store)
        except FsrError as error:
            if error.code == 2:
                raise


def open_store(path: str, fresh: Options | None = None, out: str = "") -> Store:
    """The record store; with `fresh`, its records are deleted first, but not before this plan is
    known to be possible. Whether `out`, where it is given, can be a folder is known then too.

    Raises:
        FsrError: it cannot be written, the plan cannot run, or other shards may be using the store.
    """
    from fsrbench.engine.plan import shard_of_environment

    alone = shard_of_environment()[1] == 1
    if fresh and not alone:
        raise FsrError("--fresh", "would delete what other shards write",
                       "delete the store first, then start them", code=2)
    store = Store(path)
    if out:
        check_folder(out)
    if fresh:
        from fsrbench.engine.data import open_source
        from fsrbench.engine.run import usable

        usable(fresh)
        open_source(fresh.data, store)
        store.clear()
    elif alone:
        store.merge()
    return store
