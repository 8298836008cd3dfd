"""Keys of records: digests of everything that decides a value, and of nothing else; in parts, so
that a change can be named.

A part is a module's code, the installed version of a library that is a method's or a metric's code,
a file, or a setting. Code is followed from module to module through imports, those inside functions
too; imports for types only decide nothing. torch, NumPy, OpenCV and the like are not in a key: a
record says which ones it was made with (see provenance.py), and a table that mixes them says so in
a note.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import io
import sys
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from fsrbench import registry
from fsrbench.core import Method, Profile
from fsrbench.engine.provenance import version
from fsrbench.errors import FsrError
from fsrbench.metrics import Feature, Metric, get_feature
from fsrbench.weights.catalogue import file_digest, get_entry, locate
from fsrbench.weights.fill import refuse_fill, trained

# Modules that no value depends on: they plan, write, or find a file whose digest is in the key
# anyway.
_HARMLESS = {
    "fsrbench", "fsrbench.errors", "fsrbench.registry", "fsrbench.profiles", "fsrbench.progress",
    "fsrbench.text", "fsrbench.metrics",
    "fsrbench.weights.catalogue", "fsrbench.weights.shared",
    "fsrbench.engine.store", "fsrbench.engine.provenance", "fsrbench.engine.keys",
    "fsrbench.training.loop", "fsrbench.training.tasks", "fsrbench.training.export"}
# Libraries whose versions stand in the record instead (`provenance.DECIDING`), by import name.
_RECORDED = {"torch", "torchvision", "numpy", "scipy", "cv2", "PIL", "pillow_heif"}
# Libraries that read, write or share out work, and compute no value.
_TOOLS = {"accelerate", "joblib", "onnx", "pandas", "pyarrow", "safetensors", "tqdm"}
_SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING}


def digest_of(*words: object) -> str:
    """Key of a record: sha256 over words."""
    return hashlib.sha256("\x1f".join(map(str, words)).encode()).hexdigest()


# --- code -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Code:
    """What a module computes with.

    Args:
        modules: digest of the code by module, of the module itself and of those of its own
            distribution and of ours that it imports, directly or not.
        libraries: installed version by distribution, of the other libraries that these import.
    """

    modules: Mapping[str, str]
    libraries: Mapping[str, str]

    @property
    def parts(self) -> dict[str, str]:
        """Both, as parts of a key."""
        return {**{f"code of {name}": value for name, value in sorted(self.modules.items())},
                **{f"version of {name}": value for name, value in sorted(self.libraries.items())}}


def source_tokens(source: str) -> str:
    """A module's code without comments, docstrings and line breaks inside expressions: what decides
    its behaviour."""
    statements: list[list[str]] = [[]]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            statements[-1].append(tokenize.tok_name[token.type])
        elif token.type == tokenize.NEWLINE and not _opens(statements[-1]):
            statements.append([])
        elif token.type not in _SKIPPED | {tokenize.NEWLINE} and not (token.type == tokenize.STRING
                                                                      and _opens(statements[-1])):
            statements[-1].append(token.string)
    return "\n".join(" ".join(words) for words in statements if words)


def _opens(words: list[str]) -> bool:
    """Whether nothing of a statement stands yet (a string here is a docstring)."""
    return all(word in ("INDENT", "DEDENT") for word in words)


def imports(source: str, package: str) -> set[str]:
    """Names that a module of this package imports and that may be modules, those for types only
    left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            children = node.orelse
        else:
            children = ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""),
                                               package) if node.level else node.module
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
        for child in children:
            visit(child)
    visit(ast.parse(source))
    return found


