"""The registry of methods, and the one place where plug-in modules are imported.

Modules register what they hold when they are imported; where they stand decides when that is (see
KINDS). Third parties add methods through the entry-point group `fsrbench.methods`. A plug-in that
cannot be imported is listed with its error. A maker turns what a user types behind a prefix
("spandrel:PATH") into a method.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fsrbench.core import Method
from fsrbench.errors import FsrError, unknown

if __name__ != "fsrbench.registry":
    raise ImportError(f"the registry must be imported as fsrbench.registry, not as {__name__}")

GROUP = "fsrbench.methods"
# Kind of plug-in -> package and the files below it that register some; parity checks and trainings
# stand beside what they are of, and are imported only when they are asked for.
KINDS = {
    "detectors": (("fsrbench.faces", "[!_]*.py"),),
    "degradations": (("fsrbench.datasets", "degradations/[!_]*.py"),),
    "datasets": (("fsrbench.datasets", "[!_]*.py"),),
    "metrics": (("fsrbench.metrics", "[!_]*.py"), ("fsrbench.methods", "common/recognisers.py")),
    "methods": (("fsrbench.methods", "[!_]*.py"), ("fsrbench.methods", "*/method.py")),
    "trainings": (("fsrbench.training", "landmarks.py"), ("fsrbench.methods", "*/*training.py")),
    "parity": (("fsrbench.faces", "*parity.py"), ("fsrbench.datasets", "degradations/*parity.py"),
               ("fsrbench.methods", "*/*parity.py")),
}
USUAL = ("detectors", "degradations", "datasets", "metrics", "methods")


@dataclass(frozen=True)
class Maker:
    """A source of methods that are made when they are asked for.

    Args:
        form: what a user types, "prefix:ARGUMENT".
        make: from the argument to a method; the same class for the same thing, however the argument
            spells it. What the argument names is decided by content: the class's `name` holds no
            path of a machine, and its `settings` a digest.
        describe: a sentence for `invoke methods`, on what the argument may be.
    """

    form: str
    make: Callable[[str], type[Method]]
    describe: Callable[[], str]


_methods: dict[str, type[Method]] = {}
_makers: dict[str, Maker] = {}
_broken: dict[str, str] = {}


def method(cls: type[Method]) -> type[Method]:
    """Class decorator: register a method under its `name`.

    Raises:
        FsrError: the name is taken.
    """
    if cls.name in _methods:
        raise FsrError(f"method {cls.name!r}",
                       f"registered twice ({_methods[cls.name].__module__} and {cls.__module__})",
                       "give it another name", code=2)
    _methods[cls.name] = cls
    return cls


def maker(prefix: str, argument: str, describe: Callable[[], str]) -> Callable:
    """Decorator of a function that makes the method "prefix:argument" from its argument.

    Args:
        argument: what stands behind the colon, in capitals; describe: see `Maker`.

    Raises:
        FsrError: the prefix is taken.
    """
    def register(make: Callable[[str], type[Method]]) -> Callable[[str], type[Method]]:
        if prefix in _makers:
            raise FsrError(f"maker {prefix!r}", "registered twice", "give it another prefix",
                           code=2)
        _makers[prefix] = Maker(f"{prefix}:{argument}", make, describe)
        return make
    return register


def modules(kind: str) -> list[str]:
    """Names of the modules of a kind, by the files that are there: a folder of any name is
    found."""
    found = []
    for package, pattern in KINDS[kind]:
        for root in importlib.import_module(package).__path__:
            names = (path.relative_to(root).with_suffix("").parts
                     for path in sorted(Path(root).glob(pattern)))
            found += [".".join([package, *parts]) for parts in names
                      if kind == "parity" or not parts[-1].endswith("parity")]
    return found


def load(*kinds: str) -> None:
    """Import the modules of these kinds, once; by default all but trainings and parity checks. One
    that cannot be imported is listed by `broken`, and the others are there all the same."""
    for kind in kinds or USUAL:
        _load(kind)


@cache
def _load(kind: str) -> None:
    for name in modules(kind):
        _guarded(name, lambda name=name: importlib.import_module(name))
    if kind == "methods":
        for point in importlib.metadata.entry_points(group=GROUP):
            _guarded(point.name, lambda point=point: _of_third_party(point.load()))


def _guarded(name: str, work: Callable[[], object]) -> None:
    try:
        work()
    # whatever a plug-in raises, or exits with, is its own fault, and is shown
    except (Exception, SystemExit) as error:
        _broken[name] = f"{type(error).__name__}: {error}"


def _of_third_party(loaded: object) -> None:
    if isinstance(loaded, type) and issubclass(loaded,
                                               Method) and _methods.get(loaded.name) is not loaded:
        method(loaded)


def methods() -> dict[str, type[Method]]:
    """All registered methods by name, in alphabetical order."""
    load("methods")
    return dict(sorted(_methods.items()))


def makers() -> dict[str, Maker]:
    """All registered makers by prefix, in alphabetical order."""
    load("methods")
    return dict(sorted(_makers.items()))


def broken() -> dict[str, str]:
    """Modules and entry points that could not be loaded so far, with their errors."""
    return dict(_broken)


def resolve(name: str, profile: str) -> str:
    """The name of a method under a profile: "dr2" means dr2.mini in the `mini` profile and
    dr2.official in `paper`, and "asffnet-oracle" asffnet.mini-oracle. What has no mini version is
    official in both.

    A name of a maker stays as it was typed, as its method cannot be found by its own name.

    Raises:
        FsrError: there is no such method.
    """
    if _maker_of(name):
        get(name)
        return name
    if name in methods():
        return name
    stem, dash, rest = name.partition("-")
    tags = ("mini", "official") if profile == "mini" else ("official",)
    tagged = (f"{stem}.{tag}{dash}{rest}" for tag in tags)
    return next((n for n in tagged if n in methods()), None) or get(name).name


def family(name: str) -> str:
    """A method's name without the tag that only says whose weights it has: "dr2.mini" is "dr2"; a
    made one's is its own."""
    if ":" in name:
        return name
    stem, _, tag = name.rpartition(".")
    return stem if tag in ("mini", "official") else name


def _maker_of(name: str) -> Maker | None:
    """The maker that a typed name asks for."""
    prefix, colon, _ = name.partition(":")
    return makers().get(prefix) if colon else None


def get(name: str) -> type[Method]:
    """The method of that name, made where a maker's prefix stands before a colon.

    Raises:
        FsrError: there is none, its plug-in is broken, or the maker refuses the argument.
    """
    known = methods()
    if name in known:
        return known[name]
    if found := _maker_of(name):
        return found.make(name.partition(":")[2])
    if name in _broken:
        raise FsrError(f"method {name!r}", f"its plug-in cannot be loaded ({_broken[name]})",
                       "mend or uninstall it")
    if fault := next((f"{module}: {why}" for module, why in _broken.items()
                      if name.split(".")[0] in module), ""):
        raise FsrError(f"method {name!r}",
                       f"unknown, and a module of that name cannot be loaded ({fault})", "mend it")
    raise unknown("method", name, [*known, *(m.form for m in makers().values())])
