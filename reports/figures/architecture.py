"""Figure 2: the architecture, drawn from what the real modules do in one call (paper 3.1, 3.3,
Table 4).

The network of the profile is built without weights, called once, and every block notes its place,
the shape that left it, its parameters, and which of t, z_s and z_id it was given. Nothing about its
structure stands here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fsrbench.methods.common.unet import Attention, Resample, ResBlock
from fsrbench.methods.idfsr.method import IdfsrPt
from fsrbench.methods.idfsr.network import IdfsrConfig, IdfsrNet
from fsrbench.reports.figures import style
from fsrbench.reports.figures.context import Context
from fsrbench.reports.figures.registry import Drawing, figure

KINDS = {"convolution": (6, ""), "residual block": (0, ""), "cross-attention": (1, "xxxx"),
         "self-attention": (5, "...."), "resampling": (2, "////")}
MARKS = {"t": ("o", "$t$"), "z_s": ("^", "$z_s$"), "z_id": ("D", "$z_{id}$")}


@dataclass(frozen=True)
class Block:
    """A block as it was called.

    Args:
        path: of the module in the network; half: "input", "middle", "output" or "encoder"; stage:
            number in its half.
        kind: one of KINDS; channels, size: of what left it; parameters: its own.
        takes: of "t", "z_s", "z_id", what it was given and uses.
    """

    path: str
    half: str
    stage: int
    kind: str
    channels: int
    size: int
    parameters: int
    takes: frozenset[str]


def count(module: torch.nn.Module) -> int:
    """Parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def _kind(module: torch.nn.Module, given: tuple) -> tuple[str, set[str]]:
    """Kind of a block, and what it takes of the call's arguments."""
    if isinstance(module, ResBlock):
        emb, z_s = (*given[1:], None, None)[:2]
        takes = ({"t"} if emb is not None else set()) | ({"z_s"} if z_s is not None else set())
        return "resampling" if module.resample else "residual block", takes
    if isinstance(module, Attention):
        crossed = len(given) > 1 and given[1] is not None
        return ("cross-attention", {"z_id"}) if crossed else ("self-attention", set())
    return ("resampling" if isinstance(module, Resample) else "convolution"), set()


def _place(path: str) -> tuple[str, int]:
    """Half and stage of a module's path."""
    words = path.split(".")
    if words[0] == "encoder":
        return "encoder", int(words[2]) if words[1] == "input_blocks" else 10**6
    return (words[0].removesuffix("_blocks").removesuffix("_block"), int(words[1]) if words[0]
            != "middle_block" else 0)


def _blocks_of(network: IdfsrNet) -> Iterator[tuple[str, torch.nn.Module]]:
    """Blocks that are drawn: those of the stages, and convolutions that are a stage by
    themselves."""
    for path, module in network.named_modules():
        if isinstance(module, (ResBlock, Attention, Resample)) or path.endswith("input_blocks.0.0"):
            yield path, module


def trace(config: IdfsrConfig) -> tuple[list[Block], dict[str, int]]:
    """Blocks in the order of one call, and parameters by part: the blocks of each half, and
    whatever else there is by name.

    The parts sum to the network's parameters.
    """
    with torch.device("meta"):
        network, found = IdfsrNet(config).eval(), []

        def note(path):
            def hook(module, given, out):
                kind, takes = _kind(module, given)
                half, stage = _place(path)
                found.append(Block(path, half, stage, kind, out.shape[1], out.shape[-1],
                                   count(module), frozenset(takes)))
            return hook
        for path, module in _blocks_of(network):
            module.register_forward_hook(note(path))
        unet, size = config.unet, config.unet.image_size
        z_s = network.encoder(torch.zeros(1, 3, size, size)) if unet.style_channels else None
        z_id = torch.zeros(1, unet.id_channels) if unet.id_channels else None
        network(torch.zeros(1, unet.in_channels, size, size), torch.zeros(1, dtype=torch.long), z_s,
                z_id)
    return found, _parts(network, found)


def _parts(network: IdfsrNet, found: list[Block]) -> dict[str, int]:
    parts: dict[str, int] = {}
    for block in found:
        parts[block.half] = parts.get(block.half, 0) + block.parameters
    for name, module in network.named_children():
        if name not in ("input_blocks", "middle_block", "output_blocks", "encoder"):
            parts[name] = count(module)
    if hasattr(network, "encoder"):
        parts["encoder.out"] = count(network.encoder.out)
    return parts


def _columns(blocks: list[Block], start: float, step: float) -> list[tuple[float, Block]]:
    """Places from left to right, with a gap between stages."""
    placed, x, last = [], start, None
    for block in blocks:
        if last is not None and (block.half, block.stage) != last:
            x += 0.35 * step
        placed.append((x, block))
        x, last = x + step, (block.half, block.stage)
    return placed


