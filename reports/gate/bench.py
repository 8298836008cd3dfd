"""`invoke bench`: how fast the parts are on this machine. Measures, asserts nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from fsrbench.text import columns


def seconds(work: Callable[[], object], repeats: int = 5, warm: int = 1) -> float:
    """Median wall time of a call."""
    for _ in range(warm):
        work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def warp() -> list[str]:
    """Listing 1 at 256 px with 68 points, ours against scikit-image's."""
    from skimage.transform import PiecewiseAffineTransform
    from skimage.transform import warp as skimage_warp

    from fsrbench.faces.geometry import template
    from fsrbench.faces.warp import tps_warp_image

    rng = np.random.default_rng(0)
    target = template(256) + rng.normal(0, 1.5, (68, 2))
    source, image = target * 0.95 + 5 + rng.normal(0, 2, (68, 2)), rng.random((256, 256, 3))
    ours = seconds(lambda: tps_warp_image(image, source, target, (256, 256)), 20)
    theirs = seconds(lambda: skimage_warp(image, PiecewiseAffineTransform.from_estimate(target,
                                                                                        source),
                                          output_shape=(256, 256), mode="edge"))
    return ["warp, 256 px, 68 points", f"{ours * 1e3:.1f} ms",
            f"scikit-image {theirs * 1e3:.0f} ms, {theirs / ours:.0f}x"]


def sampler() -> list[str]:
    """A step of IDFSR's sampler against the bare network call, mini configuration, random weights,
    batch 20."""
    from fsrbench.methods.common import diffusion
    from fsrbench.methods.idfsr.configs import MINI
    from fsrbench.methods.idfsr.method import with_condition
    from fsrbench.methods.idfsr.network import IdfsrNet

    network = IdfsrNet(MINI).eval().to(memory_format=torch.channels_last)
    kept = diffusion.respace(diffusion.linear_schedule(),
                             diffusion.ddim_timesteps(1000, 20))
    I_M, x = torch.randn(2, 20, 3, 64, 64)
    z_s, z_id = torch.randn(20, MINI.unet.style_channels), torch.randn(20, MINI.unet.id_channels)
    denoise = with_condition(I_M, network)
    both = torch.cat([x, I_M], 1).contiguous(memory_format=torch.channels_last)
    t = torch.full((20,), 500)
    with torch.inference_mode():
        # Interleaved, so that a slow moment of the machine hits both.
        pairs = [(seconds(lambda: [network(both, t, z_s, z_id) for _ in range(20)], 1, 0),
                  seconds(lambda: diffusion.ddim_sample(
                      lambda x, t: denoise(x, t, z_s, z_id), x, kept, "v"), 1, 0))
                 for _ in range(7)][1:]
    bare, step = (float(np.median(times)) / 20 for times in zip(*pairs))
    return ["sampler step, mini, batch 20", f"{step * 1e3:.1f} ms",
            f"bare call {bare * 1e3:.1f} ms, ratio {step / bare:.3f}"]


class Timed:
    """A function that adds up the time spent in it."""

    def __init__(self, function: Callable):
        self.function, self.calls, self.inside = function, 0, 0.0

    def __call__(self, *inputs, **options):
        started = time.perf_counter()
        output = self.function(*inputs, **options)
        self.inside += time.perf_counter() - started
        self.calls += 1
        return output


