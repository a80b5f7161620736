"""Grids of images."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mfdnn.plot.style import whole_pixels

ANY_GROUND = "#767676"  # contrast 4.5 on white, 4.1 on the site's black


def image_grid(
    images: Tensor, titles: Sequence[str] | None = None, columns: int = 8
) -> Figure:
    """Draw images side by side, 6.4 inches wide, each with its title above.

    On a page, give the cell the class "photo" (``mystnb: image: {classes:
    photo}``): the site then leaves the picture as it is in dark mode, where it
    inverts drawings. Gaps are transparent and titles are in a grey that is legible
    on white and on black.

    Args:
        images: shape (N, C, H, W) with C = 1 (grey) or C = 3 (red, green, blue);
            uint8, or floating point in [0, 1] (values outside are clipped). Grey
            is never stretched: 0 is black and the largest value is white.
        titles: N short texts, or none.
        columns: how many images a row, at most.

    Returns:
        the figure. Its only axes hold the N images, row by row.

    Raises:
        ValueError: if the images have another shape or type, there are none, or
            the titles are not N.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        shape = tuple(images.shape)
        raise ValueError(f"images have shape {shape}, not (N, 1 or 3, H, W)")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"images are of {images.dtype}, not uint8 or floating point")
    N, C, H, W = images.shape
    if titles is not None and len(titles) != N:
        raise ValueError(f"{len(titles)} titles for {N} images")
    peak = 255 if images.dtype == torch.uint8 else 1
    pixels = (images.detach().cpu().float() / peak).clamp(0, 1)  # (N, C, H, W)
    pixels = pixels[:, 0] if C == 1 else pixels.movedim(1, -1)

    columns = min(columns, N)
    rows = -(-N // columns)
    side = 6.4 / columns  # inches of a cell; the image takes the cell less the gap
    gap, above = 0.06, 0.06 if titles is None else 0.24
    width, height = side - gap, (side - gap) * H / W
    tall = whole_pixels(rows * (height + above))
    figure = plt.figure(figsize=(6.4, tall), layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    for n, picture in enumerate(pixels):
        x = n % columns * side + gap / 2
        y = (n // columns + 1) * (height + above) - gap / 2  # the lower edge
        extent = (x, x + width, y, y - height)
        ax.imshow(picture.numpy(), "gray", vmin=0, vmax=1, extent=extent)
        if titles is not None:
            ax.text(
                x + width / 2,
                y - height - 0.04,
                titles[n],
                size=9,
                ha="center",
                color=ANY_GROUND,
            )
    ax.set(xlim=(0, 6.4), ylim=(tall, 0))
    ax.axis("off")
    return on_any_ground(figure)


def on_any_ground(figure: Figure) -> Figure:
    """Make a picture of photographs fit for light and dark pages.

    What is not a photograph becomes transparent; titles and labels turn grey. For
    figures of the class "photo" that ``image_grid`` does not draw.
    """
    figure.patch.set_alpha(0)
    for ax in figure.axes:
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
            text.set_color(ANY_GROUND)
        ax.tick_params(colors=ANY_GROUND)
    return figure
