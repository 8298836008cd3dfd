"""How far a value may move by arithmetic alone: other processors, libraries, batches."""

from __future__ import annotations

import math

from fsrbench.core import Method
from fsrbench.engine.stats import Summary
from fsrbench.metrics import Metric

# Largest relative change of a table value, measured between chunks of 7 and of 20 images (12 people
# of ORL, x8 and x16).
NUMERICAL = 3.3e-5
# Other processors and libraries add to it. Measured between AVX-512 kernels and SSE4.1 ones
# (ATEN_CPU_CAPABILITY=default, ONEDNN_MAX_CPU_ISA=SSE41, MKL_CBWR=COMPATIBLE; nine methods, x8, 10
# images of 2 people): at most 1.4e-4, an IDS, as single pixels change by one level. Ten times the
# numerical spread is 2.4 times that.
PLATFORM = 10
# Relative change of a value or vector of the very same image. Measured between AVX-512, AVX2 and
# SSE4.1 kernels: PSNR, SSIM and dlib's vectors 0, LPIPS 5.8e-7, AlexNet's vectors 1.3e-6, PIQE
# 2.7e-6.
REPEATED = 1e-5


def spread_of(method: Method) -> float:
    """How far a method's means move between machines, in halves of their 95 % intervals over
    people: its attribute `spread`, and 0 of a method that declares none, whose images are those of
    any other machine.

    It decides no value, so `Method`, whose code is in every record's key, does not have it.
    """
    return getattr(method, "spread", 0.0)


def chaotic_tolerance(summary: Summary, spread: float) -> float:
    """How far a mean may move where the last bit decides a method's images, so that another machine
    restores every sample anew.

    Such images are other draws for the same samples, so their mean moves by a share of its standard
    error, whatever the metric: the interval over people has that error of means and, by leaving out
    people, of the distance between sets. Where there is none (too few people) nothing is allowed.
    """
    return spread * half_width(summary)


def half_width(summary: Summary) -> float:
    """Half of the 95 % interval over people; 0 where there is none."""
    half = (summary.high - summary.low) / 2
    return half if math.isfinite(half) else 0.0


def tolerance(metric: Metric, value: float, n: int, half: float = 0.0) -> float:
    """How far a mean may move by arithmetic alone.

    The measured spread over chunk sizes, with an allowance for other processors and libraries (see
    PLATFORM). A metric of yes and no moves by whole samples, and one with thresholds inside by
    jumps, so one sample may cross one. (Measured between two processors, all cells of the default
    table: one PIQE of a fitted row moved by 0.082, which is 4.8 in one image; the others stayed
    within the first term.)

    Args:
        half: `half_width` of its interval. Where that is more than the mean itself, as of an
            identity gap of nobody, values of both signs cancel out, and the mean says nothing of
            how large the numbers are that are rounded.
    """
    if metric.percent:
        return 1 / max(n, 1)
    if not math.isfinite(value):
        return 0.0
    return NUMERICAL * PLATFORM * max(abs(value), half) + metric.jump / max(n, 1)
