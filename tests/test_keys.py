"""Keys: everything that decides a value is in them, and nothing else."""

import importlib
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

from fsrbench import registry
from fsrbench.core import Batch, Method
from fsrbench.engine import keys
from fsrbench.engine.run import Run
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.metrics import family
from fsrbench.profiles import PROFILES
from fsrbench.reports.gate.changes import new_records


@pytest.fixture
def edited(monkeypatch, tmp_path):
    """Make the keys see other code in a module's file; nothing is imported anew."""
    changed = {}
    found = keys._file_of
    monkeypatch.setattr(keys, "_file_of", lambda name: changed.get(name) or found(name))

    def edit(module, change=lambda text: text + "\nADDED = 1\n"):
        changed[module] = tmp_path / f"{module}.py"
        changed[module].write_text(change(found(module).read_text(encoding="utf-8")))
        keys.forget()
    yield edit
    keys.forget()


def digests():
    """Keys of a method with networks, of one without, of a metric, of a feature, and of an image of
    a data set."""
    registry.load()
    made = {name: keys.method_digest(registry.get(name)(PROFILES["mini"]))
            for name in ("idfsr.pt", "codeformer.mini", "bicubic")}
    metrics = {name: keys.metric_digest(family(name)[0]) for name in ("psnr", "lpips", "ids", "fd",
                                                                          "gap")}
    return {**made, **metrics, "orl": keys.preparation_digest()}


UNRELATED = ("fsrbench.proof.parity", "fsrbench.faces.parity", "fsrbench.methods.idfsr.parity",
             "fsrbench.listing",
             "fsrbench.profiles", "fsrbench.engine.options", "fsrbench.reports.tables.table",
             "fsrbench.methods.idfsr.training", "fsrbench.registry", "fsrbench.text",
             "fsrbench.metrics.joining", "fsrbench.methods.common.recognisers",
             "fsrbench.methods.common.ir50")


def test_a_check_a_report_a_listing_a_default_or_a_docstring_changes_no_key(edited):
    before = digests()
    for module in UNRELATED:
        edited(module)
    edited("fsrbench.methods.common.diffusion", lambda text: '"""Other words."""'
           + text[text.index('"""', 3) + 3:] + "\n# why\n")
    assert digests() == before


@pytest.mark.parametrize("module, reached", [
    ("fsrbench.methods.common.diffusion", {"idfsr.pt"}),
    ("fsrbench.methods.codeformer.network", {"codeformer.mini"}),
    ("fsrbench.metrics.perceptual", {"lpips", "fd"}), ("fsrbench.faces.detect", {"orl"}),
    ("fsrbench.faces.retinaface", {"idfsr.pt", "orl"}),
    ("fsrbench.weights.networks", {"idfsr.pt", "codeformer.mini", "bicubic", "orl"})])
def test_an_edit_reaches_the_keys_of_what_it_decides(module, reached, edited):
    before = digests()
    edited(module)
    after = digests()
    assert {name for name in before if before[name] != after[name]} == reached


def test_the_installed_version_of_a_library_that_computes_is_in_the_key(monkeypatch):
    before = digests()
    installed = keys.version
    monkeypatch.setattr(keys, "version", lambda name: "99" if name in ("lpips", "dlib-bin")
                        else installed(name))
    keys.forget()
    after = digests()
    keys.forget()
    assert {name for name in before if before[name] != after[name]} == {"lpips", "fd", "orl"}


def test_the_detectors_that_are_here_are_in_the_key_of_a_prepared_image(monkeypatch):
    before = keys.preparation_parts()
    located = keys.locate
    monkeypatch.setattr(keys, "locate", lambda name: __file__ if name == "retinaface-resnet50"
                        else located(name))
    monkeypatch.setattr(keys, "_file_part", lambda name: f"digest of {name}")
    assert "weights retinaface-resnet50" in keys.changed(before, keys.preparation_parts())


PLUGIN = """
    from pathlib import Path
    import numpy as np
    from fsrbench.core import Batch, Method
    from .helper import strength

    class Darker(Method):
        name, files = "darker.third", (Path(__file__).with_name("own.bin"),)

        def restore(self, batch: Batch) -> np.ndarray:
            return batch.upsampled * strength()
"""


