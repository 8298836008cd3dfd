"""The registry of methods, and the one place where plug-in modules are imported.

Modules of methods/, datasets/, metrics/ and reports/ register what they hold when they are imported; third parties add
methods through the entry-point group `fsrbench.methods`. A plug-in that cannot be imported is listed with its error.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from functools import cache

from fsrbench.core import Method
from fsrbench.errors import FsrError, unknown

if __name__ != "fsrbench.registry":
    raise ImportError(f"the registry must be imported as fsrbench.registry, not as {__name__}")

GROUP = "fsrbench.methods"
_PACKAGES = ("fsrbench.methods", "fsrbench.methods.idfsr", "fsrbench.datasets", "fsrbench.metrics")

_methods: dict[str, type[Method]] = {}
_broken: dict[str, str] = {}


def method(cls: type[Method]) -> type[Method]:
    """Class decorator: register a method under its `name`.

    Raises:
        FsrError: the name is taken.
    """
    if cls.name in _methods:
        raise FsrError(f"method {cls.name!r}", f"registered twice ({_methods[cls.name].__module__} and {cls.__module__})",
                       "give it another name", code=2)
    _methods[cls.name] = cls
    return cls


@cache
def load_all() -> None:
    """Import every module of the registered packages, then the third parties' entry points."""
    for name in _PACKAGES:
        package = importlib.import_module(name)
        for info in pkgutil.iter_modules(package.__path__):
            if not info.ispkg:
                importlib.import_module(f"{name}.{info.name}")
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            loaded = point.load()
            if isinstance(loaded, type) and issubclass(loaded, Method) and _methods.get(loaded.name) is not loaded:
                method(loaded)
        except Exception as error:  # whatever a third party's module raises is its own fault, and is shown
            _broken[point.name] = f"{type(error).__name__}: {error}"


def methods() -> dict[str, type[Method]]:
    """All registered methods by name, in alphabetical order."""
    load_all()
    return dict(sorted(_methods.items()))


def broken() -> dict[str, str]:
    """Entry points that could not be loaded, with their errors."""
    load_all()
    return dict(_broken)


def resolve(name: str, profile: str) -> str:
    """The name of a method under a profile: "dr2" means dr2.mini in the `mini` profile and dr2.official in `paper`.

    Raises:
        FsrError: there is no such method.
    """
    tagged = f"{name}.{'mini' if profile == 'mini' else 'official'}"
    return tagged if name not in methods() and tagged in methods() else get(name).name


def family(name: str) -> str:
    """A method's name without the tag that only says whose weights it has: "dr2.mini" is "dr2"."""
    stem, _, tag = name.rpartition(".")
    return stem if tag in ("mini", "official") else name


def get(name: str) -> type[Method]:
    """The method of that name.

    Raises:
        FsrError: there is none, or its plug-in is broken.
    """
    known = methods()
    if name in known:
        return known[name]
    if name in _broken:
        raise FsrError(f"method {name!r}", f"its plug-in cannot be loaded ({_broken[name]})", "mend or uninstall it")
    raise unknown("method", name, list(known))
