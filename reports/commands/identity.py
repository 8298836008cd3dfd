"""Who is this face: `invoke identity`."""

from fsrbench.reports.commands.common import RUN_HELP, guarded, show, task

_OPTIONS = {name: text for name, text in RUN_HELP.items() if name != "fresh"}


@task(help={**_OPTIONS,
            "judge": "recognisers, see the README; may be repeated (default: all that are here)",
            "map": "method whose faces are held against every person's reference set (default: "
                   "that of the largest gap)",
            "split": "CSV image,split instead of the seed's halves",
            "references": "CSV image,references instead of the seed's"},
      iterable=["scale", "method", "judge"])
@guarded
def identity(c, profile="mini", data=None, scale=None, method=None, people=None, seed=None,
             batch=None, store="store", out="out", precision="float32", degradation="bicubic",
             judge=None, map=None, split=None, references=None):
    """Is it this person rather than another, and who says so: table, figures and a page."""
    from fsrbench.engine.fixed import Fixed
    from fsrbench.engine.options import open_store, plan
    from fsrbench.engine.options import split as words
    from fsrbench.reports.pages import identity as report
    from fsrbench.reports.tables.comparisons import TABLE1

    options = plan(profile, data, scale or TABLE1.scales, method,
                   report.asked(words(judge)), people, seed, batch, precision, TABLE1.methods,
                   degradation, fixed=Fixed(split or "", references or ""))
    show(report.make(options, open_store(store, out=out), out, map))
