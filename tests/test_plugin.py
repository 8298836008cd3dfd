"""A method outside the repository, by entry point, in the table without an edit here."""

import csv
import textwrap

PLUGIN = '''
import numpy as np
from fsrbench.core import Batch, Method


class Blur(Method):
    """Averages each 3x3 neighbourhood of the upsampled image."""

    name, title, origin, licence = "blur.third", "Blur (third party)", "a test", "none"
    weights = "official"

    def restore(self, batch: Batch) -> np.ndarray:
        padded = np.pad(batch.upsampled, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        shifts = [padded[:, :, i:i + batch.size, j:j + batch.size]
                  for i in range(3) for j in range(3)]
        return np.mean(shifts, axis=0)
'''


def install(folder, module, body, point):
    """Lay out a package as pip would have installed it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(textwrap.dedent(body))
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fsrbench.methods]\n{point}\n")


def test_a_twenty_line_method_from_outside(invoke_process, tmp_path):
    site = tmp_path / "site"
    install(site, "blurplug", PLUGIN, "blur = blurplug:Blur")
    install(site, "brokenplug", "import nothing_of_that_name", "broken = brokenplug:X")
    install(site, "twinplug", PLUGIN.replace("blur.third", "bicubic"), "twin = twinplug:Blur")
    listed = invoke_process("methods", check=0, PYTHONPATH=str(site)).stdout
    assert "blur.third" in listed and "broken plug-in broken: ModuleNotFoundError" in listed
    assert "broken plug-in twin" in listed and "registered twice" in listed
    invoke_process("table1", "--method", "bicubic", "--method", "blur.third", "--people", "2",
                   "--scale", "8", "--metric", "psnr", "--store", tmp_path / "store",
                   "--out", tmp_path / "out", check=0, PYTHONPATH=str(site))
    rows = {(r["method"], r["metric"]): r for r in csv.DictReader((tmp_path / "out" / "table1.csv")
                                                                  .open())}
    blurred, plain = rows["blur.third", "psnr.rgb"], rows["bicubic", "psnr.rgb"]
    assert blurred["n_ok"] == "10" and blurred["weights"] == "official"
    assert blurred["mean"] != plain["mean"]
    done = invoke_process("table1", "--method", "broken", "--store", tmp_path / "store",
                          PYTHONPATH=str(site))
    assert done.returncode == 3
    assert "its plug-in cannot be loaded (ModuleNotFoundError" in done.stderr
