"""From a finished run to result files, one for each method."""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fsrbench.core import Method
from fsrbench.degrade.named import get_degradation
from fsrbench.engine.keys import metric_digest, metric_parts, shape_of
from fsrbench.engine.plan import Cell
from fsrbench.engine.provenance import run_of
from fsrbench.engine.run import Outcome, Run
from fsrbench.engine.scoring import Score
from fsrbench.engine.stats import Jackknife, Summary, summarise
from fsrbench.engine.store import check_folder
from fsrbench.errors import FsrError, unknown
from fsrbench.exchange.record import (
    COLUMNS,
    PROTOCOL,
    RELATIONS,
    RESTORED,
    Record,
    plain,
    sealed,
    write,
)
from fsrbench.imaging import digest
from fsrbench.metrics import Metric
from fsrbench.weights.catalogue import file_digest, get_entry, require

# How often a restoration is timed.
REPEATS = 3
_RUN = ("commit", "dirty", "python", "packages", "machine", "system", "cpu_capability", "threads",
        "device")
# Kinds of `--data` that name a folder of the user's, whose path is nobody else's business.
_PRIVATE = ("folder", "aligned", "truth", "lq", "restored")


def manifest_line(sample) -> str:
    """A sample's line of `samples_digest`: id, ground truth, reference, reference set."""
    album = "|".join(p.digest for p in sample.album)
    return f"{sample.id}|{sample.gt.digest}|{sample.reference.digest}|{album}"


def manifest_digest(framing: str, lines: Iterable[str], degraded: Sequence[str] = ()) -> str:
    """Digest of a manifest, as `samples_digest`; without ground truths also of the degraded images,
    "sample|digest" in the order of people and samples."""
    whole = digest("\n".join(sorted([framing, *lines])).encode())
    return digest("\n".join([whole, *degraded]).encode()) if degraded else whole


def framing_of(run: Run) -> str:
    """What the manifest's digest says of size and framing; of images as they are no size."""
    profile = run.options.profile
    return shape_of(replace(profile, size=0) if isinstance(run, Score) else profile)


def lr_digest(digests: Iterable[str]) -> str:
    """sha256 over the digests of LR images, in the order of their samples' ids."""
    return digest("\n".join(digests).encode())


def records(run: Run, outcome: Outcome, submitter: str = "", relation: str = "not said",
            timed: bool = False) -> list[Record]:
    """Result files of a finished run, one a method.

    Args:
        timed: restore one image alone, some times, for seconds and memory.

    Raises:
        FsrError: records are missing.
    """
    if outcome.missing:
        raise FsrError("export", f"{outcome.missing} records are missing",
                       "finish all shards, then run again")
    methods = {cell.method.name: cell.method for cell in outcome.cells}
    shared = _shared(run, outcome) | {"submitter": {"name": submitter, "relation": relation}}
    return [_record(run, outcome, method, shared, timed) for method in methods.values()]


def export(run: Run, out: str, submitter: str, relation: str, timed: bool) -> list[Path]:
    """Execute a run and write a result file for each method.

    Args:
        out: folder, or `NAME.parquet` where there is a single method.

    Raises:
        FsrError: the relation is unknown, or one file is asked for and there are several methods.
    """
    if relation not in RELATIONS:
        raise unknown("--relation", relation, list(RELATIONS))
    path = Path(out).expanduser()
    if (single := path.suffix == ".parquet") and len({c.method.name for c in run.cells}) > 1:
        raise FsrError(f"--out {out}", "is one file, and these are several methods",
                       "give a folder, or one --method", code=2)
    check_folder(path.parent if single else path, typed=out)
    found = records(run, run.execute(), submitter, relation, timed)
    return [write(r, path if single else path / file_name(r))[0] for r in found]


def file_name(record: Record) -> str:
    """A name that tells method, data, degradation and content."""
    h = record.header
    words = (h["method"]["name"], h["data"]["name"], h["degradation"]["name"], h["id"][:8])
    return re.sub(r"[^\w.+-]+", "_", "-".join(words)) + ".parquet"


