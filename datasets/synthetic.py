"""People who do not exist: `synthetic:N` draws N from a generator of faces, six images each.

`synthetic:N:SEED` draws others (0 unless told). The images are made once, into the cache, under a
digest of all that decides them; N people are the first N of more. They are in FFHQ's frame. How
they are drawn and judged: datasets/common/people.py.
"""

from __future__ import annotations

import json
from pathlib import Path

from fsrbench.datasets.common import people
from fsrbench.engine.data import Entry, Source, dataset
from fsrbench.engine.keys import code_digest, digest_of, preparation_digest
from fsrbench.engine.store import locked, write_atomic
from fsrbench.errors import FsrError
from fsrbench.imaging import encode_png, load
from fsrbench.methods.common.mobilestylegan import LICENCE, WEIGHTS
from fsrbench.progress import progress
from fsrbench.weights.catalogue import cache_folder, get_entry

_INDEX = "index.json"
# The names of more people would not sort.
_MOST = 9999


def _number(word: str, least: int, argument: str) -> int:
    if not (word.isascii() and word.isdecimal() and least <= int(word) <= _MOST):
        raise FsrError(f"data set synthetic:{argument}",
                       f"{word!r} is no whole number of {least} to {_MOST}",
                       "write synthetic:N or synthetic:N:SEED", code=2)
    return int(word)


def folder_of(seed: int, judges: dict[str, people.Judge]) -> Path:
    """Where the people of a seed are kept: by the code, weights and detectors that decide them."""
    weights = [f"{name}={get_entry(name).sha256}" for name in (*WEIGHTS, *judges)]
    key = digest_of(seed, code_digest(people.__name__), preparation_digest(), *weights)
    return cache_folder() / "synthetic" / key[:16]


def _index(folder: Path) -> dict:
    """What is there: how many people were tried; of those kept, how many images were drawn and kept
    until each was there; and these counts as they stand."""
    path = folder / _INDEX
    if not path.exists():
        return {"tried": 0, "people": [], "drawn": 0, "kept": 0, "refused": {}}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise FsrError(f"data set synthetic {path}", "is damaged", f"delete {folder}") from None


def _name(number: int) -> str:
    return f"p{number:04d}"


def _write(folder: Path, number: int, faces: list[people.Face]) -> None:
    for i, face in enumerate(faces):
        write_atomic(folder / _name(number) / f"{i}.png", encode_png(face.image))


def _complete(folder: Path, wanted: int, seed: int, judges: dict[str, people.Judge]) -> dict:
    """Draw people until so many are there; returns the index. Others who want some wait, and find
    them drawn."""
    if len((index := _index(folder))["people"]) >= wanted:
        return index
    with locked(folder / _INDEX):
        return _drawn(folder, wanted, seed, judges, _index(folder))


def _drawn(folder: Path, wanted: int, seed: int, judges: dict[str, people.Judge],
           index: dict) -> dict:
    """The index after so many people, each kept as soon as it is drawn."""
    before = [people.seen(judges, load(folder / _name(i) / "0.png"))
              for i in range(len(index["people"]))]
    count = people.Count(index["drawn"], index["kept"], index["refused"])
    with progress(total=wanted, desc="drawing people", unit="person") as bar:
        bar.update(len(before))
        while len(before) < wanted:
            faces = people.person(judges, before, count, "synthetic", seed, index["tried"])
            if faces:
                _write(folder, len(before), faces)
                before.append(faces[0])
                index["people"].append([count.drawn, count.kept])
                bar.update()
            index |= {"tried": index["tried"] + 1, **vars(count)}
            write_atomic(folder / _INDEX, json.dumps(index, indent=1).encode())
    return index


def _remarks(counts: list[int], seed: int, judges: dict[str, people.Judge]) -> str:
    absent = [name for name in people.JUDGES if name not in judges]
    return (f"faces of nobody, by MobileStyleGAN (seed {seed}); {counts[1]} of "
            f"{counts[0]} images drawn were kept; {' and '.join(judges) or 'nobody'} judged that "
            "each person is one and no other"
            + (f"; not here to judge: {', '.join(absent)}" if absent else ""))


@dataset("synthetic", "people who do not exist: synthetic:N, six images of each")
def synthetic(argument: str) -> Source:
    """N people of a seed, drawn now where they are not in the cache."""
    count, _, seed = argument.partition(":")
    wanted, seed = _number(count, 1, argument), _number(seed or "0", 0, argument)
    judges = people.panel()
    folder = folder_of(seed, judges)
    index = _complete(folder, wanted, seed, judges)
    entries = [Entry(_name(p), f"{i}.png", f"{_name(p)}/{i}.png")
               for p in range(wanted) for i in range(people.IMAGES)]
    return Source("synthetic", folder, tuple(entries), LICENCE, aligned=True,
                  remarks=_remarks(index["people"][wanted - 1], seed, judges))
