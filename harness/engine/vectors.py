"""Feature vectors of the store, read by key when they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from fsrbench.engine import shards
from fsrbench.engine.store import Store

# Bytes of the vectors that were asked for last, which metrics ask for again.
RECENT_BYTES = 128 << 20
# A key is a sha256 in hex.
_KEY = "S64"


class Index:
    """Where each key of a table stands: in which shard, and in which of its rows."""

    def __init__(self, folder: Path):
        import pyarrow as pa

        self.paths = shards.listed(folder)
        of = [shards.load(path, pa.schema([("key", pa.string())]))["key"].to_pylist()
              for path in self.paths]
        keys = np.concatenate([np.array(part, _KEY) for part in of] or [np.empty(0, _KEY)])
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._starts = np.cumsum([0, *map(len, of)])

    def find(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(number of the shard, row) by key, of the keys that are there."""
        if not len(self._keys):
            return {}
        asked = np.array(keys, _KEY)
        at = np.searchsorted(self._keys, asked).clip(max=len(self._keys) - 1)
        there = np.flatnonzero(self._keys[at] == asked)
        places = self._order[at[there]]
        of = np.searchsorted(self._starts, places, side="right") - 1
        return {keys[i]: place for i, *place in zip(there.tolist(), of.tolist(),
                                                    (places - self._starts[of]).tolist())}


class Vectors:
    """Vectors by key; the last ones stay in memory.

    Args:
        store: where they are.
    """

    def __init__(self, store: Store):
        self.store, self._bytes = store, 0
        self._recent: OrderedDict[str, np.ndarray] = OrderedDict()
        # Shard and row of what this process has added.
        self._added: dict[str, tuple[Path, int]] = {}

    @cached_property
    def _index(self) -> Index:
        for _ in range(shards.ATTEMPTS - 1):
            try:
                return Index(self.store.root / "features")
            except FileNotFoundError:  # merged meanwhile
                continue
        return Index(self.store.root / "features")

    def missing(self, keys: Collection[str]) -> set[str]:
        """Those of the keys that have no vector."""
        left = [key for key in keys if key not in self._recent and key not in self._added]
        return set(left) - self._index.find(left).keys()

    def of(self, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """Vectors by key, of the keys that have one."""
        asked = list(dict.fromkeys(keys))
        found = {key: self._recent[key] for key in asked if key in self._recent}
        left = [key for key in asked if key not in found]
        for _ in range(shards.ATTEMPTS):
            try:
                found |= self._read(left)
                break
            except FileNotFoundError:  # merged meanwhile
                self._added.clear()
                del self._index
        found = {key: found[key] for key in asked if key in found}
        for key, vector in found.items():
            self._remember(key, vector)
        return found

    def __getitem__(self, key: str) -> np.ndarray:
        return self.of([key])[key]

    def _read(self, keys: list[str]) -> dict[str, np.ndarray]:
        """Vectors by key out of the shards."""
        by_shard: dict[Path, dict[int, str]] = {}
        for key, (shard, row) in self._index.find(keys).items():
            by_shard.setdefault(self._index.paths[shard], {})[row] = key
        for key in keys:
            if key in self._added:
                path, row = self._added[key]
                by_shard.setdefault(path, {})[row] = key
        return {key: vector for path, rows in by_shard.items()
                for key, vector in shards.rows(path, rows, "vector").items()}

    def add(self, feature: str, vectors: dict[str, np.ndarray]) -> None:
        """Keep vectors by key."""
        path = self.store.append("features", [{"key": key, "feature": feature, "vector": vector}
                                              for key, vector in vectors.items()])
        for row, (key, vector) in enumerate(vectors.items()):
            self._added[key] = path, row
            self._remember(key, vector)

    def _remember(self, key: str, vector: np.ndarray) -> None:
        if key not in self._recent:
            self._recent[key] = vector
            self._bytes += vector.nbytes
        self._recent.move_to_end(key)
        while self._bytes > RECENT_BYTES and len(self._recent) > 1:
            self._bytes -= self._recent.popitem(last=False)[1].nbytes
