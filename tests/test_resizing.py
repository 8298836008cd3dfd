"""Images are resized to the side at which a network works and back, and how stands in the key, the
record and the table."""

from types import SimpleNamespace

import pytest

from fsrbench import registry
from fsrbench.engine import keys
from fsrbench.exchange.collect import described
from fsrbench.methods.common.resizing import rule
from fsrbench.profiles import PROFILES


@pytest.mark.parametrize("name, profile, said", [
    ("dr2.official", "paper", "256 -> 512 -> 256 px by antialiased bicubic"),
    ("dr2.official", "mini", "64 -> 256 -> 512 -> 64 px by antialiased bicubic"),
    ("dr2.official-raw", "paper", ""), ("dpi.official", "paper", ""),
    ("difface.official", "paper", "256 -> 512 -> 256 px by antialiased bicubic"),
    ("pgdiff.official", "paper", "256 -> 512 -> 256 px by antialiased bilinear, back by "
                                 "antialiased bicubic"),
    ("stablesr.official", "paper", "256 -> 512 -> 256 px by antialiased bicubic"),
    ("codeformer.official", "paper", "256 -> 512 -> 256 px by OpenCV's bilinear of the LR image, "
                                     "back by antialiased bicubic"),
    ("asffnet.official", "paper", "256 -> 512 -> 256 px by OpenCV's area of the LR image, back by "
                                  "antialiased bicubic"),
    ("dr2.mini", "mini", ""), ("asffnet.mini", "mini", ""), ("stablesr.mini", "mini", ""),
    ("codeformer.mini", "mini", ""), ("idfsr.pt", "paper", ""), ("bicubic", "paper", "")])
def test_the_way_to_the_network_s_side_and_back_is_said(name, profile, said, monkeypatch):
    """In words, in the key, and in the header of a result file."""
    method = registry.get(name)(PROFILES[profile])
    assert method.resizing() == said
    monkeypatch.setattr(keys, "trained", lambda name: name)
    monkeypatch.setattr(keys, "file_digest", str)
    assert keys.method_parts(method).get("resizing", "") == said
    remark = described(SimpleNamespace(method_digest=lambda m: ""), method)["remark"]
    assert (f"resized for the network, {said}" in remark) == bool(said)


def test_a_side_that_is_the_profile_s_needs_no_rule():
    assert rule(256, (256,)) == rule(64, (64, 64)) == ""
    assert rule(64, (256, 256)) == "64 -> 256 -> 64 px by antialiased bicubic"


def test_the_table_names_the_rule_beside_the_methods(quick_plan, tmp_path):
    """Of two methods that share one, once."""
    from fsrbench.engine.run import Run
    from fsrbench.engine.store import Store
    from fsrbench.reports.tables.table import _notes

    outcome = Run(quick_plan(methods=("bicubic",), scales=("8",)), Store(tmp_path)).execute()
    assert not any("Resized" in note for note in _notes(outcome))
    for name in ("difface.official", "stablesr.official", "codeformer.official"):
        outcome.cells.append(SimpleNamespace(scale=8,
                                             method=registry.get(name)(PROFILES["paper"])))
    notes = [note for note in _notes(outcome) if "Resized" in note]
    assert notes == [
        "Resized for the network, 256 -> 512 -> 256 px by antialiased bicubic: DifFace, StableSR.",
        "Resized for the network, 256 -> 512 -> 256 px by OpenCV's bilinear of the LR image, back "
        "by antialiased bicubic: CodeFormer."]
