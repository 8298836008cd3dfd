"""The paper's comparisons: Tables 1, 2, 3 and 5, here, or in shards at once."""

import inspect

from fsrbench.reports.commands.common import RUN_HELP, Command, guarded, show, task

METRIC = {"metric": "id or family, not the table's; may be repeated, or with commas; -crop8 "
                    "leaves 8 px of border"}
TABLE_HELP = {**RUN_HELP,
              "retry_failed": "restore and measure again what failed in an earlier run"}
CLUSTER_HELP = {
    "engine": "here (default), processes (of this machine, as many as --shards) or slurm (an array "
              "of jobs and one that makes the table)",
    "shards": "how many at once (default 2)",
    "gpus": "GPUs of a shard (default 0)", "cpus": "processors of a shard (default 1)",
    "time": "time limit of a shard, as minutes, H:MM:SS or D-HH:MM:SS; one that needs more is "
            "queued again (default 2:00:00)",
    "partition": "partition of SLURM (default: its default)"}


class TableCommand(Command):
    """A task whose options of a cluster are typed in full, so that those of a run keep their
    letters."""

    def get_arguments(self, *args, **kwargs):
        arguments = super().get_arguments(*args, **kwargs)
        for argument in arguments:
            if argument.name in CLUSTER_HELP:
                argument.names = (argument.name,)
        return arguments


def fixed(split, references):
    """`Fixed` of what was typed."""
    from fsrbench.engine.fixed import Fixed

    return Fixed(split or "", references or "")


# What a shard is not told again: it does not delete, and submits nothing.
_ONCE = {"c", "fresh", *CLUSTER_HELP}


def words_of(name, body, typed):
    """A command as it was typed: its name, and every option that is not the body's default."""
    words = [name]
    for option, parameter in inspect.signature(body).parameters.items():
        value = typed.get(option)
        if option in _ONCE or value in (None, []) or value == parameter.default:
            continue
        flag = f"--{option.replace('_', '-')}"
        values = value if isinstance(value, (list, tuple)) else [value]
        words += [flag] if value is True else [word for v in values for word in (flag, str(v))]
    return words


def counts(engine, typed):
    """Shards, and GPUs and processors of each, as numbers; what only shards have is refused without
    them."""
    from fsrbench.engine.options import whole
    from fsrbench.errors import FsrError

    plain = {"shards": "2", "gpus": "0", "cpus": "1", "time": "2:00:00", "partition": None}
    for option in (name for name, value in plain.items() if typed[name] != value):
        if engine == "here":
            raise FsrError(f"--{option} {typed[option]}", "is for several processes at once",
                           "add --engine processes, or slurm", code=2)
    return [whole(name, typed[name], least) for name, least in
            (("shards", 0), ("gpus", 0), ("cpus", 1))]


def in_shards(words, store, engine, shards, gpus, cpus, time, partition):
    """Run a command in shards and wait for them. With SLURM a job makes the table too, for those
    who do not wait."""
    from fsrbench.engine import cluster

    limits = cluster.Resources(gpus, cpus, cluster.minutes(time), partition or "")
    found = cluster.submit(engine, words, shards, limits, store)
    try:
        cluster.wait(found, shards)
    except KeyboardInterrupt:
        cluster.leave(found)
        raise


def comparison(name, choose, text, scales="8 and 16"):
    """The task of one of the paper's comparisons; `choose` finds it by what was typed as --data,
    and `scales` is what its help says of them."""
    @guarded
    def body(c, profile="mini", data=None, scale=None, method=None, people=None, seed=None,
             batch=None, store="store", out="out", precision="float32", fresh=False,
             retry_failed=False, degradation="bicubic", metric=None, split=None, references=None,
             engine="here", shards="2", gpus="0", cpus="1", time="2:00:00", partition=None):
        from fsrbench.engine import cluster
        from fsrbench.engine.options import open_store, plan
        from fsrbench.engine.options import split as words
        from fsrbench.engine.run import usable
        from fsrbench.reports.tables.comparisons import COMPARISONS, make

        typed = dict(locals())
        table = COMPARISONS[choose(data or "")]
        options = plan(profile, data or (table.data if profile == "paper" else None),
                       scale or table.scales, method, words(metric) or table.metrics, people, seed,
                       batch, precision, table.methods, degradation, retry_failed,
                       fixed(split, references))
        shards, gpus, cpus = counts(engine, typed)
        if engine != "here":
            cluster.check(engine, shards, time)
            usable(options)  # what is missing is said now, not by every shard
        records = open_store(store, fresh and options, out)
        if engine != "here":
            in_shards(words_of(name, body, typed), records.root, engine, shards, gpus, cpus, time,
                      partition)
        result = make(table, options, records, out)
        if isinstance(result, int):
            print(f"this shard is done; {result} records are with other shards. Run without a "
                  f"shard to make the table.")
            return
        show(result[1])
    body.__doc__ = text
    factor = {"scale": f"factor 4, 8, 16 or 32; may be repeated, or 8,16 (default {scales})"}
    return task(name=name, help=TABLE_HELP | METRIC | CLUSTER_HELP | factor,
                iterable=["scale", "method", "metric"], klass=TableCommand)(body)


table1 = comparison("table1", lambda data: "table1",
                    "Table 1: restore at x8 and x16, measure, and set beside the paper.")
table2 = comparison("table2", lambda data: "table2",
                    "Table 2: verification, gender, emotion, race and age at x16.", "16")
table3 = comparison("table3", lambda data: "table3", "Table 3: restore at x4 and x32.",
                    "4 and 32")
table5 = comparison("table5", lambda data: "table5-celebv" if data.startswith("celebv-text")
                    else "table5-casia",
                    "Table 5: other data at x16: --data casia-webface:PATH or celebv-text:PATH.",
                    "16")
