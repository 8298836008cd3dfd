"""`invoke bench --profile paper`: images a second, memory and the networks' share of whole
restorations, with random weights, so that no file is needed. Measures, asserts nothing."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fsrbench import registry
from fsrbench.core import Batch, Method, Part, Profile
from fsrbench.engine.provenance import describe
from fsrbench.engine.restoring import computing
from fsrbench.engine.store import write_atomic
from fsrbench.errors import FsrError, reason
from fsrbench.proof.complexity import example
from fsrbench.text import json_text
from fsrbench.weights.networks import device, ready

BATCHES = (1, 8, 32)
# A call that took longer is not made again, on a processor not even after a first one.
PATIENCE = 4.0
_ROW = "{:<24}{:>6}{:>11}{:>11}{:>10}{:>12}  {}"
_HEAD = _ROW.format("METHOD", "BATCH", "IMAGES/S", "MS/IMAGE", "NETWORK", "MEMORY", "CUDA GRAPHS")


@dataclass
class Speed:
    """What was measured of a method with a batch.

    Args:
        seconds: of a whole restoration of the batch; share: of the calls of networks in it.
        memory: peak in bytes, of the GPU's tensors, or of the process on a processor.
        graphs: what became of each network's CUDA graph; fault: why nothing was measured.
    """

    method: str
    batch: int
    seconds: float = np.nan
    share: float = np.nan
    memory: int = 0
    graphs: str = ""
    fault: str = ""

    @property
    def line(self) -> str:
        """Its row, in 100 characters."""
        if self.fault:
            return f"{self.method:<24}{self.batch:>6}  {self.fault}"[:100]
        return _ROW.format(self.method[:24], self.batch, f"{self.batch / self.seconds:.3g}",
                           f"{1e3 * self.seconds / self.batch:.4g}", f"{self.share:.0%}",
                           f"{self.memory / 2**20:,.0f} MB", self.graphs)[:100].rstrip()

    @property
    def row(self) -> dict:
        """What a file says of it."""
        named = {"method": self.method, "batch": self.batch}
        if self.fault:
            return {**named, "fault": self.fault}
        return {**named, "images_a_second": self.batch / self.seconds, "seconds": self.seconds,
                "network_share": self.share, "memory": self.memory, "graphs": self.graphs}


class TimeIsOver(Exception):
    """No network is called any more."""


class Clock:
    """Time spent in networks: on a GPU that between two events in its queue.

    Args:
        left: seconds left; without any no network is called.
    """

    def __init__(self, left: Callable[[], float] = lambda: float("inf")):
        self.spans: list = []
        self.left = left

    def around(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network, whose calls are timed."""
        inner = network.forward

        def timed(*args, **kwargs):
            if self.left() <= 0:
                raise TimeIsOver
            began = self._now()
            output = inner(*args, **kwargs)
            self.spans.append((began, self._now()))
            return output
        network.forward = timed
        return network

    @staticmethod
    def _now() -> float | torch.cuda.Event:
        if device() == "cpu":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> float:
        """Of all calls since the last time that it was asked."""
        spans, self.spans = self.spans, []
        if device() == "cpu":
            return sum(end - began for began, end in spans)
        torch.cuda.synchronize()
        return sum(began.elapsed_time(end) for began, end in spans) / 1e3


def stand_in(part: Part) -> torch.nn.Module:
    """The untrained network of a part, as a loaded one would be."""
    with torch.device(device()):
        network = part.build()
    return ready(network.eval().requires_grad_(False))


def batch_of(method: Method, scale: int, count: int) -> Batch:
    """So many samples of noise with the mean face's landmarks."""
    one = example(method, scale)
    rng = np.random.default_rng(1)
    return replace(one, ids=[f"noise/{i}" for i in range(count)], people=one.people * count,
                   lr=rng.random((count, *one.lr.shape[1:]), dtype=np.float32),
                   landmarks=one.landmarks * count, references=one.references * count,
                   albums=one.albums * count)


@contextlib.contextmanager
def random_weights(method: Method, clock: Clock) -> Iterator[list[torch.nn.Module]]:
    """Context in which a method runs on untrained networks, which are timed and given."""
    networks = {role: stand_in(part) for role, part in method.parts.items() if not part.within}
    graphs = list(networks.values())
    if "encoder" in method.parts and "encoder" not in networks:
        graphs.append(networks["network"].encoder)
    method.stand_ins = networks
    for role in (r for r, part in method.parts.items() if part.within):
        clock.around(method.part(role))
    for network in networks.values():
        clock.around(network)
    try:
        yield graphs
    finally:
        method.stand_ins = {}


def _peak() -> int:
    if device() == "cuda":
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reset_peak() -> None:
    if device() == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def timed(work: Callable[[], object], clock: Clock, most: float) -> tuple[float, float]:
    """Median seconds of a call and of the networks in it, of up to three after those that warm up:
    on a GPU two, which see and capture the graphs, on a processor one, unless it took long."""
    found: list[tuple[float, float]] = []
    warm, began = 2 if device() == "cuda" else 1, time.perf_counter()
    while len(found) < warm + 3:
        started = time.perf_counter()
        work()
        inside = clock.seconds()
        found.append((time.perf_counter() - started, inside))
        over = time.perf_counter() - began > min(PATIENCE, most)
        if over and len(found) >= warm:  # a sampler's steps are captured in its first call
            break
    kept = found[warm:] or found[-1:]
    return tuple(float(np.median(values)) for values in zip(*kept))


