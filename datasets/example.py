"""Five people who do not exist, six images of each: `synthetic:5` as JPEG, inside this package.

For examples and tests, which then need no network, nothing drawn before, and nobody's face.
`invoke faces` made them (datasets/faces/ORIGIN.md).
"""

from __future__ import annotations

from pathlib import Path

from fsrbench.engine.data import Entry, Source, dataset
from fsrbench.errors import FsrError
from fsrbench.methods.common.mobilestylegan import LICENCE

ROOT = Path(__file__).parent / "faces"


@dataset("example", "five people who do not exist, six images of each; comes with this package")
def example(argument: str) -> Source:
    """The images of datasets/faces."""
    if argument:
        raise FsrError(f"data set example:{argument}", "takes no argument",
                       "write example, or folder:PATH for images of yours", code=2)
    entries = tuple(Entry(path.parent.name, path.name, f"{path.parent.name}/{path.name}")
                    for path in sorted(ROOT.glob("*/*.jpg")))
    return Source("example", ROOT, entries, LICENCE, aligned=True,
                  remarks="faces of nobody, by MobileStyleGAN")
