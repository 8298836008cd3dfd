"""Training of networks: from the faces of a data set to a file with its card."""

from fsrbench.reports.commands.common import DATA, RUN_HELP, TRAINED, guarded, task

_FACES = "training data set, or a file of `invoke bank` (default lfw)"


@task(help={
    "what": TRAINED, "data": _FACES, "profile": "mini (default) or paper",
    "case": "variant of the ablation, 0 (its default) to 5",
    "steps": "stop at this step, counted from the first sitting (default 60000, or none with "
             "--minutes)",
    "minutes": "stop after so many minutes, counted from the first sitting",
    "batch": "images a step (default: the network's own)",
    "lr": "learning rate (default: the network's own)",
    "precision": "no (float32, default) or bf16 (twice as fast where lscpu shows avx512_bf16 or "
                 "amx_bf16, and on a GPU)",
    "compile": "compile the network by torch.compile",
    "every": "steps between sample images (default 5000)",
    "saves": "minutes between checkpoints (default 5)",
    "init": "weights to start from: an exported safetensors file; for idfsr in the paper profile "
            "DiffAE's checkpoint, for "
            "landmarks RetinaFace's",
    "degradation": "of the LR images of landmarks, see `invoke data` (default: random scaling)",
    "store": "folder of prepared faces (default store)",
    "out": "folder of the run (default runs/WHAT)",
    "seed": "seed of split and draws (default 0)"})
@guarded
def train(c, what, data="lfw", profile="mini", case=None, steps=None, minutes=None, batch=None,
          lr=None, precision="no",
          compile=False, every="5000", saves="5", init=None, degradation=None, store="store",
          out=None, seed=None):
    """Train a network of ours; the same command resumes."""
    from fsrbench.engine.options import decimal, open_store, whole
    from fsrbench.errors import unknown
    from fsrbench.training.export import train_named
    from fsrbench.training.loop import TrainOptions

    if precision not in ("no", "float32", "bf16"):
        raise unknown("precision", precision, ["no", "float32", "bf16"])
    limit = decimal("minutes", minutes)
    count = whole("steps", steps, 1) if steps else None if limit else 60000
    options = TrainOptions(count, limit, whole("batch", batch, 1), decimal("lr", lr),
                           precision="no" if precision == "float32" else precision,
                           every=whole("every", every, 1), saves=decimal("saves", saves),
                           compile=compile)
    path = train_named(what, options, out, data=data, store=open_store(store), profile=profile,
                       case=whole("case", case), seed=whole("seed", seed or 0), init=init,
                       degradation=degradation)
    print(f"checkpoint: {path}")


@task(help={"data": _FACES, "out": "file to write (default lfw.npz, by the data set's name)",
            "profile": "mini (default) or paper",
            "seed": "seed of the split (default 0)",
            "store": "folder of prepared faces (default store)"})
@guarded
def bank(c, data="lfw", out=None, profile="mini", seed=None, store="store"):
    """Write the faces of a data set as one file, to train from without it and its detectors."""
    from fsrbench.engine.options import open_store, whole
    from fsrbench.training.bank import copy_bank

    print(copy_bank(data, out, open_store(store), profile, whole("seed", seed or 0)))


@task(help={"what": TRAINED, "checkpoint": "of `invoke train` (default runs/WHAT/checkpoint.pt)",
            "to": "safetensors file to write (default methods/weights/WHAT-PROFILE.safetensors)",
            "data": _FACES,
            "profile": "mini (default) or paper", "case": "variant of the ablation, 0 to 5",
            "store": "folder of prepared faces (default store)",
            "seed": "seed of split and draws (default 0)",
            "degradation": "that landmarks were trained on, for the card"})
@guarded
def export(c, what, checkpoint=None, to=None, data="lfw", profile="mini", case=None,
           degradation=None, store="store", seed=None):
    """Write a trained network's EMA and its model card."""
    from fsrbench.engine.options import open_store, whole
    from fsrbench.training.export import export_named

    print(export_named(what, checkpoint, to, data=data, store=open_store(store), profile=profile,
                       case=whole("case", case), seed=whole("seed", seed or 0),
                       degradation=degradation))


@task(help={"profile": RUN_HELP["profile"], "data": DATA,
            "scale": "factor; may be repeated (default 4, 8 and 16)",
            "degradation": "see `invoke data` (default bicubic)",
            "people": "so many people (default: all that are drawn)",
            "store": "folder of prepared faces (default store)",
            "seed": "seed of the split (default 0)"}, iterable=["scale"])
@guarded
def landmarks(c, profile="mini", data=None, scale=None, degradation="bicubic", people=None,
              store="store", seed=None):
    """Errors of the landmarks that are found on LR images, by detector."""
    from fsrbench.engine.options import open_store, whole
    from fsrbench.profiles import get_profile
    from fsrbench.reports.tables.landmarks import SCALES, report

    chosen, scales = get_profile(profile), tuple(whole("scale", s, 1) for s in scale) or SCALES
    print(report(chosen, data or chosen.data, scales, degradation, open_store(store),
                 whole("people", people, 1), whole("seed", seed or 0)))
