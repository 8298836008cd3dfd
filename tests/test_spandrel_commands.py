"""`spandrel:PATH` as a user types it: rows of files, refusals in one line, the list of
architectures."""

import csv

import pytest
import test_spandrel
from test_cli import table1

from fsrbench.methods import spandrel as spandrel_method
from fsrbench.methods.spandrel import architectures

files = test_spandrel.files
PLAN = ("--people", "1", "--scale", "8")


def test_the_command_line_makes_rows_of_files(invoke, tmp_path, files):
    paths = [files(kind) for kind in ("esrgan", "restoreformer", "nafnet")]
    words = ["--method", "bicubic"] + [word for path in paths
                                       for word in ("--method", f"spandrel:{path}")]
    done = table1(invoke, tmp_path, *words, *PLAN)
    for text in ("ESRGAN (ESRGANv1.4)", "RestoreFormer (RESTOREFORMERv1.4)", "NAFNet (NAFNETv1.4)"):
        assert f"| {text} " in done.stdout
    rows = [r for r in csv.DictReader((tmp_path / "out-a" / "table1.csv").open()) if r["metric"]
            == "psnr.rgb"]
    assert [(r["method"], r["weights"], r["n_ok"]) for r in rows] == [
        ("bicubic", "none", "5"), ("spandrel:ESRGANv1.4", "given", "5"),
        ("spandrel:RESTOREFORMERv1.4", "given", "5"), ("spandrel:NAFNETv1.4", "given", "5")]
    for path in (tmp_path / "out-a").iterdir():
        assert str(files("esrgan").parent) not in path.read_text()


@pytest.mark.parametrize("argument,text", [
    ("", "method spandrel:: no such file"),
    ("/nowhere/x.pth", "method spandrel:/nowhere/x.pth: no such file"),
    ("README.md", "README.md: cannot be read as a checkpoint")])
def test_the_command_line_refuses_in_one_line(invoke, tmp_path, argument, text):
    done = table1(invoke, tmp_path, "--method", f"spandrel:{argument}", check=2)
    assert text in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_invoke_methods_tells_of_them(invoke):
    text = invoke("methods", check=0).stdout
    told = " ".join(text[text.index("spandrel:PATH"):].split())
    assert ", ".join(architectures()) in told and {"GFPGAN", "CodeFormer", "SRFormer",
                                                   "ESRGAN"} <= set(architectures())
    assert "LaMa" not in told


def test_the_list_of_architectures_is_read_without_importing_them():
    assert spandrel_method.listed() == spandrel_method.architectures()
