"""Images that another program wrote, as a method: `--method outputs:PATH` or `outputs:NAME=PATH`.

Each sample's restoration is read from PATH/PERSON/IMAGE.png (or, in one flat folder, from
PATH/PERSON_IMAGE.png), so that a method of another repository stands in every table, figure and
report beside the registered ones. See `invoke inputs` for what it has to restore, and `invoke
score` for images that are of no data set here.
"""

from __future__ import annotations

import numpy as np

from fsrbench.core import Batch, Method
from fsrbench.engine.outputs import (
    Folder,
    content_of,
    match,
    named,
    open_folder,
    read_output,
)
from fsrbench.imaging import digest, to_float
from fsrbench.registry import maker


class Outputs(Method):
    """A folder of restorations."""

    weights = "given"
    licence = "the user's"
    origin = "images written by another program"
    folder: Folder
    content: str

    def settings(self) -> str:
        """Content of all files."""
        return self.content

    def restore(self, batch: Batch) -> np.ndarray:
        """(N, 3, S, S) in [0, 1], as the files have them; what is missing or wrong is a failure of
        its sample."""
        found = match(batch.ids, self.folder, loose=False)
        images = np.zeros((len(batch), batch.size, batch.size, 3), np.uint8)
        for i, name in enumerate(batch.ids):
            image, fault = None, found.faults.get(name, "")
            if not fault:
                image, fault = read_output(found.files[name], batch.size)
            if image is None:
                batch.failures[i] = fault
            else:
                images[i] = image
        return to_float(images)


def _describe() -> str:
    return "images that another program wrote, PERSON/IMAGE.png; see `invoke inputs`"


def _content(folder: Folder) -> str:
    """Digest of all names and contents of a folder."""
    words = [f"{name}|{'|'.join(map(content_of, files))}"
             for name, files in sorted(folder.files.items())]
    return digest("\n".join(words).encode())


_made: dict[tuple[str, str], type[Outputs]] = {}


@maker("outputs", "[NAME=]PATH", _describe)
def outputs(argument: str) -> type[Outputs]:
    """The method of a folder; its name is that of the folder, unless NAME= stands before the path.

    Raises:
        FsrError: there is no such folder, or no image in it.
    """
    it = named(argument, "method outputs:")
    folder = open_folder(it.path, "method outputs:")
    key = it.plain, _content(folder)
    if key not in _made:
        _made[key] = type("GivenOutputs", (Outputs,), {
            "__module__": __name__, "__doc__": f"Images of {it.title}.",
            "name": f"outputs:{it.plain}", "title": it.title, "content": key[1]})
    _made[key].folder = folder
    return _made[key]
