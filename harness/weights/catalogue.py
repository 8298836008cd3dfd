"""One catalogue of weight files: where each comes from, under which licence, and whether it is
here.

A module that needs a file registers it beside the code that uses it; `invoke weights` lists all of
them. A file is looked for in this order: the cache (`FSRBENCH_CACHE`, default ~/.cache/fsrbench),
then its sources. Files of an installed package or of this repository serve at once; a registry
archive (`Sdist`, `Wheel`, `Npm`) is fetched when first needed; an official address (`Url`) only by
`invoke weights --get NAME`. A file counts as here when its format is whole
(`fsrbench.weights.formats`) and its sha256 is the published one or, where none is published, the
one frozen beside it when it was fetched; any other is refused by name.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fsrbench.engine.store import locked, told, write_atomic
from fsrbench.errors import FsrError, unknown
from fsrbench.weights.fetching import download, from_archive, from_npm
from fsrbench.weights.formats import damage, fault


@dataclass(frozen=True)
class Bundled:
    """A file of this repository, in methods/weights."""

    def __str__(self) -> str:
        return "this repository"


@dataclass(frozen=True)
class Package:
    """A file inside an installed distribution; found without importing it."""

    distribution: str
    member: str

    def __str__(self) -> str:
        return f"package {self.distribution}: {self.member}"


@dataclass(frozen=True)
class Sdist:
    """A member of a source archive on the package registry; nothing of it is built or installed."""

    requirement: str
    member: str

    def __str__(self) -> str:
        return f"package archive {self.requirement}: {self.member}"


@dataclass(frozen=True)
class Wheel:
    """A member of a wheel on the package registry; nothing of it is installed."""

    requirement: str
    member: str

    def __str__(self) -> str:
        return f"wheel {self.requirement}: {self.member}"


@dataclass(frozen=True)
class Npm:
    """A member of a package of the npm registry; nothing of it is installed."""

    requirement: str
    member: str

    def __str__(self) -> str:
        return f"npm package {self.requirement}: {self.member}"


@dataclass(frozen=True)
class Url:
    """An official address."""

    address: str

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True)
class WeightFile:
    """A weight file.

    Args:
        name: the catalogue's name for it.
        file: its file name in the cache.
        sha256: hex digest, or its first characters where only those are published; empty where
            nobody published it (that of what was fetched is then frozen beside it; that of the file
            in use stands in the records).
        licence: of the weights.
        enables: what cannot run without it.
        sources: tried in order.
    """

    name: str
    file: str
    sha256: str
    licence: str
    enables: str
    sources: tuple = ()

    @property
    def remedy(self) -> str:
        """What to do where the file is missing or not the right one."""
        get = any(isinstance(s, (Url, Sdist, Wheel, Npm)) for s in self.sources)
        by_hand = f"put {self.file} into {cache_folder()}"
        return f"run `invoke weights --get {self.name}`, or {by_hand}" if get else by_hand


# Sources that are opened when a file is first needed.
_REGISTRIES = (Sdist, Wheel, Npm)
_catalogue: dict[str, WeightFile] = {}


def register(entry: WeightFile) -> WeightFile:
    """Add an entry; a second one of the same name is refused."""
    if entry.name in _catalogue and _catalogue[entry.name] != entry:
        raise FsrError(f"weights {entry.name!r}", "registered twice", code=2)
    _catalogue[entry.name] = entry
    return entry


def catalogue() -> dict[str, WeightFile]:
    """All entries registered so far, by name."""
    return dict(sorted(_catalogue.items()))


def get_entry(name: str) -> WeightFile:
    """The entry of that name."""
    if name not in _catalogue:
        raise unknown("weights", name, list(_catalogue))
    return _catalogue[name]


def cache_folder() -> Path:
    """Where fetched weights are kept."""
    return Path(os.environ.get("FSRBENCH_CACHE", Path.home() / ".cache" / "fsrbench"))


def bundled_folder() -> Path:
    """Where the weights of this repository stand, in a checkout and in a wheel."""
    here = Path(__file__).resolve().parents[1]
    return next(p for p in (here / "methods" / "weights", here.parent / "methods" / "weights")
                if p.parent.is_dir())


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, mtime: int) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file, computed once per process."""
    stat = path.stat()
    return _sha256(str(path), stat.st_size, stat.st_mtime_ns)


def _frozen(path: Path) -> Path:
    """Where the digest of a fetched file stands."""
    return path.with_name(f"{path.name}.sha256")


def _expected(entry: WeightFile, path: Path) -> str:
    """The digest that a file must have, or its start; empty where none is known."""
    frozen = _frozen(path)
    known = frozen.read_text(encoding="utf-8").split(" ")[0] if frozen.is_file() else ""
    return known if len(entry.sha256) < 64 and known.startswith(entry.sha256) else entry.sha256


