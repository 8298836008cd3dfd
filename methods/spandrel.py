"""Any checkpoint that spandrel knows as a method: `--method spandrel:PATH`.

Source: chaiNNer-org/spandrel and spandrel-extra-arches (MIT; the latter's architectures under their
authors' terms). They tell the architecture and its size from the keys and shapes of a state dict.
What is decided here is how an image gets in and out, as a network's own scale and size are seldom
those of the benchmark:

- networks of faces (GFPGAN, RestoreFormer, CodeFormer at its default weight 0.5) see I_L at HQ size
upsampled to 512 px,
  bilinear like their authors; their 512 px come down to HQ size;
- super-resolution by k sees the LR image, again and again while the result is not larger than HQ
size, at least once;
  what is then left of the way, up or down, is bicubic;
- restorers that keep the size see I_L at HQ size.

Every way to another size but the first is MATLAB's antialiased bicubic. spandrel pads an image that
is smaller than a network can take by reflection, at the right and the bottom, and crops what comes
out.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from fsrbench.core import Batch, Method
from fsrbench.errors import FsrError
from fsrbench.imaging import imresize
from fsrbench.methods.common.resizing import rule
from fsrbench.registry import maker
from fsrbench.rng import seed_of
from fsrbench.weights.catalogue import file_digest
from fsrbench.weights.networks import device, read_state

FACE_SIDE = 512
# Of [-1, 1], in and out, which spandrel's own call leaves to the caller.
SIGNED = frozenset({"GFPGAN", "CodeFormer"})
# spandrel promises one image a call. These were tried with random weights: images of a batch are
# apart (within 2e-5), nothing is drawn. Of the others, DRUNet and FDnCNN refuse a batch, IPT mixes
# it, ATD sorts positions, which a last bit decides (differences of 1e-2), GFPGAN and AuraSR draw
# noise in every call, and the networks of faces take too much memory at 512 px.
TOGETHER = frozenset((
    "Compact CRAFT DAT DCTLSA DITN DRCT ESRGAN FBCNN FDAT GRL HAT KBNet MMRealSR MoESR MoSR NAFNet "
    "OmniSR PLKSR RCAN RGT "
    "RealCUGAN Restormer SAFMN SCUNet SPAN SRFormer Swin2SR SwiftSRGAN SwinIR Uformer").split())
# Known to spandrel, but of no use here: inpainting, colours for a grey image.
UNFIT = frozenset({"LaMa", "MAT", "DDColor"})

# Side of a tile in pixels of the network's input, and what it overlaps on each side with its
# neighbours.
TILE, OVERLAP = 256, 32

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".pkl", ".bin")
Network = Callable[[torch.Tensor], torch.Tensor]


@cache
def _spandrel():
    """The package with its extra architectures; imported late, as that takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import spandrel
        import spandrel_extra_arches

        spandrel_extra_arches.install(ignore_duplicates=True)
    return spandrel


def architectures() -> list[str]:
    """Names of the architectures of which a checkpoint can be a method, in alphabetical order."""
    known = (support.architecture for support in _spandrel().MAIN_REGISTRY)
    return sorted((a.name for a in known if a.id not in UNFIT), key=str.lower)


def listed() -> list[str]:
    """The same names read out of the packages' sources, as importing them takes seconds."""
    names = []
    for package in ("spandrel", "spandrel_extra_arches"):
        folder = Path(importlib.util.find_spec(package).origin).parent / "architectures"
        for path in folder.glob("*/__init__.py"):
            for call in (n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                         if isinstance(n, ast.Call)):
                given = {k.arg: k.value.value for k in call.keywords
                         if isinstance(k.value, ast.Constant)}
                if "id" in given and given["id"] not in UNFIT:
                    names.append(given.get("name") or given["id"])
    return sorted(set(names), key=str.lower)


def _identified(path: Path | str) -> tuple[Path, str]:
    """Whole path of a file, and the digest of its content."""
    try:
        whole = Path(path).expanduser().resolve()
        if whole.is_file():
            return whole, file_digest(whole)
        cause = "no such file"
    except (OSError, RuntimeError) as error:
        cause = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    raise _refused(path, cause, "give the path of a checkpoint: spandrel:PATH")


