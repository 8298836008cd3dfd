"""Whether a weight file is whole and of the kind that its name says, without loading it."""

from __future__ import annotations

import json
import struct
import zipfile
from functools import lru_cache
from pathlib import Path

_PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml")
_TORCH = "is not a checkpoint of PyTorch"
_CUT = "is cut off, or damaged"


def fault(path: Path) -> str:
    """What is wrong with a file, to stand behind its name; empty where nothing is to be seen.

    Each format is asked for its mark and, where it has one, for its end, which half a download
    lacks. Formats without either (dlib's, ncnn's `.bin`) are only told from web pages and pointers.
    """
    stat = path.stat()
    return _fault(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _fault(path: Path, size: int, _mtime: int) -> str:
    with open(path, "rb") as handle:
        head = handle.read(64)
    if not size:
        return "is empty"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(
            _PAGE) and path.suffix.lower() != ".xml":
        return "is a web page, not weights"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself"
    check = _CHECKS.get(path.suffix.lower())
    return check(path, head, size) if check else ""


def damage(path: Path) -> str:
    """What a reading of the whole file finds wrong with it, where its format keeps sums."""
    if not zipfile.is_zipfile(path):
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        return f"is damaged ({error})"
    return f"is damaged (its part {bad})" if bad else ""


def _safetensors(path: Path, head: bytes, size: int) -> str:
    """Source: the format's README: 8 bytes of length, the header in JSON, the tensors."""
    length = struct.unpack("<Q", head[:8])[0] if len(head) >= 8 else 0
    if not head[8:].startswith(b"{"):
        return "is not a safetensors file"
    if length > size - 8:
        return _CUT
    try:
        with open(path, "rb") as handle:
            header = json.loads(handle.read(8 + length)[8:])
        header.pop("__metadata__", None)
        end = max((value["data_offsets"][1] for value in header.values()), default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return "has a damaged header"
    return "" if size == 8 + length + end else f"holds {size:,} bytes, not {8 + length + end:,}"


def _zip(path: Path, head: bytes, _size: int) -> str:
    if not head.startswith(b"PK"):
        return "is not a zip archive, as its name says"
    return "" if zipfile.is_zipfile(path) else _CUT


def _torch(path: Path, head: bytes, _size: int) -> str:
    """A zip archive since PyTorch 1.6, several pickles before, or (of others) one pickle."""
    if head.startswith(b"PK"):
        return _zip(path, head, _size)
    if head[:1] != b"\x80" or not 2 <= head[1] <= 5:
        return _TORCH
    with open(path, "rb") as handle:
        handle.seek(-1, 2)
        whole = head[2:4] == b"\x8a\n" or handle.read() == b"."
    return "" if whole else _CUT


def _onnx(path: Path, head: bytes, size: int) -> str:
    """Fields of the outermost message, which must end with the file.

    Source: protocol buffers, encoding: a tag's lowest three bits are the kind, the rest is the
    field's number.
    """
    with open(path, "rb") as handle:
        def number() -> int:
            value = shift = 0
            while byte := handle.read(1):
                value |= (byte[0] & 127) << shift
                shift += 7
                if byte[0] < 128 or shift > 63:
                    return value
            return -1
        while handle.tell() < size:
            kind = number() & 7
            step = {0: number, 1: lambda: 8, 2: number, 5: lambda: 4}.get(kind, lambda: -1)()
            if step < 0:
                return "is not an ONNX file" if kind not in (0, 1, 2, 5) else _CUT
            handle.seek(step if kind else 0, 1)
        return "" if handle.tell() == size and head[0] == 8 else _CUT


def _starts(mark: bytes, what: str):
    return lambda path, head, size: "" if head.startswith(mark) else f"is not {what}"


def _openvino(path: Path, head: bytes, size: int) -> str:
    """The XML of a network of OpenVINO, from its first element to its end."""
    with open(path, "rb") as handle:
        first = handle.read(512)
        handle.seek(max(0, size - 64))
        last = handle.read()
    if b"<net" not in first:
        return "is not a network of OpenVINO"
    return "" if last.rstrip().endswith(b"</net>") else _CUT


_CHECKS = {".safetensors": _safetensors, ".npz": _zip, ".onnx": _onnx, ".xml": _openvino,
           ".npy": _starts(b"\x93NUMPY", "a NumPy array"),
           ".h5": _starts(b"\x89HDF", "an HDF5 file"),
           ".param": _starts(b"7767517", "a network of ncnn"),
           **dict.fromkeys((".pth", ".pt", ".ckpt", ".pkl"), _torch)}
