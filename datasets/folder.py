"""Anybody's album: `folder:PATH` with `<person>/<image>`, images of any size and framing.

`aligned:PATH` is the same for images that are FFHQ-aligned already (CelebRef-HQ crops, FFHQ
itself): they are resized, not aligned again.
"""

from __future__ import annotations

from pathlib import Path

from fsrbench.engine.data import Source, dataset
from fsrbench.engine.findings import Findings
from fsrbench.engine.folders import people_folder
from fsrbench.errors import FsrError


def _album(name: str, argument: str, aligned: bool) -> Source:
    if not argument:
        raise FsrError(f"data set {name}", "needs a folder", f"write {name}:PATH", code=2)
    root, findings = Path(argument).expanduser(), Findings()
    return Source(name, root, people_folder(root, f"data set {name}", findings),
                  licence="the user's own images", aligned=aligned, findings=findings)


@dataset("folder", "any album: folder:PATH with <person>/<image>, of any size")
def folder(argument: str) -> Source:
    """A reference set whose faces are detected and aligned."""
    return _album("folder", argument, aligned=False)


@dataset("aligned", "a reference set that is FFHQ-aligned already: aligned:PATH")
def aligned(argument: str) -> Source:
    """A reference set whose images are FFHQ-aligned."""
    return _album("aligned", argument, aligned=True)