def _refused(path: Path | str, cause: str, remedy: str) -> FsrError:
    return FsrError(f"method spandrel:{path}", cause, remedy, code=2)


def read_network(path: Path):
    """spandrel's ImageModelDescriptor of a checkpoint: (1, 3, H, W) in [0, 1] to (1, 3, kH, kW).

    Raises:
        FsrError: the file is no checkpoint of tensors alone, its architecture is unknown, or the
            network does not take and return a colour image.
    """
    try:
        state = read_state(path)
        if not isinstance(state, dict):
            raise TypeError(type(state))
    except Exception:  # torch's words, where it has any, advise to let the file run code
        raise _refused(path, "cannot be read as a checkpoint of tensors alone",
                       "give a .pth or .safetensors file that holds nothing else") from None
    network = _recognised(path, state)
    if network.purpose == "Inpainting":
        raise _refused(path, f"{network.architecture.name} is for inpainting and needs a mask",
                       "give a restorer of images")
    channels = network.input_channels, network.output_channels
    if channels != (3, 3):
        raise _refused(path,
                       f"this {network.architecture.name} has {channels[0]} channels in and "
                       f"{channels[1]} out, "
                       "not 3 and 3", "give a network of colour images")
    network.model.requires_grad_(False)
    return network.to(device()).eval()


