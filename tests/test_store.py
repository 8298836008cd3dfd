"""The store: nothing half-written, nothing lost, damage named."""

import os
import time

import numpy as np
import pytest

from fsrbench.engine.store import SCHEMAS, Store, write_atomic
from fsrbench.errors import FsrError


def row(**values):
    blank = {"string": "", "float64": 0.0, "int32": 0, "int64": 0}
    return {**{name: blank[kind] for name, kind in SCHEMAS["rows"].items()}, **values}


def test_rows_of_many_shards_come_back_with_their_types(tmp_path):
    store = Store(tmp_path)
    assert store.read("rows").empty and list(store.read("rows").columns) == list(SCHEMAS["rows"])
    store.append("rows", [row(key="a", value=1.5, scale=8)])
    store.append("rows", [row(key="b", value=float("nan")), row(key="c")])
    store.append("rows", [])
    frame = Store(tmp_path).read("rows").set_index("key")
    assert sorted(frame.index) == ["a", "b", "c"] and frame.loc["a", "value"] == 1.5 and np.isnan(frame.loc["b", "value"])
    store.append("features", [{"key": "k", "feature": "f", "vector": np.arange(3, dtype=np.float32)}])
    assert store.read("features")["vector"][0].tolist() == [0, 1, 2]


def test_a_damaged_shard_is_named(tmp_path):
    store = Store(tmp_path)
    store.append("rows", [row(key="a")])
    shard = next((tmp_path / "rows").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(FsrError, match=f"{shard.name}: is damaged.*delete it"):
        store.read("rows")


def test_images_are_kept_by_content(tmp_path):
    store, image = Store(tmp_path), np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    name = store.put_image(image)
    assert store.put_image(image.copy()) == name and (store.image(name) == image).all()
    assert len(list(tmp_path.rglob("*.png"))) == 1
    other = store.put_image(255 - image)
    os.replace(store.image_path(other), store.image_path(name))
    with pytest.raises(FsrError, match="was changed"):
        store.image(name)
    with pytest.raises(FsrError, match="is missing from the store"):
        store.image(other)


def test_writes_are_whole_or_absent(tmp_path, monkeypatch):
    target = tmp_path / "a" / "file"
    write_atomic(target, b"first")

    def broken(*_):
        raise OSError("power lost")
    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(OSError):
        write_atomic(target, b"second")
    assert target.read_bytes() == b"first"


def test_leftovers_of_a_killed_process_are_swept_after_a_day(tmp_path):
    Store(tmp_path)
    old, fresh = tmp_path / "rows" / ".tmp-old", tmp_path / "rows" / ".tmp-new"
    old.parent.mkdir()
    old.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(old, (time.time() - 90000,) * 2)
    Store(tmp_path)
    assert not old.exists() and fresh.exists()


def test_a_store_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FsrError, match="cannot be used"):
        Store(tmp_path / "file" / "store")


def test_tensors_by_key(tmp_path):
    import torch

    store = Store(tmp_path)
    assert store.tensors("fits", "k") is None
    store.put_tensors("fits", "k", {"z_id": torch.arange(3.0)})
    assert store.tensors("fits", "k")["z_id"].tolist() == [0, 1, 2]
