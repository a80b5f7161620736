"""Microscopy images with a mask of the cells' nuclei."""

from pathlib import Path

import torch

from mfdnn.data.cache import data_root
from mfdnn.data.types import DataError, Examples, check_split

#: The list of each split's images.
LISTS = {"train": "train.txt", "test": "val.txt"}


def nuclei(split: str, root: str | Path | None = None) -> Examples:
    """334 microscopy images of 256x256 pixels with masks of the nuclei.

    267 training and 67 test images: those of this size among the training images of
    the 2018 Data Science Bowl. There is no download, since the published archive has
    one file for each nucleus. The folder ``nuclei`` must hold ``images/NAME.png``,
    ``masks/NAME.png`` (grey, the union of all nuclei, 0 or 255), and the names, a line
    each, in ``train.txt`` and ``val.txt``.

    Args:
        split: ``"train"`` or ``"test"``.
        root: the folder that holds ``nuclei``; None for the one that MFDNN_DATA names,
            or the user's cache.

    Returns:
        ``"image"``, uint8, shape (N, 3, 256, 256), and ``"mask"``, uint8, shape
        (N, 1, 256, 256), 1 on nuclei and 0 elsewhere.

    Raises:
        ValueError: if there is no such split.
        DataError: if a file is missing or has another form.

    Source: Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018
    Data Science Bowl" (2019); BBBC038 of the Broad Bioimage Benchmark Collection, CC0.
    """
    check_split(split)
    import numpy as np
    from PIL import Image

    folder = data_root(root) / "nuclei"
    images, masks = [], []
    try:
        for name in (folder / LISTS[split]).read_text(encoding="utf-8").split():
            with Image.open(folder / "images" / f"{name}.png") as image:
                images.append(torch.from_numpy(np.array(image.convert("RGB"))))
            with Image.open(folder / "masks" / f"{name}.png") as mask:
                masks.append(torch.from_numpy(np.array(mask.convert("L"))))
        both = torch.stack(images).movedim(-1, 1), torch.stack(masks)[:, None]
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{folder} does not hold images and masks of nuclei ({error}): the "
            "docstring of mfdnn.data.nuclei says what it should hold."
        ) from error
    if not ((both[1] == 0) | (both[1] == 255)).all():
        raise DataError(f"masks in {folder} hold other values than 0 and 255")
    return Examples(
        {"image": both[0].contiguous(), "mask": both[1] // 255},
        f"nuclei {split}",
        "Microscopy images 256x256 with masks of the nuclei. 2018 Data Science Bowl, "
        "BBBC038; CC0.",
    )
