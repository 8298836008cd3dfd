"""The record store: append-only tables of Parquet shards, and images and tensors kept by content or
key.

Everything is written to a temporary file, flushed to disk and renamed, so a killed process leaves
whole files only. Several processes may write at once: names are random, nothing is ever changed in
place. Many small shards are merged (see shards.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fsrbench.engine import shards
from fsrbench.engine.shards import schema_of
from fsrbench.errors import FsrError
from fsrbench.imaging import decode, encode_png, image_digest
from fsrbench.text import read_json

# Columns of each table; pyarrow type names. A list column holds a vector.
SCHEMAS = {
    # One row for each (cell, sample, metric id). `metric` is "restored" for the restoration itself.
    "rows": {
        "key": "string", "method": "string", "weights": "string", "dataset": "string",
        "dataset_digest": "string",
        "degradation": "string", "scale": "int32", "profile": "string", "seed": "int64",
        "person": "string",
        "sample": "string", "reference": "string", "metric": "string", "value": "float64",
        "status": "string",
        "image": "string", "lr": "string", "landmarks": "string", "note": "string", "run": "string",
    },
    # A vector computed from one image: key = digest(feature id, image digest, what else decides
    # it).
    "features": {"key": "string", "feature": "string", "vector": "list<float>"},
    # An image of a data set after detection and alignment.
    "prepared": {"key": "string", "image": "string", "points": "list<double>",
                 "landmarks": "string",
                 "outside": "float64", "error": "string", "remarks": "string"},
    # An LR image, see lr_images.py.
    "lr": {"key": "string", "image": "string"},
    # A quality of an image or clip of a data set, see datasets/common/quality.py.
    "scores": {"key": "string", "value": "float64", "error": "string"},
    # A frame taken from a clip, see datasets/celebv_text.py; a clip that gave none has one row with
    # its error.
    "frames": {"key": "string", "frame": "int32", "image": "string", "signature": "list<float>",
               "error": "string"},
}
_STALE_SECONDS = 24 * 3600
_CANNOT = "give another --store, or free space and permissions of this one"
# Says that a folder is a record store.
MARKER = ".fsrbench-store"
# What `clear` deletes: names that only this program gives. "scores" and "frames", the quality of a
# data set's images and what was taken from its clips, may be the work of days and depend on no
# setting; they stay, as does what a data set was frozen to.
_RECORDS = re.compile(r"(rows|features|prepared|lr)/[0-9a-f]{32}\.parquet|"
                      r"images/[0-9a-f]{2}/[0-9a-f]{64}\.png|(fits|sets)/[0-9a-f]{64}\.safetensors|"
                      r"runs/[0-9a-f]{32}\.json|results/(all|mini|paper)/[^/]+\.json")
_FOLDERS = ("rows", "features", "prepared", "lr", "images", "fits", "sets", "runs", "results")
_SWEPT = (*_FOLDERS, "scores", "frames", "manifests")


def _is_ours(path: Path) -> bool:
    """Whether a file under a name of ours is; a user may call a JSON file as a result is called."""
    if path.suffix != ".json":
        return True
    names = ("name", "key", "value") if path.parent.parent.name == "results" else ("command",)
    try:
        return bool(read_json(path, *names))
    except FsrError:
        return False


def told(error: OSError) -> str:
    """What is wrong with a place on the disk, in words."""
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return "a file or a broken link stands where a folder is to be"
    return error.strerror or str(error)


def check_folder(out: Path | str, option: str = "--out", typed: Path | str = "") -> None:
    """Refuse a place that can be no folder, before anything is computed for it; makes nothing.

    Args:
        typed: what the user has typed, where that is another path.

    Raises:
        FsrError: something else is there, or it may not be written to.
    """
    here = Path(out)
    while not os.path.lexists(here) and here != here.parent:
        here = here.parent
    cause = ("" if here.is_dir() and os.access(here, os.W_OK | os.X_OK) else
             "no permission to write there" if here.is_dir() else told(NotADirectoryError()))
    if cause:
        raise FsrError(f"{option} {typed or out}", f"cannot be written ({cause})",
                       f"give another {option}")


def check_file(path: Path | str, option: str = "--out") -> None:
    """The same of a file.

    Raises:
        FsrError: a folder is there, or its folder can be none.
    """
    if Path(path).is_dir():
        raise FsrError(f"{option} {path}", "is a folder", "give a file", code=2)
    check_folder(Path(path).parent, option, path)


def write_atomic(path: Path, data: bytes | memoryview, lasting: bool = True) -> None:
    """Write a file so that it is either whole or not there, even if the machine stops.

    Args:
        lasting: whether it must be on the disk at the end; otherwise it may be lost with the
            machine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            if lasting:
                os.fsync(stream.fileno())
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:  # a full disk, say, which it would fill on
        Path(scratch).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Context in which no other process is in the same one of that path, so that a file that is
    read, changed and written loses nothing; others wait. The lock goes with its process."""
    lock = path.with_name(f".{path.name}.lock")
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            opened = open(lock, "w")
        except OSError as error:
            raise FsrError(f"folder {lock.parent}", f"cannot be written ({told(error)})",
                           _CANNOT) from None
        with opened as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not _is_at(handle, lock):  # whoever had it has removed it
                continue
            try:
                yield
            finally:
                lock.unlink()
            return


def _is_at(handle, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def write_files(out: Path | str, files: Mapping[str, str | bytes]) -> list[Path]:
    """Write what a user asked for into a folder, by file name; returns the paths.

    Raises:
        FsrError: the folder cannot be written.
    """
    paths = [Path(out) / name for name in files]
    path = paths[0] if paths else Path(out)
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        for path, data in zip(paths, files.values()):
            write_atomic(path, data.encode() if isinstance(data, str) else data)
    except OSError as error:
        raise FsrError(f"--out {path}", f"cannot be written ({told(error)})",
                       "give another --out") from None
    return paths


class Store:
    """A folder of records.

    Args:
        root: the folder; made if missing.

    Raises:
        FsrError: it cannot be written.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # A folder with other things in it may be cleared only once it was used as a store.
            marker = self.root / MARKER
            self.known = marker.exists() or not any(self.root.iterdir())
            if not marker.exists():
                write_atomic(marker,
                             b"Records of FSRBench; `--fresh` deletes what it wrote here.\n")
            self._sweep()
        except OSError as error:
            raise FsrError(f"store {self.root}", f"cannot be used ({told(error)})",
                           "give another --store") from None

    def _sweep(self) -> None:
        """Remove temporary files that a killed process left in our folders more than a day ago."""
        for scratch in (path for name in _SWEPT for path in (self.root / name).glob("**/.tmp-*")):
            with contextlib.suppress(FileNotFoundError):  # another process has just renamed it
                if time.time() - scratch.stat().st_mtime > _STALE_SECONDS:
                    scratch.unlink()

    def clear(self) -> None:
        """Delete the records, images and fits that this program wrote, and nothing else.

        Raises:
            FsrError: the folder was no store before.
        """
        if not self.known:
            raise FsrError(f"store {self.root}", "was no store before and holds other files, so "
                           "nothing is deleted",
                           "give the folder of the records, or run without --fresh", code=2)
        kept = {self.image_path(name) for name in self.read("frames")["image"]}
        for folder in (self.root / name for name in _FOLDERS):
            for path in folder.rglob("*"):
                if _RECORDS.fullmatch(path.relative_to(self.root).as_posix()) \
                        and path not in kept and _is_ours(path):
                    path.unlink(missing_ok=True)

    def append(self, table: str, rows: list[dict]) -> Path | None:
        """Add rows as one new shard; returns its path, None without rows."""
        import io

        import pyarrow as pa

        if not rows:
            return None
        buffer = io.BytesIO()
        shards.write(buffer, pa.Table.from_pylist(rows, schema=schema_of(SCHEMAS[table])), table)
        path = self.root / table / f"{uuid.uuid4().hex}.parquet"
        self.write(path, buffer.getvalue())
        return path

    def write(self, path: Path, data: bytes) -> None:
        """Write a file of the store, whole.

        Raises:
            FsrError: it cannot be written: a store that is to be read alone, a full disk.
        """
        try:
            write_atomic(path, data)
        except OSError as error:
            raise FsrError(f"store {self.root}", f"cannot be written ({told(error)})",
                           _CANNOT) from None

    def read(self, table: str, only: Sequence[str] = (), **columns: Collection):
        """Rows of a table as a pandas frame, in no particular order.

        Args:
            only: the columns wanted; all without.
            columns: the values that a column may have; all rows without.

        Raises:
            FsrError: a shard is damaged.
        """
        return self.arrow(table, only, **columns).to_pandas()

    def arrow(self, table: str, only: Sequence[str] = (), dictionaries: Sequence[str] = (),
              **columns: Collection):
        """The same as an Arrow table; `dictionaries` come as indices into their distinct
        values."""
        import pyarrow as pa

        whole = schema_of(SCHEMAS[table])
        schema = pa.schema([whole.field(name) for name in only or whole.names])
        wanted = {name: pa.array(list(values), whole.field(name).type)
                  for name, values in columns.items()}
        parts = shards.read(self.root / table, schema, wanted, dictionaries)
        return pa.concat_tables(parts).unify_dictionaries() if parts else schema.empty_table()

    def merge(self) -> None:
        """Merge the shards of each table where there are many small ones, so that reading stays
        quick. Processes that read or write at the same time lose nothing."""
        for table in SCHEMAS:
            folder = self.root / table
            if shards.are_many(folder):
                with locked(folder / "merging"):
                    shards.merge(folder, schema_of(SCHEMAS[table]))

    def image_path(self, digest: str) -> Path:
        """Where the image of that content is, or would be."""
        return self.root / "images" / digest[:2] / f"{digest}.png"

    def put_image(self, image: np.ndarray, png: bytes = b"") -> str:
        """Keep an uint8 RGB image; returns the digest of its pixels.

        Args:
            png: a PNG file that decodes to it, to be kept instead of one made anew.
        """
        name = image_digest(image)
        if not self.image_path(name).exists():
            self.write(self.image_path(name), png or encode_png(image))
        return name

    def image(self, digest: str) -> np.ndarray:
        """The image of that content, uint8 (H, W, 3).

        Raises:
            FsrError: it is missing, or no longer what its name says.
        """
        return decode(self.png(digest), str(self.image_path(digest)))

    def png(self, digest: str) -> bytes:
        """The same, encoded."""
        path, again = self.image_path(digest), "run the same command again, which makes it anew"
        if not path.exists():
            raise FsrError(f"stored image {digest[:16]}", "is missing from the store", again)
        data = path.read_bytes()
        try:
            whole = image_digest(decode(data, str(path))) == digest
        except FsrError:
            whole = False
        if not whole:
            raise FsrError(f"stored image {path}", "was changed", f"delete it and {again}")
        return data

    def holds(self, digest: str) -> bool:
        """Whether the image of that content is there."""
        return self.image_path(digest).exists()

    def tensors_path(self, kind: str, key: str) -> Path:
        """Where tensors of that key are, or would be."""
        return self.root / kind / f"{key}.safetensors"

    def put_tensors(self, kind: str, key: str, tensors: dict, **facts: str) -> None:
        """Keep named tensors under a key, and in their file facts about them."""
        from safetensors.torch import save

        self.write(self.tensors_path(kind, key), save(tensors, facts or None))

    def tensors(self, kind: str, key: str) -> dict | None:
        """Tensors kept under a key; None if there are none."""
        from safetensors.torch import load

        path = self.tensors_path(kind, key)
        return load(path.read_bytes()) if path.exists() else None

    def facts(self, kind: str, key: str) -> dict[str, str]:
        """What the file of the tensors of a key says about them."""
        from safetensors import safe_open

        with safe_open(self.tensors_path(kind, key), "np") as file:
            return file.metadata() or {}