class _Sheet:
    """An axis of levels: the finest at the top, a block's height by its side."""

    def __init__(self, axis, finest: int):
        self.axis, self.finest = axis, finest

    def level(self, size: int) -> float:
        """Middle of a level."""
        return -math.log2(self.finest / size)

    def block(self, x: float, width: float, block: Block, y: float | None = None) -> None:
        """A block with its channels, and marks for what it takes."""
        from matplotlib.patches import Rectangle

        colour, hatch = KINDS[block.kind]
        y, height = self.level(block.size) if y is None else y, 0.62
        self.axis.add_patch(Rectangle((x, y - height / 2), width * 0.9, height,
                                      facecolor=style.PALETTE[colour], alpha=0.28, linewidth=0))
        self.axis.add_patch(Rectangle((x, y - height / 2), width * 0.9, height, fill=False,
                                      hatch=hatch, linewidth=0.5, edgecolor=style.PALETTE[colour]))
        self.axis.text(x + width * 0.45, y, str(block.channels), rotation=90, ha="center",
                       va="center", fontsize=5,
                       bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.4})
        for k, name in enumerate(n for n in MARKS if n in block.takes):
            self.axis.plot(x + width * 0.45, y + height / 2 + 0.08 + 0.1 * k, MARKS[name][0],
                           color="black", markersize=2.2)

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "linewidth": 0.7,
                                                       "color": "black",
                                                       "shrinkA": 0, "shrinkB": 0,
                                                       "mutation_scale": 6})

    def note(self, x: float, y: float, text: str, **how) -> None:
        self.axis.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": 6, **how})


def _skips(sheet: _Sheet, placed: list[tuple[float, Block]]) -> None:
    """What each output stage takes from its input stage, last first: lines between them."""
    ends = {b.stage: x for x, b in placed if b.half == "input"}
    starts: dict[int, tuple[float, Block]] = {}
    for x, b in placed:
        if b.half == "output":
            starts.setdefault(b.stage, (x, b))
    for stage, (x, block) in starts.items():
        source = max(ends) - stage
        y = sheet.level(next(b.size for _, b in placed if b.half == "input" and b.stage
                             == source)) - 0.36 - 0.05 * (stage % 3)
        sheet.axis.plot([ends[source] + 0.4, x + 0.4], [y, y], color=style.GREY, linewidth=0.45,
                        linestyle=(0, (3, 2)), zorder=0)


def _span(placed: list[tuple[float, Block]]) -> float:
    """Length of a row of blocks."""
    return placed[-1][0] + 1 - placed[0][0]


def _million(number: int) -> str:
    return f"{number / 1e6:.2f} M"


def _inputs(sheet: _Sheet, config: IdfsrConfig, placed: list[tuple[float, Block]]) -> None:
    """What enters at the left and leaves at the right."""
    unet, span, last = config.unet, _span(placed), placed[-1][0]
    entering = {"masked": "$x_t$ (3) and $I_M$ (3),\nconcatenated", "lr": "$x_t$ (3) and $I_L$ (3)",
                "none": "$x_t$ (3)"}
    fold = f"\nfolded {unet.patch}×{unet.patch}" if unet.patch > 1 else ""
    sheet.note(-0.115 * span, 0,
               f"{entering[config.condition]}\n{unet.image_size}×{unet.image_size}{fold}")
    sheet.arrow((-0.04 * span, 0), (-0.004 * span, 0))
    sheet.arrow((last + 1, 0), (last + 1 + 0.035 * span, 0))
    predicted = {"eps": r"$\epsilon$", "v": "$v$"}[config.parameterisation]
    sheet.note(last + 1 + 0.085 * span, 0, f"{predicted} (3)\n{unet.image_size}×{unet.image_size}")
    sheet.axis.set_xlim(-0.2 * span, last + 1 + 0.14 * span)


def _levels(sheet: _Sheet, placed: list[tuple[float, Block]]) -> float:
    """The side of each level between the halves; returns the lowest level."""
    deepest = min(b.size for _, b in placed)
    inner = [x for x, b in placed if b.half == "middle"]
    for size in sorted({b.size for _, b in placed}, reverse=True):
        if size > deepest:
            sheet.note((inner[0] + inner[-1] + 0.9) / 2, sheet.level(size), f"{size}×{size}")
    sheet.note((inner[0] + inner[-1] + 0.9) / 2, sheet.level(deepest) - 0.62,
               f"{deepest}×{deepest}")
    return sheet.level(deepest)


