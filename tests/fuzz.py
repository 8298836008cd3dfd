"""Mutated inputs for every loader: `python tests/fuzz.py 1000 [seed]` runs so many and says what
became of them.

The rule: an input is refused by one line (`FsrError`) or accepted, and what is accepted has finite
values, in range, of the size that the file states. No other exception, no input that takes over
`LIMIT` seconds.
"""

from __future__ import annotations

import io
import json
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
from kinds import DISPLAY_P3, colours, icc_profile, saved
from layouts import drawing, fields, write_clip, write_records
from PIL import Image

LIMIT = 60
IDS = {f"p{i}/{n}.png": f"p{i}" for i in range(3) for n in range(4)}


@dataclass(frozen=True)
class Case:
    """A mutated input: what it is of, its bytes, and the loader that is given a file of them."""

    kind: str
    data: bytes
    load: Callable[[Path], None]


def mutations(seed: int) -> Iterator[Case]:
    """Endless mutated inputs, the same for the same seed."""
    rng, kinds = np.random.default_rng(seed), sources()
    while True:
        kind, (data, load) = list(kinds.items())[rng.integers(len(kinds))]
        yield Case(kind, mutated(data, rng), load)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes: bits, bytes, cuts, repetitions, numbers at their limits; often near the
    beginning."""
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(max(1, min(len(data), 200) if rng.random() < 0.5 else len(data))))
        length = int(rng.integers(1, 40))
        how = rng.integers(7)
        if how == 0 and data:
            data = data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1:]
        elif how == 1:
            data = data[:at] + rng.bytes(length) + data[at + length:]
        elif how == 2:
            data = data[:at]
        elif how == 3:
            data = data[:at] + data[at + length:]
        elif how == 4:
            data = data[:at] + data[at:at + length] * 3 + data[at + length:]
        elif how == 5:
            numbers = [b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"-1", b"1e999", b"NaN"]
            data = data[:at] + numbers[rng.integers(len(numbers))] + data[at + 4:]
        else:
            other = int(rng.integers(max(1, len(data))))
            data = data[:at] + data[other:other + length] + data[at + length:]
    return data


@cache
def sources() -> dict[str, tuple[bytes, Callable[[Path], None]]]:
    """A whole input of each kind, and its loader."""
    image = Image.fromarray(colours(40))
    deep = Image.fromarray(np.linspace(0, 65535, 900).reshape(30, 30).astype(np.uint16))
    profile = icc_profile(DISPLAY_P3, 2.2)
    kinds = {name: (data, load_image) for name, data in {
        "png": saved(image, "PNG", icc_profile=profile), "png16": saved(deep, "PNG"),
        "rgba": saved(image.convert("RGBA"), "PNG"), "jpeg": saved(image, "JPEG",
                                                                   icc_profile=profile),
        "webp": saved(image, "WEBP"), "avif": saved(image, "AVIF"), "gif": saved(image, "GIF"),
        "tiff": saved(image, "TIFF"), "lzw": saved(image, "TIFF", compression="tiff_lzw"),
        "float": saved(Image.fromarray(np.linspace(0, 1, 900, dtype=np.float32).reshape(30, 30)),
                       "TIFF"),
        "apng": saved(image, "PNG", save_all=True, append_images=[image.rotate(9)]),
        "bmp": saved(image, "BMP"), "ppm": saved(image, "PPM"),
        "jp2": saved(image, "JPEG2000")}.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = write_clip(folder / "clip.mp4", [np.asarray(drawing(n, 32)) for n in range(3)],
                          each=5)
        write_records(folder, [(label, saved(drawing(label, 24), "JPEG"))
                               for label in (0, 0, 1, 1)])
        kinds |= {"mp4": (clip.read_bytes(), load_clip),
                  "rec": ((folder / "train.rec").read_bytes(), load_record),
                  "idx": ((folder / "train.idx").read_bytes(), load_index)}
        kinds |= _checkpoints(folder)
    rows = [f"{name},{'test' if name[-5] in '01' else 'fine-tune'}" for name in IDS]
    kinds["split"] = ("\n".join(["image,split", *rows]).encode(), load_split)
    kinds["references"] = (b"image,references\np0/0.png,p0/1.png,p0/2.png\np1/0.png,p1/2.png\n",
                           load_references)
    manifest = "person,image,path,sha256,split\n" + "".join(f"p0,{n}.png,p0/{n}.png,{n:064x},test\n"
                                                            for n in range(4))
    kinds["manifest"] = (manifest.encode(), load_manifest)
    kinds["list"] = (json.dumps({"clips": {f"v{n}_0": fields(f"v{n}") for n in range(3)}}).encode(),
                     load_list)
    return kinds


def _checkpoints(folder: Path) -> dict[str, tuple[bytes, Callable]]:
    import torch
    from safetensors.torch import save_file

    state = {"layer.weight": torch.linspace(-1, 1, 12).reshape(3, 4), "layer.bias": torch.zeros(3)}
    save_file(state, folder / "a.safetensors")
    torch.save(state, folder / "a.pt")
    return {"safetensors": ((folder / "a.safetensors").read_bytes(), load_state),
            "pt": ((folder / "a.pt").read_bytes(), load_state)}


# ---- loaders, each with what must hold of what it accepts ----------------------------------------


def load_image(path: Path) -> None:
    from fsrbench.imaging import load

    pixels = load(path)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as stated:
            assert sorted(pixels.shape[:2]) == sorted(stated.size), (pixels.shape, stated.size)
    except (OSError, ValueError):
        assert path.read_bytes()[:2] in (b"II", b"MM")  # OpenCV reads a TIFF that Pillow does not


def load_clip(path: Path) -> None:
    from fsrbench.datasets.common.video import duration, frames

    assert np.isfinite(duration(path))
    shown = [image for _, image in islice(frames(path, 5), 50)]
    assert all(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
               for image in shown)


def load_record(path: Path) -> None:
    _listed(path.rename(path.with_name("train.rec")), sources()["idx"][0])


def load_index(path: Path) -> None:
    data, rec = path.read_bytes(), path.with_name("train.rec")
    rec.write_bytes(sources()["rec"][0])
    _listed(rec, data)


def _listed(rec: Path, index: bytes) -> None:
    from fsrbench.datasets.common.recordio import listed_records, read_image
    from fsrbench.engine.findings import Findings

    rec.with_suffix(".idx").write_bytes(index)
    for one in listed_records(rec, rec.with_suffix(".idx"), Findings()):
        assert isinstance(read_image(rec.parent, f"{rec.name}@{one.offset}"), bytes)


def load_split(path: Path) -> None:
    from fsrbench.engine.fixed import read_split

    assert set(read_split(str(path), IDS, "fuzz")) <= set(IDS)


def load_references(path: Path) -> None:
    from fsrbench.engine.fixed import read_references

    for image, own in read_references(str(path), IDS, "fuzz", {}).items():
        assert own and image not in own and {IDS[name] for name in own} == {IDS[image]}


def load_manifest(path: Path) -> None:
    from fsrbench.engine.data import read_manifest

    assert all(entry.person and entry.image for entry in read_manifest(path))


def load_list(path: Path) -> None:
    from fsrbench.datasets.celebv_text import read_list
    from fsrbench.engine.findings import Findings

    assert all(0 < clip.seconds < np.inf for clip in read_list(path, Findings()).values())


def load_state(path: Path) -> None:
    from fsrbench.weights.networks import read_state

    read_state(path)


# ---- running them --------------------------------------------------------------------------------


def run(case: Case) -> str:
    """"accepted" or "refused"; anything else, a hang included, is an exception."""
    from fsrbench.errors import FsrError

    def late(*_):
        raise TimeoutError(f"over {LIMIT} s")
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    suffix = {"safetensors": ".safetensors", "pt": ".pt", "mp4": ".mp4"}.get(case.kind, "")
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"input{suffix}"
            path.write_bytes(case.data)
            case.load(path)
        return "accepted"
    except FsrError as error:
        assert str(error).count("\n") == 0 and " at 0x7f" not in str(error), str(error)
        return "refused"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main(count: int, seed: int) -> int:
    """Run so many; print the counts, and the first fault of each kind."""
    counts: Counter = Counter()
    faults: dict[str, str] = {}
    for case in islice(mutations(seed), count):
        try:
            counts[run(case)] += 1
        except Exception as error:
            counts["fault"] += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            faults.setdefault(f"{case.kind}: {type(error).__name__} {str(error)[:90]} ({place})",
                              traceback.format_exc())
    print(dict(counts), *faults, sep="\n")
    return len(faults)


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)))
