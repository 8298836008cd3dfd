"""CUDA graphs of network calls, so that a small batch need not wait for hundreds of launches.

A graph replays the very kernels of the call that it was captured from. A network that reads the
device or copies to it inside a call cannot be captured: it runs as it is, and `refused` says why.
"""

from __future__ import annotations

import copy
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

# Forms of inputs (shapes, precision) of a network whose graphs are kept, the last used ones.
KEPT = 4
# The devices that have graphs; tests play one on the processor.
KIND = "cuda"
_WAITS = ("_local_scalar_dense", "nonzero", "item", "masked_select", "unique")
_state = threading.local()
# Whether the networks' kernels are fused by torch.compile, and whether graphs are made at all.
_fused: ContextVar[bool] = ContextVar("fused", default=False)
_wanted: ContextVar[bool] = ContextVar("graphs", default=True)
_refused: dict[str, str] = {}


class NotCapturable(RuntimeError):
    """A call does what a graph cannot hold."""


class Watched(TorchDispatchMode):
    """Refuses what cannot be captured: reading the device, and copies between it and the host.

    Raises:
        NotCapturable: names the operator.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, kwargs = function.name().removeprefix("aten::"), kwargs or {}
        place = kwargs.get("device")
        if any(name.startswith(word) for word in _WAITS):
            raise NotCapturable(f"{name} waits for the device")
        masks = args[1] if name.startswith(("index.", "index_put")) or name == "index" else ()
        if any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in masks):
            raise NotCapturable(f"{name} by a mask waits for the device")
        if name == "lift_fresh" and args[0].device.type == KIND:
            raise NotCapturable("a tensor made of Python numbers is copied to the device")
        if "_to_copy" in name and place is not None:
            if torch.device(place).type != args[0].device.type:
                raise NotCapturable(f"copies from {args[0].device} to {place}")
        if name.startswith("copy_") and args[0].device.type != args[1].device.type:
            raise NotCapturable(f"copies from {args[1].device} to {args[0].device}")
        return function(*args, **kwargs)


@contextmanager
def how(graphs: bool = True, fused: bool = False):
    """Context in which networks run so: with graphs or without, kernels fused by torch.compile."""
    tokens = _wanted.set(graphs), _fused.set(fused)
    try:
        yield
    finally:
        _wanted.reset(tokens[0])
        _fused.reset(tokens[1])


def refused() -> str:
    """Which networks could not be captured, of those called since this was last asked, and why."""
    told = "; ".join(f"{name} without a CUDA graph: {why}" for name, why in _refused.items())
    _refused.clear()
    return told


@cache
def _pool():
    """The memory that all graphs share: none runs beside another, and outputs are copied out."""
    return torch.cuda.graph_pool_handle()


@cache
def _stream(place: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(place)


@torch.inference_mode(False)
def half_weights(network: torch.nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Weights of convolutions and linear layers in a half precision, which autocast would make
    anew at each call: it keeps those alone that are trained."""
    kinds = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
    return {f"{name}.{key}" if name else key: value.detach().to(dtype)
            for name, module in network.named_modules()
            if isinstance(module, kinds) and not module._forward_pre_hooks
            for key, value in module.named_parameters(recurse=False)
            if value.dtype == torch.float32}


class _Graph:
    """One captured call.

    Args:
        call: the network's forward; args, kwargs: of the call that it is captured from.
    """

    def __init__(self, call: Callable, args: tuple, kwargs: dict):
        leaves, self.spec = tree_flatten((args, kwargs))
        self.call = call  # the graph reads its weights for as long as it lives
        self.inputs = [torch.empty_like(x).copy_(x) if isinstance(x, torch.Tensor) else x
                       for x in leaves]
        place = next(x.device for x in leaves if isinstance(x, torch.Tensor))
        stream, self.graph = _stream(place), torch.cuda.CUDAGraph()
        args, kwargs = tree_unflatten(self.inputs, self.spec)
        stream.wait_stream(torch.cuda.current_stream(place))
        with torch.cuda.stream(stream):
            call(*args, **kwargs)
        stream.synchronize()
        # Other threads prepare batches meanwhile.
        with torch.cuda.graph(self.graph, pool=_pool(), stream=stream,
                              capture_error_mode="thread_local"):
            self.outputs = call(*args, **kwargs)
        torch.cuda.current_stream(place).wait_stream(stream)

    def __call__(self, leaves: list) -> object:
        for kept, new in zip(self.inputs, leaves):
            if isinstance(kept, torch.Tensor):
                kept.copy_(new, non_blocking=True)
        self.graph.replay()
        return tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, self.outputs)


