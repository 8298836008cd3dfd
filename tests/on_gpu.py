"""Whether a GPU restores what a processor does, and how fast:

    python tests/on_gpu.py prepare FILE [METHOD ...]    on a processor, where data and detectors are
    python tests/on_gpu.py compare FILE [METHOD ...]    on a GPU, where weights and torch suffice

The first restores the faces that come with the project and keeps what methods got and made; the
second restores them again, says how far apart the two are in grey levels, measures, writes all
of it beside FILE as JSON, and ends with 1 where a method's images differ by more than is allowed.
"""

from __future__ import annotations

import json
import pickle
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fsrbench import registry
from fsrbench.core import Batch, FaceImage, Person
from fsrbench.errors import FsrError
from fsrbench.profiles import PROFILES
from fsrbench.weights.places import device

PROFILE, SCALE, FACES = PROFILES["mini"], 8, Path(__file__).resolve().parents[1] / "datasets/faces"
# Mean difference of an image, in grey levels of 255, that float32's rounding is granted: what
# 8 bits round away in the mean. It was not measured on a GPU.
ALLOWED = 0.25
REPEATS = 3


def names(wanted: list[str]) -> list[str]:
    """The methods to compare: all of the profile that have a network."""
    from fsrbench.reports.gate import speed

    registry.load()
    return wanted or [*speed.chosen(PROFILE, ()), "idfsr.ft", "idfsr.noref", "pulse.official-prior"]


def own(seen: FaceImage) -> FaceImage:
    """A face with its pixels, which a store would be asked for."""
    return FaceImage(seen.id, seen.digest, seen.image, seen.landmarks)


def fresh(batch: Batch, at: slice = slice(None), fits: dict | None = None) -> Batch:
    """The samples of a batch at some places, of which nothing is prepared."""
    return replace(batch, fits=fits or {}, **{field: getattr(batch, field)[at] for field in (
        "ids", "people", "lr", "landmarks", "references", "albums")})


def people_of(batch: Batch) -> list[Person]:
    """Those of a batch, with their albums."""
    return [Person(name, album) for name, album in dict(zip(batch.people, batch.albums)).items()]


def restored(method, batch: Batch) -> np.ndarray:
    """(N, 3, S, S) in [0, 1]."""
    from fsrbench.engine.restoring import computing

    with computing("float32"):
        return np.asarray(method.restore(batch), np.float32)


def prepare(path: Path, wanted: list[str]) -> None:
    """Restore on this processor, and keep what went in and came out."""
    from test_idfsr import make_batch

    from fsrbench.engine.samples import load_samples
    from fsrbench.engine.store import Store
    from fsrbench.metrics.dlib_network import embed

    with tempfile.TemporaryDirectory() as store:
        samples = load_samples(f"folder:{FACES}", PROFILE, Store(store), 5, 0).samples[:8]
        batch, made, fits = make_batch(
            samples, SCALE, references=[own(s.reference) for s in samples],
            albums=[tuple(map(own, s.album)) for s in samples]), {}, {}
    for name in names(wanted):
        method = registry.get(name)(PROFILE)
        try:
            if "fit" in method.needs:
                fits[name] = {p.name: dict(method.fit(p, 0)) for p in people_of(batch)}
            made[name] = restored(method, fresh(batch, fits=fits.get(name)))
        except FsrError as error:
            print(f"{name}: left out ({error})")
    chips = np.random.default_rng(0).integers(0, 256, (16, 150, 150, 3), np.uint8)
    path.write_bytes(pickle.dumps({"batch": batch, "made": made, "fits": fits, "chips": chips,
                                   "vectors": embed(chips, "cpu")}))


def seconds(work) -> float:
    """Of a call, the fastest of three behind one that is not counted."""
    found = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        work()
        if device() == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found[1:])


def one(name: str, kept: dict) -> dict:
    """How a method's images here differ from those that were kept, and its speed."""
    method, batch = registry.get(name)(PROFILE), kept["batch"]
    fits = kept["fits"].get(name)
    here = restored(method, fresh(batch, fits=fits))
    apart = 255 * np.abs(here - kept["made"][name]).mean((1, 2, 3))
    found = {"apart": float(apart.max()), "judged": not getattr(method, "spread", 0),
             **{f"ms_{n}": 1e3 * seconds(lambda n=n: restored(
                 method, fresh(batch, slice(n), fits))) / n for n in (1, len(batch))}}
    if fits:
        people = people_of(batch)
        alone = [method.fit(p, 0)["z_id"].cpu() for p in people]
        many = [fit["z_id"].cpu() for fit in method.fit_many(people, 0)]
        nearest = torch.nn.functional.cosine_similarity
        found |= {"fit_cosine": float(min(nearest(a, fits[p.name]["z_id"].cpu(), dim=0)
                                          for a, p in zip(alone, people))),
                  "together_cosine": float(min(nearest(a, b, dim=0) for a, b in zip(alone, many))),
                  "fit_alone_s": seconds(lambda: method.fit(people[0], 0)),
                  "fit_together_s": seconds(lambda: method.fit_many(people, 0)) / len(people)}
    return found


def compare(path: Path, wanted: list[str]) -> int:
    """Restore here what was kept, and print what differs; 1 where it is more than rounding."""
    from fsrbench.metrics.dlib_network import embed

    registry.load()
    kept, bad, found = pickle.loads(path.read_bytes()), [], {}
    card = torch.cuda.get_device_name() if device() == "cuda" else "processor"
    print(f"{card}, torch {torch.__version__}; grey levels apart; ms an image alone and in a batch")
    for name in wanted or kept["made"]:
        try:
            found[name] = one(name, kept)
        except (FsrError, RuntimeError) as error:
            found[name] = {"fault": str(error).splitlines()[0]}
        wrong = "fault" in found[name] or (found[name]["judged"] and found[name]["apart"] > ALLOWED)
        bad += [name] * wrong
        print(f"{name:24}", {k: round(v, 4) if isinstance(v, float) else v
                             for k, v in found[name].items()}, "WRONG" * wrong, flush=True)
    vectors = embed(kept["chips"])
    found["dlib"] = {"apart": float(np.abs(vectors - kept["vectors"]).max()),
                     "ms": 1e3 * seconds(lambda: embed(kept["chips"])) / len(vectors)}
    bad += ["dlib"] * (found["dlib"]["apart"] > 1e-4)
    print("dlib's network", found["dlib"])
    path.with_suffix(".json").write_text(json.dumps({"device": card, **found}, indent=1))
    print("WRONG: " + ", ".join(bad) if bad else "all within what is allowed")
    return int(bool(bad))


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("prepare", "compare"):
        sys.exit(__doc__)
    sys.exit({"prepare": prepare, "compare": compare}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3:]))