def _record(run: Run, outcome: Outcome, method: Method, shared: dict, timed: bool) -> Record:
    r = outcome.records
    own, metrics = r[r["method"] == method.name], outcome.measures.metrics
    if isinstance(run, Score) and not run.given.has_truth:  # what it was restored from, if known
        own = own.assign(lr=own["sample"].map(lambda name: run.given.lq.get(name, "")))
    seconds, memory = _timed(run, method) if timed else (None, None)
    weights = weights_of(method)
    runs = {name: run_of(run.store.root, name) for name in sorted(set(own["run"]))}
    started = sorted(known["started"] for known in runs.values() if known.get("started"))
    values = [_value(outcome, own, metric, scale) for scale in outcome.options.scales
              for metric in metrics]
    return sealed({
        "format": "", "id": "", "measured": started[-1] if started else None,
        "method": described(run, method), "weights": weights, **shared,
        "degradation": _degradation(outcome, own), "values": values,
        "cost": {"nfe": plain(method.nfe), "references": references_of(method.needs),
                 "weights_bytes": sum(w["bytes"] for w in weights), "seconds": seconds,
                 "memory_mb": memory},
        "runs": [{"id": name, **{key: known.get(key) for key in _RUN},
                  "packages": known.get("packages", {})} for name, known in runs.items()],
    }, _rows(outcome, own))


def references_of(needs: Collection[str]) -> str:
    """How many references a method of these needs sees: none, one or the whole set."""
    if {"fit", "album"} & set(needs):
        return "all"
    return "one" if "references" in needs else "none"


def is_control(weights: str, nfe: float | None) -> bool:
    """Whether a method only shows where others stand: nothing is learned, and nothing computed."""
    return weights == "none" and nfe == 0


def described(run: Run, method: Method) -> dict:
    """What a header says of a method."""
    resized = f"resized for the network, {words}" if (words := method.resizing()) else ""
    return {"name": method.name, "title": method.title, "weights": method.weights,
            "needs": sorted(method.needs), "control": is_control(method.weights, method.nfe),
            "sees_truth": "oracle" in method.needs, "licence": method.licence,
            "origin": method.origin, "settings": method.settings(),
            "remark": "; ".join(filter(None, (method.remark, resized))),
            "digest": run.method_digest(method)}


def weights_in(metric: Metric) -> dict[str, str]:
    """Digests of the weights of a metric, by name."""
    return {name.removeprefix("weights "): part for name, part in metric_parts(metric).items()
            if name.startswith("weights ")}


def weights_of(method: Method) -> list[dict]:
    """Each file that a method reads: name, sha256, bytes, licence."""
    files = [(name, require(name), get_entry(name).licence) for name in method.weight_files]
    files += [(Path(file).name, Path(file), method.licence) for file in method.files]
    return [{"name": name, "sha256": file_digest(path), "bytes": path.stat().st_size,
             "licence": licence} for name, path, licence in files]


def _shared(run: Run, outcome: Outcome) -> dict:
    """What all methods of a run share."""
    options, samples = outcome.options, outcome.samples
    kind = options.data.partition(":")[0]
    return {
        "protocol": PROTOCOL,
        "data": {"name": samples.source.name, "spec": kind if kind in _PRIVATE else options.data,
                 "licence": samples.source.licence, "rule": samples.rule,
                 "manifest_sha256": samples.digest, "framing": framing_of(run),
                 "people": len({s.person for s in samples.samples}),
                 "samples": len(samples.samples), "drawn": options.people},
        "profile": options.profile.name, "size": options.profile.size,
        "scales": list(options.scales), "seed": options.seed, "batch": options.batch,
        "precision": options.precision, "metrics": [_metric(m) for m in outcome.measures.metrics]}


def _metric(metric: Metric) -> dict:
    return {"id": metric.id, "title": metric.title, "direction": metric.direction,
            "kind": metric.kind, "words": metric.described, "digest": metric_digest(metric),
            "weights": weights_in(metric)}