def _graphs(networks: Sequence[torch.nn.Module]) -> str:
    if device() == "cpu":
        return "none on a processor"
    called = [n.graphs for n in networks if n.graphs.calls]
    return "; ".join(f"{type(g.network).__name__}: {g.state}" for g in called
                     if g.state != "graph") or "all"


def measure(method: Method, precision: str, batches: Sequence[int], scale: int,
            left: Callable[[], float]) -> Iterator[Speed]:
    """Speeds of a method, the smallest batch first; what would not end in the time left is told.

    Args:
        left: seconds left.
    """
    clock, each = Clock(left), 0.0
    with random_weights(method, clock) as networks:
        for count in sorted(batches):
            # A larger batch takes less for each image, and some repeats.
            if each * count > left():
                yield Speed(method.name, count, fault=f"left out: would take {each * count:.0f} s")
                continue
            _reset_peak()
            try:
                with computing(precision):
                    batch = batch_of(method, scale, count)
                    seconds, inside = timed(lambda b=batch: method.restore(b), clock, left())
            except TimeIsOver:
                yield Speed(method.name, count, fault="left out: the time was over meanwhile")
                return
            except Exception as fault:  # one method's must not cost the others
                yield Speed(method.name, count, fault=_told(fault))
                clock.spans.clear()
                continue
            each = seconds / count
            yield Speed(method.name, count, seconds, inside / seconds, _peak(), _graphs(networks))


def chosen(profile: Profile, names: Sequence[str]) -> list[str]:
    """The methods asked for, or all that have a row in the paper or published weights, each set of
    networks once: IDFSR first, then those of few network calls.

    Raises:
        FsrError: one asked for is unknown, has no such profile, or is fitted to people first.
    """
    if names:
        return list(dict.fromkeys(_measurable(name, profile) for name in names))
    found: dict[object, str] = {}
    for name, cls in registry.methods().items():
        wanted = "mini" if profile.name == "mini" else "official"
        ours = name.startswith("idfsr.pt")
        if (profile.name in cls.profiles and (cls.paper or cls.weights == "published")
                and (ours or cls.parts and cls.weights in (wanted, "published"))):
            found.setdefault(name if ours else tuple(cls.parts.items()), name)
    return sorted(found.values(), key=lambda n: (not n.startswith("idfsr"), registry.get(n).nfe))


def _measurable(name: str, profile: Profile) -> str:
    name = registry.resolve(name, profile.name)
    cls = registry.get(name)
    if profile.name not in cls.profiles:
        raise FsrError(f"method {name}", f"has no {profile.name} profile",
                       f"give --profile {' or '.join(sorted(cls.profiles))}", code=2)
    if "fit" in cls.needs:
        raise FsrError(f"method {name}", "is fitted to a person first, and bench fits nobody",
                       "measure one that is not: what idfsr.ft restores by costs as much as "
                       "idfsr.pt", code=2)
    return name


def report(profile: Profile, names: Sequence[str] = (), precision: str = "float32",
           batches: Sequence[int] = BATCHES, scale: int = 8, seconds: float | None = None,
           out: Path | None = None, say: Callable[[str], None] = print) -> list[Speed]:
    """Measure methods one after the other, and say each line as it comes; then what a table's notes
    say of them, as that one makes fewer steps than its authors.

    Args:
        seconds: after which no network is called; out: JSON file, rewritten with each line.
    """
    began, found, wanted = time.monotonic(), [], chosen(profile, names)

    def left() -> float:
        return float("inf") if seconds is None else seconds - (time.monotonic() - began)
    facts = describe({"profile": profile.name, "precision": precision, "scale": scale})
    say(f"{facts['device']}, torch {torch.__version__}, {precision}, {profile.size} px, "
        f"x{scale}, random weights")
    say(_HEAD)
    for name in wanted:
        for speed in _guarded(name, profile, precision, batches, scale, left):
            found.append(speed)
            say(speed.line)
            if out:
                write_atomic(out, json_text({**facts, "speeds": [s.row for s in found]}).encode())
        if device() == "cuda":
            torch.cuda.empty_cache()
    for name in dict.fromkeys(s.method for s in found if not s.fault):
        if remark := registry.get(name)(profile).remark:
            say(f"{name}: {remark}")
    return found


def _guarded(name: str, profile: Profile, *how) -> Iterator[Speed]:
    if how[-1]() <= 0:
        yield Speed(name, how[1][0], fault="left out: the time is over")
        return
    try:
        yield from measure(registry.get(name)(profile), *how)
    except (Exception, SystemExit) as fault:
        yield Speed(name, how[1][0], fault=_told(fault))


def _told(fault: BaseException) -> str:
    named = "" if isinstance(fault, FsrError) else f"{type(fault).__name__}: "
    return f"failed: {named}{reason(fault)}"
