"""The record store: append-only tables of Parquet shards, and images and tensors kept by content or key.

Everything is written to a temporary file, flushed to disk and renamed, so a killed process leaves whole files only. Several
processes may write at once: names are random, nothing is ever changed in place.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fsrbench.errors import FsrError
from fsrbench.imaging import decode, encode_png, image_digest

# Columns of each table; pyarrow type names. A list column holds a vector.
SCHEMAS = {
    # One row for each (cell, sample, metric id). `metric` is "restored" for the restoration itself.
    "rows": {
        "key": "string", "method": "string", "weights": "string", "dataset": "string", "dataset_digest": "string",
        "degradation": "string", "scale": "int32", "profile": "string", "seed": "int64", "person": "string",
        "sample": "string", "reference": "string", "metric": "string", "value": "float64", "status": "string",
        "image": "string", "lr": "string", "landmarks": "string", "note": "string", "run": "string",
    },
    # A vector computed from one image: key = digest(feature id, image digest, what else decides it).
    "features": {"key": "string", "feature": "string", "vector": "list<float>"},
    # An image of a data set after detection and alignment.
    "prepared": {"key": "string", "image": "string", "points": "list<double>", "landmarks": "string",
                 "outside": "float64", "error": "string", "remarks": "string"},
    # A quality of a picture or clip of a data set, see datasets/common/quality.py.
    "scores": {"key": "string", "value": "float64", "error": "string"},
    # A frame taken from a clip, see datasets/celebv_text.py; a clip that gave none has one row with its error.
    "frames": {"key": "string", "frame": "int32", "image": "string", "signature": "list<float>", "error": "string"},
}
_STALE_SECONDS = 24 * 3600


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is either whole or not there, even if the machine stops."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(scratch, 0o644)
    os.replace(scratch, path)


def write_files(out: Path | str, files: Mapping[str, str | bytes]) -> list[Path]:
    """Write what a user asked for into a folder, by file name; returns the paths.

    Raises:
        FsrError: the folder cannot be written.
    """
    paths = [Path(out) / name for name in files]
    for path, data in zip(paths, files.values()):
        try:
            write_atomic(path, data.encode() if isinstance(data, str) else data)
        except OSError as error:
            raise FsrError(f"--out {path}", f"cannot be written ({error.strerror})", "give another --out") from None
    return paths


def _arrow_schema(table: str):
    import pyarrow as pa

    special = {"list<float>": pa.list_(pa.float32()), "list<double>": pa.list_(pa.float64())}
    return pa.schema([(name, special.get(kind) or pa.type_for_alias(kind)) for name, kind in SCHEMAS[table].items()])


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
            self._sweep()
        except OSError as error:
            raise FsrError(f"store {self.root}", f"cannot be used ({error.strerror})", "give another --store") from None

    def _sweep(self) -> None:
        """Remove temporary files that a killed process left more than a day ago."""
        for scratch in self.root.glob("**/.tmp-*"):
            if time.time() - scratch.stat().st_mtime > _STALE_SECONDS:
                scratch.unlink(missing_ok=True)

    def append(self, table: str, rows: list[dict]) -> None:
        """Add rows as one new shard."""
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq

        if not rows:
            return
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=_arrow_schema(table)), buffer)
        write_atomic(self.root / table / f"{uuid.uuid4().hex}.parquet", buffer.getvalue())

    def read(self, table: str):
        """All rows of a table as a pandas frame, in no particular order.

        Raises:
            FsrError: a shard is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema, parts = _arrow_schema(table), []
        for shard in sorted((self.root / table).glob("*.parquet")):
            try:
                parts.append(pq.read_table(shard, schema=schema))
            except (pa.ArrowException, OSError) as error:
                raise FsrError(f"record shard {shard}", f"is damaged ({str(error).splitlines()[0][:100]})",
                               "delete it; what it held is computed again") from None
        return pa.concat_tables(parts or [schema.empty_table()]).to_pandas()

    def image_path(self, digest: str) -> Path:
        """Where the image of that content is, or would be."""
        return self.root / "images" / digest[:2] / f"{digest}.png"

    def put_image(self, image: np.ndarray) -> str:
        """Keep an uint8 RGB image; returns the digest of its pixels."""
        name = image_digest(image)
        if not self.image_path(name).exists():
            write_atomic(self.image_path(name), encode_png(image))
        return name

    def image(self, digest: str) -> np.ndarray:
        """The image of that content, uint8 (H, W, 3).

        Raises:
            FsrError: it is missing, or no longer what its name says.
        """
        path = self.image_path(digest)
        remedy = "run with --fresh to compute everything again"
        if not path.exists():
            raise FsrError(f"stored image {digest[:16]}", "is missing from the store", remedy)
        image = decode(path.read_bytes(), str(path))
        if image_digest(image) != digest:
            raise FsrError(f"stored image {path}", "was changed", remedy)
        return image

    def tensors_path(self, kind: str, key: str) -> Path:
        """Where tensors of that key are, or would be."""
        return self.root / kind / f"{key}.safetensors"

    def put_tensors(self, kind: str, key: str, tensors: dict) -> None:
        """Keep named tensors under a key."""
        from safetensors.torch import save

        write_atomic(self.tensors_path(kind, key), save(tensors))

    def tensors(self, kind: str, key: str) -> dict | None:
        """Tensors kept under a key; None if there are none."""
        from safetensors.torch import load

        path = self.tensors_path(kind, key)
        return load(path.read_bytes()) if path.exists() else None
