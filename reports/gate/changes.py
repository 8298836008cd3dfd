"""Why a record is new: which part of its key is not that of an earlier run's record of the same
thing."""

from __future__ import annotations


from fsrbench.engine.keys import changed
from fsrbench.engine.provenance import run_of
from fsrbench.engine.run import Outcome, Run

_SAME = ["method", "scale", "sample", "metric", "degradation", "profile", "seed"]


def new_records(run: Run, outcome: Outcome) -> list[str]:
    """One line for each method and each metric whose records this run computed although the store
    held others of the same name: how many, and what has changed. Empty where nothing was computed,
    or nothing of that name was there."""
    mine = outcome.records[outcome.records["run"] == run.id]
    if mine.empty:
        return []
    rows = run.store.read("rows")
    earlier = rows[rows["run"] != run.id].merge(mine[[*_SAME, "key"]], on=_SAME,
                                                suffixes=("", "_now"))
    earlier = earlier[earlier["key"] != earlier["key_now"]]
    runs = {name: found for name in earlier["run"].unique()
            if (found := run_of(run.store.root, name))}
    now, lines = run.key_parts(), []
    for kind, column in (("methods", "method"), ("metrics", "metric")):
        of_kind = (earlier[earlier["metric"] == "restored"] if kind == "methods"
                   else earlier[earlier["metric"] != "restored"])
        for name, found in of_kind.groupby(column):
            last = max((runs[r] for r in found["run"].unique() if r in runs),
                       key=lambda r: r.get("started", ""), default={})
            before = last.get("keys", {}).get(kind, {}).get(name)
            parts = changed(before, now[kind][name]) if before else []
            if kind == "metrics" and not parts:
                continue  # its restorations are new, which their own line says
            data = changed(last.get("keys", {}).get("data", {}), now["data"]) if before else []
            why = ", ".join(parts or data) or ("the data, the references or the fits" if before
                                               else "not known, as the earlier run "
                                               "did not write down its keys")
            count = found.drop_duplicates(["method", "scale", "sample"]).shape[0]
            lines.append(f"{name}: {count} records are new; changed: {why}")
    return lines
