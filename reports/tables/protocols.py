"""Published evaluation protocols as data, one file each in reports/protocols: which metrics with
which options, the one score, and which faults of the official script are not repeated."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fsrbench.errors import FsrError, reason, unknown
from fsrbench.metrics import Metric, family
from fsrbench.reports.tables.table import Row, Table

FOLDER = Path(__file__).resolve().parents[1] / "protocols"
_WIDTH = 100


@dataclass(frozen=True)
class Entry:
    """A metric of a protocol.

    Args:
        says: as the protocol calls it; metric: ours, or one of no function that stands for it.
        lacks: why it cannot be measured here, with the remedy; empty where it can.
        near: of the same kind, measured beside it under its own id; None where none can be.
        note: in what ours differs.
    """

    says: str
    metric: Metric
    lacks: str = ""
    near: Metric | None = None
    note: str = ""


@dataclass(frozen=True)
class Protocol:
    """A protocol.

    Args:
        name: of its file; title, source, data, stated: in words.
        needs: options of `invoke score` that it cannot do without; side: of its images in pixels.
        entries: metrics in its order; faults: of its script, not repeated here.
        formula: its one score in words, empty without; terms: what it sums.
    """

    name: str
    title: str
    source: str
    data: str
    needs: tuple[str, ...]
    side: int | None
    stated: str
    entries: tuple[Entry, ...]
    faults: tuple[str, ...]
    formula: str = ""
    terms: tuple[Mapping, ...] = ()

    @property
    def columns(self) -> tuple[Metric, ...]:
        """Metrics of a table, each followed by what is near it."""
        return tuple(dict.fromkeys(m for e in self.entries for m in (e.metric, e.near) if m))

    @property
    def lacks(self) -> dict[str, str]:
        """Why metrics of no function cannot be measured, by id."""
        return {e.metric.id: e.lacks for e in self.entries if e.metric.kind == "absent"}

    def check(self, options: Mapping[str, object]) -> None:
        """Refuse a call without what it needs.

        Raises:
            FsrError: an option is missing.
        """
        for name in self.needs:
            if not options[name]:
                raise FsrError(f"--protocol {self.name}", f"needs --{name} DIR ({self.data})",
                               "see `invoke protocols --name NAME`", code=2)


def _one(name: str) -> Metric:
    found = family(name)
    if len(found) != 1:
        raise KeyError(f"{name} is {len(found)} metrics")
    return found[0]


def _entry(protocol: str, said: Mapping) -> Entry:
    near = _one(said["near"]) if "near" in said else None
    near = near if near and not near.missing() else None
    if "use" in said:
        ours = _one(said["use"])
        return Entry(said["says"], ours, ours.missing(), near, said.get("note", ""))
    absent = Metric(f"{said['says'].lower().replace(' ', '-')}@{protocol}",
                    f"{said['says']} ({protocol})", said["direction"], "absent", len)
    return Entry(said["says"], absent, f"needs {said['lacking']}; {said['remedy']}", near)


@cache
def protocols() -> dict[str, Protocol]:
    """All protocols by name.

    Raises:
        FsrError: a file is damaged.
    """
    found = {}
    for path in sorted(FOLDER.glob("*.toml")):
        try:
            said = tomllib.loads(path.read_text(encoding="utf-8"))
            score = said.get("score", {})
            found[path.stem] = Protocol(
                path.stem, said["title"], said["source"], said["data"], tuple(said["needs"]),
                said.get("size"), said.get("stated", ""),
                tuple(_entry(path.stem, one) for one in said["metric"]), tuple(said["faults"]),
                score.get("says", ""), tuple(score.get("terms", ())))
        except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise FsrError(f"protocol {path}", f"is damaged ({reason(error)})",
                           "mend the file") from None
    return found


def get_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        FsrError: there is none.
    """
    if name not in protocols():
        raise unknown("protocol", name, list(protocols()))
    return protocols()[name]


def _score_of(protocol: Protocol, row: Row) -> tuple[float, list[str]]:
    """The one score of a row, and which of its terms have no value of all images."""
    of, total, missing = {e.says: e.metric for e in protocol.entries}, 0.0, []
    for term in protocol.terms:
        summary = row.values[of[term["metric"]].id].summary
        if summary is None or not summary.n_ok or summary.n_failed or row.n_failed:
            missing.append(term["metric"])
            continue
        total += (max(0.0, term["from"] - summary.mean) if "from" in term else summary.mean) \
            / term["over"]
    return total, missing


def notes(protocol: Protocol, table: Table) -> list[str]:
    """What a reader of a table under a protocol must know."""
    lines = [f"Protocol {protocol.name}: {protocol.title} ({protocol.source}); its data: "
             f"{protocol.data}."]
    lines += [protocol.stated] if protocol.stated else []
    lines += [f"Not repeated: {fault}." for fault in protocol.faults]
    lines += [f"{e.says}: {e.note}." for e in protocol.entries if e.note]
    lines += [f"{e.near.title} ({e.near.id}) stands beside {e.says}, which is n/a here: another "
              "number." for e in protocol.entries if e.near and e.lacks]
    for row in (row for rows in table.blocks.values() for row in rows if protocol.terms):
        total, missing = _score_of(protocol, row)
        lines.append(f"Score of {row.title}: " + (
            f"n/a, as {', '.join(missing)} have no value of all images; fewer terms are no Score"
            if missing else f"{total:.4f} ({protocol.formula})") + ".")
    return lines


def listing(name: str | None = None) -> str:
    """What there is and what is missing here, in lines of at most 100 characters; of one protocol
    everything."""
    chosen = [get_protocol(name)] if name else list(protocols().values())
    return "\n".join(_listed(protocol, bool(name)) for protocol in chosen)


def _listed(protocol: Protocol, whole: bool) -> str:
    here = [f"{e.says} ({e.metric.id})" if whole else e.says for e in protocol.entries
            if not e.lacks]
    lines = [("here", ", ".join(here) or "nothing")]
    missing = [e for e in protocol.entries if e.lacks]
    if not whole:
        lines += [("missing", ", ".join(e.says for e in missing))] if missing else []
        return _wrapped(protocol.name, [(f"{protocol.title}", ""), *lines])
    lines += [("missing", f"{e.says}: {e.lacks}" + (f"; beside it {e.near.id}" if e.near else ""))
              for e in missing]
    lines += [("source", protocol.source), ("data", protocol.data)]
    lines += [("needs", ", ".join(f"--{n}" for n in protocol.needs))] if protocol.needs else []
    lines += [("size", f"{protocol.side} px")] if protocol.side else []
    lines += [("score", protocol.formula)] if protocol.formula else []
    lines += [("note", protocol.stated)] if protocol.stated else []
    lines += [("not repeated", fault) for fault in protocol.faults]
    return _wrapped(protocol.name, [(protocol.title, ""), *lines])


def _wrapped(name: str, lines: list[tuple[str, str]]) -> str:
    first, *others = lines
    out = textwrap.wrap(f"{name:10}{first[0]}", _WIDTH, subsequent_indent=" " * 10)
    for label, text in others:
        out += textwrap.wrap(f"{label}: {text}", _WIDTH, initial_indent=" " * 10,
                             subsequent_indent=" " * 12, break_on_hyphens=False)
    return "\n".join(out)