class Graphed:
    """A network's forward as CUDA graphs, one for each form of its inputs; the first call of a form
    runs as it is and is watched, the second is captured.

    Args:
        network: whose `forward` this replaces.
    """

    def __init__(self, network: torch.nn.Module):
        self.network, self.forward, self.state, self.calls = network, network.forward, "eager", 0
        self.graphs: OrderedDict[tuple, _Graph | None] = OrderedDict()
        self.compiled: Callable | None = None
        self.halves: dict[torch.dtype, dict[str, torch.Tensor]] = {}
        self.lock, self.seconds = threading.Lock(), 0.0

    def __deepcopy__(self, memo):
        return Graphed(copy.deepcopy(self.network, memo))

    def __call__(self, *args, **kwargs):
        leaves, spec = tree_flatten((args, kwargs))
        self.calls += 1
        if self.state not in ("eager", "graph"):
            _refused[type(self.network).__name__] = self.state
        if not self._may(leaves):
            return self.forward(*args, **kwargs)
        with self.lock:
            return self._by_form(_form(leaves, spec), leaves, args, kwargs)

    def _may(self, leaves: list) -> bool:
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        return (_wanted.get() and not torch.is_grad_enabled() and bool(tensors)
                and self.state in ("eager", "graph")
                and not getattr(_state, "capturing", False)
                and all(x.device.type == KIND for x in tensors))

    def _by_form(self, form: tuple, leaves: list, args: tuple, kwargs: dict):
        if form not in self.graphs:
            self.graphs[form] = None
            while len(self.graphs) > KEPT:
                self.graphs.popitem(last=False)
            return self._watched(args, kwargs)
        self.graphs.move_to_end(form)
        if self.graphs[form] is None and not self._captured(form, args, kwargs):
            return self.forward(*args, **kwargs)
        return self.graphs[form](leaves)

    def _watched(self, args: tuple, kwargs: dict):
        try:
            with _inside(), Watched():
                return self.forward(*args, **kwargs)
        except NotCapturable as why:
            self._cannot(str(why))
            return self.forward(*args, **kwargs)

    def _captured(self, form: tuple, args: tuple, kwargs: dict) -> bool:
        began = time.perf_counter()
        try:
            with _inside():
                self.graphs[form] = _Graph(self._call(), args, kwargs)
            self.state = "graph"
        except RuntimeError as why:
            self._cannot((str(why) or type(why).__name__).splitlines()[0][:120])
        self.seconds += time.perf_counter() - began
        return self.state == "graph"

    def _cannot(self, why: str) -> None:
        self.state = _refused[type(self.network).__name__] = why
        self.graphs.clear()
        print(f"note: {type(self.network).__name__} runs without a CUDA graph ({why})",
              file=sys.stderr)

    def _call(self) -> Callable:
        """What is captured: the forward, in half precision with weights that are made once."""
        call = self.forward
        if _fused.get():
            self.compiled = self.compiled or torch.compile(self.forward, dynamic=False)
            call = self.compiled
        if not torch.is_autocast_enabled(KIND):
            return call
        kind = torch.get_autocast_dtype(KIND)
        if kind not in self.halves:
            self.halves[kind] = half_weights(self.network, kind)
        weights = self.halves[kind]

        def with_half(*args, **kwargs):
            shown, self.network.forward = self.network.forward, call
            try:
                return torch.func.functional_call(self.network, weights, args, kwargs)
            finally:
                self.network.forward = shown
        return with_half


@contextmanager
def _inside():
    """Context in which graphed networks inside a graphed one run as they are."""
    _state.capturing = True
    try:
        yield
    finally:
        _state.capturing = False


def _form(leaves: list, spec: object) -> tuple:
    """All of a call that decides which kernels run, beside the values of tensors."""
    seen = tuple((tuple(x.shape), x.dtype, x.stride(), x.device.index)
                 if isinstance(x, torch.Tensor) else x for x in leaves)
    return (repr(spec), seen, torch.is_inference_mode_enabled(), _fused.get(),
            torch.is_autocast_enabled(KIND), torch.get_autocast_dtype(KIND))


def graphed(network: torch.nn.Module) -> torch.nn.Module:
    """The network, whose calls without gradients on a GPU become CUDA graphs; nothing else of it
    changes."""
    # Its forward may have been wrapped since, as by a clock.
    if not isinstance(vars(network).get("graphs"), Graphed):
        network.forward = network.graphs = Graphed(network)
    return network
