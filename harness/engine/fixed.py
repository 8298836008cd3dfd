"""What a user fixes of the protocol that the seed draws otherwise: `--split` and `--references`.

Both are CSV files of image ids, `<person>/<image>`. `image,split` says of each image whether it is
for training, for fine-tuning (the reference set), for test, or unused; the CSV that `invoke
prepare` freezes is one too. `image,references` gives for a test image its references, one a column,
of which the first is I_R; alone it makes the images that it gives as references the reference set
of their person.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fsrbench.engine.data import FINETUNE, TEST, TRAIN, UNUSED, Source
from fsrbench.engine.findings import together
from fsrbench.errors import FsrError, reason, unknown
from fsrbench.imaging import digest

PARTS = (TRAIN, FINETUNE, TEST, UNUSED)


@dataclass(frozen=True)
class Fixed:
    """The files of `--split` and `--references`, as typed; empty for what the seed draws."""

    split: str = ""
    references: str = ""

    def digests(self) -> dict[str, str | None]:
        """sha256 of each file by option, None where there is none: for the record of a run."""
        return {name: digest(_bytes(f"--{name}", path)) if path else None
                for name, path in vars(self).items()}

    @property
    def rule(self) -> str:
        """What is fixed, in half a sentence; empty if nothing is."""
        return " and ".join(f"{Path(path).name} (--{name}, sha256 {self.digests()[name][:12]})"
                            for name, path in vars(self).items() if path)


def _bytes(option: str, path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or reason(error)
        raise FsrError(f"{option} {path}", f"cannot be read ({why})", "check the path",
                       code=2) from None


def wrong(option: str, path: str, cause: str) -> FsrError:
    """The error of a file that says what cannot be."""
    return FsrError(f"{option} {path}", cause, "mend the file", code=2)


def csv_rows(option: str, path: str, second: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of a CSV file whose first cell is an image's id, the others being of the column
    `second` on."""
    try:
        rows = list(csv.reader(io.StringIO(_bytes(option, path).decode("utf-8-sig"), newline=""),
                               strict=True))
    except (ValueError, csv.Error) as error:
        raise wrong(option, path, f"is no CSV in UTF-8 ({reason(error)})") from None
    head = rows[0] if rows else []
    if "image" not in head or second not in head:
        raise wrong(option, path, f"has no columns image and {second} in its first line, which "
                    f"is {','.join(head)[:60]!r}")
    image, values = head.index("image"), head.index(second)
    if second == "references" and values < image:
        raise wrong(option, path, "has the column image behind references, of which there may be "
                    "several")
    person = head.index("person") if "person" in head and second != "person" else None
    for line, row in enumerate(rows[1:], 2):
        if not any(row):
            continue
        if len(row) <= max(image, values):
            raise wrong(option, path, f"line {line} has {len(row)} cells, too few")
        name = row[image] if person is None else f"{row[person]}/{row[image]}"
        yield line, [name, *(row[values:] if second == "references" else row[values:values + 1])]


def _checked(option: str, path: str, line: int, name: str, known: Mapping[str, str],
             data: str) -> str:
    if name not in known:
        hint = unknown("image", name, list(known)).remedy.partition("known:")[0].strip()
        raise wrong(option, path, f"line {line}: {data} has no image {name!r}"
                     + (f", {hint}" if hint else ""))
    return name


def read_split(path: str, known: Mapping[str, str], data: str) -> dict[str, str]:
    """Train, fine-tune, test or unused by image id.

    Args:
        known: person by image id, of the data set called `data`.

    Raises:
        FsrError: the file is not such a CSV, an id is unknown or there twice, or a person is in two
            parts that exclude each other.
    """
    split: dict[str, str] = {}
    for line, (name, part) in csv_rows("--split", path, "split"):
        _checked("--split", path, line, name, known, data)
        if part not in PARTS:
            raise wrong("--split", path, f"line {line}: {part!r} is none of {', '.join(PARTS)}")
        if name in split:
            raise wrong("--split", path, f"line {line}: {name} is there twice")
        split[name] = part
    trained = {known[name] for name, part in split.items() if part == TRAIN}
    for name, part in split.items():
        if part in (FINETUNE, TEST) and known[name] in trained:
            raise wrong("--split", path, f"person {known[name]} is in {TRAIN} and in {part}")
    if TEST not in split.values():
        raise wrong("--split", path, "has no image for test")
    return split


def read_references(path: str, known: Mapping[str, str], data: str,
                    split: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """References by the id of a test image; `known` and `data` as for `read_split`.

    Args:
        split: of `--split`, which they must keep to; empty without.

    Raises:
        FsrError: the file is not such a CSV, an id is unknown, an image is its own reference or
            another's, a reference is of another person, or they are not in the halves of the split.
    """
    option, found = "--references", {}
    for line, cells in csv_rows(option, path, "references"):
        names = [_checked(option, path, line, name, known, data) for name in cells if name]
        image, own = names[0], tuple(names[1:])
        why = (f"{image} is there twice" if image in found else f"{image} has no reference"
                 if not own else \
             f"{image} is its own reference" if image in own else "")
        why = why or next((f"{name} is of another person than {image}"
                               for name in own if known[name] != known[image]), "")
        why = why or next((f"{name} is {split.get(name, UNUSED)} in the split, not {part}"
                               for name, part in
                               ((image, TEST), *((name, FINETUNE) for name in own)) if split
                               and split.get(name) != part), "")
        if why:
            raise wrong(option, path, f"line {line}: {why}")
        found[image] = own
    for name in (name for own in found.values() for name in own):
        if name in found:
            raise wrong(option, path, f"{name} is a ground truth and a reference")
    if not found:
        raise wrong(option, path, "has no image")
    return found


def fix(source: Source, files: Fixed) -> Source:
    """A source whose halves and references are those of the files; images that they do not name are
    remarked and left out.

    Raises:
        FsrError: see `read_split` and `read_references`.
    """
    if files == Fixed():
        return source
    known = {e.id: e.person for e in source.entries}
    split = read_split(files.split, known, source.name) if files.split else {}
    references = read_references(files.references, known, source.name,
                                 split) if files.references else {}
    if not split:
        split = dict.fromkeys(references, TEST) | {name: FINETUNE for own in references.values()
                                                   for name in own}
    used = {name: part for name, part in split.items() if part != UNUSED}
    findings = together([source.findings])
    if others := [name for name in known if name not in split]:
        findings.remarks.add("not in the files of the split, unused", *others)
    return replace(source, entries=tuple(e for e in source.entries if e.id in used), split=used,
                   references=references, findings=findings)
