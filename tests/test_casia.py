"""CASIA-WebFace from raw layout to frozen split: the threshold, the records, the measures."""

from __future__ import annotations

import json
import re
import struct

import numpy as np
import pytest
import test_builders
from layouts import drawing, encoded, entries_of, manifest, people_of, write_records
from PIL import Image

from fsrbench.datasets import casia_webface as casia
from fsrbench.datasets.common import recordio
from fsrbench.datasets.common.frozen import Choice, Findings, prepare_named
from fsrbench.datasets.common.quality import crops, get_quality, quality
from fsrbench.engine.data import open_source
from fsrbench.errors import FsrError

store = test_builders.store


def test_the_threshold_is_solved_as_by_trying_every_one():
    rng = np.random.default_rng(0)
    for trial in range(30):
        people = rng.integers(0, 12, 80)
        values = np.round(rng.random(80), 1 if trial % 2 else 6)
        better, target = (1, -1)[trial % 3 == 0], int(rng.integers(1, 80))
        tried = []
        for threshold in sorted(set(values), key=lambda v: -v * better):
            kept = [p for p, v in zip(people, values) if v * better >= threshold * better]
            tried.append((abs(sum(kept.count(p) for p in set(kept) if kept.count(p) > 1) - target),
                          len(tried), threshold))
        found = casia.solved(values, people, better, target)
        assert found.threshold == min(tried)[2] and abs(found.kept.sum() - target) == min(tried)[0]


def test_a_given_threshold_keeps_people_with_two_images():
    entries = entries_of({"a": 3, "b": 2, "c": 1})
    plan = casia.plan(entries, [0.9, 0.8, 0.2, 0.9, 0.3, 0.9], +1, threshold=0.5, measure="m@1")
    assert [e.id for e in plan.entries] == ["a/1.png", "a/2.png"]
    assert sorted(plan.split.values()) == ["fine-tune", "test"]
    assert "m@1 >= 0.5 (given), people with at least two images: 1 people, 2 images" in plan.rule
    assert [e.id for e in casia.plan(entries, [9, 8, 1, 2, 3, 1], -1,
                                     threshold=3).entries] == ["b/1.png", "b/2.png"]


def test_records_are_read_as_written(tmp_path):
    magic = b"\x0a\x23\xd7\xce"
    images = [(0, b"abc"), (0, b"abcd" + magic + b"efg"), (1, magic + magic),
              (1, b"x" + magic + b"yz"), (1, b"")]
    for headed in (True, False):
        folder = tmp_path / str(headed)
        write_records(folder, images, headed)
        findings = Findings()
        found = recordio.listed_records(folder / "train.rec", folder / "train.idx", findings)
        assert [(p.number, p.label) for p in found] == list(enumerate([0, 0, 1, 1, 1],
                                                                      1)) and not findings.lines()
        assert [recordio.read_image(folder, f"train.rec@{p.offset}")
                for p in found] == [data for _, data in images]


