"""Records of a plan: rows of the store, held column by column and asked by key."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fsrbench.engine.shards import schema_of
from fsrbench.engine.store import SCHEMAS, Store

COLUMNS = tuple(SCHEMAS["rows"])
# Columns whose values repeat; a value stands once, and each row has its number.
REPEATED = tuple(name for name, kind in SCHEMAS["rows"].items() if kind == "string"
                 and name != "key")
# What the engine asks of a row.
ASKED = ("key", "status", "image", "lr", "landmarks")


class _Column:
    """Values of a column of an Arrow table, by place."""

    def __init__(self, column):
        column = column.combine_chunks()
        # One more for what a shard of an earlier version lacks.
        self._values = [*column.dictionary.to_pylist(), ""]
        self._of = column.indices.fill_null(len(column.dictionary)).to_numpy()

    def __getitem__(self, place: int) -> str:
        return self._values[self._of[place]]

    def has(self, test: Callable[[str], bool]) -> np.ndarray:
        """Whether each row's value passes a test (N,), which is asked once for each value."""
        return np.array([test(value) for value in self._values], dtype=bool)[self._of]


class Records:
    """Rows by key. Of rows of one key a success counts before a failure, and of those one whose
    image is there.

    Args:
        store: where the rows are, and the images that they name.
        columns: the values that a column may have.
    """

    def __init__(self, store: Store, **columns: Sequence):
        self._table = store.arrow("rows", dictionaries=REPEATED, **columns).combine_chunks()
        self._asked = {name: _Column(self._table[name]) for name in ASKED[1:] + ("metric",)} \
            if len(self._table) else {}
        self._fresh: list[tuple] = []
        self._fine = self._find_fine(store)
        keys = self._table["key"].to_pylist()
        self._place = {keys[i]: i for i in np.lexsort((self._there, self._ok)).tolist()}

    def _find_fine(self, store: Store) -> list[bool]:
        """Whether each row is of a success whose image, where it is one's own, is there."""
        if not self._asked:
            self._ok = self._there = np.empty(0, dtype=bool)
            return []
        self._ok = self._asked["status"].has(lambda status: status == "ok")
        own = self._asked.pop("metric").has(lambda metric: metric == "restored")
        images = self._asked["image"]
        asked = dict.fromkeys(images[i] for i in np.flatnonzero(own))
        lost = {name for name in asked if name and not store.holds(name)}
        self._there = ~(own & images.has(lambda image: image in lost))
        return (self._ok & self._there).tolist()

    def add(self, rows: Sequence[dict]) -> None:
        """Take in what was just computed; it counts before what was there."""
        for row in rows:
            self._place[row["key"]] = len(self._fine)
            self._fine.append(row["status"] == "ok")
            self._fresh.append(tuple(row[name] for name in COLUMNS))

    def done(self, key: str) -> bool:
        """Whether a key has a success whose image is there."""
        place = self._place.get(key)
        return place is not None and self._fine[place]

    def settled(self, key: str, retry: bool) -> bool:
        """Whether a key needs no work: a failure is a result, unless it is to be tried again."""
        place = self._place.get(key)
        return place is not None and (
            self._fine[place] or not retry and self._row_at(place)["status"] != "ok")

    def gather(self, keys: Iterable[str], retry: bool) -> tuple[Sequence[int], int, bool]:
        """Places of the keys' rows, how many have none, and whether none needs work."""
        places, missing, settled = array("q"), 0, True
        for key in keys:
            place = self._place.get(key)
            if place is None:
                missing += 1
            else:
                places.append(place)
                settled = settled and self.settled(key, retry)
        return places, missing, settled and not missing

    def row(self, key: str) -> dict[str, str]:
        """What the engine asks of the row of a key: `ASKED`."""
        return {"key": key, **self._row_at(self._place[key])}

    def _row_at(self, place: int) -> dict[str, str]:
        if (new := place - len(self._table)) < 0:
            return {name: column[place] for name, column in self._asked.items()}
        return {name: self._fresh[new][COLUMNS.index(name)] for name in ASKED[1:]}

    def frame(self, places: Sequence[int]):
        """The rows at these places as a pandas frame, in that order; a column whose values repeat
        is categorical, its categories sorted."""
        import pyarrow as pa

        table = self._table
        if self._fresh:
            schema = schema_of(SCHEMAS["rows"])
            columns = zip(zip(*self._fresh), schema.types)
            fresh = pa.table([pa.array(values, kind) for values, kind in columns], schema=schema)
            both = [part for part in (table, _encoded(fresh)) if len(part)]
            table = pa.concat_tables(both).unify_dictionaries()
        frame = table.combine_chunks().take(np.asarray(places, dtype=np.int64)).to_pandas()
        for name in REPEATED:
            if len(frame):
                used = frame[name].cat.remove_unused_categories()
                frame[name] = used.cat.reorder_categories(sorted(used.cat.categories))
        return frame


def _encoded(table):
    """A table whose repeated columns are indices into their distinct values."""
    for name in REPEATED:
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table[name].dictionary_encode())
    return table
