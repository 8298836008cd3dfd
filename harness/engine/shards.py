"""Shards of a table: Parquet files under random names, never changed in place, read together, and
merged where they have become many and small.

Merging loses nothing whenever it is cut off. A journal first says which shards the new one is to
replace; then it is renamed into place, the old ones are deleted, and the journal at last. A reader
passes over shards whose replacement is there, and lists anew where one has gone meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fsrbench.errors import FsrError
from fsrbench.progress import progress

# A file of fewer bytes is small; so many small ones are merged, into shards of so many bytes in
# memory.
SMALL, MANY, LARGE = 4 << 20, 64, 64 << 20
# Rows that are decoded together: vectors are read a few at a time, everything else whole.
_GROUPS = {"features": 256}
_GROUP = 1 << 16
JOURNAL = ".merge-*.json"
# How often a table is listed anew because others merge it meanwhile.
ATTEMPTS = 20
_LOST = "delete it; what it held is computed again"


def schema_of(columns: dict[str, str]):
    """Arrow's schema of columns by the names of their types."""
    import pyarrow as pa

    special = {"list<float>": pa.list_(pa.float32()), "list<double>": pa.list_(pa.float64())}
    return pa.schema([(name, special.get(kind) or pa.type_for_alias(kind))
                      for name, kind in columns.items()])


def listed(folder: Path) -> list[Path]:
    """Shards of a folder by name, those left out that another one holds already.

    Raises:
        FileNotFoundError: another process has just merged some; ask again.
    """
    try:
        names = set(os.listdir(folder))
    except FileNotFoundError:
        return []
    # By this one listing: what was renamed or deleted since then must not decide.
    merged = [_journal(folder / name) for name in names if fnmatch(name, JOURNAL)]
    gone = {old for into, replaced in merged if into in names for old in replaced}
    return [folder / name for name in sorted(names - gone) if fnmatch(name, "[!.]*.parquet")]


def _journal(path: Path) -> tuple[str, list[str]]:
    """The shard that a journal announces, and those that it replaces; none of one cut off."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return said["into"], said["replaces"]
    except ValueError:
        return "", []


def read(folder: Path, schema, wanted: Mapping[str, object] = {},
         dictionaries: Collection[str] = ()) -> list:
    """Tables of all shards that have rows.

    Args:
        schema: the columns; those that a shard of an earlier version lacks are empty.
        wanted: Arrow array of the values that a column may have.
        dictionaries: columns that come as indices into their distinct values.

    Raises:
        FsrError: a shard is damaged.
    """
    for attempt in range(ATTEMPTS):
        try:
            parts = (load(path, schema, wanted, dictionaries) for path in listed(folder))
            return [part for part in parts if len(part)]
        except FileNotFoundError as error:
            lost = error
    raise FsrError(f"records {folder}", f"cannot be read ({lost.strerror}: {lost.filename})", _LOST)


def load(path: Path, schema, wanted: Mapping[str, object] = {},
         dictionaries: Collection[str] = ()):
    """The table of a shard: see `read`.

    Raises:
        FsrError: it is damaged; FileNotFoundError: it is gone.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, read_dictionary=list(dictionaries) or None) as file:
            part = _matching(file, schema.names, wanted)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise FsrError(f"record shard {path}",
                       f"is damaged ({str(error).splitlines()[0][:100]})", _LOST) from None
    kinds = [pa.dictionary(pa.int32(), kind) if name in dictionaries else kind
             for name, kind in zip(schema.names, schema.types)]
    whole = pa.schema(list(zip(schema.names, kinds)))
    if part.schema.equals(whole):
        return part
    here = set(part.schema.names)
    return pa.table([part[name].cast(kind) if name in here else pa.nulls(len(part), kind)
                     for name, kind in zip(whole.names, kinds)], schema=whole)


