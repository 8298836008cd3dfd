"""A table in shards: as processes of this machine, and as SLURM jobs where SLURM is installed."""

import json
import os
import re
import shutil
import subprocess

import pytest
from conftest import ROOT

from fsrbench.engine import cluster
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError

QUICK = ("--people", "3", "--scale", "8", "--method", "bicubic,reference", "--metric", "psnr,ssim",
         "--batch", "4")


@pytest.mark.parametrize("words, whole", [("90", 90), ("1:30:00", 90), ("0:00:30", 1),
                                          ("1-12:00:00", 2160)])
def test_time_limits_are_read_as_slurm_reads_them(words, whole):
    assert cluster.minutes(words) == whole


@pytest.mark.parametrize("words, said", [
    (("--engine", "pbs"), "--engine pbs: unknown; known: here, processes, slurm"),
    (("--engine", "processes", "--shards", "0"), "--shards 0: is no number of shards"),
    (("--engine", "processes", "--time", "soon"), "--time soon: is no time limit"),
    (("--engine", "processes", "--time", "0"), "--time 0: is no time"),
    (("--engine", "processes", "--shards", "x"), "--shards x: is not a whole number"),
    (("--engine", "processes", "--gpus", "-1"), "--gpus -1: is not a whole number"),
    (("--engine", "processes", "--cpus", "two"), "--cpus two: is not a whole number"),
    (("--shards", "4"), "--shards 4: is for several processes at once; add --engine processes"),
    (("--partition", "low"), "--partition low: is for several processes at once"),
    (("--engine", "slurm"), "there is no sbatch on this machine"),
    (("--engine", "processes", "--method", "nosuch"), "method 'nosuch'")])
def test_what_cannot_run_is_said_before_anything_is_submitted(invoke, tmp_path, monkeypatch, words,
                                                              said):
    monkeypatch.setattr(cluster.shutil, "which", lambda name: None)
    done = invoke("table1", "--store", tmp_path / "store", "--out", tmp_path, *words, check=2)
    assert said in done.stderr and not (tmp_path / "store" / "cluster").exists()


@pytest.mark.full
def test_processes_give_the_bytes_of_one(invoke, tmp_path):
    for name, words in (("one", ()), ("two", ("--engine", "processes", "--shards", "2"))):
        done = invoke("table1", *QUICK, "--store", tmp_path / name, *words, "--out",
                      tmp_path / name / "out", check=0)
    assert re.search(r"of 2 shards 2 done", done.stderr), done.stderr
    for suffix in ("md", "csv", "tex", "svg"):
        one, two = ((tmp_path / name / "out" / f"table1.{suffix}").read_bytes()
                    for name in ("one", "two"))
        assert one == two, suffix
    # Both had a share: each run of a shard stands in the store with its rank.
    shards = [json.loads(p.read_text())["shard"][:2] for p in (tmp_path / "two").glob("runs/*")]
    assert sorted(filter(all, shards)) == [["0", "2"], ["1", "2"]]


@pytest.mark.full
def test_eight_processes_fit_and_restore_the_bytes_of_one(invoke, tmp_path):
    """Shards of one image each, so that several need the fit of one person, which is made once."""
    words = ("--people", "2", "--scale", "16", "--method", "bicubic,idfsr.pt,idfsr.ft", "--metric",
             "psnr,ssim", "--batch", "1")
    for name, engine in (("one", ()), ("eight", ("--engine", "processes", "--shards", "8"))):
        done = invoke("table1", *words, "--store", tmp_path / name, *engine, "--out",
                      tmp_path / name / "out", check=0)
    assert re.search(r"of 8 shards 8 done", done.stderr), done.stderr
    for suffix in ("md", "csv", "tex", "svg"):
        one, eight = ((tmp_path / name / "out" / f"table1.{suffix}").read_bytes()
                      for name in ("one", "eight"))
        assert one == eight, suffix
    stores = [Store(tmp_path / name) for name in ("one", "eight")]
    of = [store.read("rows").query("metric == 'restored'") for store in stores]
    assert set(of[0]["image"]) == set(of[1]["image"]) and not of[1]["key"].duplicated().any()
    for person, rows in of[1].query("method == 'idfsr.ft'").groupby("person"):
        assert rows["run"].nunique() > 1, person
    assert all(len(list(store.root.glob("fits/*"))) == 2 for store in stores)


def test_a_shard_that_fails_is_named_with_its_log(tmp_path, capsys):
    found = cluster.submit("processes", ["table1", "--method", "nosuch"], 2, cluster.Resources(),
                           tmp_path)
    with pytest.raises(FsrError, match=r"shard 0 of 2, and 1 more: failed \(method 'nosuch': .*\); "
                       r"its log is \S+_0_log\.err; mend that and run the same") as caught:
        cluster.wait(found, 2)
    assert caught.value.code == 3 and "of 2 shards 2 failed" in capsys.readouterr().err


def test_words_of_a_command_are_those_that_were_typed():
    from fsrbench.reports.commands.tables import table1, words_of

    typed = dict(scale=["8", "16"], people="3", retry_failed=True, store="s", engine="slurm",
                 fresh=True, metric=[], method=None)
    said = ["table1", "--scale", "8", "--scale", "16", "--people", "3", "--store", "s",
            "--retry-failed"]
    assert sorted(words_of("table1", table1.body, typed)) == sorted(said)
    with pytest.raises(FsrError, match="is no time limit"):
        cluster.minutes("1:30")


@pytest.mark.full
@pytest.mark.skipif(not all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch")))
                    or os.geteuid() != 0, reason="no SLURM on this machine, or not root")
def test_slurm_itself_gives_the_bytes_of_one_process():
    done = subprocess.run([ROOT / "tests" / "slurm.sh"], capture_output=True, text=True,
                          timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall("ok: (\\w+)", done.stdout) == ["eight", "killed", "preempted",
                                                             "both"]
