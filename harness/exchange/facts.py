"""What a result file says of data, LR images and a method, held against those that are here."""

from __future__ import annotations

from collections.abc import Iterator

from fsrbench.core import Method, Profile
from fsrbench.engine.lr_images import LrImages
from fsrbench.engine.run import Run
from fsrbench.engine.samples import SampleSet
from fsrbench.exchange.checks import Mismatch, Values
from fsrbench.exchange.collect import described, weights_of
from fsrbench.exchange.record import RESTORED, Record


def other_people(values: Values, samples: SampleSet) -> Iterator[Mismatch]:
    """People of samples that are others here."""
    people = {s.id: s.person for s in samples.samples}
    return (Mismatch("person", person, people[name], sample=name)
            for name, person in zip(values.samples, values.people) if people[name] != person)


def other_data(record: Record, samples: SampleSet, profile: Profile) -> Iterator[Mismatch]:
    """What a file says of data that are the same, pixel for pixel, and are called otherwise
    here."""
    data, source, rows = record.header["data"], samples.source, record.rows
    said = {"data.name": (data["name"], source.name), "size": (record.header["size"], profile.size),
            "data.licence": (data["licence"], source.licence)}
    if "(--" not in samples.rule:  # else it names a CSV file, which may be called otherwise here
        said["data.rule"] = data["rule"], samples.rule
    yield from (Mismatch(name, *both) for name, both in said.items() if both[0] != both[1])
    first = {s.id: s.reference.id for s in samples.samples}
    for row in rows[rows["metric"] == RESTORED].itertuples():
        if row.reference != first[row.sample]:
            yield Mismatch("reference", row.reference, first[row.sample], row.scale,
                           sample=row.sample)


def other_lr(record: Record, samples: SampleSet, lr: LrImages, scale: int) -> Iterator[Mismatch]:
    """LR images that are others here; a few ground truths are in memory at a time."""
    rows = record.rows[(record.rows["scale"] == scale) & (record.rows["metric"] == RESTORED)]
    then = dict(zip(rows["sample"], rows["lr"]))
    step = record.header["batch"]
    for chunk in (samples.samples[i:i + step] for i in range(0, len(samples.samples), step)):
        lr.make(chunk, scale)
        for sample in chunk:
            if (now := lr.digest(sample, scale)) != then[sample.id]:
                yield Mismatch("LR image", then[sample.id], now, scale, sample=sample.id)


def other_method(header: dict, run: Run, method: Method) -> Iterator[Mismatch]:
    """What is said otherwise of the method that is registered here; where its code is another, only
    what decides its place in a table."""
    said, now = header["method"], described(run, method)
    names = ["weights", "needs"]
    if said["digest"] == now["digest"]:
        names += ["title", "licence", "origin", "settings", "remark"]
    yield from (Mismatch(f"method.{n}", said[n], now[n]) for n in names if said[n] != now[n])
    if header["cost"]["nfe"] != method.nfe:
        yield Mismatch("cost.nfe", header["cost"]["nfe"], method.nfe)
    if header["weights"] != (files := weights_of(method)):
        yield Mismatch("weights", header["weights"], files)
