"""Where a record comes from: commit, versions, machine; and the digest of a method's source."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import platform
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

PACKAGES = ("torch", "numpy", "scipy", "lpips", "pyiqa", "clean-fid", "deepface", "dlib-bin", "pandas", "pyarrow",
            "spandrel", "spandrel-extra-arches")
_SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING}


def source_tokens(source: str) -> str:
    """A module's code without comments, docstrings and line breaks inside expressions: what decides its behaviour."""
    statements: list[list[str]] = [[]]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            statements[-1].append(tokenize.tok_name[token.type])
        elif token.type == tokenize.NEWLINE and not _opens(statements[-1]):
            statements.append([])
        elif token.type not in _SKIPPED | {tokenize.NEWLINE} and not (token.type == tokenize.STRING and _opens(statements[-1])):
            statements[-1].append(token.string)
    return "\n".join(" ".join(words) for words in statements if words)


def _opens(words: list[str]) -> bool:
    """Whether nothing of a statement stands yet (a string here is a docstring)."""
    return all(word in ("INDENT", "DEDENT") for word in words)


def _imports(source: str) -> set[str]:
    """Names of fsrbench modules that a source imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fsrbench"):
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith("fsrbench"))
    return found


# Modules that no pixel depends on: a change in them keeps the records.
_HARMLESS = {"fsrbench", "fsrbench.errors", "fsrbench.registry", "fsrbench.weights.catalogue", "fsrbench.engine.store",
             "fsrbench.engine.provenance", "fsrbench.proof.parity", "fsrbench.training.loop", "fsrbench.training.tasks"}


def _file_of(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@cache
def source_digest(module: str) -> str:
    """sha256 over the code of a module and of every fsrbench module that it imports, directly or not."""
    seen, queue = {}, [module]
    while queue:
        name = queue.pop()
        path = _file_of(name)
        if name in seen or name in _HARMLESS or path is None:
            continue
        source = path.read_text(encoding="utf-8")
        seen[name] = source_tokens(source)
        queue.extend(_imports(source))
    return hashlib.sha256("\n".join(f"{name}\n{seen[name]}" for name in sorted(seen)).encode()).hexdigest()


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parent
    try:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def commit() -> dict:
    """The commit, its date, and whether the tree differs from it; None outside a checkout."""
    head, _, date = _git("show", "--no-patch", "--format=%H %cI", "HEAD").strip().partition(" ")
    return {"commit": head or None, "date": date or None,
            "dirty": bool(_git("status", "--porcelain", "--untracked-files=no").strip())}


def describe(arguments: dict) -> dict:
    """What a run ran on: commit, its date and whether the tree differs from it, versions, processor, threads, arguments."""
    import torch

    return {
        **commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": platform.machine(), "system": platform.system(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]], "arguments": arguments,
        "shard": [os.environ.get(k) for k in ("RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")],
    }
