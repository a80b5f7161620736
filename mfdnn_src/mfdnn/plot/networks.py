"""Drawings of networks, computed from the networks themselves."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod, sqrt
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon
from matplotlib.textpath import TextPath
from torch import nn

from mfdnn.plot.style import COLORS, whole_pixels
from mfdnn.trace import Call, trace

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LINE = 7.5 / 72  # inches from a text to what it names
KINDS = {
    "input": "#888888",
    "conv": COLORS[0],
    "pool": COLORS[1],
    "flatten": COLORS[6],
    "linear": COLORS[2],
    "other": COLORS[3],
}
NAMES = {
    "AdaptiveAvgPool": "adaptive average pool",
    "AdaptiveMaxPool": "adaptive max pool",
    "AvgPool": "average pool",
    "BatchNorm": "batch norm",
    "Dropout": "dropout",
    "LocalResponseNorm": "LRN",
    "MaxPool": "max pool",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
}
TIMES = "\N{MULTIPLICATION SIGN}"
WIDTH = 6.4  # inches
MARGIN = 0.06  # inches
PER_ROW = 14  # blocks a row, at most
TALLEST = 1.1  # inches
MOST_NEURONS = 7  # circles a column, at most


@dataclass
class Block:
    """One box of the drawing: a tensor, and the layers that made it."""

    kind: str
    labels: list[str]
    shape: tuple[int, ...]


def architecture(
    model: nn.Module, shape: Sequence[int], whole: tuple[type[nn.Module], ...] = ()
) -> Figure:
    """Draw a network as the row of tensors that it computes, 6.4 inches wide.

    The network runs on a zero input; a box stands for what a convolution, pooling,
    flattening or linear layer (or any other that changes the shape) really
    returned, with its shape below. The layer is named above, followed by the
    activations, normalisations and the like that come after it. Depth into the
    row grows with the channels, height and slant with the spatial size, the height
    of a bar with the length of a vector; all as square roots, relative to the
    largest in the drawing. Long networks continue in further rows.

    The boxes are in the order of execution: branches and skip connections are not
    shown (`graph` does), nor operations that are not modules.

    Args:
        model: the network.
        shape: the shape of one example, for instance (1, 28, 28).
        whole: classes of modules to draw as one box, submodules and all, for
            instance a residual block.

    Returns:
        the figure.

    Raises:
        ValueError: if no layer of the network is a module.

    In the manner of the figures of lecture topic 3.12.
    """
    blocks = _blocks(trace(model, shape, whole), tuple(shape), whole)
    if len(blocks) == 1:
        raise ValueError("no layer to draw: none of the network's layers is a module")
    reach = max(_reach(block) for block in blocks)  # of a slanted label, up and right
    row = 0.4 + TALLEST + reach + 2 * LINE
    rows = -(-len(blocks) // PER_ROW)
    per_row, slot = _slots(blocks, rows)
    wide = [_width(_shape(block)) for block in blocks]
    while per_row > 1 and slot < max(a + b for a, b in pairwise(wide)) / 2:
        rows += 1
        per_row, slot = _slots(blocks, rows)
    tall = whole_pixels(rows * row)
    figure = plt.figure(figsize=(WIDTH, tall), layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, tall), aspect="equal")
    ax.axis("off")
    right = max((n % per_row + 0.5) * slot + _reach(b) for n, b in enumerate(blocks))
    left = max(MARGIN, (WIDTH - max(right, per_row * slot)) / 2)
    for n, block in enumerate(blocks):
        x = left + (n % per_row + 0.5) * slot
        y = (rows - 1 - n // per_row) * row + 0.4 + TALLEST / 2
        _draw(ax, block, _size(block, blocks), (x, y), slot)
    return figure


def _slots(blocks: Sequence[Block], rows: int) -> tuple[int, float]:
    """How many blocks stand in a row, and how much of its width each has, in inches."""
    per_row = -(-len(blocks) // rows)
    ends = [
        (WIDTH - MARGIN - _reach(b)) / (n % per_row + 0.5) for n, b in enumerate(blocks)
    ]
    return per_row, min(0.95, (WIDTH - MARGIN) / per_row, *ends)


def _blocks(
    calls: Sequence[Call], shape: tuple[int, ...], whole: tuple[type[nn.Module], ...]
) -> list[Block]:
    blocks = [Block("input", ["input"], shape)]
    for call in calls:
        kind, label = describe(call)
        boxed = kind in ("conv", "pool", "linear") or isinstance(call.module, whole)
        if boxed or call.input != call.output:
            blocks.append(Block(kind, [label], call.output))
        elif kind == "other" and not isinstance(call.module, nn.Identity):
            blocks[-1].labels.append(label)
    return blocks


def describe(call: Call) -> tuple[str, str]:
    """Name a layer for a drawing.

    Args:
        call: one call of it.

    Returns:
        its kind, one of KINDS, and what the drawing calls it.
    """
    layer, spatial = call.module, call.output[1:]
    if isinstance(layer, nn.Linear):
        return "linear", "linear"
    if isinstance(layer, nn.Flatten):
        return "flatten", "flatten"
    if isinstance(layer, CONVOLUTIONS):
        return "conv", "conv" + _window(layer.kernel_size, layer.stride, 1)
    if isinstance(layer, TRANSPOSED):
        return "conv", "transposed conv" + _window(layer.kernel_size, layer.stride, 1)
    name = re.sub(r"[123]d$", "", type(layer).__name__)
    label = NAMES.get(name, name)
    if name.startswith("Adaptive") and prod(spatial) == 1:
        return "pool", label.replace("adaptive", "global")
    if label.endswith(("max pool", "average pool")):
        kernel = getattr(layer, "kernel_size", None)
        if isinstance(kernel, int):
            kernel = (kernel,) * len(spatial)
        stride = getattr(layer, "stride", None)
        return "pool", label + (_window(kernel, stride, kernel[0]) if kernel else "")
    return "other", label


def _window(kernel: tuple[int, ...], stride: object, usual: int) -> str:
    """Kernel size and, where it is not the usual one, the stride."""
    text = " " + TIMES.join(map(str, kernel))
    strides = stride if isinstance(stride, tuple) else (stride,)
    return text if set(strides) == {usual} else f"{text} stride {strides[0]}"


def _size(block: Block, blocks: Sequence[Block]) -> tuple[float, float, float]:
    """Channels, height and width relative to the largest ones, as square roots."""

    def relative(part: str) -> float:
        largest = max(_extent(b).get(part, 1) for b in blocks)
        least = 16 if part == "channels" else 1  # few channels are always thin
        return sqrt(_extent(block)[part] / max(largest, least))

    if "length" in _extent(block):
        return 0.0, relative("length"), 0.0
    return relative("channels"), relative("height"), relative("width")


def _extent(block: Block) -> dict[str, int]:
    shape = block.shape
    if len(shape) < 2:
        return {"length": prod(shape)}
    height, width = shape[-2:] if len(shape) > 2 else (shape[-1], 1)
    return {"channels": shape[0], "height": height, "width": width}


def _lines(block: Block) -> str:
    first, *rest = block.labels
    return f"{first}\n{', '.join(rest)}" if rest else first


def _shape(block: Block) -> str:
    first, *rest = map(str, block.shape)
    return f"{first}{TIMES}\n{TIMES.join(rest)}" if rest else first


def _width(text: str) -> float:
    """The width of a label's longest line, in inches."""
    paths = [TextPath((0, 0), line, size=8) for line in text.split("\n")]
    return max(float(path.get_extents().width) for path in paths) / 72


