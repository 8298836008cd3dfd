"""The store: nothing half-written, nothing lost, damage named."""

import errno
import os
import threading
import time

from pathlib import Path

import numpy as np
import pytest

from fsrbench.engine import shards, vectors
from fsrbench.engine.records import Records
from fsrbench.engine.store import MARKER, SCHEMAS, Store, locked, write_atomic
from fsrbench.engine.vectors import Vectors
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
    assert sorted(frame.index) == ["a", "b", "c"] and frame.loc["a", "value"] == 1.5
    assert np.isnan(frame.loc["b", "value"])
    store.append("features",
                 [{"key": "k", "feature": "f", "vector": np.arange(3, dtype=np.float32)}])
    assert store.read("features")["vector"][0].tolist() == [0, 1, 2]


def test_a_shard_of_other_columns_is_read_too(tmp_path):
    """One written by an earlier version, before a column was there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    store = Store(tmp_path)
    store.append("rows", [row(key="a")])
    pq.write_table(pa.table({"key": ["b"], "value": [2.0]}), tmp_path / "rows" / "old.parquet")
    frame = store.read("rows").set_index("key")
    assert sorted(frame.index) == ["a", "b"] and frame.loc["b", "value"] == 2
    assert list(frame.columns) == list(SCHEMAS["rows"])[1:]


def test_a_damaged_shard_is_named(tmp_path):
    store = Store(tmp_path)
    store.append("rows", [row(key="a")])
    shard = next((tmp_path / "rows").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(FsrError, match=f"{shard.name}: is damaged.*delete it"):
        store.read("rows")


def test_images_are_kept_by_content(tmp_path):
    store, image = Store(tmp_path), np.random.default_rng(0).integers(0, 256, (8, 9, 3),
                                                                      dtype=np.uint8)
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
    old, fresh, users = (tmp_path / p for p in ("rows/.tmp-old", "rows/.tmp-new",
                                                "photos/.tmp-mine"))
    for path in (old, fresh, users):
        write_atomic(path, b"x")
    for path in (old, users):
        os.utime(path, (time.time() - 90000,) * 2)
    Store(tmp_path)
    assert not old.exists() and fresh.exists() and users.exists()


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


def test_a_column_may_be_asked_for_its_values(tmp_path):
    store = Store(tmp_path)
    store.append("rows", [row(key=k, method=m, scale=x)
                          for k, m, x in (("a", "m", 8), ("b", "m", 16), ("c", "n", 8))])
    store.append("rows", [row(key="d", method="m", scale=8)])
    assert sorted(store.read("rows", method=["m"], scale=(8,))["key"]) == ["a", "d"]
    assert store.read("rows", method=[])["key"].tolist() == []


def test_clearing_deletes_what_was_written_here_and_nothing_else(tmp_path):
    """Also where a user's own folders have the names of ours; what `invoke prepare` took from clips
    stays."""
    store, image = Store(tmp_path), np.zeros((4, 4, 3), np.uint8)
    store.append("rows", [row(key="a")])
    store.append("scores", [{"key": "k", "value": 1.0, "error": ""}])
    kept = store.put_image(image + 1)
    store.append("frames",
                 [{"key": "f", "frame": 0, "image": kept, "signature": [0.0], "error": ""}])
    lost = store.put_image(image)
    users = [tmp_path / p for p in ("images/her.png", "images/ab/1.png", "results/mini.csv",
                                    "results/mini/her.json", "results/mine/a.json", "rows/a.txt",
                                    "notes.txt", "manifests/orl.csv", "fits/x.safetensors",
                                    "runs/run.json")]
    for path in users:
        write_atomic(path, b"mine")
    write_atomic(tmp_path / "results" / "mini" / "mine_id_id.json",
                 b'{"name": "mine_id_id", "key": "k", "value": 1}')
    Store(tmp_path).clear()
    assert all(p.read_bytes() == b"mine" for p in users)
    assert store.read("rows").empty and len(store.read("scores")) == len(store.read("frames")) == 1
    assert store.holds(kept) and not store.holds(lost)
    assert [p.name for p in tmp_path.glob("results/mini/*")] == ["her.json"]


def test_a_folder_that_was_no_store_is_not_cleared(tmp_path):
    write_atomic(tmp_path / "rows" / f"{'0' * 32}.parquet", b"of another program")
    with pytest.raises(FsrError, match="was no store before.*nothing is deleted"):
        Store(tmp_path).clear()
    assert (tmp_path / "rows" / f"{'0' * 32}.parquet").exists()
    assert (Store(tmp_path / "new").root / MARKER).exists() and Store(tmp_path
                                                                      / "new").clear() is None


def together(*jobs):
    """Run functions at once; what one raises is raised."""
    faults = []

    def run(job):
        try:
            job()
        except BaseException as fault:
            faults.append(fault)
    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    [t.start() for t in threads]
    [t.join() for t in threads]
    if faults:
        raise faults[0]


def test_a_lock_keeps_others_out_and_leaves_nothing_behind(tmp_path):
    count = tmp_path / "deep" / "count"

    def add():
        for _ in range(50):
            with locked(count):
                value = int(count.read_text()) if count.exists() else 0
                write_atomic(count, str(value + 1).encode())
    together(add, add, add)
    assert count.read_text() == "150" and [p.name for p in count.parent.iterdir()] == ["count"]


def test_manifests_written_at_once_lose_nothing(tmp_path):
    """Two runs of one data set, each with images of its own."""
    from fsrbench.engine.data import Entry, Source, read_manifest, verified

    store = Store(tmp_path / "store")
    source = Source("folder", tmp_path, (), "none", read=lambda root, path: path.encode())

    def run(person):
        for n in range(15):
            verified(source, [Entry(person, f"{n}.png", f"{person}{n}")], store)
    together(lambda: run("a"), lambda: run("b"), lambda: run("c"))
    path, = (tmp_path / "store" / "manifests").iterdir()
    assert {e.id for e in read_manifest(path)} == {f"{p}/{n}.png" for p in "abc" for n in range(15)}


def test_a_fit_made_by_two_at_once_is_made_once(tmp_path):
    """A fit made twice may differ, and the records of one would be of no fit any more."""
    import torch

    from fsrbench.core import Method, Person
    from fsrbench.engine.keys import method_digest
    from fsrbench.engine.fits import fitted
    from fsrbench.profiles import PROFILES

    class Chance(Method):
        name, title, needs = "chance.test", "Chance", frozenset({"fit"})

        def fit(self, person, seed):
            time.sleep(0.1)
            return {"z": torch.rand(3)}
    method, found = Chance(PROFILES["mini"]), []
    together(*[lambda: found.append(fitted(Store(tmp_path), method, Person("a", ()), 0,
                                           method_digest(method)))] * 3)
    assert sorted(new for _, new in found) == [False, False, True]
    assert all(torch.equal(tensors["z"], found[0][0]["z"]) for tensors, _ in found)


def many(store, count, table="rows"):
    """Shards of one row each; returns their keys."""
    for i in range(count):
        store.append(table, [row(key=f"k{i}", value=float(i), method="m")])
    return {f"k{i}" for i in range(count)}


def shards_in(store, table="rows"):
    return sorted(path.name for path in (store.root / table).glob("*.parquet"))


def test_many_small_shards_become_one_and_lose_nothing(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    store = Store(tmp_path)
    keys = many(store, shards.MANY - 1)
    store.merge()
    assert len(shards_in(store)) == shards.MANY - 1, "few stay as they are"
    pq.write_table(pa.table({"key": ["old"], "value": [2.0]}), tmp_path / "rows" / "old.parquet")
    before = store.read("rows").sort_values("key", ignore_index=True)
    store.merge()
    assert len(shards_in(store)) == 1 and [p.name for p in (tmp_path / "rows").iterdir()
                                           if p.name.startswith(".")] == []
    after = Store(tmp_path).read("rows").sort_values("key", ignore_index=True)
    assert set(after["key"]) == keys | {"old"} and after.equals(before)
    assert store.read("rows", ("value",), key=["k3", "old"])["value"].tolist() == [3.0, 2.0]
    store.clear()
    assert store.read("rows").empty and not shards_in(store)


def test_a_damaged_shard_is_left_as_it_is_when_others_are_merged(tmp_path):
    store = Store(tmp_path)
    many(store, shards.MANY + 1)
    broken = next((tmp_path / "rows").glob("*.parquet"))
    broken.write_bytes(broken.read_bytes()[:50])
    store.merge()
    assert len(shards_in(store)) == 2 and broken.exists()
    with pytest.raises(FsrError, match=f"{broken.name}: is damaged"):
        store.read("rows")


@pytest.mark.parametrize("step", ["rename", "delete", "journal"])
def test_a_merge_that_is_cut_off_loses_and_doubles_nothing(tmp_path, monkeypatch, step):
    """Killed before the merged shard is there, while the old ones are deleted, and at the end."""
    store, deleted = Store(tmp_path), []
    keys = many(store, shards.MANY)
    unlink = Path.unlink

    def killed(*_, **__):
        raise KeyboardInterrupt

    def some(path, **options):
        deleted.append(path)
        if len(deleted) > 5 and step == "delete" or path.suffix == ".json":
            killed()
        unlink(path, **options)
    with monkeypatch.context() as patch:
        if step == "rename":
            patch.setattr(shards.os, "replace", killed)
        else:
            patch.setattr(Path, "unlink", some)
        with pytest.raises(KeyboardInterrupt):
            shards.merge(tmp_path / "rows", shards.schema_of(SCHEMAS["rows"]))
    assert list(tmp_path.glob("rows/.merge-*"))
    assert sorted(store.read("rows")["key"]) == sorted(keys)
    shards.merge(tmp_path / "rows", shards.schema_of(SCHEMAS["rows"]))
    assert sorted(store.read("rows")["key"]) == sorted(keys)
    assert not list(tmp_path.glob("rows/.merge-*"))


def test_who_reads_or_writes_while_shards_are_merged_sees_everything(tmp_path):
    store = Store(tmp_path)
    keys, seen, done = many(store, 100), [], threading.Event()

    def write():
        for i in range(100, 300):
            store.append("rows", [row(key=f"k{i}")])
        done.set()

    def merge():
        while not done.is_set():
            Store(tmp_path).merge()

    def read():
        while not done.is_set():
            seen.append(keys <= set(Store(tmp_path).read("rows")["key"]))
    together(write, merge, merge, read)
    assert seen and all(seen) and len(shards_in(store)) < 300
    assert sorted(store.read("rows")["key"]) == sorted(f"k{i}" for i in range(300))


def test_vectors_are_read_by_key_and_the_last_ones_stay(tmp_path, monkeypatch):
    store, rng = Store(tmp_path), np.random.default_rng(0)
    wanted = {f"{i:064x}": rng.random(4, dtype=np.float32) for i in range(600)}
    for part in np.array_split(list(wanted), 80):
        store.append("features", [{"key": k, "feature": "f", "vector": wanted[k]} for k in part])
    monkeypatch.setattr(vectors, "RECENT_BYTES", 160)
    found, keys = Vectors(store), list(wanted)
    asked = [keys[i] for i in (599, 3, 3, 270, 256)]
    some = found.of([*asked, "absent"])
    assert list(some) == list(dict.fromkeys(asked))
    assert found.missing([*keys[:3], "absent"]) == {"absent"}
    store.merge()  # by another process, after this one has looked where they are
    assert len(shards_in(store, "features")) == 1
    assert (found[keys[7]] == wanted[keys[7]]).all()
    found.add("f", {"a" * 64: np.ones(4, np.float32), "b" * 64: np.zeros(2, np.float32)})
    every = found.of([*keys, "b" * 64, "a" * 64])
    assert all((every[key] == wanted[key]).all() for key in keys) and len(every) == 602
    assert every["a" * 64].tolist() == [1] * 4 and every["b" * 64].tolist() == [0, 0]
    assert len(found._recent) <= 10, "what is asked for once does not stay"


def test_of_records_of_one_key_a_success_whose_image_is_there_counts(tmp_path):
    store = Store(tmp_path)
    here, lost = store.put_image(np.zeros((4, 4, 3), np.uint8)), "0" * 64
    for key, status, image in (("a", "ok", here), ("a", "failed: x", ""), ("a", "ok", lost),
                               ("b", "ok", lost), ("c", "failed: x", "")):
        store.append("rows", [row(key=key, status=status, image=image, metric="restored",
                                  run=f"{status}{image}")])
    found = Records(store)
    assert [found.done(key) for key in "abcd"] == [True, False, False, False]
    assert [found.settled(key, False) for key in "abcd"] == [True, False, True, False]
    assert [found.settled(key, True) for key in "abcd"] == [True, False, False, False]
    assert found.row("a")["image"] == here
    found.add([row(key="c", status="ok", image=here, metric="restored", value=3.0)])
    places, missing, settled = found.gather("acd", False)
    frame = found.frame(places)
    assert frame["key"].tolist() == ["a", "c"] and missing == 1 and not settled
    assert frame["image"].tolist() == [here, here] and frame["value"].tolist() == [0.0, 3.0]
    assert list(frame.columns) == list(SCHEMAS["rows"])


@pytest.mark.parametrize("number, words", [
    (errno.EROFS, "Read-only file system"), (errno.ENOSPC, "No space left on device"),
    (errno.EACCES, "Permission denied")])
def test_a_store_that_cannot_be_written_is_told_in_a_line(tmp_path, monkeypatch, number, words):
    import torch

    store, image = Store(tmp_path), np.zeros((4, 4, 3), np.uint8)
    known = store.put_image(image + 1)

    def refused(*_, **__):
        raise OSError(number, os.strerror(number))
    monkeypatch.setattr(os, "fsync", refused)
    said = f"store {tmp_path}: cannot be written .{words}.; give another --store"
    for write in (lambda: store.append("rows", [row(key="k")]), lambda: store.put_image(image),
                  lambda: store.put_tensors("fits", "k", {"z": torch.zeros(1)})):
        with pytest.raises(FsrError, match=said):
            write()
    assert not list(tmp_path.rglob(".tmp-*")), "what was begun is gone"
    assert (store.image(known) == 1).all() and Store(tmp_path).read("rows").empty


def test_a_folder_without_a_place_for_locks_is_told_in_a_line(tmp_path):
    (tmp_path / "fits").write_text("a file in its place")
    with pytest.raises(FsrError, match="folder .*fits: cannot be written .*; give another --store"):
        with locked(Store(tmp_path).tensors_path("fits", "k")):
            pass


def test_files_that_two_write_at_once_are_whole(tmp_path):
    """Reports that go into one folder write the same names."""
    path, contents = tmp_path / "a" / "x.webp", [bytes([i]) * 200_000 for i in range(8)]
    for _ in range(5):
        together(*[lambda data=data: write_atomic(path, data, lasting=False) for data in contents])
        assert path.read_bytes() in contents
    assert [p.name for p in path.parent.iterdir()] == ["x.webp"]
