"""MXNet's RecordIO as InsightFace publishes face sets in it (train.rec, train.idx, property), read
without MXNet.

A record is a little-endian word 0xced7230a, a word whose upper three bits say whether it is whole
(0) or the first, a middle or the last part of one (1, 2, 3) and whose lower 29 bits are the length,
the data, and zeros up to a multiple of four. Where the data held the magic word at a multiple of
four, the writer cut there and left it out; the reader puts it back. The data begins with (uint32
flag, float32 label, uint64 id, uint64 id2); flag > 0 says that so many float32 labels follow, and
what remains is the encoded image. InsightFace's record 0 holds no image: its two labels are the
first and the end of the range of identity records, each of which holds the range of one person's
images; all before are images.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fsrbench.engine.findings import Excluded, Findings
from fsrbench.errors import FsrError

MAGIC = 0xCED7230A
_WORDS, _HEADER = struct.Struct("<II"), struct.Struct("<IfQQ")
_LENGTH = (1 << 29) - 1
_REMEDY = "fetch the record files again"
# An index that was cut short lacks records; one that lacks more than so many times what it holds is
# another's.
_MOST = 10


@dataclass(frozen=True)
class Record:
    """One record: its labels, and where the encoded image begins in its data."""

    labels: tuple[float, ...]
    data: bytes
    start: int

    @property
    def image(self) -> bytes:
        """The encoded image; empty in a header."""
        return self.data[self.start:]


def _parts(buffer, offset: int, name: str) -> Iterator[bytes]:
    """The parts of the record at an offset, each without frame and padding."""
    expected = (0, 1)
    while True:
        if offset < 0 or offset + _WORDS.size > len(buffer):
            raise FsrError(f"{name} at byte {offset}", f"lies beyond the end ({len(buffer)} bytes)",
                           _REMEDY)
        magic, word = _WORDS.unpack_from(buffer, offset)
        part, length, begin = word >> 29, word & _LENGTH, offset + _WORDS.size
        if magic != MAGIC:
            raise FsrError(f"{name} at byte {offset}", f"magic is 0x{magic:08x}, not 0x{MAGIC:08x}",
                           _REMEDY)
        if part not in expected:
            raise FsrError(f"{name} at byte {offset}",
                           f"is part {part} of a record, where {expected} may stand", _REMEDY)
        if begin + length > len(buffer):
            raise FsrError(f"{name} at byte {offset}", f"its {length} bytes go beyond the end",
                           _REMEDY)
        yield buffer[begin:begin + length]
        if part in (0, 3):
            return
        offset, expected = begin + (length + 3) // 4 * 4, (2, 3)


def read_record(buffer, offset: int, name: str = "record") -> Record:
    """The record at an offset of a buffer (bytes or a memory map).

    Raises:
        FsrError: there is no whole record.
    """
    data = struct.pack("<I", MAGIC).join(_parts(buffer, offset, name))
    if len(data) < _HEADER.size:
        raise FsrError(f"{name} at byte {offset}", f"has {len(data)} bytes, too few for its header",
                       _REMEDY)
    flag, label, _, _ = _HEADER.unpack_from(data)
    start = _HEADER.size + 4 * flag
    if start > len(data):
        raise FsrError(f"{name} at byte {offset}", f"announces {flag} labels in {len(data)} bytes",
                       _REMEDY)
    return Record(struct.unpack_from(f"<{flag}f", data, _HEADER.size) if flag else (label,), data,
                  start)


def read_index(path: Path, excluded: Excluded) -> dict[int, int]:
    """Offsets by record number of a .idx file; a number that stands there twice is left out and
    named.

    Raises:
        FsrError: a line is not two whole numbers.
    """
    offsets: dict[int, int] = {}
    twice = set()
    for number, line in enumerate(path.read_text(encoding="ascii", errors="replace").splitlines(),
                                  1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not all(word.isascii() and word.isdigit() for word in words):
            raise FsrError(f"{path.name} line {number}",
                           f"is {line[:40]!r}, not a record's number and offset", _REMEDY)
        key = int(words[0])
        twice |= {key} & offsets.keys()
        offsets[key] = int(words[1])
    for key in sorted(twice):
        excluded.add(f"record number twice in {path.name}", str(key))
        del offsets[key]
    return offsets


def mapped(path: Path) -> mmap.mmap:
    """A file in memory, read on demand.

    Raises:
        FsrError: it is empty or cannot be read.
    """
    try:
        with open(path, "rb") as handle:
            return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise FsrError(f"record file {path}", f"cannot be read ({error})", _REMEDY) from None


@dataclass(frozen=True)
class Listed:
    """An image of a record file: its number, label and offset."""

    number: int
    label: int
    offset: int


def listed_records(rec: Path, idx: Path, findings: Findings) -> list[Listed]:
    """All images of a record file, by number; records that are damaged are left out and named.

    With InsightFace's record 0 the images are those that it counts, and those that the index lacks
    are named; without it every record is an image.

    Raises:
        FsrError: the index is damaged, or record 0 is.
    """
    offsets, buffer = read_index(idx, findings), mapped(rec)
    if not offsets:
        raise FsrError(f"record index {idx}", "is empty", _REMEDY)
    # Record 0 is a header where it holds two labels and no image.
    first = read_record(buffer, offsets[0], f"{rec.name} record 0") if 0 in offsets else None
    headed = first is not None and len(first.labels) == 2 and not first.image
    if headed and not 1 <= first.labels[0] <= first.labels[1] <= _MOST * (max(offsets) + 1):
        raise FsrError(f"{rec.name} record 0",
                       f"announces images up to {first.labels[0]:.6g} and people up to "
                       f"{first.labels[1]:.6g}, {idx.name} holds {len(offsets)} records", _REMEDY)
    numbers = range(1, int(first.labels[0])) if headed else sorted(offsets)
    found = []
    for number in numbers:
        if number not in offsets:
            findings.add(f"not in {idx.name}", f"record {number}")
            continue
        try:
            record = read_record(buffer, offsets[number], f"{rec.name} record {number}")
        except FsrError as error:
            findings.add("damaged record", f"{error.thing} {error.cause}")
            continue
        if not abs(record.labels[0]) < 1 << 31:
            findings.add("damaged record",
                         f"{rec.name} record {number} has the label {record.labels[0]}")
            continue
        found.append(Listed(number, int(record.labels[0]), offsets[number]))
    if headed:
        _check_identities(buffer, offsets, first, found, findings.remarks)
    return found


def _check_identities(buffer, offsets: dict[int, int], first: Record, found: list[Listed],
                      remarks: Excluded) -> None:
    """Name identity records that are missing, damaged, or whose images carry another label than
    their first."""
    label = {one.number: one.label for one in found}
    for number in range(int(first.labels[0]), int(first.labels[1])):
        try:
            begin, end = map(int, read_record(buffer, offsets[number]).labels[:2])
            if end - begin > len(offsets):
                raise ValueError
        except (KeyError, ValueError, OverflowError, FsrError):
            remarks.add("identity record missing or damaged", str(number))
            continue
        if len({label[n] for n in range(begin, end) if n in label}) > 1:
            remarks.add("identity record whose images differ in label", str(number))


def read_image(root: Path, path: str) -> bytes:
    """Encoded image behind "train.rec@OFFSET" below the root."""
    name, _, offset = path.rpartition("@")
    with mapped(root / name) as buffer:
        return read_record(buffer, int(offset), name).image
