"""Images that another program wrote, as a method: `--method outputs:PATH` or `outputs:NAME=PATH`.

Each sample's restoration is read from PATH/PERSON/IMAGE.png (or, in one flat folder, from
PATH/PERSON_IMAGE.png), so that a method of another repository stands in every table, figure and
report beside the registered ones. See `invoke inputs` for what it has to restore, and `invoke
score` for images that are of no data set here.
"""

from __future__ import annotations

import re
from functools import cached_property

import numpy as np

from fsrbench.core import Batch, Method
from fsrbench.engine.outputs import Folder, Matched, match, open_folder, read_output
from fsrbench.errors import FsrError
from fsrbench.imaging import digest, to_float
from fsrbench.registry import maker
from fsrbench.weights.catalogue import file_digest


class Outputs(Method):
    """A folder of restorations."""

    weights = "given"
    profiles = ("mini", "paper", "given")
    licence = "the user's"
    origin = "images written by another program"
    folder: Folder
    allow: frozenset[str] = frozenset()
    content: str
    # All images that the files may be of, where that is known; names without their folder then
    # serve as well.
    ids: tuple[str, ...] = ()

    @cached_property
    def whole_match(self) -> Matched | None:
        """Which file is whose of all images, found once; None where they are not known."""
        return match(self.ids, self.folder) if self.ids else None

    def settings(self) -> str:
        """Content of all files, and what is allowed of them."""
        return f"{self.content} {sorted(self.allow)} {digest(repr(self.ids).encode())}"

    def restore(self, batch: Batch) -> np.ndarray:
        """(N, 3, S, S) in [0, 1], as the files have them; what is missing or wrong is a failure of
        its sample."""
        found = self.whole_match or match(batch.ids, self.folder, loose=False)
        images = np.zeros((len(batch), batch.size, batch.size, 3), np.uint8)
        for i, name in enumerate(batch.ids):
            image, fault = None, found.faults.get(name, "")
            if not fault:
                image, fault = read_output(found.files[name], batch.size, self.allow)
            if image is None:
                batch.failures[i] = fault
            else:
                images[i] = image
        return to_float(images)


def _describe() -> str:
    return "images that another program wrote, PERSON/IMAGE.png; see `invoke inputs`"


def content_of(folder: Folder) -> str:
    """Digest of all names and contents of a folder."""
    words = [f"{name}|{'|'.join(file_digest(file) for file in files)}"
             for name, files in sorted(folder.files.items())]
    return digest("\n".join(words).encode())


_made: dict[tuple, type[Outputs]] = {}


@maker("outputs", "[NAME=]PATH", _describe)
def outputs(argument: str, allow: frozenset[str] = frozenset(),
            ids: tuple[str, ...] = ()) -> type[Outputs]:
    """The method of a folder; its name is that of the folder, unless NAME= stands before the path.

    Args:
        allow: of `engine.outputs.ALLOWED`; ids: of all images, see `Outputs.ids`.

    Raises:
        FsrError: there is no such folder, or no image in it.
    """
    name, given, path = argument.rpartition("=")
    if not given or "/" in name:
        name, path = "", argument
    folder = open_folder(path, "method outputs:")
    title = name or folder.root.resolve().name
    # The name stands in tables of five formats, so it holds nothing that one of them would read as
    # markup.
    plain = re.sub(r"[^\w.+-]+", "_", title).strip("_")
    if not plain:
        raise FsrError(f"method outputs:{argument}", "its name has no letter",
                       "write outputs:NAME=PATH", code=2)
    key = plain, content_of(folder), allow, ids
    if key not in _made:
        _made[key] = type("GivenOutputs", (Outputs,), {
            "__module__": __name__, "__doc__": f"Images of {title}.", "name": f"outputs:{plain}",
            "title": re.sub(r"[|*_<>&$\\{}#%]+", " ", title).strip(), "content": key[1],
            "allow": allow, "ids": ids})
    _made[key].folder = folder
    return _made[key]
