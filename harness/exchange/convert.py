"""A result file in the words of others: every-eval-ever's schema, and Hugging Face's
`.eval_results`.

Both hold less: neither knows samples of images, manifests or digests of pixels, so these go into
free text where there is any, and the file's id stands in each. What has no value is left out and
named.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version

from fsrbench.engine.stats import LEVEL
from fsrbench.errors import FsrError, unknown
from fsrbench.exchange.checks import known_metric, mismatches, range_of
from fsrbench.exchange.record import Record
from fsrbench.text import factor, json_text

EEE_VERSION = "0.3.0"
_RELATIONS = {"author": "first_party", "third party": "third_party"}
# How `weights` of a method answers whether anybody can have them.
_AVAILABLE = {"official": "open_weights", "published": "open_weights", "mini": "open_weights"}
_HF_ID = re.compile(r"[\w.-]+/[\w.-]+")


def convert(record: Record, to: str, dataset: str = "", url: str = "") -> tuple[str, str]:
    """(suffix, text) of a file that holds, for others.

    Args:
        to: eee or hf; dataset: id of the benchmark's data set at Hugging Face, for hf.
        url: where the file is published; empty where it is not.

    Raises:
        FsrError: the file does not hold, or an argument is wrong.
    """
    if found := mismatches(record):
        raise FsrError(f"result file {record.name}", str(found[0]), "export it again", code=2)
    if to == "eee":
        return "eee.json", json_text(every_eval_ever(record, url))
    if to != "hf":
        raise unknown("--to", to, ["eee", "hf"])
    if not _HF_ID.fullmatch(dataset):
        raise FsrError(f"--hf-dataset {dataset}", "is no id of a data set", "give OWNER/NAME",
                       code=2)
    import yaml

    return "eval_results.yaml", yaml.safe_dump(hugging_face(record, dataset, url),
                                               sort_keys=False, allow_unicode=True, width=100)


def _values(record: Record) -> Iterator[tuple[dict, object]]:
    """What is stated of each metric that has a value, with the metric."""
    for value in record.header["values"]:
        if value["mean"] is not None:
            yield value, known_metric(value["metric"])


# --- every-eval-ever ------------------------------------------------------------------------------


def every_eval_ever(record: Record, url: str = "") -> dict:
    """The aggregate of schema 0.3.0; sample rows are not written, as its schema is of texts."""
    h = record.header
    method, data, by = h["method"], h["data"], h["submitter"]
    when = h["measured"]
    stamp = str(int(datetime.fromisoformat(when).timestamp())) if when else "unknown"
    lacking = [f"{factor(v['scale'])} {v['metric']}" for v in h["values"] if v["mean"] is None]
    source = {"dataset_name": data["name"], "source_type": "url", "url": [url]} if url else \
        {"dataset_name": data["name"], "source_type": "other"}
    source["additional_details"] = _texts({
        "manifest_sha256": data["manifest_sha256"], "people": data["people"],
        "samples": data["samples"], "licence": data["licence"], "size_px": h["size"],
        "degradation": h["degradation"]["id"], "seed": h["seed"], "protocol": h["protocol"]})
    return {
        "schema_version": EEE_VERSION,
        "evaluation_id": f"fsrbench/{method['name']}/{stamp}",
        "retrieved_timestamp": stamp, **({"evaluation_timestamp": when} if when else {}),
        "source_metadata": {
            "source_name": "FSRBench result file", "source_type": "evaluation_run",
            "source_organization_name": by["name"] or "not said",
            "evaluator_relationship": _RELATIONS.get(by["relation"], "other"),
            "additional_details": _texts({"result_id": h["id"], "rows_sha256": h["rows"]["sha256"],
                                          "excluded": ", ".join(lacking) or "none"})},
        "eval_library": {"name": "fsrbench", "version": version("fsrbench"),
                         "additional_details": {"commits": _commits(h)}},
        "model_info": {
            "name": method["title"] or method["name"], "id": method["name"],
            "additional_details": _texts({
                "deployment_type": "self_deployed",
                "model_availability": _AVAILABLE.get(method["weights"], "unknown"),
                "code_digest": method["digest"], "licence": method["licence"],
                "origin": method["origin"], "precision": h["precision"],
                **{f"weights {w['name']}": w["sha256"] for w in h["weights"]}})},
        "evaluation_results": [_result(h, value, metric, source)
                               for value, metric in _values(record)]}


def _commits(header: dict) -> str:
    return ", ".join(sorted({(run["commit"] or "unknown") + " with changes" * bool(run["dirty"])
                             for run in header["runs"]}))


def _texts(pairs: dict) -> dict[str, str]:
    """Free pairs take strings only."""
    return {name: str(value) for name, value in pairs.items()}


def _result(header: dict, value: dict, metric, source: dict) -> dict:
    low, high = ({math.inf: "Infinity", -math.inf: "-Infinity"}.get(end, end)
                 for end in range_of(metric))
    uncertain = {"num_samples": value["n"]}
    if value["sd"] is not None:
        uncertain["standard_deviation"] = value["sd"]
    if value["low"] is not None:
        uncertain["confidence_interval"] = {
            "lower": value["low"], "upper": value["high"], "confidence_level": LEVEL,
            "method": "each person left out in turn, Student's t"}
    weights = next(m["weights"] for m in header["metrics"] if m["id"] == metric.id)
    return {
        "evaluation_result_id": f"{header['id'][:16]}/x{value['scale']}/{metric.id}",
        "evaluation_name": f"{header['data']['name']} x{value['scale']} "
                           f"{header['degradation']['id']}",
        "source_data": source,
        "metric_config": {
            "lower_is_better": metric.direction < 0, "metric_id": metric.id,
            "metric_name": metric.title, "metric_kind": metric.id.split(".")[0],
            "evaluation_description": metric.described, "score_type": "continuous",
            "min_score": low, "max_score": high, **({"metric_unit": "proportion"}
                                                    if metric.percent else {}),
            "additional_details": _texts({f"weights {n}": d for n, d in weights.items()})},
        "score_details": {"score": value["mean"], "uncertainty": uncertain,
                          "details": _texts({"failed": value["failed"]})}}


# --- Hugging Face ---------------------------------------------------------------------------------


def task_id(header: dict, value: dict) -> str:
    """The task that stands for one number: data, scale, degradation and metric."""
    words = (header["data"]["name"], f"x{value['scale']}", header["degradation"]["id"],
             value["metric"])
    return re.sub(r"[^\w.-]+", "_", "-".join(words))


def hugging_face(record: Record, dataset: str, url: str = "") -> list[dict]:
    """Entries of a `.eval_results/NAME.yaml`, one a number: the task says which."""
    h = record.header
    source = {"source": {"url": url, "name": "FSRBench result file"}} if url else {}
    date = {"date": h["measured"][:10]} if h["measured"] else {}
    found = []
    for value, _ in _values(record):
        spread = "" if value["low"] is None else \
            f", 95 % interval {value['low']:.6g} to {value['high']:.6g}"
        found.append({
            "dataset": {"id": dataset, "task_id": task_id(h, value)}, "value": value["mean"],
            **date, **source,
            "notes": f"reported, not verified; n = {value['n']}, {value['failed']} failed{spread}; "
                     f"result file {h['id'][:16]}, data {h['data']['manifest_sha256'][:16]}"})
    return found