def _reach(block: Block) -> float:
    """How far the slanted label reaches up and to the right, in inches."""
    return _width(_lines(block)) * sqrt(0.5) + 2 * LINE


def _draw(
    ax: Axes,
    block: Block,
    size: tuple[float, float, float],
    middle: tuple[float, float],
    slot: float,
) -> None:
    """Draw one box, an arrow to it, and what is written above and below it."""
    channels, height, width = size
    x, y = middle
    most = 0.33 * slot  # the widest front and the deepest slant
    slant = most * width
    thick = max(0.04, most * channels) if channels else 0.36 * most
    tall = max(0.05, (TALLEST - (most if channels else 0)) * height)
    left, low = x - (thick + slant) / 2, y - (tall + slant) / 2
    for name, corners, white in _faces(left, low, thick, tall, slant):
        tint = [white + (1 - white) * c for c in to_rgb(KINDS[block.kind])]
        ax.add_patch(Polygon(corners, fc=tint, ec="black", lw=0.6, gid=name))
    if block.kind != "input":
        arrow = {"arrowstyle": "->", "color": "#666666", "linewidth": 0.8}
        tail = (x - 0.5 * slot - 0.05, y)
        ax.annotate("", (left - 0.02, y), tail, arrowprops=arrow)
    above, below = y + TALLEST / 2 + LINE, y - TALLEST / 2 - LINE / 2
    slanted: dict[str, Any] = {"rotation": 45, "rotation_mode": "anchor"}
    ax.text(x, above, _lines(block), size=8, va="center", linespacing=1.25, **slanted)
    ax.text(x, below, _shape(block), size=8, ha="center", va="top", linespacing=1.1)