def _file_of(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@cache
def _distributions() -> Mapping[str, list[str]]:
    """What `importlib.metadata.packages_distributions` gives, in a third of its time."""
    found: dict[str, list[str]] = {}
    for distribution in importlib.metadata.distributions():
        names = (distribution.read_text("top_level.txt") or "").split()
        if not names:
            lines = (distribution.read_text("RECORD") or "").splitlines()
            files = [line.rsplit(",", 2)[0] for line in lines]
            names = {f.removesuffix(".py").partition("/")[0] for f in files if f.endswith(".py")}
        for name in names:
            found.setdefault(name, []).append(distribution.metadata["Name"])
    return found


@cache
def _distribution(top: str) -> str:
    """Distribution of a top-level package; the package's own name where none holds it.

    One whose metadata do not name its packages (dlib-bin) is found by its files, if its name starts
    with the package's.
    """
    if top in _distributions():
        return min(_distributions()[top])
    for found in importlib.metadata.distributions():
        if (found.name or "").startswith(top) and any(path.parts[0] == top for path in found.files
                                                      or ()):
            return found.name
    return top


def _own(module: str) -> set[str]:
    """Top-level packages that are followed from a module: ours, and those of its own
    distribution."""
    top = module.partition(".")[0]
    if top == "fsrbench":
        return {top}
    mine = _distribution(top)
    return {"fsrbench", top, *(name for name, holders in _distributions().items()
                               if mine in holders)}


@cache
def _module(name: str) -> tuple[str, set[str]] | None:
    """Digest of a module's code and the names that it imports; None for what is no module of Python
    code."""
    path = _file_of(name)
    if path is None:
        return None
    source = path.read_text(encoding="utf-8")
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return digest_of(source_tokens(source))[:16], imports(source, package)


@cache
def code_of(module: str) -> Code:
    """What a module computes with."""
    own, modules, libraries, queue = _own(module), {}, {}, [module]
    while queue:
        name = queue.pop()
        top = name.partition(".")[0]
        if name in modules or name in _HARMLESS:
            continue
        if top not in own:
            if top not in _RECORDED | _TOOLS | sys.stdlib_module_names:
                libraries[_distribution(top)] = version(_distribution(top))
            continue
        if (found := _module(name)) is not None:
            modules[name], named = found
            queue.extend(named)
    return Code(modules, libraries)


def code_digest(module: str) -> str:
    """Digest of what a module computes with.

    Raises:
        ModuleNotFoundError: there is no such module; the digest of nothing would change with
            nothing.
    """
    code = code_of(module)
    if not code.modules and module not in sys.modules:
        raise ModuleNotFoundError(f"no module {module!r}", name=module)
    return digest_of(*_words(code.parts))


def _words(parts: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in sorted(parts.items())]


# --- methods and metrics --------------------------------------------------------------------------


def shape_of(profile: Profile) -> str:
    """What a profile decides of an image: its side and what it shows. Its defaults decide
    nothing."""
    return f"{profile.size}|{profile.frame}"


def detects(method: Method) -> bool:
    """Whether a method is given landmarks that were detected on I_L."""
    return "landmarks" in method.needs and "oracle" not in method.needs


def method_parts(method: Method) -> dict[str, str]:
    """Everything that decides what a method makes of a batch, by name.

    Raises:
        FsrError: a weight file, or a file that it declares, is missing.
    """
    resizing = method.resizing()
    parts = {"name": method.name, "settings": method.settings(),
             **({"resizing": resizing} if resizing else {}),
             **code_of(type(method).__module__).parts}
    parts |= {f"weights {name}": file_digest(trained(name)) for name in method.weight_files}
    # Numbered, as two files may have one name in different folders; whole paths are this machine's.
    parts |= {f"file {i} {path.name}": _own_file(method, path)
              for i, path in enumerate(map(Path, method.files), 1)}
    if detects(method):
        from fsrbench.faces.lr import present

        # their files must be in the catalogue before any can be looked for
        registry.load("detectors")
        parts |= code_of("fsrbench.faces.lr").parts
        parts |= {f"weights {d.weights}": file_digest(trained(d.weights)) for d in present()}
    return parts


def _own_file(method: Method, path: Path) -> str:
    if not path.is_file():
        raise FsrError(f"method {method.name}", f"its file {path} is missing",
                       "put it there, or mend the method's `files`")
    return file_digest(refuse_fill(path, f"method {method.name}, file {path}"))


def method_digest(method: Method) -> str:
    """Digest of `method_parts`."""
    return digest_of(*_words(method_parts(method)))


def _file_part(name: str) -> str:
    """Digest of a weight file: the published one, which any file must have; else that of the file
    here."""
    published = get_entry(name).sha256
    if len(published) == 64:
        return published
    path = locate(name)
    return file_digest(refuse_fill(path, f"weights {name} ({path})")) if path else "missing"


def _function_parts(function: object, weight_files: tuple[str, ...]) -> dict[str, str]:
    bare = function.func if isinstance(function, partial) else function
    return {**code_of(bare.__module__).parts, **{f"weights {name}": _file_part(name)
                                                 for name in weight_files}}


def feature_parts(feature: Feature) -> dict[str, str]:
    """Everything that decides a feature's vector of an image, by name."""
    return {"id": feature.id, **_function_parts(feature.function, feature.weight_files),
            **{f"version of {name}": version(name) for name in feature.libraries}}


def metric_parts(metric: Metric) -> dict[str, str]:
    """Everything that decides a metric's value of an image, by name."""
    parts = {"id": metric.id, **_function_parts(metric.function, metric.weight_files)}
    if metric.feature:
        parts |= {name: value for name, value in feature_parts(get_feature(metric.feature)).items()
                  if name != "id"}
        parts["feature"] = metric.feature
    return parts


@cache
def metric_digest(metric: Metric) -> str:
    """Digest of `metric_parts`."""
    return digest_of(*_words(metric_parts(metric)))


@cache
def feature_digest(feature: Feature) -> str:
    """Digest of `feature_parts`."""
    return digest_of(*_words(feature_parts(feature)))


# --- data -----------------------------------------------------------------------------------------


def preparation_parts() -> dict[str, str]:
    """Everything that decides reading, detection and alignment of an HQ image, by name: code,
    libraries, and the detectors here."""
    from fsrbench.faces.detect import RETINAFACE, SHAPE_68

    return {**code_of("fsrbench.imaging").parts, **code_of("fsrbench.faces.prepare").parts,
            **{f"weights {entry.name}": _file_part(entry.name) if locate(entry.name) else "missing"
               for entry in (SHAPE_68, RETINAFACE)}}


def preparation_digest() -> str:
    """Digest of `preparation_parts`."""
    return digest_of(*_words(preparation_parts()))


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Names of the parts in which two keys differ."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name)
                  != after.get(name))


def forget() -> None:
    """Read code, versions and files anew; a process otherwise reads them once."""
    for function in (_module, code_of, metric_digest, feature_digest):
        function.cache_clear()
