"""What is wrong with the images of a data set, by reason and name; counted and named, never
silent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Excluded:
    """What was left out of a data set, and why."""

    reasons: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, *names: str) -> None:
        self.reasons.setdefault(reason, []).extend(names)

    def lines(self, most: int = 5, verb: str = "left out") -> list[str]:
        """One line a reason, naming the first few."""
        return [f"{verb}, {reason}: {len(names)} "
                f"({', '.join(names[:most])}{', ...' if len(names) > most else ''})"
                for reason, names in sorted(self.reasons.items())]


@dataclass
class Findings(Excluded):
    """What was left out, and in `remarks` what a reader must know of what stays or was never an
    image."""

    remarks: Excluded = field(default_factory=Excluded)

    def lines(self, most: int = 5, verb: str = "left out") -> list[str]:
        """One line a reason, naming the first few."""
        return super().lines(most, verb) + self.remarks.lines(most, "remarked")


def together(parts: Iterable[Findings]) -> Findings:
    """All of several findings, as findings of their own."""
    whole = Findings()
    for part in parts:
        for into, of in ((whole, part), (whole.remarks, part.remarks)):
            for reason, names in of.reasons.items():
                into.add(reason, *names)
    return whole
