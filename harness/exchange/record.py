"""A result file: one method under one degradation at one or several scales, with every sample.

`NAME.parquet` holds all: the rows, and in its key-value metadata the header as canonical JSON.
`NAME.yaml` beside it is the same header for readers. The header's `id` is the sha256 of all other
content, so that a changed file has another id; the rows' digest is of their values, not of
Parquet's bytes. `measured`, when the last run behind it began, is the only time in it. Images are
named by `imaging.image_digest`: the sha256 of their decoded pixels, whatever the file format.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import NoneType

from fsrbench.engine.store import write_files
from fsrbench.errors import FsrError, reason
from fsrbench.imaging import digest

FORMAT = "fsrbench-result@1"
# What the rules of sampling, measuring and averaging are called; another number where one changes.
PROTOCOL = "fsrbench@1"
# The row that stands for the restoration itself; the others are of a metric.
RESTORED = "restored"
# Digests, reference and manifest line stand in the restoration's row only. `manifest` is the line
# of `samples_digest`: sample, ground truth, reference, reference set.
COLUMNS = {"scale": "int32", "sample": "string", "person": "string", "metric": "string",
           "value": "float64", "status": "string", "restored": "string", "lr": "string",
           "truth": "string", "reference": "string", "manifest": "string"}
_TYPES = {name: "str" if kind == "string" else kind for name, kind in COLUMNS.items()}
RELATIONS = ("author", "third party", "organiser", "not said")
_META = b"fsrbench"

_NUMBER = (int, float, NoneType)
_TEXT = (str, NoneType)
# A field may be of these types; [x] is a list of x, {"*": x} any names.
_SCHEMA = {
    "format": str, "id": str, "measured": _TEXT, "protocol": str,
    "submitter": {"name": str, "relation": str},
    "method": {"name": str, "title": str, "weights": str, "needs": [str], "control": bool,
               "sees_truth": bool, "licence": str, "origin": str, "settings": str, "remark": str,
               "digest": str},
    "weights": [{"name": str, "sha256": str, "bytes": int, "licence": str}],
    "data": {"name": str, "spec": str, "licence": str, "rule": str, "manifest_sha256": str,
             "framing": str, "people": int, "samples": int, "drawn": _NUMBER},
    "degradation": {"id": str, "name": str, "summary": str, "lr_sha256": {"*": str}},
    "profile": str, "size": int, "scales": [int], "seed": int, "batch": int, "precision": str,
    "metrics": [{"id": str, "title": str, "direction": int, "kind": str, "words": str,
                 "digest": str, "weights": {"*": str}}],
    "values": [{"scale": int, "metric": str, "mean": _NUMBER, "low": _NUMBER, "high": _NUMBER,
                "sd": _NUMBER, "n": int, "failed": int, "without": [_NUMBER], "sizes": [_NUMBER]}],
    "cost": {"nfe": _NUMBER, "references": str, "weights_bytes": int, "seconds": _NUMBER,
             "memory_mb": _NUMBER},
    "runs": [{"id": str, "commit": _TEXT, "dirty": (bool, NoneType), "python": _TEXT,
              "packages": {"*": str}, "machine": _TEXT, "system": _TEXT, "cpu_capability": _TEXT,
              "threads": _NUMBER, "device": _TEXT}],
    "rows": {"count": int, "sha256": str},
}


@dataclass(frozen=True)
class Record:
    """A result file in memory.

    Args:
        header: see `_SCHEMA`; rows: frame of `COLUMNS`; path: where it was read.
    """

    header: dict
    rows: object
    path: Path | None = None

    @property
    def name(self) -> str:
        """What a message calls it."""
        return str(self.path) if self.path else self.header["method"]["name"]


def plain(value: float | None) -> float | None:
    """A number as JSON may hold it: None for what is not finite."""
    return None if value is None or not math.isfinite(value) else float(value)


def _canonical(data: object) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def rows_digest(rows) -> str:
    """sha256 of the rows, each as a JSON list with values of 17 digits."""
    columns = [rows[name].tolist() for name in COLUMNS]
    return digest(b"\n".join(_canonical([plain(cell) if isinstance(cell, float) else cell
                                         for cell in line]) for line in zip(*columns)))


def content_id(header: dict) -> str:
    """What a header's `id` must be."""
    return digest(_canonical({k: v for k, v in header.items() if k != "id"}))