def _encoder(sheet: _Sheet, blocks: list[Block], config: IdfsrConfig, y: float, span: float,
             counts: tuple[int, int]) -> None:
    """The style encoder as a row of its own, and E_id beside it; `span` is the length of the row
    above."""
    sheet.note(-0.115 * span, y, "$I_W$ (3)\nwarped reference")
    sheet.arrow((-0.04 * span, y), (-0.004 * span, y))
    step = min(1.0, 0.56 * span / (len(blocks) + 0.35 * len({b.stage for b in blocks})))
    placed, last = _columns(blocks, 0, step), None
    for x, block in placed:
        sheet.block(x, step, block, y)
        if block.size != last:
            sheet.note(x, y - 0.47, f"{block.size}²", ha="left", fontsize=5.5)
            last = block.size
    end = placed[-1][0] + step
    sheet.arrow((end, y), (end + 0.03 * span, y))
    sheet.note(end + 0.04 * span, y, f"$z_s$ ({config.unet.style_channels}) ▲", ha="left",
               fontsize=7)
    # Words and formulas stand in texts of their own: a formula's letters are single marks in an
    # SVG, which no search finds.
    sheet.note(0, y + 0.52, f"Style encoder, {_million(counts[0])}", ha="left", fontsize=6.5)
    x = end + 0.17 * span
    tokens = f" as {config.unet.id_tokens} tokens" if config.unet.id_project else ""
    encoder = f"Identity encoder, frozen, {_million(counts[1])}, of the reference →"
    for k, line in enumerate((encoder, f"$z_{{id}}$ ({config.unet.id_channels}){tokens} ◆",
                              "which alone is trained in fitting")):
        sheet.note(x, y + 0.3 - 0.3 * k, line, ha="left", fontsize=6.5)


def _legend(axis, blocks: list[Block]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    used = [kind for kind in KINDS if any(b.kind == kind for b in blocks)]
    handles = [Patch(facecolor=(*_rgb(KINDS[k][0]), 0.28), edgecolor=style.PALETTE[KINDS[k][0]],
                     hatch=KINDS[k][1], label=k, linewidth=0.5) for k in used]
    handles += [Line2D([], [], color="black", marker=mark, linestyle="", markersize=3,
                       label=f"takes {label}")
                for name, (mark, label) in MARKS.items() if any(name in b.takes for b in blocks)]
    handles.append(Line2D([], [], color=style.GREY, linewidth=0.6, linestyle=(0, (3, 2)),
                          label="skip, concatenated"))
    axis.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5,
                handlelength=1.6, columnspacing=1.1)


def _rgb(index: int) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(style.PALETTE[index])


@figure(2, "Architecture")
def architecture(context: Context) -> Drawing:
    """The noise predictor as a U, the style encoder and E_id below it."""
    method = IdfsrPt(context.options.profile)
    config = method.config
    blocks, parts = trace(config)
    with torch.device("meta"):
        identity = count(method.parts["E_id"].build())
    own, encoder = [b for b in blocks if b.half != "encoder"], [b for b in blocks if b.half
                                                                == "encoder"]
    rest = [name for name in parts if name in ("time_embed", "id_proj", "out")]
    total, style_count = sum(parts.values()), parts["encoder"] + parts["encoder.out"]
    canvas = style.canvas(style.TWO_COLUMNS, 1.9 + 0.42 * len({b.size for b in own}))
    axis = canvas.subplots()
    axis.set_axis_off()
    sheet, placed = _Sheet(axis, max(b.size for b in own)), _columns(own, 0, 1)
    _skips(sheet, placed)
    for x, block in placed:
        sheet.block(x, 1, block)
    _inputs(sheet, config, placed)
    lowest = _levels(sheet, placed)
    _encoder(sheet, encoder, config, lowest - 1.6, _span(placed), (style_count, identity))
    axis.set_ylim(lowest - 2.2, 0.68)
    _legend(axis, own + encoder)
    name = context.options.profile.name
    style.foot(canvas,
               f"{name} configuration, {config.unet.image_size} px · {total:,} parameters in U-Net "
               "and style encoder · numbers in blocks: channels")
    rows = [{"path": b.path, "half": b.half, "stage": b.stage if b.stage < 10**6 else "middle",
             "kind": b.kind,
             "channels": b.channels, "size": b.size, "parameters": b.parameters,
             "takes": " ".join(sorted(b.takes))}
            for b in blocks] + [{"path": k, "half": "part", "parameters": v}
                                for k, v in parts.items()]
    halves = ", ".join(f"{_million(parts[half])} {where}" for half, where in (
        ("input", "on the way down"), ("middle", "in the middle"), ("output", "on the way up")))
    return Drawing(canvas, (
        f"Drawn from the modules of the {name} configuration as one call goes through them: n = "
        f"{len(blocks)} blocks, each "
        "with the channels that leave it, at the height of its resolution. The noise predictor has "
        f"{_million(total - style_count)} parameters ({halves}, the rest in {', '.join(rest)}), "
        f"the style encoder "
        f"{_million(style_count)}: together {total:,} ({total / 2**20:.2f} x 2^20); the identity "
        f"encoder, frozen, "
        f"{_million(identity)}. Marks on a block say what it takes: t scales and shifts behind the "
        f"group norm, z_s scales on "
        "top, z_id gives keys and values. "
        f"Protocol: profile {name}; parameters are counted, no data are used."), rows)
