"""The book's figure style, and drawings that more than one page needs."""

from mfdnn.plot.densities import density, sample_density
from mfdnn.plot.graphs import graph
from mfdnn.plot.lines import confusion_matrix, contours, learning_curves, path
from mfdnn.plot.networks import architecture, neurons
from mfdnn.plot.pictures import ANY_GROUND, image_grid, on_any_ground
from mfdnn.plot.sliders import slider
from mfdnn.plot.style import COLORS, STYLE, use_style, whole_pixels

__all__ = [
    "ANY_GROUND",
    "COLORS",
    "STYLE",
    "architecture",
    "confusion_matrix",
    "contours",
    "density",
    "graph",
    "image_grid",
    "learning_curves",
    "neurons",
    "on_any_ground",
    "path",
    "sample_density",
    "slider",
    "use_style",
    "whole_pixels",
]
