"""Frames of mp4 clips by PyAV (LGPL's FFmpeg, BSD binding), streamed: one decoded frame is in
memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fsrbench.errors import FsrError

_REMEDY = "fetch the clip again"


def check_whole(path: Path) -> None:
    """Whether an mp4 file's boxes fill it to the end; a download that broke off leaves the last one
    short.

    Raises:
        FsrError: they do not, or it is no mp4.
    """
    size, at, kinds = path.stat().st_size, 0, []
    with open(path, "rb") as handle:
        while at + 8 <= size:
            handle.seek(at)
            head = handle.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            kinds.append(head[4:8])
            at = size if length == 0 else at + max(length, 8)
    if b"ftyp" not in kinds[:1]:
        raise FsrError(f"clip {path.name}", "is not an mp4 file", _REMEDY)
    if at != size or b"moov" not in kinds:
        raise FsrError(f"clip {path.name}", "is cut short", _REMEDY)


def duration(path: Path) -> float:
    """Seconds that a clip lasts.

    Raises:
        FsrError: it cannot be opened or has no image track.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        return float(stream.duration * stream.time_base) if stream.duration else (container.duration
                                                                                  or 0) / 1e6


def _opened(path: Path):
    import av

    check_whole(path)
    try:
        # What a clip says of itself need not be UTF-8.
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise FsrError(f"clip {path.name}", f"cannot be opened ({type(error).__name__})",
                       _REMEDY) from None
    if not container.streams.video:
        container.close()
        raise FsrError(f"clip {path.name}", "has no images", _REMEDY)
    return container


def frames(path: Path, step: int) -> Iterator[tuple[int, np.ndarray]]:
    """(number, uint8 RGB image) of frames 0, step, 2 step, ... of a clip.

    Raises:
        FsrError: the clip is cut short or cannot be decoded.
    """
    import av

    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for number, frame in enumerate(container.decode(stream)):
                if frame.is_corrupt:
                    raise FsrError(f"clip {path.name}", f"frame {number} is damaged", _REMEDY)
                if number % step == 0:
                    yield number, frame.to_ndarray(format="rgb24")
        except av.FFmpegError as error:
            raise FsrError(f"clip {path.name}", f"cannot be decoded ({type(error).__name__})",
                           _REMEDY) from None
