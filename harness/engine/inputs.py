"""What a method of another repository has to restore, as folders of images: `invoke inputs`."""

from __future__ import annotations

from pathlib import Path

from fsrbench.engine.outputs import stem
from fsrbench.engine.run import Run
from fsrbench.engine.store import write_atomic
from fsrbench.errors import FsrError
from fsrbench.imaging import encode_png
from fsrbench.progress import progress
from fsrbench.text import csv_table

COLUMNS = ("sample", "person", "scale", "lq", "reference", "truth", "degradation", "seed",
           "dataset_digest")


def write_inputs(run: Run, out: Path) -> list[Path]:
    """Write the LR images, the reference sets and the ground truths of a run's samples.

    Args:
        run: its options decide data, scales, seed and degradation; nothing is restored.

    Returns:
        The folders, and `samples.csv`, which says which reference each image was given.

    Raises:
        FsrError: the folder holds something already.
    """
    if out.exists() and any(out.iterdir()):
        raise FsrError(f"--out {out}", "is not empty", "give a new folder", code=2)
    rows, album = [], {}
    for sample in run.samples.samples:
        name = f"{stem(sample.id)}.png"
        write_atomic(out / "truth" / name, encode_png(sample.gt.image))
        album |= {p.id: p for p in sample.album}
        for scale in run.options.scales:
            place = Path(f"lq-x{scale}") / name
            write_atomic(out / place, encode_png(run.lr(sample, scale)))
            rows.append([sample.id, sample.person, scale, place,
                         f"references/{stem(sample.reference.id)}.png",
                         f"truth/{name}", run.degradation.id, run.options.seed, run.samples.digest])
    for reference in progress(album.values(), desc="references", unit="image"):
        write_atomic(out / "references" / f"{stem(reference.id)}.png", encode_png(reference.image))
    write_atomic(out / "samples.csv", csv_table(COLUMNS, rows).encode())
    return [*(out / f"lq-x{scale}" for scale in run.options.scales), out / "references",
            out / "truth", out / "samples.csv"]
