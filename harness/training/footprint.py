"""How much memory a computation takes, found without doing it: on fake tensors, which have shapes
but no values."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Adds up the bytes of the tensors that operators return, for as long as they are alive.

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
            if isinstance(tensor, torch.Tensor):
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
        work: is called in a mode in which whatever is made is fake.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, Live() as live:
        work(fake)
    return live.most
