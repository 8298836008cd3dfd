"""Weight files that come with the installation, and copies of them in the cache."""

import pytest

from fsrbench import registry
from fsrbench.errors import FsrError
from fsrbench.weights import catalogue as weights


def test_a_damaged_copy_of_an_installed_file_is_to_be_deleted(tmp_path, monkeypatch):
    """The one in the cache comes first, and the installed one is whole."""
    registry.load()
    whole = weights.locate("prior-mini")
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path))
    copy = tmp_path / whole.name
    copy.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(FsrError, match=rf"\({copy}\): .*; delete it: {whole.name} comes with the "
                                       "installation$"):
        weights.require("prior-mini")
    copy.unlink()
    assert weights.require("prior-mini") == whole
