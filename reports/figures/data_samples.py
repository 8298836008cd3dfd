"""Figures 10 and 11: what the data look like, and what their quality is (paper D)."""

from __future__ import annotations

import numpy as np

from fsrbench.core import FaceImage, Sample
from fsrbench.engine.keys import digest_of
from fsrbench.metrics import Metric, family, metrics
from fsrbench.reports.figures import style
from fsrbench.reports.figures.context import Context, people_of
from fsrbench.reports.figures.grid import Panel, Row, image_grid
from fsrbench.reports.figures.registry import Drawing, figure

PEOPLE, COLUMNS = 6, 10
# The paper filters by HyperIQA; the first of these that can run here ranks the images.
QUALITY = ("hyperiqa", "clipiqa", "musiq", "piqe")


def _halves(samples: list[Sample], person: str) -> tuple[list[FaceImage], list[FaceImage]]:
    """Fine-tune and test half of a person."""
    own = [s for s in samples if s.person == person]
    return list(own[0].album), [s.gt for s in own]


@figure(10, "Samples of the data set")
def samples(context: Context) -> Drawing:
    """One row a person: the fine-tune half, then the test half."""
    base = context.samples
    people, rows, numbers = people_of(base.samples)[:PEOPLE], [], []
    half = COLUMNS // 2
    for i, person in enumerate(people):
        album, test = _halves(base.samples, person)
        cells = [[Panel(p.image) for p in part[:half]] + [Panel()] * (half - len(part))
                 for part in (album, test)]
        heads = tuple(f"{name} {k + 1}" for name in ("fitting", "test")
                      for k in range(half)) if i == 0 else ()
        rows.append(Row(person if len(person) < 12 else person[:10] + "…", cells[0] + cells[1],
                        titles=heads))
        numbers += [{"person": person, "image": p.id, "half": name,
                     "landmarks": p.landmarks.source}
                    for name, part in (("fine-tune", album), ("test", test)) for p in part]
    shown = sum(p.image is not None for row in rows for p in row.panels)
    canvas = image_grid(rows, size=context.options.profile.size, columns=COLUMNS)
    style.foot(canvas, context.footline(shown, len(people), trained=False))
    excluded = "; ".join(base.excluded.lines(3))
    return Drawing(canvas, (
        f"Aligned images of the first {len(people)} people drawn: at the left the half that "
        f"methods may see (reference and "
        f"fitting), at the right the test half; at most {half} of each. "
        + (f"{excluded[0].upper()}{excluded[1:]}. " if excluded else "Nothing was left out. ")
        + context.protocol(shown, len(people), trained=False)), numbers, images=True)


def quality_metric() -> Metric:
    """The first no-reference metric of `QUALITY` that is registered and has its weights here (PIQE
    needs none)."""
    known = {m.id.split(".")[0] for m in metrics().values()}
    return next(m for name in QUALITY if name in known for m in family(name) if not m.missing())


def qualities(context: Context, images: list[FaceImage], metric: Metric) -> np.ndarray:
    """Quality of each image; kept in the store by content."""
    import torch

    from fsrbench.imaging import to_float

    key = digest_of("quality", metric.id, *[p.digest for p in images])
    kept = context.store.tensors("sets", key)
    if kept is None:
        chunks = [images[i:i + 32] for i in range(0, len(images), 32)]
        values = [metric.function(torch.from_numpy(to_float(np.stack([p.image for p in chunk]))))
                  for chunk in chunks]
        kept = {"quality": torch.as_tensor(np.concatenate([np.asarray(v, dtype=np.float64)
                                                           .reshape(-1) for v in values]))}
        context.store.put_tensors("sets", key, kept)
    return kept["quality"].numpy()


@figure(11, "Quality of the data")
def quality(context: Context) -> Drawing:
    """The images of lowest, middle and highest quality, and how quality is spread."""
    images = {p.id: p for s in context.samples.samples for p in (s.gt, *s.album)}
    images, metric = [images[name] for name in sorted(images)], quality_metric()
    values = qualities(context, images, metric)
    order = np.argsort(-metric.direction * values, kind="stable")
    columns = min(8, len(order))
    middle = max(0, len(order) // 2 - columns // 2)
    groups = {"best": order[:columns], "middle": order[middle:middle + columns],
              "worst": order[-columns:]}
    rows = [Row(name, [Panel(images[i].image, f"{values[i]:.1f}\n{images[i].id}")
                       for i in chosen])
            for name, chosen in groups.items()]
    people = len(people_of(context.samples.samples))
    canvas = image_grid(rows, size=context.options.profile.size, columns=columns, below=1.5)
    _histogram(canvas, values, metric)
    style.foot(canvas, context.footline(len(images), people, trained=False))
    numbers = [{"image": images[i].id, metric.id: f"{values[i]:.6g}"} for i in order]
    return Drawing(canvas, (
        f"Aligned images ordered by {metric.title} ({metric.id}; "
        f"{'higher' if metric.direction > 0 else 'lower'} is better), "
        "the value below each; at the foot how the values are spread. The paper filters "
        "CASIA-WebFace and CelebV-Text by "
        "HyperIQA; here nothing was filtered by quality. "
        + context.protocol(len(images), people, trained=False)), numbers, images=True)


def _histogram(canvas, values: np.ndarray, metric: Metric) -> None:
    height = canvas.get_figheight()
    axis = canvas.add_axes((0.09, (style.FOOT + 0.38) / height, 0.87, 0.85 / height))
    axis.hist(values, bins=20, color=style.PALETTE[4], edgecolor="white", linewidth=0.4)
    for share, dash in zip((0.1, 0.5, 0.9), style.DASHES[1:]):
        axis.axvline(np.quantile(values, share), color=style.PALETTE[6], linestyle=dash,
                     linewidth=0.9, label=f"{share:.0%} of the images")
    axis.set_xlabel(f"{metric.title} ({'higher' if metric.direction > 0 else 'lower'} is better)")
    axis.set_ylabel("images")
    axis.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=3, handlelength=2.6)
