"""How far a result file can be followed here: images scored anew, the method run anew.

Tiers of a number: `reported` (the file agrees with itself), `re-scored` (all its images are here,
pixel for pixel, and every value was measured again), `re-run` (the method was run here from the
same weights and data, and gave the same images, or the same mean within what arithmetic moves).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fsrbench import registry
from fsrbench.core import Profile, Sample
from fsrbench.degrade.named import check_scale
from fsrbench.engine.fixed import Fixed
from fsrbench.engine.given_samples import given_set
from fsrbench.engine.lr_images import lr_images
from fsrbench.engine.measure import Measures
from fsrbench.engine.options import plan
from fsrbench.engine.outputs import ALLOWED, match, open_folder, read_output
from fsrbench.engine.run import Run
from fsrbench.engine.samples import SampleSet, load_samples
from fsrbench.engine.scoring import needs_faces
from fsrbench.engine.stats import summarise
from fsrbench.engine.store import Store
from fsrbench.engine.tolerance import REPEATED, tolerance
from fsrbench.errors import FsrError
from fsrbench.exchange.checks import Mismatch, Values, mismatches
from fsrbench.exchange.collect import stated, weights_in, weights_of
from fsrbench.exchange.facts import other_data, other_lr, other_method, other_people
from fsrbench.exchange.record import Record
from fsrbench.faces.geometry import FFHQ
from fsrbench.imaging import image_digest
from fsrbench.metrics import Metric
from fsrbench.profiles import get_profile
from fsrbench.progress import progress
from fsrbench.text import factor, markdown_table

REPORTED, RESCORED, RERUN, REFUTED = "reported", "re-scored", "re-run", "does not hold"


@dataclass
class Verdict:
    """What became of a file.

    Args:
        tiers: by (scale, metric); mismatches: what does not hold; notes: why no tier is higher.
    """

    record: Record
    tiers: dict[tuple[int, str], str] = field(default_factory=dict)
    mismatches: list[Mismatch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def found(self, wrong: Iterable[Mismatch], tier: str, cells: Iterable[tuple[int, str]]) -> None:
        """Raise cells to a tier, but not those that something is wrong with."""
        wrong = list(wrong)
        self.mismatches += wrong
        for cell in cells:
            hit = any(m.scale in (None, cell[0]) and m.metric in ("", cell[1]) for m in wrong)
            if self.tiers[cell] != REFUTED:
                self.tiers[cell] = REFUTED if hit else tier


@dataclass(frozen=True)
class Given:
    """What a user names of the data; empty for what the file says.

    Args:
        data: `--data`; truth, lq, persons: of `invoke score`; split, references: CSV files, or for
            a file of `invoke score` its CSV file and folder.
    """

    data: str = ""
    truth: str | None = None
    lq: str | None = None
    persons: str | None = None
    split: str | None = None
    references: str | None = None

    def samples(self, header: dict, metrics: Collection[Metric], images: str | None,
                store: Store) -> tuple[SampleSet, Profile]:
        """The samples of a file with these metrics.

        Raises:
            FsrError: they are not here, or others than the file's.
        """
        if header["profile"] == "given":
            samples, profile = self._own(header, metrics, images, store)
        else:
            profile = get_profile(header["profile"])
            samples = load_samples(self.data or header["data"]["spec"], profile, store,
                                   header["data"]["drawn"], header["seed"],
                                   Fixed(self.split or "", self.references or ""))
        if samples.digest != header["data"]["manifest_sha256"]:
            raise FsrError("the data here", "are not the file's (digest of the manifest "
                           f"{samples.digest[:16]})",
                           "name the right ones by --data, --truth, --split or --references")
        return samples, profile

    def _own(self, header: dict, metrics: Collection[Metric], images: str | None,
             store: Store) -> tuple[SampleSet, Profile]:
        """Samples of a user's own images."""
        if not (self.truth or self.lq or images):
            raise FsrError("the data", "are somebody's own images", "give --truth DIR")
        outputs = open_folder(images, "--images") if images else None
        faces = bool(self.truth) and needs_faces(list(metrics))
        given = given_set(self.truth, self.lq, self.references, self.persons, self.split, outputs,
                          faces, store)
        side = min(map(min, given.sizes.values()), default=header["size"])
        return given.samples, Profile("given", side, FFHQ, given.called, None, header["batch"])


