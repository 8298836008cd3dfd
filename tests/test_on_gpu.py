"""The script that sets a GPU's restorations against a processor's, here a processor's against its
own."""

import pickle

import on_gpu
import pytest


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """Speeds are not what is tested."""
    monkeypatch.setattr(on_gpu, "REPEATS", 1)


def test_the_same_device_agrees_and_another_network_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FSRBENCH_DEVICE", "cpu")
    path = tmp_path / "kept.pkl"
    on_gpu.prepare(path, ["asffnet.mini"])
    assert on_gpu.compare(path, []) == 0
    assert "all within what is allowed" in capsys.readouterr().out
    kept = pickle.loads(path.read_bytes())
    kept["made"]["asffnet.mini"] = kept["made"]["asffnet.mini"] + 1 / 255
    path.write_bytes(pickle.dumps(kept))
    assert on_gpu.compare(path, []) == 1
    assert "WRONG: asffnet.mini" in capsys.readouterr().out


@pytest.mark.full
def test_a_fit_is_compared_alone_and_together(tmp_path, monkeypatch, capsys):
    from dataclasses import replace

    from fsrbench.methods.idfsr import fitting

    monkeypatch.setenv("FSRBENCH_DEVICE", "cpu")
    monkeypatch.setitem(fitting.FITS, "mini", replace(fitting.FITS["mini"], steps=1, batch=2))
    on_gpu.prepare(tmp_path / "kept.pkl", ["idfsr.ft"])
    found = on_gpu.one("idfsr.ft", pickle.loads((tmp_path / "kept.pkl").read_bytes()))
    assert found["apart"] == 0 and found["ms_8"] > 0 and found["fit_together_s"] > 0
    assert found["fit_cosine"] == pytest.approx(1) == found["together_cosine"]
