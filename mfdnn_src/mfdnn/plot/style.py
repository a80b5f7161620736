"""The book's figure style."""

from typing import Any

import matplotlib as mpl
from cycler import cycler

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
    the figure's size.
    """
    mpl.rcParams.update(STYLE)
    if "matplotlib_inline" in mpl.get_backend():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png", bbox_inches=None)  # type: ignore[no-untyped-call]


def whole_pixels(inches: float) -> float:
    """The length nearest to ``inches`` that is a whole number of a figure's pixels.

    Sizes that are computed from fractions would otherwise differ by a pixel between
    machines.
    """
    dots: int = STYLE["figure.dpi"]
    return round(dots * inches) / dots