def _degradation(outcome: Outcome, own) -> dict:
    found = get_degradation(outcome.options.degradation)
    restored = own[own["metric"] == RESTORED].sort_values("sample")
    lr = {str(scale): lr_digest(rows["lr"]) for scale, rows in restored.groupby("scale")}
    return {"id": found.id, "name": found.name, "summary": found.summary, "lr_sha256": lr}


def _rows(outcome: Outcome, own):
    """The rows of a method as a result file has them."""
    samples = {s.id: s for s in outcome.samples.samples}
    own = own.astype({name: "str" for name in own.columns[own.dtypes == "category"]})
    rows = own.assign(restored="", truth="", manifest="")
    of_image = rows["metric"] == RESTORED
    rows.loc[of_image, "restored"] = rows.loc[of_image, "image"]
    known = [samples[name] for name in rows.loc[of_image, "sample"]]
    rows.loc[of_image, "truth"] = [s.gt.digest for s in known]
    # A record may be of a run that gave the sample another one, which its method did not look at.
    rows.loc[of_image, "reference"] = [s.reference.id for s in known]
    rows.loc[of_image, "manifest"] = [manifest_line(s) for s in known]
    rows.loc[~of_image, ["lr", "reference"]] = ""
    return rows[list(COLUMNS)].astype({"value": "float64"})


def _value(outcome: Outcome, own, metric: Metric, scale: int) -> dict:
    """What a table says of a metric at a scale."""
    samples = outcome.samples.samples
    rows = own[own["scale"] == scale]
    if metric.kind == "set":
        images = rows[rows["metric"] == RESTORED].set_index("sample")["image"]
        pairs = [(s, images[s.id]) for s in samples if images[s.id]]
        counts = len(pairs), len(samples) - len(pairs)
        if len(pairs) < 2:
            return stated(metric, scale, Summary(math.nan, math.nan, math.nan, *counts))
        left_out, deviation = outcome.measures.of_set(metric, pairs)
        return stated(metric, scale, of_left_out(left_out, *counts, deviation), left_out)
    found = rows[rows["metric"] == metric.id].set_index("sample")["value"]
    values = np.array([found.get(s.id, np.nan) for s in samples])
    return stated(metric, scale, summarise(values, [s.person for s in samples], metric.percent))


def of_left_out(left_out: Jackknife, n: int, failed: int, sd: float) -> Summary:
    """The summary of a set metric."""
    return Summary(float(left_out.whole), *map(float, left_out.interval()), n, failed, sd)


def stated(metric: Metric, scale: int, s: Summary, left_out: Jackknife | None = None) -> dict:
    """A summary as a header states it; of a set metric with what it is without each person."""
    lists = [] if left_out is None else [left_out.without.tolist(),
                                         [int(size) for size in left_out.sizes]]
    without, sizes = lists or ([], [])
    return {"scale": scale, "metric": metric.id, "mean": plain(s.mean), "low": plain(s.low),
            "high": plain(s.high), "sd": plain(s.sd), "n": s.n_ok, "failed": s.n_failed,
            "without": without, "sizes": sizes}


# --- cost -----------------------------------------------------------------------------------------


def _timed(run: Run, method: Method) -> tuple[float | None, float | None]:
    """(median seconds, peak MB on a GPU) of restoring the first sample alone at the first scale,
    once its networks are loaded; None where it fails. Without a GPU memory is not told: a process
    keeps what other methods have freed, so that it would be theirs."""
    import torch

    cell, first = Cell(method, run.options.scales[0]), run.samples.samples[:1]
    if run.again(cell, first)[0][0] is None:
        return None, None
    on_gpu, times = torch.cuda.is_available(), []
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(REPEATS):
        start = time.perf_counter()
        run.again(cell, first)
        times.append(time.perf_counter() - start)
    memory = round(torch.cuda.max_memory_allocated() / 2**20, 1) if on_gpu else None
    return round(statistics.median(times), 5), memory
