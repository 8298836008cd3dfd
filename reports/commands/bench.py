"""Speed on this machine: of the parts, or of whole restorations."""

from fsrbench.reports.commands.common import guarded, task


@task(help={
    "profile": "measure whole restorations instead, with random weights: mini (64 px) or paper "
               "(256 px)",
    "method": "method; may be repeated (default: all with a row in the paper or published weights)",
    "batch": "images at once; may be repeated, or 1,8 (default 1, 8 and 32)",
    "scale": "factor 4, 8, 16 or 32 (default 8)",
    "precision": "of networks: float32 (default, or no), bf16 or fp16, or bf16-compiled on a GPU",
    "device": "cpu or cuda (default: the GPU where there is one)",
    "seconds": "end after so many, at the next call of a network (the one that runs is not broken "
               "off); IDFSR comes first, then who calls its networks least",
    "out": "JSON file for the figures"}, iterable=["method", "batch"])
@guarded
def bench(c, profile=None, method=None, batch=None, scale="8", precision="float32", device=None,
          seconds=None, out=None):
    """How fast the parts, or whole restorations (--profile), are on this machine."""
    import os
    from pathlib import Path

    from fsrbench.engine.options import check_precision, decimal, split, whole
    from fsrbench.errors import FsrError
    from fsrbench.reports.gate import bench as parts
    from fsrbench.reports.gate import speed
    from fsrbench.weights.places import device as place
    from fsrbench.weights.places import refuse_device

    if device:
        refuse_device(device, f"--device {device}", "give --device cpu, or leave it out")
        os.environ["FSRBENCH_DEVICE"] = device
    if not profile:
        given = {"method": method, "batch": batch, "out": out, "seconds": seconds}
        if typed := [f"--{name}" for name, value in given.items() if value]:
            raise FsrError(" ".join(typed), "is for whole restorations",
                           "add --profile paper, or mini", code=2)
        place()
        print(parts.report())
        return
    from fsrbench.degrade.named import check_scale
    from fsrbench.engine.store import check_file
    from fsrbench.profiles import get_profile

    chosen, file = get_profile(profile), Path(out).expanduser() if out else None
    if file:
        check_file(file)
    batches = [whole("batch", b, 1) for b in split(batch)] or speed.BATCHES
    exact = check_precision("float32" if precision == "no" else precision)
    place()
    limit, factor = decimal("seconds", seconds), check_scale(whole("scale", scale, 1), chosen.size)
    names = speed.chosen(chosen, split(method))
    speed.report(chosen, names, exact, batches, factor, limit, file,
                 lambda line: print(line, flush=True))
    if file:
        print(f"written: {file}")
