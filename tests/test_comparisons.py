"""Tables 2 to 5 by command and as values; Table 4 against the networks themselves."""

import csv
import re

import numpy as np
import pytest
from layouts import fields, write_clip, write_list
from PIL import Image, ImageOps

from fsrbench import registry
from fsrbench.engine.tolerance import spread_of
from fsrbench.methods.idfsr.configs import CONFIGS
from fsrbench.methods.idfsr.network import IdfsrNet
from fsrbench.metrics import family, metrics
from fsrbench.profiles import PROFILES
from fsrbench.registry import resolve
from fsrbench.reports.paper.published import find
from fsrbench.reports.tables import table4
from fsrbench.reports.tables.comparisons import COMPARISONS

# What the paper's tables have beside each other, by the names of its methods.
PAPER_ROWS = {
    "table1": {"codeformer", "pgdiff", "dr2", "difface", "stablesr", "dpi", "asffnet", "dmdnet",
               "idfsr-pt", "idfsr-ft"},
    "table2": {"codeformer", "pgdiff", "dr2", "difface", "asffnet", "dmdnet", "idfsr-ft"},
    "table3": {"codeformer", "pgdiff", "dr2", "difface", "asffnet", "dmdnet", "idfsr-pt",
               "idfsr-ft", "idfsr-noref"},
    "table5-casia": {"codeformer", "pgdiff", "dr2", "difface", "asffnet", "dmdnet", "idfsr-ft"},
    "table5-celebv": {"codeformer", "pgdiff", "dr2", "difface", "asffnet", "dmdnet", "idfsr-ft"},
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_each_comparison_has_the_paper_s_rows_and_numbers(name):
    """Every method of the paper's table is in ours, and the published values are found under our
    metrics."""
    table = COMPARISONS[name]
    classes = [registry.get(resolve(m, "mini")) for m in table.methods]
    known = {c.paper for c in classes if c.paper}
    assert PAPER_ROWS[name] <= known
    columns = [m for family_name in table.metrics for m in family(family_name)]
    for scale in table.scales:
        found = {(c.paper, m.id) for c in classes for m in columns if c.paper
                 and find(table.data, scale, c.paper, m.paper)}
        with_values = {m for _, m in found}
        assert len(with_values) >= {"table2": 5, "table5-casia": 4}.get(name, 7)


def test_what_searches_stands_in_the_default_tables_of_restoration_only():
    """Everywhere, as a row of published weights, behind the general networks."""
    method = registry.get(resolve("pulse.official-prior", "mini"))
    assert method.weights == "published" and spread_of(method) > 0
    for name, table in COMPARISONS.items():
        at = [table.methods[i - 1] for i, m in enumerate(table.methods)
              if m == "pulse.official-prior"]
        assert at == (["srmd"] if name in ("table1", "table3") else []), name


def test_ages_are_shown_with_their_deviation(invoke, session_store, tmp_path):
    done = invoke("table2", "--people", "2", "--method", "reference", "--method", "bicubic",
                  "--store", session_store.root, "--out", tmp_path / "o", check=0)
    row = next(r for r in csv.DictReader((tmp_path / "o" / "table2.csv").open())
               if r["metric"] == "age.difference@dlib" and r["method"] == "reference")
    assert f"{float(row['mean']):.1f} ± {float(row['sd']):.1f}" in done.stdout
    assert "n/a emotion.agree@deepface" in done.stdout or "ACC Emo" in done.stdout
    assert "(dlib)" in done.stdout and "stands in for DeepFace's age" in done.stdout


@pytest.mark.parametrize("words, name", [(("table3",), "table3"), (("table5",), "table5-casia")])
def test_the_other_tables_by_command(invoke, session_store, tmp_path, words, name):
    done = invoke(*words, "--people", "2", "--method", "bicubic", "--store", session_store.root,
                  "--out", tmp_path / "o", check=0)
    rows = list(csv.DictReader((tmp_path / "o" / f"{name}.csv").open()))
    assert {r["scale"] for r in rows} == set(COMPARISONS[name].scales)
    assert f"×{COMPARISONS[name].scales[0]}" in done.stdout


def test_a_table_of_which_nothing_can_be_measured_says_why(invoke, session_store, tmp_path):
    done = invoke("table1", "--people", "1", "--scale", "8", "--method", "bicubic", "--metric",
                  "fid,niqe", "--store", session_store.root, "--out", tmp_path / "o", check=0)
    assert "n/a fid.clean@gt: inception-2015-12-05.pt is missing" in done.stdout
    for name in ("table1.svg", "table1.html"):
        assert "Nothing could be measured" in (tmp_path / "o" / name).read_text()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, orl_root):
    """A CASIA-like folder and CelebV-like clips of ORL faces, prepared into one store; data set ->
    root."""
    from fsrbench.datasets.common.frozen import Choice, prepare_named
    from fsrbench.engine.store import Store

    root = tmp_path_factory.mktemp("paper")
    for number, person in enumerate(("s3", "s4")):
        images = [np.asarray(Image.open(orl_root / person / f"{n}.pgm").convert("RGB")
                             .resize((184, 224)))
                  for n in range(1, 11)]
        folder = root / "casia" / f"{number:07d}"
        folder.mkdir(parents=True)
        for n, image in enumerate(images[:4]):
            # Of CASIA's size.
            ImageOps.pad(Image.fromarray(image), (250, 250)).save(folder / f"{n:03d}.jpg",
                                                                  quality=95)
        write_clip(root / "celebv" / "slice_1" / f"vid{number}_{number}_0.mp4", images)
    write_list(root / "celebv", {f"vid{number}_{number}_0": fields(f"vid{number}")
                                 for number in (0, 1)})
    store = Store(root / "store")
    prepare_named("casia-webface", str(root / "casia"), Choice(None, None, "side"), store)
    prepare_named("celebv-text", str(root / "celebv"), Choice(quality="side"), store)
    return root