def test_damaged_records_are_named_one_by_one(tmp_path):
    images = [(n // 3, encoded(n, tmp_path)) for n in range(9)]
    offsets = write_records(tmp_path / "r", images)
    rec, idx = tmp_path / "r" / "train.rec", tmp_path / "r" / "train.idx"
    blob = bytearray(rec.read_bytes())
    blob[offsets[2]] = 7
    blob[offsets[4] + 4:offsets[4] + 8] = struct.pack("<I", 2**28)
    blob[offsets[5] + 4:offsets[5] + 8] = struct.pack("<I", 3 * 2**29 + 40)
    blob[offsets[6] + 4:offsets[6] + 8] = struct.pack("<I", 5)
    blob[offsets[7] + 8:offsets[7] + 12] = struct.pack("<I", 10**6)
    blob[offsets[10]] = 7
    rec.write_bytes(blob)
    lines = [line for line in idx.read_text().splitlines() if not line.startswith(("8\t", "9\t"))]
    idx.write_text("\n".join([*lines, f"9\t{len(blob) + 8}", "1\t0"]))
    findings = Findings()
    found = recordio.listed_records(rec, idx, findings)
    text = "\n".join(findings.lines(9))
    assert [p.number for p in found] == [3]
    for words in (f"train.rec record 2 at byte {offsets[2]} magic is 0xced72307",
                  "its 268435456 bytes go beyond the end",
                  "is part 3 of a record", "has 5 bytes, too few for its header",
                  "announces 1000000 labels",
                  f"record 9 at byte {len(blob) + 8} lies beyond the end",
                  "not in train.idx: 2 (record 1, record 8)",
                  "record number twice in train.idx: 1 (1)",
                  "identity record missing or damaged: 1 (10)"):
        assert words in text, (words, text)


@pytest.mark.parametrize("damage,text", [
    (lambda f: (f / "train.idx").write_text("1 two\n"),
     "train.idx line 1: is '1 two', not a record's number"),
    (lambda f: (f / "train.idx").write_text(""), "train.idx: is empty"),
    (lambda f: (f / "train.idx").unlink(), "has train.rec but no train.idx"),
    (lambda f: (f / "train.rec").unlink(), "has train.idx but no train.rec"),
    (lambda f: (f / "train.rec").write_bytes(b""), "train.rec: cannot be read"),
    (lambda f: (f / "train.rec").write_bytes(b"\0" * 64),
     "train.rec record 0 at byte 0: magic is 0x00000000"),
])
def test_damaged_record_files_end_in_one_line(tmp_path, store, damage, text):
    write_records(tmp_path / "r", [(0, b"x"), (0, b"y")])
    damage(tmp_path / "r")
    with pytest.raises(FsrError) as caught:
        prepare_named("casia-webface", str(tmp_path / "r"), Choice(quality="side"), store)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_casia_from_folders_and_from_records(tmp_path, store, invoke):
    numbers = {f"{i:07d}": 2 + i % 3 for i in range(6)} | {"0000099": 1}
    root = people_of(tmp_path / "folders", numbers, ".jpg", side=112)
    (root / "0000003" / "1.jpg").write_bytes(b"\xff\xd8 cut")
    images = [(i, path.read_bytes()) for i, person in enumerate(sorted(root.iterdir()))
              for path in sorted(person.iterdir())]
    write_records(tmp_path / "records", images)
    words = ("--quality", "piqe", "--store", store.root)
    text = invoke("prepare", "casia-webface", "--root", root, *words, check=0).stdout
    assert "found      7 people, 18 images (published: 10,575 people, 494,414 images)" in text
    assert "evaluation 5 people, 16 images (paper: 1,035 people, 14,908 images)" in text
    assert "left out, not a whole image: 1 (0000003/1.jpg)" in text and "piqe@1+pyiqa-" in text
    solved = json.loads(manifest("casia-webface", root, store)[1])
    stricter = str(solved["threshold"] * 0.8)
    by_folder = invoke("prepare", "casia-webface", "--root", root, *words, "--threshold", stricter,
                       check=0).stdout
    assert "replaces   another selection (sha256 " in by_folder and "replaces" not in text
    by_record = prepare_named("casia-webface", str(tmp_path / "records"),
                              Choice(None, float(stricter), "piqe"), store)
    assert "published: 10,572 people, 490,623 images" in by_record
    assert "not a whole image: 1 (00003/" in by_record
    rows = [[line.split(",")[3] for line in manifest("casia-webface", r, store)[0].decode()
             .splitlines()]
            for r in (root, tmp_path / "records")]
    assert sorted(rows[0]) == sorted(rows[1]) and 1 < len(rows[0]) < 18, by_folder
    facts = json.loads(manifest("casia-webface", root, store)[1])
    assert facts["threshold"] == float(stricter) and facts["solved_for"] is None
    assert facts["quality"].startswith("piqe@1+pyiqa-")
    source = open_source(f"casia-webface:{tmp_path / 'records'}", store)
    assert source.read(source.root, source.entries[0].path) in [data for _, data in images]


def test_a_folder_that_is_no_casia_is_refused(orl_root, tmp_path, store, invoke):
    """ORL has folders of people too, of 92 x 112 pixels; one of another size among many is CASIA's
    own business."""
    told = invoke("prepare", "casia-webface", "--root", orl_root, "--quality", "piqe", "--store",
                  store.root)
    assert told.returncode == 2 and "casia-webface" in told.stderr
    assert re.search(r"is another data set: (\d+) of \1 images looked at are neither", told.stderr)
    assert "--data folder:PATH" in told.stderr and not (store.root / "manifests").exists()
    root = people_of(tmp_path / "crops", {"a": 3, "b": 3}, ".jpg", side=112)
    drawing(3, 90).save(root / "a" / "9.jpg")
    invoke("prepare", "casia-webface", "--root", root, "--quality", "piqe", "--store", store.root,
           check=0)


@pytest.mark.parametrize("name", ["celebref-hq", "casia-webface", "celebv-text"])
def test_a_wrong_folder_is_refused_before_weights_are_asked_for(name, orl_root, tmp_path, store,
                                                                invoke, monkeypatch):
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path / "cache"))
    told = invoke("prepare", name, "--root", orl_root, "--store", store.root)
    assert told.returncode in (2, 3) and len(told.stderr.strip().splitlines()) == 1
    assert str(orl_root) in told.stderr and "weights" not in told.stderr
    told = invoke("prepare", name, "--store", store.root, check=2)
    assert told.stderr.strip().endswith(f"needs its folder; write `invoke prepare {name} --root "
                                        "PATH`")


