"""The layout's hazards: shadowed packages, wheel content, double registration, file sizes."""

import importlib.util
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT


def test_no_package_marker_in_the_users_folders():
    for folder in ("datasets", "methods", "reports"):
        assert not list((ROOT / folder).glob("__init__.py"))


@pytest.mark.parametrize("how", [["-c", "import importlib.util as u; print(u.find_spec('datasets').origin)"]])
def test_hugging_face_datasets_is_not_shadowed(how):
    done = subprocess.run([sys.executable, *how], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "site-packages" in done.stdout and str(ROOT / "datasets") not in done.stdout


def test_imports_that_the_shadow_would_break(invoke):
    code = "import sys; sys.path.insert(0, '.'); import accelerate.data_loader, transformers.trainer, fsrbench.engine.data"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_wheel_has_one_top_level_name_and_all_data(tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path,
                    ROOT], check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"fsrbench"}
    for module in (ROOT / "harness").rglob("*.py"):
        assert f"fsrbench/{module.relative_to(ROOT / 'harness')}" in names
    for folder in ("methods", "datasets", "reports"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"fsrbench/{path.relative_to(ROOT)}" in names, path


def test_installed_wheel_runs(tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target",
                    tmp_path, ROOT], check=True, capture_output=True)
    code = ("import fsrbench, fsrbench.registry as r; from fsrbench.engine.data import open_source; "
            "print(fsrbench.__file__, len(r.methods()), len(open_source('orl').entries))")
    done = subprocess.run([sys.executable, "-S", "-c", "import sys; sys.path[1:1] = [sys.argv[1]] + "
                           "eval(sys.argv[2]); " + code, str(tmp_path), repr(sys.path[1:])],
                          cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout and done.stdout.split()[-1] == "400"


def test_second_registration_is_refused():
    from fsrbench import registry
    from fsrbench.errors import FsrError

    with pytest.raises(FsrError, match="registered twice"):
        registry.method(type("Other", (registry.get("bicubic"),), {}))


def test_registry_refuses_another_import_name():
    spec = importlib.util.spec_from_file_location("harness.registry", ROOT / "harness" / "registry.py")
    with pytest.raises(ImportError, match="fsrbench.registry"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_files_stay_short_and_name_no_machine():
    for path in ROOT.rglob("*.py"):
        if ".git" in path.parts or "build" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 500, path
        assert "/work/" not in text.replace('"/work/"', ""), path


def test_no_picture_of_a_person_is_tracked():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    pictures = [n for n in done.stdout.split() if n.endswith((".jpg", ".jpeg", ".pgm", ".webp"))]
    assert not pictures
