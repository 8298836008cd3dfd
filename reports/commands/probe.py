"""`invoke probe`: what a method does where one of its inputs is another."""

from fsrbench.reports.commands.common import RUN_HELP, guarded, show, task

_PROBED = {name: text for name, text in RUN_HELP.items() if name != "fresh"}


@task(help={**_PROBED, "scale": "factor 4, 8, 16 or 32, one (default 16)",
            "method": "method, may be repeated (default: bicubic, reference, codeformer, asffnet, "
                      "dmdnet, idfsr.pt, idfsr.ft, idfsr.noref)",
            "probe": "probe, may be repeated (default all): other, other-reference, blank, truth, "
                     "morph, mirrored, relit, coarse, turned, shifted-1, -2, -4, seed, z-id, "
                     "z-id-mean",
            "images": "test images of each person (default 2)",
            "judge": "recogniser, may be repeated: the first gives the numbers, all of them what a "
                     "method is named (default: dlib and frfeature)",
            "retry_failed": "restore again what failed in an earlier run"},
      iterable=["scale", "method", "probe", "judge"])
@guarded
def probe(c, profile="mini", data=None, scale=None, method=None, people=None, seed=None,
          batch=None, store="store", out="out", precision="float32", degradation="bicubic",
          split=None, references=None, probe=None, images=None, judge=None,
          retry_failed=False):
    """What decides the identity: restore with another's reference, a morphed LR image, ..."""
    from fsrbench.engine.fixed import Fixed
    from fsrbench.engine.options import open_store, plan, whole
    from fsrbench.engine.options import split as words
    from fsrbench.reports.pages.probed import make
    from fsrbench.reports.tables import probe as report

    options = plan(profile, data, scale or report.SCALES, method, (), people, seed, batch,
                   precision, report.METHODS, degradation, retry_failed,
                   Fixed(split or "", references or ""))
    made = make(options, open_store(store, out=out), out, words(probe),
                whole("images", images, 1) or report.IMAGES, words(judge))
    if isinstance(made, int):
        print(f"this shard is done; {made} records are with other shards. Run without a shard to "
              f"make the table.")
        return
    show(made)
