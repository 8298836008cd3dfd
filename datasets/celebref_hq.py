"""CelebRef-HQ (Li et al. 2022): 1,005 people, 10,555 FFHQ-aligned pictures of 512 px; `celebref-hq:PATH`.

The protocol draws a tenth of the people (paper 4.1); pictures are resized to the profile's size, not aligned again.
"""

from __future__ import annotations

from pathlib import Path

from fsrbench.data import Source, dataset, people_folder
from fsrbench.errors import FsrError


@dataset("celebref-hq", "CelebRef-HQ as published, <id>/<n>.png of 512 px: celebref-hq:PATH")
def celebref_hq(argument: str) -> Source:
    """CelebRef-HQ from a folder."""
    if not argument:
        raise FsrError("data set celebref-hq", "is not in any package", "fetch it from its authors (DMDNet) and write "
                       "--data celebref-hq:PATH", code=2)
    root = Path(argument).expanduser()
    return Source("celebref-hq", root, people_folder(root, "data set celebref-hq"), rate=0.1, aligned=True,
                  licence="CelebRef-HQ, Li et al. 2022; celebrities' photographs, research use")
