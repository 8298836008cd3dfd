"""The engine: nothing twice, nothing lost, the same numbers however the work is cut."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fsrbench import registry
from fsrbench.core import Batch, Method
from fsrbench.engine.plan import shard_of_environment
from fsrbench.engine.run import Run
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.reports.tables.comparisons import TABLE1, make
from fsrbench.reports.tables.render import tidy
from fsrbench.reports.tables.table import build, check_protocol


@pytest.fixture
def with_method(monkeypatch):
    """Register a method for one test."""
    registry.load()

    def add(cls):
        monkeypatch.setitem(registry._methods, cls.name, cls)
        return cls.name
    return add


def csv_of(plan, store):
    outcome = Run(plan, store).execute()
    return tidy(build(outcome, "t", "T", plan.metrics, "celebref-hq")), outcome


def test_a_second_run_computes_nothing_and_says_the_same(quick_plan, tmp_path):
    store, plan = Store(tmp_path), quick_plan()
    first, outcome = csv_of(plan, store)
    assert outcome.computed["restored"] == 20 and outcome.computed["measured"] == 40
    second, again = csv_of(plan, store)
    assert first == second and set(again.computed.values()) == {0}
    assert not store.read("rows").duplicated("key").any()


def test_half_precision_runs_and_has_its_own_records(quick_plan, tmp_path):
    """On the processor bf16 is there too: near float32, not the same, and never mixed up with
    it."""
    store, plan = Store(tmp_path), quick_plan(methods=("dpi.mini",), metrics=("psnr",),
                                              people="1", batch="5")
    images, keys = [], []
    for precision in ("float32", "bf16"):
        outcome = Run(replace(plan, precision=precision), store).execute()
        rows = outcome.records[outcome.records["metric"] == "restored"].sort_values("sample")
        images.append(np.stack([store.image(name) for name in rows["image"]]).astype(int))
        keys.append(set(rows["key"]))
        assert outcome.computed["restored"] == 5 and (rows["status"] == "ok").all()
    assert not keys[0] & keys[1]
    assert 0 < np.abs(images[0] - images[1]).mean() < 6


def test_an_image_that_the_store_lost_is_made_again(quick_plan, tmp_path):
    """A restoration, an aligned face, and one that was changed; nothing else is computed anew."""
    store, plan = Store(tmp_path), quick_plan()
    first, outcome = csv_of(plan, store)
    rows = outcome.records[(outcome.records["metric"] == "restored")
                           & (outcome.records["method"] == "reference")]
    lost, changed = rows["image"].iloc[:2]
    aligned = outcome.samples.samples[0].gt.digest
    store.image_path(lost).unlink()
    store.image_path(aligned).unlink()
    second, again = csv_of(plan, store)
    assert second == first and store.holds(lost) and store.holds(aligned)
    assert again.computed == {"restored": 4, "measured": 0, "fitted": 0}
    store.image_path(changed).write_bytes(b"not an image")
    with pytest.raises(FsrError,
                       match=f"stored image {store.image_path(changed)}: was changed; delete it "
                             f"and run the same"):
        store.image(changed)
    store.image_path(changed).unlink()
    assert csv_of(plan, store)[0] == first and store.holds(changed)


def test_a_table_is_drawn_once(quick_plan, tmp_path, monkeypatch):
    """The page has the same chart as the SVG file."""
    from fsrbench.reports.tables import comparisons

    drawn, outcome = [], Run(quick_plan(), Store(tmp_path)).execute()
    chart = comparisons.chart
    monkeypatch.setattr(comparisons, "chart", lambda table: drawn.append(chart(table)) or drawn[-1])
    paths = {p.suffix: p.read_text()
             for p in comparisons.write(comparisons.tabulate(TABLE1, outcome), outcome,
                                        tmp_path / "out")}
    assert len(drawn) == 1 and paths[".svg"] == drawn[0] and drawn[0] in paths[".html"]


def test_each_lr_image_is_made_once_for_all_who_show_it(quick_plan, tmp_path, monkeypatch):
    """Run, gallery, explorer and figures; kept by content, under the digest that the records
    name."""
    from fsrbench.degrade.named import Degradation, bicubic
    from fsrbench.engine.lr_images import lr_images
    from fsrbench.reports.figures.context import Context
    from fsrbench.reports.pages import explorer
    from fsrbench.reports.tables.comparisons import tabulate, write

    made = []
    monkeypatch.setattr(Degradation, "apply_batch",
                        lambda self, images, scale, ids: made.extend(ids) or
                        np.stack([bicubic(image, scale, "") for image in images]))
    store, plan = Store(tmp_path), quick_plan(scales=("8", "16"))
    outcome = Run(plan, store).execute()
    write(tabulate(TABLE1, outcome), outcome, tmp_path / "out")
    explorer.data(outcome, tmp_path)
    context = Context(plan, store)
    Run(plan, store).execute()
    for sample in outcome.samples.samples:
        assert np.array_equal(context.lr(sample, 8), bicubic(sample.gt.image, 8, ""))
    assert len(made) == 20
    assert context.lr(outcome.samples.samples[0],
                      8) is lr_images("bicubic", store)(outcome.samples.samples[0], 8)
    kept = outcome.records.drop_duplicates(["scale", "sample"])
    assert all(np.array_equal(store.image(r.lr), outcome.lr(next(s for s in outcome.samples.samples
                                                                 if s.id == r.sample), r.scale))
               for r in kept.itertuples())


def test_a_new_metric_or_method_needs_no_new_restoration(quick_plan, tmp_path):
    store = Store(tmp_path)
    csv_of(quick_plan(metrics=("psnr",), methods=("bicubic",)), store)
    _, outcome = csv_of(quick_plan(metrics=("psnr", "ssim"), methods=("bicubic",)), store)
    assert outcome.computed["restored"] == 0 and outcome.computed["measured"] == 10
    _, outcome = csv_of(quick_plan(metrics=("psnr", "ssim")), store)
    assert outcome.computed["restored"] == 10


def test_more_people_keep_what_is_there(quick_plan, tmp_path):
    """People are added in drawing order, so whole chunks of a smaller plan serve the larger one."""
    store = Store(tmp_path)
    csv_of(quick_plan(people="2", batch="5"), store)
    text, outcome = csv_of(quick_plan(people="3", batch="5"), store)
    assert outcome.computed["restored"] == 10
    assert text == csv_of(quick_plan(people="3", batch="5"), Store(tmp_path / "other"))[0]


def test_two_shards_merge_to_the_same_csv(quick_plan, tmp_path, monkeypatch):
    plan = quick_plan(people="3")
    whole, _ = csv_of(plan, Store(tmp_path / "one"))
    shared = Store(tmp_path / "two")
    counts = []
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        outcome = Run(plan, shared).execute()
        counts.append(outcome.computed["restored"])
        assert (outcome.missing > 0) == (rank == 0)
        if rank == 0:
            with pytest.raises(FsrError, match="records are missing"):
                build(outcome, "t", "T", plan.metrics, "celebref-hq")
            assert isinstance(make(TABLE1, plan, shared, tmp_path / "out"), int)
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    merged, outcome = csv_of(plan, shared)
    assert merged == whole and sum(counts) == 30 and min(counts) > 0
    assert outcome.computed["restored"] == 0
    assert not shared.read("rows").duplicated("key").any()


def test_stores_of_separate_machines_merge_by_copying(quick_plan, tmp_path, monkeypatch):
    plan = quick_plan()
    whole, _ = csv_of(plan, Store(tmp_path / "whole"))
    for rank in (0, 1):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(rank + 1))
        monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
        monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
        Run(plan, Store(tmp_path / f"m{rank}")).execute()
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"):
        monkeypatch.delenv(name)
    shutil.copytree(tmp_path / "m1", tmp_path / "m0", dirs_exist_ok=True)
    merged, outcome = csv_of(plan, Store(tmp_path / "m0"))
    assert merged == whole and set(outcome.computed.values()) == {0}


@pytest.mark.parametrize("environment,text", [
    ({"RANK": "1"}, "not two numbers"), ({"RANK": "2", "WORLD_SIZE": "2"}, "not below"),
    ({"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_COUNT": "2"}, "not two numbers")])
def test_half_a_shard_is_refused(environment, text, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FsrError, match=text):
        shard_of_environment()


class Noisy(Method):
    """Returns its noise, so that batch composition would show."""

    name, title = "noisy", "Noisy"

    def restore(self, batch: Batch) -> torch.Tensor:
        return (batch.noise("x_T") / 8 + 0.5).clamp(0, 1)


def test_batch_size_changes_neither_noise_nor_lr(quick_plan, tmp_path, with_method):
    with_method(Noisy)
    frames = []
    for batch in ("1", "4", "7"):
        store = Store(tmp_path / batch)
        _, outcome = csv_of(quick_plan(methods=("noisy", "bicubic"), scales=("8", "16"),
                                       batch=batch), store)
        restored = outcome.records[outcome.records["metric"] == "restored"]
        frames.append(restored.set_index(["method", "scale", "sample"])[["image", "lr"]]
                      .sort_index())
    assert frames[0].equals(frames[1]) and frames[0].equals(frames[2])
    assert frames[0].loc["noisy"]["image"].nunique() == 20


def test_seed_changes_the_noise(quick_plan, tmp_path, with_method):
    with_method(Noisy)
    store = Store(tmp_path)
    images = [csv_of(quick_plan(methods=("noisy",), seed=seed), store)[1].records["image"].unique()
              for seed in "01"]
    assert not set(images[0]) & set(images[1])


def test_methods_never_see_the_truth(quick_plan, tmp_path, with_method):
    seen = []

    class Spy(Method):
        name, title, needs = "spy", "Spy", frozenset({"references", "landmarks", "fit"})

        def fit(self, person, seed):
            seen.append({p.digest for p in person.album})
            return {"z": torch.zeros(1)}

        def restore(self, batch):
            assert not hasattr(batch, "gt")
            seen.append({p.digest for album in batch.albums for p in album}
                        | {p.digest for p in batch.references})
            return batch.upsampled
    with_method(Spy)
    _, outcome = csv_of(quick_plan(methods=("spy",)), Store(tmp_path))
    truths = {s.gt.digest for s in outcome.samples.samples}
    assert len(seen) > 2 and not truths & set().union(*seen)
    assert outcome.computed["fitted"] == 2


def test_tables_refuse_mixed_protocols(quick_plan, tmp_path):
    _, outcome = csv_of(quick_plan(), Store(tmp_path))
    check_protocol(outcome.records)
    for column, value in (("dataset_digest", "x"), ("degradation", "blur@1"), ("profile", "paper"),
                          ("seed", 7)):
        mixed = outcome.records.astype({column: object})
        mixed.loc[mixed.index[0], column] = value
        with pytest.raises(FsrError, match=f"differ in {column}"):
            check_protocol(mixed)
    fewer = outcome.records[~((outcome.records["method"] == "bicubic")
                              & (outcome.records["sample"] == outcome.records["sample"].iloc[0]))]
    with pytest.raises(FsrError, match="different samples"):
        check_protocol(fewer)


def test_provenance_of_every_record(quick_plan, tmp_path):
    import json

    store = Store(tmp_path)
    _, outcome = csv_of(quick_plan(), store)
    runs = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*.json")}
    assert set(outcome.records["run"]) <= set(runs)
    run = next(iter(runs.values()))
    assert run["packages"]["torch"] in (torch.__version__.split("+")[0], torch.__version__)
    assert run["arguments"]["batch"] == 4 and len(run["commit"]) == 40


def test_a_damaged_note_of_a_run_is_named_and_may_be_deleted(quick_plan, tmp_path):
    store = Store(tmp_path)
    text, _ = csv_of(quick_plan(), store)
    path, = (tmp_path / "runs").iterdir()
    for broken in ("{", "[]", "{}"):
        path.write_text(broken)
        with pytest.raises(FsrError,
                           match=f"file {path}: is damaged .*; delete it; its records stay"):
            csv_of(quick_plan(), store)
    path.unlink()
    assert csv_of(quick_plan(), store)[0] == text


def test_a_change_of_source_counts_and_a_comment_does_not():
    from fsrbench.engine.keys import source_tokens

    plain = "def f(x):\n    return x + 1\n"
    bracketed = "def f(x):\n    return (x + 1)\n"
    told = '"""Doc."""\n# why\ndef f(x):\n    """Doc."""\n    return (x +  # here\n            1)\n'
    assert source_tokens(told) == source_tokens(bracketed)
    assert source_tokens("x = 'a'\n") != source_tokens("x = 'b'\n")
    assert source_tokens(plain) != source_tokens(plain.replace("1", "2"))
    assert source_tokens(plain) == source_tokens('# a\n"""b"""\ndef f(x):\n    "c"\n    return x + '
                                                 '1  # d\n')


def test_code_covers_what_a_method_imports_and_nothing_that_only_checks_or_shows():
    from fsrbench.engine.keys import code_of

    modules = code_of("fsrbench.methods.idfsr.method").modules
    assert {"fsrbench.methods.common.diffusion", "fsrbench.faces.warp",
            "fsrbench.methods.common.unet", "fsrbench.imaging",
            "fsrbench.weights.networks"} <= set(modules)
    assert not [m for m in modules if m.endswith(("parity", "training", "training.tasks",
                                                  "profiles")) or "reports" in m]
    assert code_of("fsrbench.methods.spandrel").libraries.keys() >= {"spandrel"}
    assert not any("retinaface" in m for m in code_of("fsrbench.methods.reference").modules)
