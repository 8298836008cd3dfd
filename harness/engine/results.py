"""Named results in the store: scalars of analyses that are not the mean of a cell.

A result is one small file, `results/PROFILE/NAME.json`; writing a name again replaces it, whole.
`key` is the digest of what decided the value, so a reader can tell a result of other weights. The
claims audit (`fsrbench.reports.gate.claims`) reads these names; a comparison is best written as a
paired difference with its own interval:

- mine_id_style, mine_id_id, mine_style_style: nats. cca_mean, cca_mean_heldout: mean canonical
correlation.
- ablation/CASE/METRIC with CASE default or case1 to case5 and METRIC as in the paper's tables
(psnr, ids, ...), and
  ablation/CASE/METRIC-default: the paired difference, that case less the default.
- references/N/METRIC with N fine-tuning images, and references/2-5/METRIC, references/5-10/METRIC:
paired change of the
  mean from the first number to the second.
- degraded-reference/mild/ids, degraded-reference/severe/ids: paired change of IDS against the clean
reference.
  Of the fitted model, mild the first and severe the last level that figure 14 shows.
- crossid/towards-a/ids: IDS to person A with B's own embedding less the same with A's embedding.
- warp/jittered/ids: relative change of the fitted model's mean IDS (0.1 is 10 %) where the
reference's landmarks are jittered.
- table6/METHOD/QUANTITY with METHOD pgdiff, dr2, difface, stablesr, dpi or idfsr and QUANTITY
step_ms, total_s,
  counted_m or thop_params_m (parameters of what the paper counts, in 10^6, true and by thop). Their
  profile is ALL, as they are of published configurations.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fsrbench.engine.stats import summarise
from fsrbench.engine.store import Store
from fsrbench.errors import FsrError
from fsrbench.text import json_text, read_json

# Profile of what does not depend on one.
ALL = "all"
_NAME = re.compile(r"[a-z0-9][a-z0-9_./-]*")


@dataclass(frozen=True)
class Result:
    """A named scalar.

    Args:
        key: digest of what decided it; value: in the unit that the name implies.
        low, high: 95 % interval; NaN where there is none. n: of what it is the mean or estimate.
        note: a sentence for a reader.
    """

    name: str
    key: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    note: str = ""


def put_result(store: Store, profile: str, result: Result) -> None:
    """Keep a result; one of the same name and profile is replaced.

    Raises:
        FsrError: the name would not be a file name, or the value is not finite.
    """
    if not _NAME.fullmatch(result.name) or ".." in result.name:
        raise FsrError(f"result {result.name!r}", "is not a name",
                       "use lower case, digits, / _ - and .", code=2)
    if not math.isfinite(result.value):
        raise FsrError(f"result {result.name}", "is not finite", "record only what was measured",
                       code=2)
    fields = {name: None if isinstance(v, float) and math.isnan(v) else v
              for name, v in asdict(result).items()}
    store.write(store.root / "results" / profile / f"{result.name.replace('/', '+')}.json",
                 json_text(fields).encode())


def put_mean(store: Store, profile: str, name: str, values: np.ndarray, people: Sequence[str],
             note: str = "") -> None:
    """Keep the mean of values (N,) with its 95 % interval over people; NaN values do not count, and
    of none nothing is kept.

    Args:
        people: whom each value is of; a paired difference is the mean of differences.
    """
    s = summarise(values, people)
    if s.n_ok:
        key = hashlib.sha256(repr((name, values.tolist(), list(people))).encode()).hexdigest()
        put_result(store, profile, Result(name, key, s.mean, s.low, s.high, s.n_ok, note))


def results(store: Store, profile: str) -> dict[str, Result]:
    """All results of a profile by name, with those that depend on no profile.

    Raises:
        FsrError: a file is damaged.
    """
    found = {}
    for path in (p for part in (ALL, profile) for p in sorted((store.root / "results" / part)
                                                              .glob("*.json"))):
        known = read_json(path, remedy="delete it and measure again")
        try:
            result = Result(**{name: math.nan if v is None else v for name, v in known.items()})
        except TypeError as error:
            raise FsrError(f"result {path}", f"is damaged ({str(error)[:100]})",
                           "delete it and measure again") from None
        found[result.name] = result
    return found
