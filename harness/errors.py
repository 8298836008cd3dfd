"""The one error that reaches a user: what, why, and what to do about it, in one line."""

import re


def reason(error: BaseException) -> str:
    """First line of what an exception says, without addresses in memory: the same in every run."""
    words = re.sub(r"<(\S+) object at 0x\w+>| at 0x\w+", r"\1", str(error)).strip()
    return words.splitlines()[0][:120] if words else type(error).__name__


class FsrError(Exception):
    """A fault of input or environment, shown as one line.

    Args:
        thing: what is wrong, by name ("image s1/3.pgm", "method idfsr.x").
        cause: why.
        remedy: what to do about it; empty where there is nothing to do.
        code: exit code of the process (2 = bad argument, 3 = missing data or weights, 4 = leak or
            mixed protocol).
    """

    def __init__(self, thing: str, cause: str, remedy: str = "", code: int = 3):
        self.thing, self.cause, self.remedy, self.code = thing, cause, remedy, code
        super().__init__(f"{thing}: {cause}" + (f"; {remedy}" if remedy else ""))

    @property
    def blames_weights(self) -> bool:
        """Whether a weight file is at fault, so that no image may be held to have failed."""
        return self.thing.startswith("weights ")


# A line names so many; of more it says where they are listed.
_NAMED = 16
_LISTS = {"method": "methods", "degradation": "data", "weights": "weights"}


def unknown(kind: str, name: str, known: list[str]) -> FsrError:
    """Error for a name that is not in a list, with the nearest ones first."""
    import difflib

    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    listed = len(known) > _NAMED and kind in _LISTS
    hint = " or ".join(map(repr, near if listed else near[:1]))
    told = (f"`invoke {_LISTS[kind]}` lists all {len(known)}" if listed
            else f"known: {', '.join(sorted(known))}")
    return FsrError(f"{kind} {name!r}", "unknown", f"did you mean {hint}? " * bool(near) + told,
                    code=2)
