"""Densities in the plane, from a formula and from samples."""

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor


def density(
    ax: Axes,
    log_prob: Callable[[Tensor], Tensor],
    xlim: tuple[float, float],
    ylim: tuple[float, float],
    vmax: float | None = None,
) -> Axes:
    """Draw a probability density of the plane as shades.

    Args:
        ax: the axes to draw on.
        log_prob: maps points of shape (M, 2), float32 on the CPU, to the natural
            logarithm of the density there, shape (M,).
        xlim: range of the first coordinate.
        ylim: range of the second coordinate.
        vmax: the density that is drawn darkest, the largest one if not given. Give
            two drawings the same value to compare them.

    Returns:
        the axes; the shades are densities, per unit of area.

    Raises:
        ValueError: if log_prob does not return one number a point.
    """
    x1, x2 = _middles(xlim, 200), _middles(ylim, 200)
    points = torch.stack(torch.meshgrid(x1, x2, indexing="xy"), dim=-1)  # (200, 200, 2)
    with torch.no_grad():
        values = log_prob(points.reshape(-1, 2)).cpu()
    if values.shape != (200 * 200,):
        raise ValueError(f"log_prob returned shape {tuple(values.shape)}, not (40000,)")
    return _shade(ax, values.double().exp().view(200, 200), (*xlim, *ylim), vmax)


def sample_density(
    ax: Axes,
    samples: Tensor,
    xlim: tuple[float, float],
    ylim: tuple[float, float],
    vmax: float | None = None,
) -> Axes:
    """Draw a histogram of points of the plane as shades.

    Args:
        ax: the axes to draw on.
        samples: shape (N, 2).
        xlim: range of the first coordinate.
        ylim: range of the second coordinate.
        vmax: the density that is drawn darkest, the largest one if not given. Give
            two drawings the same value to compare them.

    Returns:
        the axes; the shades of the 80 by 80 cells are shares of all N points
        (those outside the ranges too) per unit of area, comparable with
        ``density``.

    Raises:
        ValueError: if the samples are not points of the plane, or there are none.
    """
    if samples.ndim != 2 or samples.shape[1] != 2 or len(samples) == 0:
        raise ValueError(f"samples have shape {tuple(samples.shape)}, not (N, 2)")
    x1, x2 = samples.detach().cpu().double().numpy().T
    counts, *_ = np.histogram2d(x1, x2, bins=80, range=(xlim, ylim))  # (x_1, x_2)
    cell = (xlim[1] - xlim[0]) * (ylim[1] - ylim[0]) / 80**2
    shares = torch.from_numpy(counts.T) / (len(samples) * cell)
    return _shade(ax, shares, (*xlim, *ylim), vmax)


def _middles(limits: tuple[float, float], cells: int) -> Tensor:
    low, high = limits
    return low + (high - low) * (torch.arange(cells) + 0.5) / cells


def _shade(
    ax: Axes,
    values: Tensor,
    extent: tuple[float, float, float, float],
    vmax: float | None,
) -> Axes:
    ax.imshow(values.numpy(), "Blues", origin="lower", extent=extent, vmin=0, vmax=vmax)
    ax.set_xlabel("$x_1$")
    ax.set_ylabel("$x_2$")
    ax.grid(False)
    return ax