def test_the_weights_of_the_paper_s_measure_are_asked_for_in_one_line(tmp_path, store, monkeypatch):
    monkeypatch.setenv("FSRBENCH_CACHE", str(tmp_path / "cache"))
    root = people_of(tmp_path / "raw", {"a": 2}, side=250)
    with pytest.raises(FsrError,
                       match="weights hyperiqa-koniq: missing; .*`invoke weights --get "
                             "hyperiqa-koniq`.*piqe"):
        prepare_named("casia-webface", str(root), Choice(), store)


def test_hyperiqa_averages_a_fixed_grid(monkeypatch):
    """The network's constructor fetches nothing; its value is the mean over nine crops of the
    512x384 image."""
    import torch

    from fsrbench.datasets.common import quality as module

    network = module.hyperiqa_network().eval()
    assert len(network.state_dict()) == 355
    monkeypatch.setattr(module, "_hyperiqa", lambda: network)
    image = np.asarray(drawing(3, 112))
    resized = np.asarray(Image.fromarray(image).resize((384, 512), Image.Resampling.BILINEAR))
    patches = [resized[top:top + 224, left:left + 224] for top in (0, 144, 288)
               for left in (0, 80, 160)]
    with torch.inference_mode():
        expected = [float(network.forward_patch(torch.from_numpy(p.copy()).permute(2, 0, 1)[None]
                                                / 255)) for p in patches]
    assert np.array_equal(crops(image), np.stack(patches))
    assert abs(get_quality("hyperiqa").score(image)
               - np.mean(expected)) < 1e-5 and np.ptp(expected) > 1e-4


def test_work_resumes_and_a_measure_can_be_brought_along(tmp_path, store):
    """Each image is measured once per content and version, whatever it is called."""
    calls = []

    def mean(version: str):
        @quality("mean", version, +1, pooled=False)
        def measure(image: np.ndarray) -> float:
            calls.append(1)
            if len(calls) == 5 and version == "1":
                raise KeyboardInterrupt
            return float(image.mean())

    root = people_of(tmp_path / "raw", {"a": 4, "b": 4}, ".jpg", side=112)
    (root / "b" / "9.jpg").write_bytes((root / "a" / "1.jpg").read_bytes())
    mean("1")
    import fsrbench.datasets.common.quality as module

    original = module.measured
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "measured",
                      lambda *words, **options: original(*words, **{**options, "chunk": 2}))
        with pytest.raises(KeyboardInterrupt):
            prepare_named("casia-webface", str(root), Choice(quality="mean"), store)
        prepare_named("casia-webface", str(root), Choice(quality="mean"), store)
    assert len(calls) == 5 + 4  # four of the five were kept; eight contents in nine files
    prepare_named("casia-webface", str(root), Choice(quality="mean"), store)
    assert len(calls) == 9
    mean("2")
    prepare_named("casia-webface", str(root), Choice(quality="mean"), store)
    assert len(calls) == 17


@pytest.mark.parametrize("labels", [(1e38, 2e38), (float("nan"), 3.0), (5.0, 1.0)])
def test_a_record_file_whose_header_lies_is_refused(tmp_path, labels):
    offsets = write_records(tmp_path, [(label, encoded(label, tmp_path)) for label in (0, 1)])
    data = bytearray((tmp_path / "train.rec").read_bytes())
    data[offsets[0] + 32:offsets[0] + 40] = struct.pack("<ff", *labels)
    (tmp_path / "train.rec").write_bytes(data)
    with pytest.raises(FsrError,
                       match="train.rec record 0: announces images up to .* train.idx holds 5 "
                             "records"):
        recordio.listed_records(tmp_path / "train.rec", tmp_path / "train.idx", Findings())
