"""What is special of our commands: positional words beside `--help`, `--n`, and faults as one line."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import warnings

from invoke import Exit, Task
from invoke.parser import Argument


class _LongName(str):
    """A one-letter name of an option that is typed behind two dashes; invoke itself puts one before it."""

    def lstrip(self, _):
        return self

    rstrip = lstrip

    def replace(self, *_):
        return self

    def __len__(self):
        return 2


class _Word(Argument):
    """A name that is typed without an option; `--help` in its place is not one (`invoke restore --help`)."""

    command = ""

    def set_value(self, value, cast=True):
        if value not in ("--help", "-h"):
            return super().set_value(value, cast)
        raise Exit(code=subprocess.run([sys.executable, "-m", "invoke", "--help", self.command]).returncode)


class Command(Task):
    """A task that shows its help also where invoke itself would take `--help` for a name."""

    def get_arguments(self, *args, **kwargs):
        arguments = super().get_arguments(*args, **kwargs)
        for i, a in enumerate(arguments):
            if a.positional:
                arguments[i] = _Word(names=a.names, kind=a.kind, help=a.help, positional=True, attr_name=a.attr_name)
                arguments[i].command = self.name
        return arguments


class NumberTask(Command):
    """A task whose option --number is also --n, besides invoke's own -n."""

    def get_arguments(self, *args, **kwargs):
        arguments = super().get_arguments(*args, **kwargs)
        for number in (a for a in arguments if a.name == "number"):
            number.names = (*number.names, _LongName("n"))
        return arguments


def guarded(body):
    """Show a fault as one line with its exit code, never as a traceback."""
    @functools.wraps(body)
    def run(*args, **kwargs):
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        from fsrbench.errors import FsrError
        from fsrbench.memory import keep_freed_memory

        keep_freed_memory()
        try:
            return body(*args, **kwargs)
        except FsrError as error:
            raise Exit(f"error: {error}", code=error.code) from None
        except BrokenPipeError:  # the reader (`| head`) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Exit(code=0) from None
        except KeyboardInterrupt:
            raise Exit("stopped; the same command goes on from here", code=130) from None
    return run
