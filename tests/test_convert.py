"""Result files in the words of others: every-eval-ever's schema, Hugging Face's own reader."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from conftest import ROOT
from huggingface_hub import eval_result_entries_to_yaml, parse_eval_result_entries
from test_exchange import forged

from fsrbench.engine.options import plan
from fsrbench.engine.run import Run
from fsrbench.errors import FsrError
from fsrbench.exchange.collect import records
from fsrbench.exchange.convert import convert, every_eval_ever, hugging_face
from fsrbench.exchange.record import write

KINDS = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def faults(value, schema, root, where="it"):
    """In what a value is not as a JSON schema says, of the keywords that the fixture has."""
    if "$ref" in schema:
        return faults(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, where)
    known = {"$schema", "$comment", "$defs", "version", "type", "required", "properties", "enum",
             "additionalProperties", "const", "items", "minItems", "minimum", "maximum", "oneOf",
             "if", "then", "else"}
    assert schema.keys() <= known, f"a keyword that is not read: {schema.keys() - known}"
    found = _of_type(value, schema, where)
    if found:
        return found
    if "enum" in schema and value not in schema["enum"] or value != schema.get("const", value):
        found.append(f"{where} is not one of the words")
    if "oneOf" in schema:
        fit = sum(not faults(value, one, root, where) for one in schema["oneOf"])
        found += [f"{where} fits {fit} of {len(schema['oneOf'])}"] * (fit != 1)
    if isinstance(value, dict):
        names, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        found += [f"{where} lacks {name}" for name in schema.get("required", ())
                  if name not in value]
        for name, inner in value.items():
            if name not in names and more is False:
                found.append(f"{where} adds {name}")
            inside = names.get(name, more if isinstance(more, dict) else {})
            found += faults(inner, inside, root, f"{where}.{name}")
    if isinstance(value, list):
        found += [f"{where} is short"] * (len(value) < schema.get("minItems", 0))
        for i, inner in enumerate(value):
            found += faults(inner, schema.get("items", {}), root, f"{where}[{i}]")
    if "if" in schema:
        branch = "else" if faults(value, schema["if"], root) else "then"
        found += faults(value, schema.get(branch, {}), root, where)
    return found


def _of_type(value, schema, where):
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = [number if kind == "number" else number and value == int(value) if kind == "integer"
            else isinstance(value, KINDS[kind]) for kind in kinds]
    return [] if any(fits) or not kinds else [f"{where} is no {' or '.join(kinds)}"]


def first(found):
    return found["evaluation_results"][0]


@pytest.fixture(scope="module")
def made(session_store):
    """The result file of a control."""
    metrics = ("psnr", "ids.cosine@dlib", "idv.0.07@dlib")
    run = Run(plan("mini", "orl", ("8",), ("bicubic",), metrics,
                   "5", "0", "7"), session_store)
    return records(run, run.execute(), "Jane Doe", "author")[0]


def test_every_eval_ever_s_own_schema_takes_it(made):
    schema = json.loads((ROOT / "tests/schemas/every-eval-ever-0.3.0.json").read_text())
    record = made
    for url in ("", "https://example.org/one.parquet"):
        found = json.loads(convert(record, "eee", url=url)[1])
        assert faults(found, schema, schema) == []
    scores = {r["metric_config"]["metric_id"]: r for r in found["evaluation_results"]}
    assert {name: r["score_details"]["score"] for name, r in scores.items()} == {
        v["metric"]: v["mean"] for v in record.header["values"]}
    assert found["source_metadata"]["evaluator_relationship"] == "first_party"
    assert found["source_metadata"]["additional_details"]["result_id"] == record.header["id"]
    assert scores["psnr.rgb"]["metric_config"]["max_score"] == "Infinity"
    for change, text in ((lambda f: f.pop("model_info"), "lacks model_info"),
                         (lambda f: f.update(more=1), "adds more"),
                         (lambda f: f["source_metadata"].update(source_type="rumour"), "not one"),
                         (lambda f: first(f)["score_details"].update(score="1"), "is no number"),
                         (lambda f: first(f)["metric_config"].pop("max_score"), "max_score"),
                         (lambda f: first(f)["source_data"].pop("url"), "0 of 3")):
        false = json.loads(json.dumps(found))
        change(false)
        assert any(text in fault for fault in faults(false, schema, schema)), text


def test_hugging_face_s_own_reader_takes_it(made):
    record = made
    suffix, text = convert(record, "hf", "someone/faces", "https://example.org/one.parquet")
    found = yaml.safe_load(text)
    entries = parse_eval_result_entries(found)
    assert eval_result_entries_to_yaml(entries) == found and suffix == "eval_results.yaml"
    assert [e.value for e in entries] == [v["mean"] for v in record.header["values"]]
    assert len({e.task_id for e in entries}) == len(entries)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", e.date) and "reported" in e.notes for e in entries)


def test_a_number_without_a_value_is_left_out_and_named_and_a_forged_file_not_converted(made):
    def lose(header, rows):
        rows.loc[rows["metric"] == "psnr.rgb", ["value", "status"]] = [np.nan, "failed: it"]
    record = forged(made, lose)
    found = every_eval_ever(record)
    assert found["source_metadata"]["additional_details"]["excluded"] == "×8 psnr.rgb"
    assert len(found["evaluation_results"]) == len(hugging_face(record, "a/b")) \
        == len(record.header["values"]) - 1
    with pytest.raises(FsrError, match="id of the header"):
        convert(replace(record, header={**record.header, "seed": 7}), "eee")


def test_the_command_converts(made, invoke, tmp_path):
    path = write(made, tmp_path / "one.parquet")[0]
    invoke("convert-results", path, check=0)
    invoke("convert-results", path, "--to", "hf", "--hf-dataset", "a/b", check=0)
    assert (tmp_path / "one.eee.json").exists() and (tmp_path / "one.eval_results.yaml").exists()
    assert "is no id of a data set" in invoke("convert-results", path, "--to", "hf", check=2).stderr
    assert "--to 'csv': unknown" in invoke("convert-results", path, "--to", "csv", check=2).stderr
