"""Result files: they hold what the records hold, and no changed number passes."""

import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image

from fsrbench.engine.options import plan
from fsrbench.engine.run import Run
from fsrbench.errors import FsrError
from fsrbench.exchange.checks import Values, known_metric, mismatches
from fsrbench.exchange.collect import records, stated
from fsrbench.exchange.record import encoded, read, sealed, write

METRICS = ("psnr", "ids.cosine@dlib", "fd", "idv.0.07@dlib")


@pytest.fixture(scope="module")
def made(tmp_path_factory, session_store):
    """Result files of two controls and of the first one's folder of images."""
    root = tmp_path_factory.mktemp("exchange")
    first = Run(plan("mini", "orl", ("8",), ("bicubic",), METRICS, "5", "0", "7"), session_store)
    rows = first.execute().records
    rows = rows[rows["metric"] == "restored"]
    for sample, image in zip(rows["sample"], rows["image"]):
        path = root / "bicubic" / sample.replace(".pgm", ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(session_store.image(image)).save(path)
    run = Run(plan("mini", "orl", ("8",), ("bicubic", "reference",
                                           f"outputs:copy={root / 'bicubic'}"), METRICS, "5", "0",
                   "7"), session_store)
    outcome = run.execute()
    return root, run, outcome, records(run, outcome, "Jane Doe", "author")


def forged(record, change, agree=True):
    """The record with something changed, and sealed anew; means follow the values if `agree`."""
    rows, header = record.rows.copy(), yaml.safe_load(yaml.safe_dump(record.header))
    change(header, rows)
    if not agree:
        return sealed(header, rows)
    whole = Values(replace(record, header=header, rows=rows))
    header["values"] = [stated(m, v["scale"], whole.summary(v["scale"], m),
                               whole.left_out(v["scale"], m.id) if m.kind == "set" else None)
                        for v in header["values"] if (m := known_metric(v["metric"]))]
    return sealed(header, rows)


def set_value(metric, sample, value):
    def change(header, rows):
        rows.loc[(rows["metric"] == metric) & (rows["sample"] == sample), "value"] = value
    return change


def test_a_file_has_the_values_of_the_records_and_the_same_bytes_each_time(made, tmp_path):
    _, run, outcome, found = made
    paths = write(found[0], tmp_path / "a.parquet")
    again = read(paths[0])
    assert again.header == found[0].header == yaml.safe_load(paths[1].read_text())
    assert again.rows.equals(found[0].rows) and not mismatches(again)
    ours = outcome.records[outcome.records["method"] == "bicubic"]
    key = ["metric", "sample"]
    values = ours.set_index(key)["value"].sort_index()
    assert again.rows.set_index(key)["value"].sort_index().equals(values)
    images = again.rows.set_index(key)["restored"].loc["restored"]
    assert images.to_dict() == dict(zip(*(ours.loc[ours["metric"] == "restored", name]
                                          for name in ("sample", "image"))))
    assert encoded(records(run, run.execute(), "Jane Doe", "author")[0]) == encoded(found[0])
    assert again.header["data"]["manifest_sha256"] == outcome.samples.digest
    assert re.fullmatch(r"[0-9a-f]{64}", again.header["id"])


def test_a_method_and_its_folder_of_images_have_the_same_rows(made):
    adapter, other, folder = made[3]
    assert folder.rows.equals(adapter.rows) and not folder.rows.equals(other.rows)
    assert folder.header["values"] == adapter.header["values"]
    assert folder.header["method"]["name"] == "outputs:copy"


def test_verify_reaches_the_tier_that_can_be_reached(made, invoke, session_store, tmp_path):
    root, _, _, (bicubic, _, folder) = made
    path, copy = (write(r, tmp_path / f"{i}.parquet")[0] for i, r in enumerate((bicubic, folder)))
    words = ("--store", session_store.root)

    def tiers(*more):
        return set(re.findall(r"(re\S+) +\|$", invoke("verify", *more, *words, check=0).stdout,
                              re.M))
    assert tiers(path) == {"re-run"}
    assert tiers(path, "--no-rerun") == {"reported"}
    assert tiers(copy, "--images", root / "bicubic") == {"re-scored"}
    said = invoke("verify", copy, *words, check=0).stdout
    assert "method outputs:copy: is not registered here" in said and "--images DIR" in said


def test_images_of_several_scales_lie_in_a_folder_each(invoke, session_store, tmp_path):
    run = Run(plan("mini", "orl", ("8", "16"), ("bicubic",), ("psnr",), "5", "0", "7"),
              session_store)
    outcome = run.execute()
    rows = outcome.records[outcome.records["metric"] == "restored"]
    for r in rows[rows["scale"] == 8].itertuples():
        path = tmp_path / "images" / "x8" / r.sample.replace(".pgm", ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(session_store.image(r.image)).save(path)
    path = write(records(run, outcome)[0], tmp_path / "one.parquet")[0]
    said = invoke("verify", path, "--images", tmp_path / "images", "--no-rerun", "--store",
                  session_store.root, check=0).stdout
    assert re.search(r"×8 .*\| re-scored", said) and re.search(r"×16 .*\| reported", said)
    assert "Not scored again at ×16: no folder" in said


def test_one_forged_number_is_caught_by_its_sample_and_metric(made, invoke, session_store,
                                                              tmp_path):
    root, _, _, (bicubic, _, folder) = made
    sample = bicubic.rows["sample"][3]
    was = bicubic.rows.set_index(["metric", "sample"])["value"]["psnr.rgb", sample]
    for record, more in ((bicubic, ()), (folder, ("--images", root / "bicubic"))):
        false = forged(record, set_value("psnr.rgb", sample, was + 0.01))
        assert not mismatches(false), "the file agrees with itself"
        path = write(false, tmp_path / "forged.parquet")[0]
        done = invoke("verify", path, *more, "--store", session_store.root, check=1)
        assert (f"- mismatch: sample {sample}, scale 8, metric psnr.rgb, value: stated "
                f"{was + 0.01:.10g}, found {was:.10g}\n") in done.stdout
        assert done.stderr.strip().endswith("error: 1 mismatches")
        assert len(re.findall("does not hold", done.stdout)) == 1


def _drop(name):
    def change(header, rows):
        rows.drop(rows.index[rows["sample"] == name], inplace=True)
        header["data"]["samples"] -= 1
    return change


def test_what_a_file_cannot_say_of_itself(made):
    record = made[3][0]
    sample, rows = record.rows["sample"][0], record.rows

    def what(change, agree=True):
        return str(mismatches(forged(record, change, agree))[0])
    changed = replace(record, rows=rows.assign(value=rows["value"] + 1e-9))
    assert str(mismatches(changed)[0]).startswith("digest of the rows: stated")
    header = {**record.header, "seed": 5}
    assert str(mismatches(replace(record, header=header))[0]).startswith("id of the header")
    assert "manifest (are samples left out?)" in what(_drop(sample))
    assert "metric psnr.rgb, mean: stated 99" in what(
        lambda h, r: h["values"][0].update(mean=99.0), agree=False)
    assert "low" in what(lambda h, r: next(v for v in h["values"] if v["metric"].startswith("fd"))
        .update(low=1.0), agree=False)
    assert "measured" in what(lambda h, r: h.update(measured="<b>"))
    for name, value in (("batch", 0), ("scales", [0])):
        assert "scale or batch: stated 0" in str([str(m) for m in mismatches(forged(
            record, lambda h, r: h.update({name: value}), agree=False))])
    assert "images of each person" in what(
        lambda h, r: h["values"][2]["sizes"].append(1) or h["values"][2]["without"].append(1.0))
    assert "range" in what(set_value("ids.cosine@dlib", sample, -0.5))
    assert "range: stated inf (ok)" in what(set_value("psnr.rgb", sample, np.inf))
    assert "metric ids.cosine@nobody" in what(
        lambda h, r: h["metrics"][1].update(id="ids.cosine@nobody"), agree=False)

    def lose(header, rows):
        one = rows.index[(rows["metric"] == "psnr.rgb") & (rows["sample"] == sample)]
        rows.drop(one, inplace=True)
    assert f"['{sample}']" in what(lose)
    lr = what(lambda h, r: h["degradation"]["lr_sha256"].update({"8": "0"}))
    assert "digest of the LR images" in lr


def _field(*path, to):
    """A change of one field of the header."""
    def change(header, rows):
        place = header
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = to
    return change


@pytest.mark.parametrize("where,to", [
    (("cost", "nfe"), 7), (("cost", "references"), "all"), (("cost", "weights_bytes"), 9),
    (("method", "control"), False), (("method", "sees_truth"), True), (("size",), 512),
    (("method", "needs"), ["oracle"]), (("method", "weights"), "official"),
    (("metrics", 0, "direction"), -1), (("metrics", 0, "kind"), "set")])
def test_what_decides_a_row_s_place_follows_from_the_rest(made, where, to):
    found = mismatches(forged(made[3][0], _field(*where, to=to), agree=False))
    assert found, "a board would show it"
    assert where[0] in str(found[0]) or where[-1] in str(found[0]) or "control" in str(found[0])


@pytest.mark.parametrize("change,text", [
    (_field("method", "title", to="Best"), "method.title: stated Best, found Bicubic"),
    (_field("method", "licence", to="MIT"), "method.licence: stated MIT"),
    (_field("method", "needs", to=["references"]), "method.needs: stated ['references']"),
    (_field("data", "licence", to="free"), "data.licence: stated free"),
    (_field("degradation", "summary", to="mild"), "degradation.summary: stated mild"),
    (_field("metrics", 1, "weights", to={"net": "0" * 64}), "ids.cosine@dlib, weights: stated")])
def test_what_is_said_of_a_method_and_its_data_is_held_against_those_here(
        made, session_store, change, text):
    from fsrbench.exchange.rescoring import Given, verify

    def honest_cost(header, rows):
        change(header, rows)
        header["cost"]["references"] = "one" if header["method"]["needs"] else "none"
    false = forged(made[3][0], honest_cost)
    assert not mismatches(false), "the file agrees with itself"
    found = verify(false, session_store, Given(), None, True).mismatches
    assert [str(m) for m in found if text in str(m)], found


def test_other_lr_images_are_found_though_the_method_is_not_here(made, session_store):
    from fsrbench.exchange.collect import lr_digest
    from fsrbench.exchange.rescoring import Given, verify

    def change(header, rows):
        of_image = rows["metric"] == "restored"
        rows.loc[rows.index[of_image][0], "lr"] = "0" * 64
        own = rows[of_image].sort_values("sample")
        header["degradation"]["lr_sha256"]["8"] = lr_digest(own["lr"])
    false = forged(made[3][2], change)
    assert not mismatches(false), "the file agrees with itself"
    found = verify(false, session_store, Given(), None, False).mismatches
    assert [m.where for m in found] == ["LR image"]


def test_what_cannot_be_followed_is_said(made, session_store):
    from fsrbench.exchange.rescoring import Given, verify

    timed = forged(made[3][0], _field("cost", "seconds", to=0.1))
    assert "Seconds and memory are as the file says" in str(
        verify(timed, session_store, Given(), None, False).notes)
    other = verify(forged(made[3][0], _field("seed", to=3)), session_store, Given(), None, False)
    assert "by --data, --truth, --split or --references" in other.notes[0]


def test_a_digest_stands_in_one_row_and_a_reference_is_the_sample_s(made, session_store):
    from fsrbench.exchange.rescoring import Given, verify

    def stray(name):
        def change(header, rows):
            rows.loc[rows.index[rows["metric"] == "psnr.rgb"][0], name] = "x"
        return str(mismatches(forged(made[3][0], change, agree=False))[0])
    for name in ("restored", "lr", "truth", "reference", "manifest"):
        assert stray(name).startswith(f"{name}: stated in a metric's row")
    assert stray("person").startswith("person: stated one for each sample")

    def other(header, rows):
        rows.loc[rows.index[rows["metric"] == "restored"][0], "reference"] = "s1/1.pgm"
    found = verify(forged(made[3][1], other), session_store, Given(), None, False).mismatches
    assert [m.where for m in found] == ["reference"]


def test_images_that_come_out_otherwise_are_compared_by_means(made, session_store):
    from fsrbench.exchange.rescoring import Given, verify

    def change(header, rows):
        rows.loc[rows.index[rows["metric"] == "restored"][0], "restored"] = "0" * 64
    verdict = verify(forged(made[3][0], change), session_store, Given(), None, True)
    assert "1 of 25 images differ in pixels, so means are compared" in verdict.notes[-1]
    assert not verdict.mismatches and set(verdict.tiers.values()) == {"re-run"}


def test_the_readable_header_must_be_the_file_s(made, tmp_path):
    path, beside = write(made[3][0], tmp_path / "one.parquet")
    beside.write_text(beside.read_text().replace("name: Jane Doe", "name: John Doe"))
    assert "header in one.yaml" in str(mismatches(read(path))[0])
    for text in ("a: [", "", "\0"):
        beside.write_text(text)
        assert len(mismatches(read(path))) == 1
    beside.unlink()
    assert not mismatches(read(path)), "it need not be there"


def test_an_image_that_was_changed_or_is_missing_is_named(made, invoke, session_store, tmp_path):
    import shutil

    root, _, _, (*_, folder) = made
    shutil.copytree(root / "bicubic", tmp_path / "images")
    first, second = sorted((tmp_path / "images").rglob("*.png"))[:2]
    pixels = np.array(Image.open(first))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(first)
    second.unlink()
    path = write(folder, tmp_path / "copy.parquet")[0]
    said = invoke("verify", path, "--images", tmp_path / "images", "--store", session_store.root,
                  check=1).stdout
    assert len(re.findall(r"mismatch: sample \S+, scale 8, pixels of the image: stated", said)) == 2
    assert "found missing" in said and "re-scored" not in said


def test_a_person_under_another_name_is_found(made, session_store):
    from fsrbench.exchange.rescoring import Given, verify

    def change(header, rows):
        ends = rows["sample"].iloc[[0, -1]].tolist()
        people = rows["person"].iloc[[-1, 0]].tolist()
        for sample, person in zip(ends, people):
            rows.loc[rows["sample"] == sample, "person"] = person
    found = verify(forged(made[3][0], change), session_store, Given(), None, False)
    assert [m.where for m in found.mismatches] == ["person"] * 2


def test_outputs_of_other_data_are_published_and_checked(made, invoke, tmp_path):
    root, *_ = made
    words = ("--store", tmp_path / "store")
    score = ("--restored", f"mine={root / 'bicubic'}", "--truth", root / "bicubic")
    invoke("export-results", *score, "--metric", "psnr", "--out", tmp_path / "one.parquet", *words,
           check=0)
    record = read(tmp_path / "one.parquet")
    assert str(root) not in str(record.header), "paths of a machine stay there"
    said = invoke("verify", tmp_path / "one.yaml", "--truth", root / "bicubic", "--images",
                  root / "bicubic", *words, check=0).stdout
    assert "| re-scored |" in said
    blind = ("--restored", f"mine={root / 'bicubic'}", "--lq", root / "bicubic")
    invoke("export-results", *blind, "--metric", "brisque", "--out", tmp_path / "two.parquet",
           *words, check=0)
    two = read(tmp_path / "two.parquet")
    assert not any(two.rows["truth"]) and not mismatches(two)
    said = invoke("verify", tmp_path / "two.parquet", "--lq", root / "bicubic", "--images",
                  root / "bicubic", *words, check=0).stdout
    assert "| re-scored |" in said
    assert "give --truth DIR" in invoke("verify", tmp_path / "two.parquet", *words, check=0).stdout


@pytest.mark.parametrize("words,text", [
    (("export-results", "--relation", "friend"), "--relation 'friend': unknown"),
    (("export-results", "--out", "x.parquet", "--method", "bicubic,reference"),
     "--out x.parquet: is one file, and these are several methods"),
    (("verify", "/nowhere/x.parquet"), "result file /nowhere/x.parquet: cannot be read"),
    (("verify", "BROKEN"), "is damaged")])
def test_wrong_words_end_in_one_line(invoke, tmp_path, session_store, words, text):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    words = [word.replace("BROKEN", str(tmp_path / "broken.parquet")) for word in words]
    done = invoke(*words, "--store", session_store.root, check=2)
    assert text in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_file_of_another_kind_is_refused(made, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    record = made[3][0]
    pq.write_table(pa.table({"a": [1]}), tmp_path / "plain.parquet")
    with pytest.raises(FsrError, match="no header"):
        read(tmp_path / "plain.parquet")
    for change, text in (({"format": "other@1"}, "is not of the format"),
                         ({"seed": "0"}, "header.seed is str"),
                         ({"more": 1}, "header lacks or adds more"),
                         ({"runs": [1]}, r"header.runs\[0\] is no mapping")):
        false = replace(record, header={**record.header, **change})
        with pytest.raises(FsrError, match=text):
            read(write(false, tmp_path / "odd.parquet")[0])


def test_metrics_and_a_protocol_are_one_too_many_for_an_export_as_for_a_score(invoke, tmp_path):
    for command in ("score", "export-results"):
        done = invoke(command, "--restored", tmp_path, "--truth", tmp_path, "--protocol", "paper",
                      "--metric", "psnr", "--out", tmp_path / "out", "--store", tmp_path / "store")
        assert done.returncode == 2 and "says which metrics there are, and --metric too" in \
            done.stderr
