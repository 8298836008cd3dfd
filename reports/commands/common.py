"""What all commands share: options that mean the same everywhere, and faults that end in one line.

Kept light: `invoke --list` imports this and nothing of the benchmark.
"""

import functools
import os
import subprocess
import sys
import warnings

import invoke
from invoke import Exit, Task
from invoke.parser import Argument

DATA = ("data set: orl (default), example, lfw[:PATH], folder:PATH, aligned:PATH, synthetic:N, or "
        "NAME:PATH of a prepared one")
TRAINED = ("idfsr, idfsr-judged, prior, restorer, corrector, codeformer-vq, codeformer-codes, "
           "codeformer-fusion, vae, stablesr, asffnet, dmdnet or landmarks")
RUN_HELP = {
    "profile": "mini (default: 64 px, processor, weights of this repository) or paper (256 px)",
    "data": DATA,
    "scale": "factor 4, 8, 16 or 32; may be repeated, or 8,16 (default 8 and 16)",
    "method": "method, see `invoke methods` (dr2 is dr2.mini or dr2.official, as the profile), or "
              "spandrel:PATH for a "
              "checkpoint of your own; may be repeated (default: the table's)",
    "people": "evaluate so many people (default 12 of ORL in the mini profile, else all that the "
              "protocol draws)",
    "seed": "seed of split, references and noise (default 0)",
    "batch": "samples in a chunk (default 20, paper 8)",
    "store": "folder of the records; what is there is not computed again (default store)",
    "out": "folder for the tables (default out)",
    "precision": "of networks: float32 (default), bf16 or fp16 (on a GPU), or bf16-compiled",
    "degradation": "how LR images are made: bicubic (default) or another of `invoke data`",
    "split": "CSV image,split (train, fine-tune, test or unused by <person>/<image>) instead of "
             "the seed's halves",
    "references": "CSV image,references (a test image, then its references, one a column) instead "
                  "of the seed's",
    "fresh": "delete the store's records first, once all that was typed is known to be possible",
}


class _LongName(str):
    """A one-letter name of an option that is typed behind two dashes; invoke itself puts one before
    it."""

    def lstrip(self, _):
        return self

    rstrip = lstrip

    def replace(self, *_):
        return self

    def __len__(self):
        return 2


class _Word(Argument):
    """A name that is typed without an option; `--help` in its place is not one (`invoke restore
    --help`)."""

    command = ""

    def set_value(self, value, cast=True):
        if value not in ("--help", "-h"):
            return super().set_value(value, cast)
        raise Exit(code=subprocess.run([sys.executable, "-m", "invoke", "--help",
                                        self.command]).returncode)


class Command(Task):
    """A task that shows its help also where invoke itself would take `--help` for a name."""

    def get_arguments(self, *args, **kwargs):
        told = dict(self.help)
        arguments = super().get_arguments(*args, **kwargs)
        self.help = told  # invoke takes it away, and may ask again
        for i, a in enumerate(arguments):
            if a.positional:
                arguments[i] = _Word(names=a.names, kind=a.kind, help=a.help, positional=True,
                                     attr_name=a.attr_name)
                arguments[i].command = self.name
        return arguments


class NumberTask(Command):
    """A task whose option --number is also --n, besides invoke's own -n."""

    def get_arguments(self, *args, **kwargs):
        arguments = super().get_arguments(*args, **kwargs)
        for number in (a for a in arguments if a.name == "number"):
            number.names = (*number.names, _LongName("n"))
        return arguments


task = functools.partial(invoke.task, klass=Command)


def guarded(body):
    """Show a fault as one line with its exit code, never as a traceback."""
    @functools.wraps(body)
    def run(*args, **kwargs):
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        from fsrbench.errors import FsrError
        from fsrbench.memory import keep_freed_memory
        from fsrbench.progress import begin

        begin()
        keep_freed_memory()
        try:
            return body(*args, **kwargs)
        except FsrError as error:
            raise Exit(f"error: {error}", code=error.code) from None
        except BrokenPipeError:  # the reader (`| head`) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Exit(code=0) from None
        except OSError as error:  # of a path or a disk, which no code of ours can foresee
            if error.errno is None:
                raise
            from fsrbench.engine.store import told

            fault = FsrError(str(error.filename or "a file or folder"), told(error),
                             "check the path, its permissions and the space left")
            raise Exit(f"error: {fault}", code=fault.code) from None
        except KeyboardInterrupt:
            raise Exit("stopped; the same command goes on from here", code=130) from None
    return run


def show(paths):
    """Print the first file, and where all are."""
    print(paths[0].read_text())
    print("written: " + ", ".join(map(str, paths)), file=sys.stderr)
