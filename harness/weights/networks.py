"""Checkpoint files to networks: reading, unwrapping, strict loading, one loaded copy a process."""

from __future__ import annotations

import zipfile
from functools import lru_cache
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from fsrbench.errors import FsrError

if TYPE_CHECKING:
    from fsrbench.core import Part
from fsrbench.weights.catalogue import file_digest, require
from fsrbench.weights.places import device, exact_device


@lru_cache(maxsize=1)
def _allow_lightning() -> None:
    """Let checkpoints of Lightning be read, which name the class of a callback: one of that name,
    which does nothing, stands in for it."""
    import torch

    torch.serialization.add_safe_globals([
        type("ModelCheckpoint", (), {"__module__": f"{package}.callbacks.model_checkpoint"})
        for package in ("pytorch_lightning", "lightning.pytorch")])


def read_state(path: Path) -> dict:
    """Tensors of a checkpoint file (safetensors, or anything torch.load reads with
    `weights_only=True`).

    Raises:
        FsrError: the file is not a checkpoint, or holds code.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".onnx":
            return read_onnx(path)
        _allow_lightning()
        # A file of several networks is read once for each, and only what is used of it.
        return torch.load(path, map_location="cpu", weights_only=True,
                          mmap=zipfile.is_zipfile(path))
    except Exception as error:
        cause = shorten((str(error) or type(error).__name__).splitlines()[0], 160,
                        placeholder=" ...")
        if cause.startswith("Weights only load failed"):
            # PyTorch goes on with advice to programmers: to trust the file.
            cause = "it is none, or holds code, which is not run"
        raise FsrError(f"weights {path}", f"cannot be read as a checkpoint ({cause})",
                       "fetch the file again") from None


def read_onnx(path: Path) -> dict:
    """Constants of an ONNX file by name; those kept in blocks of 8 bits are multiplied out, under
    their name in float.

    Source: ONNX operator DequantizeLinear, version 21 (`block_size`).
    """
    import numpy as np
    import onnx
    import torch
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    known = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    found = {name: value for name, value in known.items()
             if not name.endswith(("_quantized", "_scales", "_zero_point", "_shape"))}
    for node in graph.node:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "DequantizeLinear":
            whole, axis = known[node.input[0]].astype(np.float32), int(given["axis"])
            scale, zero = (np.repeat(known[name].astype(np.float32), given["block_size"], axis=axis)
                           .take(
                np.arange(whole.shape[axis]), axis=axis) for name in node.input[1:])
            name = node.input[0].removesuffix("_quantized")
            found[name] = (whole - zero) * scale
            if f"{name}_shape" in known:
                found[name] = found[name].reshape(known[f"{name}_shape"])
    return {name: torch.from_numpy(np.array(value)) for name, value in found.items()}


WRAPPERS = ("state_dict", "params_ema", "params", "model")


def unwrap(state: dict, prefix: str = "module.") -> dict:
    """Undo what published files wrap a state dict in: a named entry, and a prefix carried by every
    key."""
    for name in WRAPPERS:
        if isinstance(state.get(name), dict):
            return unwrap(state[name], prefix)
    if prefix and state and all(key.startswith(prefix) for key in state):
        return {key[len(prefix):]: value for key, value in state.items()}
    return state


def load_strict(module, state: dict, name: str):
    """Load a state dict whose keys and shapes must be exactly the module's; half precision becomes
    float32.

    Raises:
        FsrError: names the first missing, unexpected and misshapen keys.
    """
    own = module.state_dict()
    faults = [f"missing {key}" for key in own if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in own]
    faults += [f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
               for key in own if key in state and state[key].shape != own[key].shape]
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise FsrError(f"weights {name}", "not of this network: " + ", ".join(faults[:4]) + more,
                       "give the file of the network that this method names")
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()},
                           strict=True)
    return module.eval().requires_grad_(False)


def load_part(part: Part):
    """The loaded network of a method's part, on the GPU where there is one, in the layout that is
    fastest.

    Raises:
        FsrError: the weights are missing or of another network.
    """
    path = require(part.weights)
    return _loaded(part, path, file_digest(path))


@lru_cache(maxsize=12)
def _loaded(part: Part, path: Path, digest: str):
    """The network as the file had it at that digest, so that a file which is written anew is read
    anew."""
    import torch

    # The first caller may be in inference mode; weights made there could not be fitted through.
    with torch.inference_mode(False):
        state = unwrap(read_state(path))
        state = {key.removeprefix(part.prefix): value for key, value in state.items()
                 if key.startswith(part.prefix)}
        if part.keep:
            state = {key: value for key, value in state.items() if key.startswith(part.keep)}
        network = load_strict(part.build(), state, part.weights)
        return ready(network)


def ready(network):
    """The network where networks run, in the layout that is fastest; its calls on a GPU become CUDA
    graphs (see graphs.py), and float32 is float32 there."""
    import torch

    from fsrbench.weights.graphs import graphed

    # A GPU's group norm takes contiguous images only, so that others are copied about it (IDFSR at
    # 256 px on an H200: 106 ms an image at batch 8 contiguous, 141 channels last).
    contiguous = device() == "cuda" and any(isinstance(part, torch.nn.GroupNorm)
                                            for part in network.modules())
    layout = torch.contiguous_format if contiguous else torch.channels_last
    network = network.to(memory_format=layout).to(exact_device())
    return graphed(network) if device() == "cuda" else network
