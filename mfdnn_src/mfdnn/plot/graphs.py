"""Drawings of networks with branches and skips, from the networks themselves."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor, fx, nn

from mfdnn.plot.networks import KINDS, TIMES, describe
from mfdnn.plot.style import whole_pixels
from mfdnn.trace import Call, run_on_zeros

ROW = 0.68  # inches from a box to the next one below
BOX = (1.44, 0.5)  # inches
LANE = 1.56  # inches from a branch to the next
WIDTH = 6.4  # inches
MARGIN = 0.12  # inches
MERGES = {
    operator.add: "+",
    operator.iadd: "+",
    torch.add: "+",
    torch.cat: "concatenate",
    operator.mul: TIMES,
    torch.mul: TIMES,
}


@dataclass
class Node:
    """A tensor of the network, and the layers that made it."""

    labels: list[str]
    kind: str
    shape: tuple[int, ...]
    sources: list[int] = field(default_factory=list)  # positions of the nodes it reads
    row: int = 0
    lane: float = 0.0


class _Tracer(fx.Tracer):
    """Looks into the network's own classes, not into torch's layers."""

    def __init__(self, whole: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self.whole = whole

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one box."""
        own = super().is_leaf_module(m, module_qualified_name)
        return own or isinstance(m, self.whole)


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shape of every tensor, without the batch."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n] = tuple(value.shape[1:])
        return value


class _Run(nn.Module):
    """A network whose run is a run of the interpreter."""

    def __init__(self, model: nn.Module, shapes: _Shapes) -> None:
        super().__init__()
        self.model, self.shapes = model, shapes

    def forward(self, x: Tensor) -> object:
        """Run node by node."""
        return self.shapes.run(x)


def graph(
    model: nn.Module, shape: Sequence[int], whole: tuple[type[nn.Module], ...] = ()
) -> Figure:
    """Draw a network with its branches and skips, from the top down, 6.4 inches wide.

    A box is a tensor: the layer that makes it, with the activations and
    normalisations that follow, and its shape. Parallel branches stand side by side;
    an arrow that would cross other boxes runs around them. Sums, products and
    concatenations are boxes of their own. For long chains without branches see
    `architecture`.

    Args:
        model: the network, or one block of it. What ``forward`` does must not depend
            on the values of tensors (torch.fx follows it).
        shape: the shape of one example, for instance (64, 28, 28).
        whole: classes of modules to draw as one box, for instance a residual block.

    Returns:
        the figure.

    Raises:
        ValueError: if torch.fx cannot follow the network, or it has more than four
            branches side by side.
    """
    nodes = _nodes(model, shape, whole)
    _place(nodes)
    lanes = 1 + max(node.lane for node in nodes)
    if lanes > 4:
        raise ValueError("more than four branches side by side do not fit")
    rows = 1 + max(node.row for node in nodes)
    tall = whole_pixels(rows * ROW - (ROW - BOX[1]) + 2 * MARGIN)
    figure = plt.figure(figsize=(WIDTH, tall), layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, tall), aspect="equal")
    ax.axis("off")
    left = (WIDTH - (lanes - 1) * LANE) / 2
    places = []
    for node in nodes:
        x = left + node.lane * LANE
        places.append((x, tall - MARGIN - BOX[1] / 2 - node.row * ROW))
    passing = 0
    for end, node in enumerate(nodes):
        for start in node.sources:
            around = _blocked(nodes, start, end)
            passing += around
            _arrow(ax, places[start], places[end], passing if around else 0)
    for node, place in zip(nodes, places, strict=True):
        _box(ax, node, place)
    return figure


def _nodes(
    model: nn.Module, shape: Sequence[int], whole: tuple[type[nn.Module], ...]
) -> list[Node]:
    """The tensors of a network in the order of execution."""
    try:
        traced = fx.GraphModule(model, _Tracer(whole).trace(model))
    except Exception as error:  # whatever the network's code raises on symbols
        raise ValueError(f"torch.fx cannot follow this network: {error}") from error
    shapes = _Shapes(traced)
    run_on_zeros(_Run(traced, shapes), shape)
    nodes: list[Node] = []
    position: dict[fx.Node, int] = {}
    modules = dict(traced.named_modules())
    for step in traced.graph.nodes:
        if step not in shapes.shapes or step.op in ("output", "get_attr"):
            continue
        before = [p for p in step.all_input_nodes if p in position]
        sources = list(dict.fromkeys(position[p] for p in before))
        labels, kind = _label(step, modules, shapes.shapes)
        if not labels:  # an identity: what reads it reads what it reads
            position[step] = sources[0]
            continue
        alone = len(before) == 1 and len(before[0].users) == 1
        same = alone and shapes.shapes[before[0]] == shapes.shapes[step]
        boxed = kind != "other" or not same
        boxed |= step.op == "call_module" and isinstance(modules[step.target], whole)
        if nodes and same and not boxed:
            nodes[sources[0]].labels += labels
            position[step] = sources[0]
            continue
        position[step] = len(nodes)
        nodes.append(Node(labels, kind, shapes.shapes[step], sources))
    return nodes