@pytest.mark.parametrize("name, folder", [("casia-webface", "casia"), ("celebv-text", "celebv")])
def test_table5_runs_from_prepared_sets(prepared, invoke, tmp_path, name, folder):
    """The published numbers of that very data set stand beside, and the frozen rule is in the
    notes."""
    done = invoke("table5", "--data", f"{name}:{prepared / folder}", "--method", "bicubic",
                  "--method", "idfsr.pt", "--store", prepared / "store", "--out", tmp_path, check=0)
    stem = f"table5-{folder}"
    rows = list(csv.DictReader((tmp_path / f"{stem}.csv").open()))
    assert {r["dataset"] for r in rows} == {name} and {r["scale"] for r in rows} == {"16"}
    ids = {r["method"]: r for r in rows if r["metric"] == "ids.cosine@dlib"}
    assert float(ids["idfsr.pt"]["mean"]) > 0 and int(ids["bicubic"]["n_ok"]) >= 4
    assert find(name, 16, "idfsr-ft", "ids") is not None and "side" in done.stdout
    refused = invoke("table5", "--data", f"{name}:{tmp_path}", "--store", prepared / "store",
                     "--out", tmp_path)
    assert refused.returncode == 3
    assert f"is not prepared in {prepared / 'store'}; run `invoke prepare {name}" in refused.stderr


def test_table4_is_what_the_networks_are(invoke, tmp_path):
    import torch

    done = invoke("table4", "--out", tmp_path, check=0)
    lines = {line.name: line for line in table4.lines()}
    assert all(line.same for line in lines.values()) and len(re.findall(r"\| yes +\|",
                                                                        done.stdout)) == len(lines)
    with torch.device("meta"):
        network = IdfsrNet(CONFIGS["paper"])
    first = next(p for name, p in network.named_parameters() if name.startswith("input_blocks.0")
                 and p.dim() == 4)
    assert [str(n) for n in first.shape[:2]] == [lines[k].ours["paper"]
                                                 for k in ("Base channels", "Input channels")]
    rows = list(csv.DictReader((tmp_path / "table4.csv").open()))
    assert [r["mini"] for r in rows] == [line.ours["mini"] for line in lines.values()]
    assert set(PROFILES) == set(table4.PROFILES)


def test_a_changed_configuration_shows_in_table4(monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(CONFIGS, "paper", replace(CONFIGS["paper"], T=500))
    assert [line.name for line in table4.lines() if not line.same] == ["Training T"]


def test_every_published_metric_has_a_column():
    """Nothing of Tables 1 to 3 and 5 is left without a metric of ours."""
    from fsrbench.reports.paper.published import cells

    published = {metric for (*_, metric), cell in cells().items() if cell.table != "table6"}
    ours = {m.paper for m in metrics().values()} | {m.paper_spread for m in metrics().values()}
    assert published <= ours
