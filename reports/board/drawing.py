"""Charts of the board as SVG that takes the page's colours; each says in words what it shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 660, 360, 64, 44, 14, 170
# Pixels between the lines of two names.
LINE = 13
DASHES = ("", "6 3", "2 3", "8 3 2 3")


@dataclass(frozen=True)
class Point:
    """A mark: its name, where it is, and whether nothing else is better in both."""

    name: str
    x: float
    y: float
    front: bool = False


def pareto(costs: Sequence[float], qualities: Sequence[float]) -> list[bool]:
    """Whether nothing is at most as dear and at least as good as each, and better in one."""
    points = list(zip(costs, qualities))
    return [not any(c <= x and q >= y and (c, q) != (x, y) for c, q in points)
            for x, y in points]


@dataclass(frozen=True)
class Axis:
    """An axis from low to high; log: by powers of ten."""

    title: str
    low: float
    high: float
    log: bool = False

    @classmethod
    def of(cls, title: str, values: Sequence[float], log: bool = False) -> Axis:
        """Around values; powers of ten only where all are above 0 and far apart."""
        low, high = min(values), max(values)
        if log := log and low > 0 and high / low > 20:
            return cls(title, low / 1.5, high * 1.5, True)
        margin = (high - low) * 0.06 or abs(high) * 0.1 or 1
        return cls(title, low - margin, high + margin)

    def place(self, value: float) -> float:
        """0 to 1."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (at - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round numbers on it."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            return [10.0**p for p in powers]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 3))
        step = next(step * f for f in (1, 2, 5, 10) if (self.high - self.low) / (step * f) <= 6)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]


def _frame(x: Axis, y: Axis) -> list[str]:
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    out = [f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" class="axis"/>']
    for tick in x.ticks():
        at = LEFT + across * x.place(tick)
        out.append(f'<path d="M{at:.1f} {HEIGHT - BOTTOM}v4" class="axis"/><text x="{at:.1f}" '
                   f'y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in y.ticks():
        at = TOP + up * (1 - y.place(tick))
        out.append(f'<path d="M{LEFT - 4} {at:.1f}h4" class="axis"/><text x="{LEFT - 7}" '
                   f'y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>')
    return [*out, f'<text x="{LEFT + across / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
            f'{escape(x.title)}</text>',
            f'<text transform="translate(14 {TOP + up / 2}) rotate(-90)" text-anchor="middle">'
            f"{escape(y.title)}</text>"]


def _at(x: Axis, y: Axis, a: float, b: float) -> tuple[float, float]:
    return (LEFT + (WIDTH - LEFT - RIGHT) * x.place(a),
            TOP + (HEIGHT - TOP - BOTTOM) * (1 - y.place(b)))


def _names(places: Sequence[tuple[float, float, str]]) -> list[str]:
    """Names beside their places, moved down where one would lie on another."""
    out, taken = [], [(a - 6, b, 12.0) for a, b, _ in places]
    for a, b, name in sorted(places, key=lambda p: (p[1], p[0])):
        shown = name if len(name) <= 26 else f"{name[:25]}…"
        width, at = 6.2 * len(shown), b
        while any(abs(at - v) < LINE and a + 8 < u + w and u < a + 8 + width for u, v, w in taken):
            at += 2
        taken.append((a + 8, at, width))
        out.append(f'<text x="{a + 8:.1f}" y="{at + 4:.1f}">{escape(shown)}</text>')
    return out


def _svg(title: str, words: str, parts: Sequence[str]) -> str:
    return (f'<div class="scroll plot"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(title)}. {escape(words)}"><title>{escape(title)}</title>'
            f'{"".join(parts)}</svg></div>')


def scatter(title: str, x: Axis, y: Axis, points: Sequence[Point]) -> str:
    """Points with their names; those on the Pareto front are filled and joined."""
    places = [(*_at(x, y, p.x, p.y), p) for p in points]
    front = sorted((a, b) for a, b, p in places if p.front)
    parts = _frame(x, y)
    if len(front) > 1:
        joined = "L".join(f"{a:.1f} {b:.1f}" for a, b in front)
        parts.append(f'<path d="M{joined}" class="front"/>')
    parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4.5" class="{"on" if p.front else "off"}"/>'
              for a, b, p in places]
    words = "; ".join(f"{p.name}: {p.x:.4g}, {p.y:.4g}{', on the front' if p.front else ''}"
                      for p in points)
    return _svg(title, words, [*parts, *_names([(a, b, p.name) for a, b, p in places])])


def lines(title: str, x: Axis, y: Axis, series: Sequence[tuple[str, list[tuple[float, float]]]]
          ) -> str:
    """A line for each name through its points."""
    parts, ends = _frame(x, y), []
    for i, (name, points) in enumerate(series):
        places = [_at(x, y, a, b) for a, b in sorted(points)]
        joined = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        parts.append(f'<path d="M{joined}" class="line" stroke-dasharray="'
                     f'{DASHES[i % len(DASHES)]}"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" class="on"/>' for a, b in places]
        ends.append((*places[-1], name))
    words = "; ".join(f"{name}: {', '.join(f'{a:g} {b:.4g}' for a, b in sorted(points))}"
                      for name, points in series)
    return _svg(title, words, [*parts, *_names(ends)])
