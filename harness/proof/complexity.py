"""What a restoration costs: parameters, multiply-accumulates, network calls, time; for any method
that names its parts.

Counting builds networks on the meta device, so the largest costs no memory. Two conventions stand
side by side: true counts, and those of `thop`, which the IDFSR paper used (its "FLOPs" are
multiply-accumulates; it leaves out GroupNorm, bare parameters and the products of attention).
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils._pytree import tree_map

from fsrbench.core import Batch, FaceImage, Method, Part
from fsrbench.faces.geometry import Landmarks, template
from fsrbench.weights.networks import device

# Seconds after which a slow network is not timed again.
PATIENCE = 10.0


@dataclass(frozen=True)
class Count:
    """Size of a network and cost of one call on one image.

    Args:
        parameters, macs: true counts; multiply-accumulates of convolutions, linear layers and
            attention products.
        thop_parameters, thop_macs: by thop's convention.
    """

    parameters: int
    macs: float
    thop_parameters: int
    thop_macs: float


@dataclass
class Cost:
    """Cost of a method at one scale.

    Args:
        counts: by part; calls: of one restoration, counted;
        seconds: of one call, measured, empty where not asked for; ranges: shortest and longest of
            the measured calls.
    """

    method: Method
    counts: dict[str, Count]
    calls: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def nfe(self) -> float:
        """Calls of the network that is called most; NaN where none were counted."""
        return max(self.calls.values(), default=math.nan)

    @property
    def parameters(self) -> int:
        """Of all parts."""
        return sum(c.parameters for role, c in self.counts.items()
                   if not self.method.parts[role].within)

    @property
    def counted_parameters(self) -> int:
        """Of the parts that the paper counts."""
        return sum(self.counts[role].parameters for role, part in self.method.parts.items()
                   if part.counted and not part.within)

    @property
    def macs(self) -> float:
        """Of one step: parts that are called again and again."""
        return sum(self.counts[role].macs for role in self._stepped)

    @property
    def total_macs(self) -> float:
        """Of one restoration."""
        return sum(self.counts[role].macs * n
                   for role, n in self.calls.items()) if self.calls else math.nan

    @property
    def as_paper(self) -> tuple[float, float]:
        """Parameters and multiply-accumulates by thop, of the parts that the paper counts, one call
        each."""
        counted = [(self.counts[role], part.within) for role, part in self.method.parts.items()
                   if part.counted]
        return (sum(c.thop_parameters for c, within in counted if not within),
                sum(c.thop_macs for c, _ in counted))

    @property
    def step_seconds(self) -> float:
        """Of one step."""
        return sum(self.seconds[role] for role in self._stepped) if self.seconds else math.nan

    @property
    def total_seconds(self) -> float:
        """Calls times the time of a call, over all parts."""
        return sum(self.seconds[role] * n
                   for role, n in self.calls.items()) if self.seconds else math.nan

    @property
    def step_range(self) -> tuple[float, float]:
        """Shortest and longest time of one step."""
        return tuple(sum(self.ranges[role][i] for role in self._stepped) for i in (0, 1))

    @property
    def total_range(self) -> tuple[float, float]:
        """Shortest and longest total."""
        return tuple(sum(self.ranges[role][i] * n for role, n in self.calls.items())
                     for i in (0, 1))

    @property
    def _stepped(self) -> list[str]:
        return [role for role, n in self.calls.items() if n > 1] or list(self.counts)


def built(part: Part, where: str) -> tuple[torch.nn.Module, tuple]:
    """The untrained network of a part, and the inputs of a call, on a device."""
    with torch.device(where):
        return part.build().to(where).eval().requires_grad_(False), part.inputs()


def _pointwise(module: torch.nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
    """What thop counts of a convolution of side 1, whatever the order of its axes."""
    module.total_ops += output.numel() * module.in_channels


def count(part: Part) -> Count:
    """Count a part on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import thop

        network, inputs = built(part, "meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(*inputs)
        # thop goes by the exact class.
        ours = {type(module): _pointwise for module in network.modules()
                if isinstance(module, torch.nn.Conv1d) and type(module) is not torch.nn.Conv1d}
        macs, parameters = thop.profile(network, inputs=inputs, verbose=False, custom_ops=ours)
    return Count(sum(p.numel() for p in network.parameters()), counter.get_total_flops() / 2,
                 int(parameters), float(macs))


class Counter(torch.nn.Module):
    """Stands in for a part: counts its calls, and answers zeros of the right shapes."""

    def __init__(self, part: Part):
        super().__init__()
        network, inputs = built(part, "meta")
        with torch.no_grad():
            self.shapes = tree_map(lambda out: out.shape[1:], network(*inputs))
        self.calls = 0

    def forward(self, x: torch.Tensor, *rest) -> torch.Tensor:
        self.calls += 1
        # A function of x, so that a gradient can be asked for.
        nothing = x.flatten(1)[:, 0].float() * 0
        return tree_map(lambda shape: nothing.reshape(-1, *[1] * len(shape)).expand(-1, *shape),
                        self.shapes, is_leaf=lambda node: isinstance(node, torch.Size))


def example(method: Method, scale: int) -> Batch:
    """One sample of noise with the mean face's landmarks, as a method would be given it."""
    size, rng = method.profile.size, np.random.default_rng(0)
    found = Landmarks(template(size, method.profile.frame), "example")
    pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    reference = FaceImage("noise/0", "", pixels, found)
    lr = rng.random((1, 3, size // scale, size // scale), dtype=np.float32)
    return Batch(["noise/1"], ["noise"], lr, scale, [found], [reference], [(reference,)])


def calls(method: Method, scale: int) -> dict[str, int]:
    """How often each part is called in one restoration, by restoring with counters in place of
    networks."""
    method.stand_ins = {role: Counter(part) for role, part in method.parts.items()}
    try:
        method.restore(example(method, scale))
        return {role: counter.calls for role, counter in method.stand_ins.items()}
    finally:
        method.stand_ins = {}


def seconds(part: Part, repeats: int = 3) -> float:
    """Median time of one call, see `timings`."""
    return float(np.median(timings(part, repeats)))


@torch.inference_mode()
def timings(part: Part, repeats: int = 3) -> list[float]:
    """Times of calls on one image after a first one, with random weights on this machine's device;
    of fewer calls than `repeats` where they take long."""
    network, inputs = built(part, device())
    network.to(memory_format=torch.channels_last)
    times = []
    while len(times) <= repeats and (len(times) < 2 or sum(times) < PATIENCE):
        started = time.perf_counter()
        network(*inputs)
        if device() == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return times[1:]


def cost(method: Method, scale: int, timed: bool = False) -> Cost:
    """Cost of a method."""
    result = Cost(method, {role: count(part) for role, part in method.parts.items()},
                  calls(method, scale))
    if timed:
        measured = {role: timings(part) for role, part in method.parts.items()}
        result.seconds = {role: float(np.median(times)) for role, times in measured.items()}
        result.ranges = {role: (min(times), max(times)) for role, times in measured.items()}
    return result
