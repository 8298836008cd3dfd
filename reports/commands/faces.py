"""People who do not exist, to be looked at and taken along: `invoke faces`."""

from fsrbench.reports.commands.common import guarded, task


@task(help={"number": "how many people (default 5)", "seed": "of the draw (default 0)",
            "out": "folder for a folder of each (default faces)",
            "sheet": "file for all on one sheet (default that folder's name with .jpg)"})
@guarded
def faces(c, number="5", seed="0", out="faces", sheet=None):
    """Draw people who do not exist: six images of each as JPEG, and a sheet of all."""
    from fsrbench.engine.options import whole
    from fsrbench.reports.figures.people import make

    drawn = f"synthetic:{whole('number', number, 1)}:{whole('seed', seed)}"
    paths = make(drawn, out, sheet or f"{out.rstrip('/')}.jpg")
    print("written: " + ", ".join(map(str, paths)))
