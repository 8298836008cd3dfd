"""Table 4: IDFSR's architecture, read from the configurations in code and set beside the paper's.

Nothing here is typed in twice: what stands in the columns is what the networks are built from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fsrbench.engine.store import write_files
from fsrbench.methods.idfsr.configs import CONFIGS
from fsrbench.methods.idfsr.network import IdfsrConfig
from fsrbench.methods.idfsr.training import RECIPES
from fsrbench.reports.paper.published import facts
from fsrbench.text import csv_table, markdown_table

PROFILES = ("paper", "mini")


def _words(values) -> str:
    return " ".join(map(str, values))


# What the table calls it -> key of the published value, and where the code has it.
ROWS: dict[str, tuple[str, Callable[[IdfsrConfig, str], str]]] = {
    "Batch size (one process)": ("batch_size", lambda c, p: str(RECIPES[p].batch)),
    "Base channels": ("base_channels", lambda c, p: str(c.unet.model_channels)),
    "Channel multipliers": ("channel_multipliers", lambda c, p: _words(c.unet.channel_mult)),
    "Attention resolution": ("attention_resolution", lambda c, p: _words(c.unet.attention_sizes)),
    "Style encoder base channels": ("style_encoder_base_channels",
                                    lambda c, p: str(c.encoder.model_channels)),
    "Style encoder attention resolution": ("style_encoder_attention_resolution",
                                           lambda c, p: _words(c.encoder.attention_sizes)),
    "Style encoder multipliers": ("style_encoder_channel_multipliers",
                                  lambda c, p: _words(c.encoder.channel_mult)),
    "z_s size": ("z_s_dim", lambda c, p: str(c.unet.style_channels)),
    "z_id size": ("z_id_dim", lambda c, p: str(c.unet.id_channels)),
    "Input channels": ("input_channels", lambda c, p: str(c.unet.in_channels)),
    "Learning rate": ("learning_rate", lambda c, p: f"{RECIPES[p].lr:g}"),
    "Training T": ("diffusion_steps_train", lambda c, p: str(c.T)),
    "DDIM steps": ("sampler_steps", lambda c, p: str(c.steps)),
    "Prediction": ("prediction", lambda c, p: c.parameterisation),
}


@dataclass(frozen=True)
class Line:
    """A parameter: the paper's value, ours by profile, and whether the `paper` configuration has
    the paper's."""

    name: str
    paper: str
    ours: dict[str, str]
    same: bool


def _equal(a: str, b: str) -> bool:
    try:
        return [float(x) for x in a.split()] == [float(x) for x in b.split()]
    except ValueError:
        return a == b


def lines() -> list[Line]:
    """The table's rows."""
    known, found = facts(), []
    for name, (key, read) in ROWS.items():
        ours = {profile: read(CONFIGS[profile], profile) for profile in PROFILES}
        found.append(Line(name, known[key].value, ours, _equal(known[key].value, ours["paper"])))
    return found


def table4(out: Path | str) -> list[Path]:
    """Write table4.md and table4.csv; returns the paths.

    Raises:
        FsrError: the folder cannot be written.
    """
    head = ["Parameter", "Paper", *(f"`{p}` configuration" for p in PROFILES), "paper = `paper`"]
    rows = [[line.name, line.paper, *(line.ours[p] for p in PROFILES), "yes" if line.same else "no"]
            for line in lines()]
    text = ["# Table 4: architecture of IDFSR, from the configurations in code", "",
            markdown_table(head, rows), ""]
    return write_files(out, {"table4.md": "\n".join(text),
                             "table4.csv": csv_table(["parameter", "paper", *PROFILES, "same"],
                                                     rows)})
