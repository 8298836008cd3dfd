"""Test data in the published layouts of the paper's data sets: drawn images, record files, clips
and lists."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from fsrbench.datasets.celebv_text import INFO
from fsrbench.engine.data import Entry, prepared_manifest
from fsrbench.engine.store import Store


def drawing(seed: int, side: int = 24) -> Image.Image:
    """A drawn image, no face; noisier with the seed, so that qualities differ."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 160, side)[None, :, None] + np.linspace(0, 60, side)[:, None, None]
    return Image.fromarray(np.clip(ramp + rng.normal(0, 1 + seed % 17, (side, side, 3)), 0, 255)
                           .astype(np.uint8))


def people_of(root: Path, numbers: dict[str, int], suffix: str = ".png", side: int = 24,
              enlarged: int = 0) -> Path:
    """A folder of people with so many drawn images each, of `side` pixels, which may be
    upsampled."""
    seed = 0
    for person, number in numbers.items():
        (root / person).mkdir(parents=True)
        for n in range(number):
            image = drawing(seed := seed + 1, side)
            shown = image.resize((enlarged, enlarged),
                                 Image.Resampling.NEAREST) if enlarged else image
            shown.save(root / person / f"{n + 1}{suffix}")
    return root


def entries_of(numbers: dict[str, int], suffix: str = ".png") -> list[Entry]:
    """Entries of a data set that is not on disk."""
    return [Entry(p, f"{n}{suffix}", f"{p}/{n}{suffix}", f"{n:064x}")
            for p, number in numbers.items() for n in range(1, number + 1)]


def celebref_numbers(seed: int = 0) -> dict[str, int]:
    """3 to 21 images of 1,005 people, 10,555 in all."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(3, 20, 1005)
    while (missing := 10555 - numbers.sum()) != 0:
        who = rng.integers(1005)
        numbers[who] = np.clip(numbers[who] + np.sign(missing), 3, 21)
    return {str(i): int(n) for i, n in enumerate(numbers)}


def manifest(name: str, root: Path, store: Store) -> tuple[bytes, bytes]:
    path = prepared_manifest(name, root, store)
    return path.read_bytes(), path.with_suffix(".json").read_bytes()


def write_records(folder: Path, images: list[tuple[int, bytes]],
                  headed: bool = True) -> dict[int, int]:
    """train.rec, .idx, .lst and property as MXNet and InsightFace lay them out; returns offsets by
    number."""
    folder.mkdir(parents=True, exist_ok=True)
    people = sorted({label for label, _ in images})
    records = [(n, struct.pack("<IfQQ", 0, label, n, 0) + data)
               for n, (label, data) in enumerate(images, 1)]
    if headed:
        first = len(images) + 1
        records.insert(0, (0, struct.pack("<IfQQff", 2, 0, 0, 0, first, first + len(people))))
        for i, person in enumerate(people):
            own = [n for n, (label, _) in enumerate(images, 1) if label == person]
            records.append((first + i, struct.pack("<IfQQff", 2, 0, first + i, 0, own[0],
                                                   own[-1] + 1)))
    blob, offsets, magic = b"", {}, b"\x0a\x23\xd7\xce"
    for number, data in records:
        offsets[number] = len(blob)
        # MXNet cuts a record where the magic stands in it at a multiple of four, and leaves the
        # magic out.
        cuts = [i for i in range(0, len(data) - 3, 4) if data[i:i + 4] == magic]
        parts = [data[a:b] for a, b in zip([0, *(c + 4 for c in cuts)], [*cuts, len(data)])]
        for i, part in enumerate(parts):
            kind = 0 if len(parts) == 1 else 1 if i == 0 else 3 if i == len(parts) - 1 else 2
            blob += magic + struct.pack("<I", kind * 2**29 + len(part)) + part + b"\0" * (-len(part)
                                                                                          % 4)
    (folder / "train.rec").write_bytes(blob)
    (folder / "train.idx").write_text("".join(f"{n}\t{o}\n" for n, o in offsets.items()))
    (folder / "train.lst").write_text("".join(f"1\t/data/{label:07d}/{n}.jpg\t{label}\n"
                                              for n, (label, _) in enumerate(images, 1)))
    (folder / "property").write_text(f"{len(people)},112,112")
    return offsets


def encoded(seed: int, tmp_path: Path) -> bytes:
    drawing(seed, 112).save(tmp_path / "one.jpg", quality=92)
    return (tmp_path / "one.jpg").read_bytes()


def half_a_million(share: float = 1.0) -> tuple[list[Entry], np.ndarray]:
    rng = np.random.default_rng(0)
    numbers = np.maximum(2, rng.lognormal(3.55, 0.9, round(10575 * share))).astype(int)
    entries = [Entry(f"{i:07d}", f"{n:03d}.jpg", f"{i:07d}/{n:03d}.jpg", f"{i:056x}{n:08x}")
               for i, number in enumerate(numbers) for n in range(number)]
    return entries, rng.random(len(entries))


def write_clip(path: Path, images: list[np.ndarray], each: int = 20, rate: int = 30,
               faststart: bool = False) -> Path:
    """An mp4 in which each image stands for so many frames."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart
                 else {}) as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for image in images:
            for _ in range(each):
                for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                    container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def fields(video: str, seconds: float = 6.7) -> dict:
    return {"ytb_id": video, "duration": {"start_sec": 1.0, "end_sec": 1.0 + seconds},
            "bbox": {"top": 0, "bottom": 0.9, "left": 0.1, "right": 0.7}, "version": "v0.1"}


def write_list(root: Path, clips: dict, section: str = "clips") -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / INFO).write_text(json.dumps({section: clips}))