def _faces(
    left: float, low: float, thick: float, tall: float, slant: float
) -> list[tuple[str, list[tuple[float, float]], float]]:
    """The visible faces of a box: name, corners, and how much white to mix in."""
    right, high = left + thick, low + tall
    front = [(left, low), (right, low), (right, high), (left, high)]
    if not slant:
        return [("front", front, 0.2)]
    back_left, back_right, up = left + slant, right + slant, high + slant
    side = [(right, low), (back_right, low + slant), (back_right, up), (right, high)]
    top = [(left, high), (right, high), (back_right, up), (back_left, up)]
    return [("front", front, 0.2), ("side", side, 0.45), ("top", top, 0.7)]


@dataclass
class Column:
    """The numbers between two layers."""

    size: int
    names: list[str] = field(default_factory=list)

    def places(self) -> list[float | None]:
        """Heights of the circles, from the top; None stands for those left out."""
        shown = min(self.size, MOST_NEURONS)
        heights: list[float | None] = [(shown - 1) / 2 - i for i in range(shown)]
        if self.size > MOST_NEURONS:
            heights[MOST_NEURONS // 2] = None
        return heights


def neurons(model: nn.Module, shape: Sequence[int]) -> Figure:
    """Draw a multilayer perceptron as columns of neurons, 6.4 inches wide.

    A circle is one number that the network computes, a line one entry of a weight
    matrix; biases are not drawn. Of a column with more than seven numbers only the
    first and last three are drawn, with dots between them. Below each column
    stands how many numbers it has, above it what was applied to them after the
    linear layer.

    Args:
        model: a network whose layers are linear layers, activations and flattenings.
        shape: the shape of one example, for instance (1, 28, 28).

    Returns:
        the figure.

    Raises:
        ValueError: if there is no linear layer, or a layer of another kind changes
            the shape.

    In the manner of the figures of lecture topic 2.30.
    """
    columns = _columns(model, shape)
    step, radius = 0.31, 0.105
    tall = 0.9 + step * max(len(column.places()) - 1 for column in columns)
    tall = whole_pixels(tall)
    figure = plt.figure(figsize=(WIDTH, tall), layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, tall), aspect="equal")
    ax.axis("off")
    gap = min(1.6, (WIDTH - 1.2) / max(len(columns) - 1, 1))
    left = (WIDTH - gap * (len(columns) - 1)) / 2
    points = [
        [
            (left + n * gap, tall / 2 + step * height)
            for height in column.places()
            if height is not None
        ]
        for n, column in enumerate(columns)
    ]
    for here, there in pairwise(points):
        for x, y in here:
            for u, v in there:
                ax.plot([x, u], [y, v], color="#999999", lw=0.5, zorder=1)
    for n, column in enumerate(columns):
        color = KINDS["linear" if n else "input"]
        for place in points[n]:
            circle = Circle(place, radius, fc=color, ec="black", lw=0.6, zorder=2)
            ax.add_patch(circle)
        x = left + n * gap
        if column.size > MOST_NEURONS:
            dots = "\N{VERTICAL ELLIPSIS}"
            ax.text(x, tall / 2, dots, ha="center", va="center", size=13)
        ax.text(x, 0.12, f"{column.size:,}", ha="center", va="bottom", size=9)
        name = "\n".join(column.names)
        ax.text(x, tall - 0.12, name, ha="center", va="top", size=9)
    return figure


def _columns(model: nn.Module, shape: Sequence[int]) -> list[Column]:
    columns: list[Column] = []
    for call in trace(model, shape):
        layer = call.module
        if isinstance(layer, nn.Linear):
            if not columns:
                columns.append(Column(layer.in_features, ["input"]))
            columns.append(Column(layer.out_features))
        elif isinstance(layer, nn.Flatten):
            continue
        elif call.input != call.output:
            raise ValueError(f"{type(layer).__name__} is not a layer of a perceptron")
        elif columns and not isinstance(layer, nn.Identity):
            name = type(layer).__name__
            columns[-1].names.append(NAMES.get(name, name))
    if not columns:
        raise ValueError("no linear layer to draw")
    if not columns[-1].names:
        columns[-1].names.append("output")
    return columns