def _label(
    step: fx.Node, modules: dict[str, nn.Module], shapes: dict[fx.Node, tuple[int, ...]]
) -> tuple[list[str], str]:
    """What the drawing calls a step, and its kind; nothing for what does nothing."""
    if step.op == "placeholder":
        return ["input"], "input"
    if step.op == "call_module":
        module = modules[str(step.target)]
        if isinstance(module, nn.Identity):
            return [], "other"
        given = shapes.get(step.all_input_nodes[0], ())
        kind, label = describe(Call("", module, given, shapes[step]))
        return [label], kind
    if step.target in MERGES and len(step.all_input_nodes) > 1:
        return [MERGES[step.target]], "merge"
    name = step.target if isinstance(step.target, str) else step.target.__name__
    kind = "flatten" if name == "flatten" else "other"
    return [name.replace("_", " ").strip()], kind


def _place(nodes: Sequence[Node]) -> None:
    """Give each node its row, below all that it reads, and a lane from 0 on.

    Branches stand symmetrically below what they read, a merge in their middle.
    """
    alone = [[s for s in node.sources if len(node.sources) == 1] for node in nodes]
    taken: set[tuple[int, float]] = set()
    for number, node in enumerate(nodes):
        node.row = 1 + max((nodes[s].row for s in node.sources), default=-1)
        lanes = [nodes[s].lane for s in node.sources] or [0.0]
        node.lane = sum(lanes) / len(lanes)
        if alone[number]:
            branches = [n for n, source in enumerate(alone) if source == alone[number]]
            node.lane += branches.index(number) - (len(branches) - 1) / 2
        while any((node.row, node.lane + d) in taken for d in (-0.5, 0, 0.5)):
            node.lane += 0.5
        taken.add((node.row, node.lane))
    first = min(node.lane for node in nodes)
    for node in nodes:
        node.lane -= first


def _blocked(nodes: Sequence[Node], start: int, end: int) -> bool:
    """Whether the way down from a node to the row of another leads through a third."""
    between = range(nodes[start].row + 1, nodes[end].row)
    lane = nodes[start].lane
    return any(node.row in between and abs(node.lane - lane) < 1 for node in nodes)


def _arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], passing: int
) -> None:
    """Draw an arrow, down its lane and then across, or around the boxes in between."""
    style: dict[str, Any] = {
        "arrowstyle": "-|>",
        "mutation_scale": 8,
        "color": "#666666",
        "linewidth": 1.0,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    if passing:
        reach = 0.25 + 0.12 * ((passing - 1) % 4)
        right = max(start[0], end[0]) + BOX[0] / 2 + reach
        way = [(start[0] + BOX[0] / 2, start[1]), (right, start[1]), (right, end[1])]
        tip = (end[0] + BOX[0] / 2, end[1])
    else:
        tip = (end[0], end[1] + BOX[1] / 2)
        way = [(start[0], start[1] - BOX[1] / 2), (start[0], tip[1] + ROW - BOX[1])]
    xs, ys = zip(*way, strict=True)
    ax.plot(xs, ys, color=style["color"], lw=style["linewidth"], gid="way")
    ax.add_patch(FancyArrowPatch(way[-1], tip, gid="arrow", **style))


def _box(ax: Axes, node: Node, middle: tuple[float, float]) -> None:
    """Draw a box with its two lines."""
    x, y = middle
    tint = [0.3 + 0.7 * c for c in to_rgb(KINDS.get(node.kind, "#888888"))]
    light = [0.6 + 0.4 * c for c in tint]
    corner = (x - BOX[0] / 2, y - BOX[1] / 2)
    shape: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.06"}
    ax.add_patch(FancyBboxPatch(corner, *BOX, fc=light, ec=tint, lw=1.0, **shape))
    first, *rest = node.labels
    name, _, stride = first.partition(" stride ")
    rest = [f"stride {stride}", *rest] if stride else rest
    lines = [name, ", ".join(rest), TIMES.join(map(str, node.shape))]
    lines = [line for line in lines if line]
    for number, line in enumerate(lines):
        height = y + 0.14 * ((len(lines) - 1) / 2 - number)
        color = "#444444" if line is lines[-1] else "black"
        ax.text(x, height, line, size=7, ha="center", va="center", color=color)
