"""How much memory a computation takes, found without doing it: on fake tensors, which have shapes
but no values; and a training refused that has not enough."""

from __future__ import annotations

import copy
import functools
import os
import weakref
from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fsrbench.errors import FsrError
from fsrbench.memory import free_memory
from fsrbench.profiles import PROFILES
from fsrbench.training.draws import Draws
from fsrbench.training.tasks import Example, Task

# Beside the tensors: what the C library cannot use again between them, and what a processor's
# kernels take while they run (a test compares with what a training takes).
OVERHEAD = 1.15
# No network here takes so much in a step for each pixel of a batch, nor so often its weights.
PIXEL_BYTES, WEIGHTS = 64_000, 20


class Live(TorchDispatchMode):
    """Adds up the bytes of the fake tensors that operators return, for as long as they are alive.
    True ones are those that are kept for later (see `really`), whoever needs them first.

    Attributes:
        now: bytes that are alive; most: the most that ever were.
    """

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self._held: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        given = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs))
                 if isinstance(x, torch.Tensor)}
        for tensor in tree_leaves(found):
            if isinstance(tensor, FakeTensor):
                storage = tensor.untyped_storage()
                if id(storage) not in given:
                    self._take(storage)
        return found

    def _take(self, storage: torch.UntypedStorage) -> None:
        name, size = id(storage), storage.nbytes()
        if name in self._held:
            return

        def gone(_):
            del self._held[name]
            self.now -= size
        self._held[name] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


def most_bytes(work: Callable[[FakeTensorMode], object]) -> int:
    """The most bytes that the tensors made by some work take at once.

    Args:
        work: is called where whatever is made is fake.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, Live() as live:
        work(fake)
    return live.most


def really(function: Callable) -> Callable:
    """The function, whose results are true tensors also where others are fake: for those that are
    kept for later."""
    @functools.wraps(function)
    def run(*args, **kwargs):
        with unset_fake_temporarily():
            return function(*args, **kwargs)
    return run


# --- of a training ----------------------------------------------------------------------------


def _example(task: Task, batch: int) -> Callable[[], Example]:
    """Makes examples of that many, with the shapes that two and three have."""
    with torch.no_grad():
        two, three = (task.examples(Draws(task.device).seed("shapes"), task.bank.train, n)
                      for n in (2, 3))

    def grown(name: str) -> object:
        small = two[name]
        if not isinstance(small, torch.Tensor):
            return small
        return small.new_empty([a + (b - a) * (batch - 2)
                                for a, b in zip(small.shape, three[name].shape)])
    return lambda: {name: grown(name) for name in two}


def step_bytes(task: Task, batch: int, precision: str = "no") -> int:
    """The most bytes that a step takes at once beside the weights: examples, activations,
    gradients.

    Args:
        precision: "no" (float32) or "bf16".
    """
    make = _example(task, batch)

    def work(fake: FakeTensorMode) -> None:
        model = _without_values(task.model, fake).train()
        with torch.autocast(task.device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = task.loss(model, make())
        loss.backward()
    with torch.random.fork_rng(devices=[]):
        return most_bytes(work)


def _without_values(model: torch.nn.Module, fake: FakeTensorMode) -> torch.nn.Module:
    """A copy that shares nothing and takes nothing."""
    known: dict[int, torch.Tensor] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        copied = fake.from_tensor(tensor.detach())
        known[id(tensor)] = (torch.nn.Parameter(copied, tensor.requires_grad)
                             if isinstance(tensor, torch.nn.Parameter) else copied)
    return copy.deepcopy(model, known)


def weight_bytes(task: Task) -> int:
    """Of parameters and buffers."""
    return sum(x.numel() * x.element_size()
               for x in (*task.model.parameters(), *task.model.buffers()))


def training_bytes(task: Task, batch: int, precision: str = "no") -> int:
    """Bytes that a training will take beside the weights that are there: of the EMA, of Adam's two
    moments, and of a step or of a checkpoint, which is made in memory."""
    weights = weight_bytes(task)
    kept, checkpoint = 3 * weights, 5 * weights  # with the last step's gradients
    return int(kept + max(OVERHEAD * step_bytes(task, batch, precision), checkpoint))


def refuse_too_large(task: Task, batch: int, precision: str = "no") -> None:
    """Refuse a training for which a processor's machine has too little memory, and say with which
    batch it would fit.

    Raises:
        FsrError: it would be killed.
    """
    free = free_memory()
    if task.device.type != "cpu" or free is None:
        return
    free //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # To find it out takes seconds, and most trainings are small.
    pixels = batch * PROFILES[task.bank.origin.profile].size ** 2
    if PIXEL_BYTES * pixels + WEIGHTS * weight_bytes(task) <= free:
        return
    needed = training_bytes(task, batch, precision)
    if needed <= free:
        return
    one = training_bytes(task, 1, precision) if batch > 1 else needed
    fits = 1 + int((free - one) * (batch - 1) / max(1, needed - one)) if batch > 1 else 0
    remedy = (f"give --batch {fits}" if one <= free else
              "not even --batch 1 fits (" + _said(one) + "): train on a machine with more, or on a "
              "GPU")
    raise FsrError(f"training {task.name}", f"takes about {_said(needed)} of memory with batch "
                   f"{batch}, and {_said(free)} are free here", remedy)


def _said(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