def _wrong(entry: WeightFile, path: Path, expected: str) -> str:
    """What is wrong with a file; empty where nothing is."""
    try:
        if found := fault(path):
            return found
        if expected and not (found := file_digest(path)).startswith(expected):
            return f"has sha256 {found[:16]}..., not {expected[:16]}..."
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def _checked(entry: WeightFile, path: Path, source: object = None) -> Path:
    """A file that is here, if it is whole.

    Raises:
        FsrError: it is not; the text names it and what brings the right one.
    """
    expected = _expected(entry, path)
    if wrong := _wrong(entry, path, expected):
        remedy = f"install {source} again" if source else entry.remedy
        if not source and any(isinstance(s, (Bundled, Package)) for s in entry.sources):
            remedy = f"delete it: {entry.file} comes with the installation"
        if not source and expected != entry.sha256:
            remedy += f"; if it was replaced on purpose, delete {_frozen(path).name} there"
        raise FsrError(f"weights {entry.name} ({path})", wrong, remedy)
    return path


def _in_place(entry: WeightFile, source: object) -> Path | None:
    """The file where a source needs no fetching."""
    if isinstance(source, Bundled):
        path = bundled_folder() / entry.file
    elif isinstance(source, Package):
        try:
            path = Path(str(importlib.metadata.distribution(source.distribution)
                            .locate_file(source.member)))
        except importlib.metadata.PackageNotFoundError:
            return None
    else:
        return None
    return path if path.is_file() else None


def locate(name: str) -> Path | None:
    """Path of a weight file that is already here and has the right digest; None where it is
    missing."""
    entry = get_entry(name)
    cached = cache_folder() / entry.file
    if cached.is_file():
        return _checked(entry, cached)
    found = ((source, _in_place(entry, source)) for source in entry.sources)
    return next((_checked(entry, path, source) for source, path in found if path), None)


def _in_registry(entry: WeightFile) -> bool:
    return any(isinstance(s, _REGISTRIES) for s in entry.sources)


def at_hand(name: str) -> bool:
    """Whether a weight file is here, or comes from the package registry when it is first needed.

    Raises:
        FsrError: it is here and not whole.
    """
    return locate(name) is not None or _in_registry(get_entry(name))


def require(name: str) -> Path:
    """Path of a weight file, fetched from the package registry if that is one of its sources.

    Raises:
        FsrError: it is missing and cannot be had; the text says where to put it.
    """
    path = locate(name)
    if path:
        return path
    entry = get_entry(name)
    if _in_registry(entry):
        return fetch(name, registry_only=True)
    raise FsrError(f"weights {name}", f"missing; they enable {entry.enables}", entry.remedy)


def blame(names: Iterable[str]) -> None:
    """Tell a fault of a file from one of the image on which a network could not be read or run.

    Raises:
        FsrError: one of these weight files is damaged.
    """
    for name in names:
        path = locate(name)
        if path and (wrong := damage(path)):
            raise FsrError(f"weights {name} ({path})", wrong, get_entry(name).remedy)


def fetch(name: str, registry_only: bool = False) -> Path:
    """Fetch a weight file into the cache with a progress bar, verify it, put it there atomically.

    One that is there and whole stays, any other is replaced. Two processes wait for each other.

    Raises:
        FsrError: no source gave the right file; then what was there stays.
    """
    entry, folder = get_entry(name), cache_folder()
    target = folder / entry.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(target):
            found = [target, *filter(None, (_in_place(entry, source) for source in entry.sources))]
            for path in found:
                if path.is_file() and not _wrong(entry, path, _expected(entry, path)):
                    return path
            return _fetched(entry, target, registry_only)
    except OSError as error:
        raise FsrError(f"weights cache {folder}", f"cannot be used ({told(error)})",
                       "set FSRBENCH_CACHE to a folder of yours") from None


def _fetched(entry: WeightFile, target: Path, registry_only: bool) -> Path:
    """The file from the first source that gives the right one."""
    failures, scratch = [], target.with_name(f".fetched-{target.name}")
    for source in sorted(entry.sources, key=lambda s: not isinstance(s, _REGISTRIES)):
        if not isinstance(source, _REGISTRIES if registry_only else (*_REGISTRIES, Url)):
            continue
        try:
            _from(source, scratch)
            wrong = _wrong(entry, scratch, entry.sha256)
        except OSError as error:
            wrong = str(getattr(error, "reason", error)).splitlines()[0][:160]
            wrong = f"HTTP {error.code} {wrong}" if hasattr(error, "code") else wrong
        else:
            wrong = wrong and f"the file there {wrong}"
        if not wrong:
            os.replace(scratch, target)
            if len(entry.sha256) < 64:
                write_atomic(_frozen(target), f"{file_digest(target)}  {target.name}\n".encode())
            return target
        scratch.unlink(missing_ok=True)
        failures.append(f"{source} ({wrong})")
    tried = ", ".join(failures) or "it has no address"
    raise FsrError(f"weights {entry.name}", f"could not be fetched: {tried}",
                   f"get it in another way and put it there as {target}")


def _from(source: Sdist | Wheel | Npm | Url, target: Path) -> None:
    if isinstance(source, Url):
        download(source.address, target)
    elif isinstance(source, Npm):
        from_npm(source.requirement, source.member, target)
    else:
        from_archive(source.requirement, source.member, target, isinstance(source, Wheel))
