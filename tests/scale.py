"""What commands take at the size of the paper's data: `python tests/scale.py FOLDER [PART ...]`.

Makes in FOLDER, once, what nobody should need to have: CASIA-WebFace's layout with 500,000 files
(most are hard links of a few), a store with the aligned images of the 14,908 that a filter keeps,
and 1,000,000 rows as a run of five methods at 256 px leaves them, in shards of one chunk. Nothing
in it is a face. Then it runs the commands, each as a process, and prints seconds and peak memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

PEOPLE, FILES, KEPT_PEOPLE, KEPT, ROWS = 10_575, 500_000, 1_035, 14_908, 1_000_000
METHODS, SCALES = ("bicubic", "reference", "realesrgan", "realsr", "srmd"), ("8", "16")
SIDE = 256
FEW = ("psnr", "ssim", "lpips.alex@0.1.4", "ids.cosine@dlib", "gap.people-truthpoints@dlib")
# An inode of ext4 has 65,000 links at most.
LINKS = 20_000


def smooth(rng: np.random.Generator, side: int) -> np.ndarray:
    """An image of no noise, unlike any other: uint8 (side, side, 3)."""
    import cv2

    return cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (side, side),
                      interpolation=cv2.INTER_CUBIC)


def shares(total: int, parts: int) -> np.ndarray:
    """`total` in so many whole parts that differ by one at most."""
    return np.diff(np.arange(parts + 1) * total // parts)


def make_files(root: Path) -> None:
    """The layout: the first people have good images (250 px), the others crops of 112 px."""
    import cv2

    rng, few = np.random.default_rng(0), []
    root.mkdir()
    numbers = [*shares(KEPT, KEPT_PEOPLE), *shares(FILES - KEPT, PEOPLE - KEPT_PEOPLE)]
    linked = 0
    for person, count in enumerate(numbers):
        folder = root / f"{person:07d}"
        folder.mkdir()
        for i in range(1, count + 1):
            path = folder / f"{i:03d}.jpg"
            if person < KEPT_PEOPLE:
                cv2.imwrite(str(path), smooth(rng, 250))
            elif linked % LINKS == 0:
                cv2.imwrite(str(path), smooth(rng, 112))
                few.append(path)
            else:
                os.link(few[-1], path)
            linked += person >= KEPT_PEOPLE


def make_aligned(store, source) -> None:
    """Aligned images and their records, as if a detector had found a face in each."""
    from fsrbench.engine.data import prepared_key, verified
    from fsrbench.engine.keys import preparation_digest
    from fsrbench.faces.geometry import template
    from fsrbench.faces.prepare import Preparation
    from fsrbench.profiles import PROFILES

    paper, rng = PROFILES["paper"], np.random.default_rng(1)
    how, detection = Preparation(paper.size, paper.frame, source.aligned), preparation_digest()
    points, rows = template(SIDE).ravel(), []
    for entry in verified(source, source.entries, store):
        rows.append({"key": prepared_key(entry, how, detection),
                     "image": store.put_image(smooth(rng, SIDE)), "landmarks": "retinaface",
                     "points": (points + rng.normal(size=136)).tolist(), "outside": 0.0,
                     "error": "", "remarks": ""})
    for at in range(0, len(rows), 128):
        store.append("prepared", rows[at:at + 128])


def options_of(data: str):
    """The plan of the table."""
    from fsrbench.engine.options import plan
    from fsrbench.reports.tables.comparisons import METRICS

    return plan("paper", data, SCALES, METHODS, METRICS, None, None, None)


def make_rows(store, options) -> int:
    """Rows of every cell, keyed as a run keys them, in shards of one chunk; returns how many."""
    from fsrbench.engine.run import Run

    run, rng, count = Run(options, store), np.random.default_rng(2), 0
    shown = store.put_image(smooth(rng, SIDE))
    run.records = run._read()
    run._note([])
    for cell in run.cells:
        for chunk in run.chunks():
            restored = [run._row(cell, s, key, metric="restored", image=shown,
                                 lr=run.lr.digest(s, cell.scale))
                        for s, key in zip(chunk, run.restored_keys(cell, chunk))]
            values = [run._row(cell, s, run.measures.key(m, row, s), metric=m.id,
                               value=rng.random(), image=shown, lr=row["lr"])
                      for m in run.measures.per_sample for s, row in zip(chunk, restored)]
            store.append("rows", restored)
            store.append("rows", values)
            count += len(restored) + len(values)
    make_sets(run, rng, shown)
    make_faces(run, rng, shown)
    return count


def make_faces(run, rng, shown: str) -> None:
    """Embeddings of what the judges of the run have seen: ground truths, references, outputs."""
    from fsrbench.metrics import get_feature

    measures, samples = run.measures, run.samples.samples
    for feature in map(get_feature, {m.feature for m in measures.per_sample if m.feature}):
        images = [(p.digest, p) for album in measures.albums.values() for p in album.values()]
        images += [(name, s.gt) for s in samples for name in (s.gt.digest, shown)]
        keys = [measures._vector_key(feature, *one) for one in images]
        for at in range(0, len(keys), 160):
            run.store.append("features", [{"key": key, "feature": feature.id,
                                           "vector": rng.normal(size=128).astype(np.float32)}
                                          for key in keys[at:at + 160]])


def make_sets(run, rng, shown: str) -> None:
    """What the metrics of whole sets have given."""
    from fsrbench.engine.stats import Jackknife

    def drawn(a, b, people, function):
        of = np.unique(people, return_counts=True)[1]
        return Jackknife(rng.random(), rng.random(len(of)), of)
    pairs = [(s, shown) for s in run.samples.samples]
    with patch("fsrbench.engine.measure.jackknife_set", drawn), \
            patch.object(run.measures, "set_features", lambda *_: rng.normal(size=(2, 8, 4))):
        for metric in run.measures.sets:
            run.measures.of_set(metric, pairs)


def fill(store, rows: int) -> None:
    """Rows of other runs, which the table must pass over, in shards as a run leaves them."""
    from fsrbench.engine.store import SCHEMAS

    blank = {"string": "", "float64": 0.5, "int32": 8, "int64": 7}
    row = {name: blank[kind] for name, kind in SCHEMAS["rows"].items()}
    for at in range(0, rows, 100):
        store.append("rows", [{**row, "key": os.urandom(32).hex(), "method": "other.method",
                               "metric": "psnr.rgb"} for _ in range(min(100, rows - at))])


def make_features(store, rows: int = 150_000, length: int = 1_152) -> None:
    """Feature vectors of other runs."""
    rng = np.random.default_rng(3)
    for at in range(0, rows, 160):
        store.append("features", [{"key": os.urandom(32).hex(), "feature": "alexnet", "vector": v}
                                  for v in rng.random((160, length), np.float32)])


def made(folder: Path) -> None:
    """Make the data set and the store, where they are not there."""
    from fsrbench.datasets.common.frozen import Choice, prepare_named
    from fsrbench.engine.data import open_source
    from fsrbench.engine.store import Store

    root, store, done = folder / "casia", Store(folder / "store"), folder / "made"
    if not root.exists():
        said("files", lambda: make_files(root))
    if not done.exists():
        choice = Choice(threshold=250.0, quality="side")
        said("selection", lambda: prepare_named("casia-webface", str(root), choice, store))
        options = options_of(f"casia-webface:{root}")
        with patch("os.fsync"):
            source = open_source(options.data, store)
            said("aligned images", lambda: make_aligned(store, source))
            count = said("rows", lambda: make_rows(store, options))
            said("other rows", lambda: fill(store, max(0, ROWS - count)))
            said("features", lambda: make_features(store))
        done.write_text("")


def said(what: str, work):
    """What some work gives; how long it took is said."""
    started = time.perf_counter()
    found = work()
    print(f"made: {what}, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return found


def commands(root: Path, store: Path, out: Path) -> dict[str, list[str]]:
    """The commands by name."""
    table = ["table1", "--profile", "paper", "--data", f"casia-webface:{root}", "--store",
             str(store), "--out", str(out)]
    mine = [word for name in METHODS for word in ("--method", name)]
    return {
        "data": ["data"],
        "prepare": ["prepare", "casia-webface", "--root", str(root), "--store", str(store),
                    "--quality", "side", "--threshold", "250"],
        "table": [*table, *mine],
        # The first time all of it is computed; PSNR, SSIM, LPIPS, IDS and the identity gap.
        "first": [*table, "--method", "bicubic", "--scale", "4", "--metric", ",".join(FEW)],
        "three": [*table, "--method", "bicubic", "--scale", "4", "--people", "3"],
        "report": ["report", *table[1:], *mine],
    }


def measured(words: list[str]) -> str:
    """What a command took."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "invoke", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return (f"{time.perf_counter() - started:7.1f} s, of which the processor "
            f"{usage.ru_utime + usage.ru_stime:7.1f} s, {usage.ru_maxrss * 1024 / 1e9:5.2f} GB"
            + f", exit code {code}" * bool(code))


def main(folder: Path, parts: list[str]) -> None:
    """Make, measure, print."""
    if parts == ["make"]:
        folder.mkdir(parents=True, exist_ok=True)
        made(folder)
        return
    if not (folder / "made").exists():
        # On its own, as a process starts with the peak of the one that started it.
        subprocess.run([sys.executable, __file__, str(folder), "make"], check=True)
    every = commands(folder / "casia", folder / "store", folder / "out")
    for name in parts or every:
        print(f"{name:8} {measured(every[name])}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
