"""The layout's hazards: shadowed packages, wheel content, double registration, file sizes."""

import importlib.util
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

from fsrbench.errors import FsrError


def test_no_package_marker_in_the_users_folders():
    for folder in ("datasets", "methods", "reports"):
        assert not list((ROOT / folder).glob("__init__.py"))


@pytest.mark.parametrize("how",
                         [["-c",
                           "import importlib.util as u; print(u.find_spec('datasets').origin)"]])
def test_hugging_face_datasets_is_not_shadowed(how):
    done = subprocess.run([sys.executable, *how], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert "site-packages" in done.stdout and str(ROOT / "datasets") not in done.stdout


def test_imports_that_the_shadow_would_break(invoke):
    code = ("import sys; sys.path.insert(0, '.'); import accelerate.data_loader, "
            "transformers.trainer, fsrbench.engine.data")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The project's wheel, built once."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps",
                    "--no-build-isolation", "-w", folder, ROOT], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_has_one_top_level_name_and_all_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"fsrbench"}
    for module in (ROOT / "harness").rglob("*.py"):
        assert f"fsrbench/{module.relative_to(ROOT / 'harness')}" in names
    for folder in ("methods", "datasets", "reports"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"fsrbench/{path.relative_to(ROOT)}" in names, path


def test_installed_wheel_runs(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target",
                    tmp_path, wheel], check=True, capture_output=True)
    code = ("import fsrbench, fsrbench.registry as r; from fsrbench.engine.data import "
            "open_source; "
            "print(fsrbench.__file__, len(r.methods()), len(open_source('orl').entries))")
    done = subprocess.run([sys.executable, "-S", "-c",
                           "import sys; sys.path[1:1] = [sys.argv[1]] + "
                           "eval(sys.argv[2]); " + code, str(tmp_path), repr(sys.path[1:])],
                          cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout and done.stdout.split()[-1] == "400"


def test_second_registration_is_refused():
    from fsrbench import registry
    with pytest.raises(FsrError, match="registered twice"):
        registry.method(type("Other", (registry.get("bicubic"),), {}))


def test_registry_refuses_another_import_name():
    spec = importlib.util.spec_from_file_location("harness.registry", ROOT / "harness"
                                                  / "registry.py")
    with pytest.raises(ImportError, match="fsrbench.registry"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


FOLDERS = {"harness": (), "methods": ("methods",), "datasets": ("datasets",),
           "reports": ("reports",)}


def _import_graph():
    """Imports of each module of ours, those inside functions too; for types only they do not
    count."""
    from fsrbench.engine.keys import imports

    files = {}
    for folder, prefix in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = [*prefix, *path.relative_to(ROOT / folder).with_suffix("").parts]
            files[".".join(["fsrbench", *(parts[:-1] if parts[-1] == "__init__"
                                          else parts)])] = path
    def known(name):
        while name not in files and "." in name:
            name = name.rpartition(".")[0]
        return name
    return {name: {known(n) for n in imports(path.read_text(encoding="utf-8"),
                                             name.rpartition(".")[0])
                   if n.startswith("fsrbench.")} - {name, "fsrbench"}
            for name, path in files.items()}


def test_no_module_imports_itself_through_others():
    graph, done = _import_graph(), set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path[path.index(name):], name])
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, [*path, name])
            done.add(name)
    for name in graph:
        visit(name, [])


def test_who_may_import_whom():
    plug_ins = ("fsrbench.methods", "fsrbench.datasets", "fsrbench.reports")
    for name, others in _import_graph().items():
        for other in others:
            if not name.startswith(plug_ins):
                assert not other.startswith(plug_ins), f"{name} imports {other}"
            if name.startswith(("fsrbench.methods", "fsrbench.datasets")):
                assert not other.startswith("fsrbench.reports"), f"{name} imports {other}"
            if name.startswith("fsrbench.methods.") and other.startswith("fsrbench.methods."):
                own, used = name.split(".")[2], other.split(".")[2]
                assert used in (own, "common"), f"{name} imports {other}"


def test_a_method_in_a_folder_of_any_name_is_found_and_a_broken_one_is_listed(tmp_path,
                                                                              monkeypatch):
    import fsrbench.methods
    from fsrbench import registry

    bodies = {"anyname": "from fsrbench.core import Method\nfrom fsrbench.registry import "
                         "method\n\n\n@method\n"
                         "class Any(Method):\n    name = 'any.test'\n",
              "stops": "raise SystemExit(2)\n", "lacks": "import nothing_of_that_name\n"}
    for name, body in bodies.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "method.py").write_text(body)
    registry.load("methods")
    monkeypatch.setattr(fsrbench.methods, "__path__", [*fsrbench.methods.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_methods", dict(registry._methods))
    monkeypatch.setattr(registry, "_broken", {})
    registry._load.cache_clear()
    found, broken = registry.methods(), registry.broken()
    assert {"any.test", "bicubic", "idfsr.ft"} <= set(found)
    assert broken["fsrbench.methods.stops.method"] == "SystemExit: 2"
    assert broken["fsrbench.methods.lacks.method"].startswith("ModuleNotFoundError")
    with pytest.raises(FsrError,
                       match="method 'lacks.mini': unknown, and a module of that name cannot be "
                             "loaded"):
        registry.get("lacks.mini")


def test_none_of_our_own_modules_is_broken():
    from fsrbench import registry

    registry.load(*registry.KINDS)
    assert not [name for name in registry.broken() if name.startswith("fsrbench.")]


def test_files_stay_short_and_name_no_machine():
    for path in ROOT.rglob("*.py"):
        if ".git" in path.parts or "build" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, path
        assert max(map(len, text.split("\n"))) <= 100, path
        assert "/work/" not in text.replace('"/work/"', ""), path


def test_no_image_of_a_person_is_tracked():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    images = [n for n in done.stdout.split() if n.endswith((".jpg", ".jpeg", ".pgm", ".webp"))]
    # Of people who do not exist, see datasets/faces/ORIGIN.md.
    assert images == [*(f"datasets/faces/p000{p}/{i}.jpg" for p in range(5) for i in range(6)),
                      *(f"reports/pages/{name}.jpg" for name in ("explorer", "opening",
                                                                 "synthetic"))]
    assert max((ROOT / name).stat().st_size for name in images) < 200_000