def test_a_plug_in_s_helper_and_its_own_weight_file_are_in_its_key(tmp_path, monkeypatch):
    package = tmp_path / "darkerplug"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "method.py").write_text(textwrap.dedent(PLUGIN))
    (package / "helper.py").write_text("def strength():\n    return 0.5\n")
    (package / "own.bin").write_bytes(b"first")
    monkeypatch.syspath_prepend(tmp_path)
    cls = importlib.import_module("darkerplug.method").Darker
    first = keys.method_parts(cls(PROFILES["mini"]))
    (package / "helper.py").write_text("def strength():\n    return 0.25\n")
    (package / "own.bin").write_bytes(b"the second")
    keys.forget()
    assert keys.changed(first,
                        keys.method_parts(cls(PROFILES["mini"]))) == ["code of darkerplug.helper",
                                                                      "file 1 own.bin"]
    (package / "own.bin").unlink()
    with pytest.raises(FsrError, match="method darker.third: its file .*own.bin is missing"):
        keys.method_parts(cls(PROFILES["mini"]))
    sys.modules.pop("darkerplug", None)


def test_profiles_defaults_are_in_no_key(quick_plan, session_store):
    plan = quick_plan(methods=("bicubic",), people="1")
    other = replace(plan, profile=replace(plan.profile, people=99, batch=3, data="elsewhere"))
    first, second = (Run(p, session_store) for p in (plan, other))
    chunk = first.chunks()[0]
    assert first.restored_keys(first.cells[0], chunk) == second.restored_keys(second.cells[0],
                                                                              chunk)


class Fitted(Method):
    """Takes its brightness from a fit."""

    name, needs = "fitted.test", frozenset({"fit", "references"})

    def fit(self, person, seed):
        import torch

        return {"level": torch.tensor([0.5])}

    def restore(self, batch: Batch) -> np.ndarray:
        return batch.upsampled * np.array([float(batch.fits[p]["level"]) for p in batch.people],
                                          np.float32)[:, None, None, None]


def test_the_content_of_a_fit_is_in_the_key(quick_plan, tmp_path, monkeypatch):
    import torch

    registry.load()
    monkeypatch.setitem(registry._methods, "fitted.test", Fitted)
    store, plan = Store(tmp_path), quick_plan(methods=("fitted.test",), people="1",
                                              metrics=("psnr",))
    first = Run(plan, store).execute()
    assert first.missing == 0 and first.computed["fitted"] == 1
    path = next((tmp_path / "fits").glob("*.safetensors"))
    store.put_tensors("fits", path.stem, {"level": torch.tensor([0.25])})
    second = Run(plan, store).execute()
    assert second.computed["restored"] == 5
    assert not set(first.records["key"]) & set(second.records["key"])


def test_why_a_record_is_new_is_said(quick_plan, tmp_path, edited):
    store, plan = Store(tmp_path), quick_plan(methods=("bicubic", "reference"), people="1")
    first = Run(plan, store)
    assert new_records(first, first.execute()) == []
    edited("fsrbench.faces.warp")
    second = Run(plan, store)
    lines = new_records(second, second.execute())
    assert lines == ["reference: 5 records are new; changed: code of fsrbench.faces.warp"]


def test_a_table_of_mixed_versions_says_so(quick_plan, tmp_path, monkeypatch):
    from fsrbench.reports.tables.table import build

    store, plan = Store(tmp_path), quick_plan(methods=("bicubic",), people="1")
    Run(plan, store).execute()
    monkeypatch.setattr("fsrbench.engine.run.describe",
                        lambda arguments: {"packages": {"torch": "0.1"}})
    outcome = Run(replace(plan, scales=(8, 16)), store).execute()
    notes = build(outcome, "t", "T", plan.metrics, "celebref-hq").notes
    assert any("different versions of torch 0.1, " in note for note in notes)


def test_packages_are_found_where_importlib_finds_them():
    import importlib.metadata

    from fsrbench.engine import keys

    # A package that stands in two folders of the path is named twice there.
    theirs = importlib.metadata.packages_distributions()
    # Anew, as another test may have put a folder on the path since.
    ours = keys._distributions.__wrapped__()
    assert {name: set(found) for name, found in ours.items()} == {
        name: set(found) for name, found in theirs.items()}


def test_a_module_that_is_not_there_has_no_digest():
    """A key that names a moved file would else never change again."""
    assert keys.code_digest("fsrbench.imaging") != keys.code_digest("fsrbench.rng")
    with pytest.raises(ModuleNotFoundError, match="fsrbench.gone"):
        keys.code_digest("fsrbench.gone")
