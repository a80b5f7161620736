"""The book's figure style, and drawings that more than one page needs."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.lines import Line2D
from torch import Tensor

#: Colours that differ for colour-blind readers as well (Okabe and Ito, 2008).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#B8860B", "#56B4E9", "#444444")

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 12,
    "figure.constrained_layout.use": True,
    "figure.dpi": 160,
    "figure.figsize": (6.4, 3.8),
    "font.size": 11.5,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 2,
}


def use_style() -> None:
    """Select the book's figure style for the rest of the session.

    Figures are 6.4 by 3.8 inches unless the page says otherwise, on white: the
    site inverts them in dark mode. In a notebook the stored picture has exactly
    the figure's size. Source: the book's own convention.
    """
    mpl.rcParams.update(STYLE)
    if "matplotlib_inline" in mpl.get_backend():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png", bbox_inches=None)  # type: ignore[no-untyped-call]


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

    Source: the book's own convention.
    """
    if iterates.ndim != 2 or iterates.shape[1] != 2:
        raise ValueError(f"iterates have shape {tuple(iterates.shape)}, not (K + 1, 2)")
    options: dict[str, object] = {"marker": "o", "markersize": 3, "linewidth": 1.2}
    u, v = iterates.T
    return ax.plot(u, v, color=color, **(options | style))[0]  # type: ignore[arg-type]
