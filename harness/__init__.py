"""FSRBench: a benchmark of face super-resolution that reproduces the paper IDFSR."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout the other three folders stand beside this one, not below it. They must not have an
# `__init__.py`: a regular top-level package `datasets` would shadow Hugging Face's `datasets`,
# which accelerate, timm and transformers import. So their parent joins this package's search path
# instead.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").exists():
    __path__.append(str(_root))