def _recognised(path: Path, state: object):
    """Descriptor of the first architecture that knows the state dict."""
    found = None
    # The first caller may be in inference mode, and weights made there belong to it.
    with torch.inference_mode(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            state = _spandrel().canonicalize_state_dict(state)
            supports = _spandrel().MAIN_REGISTRY.architectures("detection")
            found = next((s.architecture for s in supports if s.detect(state)), None)
            if found:
                return found.load(state)
        except Exception as error:  # on a strange state dict it may raise anything
            cause = " ".join(str(error).split())[:160]
            looks = (f"is not the {found.name} that it looks like" if found
                     else "holds no state dict")
            raise _refused(path, f"{looks} ({cause})", "give the file as published") from None
    raise _refused(path, "its architecture is none that spandrel knows",
                   "see `invoke methods` for those it knows")


@lru_cache(maxsize=12)
def _loaded(path: Path, digest: str):
    """The network of a file, read once per process."""
    if _identified(path)[1] != digest:
        raise _refused(path, "the file has changed meanwhile", "start again")
    return read_network(path)


def call(network, images: torch.Tensor) -> torch.Tensor:
    """One call on (N, 3, H, W) in [0, 1]; (N, 3, kH, kW) in [0, 1]."""
    if network.architecture.id in SIGNED:
        return ((network.model(images * 2 - 1)[0].float() + 1) / 2).clamp(0, 1)
    # A copy, as spandrel's RCAN writes into what it is given.
    return network(images.clone()).float()


def tiled(network: Network, images: torch.Tensor, scale: int, side: int,
          overlap: int) -> torch.Tensor:
    """network(images), computed tile by tile where an image is larger than a tile.

    Each tile keeps its middle only, so that for a network which sees no further than `overlap`
    there is no seam.

    Args:
        images: (N, 3, H, W).
        scale: of the network; side: of a tile, more than twice `overlap`.
    """
    height, width = images.shape[-2:]
    if max(height, width) <= side:
        return network(images)
    result = images.new_empty(*images.shape[:-2], height * scale, width * scale)
    rows, columns = (list(_tiles(length, side, overlap)) for length in (height, width))
    for rows_seen, rows_kept in rows:
        for columns_seen, columns_kept in columns:
            tile = network(images[..., rows_seen, columns_seen])
            result[..., _scaled(rows_kept, scale), _scaled(columns_kept, scale)] = tile[
                ..., _scaled(rows_kept, scale, rows_seen.start),
                _scaled(columns_kept, scale, columns_seen.start)]
    return result


def _tiles(length: int, side: int, overlap: int) -> Iterator[tuple[slice, slice]]:
    """What each tile along one axis sees, and what is kept of it."""
    middle = side - 2 * overlap
    for start in range(0, length, middle):
        stop = min(start + middle, length)
        yield slice(max(start - overlap, 0), min(stop + overlap, length)), slice(start, stop)


def _scaled(part: slice, scale: int, origin: int = 0) -> slice:
    return slice((part.start - origin) * scale, (part.stop - origin) * scale)


@contextmanager
def seeded(*words: object) -> Iterator[None]:
    """torch's own generators, seeded by words inside and as before afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed_of(*words))
        yield


class SpandrelMethod(Method):
    """A method made of a checkpoint; `path` and the `digest` of the file are those of a
    subclass."""

    weights, nfe = "given", 1
    licence = "as the file's authors say"
    origin = "a file given by its path, loaded by spandrel"
    path: Path
    digest: str

    def settings(self) -> str:
        """The file's content, and the packages that hold its architecture."""
        versions = ", ".join(f"{name} {version(name)}"
                             for name in ("spandrel", "spandrel-extra-arches"))
        return f"sha256 {self.digest}, {versions}"

    def resizing(self) -> str:
        """To the side of face networks and back; of others nothing, as they enlarge."""
        if self.network.purpose != "FaceSR":
            return ""
        return rule(self.profile.size, (FACE_SIDE,), "antialiased bilinear", "bicubic")

    @property
    def network(self):
        """spandrel's descriptor."""
        return _loaded(self.path, self.digest)

    @torch.inference_mode()
    def restore(self, batch: Batch) -> np.ndarray:
        """(N, 3, S, S) in [0, 1]."""
        if self.network.purpose == "FaceSR":
            face = F.interpolate(torch.from_numpy(batch.upsampled), size=(FACE_SIDE, FACE_SIDE),
                                 mode="bilinear", antialias=True)
            images = self._run(face.clamp(0, 1), batch)
        elif self.network.scale == 1:
            images = self._run(torch.from_numpy(batch.upsampled), batch)
        else:
            images = self._run(torch.from_numpy(batch.lr), batch)
            while images.shape[-1] * self.network.scale <= batch.size:
                images = self._run(images, batch)
        return np.clip(imresize(images.cpu().numpy(), batch.size, batch.size), 0,
                       1).astype(np.float32)

    def _run(self, images: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The network on (N, 3, H, W) in [0, 1] of the batch's samples; whatever it draws is the
        sample's own."""
        images = images.to(device())
        if self.network.architecture.id in TOGETHER:
            return self._in_tiles(images)
        results = []
        for sample_id, image in zip(batch.ids, images.split(1)):
            with seeded("spandrel", images.shape[-1], batch.seed, batch.scale, sample_id):
                results.append(self._in_tiles(image))
        return torch.cat(results)

    def _in_tiles(self, images: torch.Tensor) -> torch.Tensor:
        """One call; in tiles where the image is large and spandrel does not advise against it."""
        network = self.network
        if network.purpose == "FaceSR" or network.tiling is not _spandrel().ModelTiling.SUPPORTED:
            return call(network, images)
        return tiled(partial(call, network), images, network.scale, TILE, OVERLAP)


# By name and content, so that the same file is the same class however its path is written.
_made: dict[tuple[str, str], type[SpandrelMethod]] = {}


def _describe() -> str:
    return ("makes a method of any checkpoint whose architecture spandrel tells from its keys: "
            + ", ".join(listed()))


@maker("spandrel", "PATH", _describe)
def spandrel_method(argument: str) -> type[SpandrelMethod]:
    """The method of a checkpoint; its name is that of the file without folder and suffix.

    Raises:
        FsrError: there is no such file, or as `read_network` says.
    """
    path, digest = _identified(argument)
    # The name stands in tables of five formats, so it holds nothing that one of them would read as
    # markup.
    stem = re.sub(r"[^\w.+-]", "_", path.stem if path.suffix.lower() in SUFFIXES else path.name)
    if (stem, digest) not in _made:
        title = f"{_loaded(path, digest).architecture.name} ({stem})"
        _made[stem, digest] = type("GivenMethod", (SpandrelMethod,), {
            "__module__": __name__, "__doc__": f"{title}.", "name": f"spandrel:{stem}",
            "title": title, "digest": digest})
    _made[stem, digest].path, _made[stem, digest].files = path, (path,)
    return _made[stem, digest]
