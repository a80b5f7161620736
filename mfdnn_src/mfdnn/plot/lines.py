"""Level lines, paths, learning curves and counts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.contour import QuadContourSet
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from mfdnn.plot.style import COLORS


def contours(
    ax: Axes,
    f: Callable[[Tensor], Tensor],
    xlim: tuple[float, float],
    ylim: tuple[float, float],
    levels: int | Sequence[float] = 20,
) -> QuadContourSet:
    """Draw the level lines of a function of two variables.

    Args:
        ax: the axes to draw on; their labels become the coordinates' names.
        f: maps points of shape (..., 2) to values of shape (...).
        xlim: range of the first coordinate.
        ylim: range of the second coordinate.
        levels: how many level lines, or their values in increasing order.

    Returns:
        matplotlib's contour set.

    Source: standard; see any text on optimization, for instance the lecture's
    topic 1.12.
    """
    u = torch.linspace(*xlim, 201)
    v = torch.linspace(*ylim, 201)
    grid = torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)  # (201, 201, 2)
    drawn = ax.contour(u, v, f(grid), levels, cmap="Greys_r", linewidths=0.8, alpha=0.7)
    ax.set_xlabel(r"$\theta_1$")
    ax.set_ylabel(r"$\theta_2$")
    ax.grid(False)
    return drawn


def path(ax: Axes, iterates: Tensor, color: str = COLORS[0], **style: object) -> Line2D:
    """Draw the iterates of a method on top of level lines.

    Args:
        ax: the axes to draw on.
        iterates: points theta^0, ..., theta^K, shape (K + 1, 2).
        color: colour of line and dots.
        style: further properties of the line, for instance ``label``.

    Returns:
        the line drawn.

    Raises:
        ValueError: if the iterates are not points of the plane.
    """
    if iterates.ndim != 2 or iterates.shape[1] != 2:
        raise ValueError(f"iterates have shape {tuple(iterates.shape)}, not (K + 1, 2)")
    options: dict[str, object] = {"marker": "o", "markersize": 3, "linewidth": 1.2}
    u, v = iterates.T
    return ax.plot(u, v, color=color, **(options | style))[0]  # type: ignore[arg-type]


def learning_curves(ax: Axes, curves: Mapping[str, Tensor], ylabel: str) -> Axes:
    """Draw what happened over the epochs, with a band over the seeds.

    Each curve carries its name at its end. Choose a logarithmic axis before, not
    after, so that names that would overlap are moved apart.

    Args:
        ax: the axes to draw on.
        curves: by name, for instance "train" and "test", the value after each
            epoch 1, ..., E, shape (E,); or of S runs with different seeds, shape
            (S, E): then the line is the mean and the band reaches from the
            smallest to the largest.
        ylabel: what the values are, with their unit.

    Returns:
        the axes.

    Raises:
        ValueError: if there is no curve, or one has another shape or no epoch.
    """
    if not curves:
        raise ValueError("no curve to draw")
    lines = {}
    for name, values in curves.items():
        if values.ndim not in (1, 2) or values.numel() == 0:
            shape = tuple(values.shape)
            raise ValueError(f"curve {name!r} has shape {shape}, not (E,) or (S, E)")
        runs = values.detach().cpu().double().reshape(-1, values.shape[-1])  # (S, E)
        epochs = torch.arange(1, runs.shape[1] + 1)
        marker = "o" if len(epochs) == 1 else ""
        (lines[name],) = ax.plot(epochs, runs.mean(dim=0), marker=marker, label=name)
        if len(runs) > 1:
            low, high = runs.aminmax(dim=0)
            color = lines[name].get_color()
            ax.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)
    ax.set_xlabel("epoch")
    ax.set_ylabel(ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _name_at_the_end(ax, lines)
    return ax


def _name_at_the_end(ax: Axes, lines: Mapping[str, Line2D]) -> None:
    """Write each line's name right of its last finite point, without overlaps."""
    ax.get_ylim()  # makes matplotlib choose the limits now
    figure = ax.get_figure(root=True)
    assert figure is not None
    ends = []
    for name, line in lines.items():
        points = torch.tensor(line.get_xydata())
        finite = points[points.isfinite().all(dim=1)]
        if len(finite):
            pixels = ax.transData.transform(tuple(finite[-1].tolist()))
            height = 72 * pixels[1] / figure.dpi
            dark = tuple(0.6 * c for c in to_rgb(line.get_color()))  # legible as text
            ends.append((height, name, finite[-1].tolist(), dark))
    free = float("-inf")
    for height, name, point, color in sorted(ends):
        raised = max(height, free) - height
        free = height + raised + 13  # points, a line of text
        ax.annotate(
            name,
            (point[0], point[1]),
            xytext=(6, raised),
            textcoords="offset points",
            color=color,
            va="center",
            annotation_clip=False,
        )


def confusion_matrix(ax: Axes, counts: Tensor, classes: Sequence[str]) -> Axes:
    """Draw how often each class was taken for each class.

    A cell's number is its count; its colour is the share of its row, so that rare
    classes look as dark as frequent ones. The colours are light enough for black
    numbers, also when the site inverts them.

    Args:
        ax: the axes to draw on; ten classes need about 6.4 by 5 inches.
        counts: rows are true and columns predicted classes, shape (C, C), as from
            ``mfdnn.measure.confusion``.
        classes: the names of the C classes.

    Returns:
        the axes.

    Raises:
        ValueError: if the counts are not a square matrix with a name a row.
    """
    C = len(classes)
    if counts.shape != (C, C):
        raise ValueError(f"counts have shape {tuple(counts.shape)}, not ({C}, {C})")
    counts = counts.cpu()
    share = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    ax.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=2.2)
    for i, row in enumerate(counts.tolist()):
        for j, count in enumerate(row):
            size = 11 if C <= 5 else 8.5
            ax.text(j, i, str(count), size=size, ha="center", va="center")
    upright = all(len(name) <= 3 for name in classes)
    turn: dict[str, Any] = (
        {} if upright else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    )
    ax.set_xticks(range(C), labels=classes, **turn)
    ax.set_yticks(range(C), labels=classes)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    ax.grid(False)
    return ax
