"""CelebRef-HQ from raw layout to frozen split: generated, full-sized as a list, malformed in every
way; and what holds of every set."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from layouts import (
    celebref_numbers,
    drawing,
    entries_of,
    half_a_million,
    manifest,
    people_of,
)
from PIL import Image

from fsrbench.datasets import casia_webface as casia
from fsrbench.datasets import celebref_hq as celebref
from fsrbench.datasets.common.frozen import (
    Choice,
    Findings,
    evaluated,
    freeze,
    listed,
    prepare_named,
)
from fsrbench.engine.data import divided, open_source
from fsrbench.engine.samples import load_samples
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.profiles import PROFILES

MINI = PROFILES["mini"]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


# ---- CelebRef-HQ ---------------------------------------------------------------------------------

def test_celebref_reaches_the_paper_s_counts_and_any_order_gives_the_same_bytes(tmp_path):
    numbers = celebref_numbers()
    entries = entries_of(numbers)
    plan = celebref.plan(entries)
    assert plan.found == celebref.PUBLISHED and evaluated(plan) == celebref.PAPER
    assert plan.facts["reached"]
    halves = {part: [i for i, of in plan.split.items() if of == part]
              for part in ("fine-tune", "test", "train", "unused")}
    assert len(halves["train"]) + len(halves["unused"]) == 10555 - 586
    trained, held = ({i.split("/")[0] for i in halves[part]} for part in ("train", "test"))
    assert len(trained) == 905 and len(held) == 56 and not trained & held
    for person in held:
        own = [sum(i.split("/")[0] == person for i in halves[part])
               for part in ("fine-tune", "test")]
        assert sum(own) == numbers[person] >= plan.facts["least_images"] and own[0] - own[1] in (0,
                                                                                                 1)
    shuffled = [entries[i] for i in np.random.default_rng(1).permutation(len(entries))]
    for number, one in enumerate((plan, celebref.plan(shuffled))):
        freeze("celebref-hq", tmp_path, one, Store(tmp_path / str(number)))
    assert len({manifest("celebref-hq", tmp_path, Store(tmp_path / number))
                for number in "01"}) == 1
    # No smaller seed reaches the counts under the same rule, and no smaller m was passed over.
    assert plan.facts["least_images"] == 4
    for seed in range(plan.facts["seed"]):
        assert not celebref.plan(entries, seed).facts["reached"]


def test_celebref_names_the_nearest_draw_where_the_counts_cannot_be_reached():
    plan = celebref.plan(entries_of({str(i): 11 for i in range(1005)}))
    assert not plan.facts["reached"] and plan.facts["seed"] == 0
    assert "56 people, 616 images, the nearest to 56 people, 586 images" in plan.rule
    assert "people by seed 7, of whom" in celebref.plan(entries_of(celebref_numbers()), 7).rule


def test_celebref_from_files_to_samples(tmp_path, store, orl_root, invoke):
    root = tmp_path / "raw"
    for person in sorted(orl_root.iterdir(), key=lambda p: p.name)[:20]:
        (root / person.name).mkdir(parents=True)
        for n in range(1, 6):
            Image.open(person / f"{n}.pgm").convert("RGB").crop((0, 10, 92,
                                                                 102)).resize((512, 512)).save(
                root / person.name / f"{n}.png", compress_level=1)
    (root / "s1" / "2.png").write_bytes((root / "s1" / "2.png").read_bytes()[:3000])
    Image.open(root / "s1" / "3.png").resize((256, 256)).save(root / "s1" / "3.png")
    text = invoke("prepare", "celebref-hq", "--root", root, "--store", store.root, check=0).stdout
    assert "found      20 people, 99 images (published: 1,005 people, 10,555 images)" in text
    assert "evaluation 2 people" in text and "the nearest to 56 people, 586 images" in text
    assert "left out, not a whole image: 1 (s1/2.png)" in text
    assert "remarked, not of 512 pixels: 1 (s1/3.png)" in text
    first = manifest("celebref-hq", root, store)
    assert prepare_named("celebref-hq", str(root), Choice(), store) == text.strip()
    assert manifest("celebref-hq", root, store) == first
    samples = load_samples(f"celebref-hq:{root}", MINI, store, None, seed=5)
    split = {row.split(",")[0] + "/" + row.split(",")[1]: row.split(",")[4]
             for row in first[0].decode().splitlines()[1:]}
    assert {s.id for s in samples.samples} == {i for i, part in split.items() if part == "test"}
    for sample in samples.samples:
        assert {p.id for p in sample.album} <= {i for i, part in split.items() if part
                                                == "fine-tune"}
    train, drawn = divided(open_source(f"celebref-hq:{root}", store), seed=5)
    assert set(drawn) == {s.person for s in samples.samples} and len(train) == 18
    assert not set(train) & set(drawn)
    assert "a tenth of the people by seed" in samples.source.remarks
    Image.open(root / drawn[0] / "1.png").rotate(1).save(root / drawn[0] / "1.png")
    with pytest.raises(FsrError,
                       match=f"1 files are not those of its manifest, first {drawn[0]}/1.png; run "
                             f"`invoke prepare"):
        load_samples(f"celebref-hq:{root}", MINI, store, None, seed=5)


def test_a_folder_that_is_no_celebref_is_refused(orl_root, store, invoke):
    """ORL has folders of people too."""
    told = invoke("prepare", "celebref-hq", "--root", orl_root, "--store", store.root)
    assert told.returncode == 2 and "is another data set: 40" in told.stderr
    assert "--data folder:PATH" in told.stderr and not (store.root / "manifests").exists()


def test_unprepared_sets_say_what_to_run(tmp_path, store):
    for name in ("celebref-hq", "casia-webface", "celebv-text"):
        with pytest.raises(FsrError,
                           match=f"data set {name}: is not prepared in .*; run `invoke prepare "
                                 f"{name} --root "):
            load_samples(f"{name}:{tmp_path}", MINI, store, None, 0)
        with pytest.raises(FsrError, match=f"--data {name}:PATH"):
            open_source(name)


def test_clashing_names_are_named_and_left_out(tmp_path):
    root = people_of(tmp_path / "raw", {"A": 3, "b": 2, "Jose\u0301": 2, "C": 2})
    drawing(1).save(root / "A" / "1.jpg")
    drawing(2).save(root / "A" / "2.PNG")
    people_of(root, {"B": 2, "Jos\u00e9": 1})
    (root / "C" / "new\nline.png").write_bytes(b"")
    (root / os.fsdecode(b"raw\xff")).mkdir()
    (root / os.fsdecode(b"raw\xff") / "1.png").write_bytes(b"")
    (root / ".hidden").mkdir()
    drawing(3).save(root / ".hidden" / ".1.png")
    findings = Findings()
    kept = listed(root, "data set x", findings)
    assert [e.id for e in kept] == ["A/3.png", "C/1.png", "C/2.png"]
    text = "\n".join(findings.lines(9))
    assert "name clash with another image" in text
    assert all(n in text for n in ("A/1.jpg", "A/1.png", "A/2.PNG", "b/1.png"))
    assert "name that cannot be written: 2" in text and r"'C/new\nline.png'" in text
    assert r"raw\udcff" in text
    # The second image of the person that one disk spells in another form has no counterpart, and
    # goes all the same.
    assert "name clash with another person: 1 (Jose\u0301/2.png)" in text


def test_composed_names_are_the_same_from_any_disk(tmp_path, store):
    plans = []
    for form, disk in (("Jos\u00e9", "a"), ("Jose\u0301", "b")):
        root = people_of(tmp_path / disk, {form: 4, "Z": 4, "a": 4})
        plans.append([e.id for e in listed(root, "x", Findings())])
    assert plans[0] == plans[1] and "Jos\u00e9/1.png" in plans[0]


def test_the_order_of_a_directory_and_the_locale_do_not_matter(tmp_path, monkeypatch):
    numbers = {**{f"p{i}": 4 for i in range(12)}, "\u00c4": 4, "a b": 4, "Z,z": 4}
    root = people_of(tmp_path / "raw", numbers, enlarged=512)
    words = [sys.executable, "-c", "import sys, os, locale, random\n"
             "locale.setlocale(locale.LC_ALL, '')\n"
             "scan, ls = os.scandir, os.listdir\n"
             "class Scan(list):\n"
             "    def __enter__(self): return self\n"
             "    def __exit__(self, *w): pass\n"
             "def mixed(found):\n"
             "    found = list(found); random.Random(sys.argv[3]).shuffle(found); return found\n"
             "os.scandir = lambda *w: Scan(mixed(scan(*w)))\n"
             "os.listdir = lambda *w: mixed(ls(*w))\n"
             "from pathlib import Path\n"
             "from fsrbench.datasets.common.frozen import Choice, prepare_named\n"
             "from fsrbench.engine.store import Store\n"
             "print(prepare_named('celebref-hq', sys.argv[1], Choice(), Store(sys.argv[2])))"]
    found = []
    for seed, lang in (("1", "C"), ("2", "C.UTF-8"),
                       ("3", "en_US.UTF-8" if os.path.exists("/usr/share/i18n") else "C.UTF-8")):
        store = Store(tmp_path / f"store{seed}")
        env = {k: v for k, v in os.environ.items() if not k.startswith("LC_")}
        try:
            subprocess.run([*words, str(root), str(store.root), seed], check=True,
                           capture_output=True, env={**env, "LANG": lang, "PYTHONUTF8": "1"})
        except subprocess.CalledProcessError as error:
            assert b"unsupported locale" in error.stderr, error.stderr
            continue
        found.append(manifest("celebref-hq", root, store))
    assert len(found) >= 2 and len(set(found)) == 1


# ---- half a million entries ----------------------------------------------------------------------

@pytest.mark.full
def test_a_plan_of_half_a_million_entries_is_linear_and_small(tmp_path):
    code = ("import sys, time; sys.path.insert(0, 'tests'); import layouts as t\n"
            "from fsrbench.datasets import casia_webface as c, celebref_hq as r\n"
            "from fsrbench.datasets.common.frozen import freeze, without_clashes, Findings\n"
            "from fsrbench.engine.store import Store\n"
            "entries, values = t.half_a_million()\n"
            "begun = time.perf_counter()\n"
            "assert without_clashes(entries, Findings()) == entries\n"
            "plan = c.plan(entries, values, 1)\n"
            "whole = r.plan(entries, seed=0)\n"
            "freeze('casia-webface', c.Path(sys.argv[1]), whole, Store(sys.argv[1]))\n"
            # The kernel's high-water mark of this program; getrusage would tell its parent's.
            "peak = next(line.split()[1] for line in open('/proc/self/status') if "
            "line.startswith('VmHWM'))\n"
            "print(len(entries), len(plan.entries), time.perf_counter() - begun, peak)")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    entries, kept, seconds, kilobytes = map(float, done.stdout.split())
    assert entries >= 500_000 and abs(kept - 14908) < 5 and kilobytes < 1e6, done.stdout


def calls_of(function) -> int:
    """How many calls a function makes, Python's and C's."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_twice_the_entries_take_twice_the_calls():
    from fsrbench.datasets.common.frozen import without_clashes

    work = []
    for share in (0.02, 0.04):
        entries, values = half_a_million(share)
        work.append((calls_of(lambda: casia.plan(entries, values, 1, threshold=0.5)) / len(entries),
                     calls_of(lambda: celebref.plan(entries, seed=0)) / len(entries),
                     calls_of(lambda: without_clashes(entries, Findings())) / len(entries)))
    assert all(0.8 < more / less < 1.25 for less, more in zip(*work)), work