def sealed(header: dict, rows) -> Record:
    """A record whose digests are those of its content; rows in their one order."""
    rows = rows[list(COLUMNS)].sort_values(["scale", "metric", "sample"], kind="stable",
                                           ignore_index=True).astype(_TYPES)
    header = {**header, "format": FORMAT,
              "rows": {"count": len(rows), "sha256": rows_digest(rows)}}
    return Record({**header, "id": content_id(header)}, rows)


def encoded(record: Record) -> dict[str, bytes]:
    """The bytes of the two files by suffix; the same record gives the same."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import yaml

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()],
                       metadata={_META: _canonical(record.header)})
    table = pa.Table.from_pydict({name: record.rows[name].tolist() for name in COLUMNS}, schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    text = yaml.safe_dump(record.header, sort_keys=False, allow_unicode=True, width=100)
    return {"parquet": buffer.getvalue(), "yaml": text.encode()}


def write(record: Record, path: Path) -> list[Path]:
    """Write the file and its readable header; returns both paths."""
    files = {path.with_suffix(f".{suffix}").name: data for suffix, data in encoded(record).items()}
    return write_files(path.parent, files)


def read(path: Path | str) -> Record:
    """A result file, by the name of either of its two parts.

    Raises:
        FsrError: it cannot be read, or is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path).expanduser()
    if path.suffix not in (".parquet", ".yaml", ""):
        raise FsrError(f"result file {path}", "is not called NAME.parquet", "write it by `invoke "
                       "export-results`", code=2)
    path = path.with_suffix(".parquet")
    if path.exists() and not path.is_file():  # a pipe would never end
        raise FsrError(f"result file {path}", "is no regular file", "check the path", code=2)
    try:
        with pq.ParquetFile(io.BytesIO(path.read_bytes())) as file:
            table = file.read(use_threads=False)
            meta = file.metadata.metadata or {}
        header = json.loads(meta[_META])
    except OSError as error:
        raise FsrError(f"result file {path}", f"cannot be read ({error.strerror or reason(error)})",
                       "check the path", code=2) from None
    except (pa.ArrowException, KeyError, ValueError, RecursionError) as error:
        why = "no header" if isinstance(error, KeyError) else reason(error)
        raise _damaged(path, why) from None
    if header.get("format") != FORMAT if isinstance(header, dict) else True:
        raise FsrError(f"result file {path}", f"is not of the format {FORMAT}",
                       "write it by `invoke export-results`", code=2)
    if wrong := _unlike(header, _SCHEMA, "header"):
        raise _damaged(path, wrong)
    kinds = {field.name: str(field.type) for field in table.schema}
    if kinds != {**COLUMNS, "value": "double"}:
        raise _damaged(path, f"its columns are not {', '.join(COLUMNS)}")
    rows = table.to_pandas(date_as_object=True)
    texts = [name for name, kind in COLUMNS.items() if kind == "string"]
    if rows[texts].isna().any(axis=None) or rows["scale"].isna().any():
        raise _damaged(path, "a row lacks a field")
    return Record(header, rows.astype(_TYPES), path)


def _damaged(path: Path, why: str) -> FsrError:
    return FsrError(f"result file {path}", f"is damaged ({why})", "ask for it again", code=2)


def _unlike(value: object, schema: object, where: str) -> str:
    """In what a value is not as its schema says; empty where it is."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return f"{where} is no mapping"
        names = dict.fromkeys(value, schema["*"]) if "*" in schema else schema
        if value.keys() != names.keys():
            odd = ", ".join(sorted(map(str, value.keys() ^ names.keys()))[:3])
            return f"{where} lacks or adds {odd}"
        found = (_unlike(value[name], names[name], f"{where}.{name}") for name in names)
        return next(filter(None, found), "")
    if isinstance(schema, list):
        if not isinstance(value, list):
            return f"{where} is no list"
        found = (_unlike(v, schema[0], f"{where}[{i}]") for i, v in enumerate(value))
        return next(filter(None, found), "")
    kinds = schema if isinstance(schema, tuple) else (schema,)
    if not isinstance(value, kinds) or isinstance(value, bool) and bool not in kinds:
        return f"{where} is {type(value).__name__}"
    return "" if not isinstance(value, float) or math.isfinite(value) else f"{where} is not finite"
