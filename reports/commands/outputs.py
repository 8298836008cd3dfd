"""For methods of other repositories: what they have to restore, and scores of what they wrote."""

from fsrbench.reports.commands.common import RUN_HELP, guarded, show, task

_INPUT_OPTIONS = ("profile", "data", "scale", "people", "seed", "degradation", "store")


@task(help={**{name: RUN_HELP[name] for name in _INPUT_OPTIONS},
            "out": "new folder for the images (default inputs)"},
      iterable=["scale"])
@guarded
def inputs(c, profile="mini", data=None, scale=None, people=None, seed=None, degradation="bicubic",
           store="store", out="inputs"):
    """Write LR images, reference sets and ground truths for a method of another repository.

    Restore lq-x8/PERSON/IMAGE.png into a folder of your own, DIR/PERSON/IMAGE.png, then put it
    beside the others by `invoke table1 --scale 8 --method bicubic --method outputs:DIR` with the
    same --data, --people and --seed.
    """
    from pathlib import Path

    from fsrbench.engine.inputs import write_inputs
    from fsrbench.engine.options import open_store, plan
    from fsrbench.engine.run import Run
    from fsrbench.reports.tables.comparisons import TABLE1

    options = plan(profile, data, scale or TABLE1.scales, ("bicubic",), (), people, seed, None,
                   degradation=degradation)
    print("written: "
          + ", ".join(map(str, write_inputs(Run(options, open_store(store, out=out)), Path(out)))))


@task(help={
    "restored": "folder of outputs, [NAME=]PATH; may be repeated, then they are compared",
    "truth": "folder of the ground truths, of any size; matched by path below the folder without "
             "suffix, else by how the path ends where that is clear; without it only what needs "
             "none is measured",
    "references": "folder of reference images: a sub-folder a person, or files named as the images",
    "lq": "folder of the degraded images, to be shown; without --truth it says which there are",
    "persons": "CSV file with the columns image and person (default: a folder a person)",
    "split": "CSV file with the columns image and split; only images of split test are scored",
    "name": "how the method is called (default: the folder's name)",
    "metric": "metric, may be repeated (default: those of Table 1; without --truth those that need "
              "none)",
    "protocol": "metrics and rules of a published evaluation, see `invoke protocols`",
    "allow": "score also outputs that are jpeg, alpha or 16-bit; may be repeated (default: they "
             "count as failed)",
    "seed": RUN_HELP["seed"], "store": RUN_HELP["store"], "out": RUN_HELP["out"]},
      iterable=["restored", "metric", "allow"])
@guarded
def score(c, restored=None, truth=None, references=None, lq=None, persons=None, split=None,
          name=None, metric=None, protocol=None, allow=None, seed=None, store="store", out="out"):
    """Score folders of anybody's outputs as the tables do, with or without ground truths."""
    from fsrbench.engine.options import open_store
    from fsrbench.engine.options import split as words
    from fsrbench.engine.scoring import score as run
    from fsrbench.reports.tables.score import asked_for, make

    asked, known = asked_for(protocol, words(metric), restored=restored or (), truth=truth,
                             references=references, lq=lq, persons=persons, split=split, name=name,
                             allow=words(allow), seed=seed)
    _, paths = make(run(asked, open_store(store, out=out)), out, known)
    show(paths)


@task(help={"name": "only this one, with everything that is known of it"})
@guarded
def protocols(c, name=None):
    """Published evaluation protocols for `invoke score`, and what of each can run here."""
    from fsrbench.reports.tables.protocols import listing

    print(listing(name))