# ---- the command ---------------------------------------------------------------------------------

@pytest.mark.parametrize("words,code,text", [
    (("nothing",), 2, "data set 'nothing': unknown"),
    (("orl",), 2, "data set orl: needs no preparation; write --data orl"),
    (("celebref-hq", "--root", "/nowhere"), 2, "/nowhere: no such folder"),
    (("celebref-hq", "--threshold", "3"), 2, "--threshold 3.0: means nothing to celebref-hq"),
    (("celebref-hq", "--quality", "piqe"), 2, "--quality piqe: means nothing to celebref-hq"),
    (("casia-webface", "--quality", "piqua"), 2, "quality 'piqua': unknown; did you mean 'piqe'?"),
    (("casia-webface", "--threshold", "high"), 2, "--threshold high: is not a positive number"),
    (("casia-webface", "--seed", "-1"), 2, "--seed -1: is not a whole number"),
    (("celebref-hq",), 2, "holds no <person>/<image>"),
    (("celebv-text", "--quality", "piqe"), 3, "celebvtext_info.json: cannot be read")])
def test_wrong_words_end_in_one_line(tmp_path, capsys, monkeypatch, words, code, text):
    """invoke's own parser in this process, as ten starts of it take a minute."""
    import invoke

    monkeypatch.syspath_prepend(str(ROOT))
    tasks = importlib.import_module("tasks")
    commands = invoke.Program(namespace=invoke.Collection.from_module(tasks))
    root = [] if "--root" in words else ["--root", str(tmp_path)]
    with pytest.raises(SystemExit) as caught:
        commands.run(["invoke", "prepare", *words, *root, "--store", str(tmp_path / "store")])
    told = capsys.readouterr().err
    assert caught.value.code == code and text in told and len(told.strip().splitlines()) == 1, told