def baseline(name: str, count: int = 20, wide: bool = False) -> list[str]:
    """A whole restoration of a batch by a mini baseline, random weights: its time over that spent
    in its networks.

    Args:
        wide: with the official prior's shape at half its width, instead of the mini one, which
            folds pixels and is so small that drawing noise shows beside it.
    """
    from dataclasses import replace

    from fsrbench import registry
    from fsrbench.methods.common.prior import ADM_FFHQ256
    from fsrbench.methods.common.unet import UNet
    from fsrbench.profiles import PROFILES
    from fsrbench.proof.complexity import built, example

    method = registry.get(name)(PROFILES["mini"])
    method.stand_ins = {role: Timed(built(part, "cpu")[0].to(memory_format=torch.channels_last))
                        for role, part in method.parts.items()}
    if wide:
        prior = UNet(replace(ADM_FFHQ256, image_size=64, out_channels=3, model_channels=64))
        method.stand_ins["prior"] = Timed(prior.eval().to(memory_format=torch.channels_last))
    one = example(method, 8)
    batch = replace(one, ids=[f"noise/{i}" for i in range(count)], people=one.people * count,
                    lr=np.repeat(one.lr, count, 0), landmarks=one.landmarks * count,
                    references=one.references * count)
    method.restore(replace(batch, ids=batch.ids[:2], people=batch.people[:2], lr=batch.lr[:2]))
    draws = Timed(batch.noise)
    batch.noise = draws
    for network in method.stand_ins.values():
        network.calls, network.inside = 0, 0.0
    started = time.perf_counter()
    method.restore(batch)
    took, inside = time.perf_counter() - started, sum(n.inside for n in method.stand_ins.values())
    step, networks, drawing = (1e3 * t / method.stand_ins["prior"].calls
                               for t in (took, inside, draws.inside))
    return [f"sampler step, {name}{', half the official width' * wide}, batch {count}",
            f"{step:.1f} ms",
            f"in its networks {networks:.1f} ms, ratio {step / networks:.3f}; in draws "
            f"{drawing:.1f} ms, "
            f"without them {(step - drawing) / networks:.3f}"]


def degradation(name: str, side: int, count: int = 12) -> list[str]:
    """A degradation at x4 on one thread, mean over samples, as each draws its own sizes; the image
    is smoothed noise."""
    from fsrbench.degrade.named import get_degradation
    from fsrbench.imaging import imresize, to_uint8

    image = to_uint8(imresize(np.random.default_rng(0).random((1, 3, side // 8, side // 8)), side,
                              side))[0]
    found, threads = get_degradation(name), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        took = seconds(lambda: [found.apply(image, 4, f"sample/{i}") for i in range(count)],
                       3) / count
    finally:
        torch.set_num_threads(threads)
    return [f"degradation {found.id}, {side} px", f"{took * 1e3:.1f} ms",
            f"an image at x4, mean over {count} samples"]


def frechet() -> list[str]:
    """Frechet distance of 1000 + 1000 features of 2048 values."""
    from fsrbench.metrics.frechet import frechet_distance

    a, b = np.random.default_rng(0).normal(size=(2, 1000, 2048))
    return ["Frechet distance, 1000 x 2048", f"{seconds(lambda: frechet_distance(a, b), 3):.2f} s",
            "nuclear norm"]


def metric_speed() -> list[list[str]]:
    """Images a second of each metric that can run here, 32 pairs of 64 px."""
    from fsrbench.faces.geometry import template
    from fsrbench.metrics import get_feature, metrics

    images = np.random.default_rng(0).integers(0, 256, (32, 64, 64, 3), dtype=np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    lines, seen = [], set()
    for metric in metrics().values():
        if metric.missing() or (metric.feature and metric.feature in seen):
            continue
        if metric.feature:
            seen.add(metric.feature)
            feature = get_feature(metric.feature)
            took = seconds(lambda f=feature: f.function(list(images), [template(64)] * 32), 1)
        else:
            inputs = (x,) if metric.kind == "noref" else (x, x.flip(0))
            took = seconds(lambda m=metric, i=inputs: m.function(*i), 3)
        lines.append([f"metric {metric.feature or metric.id}", f"{32 / took:.0f} images/s",
                      "batch 32, 64 px, one process"])
    return lines


def report() -> str:
    """All benchmarks as a text table."""
    lines = [["WHAT", "TIME", "AGAINST"], warp(), sampler()]
    lines += [baseline(f"{family}.mini") for family in ("dr2", "difface", "pgdiff", "dpi")]
    lines += [baseline("dr2.mini-raw", wide=True)]
    lines += [degradation(name, side) for name in ("eq10-gfpgan", "realesrgan")
              for side in (256, 512)]
    lines += [frechet(), *metric_speed()]
    return (f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}\n"
            + columns(lines))
