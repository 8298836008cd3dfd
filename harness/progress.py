"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Iterable

from tqdm import tqdm

# Seconds between two lines, and before the first: short work says nothing. One clock goes over all
# parts of a command, each of which may be short.
_EVERY = 30.0
_said = time.monotonic()
# The bars under way in a log. Of work within other work only what itself takes long has lines.
_open: weakref.WeakSet = weakref.WeakSet()
_LINE = "{desc}: {n_fmt} of {total_fmt}, {elapsed} gone, about {remaining} left{postfix}"
# Of the first seconds nothing can be said of the rest.
_EARLY, _SECONDS = "{desc}: {n_fmt} of {total_fmt}, {elapsed} gone{postfix}", 5.0
_ENDLESS = "{desc}: {n_fmt} {unit}, {elapsed} gone{postfix}"


def begin() -> None:
    """Start the clock, at the start of a command."""
    global _said
    _said = time.monotonic()


class _Lines(tqdm):
    """Writes whole lines instead of one that is drawn over."""

    monitor_interval = 0

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        # The next line is due by the command's clock, not by this bar's.
        self.last_print_t = self.start_t + self.delay - self.mininterval
        _open.add(self)
        if self.total is None:
            self.bar_format = _ENDLESS

    def set_postfix_str(self, s: str = "", refresh: bool = False) -> None:
        """What the next line ends in; no line of its own."""
        super().set_postfix_str(s, refresh=False)

    def set_postfix(self, ordered_dict: dict | None = None, refresh: bool = False,
                    **values: object) -> None:
        """The same, of values by name."""
        super().set_postfix(ordered_dict, refresh=False, **values)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write where the work is."""
        begin()
        if self.total is not None:
            self.bar_format = _LINE if self._time() - self.start_t > _SECONDS else _EARLY
        self.fp.write(f"{str(self) if msg is None else msg}\n")
        self.fp.flush()

    def close(self) -> None:
        """End without another line: the last step has said it."""
        _open.discard(self)
        if not self.disable:
            self.disable = True
            self._decr_instances(self)

    def moveto(self, n: int) -> None:
        """Stay: lines follow one another."""

    def clear(self, nolock: bool = False) -> None:
        """Leave what is written."""


def progress(iterable: Iterable | None = None, *, desc: str, total: int | None = None,
             unit: str = "it", quiet: bool = False, **options) -> tqdm:
    """tqdm's bar over the iterable, or to be moved by `update`; lines on standard error where that
    is no terminal.

    Args:
        quiet: show nothing; options: of tqdm.
    """
    if quiet or sys.stderr.isatty():
        return tqdm(iterable, desc=desc, total=total, unit=unit, disable=quiet, **options)
    # Without any delay tqdm would write a line before the first step, too.
    wait = max(1e-6, _EVERY if len(_open) else _said + _EVERY - time.monotonic())
    return _Lines(iterable, desc=desc, total=total, unit=unit, mininterval=_EVERY, delay=wait,
                  miniters=1, bar_format=_LINE, **options)
