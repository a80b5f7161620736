"""What every page of the book does before its first line of mathematics."""

import warnings

import torch

from mfdnn import plot


def setup_page() -> None:
    """Make a page's outputs repeatable and its figures legible.

    Runs torch on one thread, because sums over several threads add in another
    order and so round differently, and selects the book's figure style.

    """
    torch.set_num_threads(1)
    # Matplotlib says so when the clock does: on a busy machine only.
    warnings.filterwarnings("ignore", 'Creating legend with loc="best"')
    plot.use_style()