def verify(record: Record, store: Store, given: Given, images: str | None,
           rerun: bool) -> Verdict:
    """Follow a file as far as it can be followed here.

    Args:
        images: folder of the restored images; None without.
        rerun: run the method where it is registered.
    """
    verdict = Verdict(record)
    if found := mismatches(record):
        verdict.mismatches += found
        return verdict
    values = Values(record)
    verdict.tiers = dict.fromkeys(values.stated, REPORTED)
    try:
        samples, profile = given.samples(record.header, values.metrics.values(), images,
                                         store)
    except FsrError as error:
        verdict.notes.append(f"Nothing is measured again: {error}.")
        return verdict
    verdict.found(other_people(values, samples), REPORTED, verdict.tiers)
    verdict.found(other_data(record, samples, profile), REPORTED, ())
    scoring = _Scoring(values, samples, profile, store, verdict)
    scoring.of_lr()
    if images:
        scoring.of_folder(images)
    if rerun:
        scoring.of_method()
    if record.header["cost"]["seconds"] is not None:
        verdict.notes.append("Seconds and memory are as the file says: they are not taken again.")
    if not images and RERUN not in verdict.tiers.values():
        verdict.notes.append("Not scored again: give the restored images by --images DIR.")
    return verdict


class _Scoring:
    """Values measured again, for a file whose data are here."""

    def __init__(self, values: Values, samples: SampleSet, profile: Profile, store: Store,
                 verdict: Verdict):
        self.values, self.header, self.store = values, values.record.header, store
        self.samples, self.profile, self.verdict = samples, profile, verdict
        self.measures = Measures(store, tuple(values.metrics.values()), profile,
                                 samples.samples)
        for name, why in self.measures.unavailable.items():
            verdict.notes.append(f"{name} is not measured again: {why}.")
        said = {m["id"]: m["weights"] for m in self.header["metrics"]}
        for metric in self.measures.metrics:
            if (here := weights_in(metric)) != said[metric.id]:
                verdict.found([Mismatch("weights", said[metric.id], here, metric=metric.id)],
                              REPORTED, [c for c in verdict.tiers if c[1] == metric.id])

    # --- LR images --------------------------------------------------------------------------------

    def of_lr(self) -> None:
        """Compare the LR images with those that the file's degradation makes here."""
        made = self.header["degradation"]
        if self.header["profile"] == "given":
            return
        try:
            lr = lr_images(made["name"], self.store)
            if lr.degradation.id != made["id"]:
                raise FsrError("degradation", f"is {lr.degradation.id} here", "install its library")
            for scale in self.header["scales"]:
                check_scale(scale, self.profile.size)
        except FsrError as error:
            self.verdict.notes.append(f"LR images are not compared: {error}.")
            return
        if lr.degradation.summary != made["summary"]:
            self.verdict.found([Mismatch("degradation.summary", made["summary"],
                                         lr.degradation.summary)], REPORTED, ())
        for scale in self.header["scales"]:
            self.verdict.found(other_lr(self.values.record, self.samples, lr, scale), REPORTED, ())

    # --- images -----------------------------------------------------------------------------------

    def of_folder(self, images: str) -> None:
        """Score the images of a folder, `PERSON/IMAGE.png`, or of its folders x8, x16, ... where
        the file has several scales."""
        for scale in self.header["scales"]:
            inside = Path(images).expanduser() / f"x{scale}"
            if not inside.is_dir() and len(self.header["scales"]) > 1:
                self.verdict.notes.append(f"Not scored again at ×{scale}: no folder {inside}.")
                continue
            folder = open_folder(inside if inside.is_dir() else images, "--images")
            found = match([s.id for s in self.samples.samples], folder)
            # Whatever the file's form: what counts is that the pixels are the stated ones.
            sizes = {s.id: s.gt.image.shape[1::-1] if s.gt.digest else None
                     for s in self.samples.samples}
            read = {name: read_output(path, sizes[name], tuple(ALLOWED))
                    for name, path in found.files.items()}
            faults = found.faults | {name: why for name, (image, why) in read.items() if why}
            self._images(scale, {name: image for name, (image, _) in read.items()
                                 if image is not None}, faults)

    def _images(self, scale: int, images: dict[str, np.ndarray], faults: dict[str, str]) -> None:
        """Compare images with the digests of the file, and measure them if all are its own."""
        wrong = []
        for name, (status, stated_digest) in self.values.restored(scale).items():
            if status == "ok":
                found = image_digest(images[name]) if name in images else faults.get(name, "none")
                if found != stated_digest:
                    wrong.append(Mismatch("pixels of the image", stated_digest[:16],
                                          found[:16] if name in images else found, scale,
                                          sample=name))
        cells = [cell for cell in self.verdict.tiers if cell[0] == scale]
        if wrong:
            self.verdict.found(wrong, REPORTED, cells)
        else:
            self._measured(scale, images, RESCORED)

    def _measured(self, scale: int, images: dict[str, np.ndarray], tier: str) -> None:
        """Measure images, which are the file's own, again."""
        for metric in self.measures.metrics:
            wrong = self._of_set(scale, metric, images) if metric.kind == "set" \
                else self._of_samples(scale, metric, self._values(scale, metric, images))
            self.verdict.found(wrong, tier, [(scale, metric.id)])

    def _values(self, scale: int, metric: Metric,
                images: dict[str, np.ndarray]) -> dict[str, float]:
        """Values of a metric of images by sample."""
        samples = [s for s in self.samples.samples if s.id in images]
        step, found = self.header["batch"], {}
        for chunk in (samples[i:i + step] for i in range(0, len(samples), step)):
            pairs = [(s, {"image": self.store.put_image(images[s.id]),
                          "lr": self._lr(scale, metric, s)}) for s in chunk]
            if metric.feature:
                self.measures.prefetch([(row["image"], s, row["lr"]) for s, row in pairs])
            values, _ = self.measures.values(metric, [images[s.id] for s in chunk], pairs)
            found |= dict(zip((s.id for s in chunk), values))
        return found

    def _lr(self, scale: int, metric: Metric, sample: Sample) -> str:
        """Digest of I_L where the metric looks at it."""
        if metric.target != "upsampled":
            return ""
        return lr_images(self.header["degradation"]["name"], self.store).digest(sample, scale)

    def _of_samples(self, scale: int, metric: Metric, now: dict[str, float]) -> list[Mismatch]:
        then = dict(zip(self.values.samples, self.values.of(scale, metric.id)))
        return [Mismatch("value", then[name], value, scale, metric.id, name)
                for name, value in now.items() if not _close(then[name], value)]

    def _of_set(self, scale: int, metric: Metric, images: dict[str, np.ndarray]) -> list[Mismatch]:
        pairs = [(s, self.store.put_image(images[s.id])) for s in self.samples.samples
                 if s.id in images]
        then = self.values.stated[scale, metric.id]["mean"]
        if len(pairs) < 2 or then is None:
            return []
        now = float(self.measures.of_set(metric, pairs)[0].whole)
        slack = tolerance(metric, then, len(pairs))
        return [] if abs(now - then) <= slack else [Mismatch("value", then, now, scale, metric.id)]

    # --- the method -------------------------------------------------------------------------------

    def of_method(self) -> None:
        """Run the method anew, where it is registered and its weights are those of the file."""
        try:
            run = self._run()
        except FsrError as error:
            self.verdict.notes.append(f"Not run again: {error}.")
            return
        total = len(run.cells) * len(self.samples.samples)
        with progress(total=total, desc="restoring again", unit="image") as bar:
            for cell in run.cells:
                images, errors = {}, {}
                for chunk in run.chunks():
                    for sample, image, error in zip(chunk, *run.again(cell, chunk)):
                        (errors if image is None else images)[sample.id] = \
                            error if image is None else image
                    bar.update(len(chunk))
                self._again(cell.scale, images, errors)

    def _run(self) -> Run:
        header = self.header
        name = header["method"]["name"]
        cls = registry.methods().get(name)
        if cls is None:
            raise FsrError(f"method {name}", "is not registered here",
                           "it is a folder of images" if name.startswith("outputs:") else
                           "install its package")
        options = plan(self.profile, header["data"]["spec"], [str(s) for s in header["scales"]],
                       [name], [m["id"] for m in header["metrics"]], header["data"]["drawn"],
                       header["seed"], header["batch"], header["precision"],
                       degradation=header["degradation"]["name"])
        run = Run(options, self.store, self.samples)
        if run.degradation.id != header["degradation"]["id"]:
            raise FsrError("degradation", f"is {run.degradation.id} here", "install its library")
        method = run.cells[0].method
        here = {w["name"]: w["sha256"] for w in weights_of(method)}
        if here != {w["name"]: w["sha256"] for w in header["weights"]}:
            raise FsrError(f"method {name}", "has other weights here", "fetch those of the file")
        if run.method_digest(method) != header["method"]["digest"]:
            self.verdict.notes.append("Run again by other code than the file's, or other settings.")
        self.verdict.found(other_method(header, run, method), REPORTED, ())
        return run


    def _again(self, scale: int, images: dict[str, np.ndarray], errors: dict[str, str]) -> None:
        stated_images = self.values.restored(scale)
        wrong = [Mismatch("restoration", status, errors.get(name, "ok"), scale, sample=name)
                 for name, (status, _) in stated_images.items()
                 if (status == "ok") != (name in images)]
        differ = sum(image_digest(image) != stated_images[name][1]
                     for name, image in images.items())
        if wrong:
            self.verdict.found(wrong, REPORTED, [c for c in self.verdict.tiers if c[0] == scale])
        elif not differ:
            self._measured(scale, images, RERUN)
        else:
            self.verdict.notes.append(f"×{scale}: run again, {differ} of {len(images)} images "
                                      "differ in pixels, so means are compared.")
            self._means(scale, images)

    def _means(self, scale: int, images: dict[str, np.ndarray]) -> None:
        for metric in self.measures.metrics:
            if metric.kind == "set":
                self.verdict.found(self._of_set(scale, metric, images), RERUN, [(scale, metric.id)])
                continue
            found = self._values(scale, metric, images)
            values = np.array([found.get(name, np.nan) for name in self.values.samples])
            now = stated(metric, scale, summarise(values, self.values.people))["mean"]
            then = self.values.stated[scale, metric.id]["mean"]
            same = now is then is None or None not in (now, then) and \
                abs(now - then) <= tolerance(metric, then, len(images))
            wrong = [] if same else [Mismatch("mean", then, now, scale, metric.id)]
            self.verdict.found(wrong, RERUN, [(scale, metric.id)])


def _close(a: float, b: float) -> bool:
    """Whether two values of one image are the same up to other processors."""
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return math.isclose(a, b, rel_tol=REPEATED, abs_tol=REPEATED * REPEATED)


def report(verdict: Verdict, shown: int = 20) -> str:
    """The verdict as Markdown: a line for each scale and metric, and what does not hold."""
    header = verdict.record.header
    stated_values = {(v["scale"], v["metric"]): v for v in header["values"]}
    lines = [[factor(scale), name, stated_values[scale, name]["n"],
              "n/a" if (mean := stated_values[scale, name]["mean"]) is None else f"{mean:.6g}",
              tier] for (scale, name), tier in verdict.tiers.items()]
    out = [f"# {header['method']['title']} ({verdict.record.name})", ""]
    if lines:
        out += [markdown_table(["Scale", "Metric", "n", "Mean", "Tier"], lines), ""]
    out += [f"- {note}" for note in verdict.notes]
    out += [f"- mismatch: {wrong}" for wrong in verdict.mismatches[:shown]]
    if (more := len(verdict.mismatches) - shown) > 0:
        out.append(f"- and {more} mismatches more")
    return "\n".join(out) + "\n"
