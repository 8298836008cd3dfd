"""Labeled Faces in the Wild: 5,749 people, 13,233 press photographs (Huang et al. 2007).

`lfw` looks in scikit-learn's data home (`sklearn.datasets.fetch_lfw_people` puts it there),
`lfw:PATH` in a folder of people, whatever the crop. The protocol draws a tenth of the people, as
the paper does of CelebRef-HQ; the rest trains.
"""

from __future__ import annotations

from pathlib import Path

from fsrbench.engine.data import Source, dataset
from fsrbench.engine.findings import Findings
from fsrbench.engine.folders import people_folder
from fsrbench.errors import FsrError

RATE = 0.1


def _data_home() -> Path:
    from sklearn.datasets import get_data_home

    for name in ("lfw_funneled", "lfw"):
        folder = Path(get_data_home()) / "lfw_home" / name
        if folder.is_dir():
            return folder
    raise FsrError("data set lfw", "is not in scikit-learn's data home",
                   "run `python -c 'from sklearn.datasets import fetch_lfw_people as f; f()'`, or "
                   "give lfw:PATH")


@dataset("lfw", "Labeled Faces in the Wild; scikit-learn's data home, or lfw:PATH")
def lfw(argument: str) -> Source:
    """LFW from a folder of people, or from scikit-learn's data home."""
    root, findings = Path(argument).expanduser() if argument else _data_home(), Findings()
    return Source("lfw", root, people_folder(root, "data set lfw", findings), rate=RATE,
                  findings=findings,
                  licence="LFW, University of Massachusetts; press photographs, research use")