def _matching(file, names: Sequence[str], wanted: Mapping[str, object]):
    """Columns of an open shard, of the rows that have the values wanted; groups of rows that have
    none are not read."""
    here = set(file.schema_arrow.names)
    columns = [name for name in names if name in here]
    if not wanted:
        return file.read(columns, use_threads=False)
    asked = {name: values for name, values in wanted.items() if name in here}
    if len(asked) < len(wanted):  # no row of it has the value
        return file.read_row_groups([], columns)
    same = _mask(file.read(list(asked), use_threads=False), asked)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    parts = np.split(same, np.cumsum(sizes)[:-1])
    groups = [i for i, part in enumerate(parts) if part.any()]
    found = file.read_row_groups(groups, columns, use_threads=False)
    return found.filter(np.concatenate([parts[i] for i in groups])) if groups else found


def _mask(table, wanted: Mapping[str, object]) -> np.ndarray:
    import pyarrow.compute as pc

    masks = [pc.is_in(table[name].cast(values.type), values).to_numpy()
             for name, values in wanted.items()]
    return np.logical_and.reduce(masks)


def rows(path: Path, keys: Mapping[int, str], column: str) -> dict[str, object]:
    """NumPy arrays of a column of lists by key, of some rows of a shard; only the groups of rows
    are read that they stand in.

    Args:
        keys: by row.

    Raises:
        FileNotFoundError: the shard is gone.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        starts = np.cumsum([0, *(file.metadata.row_group(i).num_rows
                                 for i in range(file.metadata.num_row_groups))])
        at = np.array(sorted(keys))
        groups = np.unique(np.searchsorted(starts, at, side="right") - 1)
        read = file.read_row_groups(groups.tolist(), [column], use_threads=False)
    within = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in groups])
    taken = read[column].take(np.searchsorted(within, at)).combine_chunks()
    values, ends = taken.values.to_numpy(), taken.offsets.to_numpy()
    return {keys[row]: values[first:end].copy()
            for row, first, end in zip(at.tolist(), ends, ends[1:])}


def write(to: Path | BinaryIO, table, name: str) -> None:
    """Write a shard of the table of that name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Keys and vectors never repeat.
    repeated = [field.name for field in table.schema
                if not pa.types.is_list(field.type) and field.name != "key"]
    pq.write_table(table, to, row_group_size=_GROUPS.get(name, _GROUP), use_dictionary=repeated)


def _small(folder: Path) -> list[Path]:
    return [path for path in listed(folder) if path.stat().st_size < SMALL]


def are_many(folder: Path) -> bool:
    """Whether a folder holds so many small shards that they are to be merged."""
    with contextlib.suppress(FileNotFoundError):
        return len(_small(folder)) >= MANY
    return False  # another process is merging them


def merge(folder: Path, schema) -> int:
    """Merge small shards where there are many; returns how many. Only one process may (see
    `store.locked`)."""
    for journal in folder.glob(JOURNAL):  # of one that was cut off
        _finish(journal)
    small = _small(folder)
    if len(small) < MANY:
        return 0
    group, held = [], 0
    for path in progress(small, desc=f"merging shards of {folder.name}", unit="shard"):
        with contextlib.suppress(FsrError):  # a damaged one stays, and is named by who reads it
            group.append((path.name, load(path, schema)))
            held += group[-1][1].nbytes
        if held >= LARGE:
            _replace(folder, group)
            group, held = [], 0
    _replace(folder, group)
    return len(small)


def _replace(folder: Path, group: list[tuple[str, object]]) -> None:
    """Write the tables of several shards, by name, as one that replaces them."""
    import pyarrow as pa

    if len(group) < 2:
        return
    name = uuid.uuid4().hex
    scratch, journal = folder / f".tmp-{name}", folder / f".merge-{name}.json"
    write(scratch, pa.concat_tables(part for _, part in group).combine_chunks(), folder.name)
    journal.write_text(json.dumps({"into": f"{name}.parquet",
                                   "replaces": [old for old, _ in group]}), encoding="utf-8")
    for path in (scratch, journal):
        with open(path, "rb") as handle:
            os.fsync(handle.fileno())
    os.replace(scratch, folder / f"{name}.parquet")
    _finish(journal)


def _finish(journal: Path) -> None:
    """Delete what a merged shard replaces; nothing where that one never came to be."""
    into, replaced = _journal(journal)
    if into and (journal.parent / into).exists():
        for name in replaced:
            (journal.parent / name).unlink(missing_ok=True)
    journal.unlink(missing_ok=True)
