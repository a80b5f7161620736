"""Real images that ship inside the dependencies: nothing is downloaded."""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from mfdnn.data.types import LabelledImages, check_split

#: The classes of `photo_crops`, in the order of the labels.
PHOTOGRAPHS = (
    *("astronaut", "cat", "coffee", "galaxies", "motorcycle"),
    *("retina", "rocket", "temple", "tissue", "flower"),
)
BLOCK, SIDE = 96, 32
DIGITS_FOR_TRAINING = 1437


def digits(split: str, size: int = 28) -> LabelledImages:
    """Handwritten digits of scikit-learn, the embedded stand-in for MNIST.

    1,437 training and 360 test images (the last 360 in the published order),
    uint8, 0 is paper and 255 is ink; classes 0 to 9. The published images have
    8x8 pixels with values 0, ..., 16, here times 255/16. Size 28 gives them the
    form of MNIST: enlarged bilinearly to 20x20 inside a margin of 4.

    Args:
        split: ``"train"`` or ``"test"``.
        size: 28 or 8 pixels a side.

    Returns:
        images of shape (N, 1, size, size) and their labels.

    Raises:
        ValueError: if there is no such split or size.

    Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI
    repository (1998); the copy of its test part that ships with scikit-learn.
    Licence: CC BY 4.0 (UCI).

    >>> digits("train", size=8).images.shape
    torch.Size([1437, 1, 8, 8])
    """
    check_split(split)
    if size not in (8, 28):
        raise ValueError(f"size must be 28 or 8, not {size}")
    from sklearn.datasets import load_digits

    found = load_digits()
    part = slice(DIGITS_FOR_TRAINING) if split == "train" else None
    part = part or slice(DIGITS_FOR_TRAINING, None)
    values = torch.as_tensor(found.images[part])[:, None].double()  # 0, ..., 16
    if size == 28:
        tenths = _enlargement()
        larger = tenths @ values @ tenths.T * 255 / (16 * 10 * 10)
        values = pad(larger, (4, 4, 4, 4))
    else:
        values = values * 255 / 16
    return LabelledImages(
        values.round().to(torch.uint8),
        torch.tensor(found.target[part].tolist()),
        tuple("0123456789"),
        f"digits {split}",
        f"Handwritten digits, {size}x{size}, grey, 0 is paper and 255 is ink; "
        "published with 8x8 pixels. Alpaydin and Kaynak (1998), shipped with "
        "scikit-learn; CC BY 4.0.",
    )


def _enlargement() -> Tensor:
    """Bilinear weights from 8 to 20 pixels in tenths, shape (20, 8), float64.

    Whole numbers, because thousands of pixels lie exactly between two grey levels.
    Sums of fractions would round them to either side, depending on the processor;
    sums of whole numbers are exact, and so is a quotient that ends in one half.
    """
    weights = torch.zeros(20, 8, dtype=torch.float64)
    for i in range(20):
        left, right = divmod(max(4 * i - 3, 0), 10)  # (i + 1/2) 8/20 - 1/2
        weights[i, left] += 10 - right
        weights[i, min(left + 1, 7)] += right
    return weights


def photo_crops(split: str) -> LabelledImages:
    """Crops of ten colour photographs, the embedded stand-in for CIFAR-10.

    5,000 training and 1,000 test crops of shape (3, 32, 32), uint8, channels red,
    green, blue. The class of a crop is the photograph it was cut from: astronaut,
    cat, coffee, galaxies, motorcycle, retina, rocket, temple, tissue, flower; all
    are equally frequent. Each photograph is divided into blocks of 96x96 pixels; one
    block in five belongs to the test split, and every crop lies inside one block,
    so no pixel is in both splits. Blocks and places are drawn with fixed seeds.
    Some crops show only sky or background, so no classifier is always right.

    Args:
        split: ``"train"`` or ``"test"``.

    Returns:
        images of shape (N, 3, 32, 32) and their labels, ordered by class.

    Raises:
        ValueError: if there is no such split.

    Source: photographs that ship with scikit-image (astronaut and galaxies: NASA,
    public domain; cat, coffee, retina: CC0; rocket: SpaceX, public domain; tissue:
    no known restrictions; motorcycle: Middlebury stereo benchmark 2014) and
    scikit-learn (temple and flower: CC BY 2.0).
    """
    check_split(split)
    per_class = 500 if split == "train" else 100
    pictures = _photographs()
    crops = []
    for label, name in enumerate(PHOTOGRAPHS):
        picture = pictures[name]
        blocks = _blocks(picture, label)
        held_out = -(-len(blocks) // 5)
        blocks = blocks[held_out:] if split == "train" else blocks[:held_out]
        draw = Generator().manual_seed(1000 * label + per_class)
        which = torch.randint(len(blocks), (per_class,), generator=draw)
        offset = torch.randint(BLOCK - SIDE + 1, (per_class, 2), generator=draw)
        for top, left in (blocks[which] + offset).tolist():
            crops.append(picture[:, top : top + SIDE, left : left + SIDE])
    return LabelledImages(
        torch.stack(crops),
        torch.arange(len(PHOTOGRAPHS)).repeat_interleave(per_class),
        PHOTOGRAPHS,
        f"photo_crops {split}",
        "Crops of 32x32 pixels of ten colour photographs; the class is the "
        "photograph. Shipped with scikit-image and scikit-learn; public domain, "
        "CC0, CC BY 2.0 (temple, flower), and the Middlebury stereo benchmark "
        "(motorcycle).",
    )


def restoration_crops(split: str, size: int = 64, color: bool = False) -> Tensor:
    """Square pieces of natural photographs, to be degraded and restored.

    The training pieces come from five photographs (astronaut, cat, motorcycle,
    rocket, temple), the test pieces from two others (coffee, flower). Each is cut
    without overlap, row by row, and what is left at its edges is dropped.

    Args:
        split: ``"train"`` or ``"test"``.
        size: side in pixels, at most 300.
        color: three channels, red, green, blue, rather than grey (ITU-R BT.601).

    Returns:
        uint8, shape (N, 1, size, size) or (N, 3, size, size).

    Raises:
        ValueError: if there is no such split, or the size does not fit.

    Source: photographs that ship with scikit-image and scikit-learn; licences as
    in `photo_crops`.
    """
    check_split(split)
    if not 1 <= size <= 300:
        raise ValueError(f"size must be between 1 and 300, not {size}")
    train = ("astronaut", "cat", "motorcycle", "rocket", "temple")
    pictures = _photographs()
    pieces = []
    for name in train if split == "train" else ("coffee", "flower"):
        picture = pictures[name]
        if not color:
            # One product or sum at a time: a fused sum rounds otherwise, and at
            # ties the grey level would depend on the processor.
            red, green, blue = picture.double()
            grey = 0.299 * red + 0.587 * green + 0.114 * blue
            picture = grey.round().to(torch.uint8)[None]
        tiles = picture.unfold(1, size, size).unfold(2, size, size)
        pieces.append(tiles.permute(1, 2, 0, 3, 4).flatten(0, 1))
    return torch.cat(pieces)


def phantom(size: int = 400) -> Tensor:
    """The Shepp-Logan phantom: a head in section, made of ellipses.

    Args:
        size: side in pixels.

    Returns:
        float32, shape (1, size, size), attenuation in [0, 1], air is 0.

    Raises:
        ValueError: if the size is not positive.

    Source: Shepp and Logan (1974), with the contrasts of Toft (1996); the copy of
    400x400 pixels that ships with scikit-image, resized with anti-aliasing.
    """
    if size < 1:
        raise ValueError(f"size must be positive, not {size}")
    import skimage.data
    import skimage.transform

    data: Any = skimage.data
    change: Any = skimage.transform
    picture = data.shepp_logan_phantom()
    if size != len(picture):
        picture = change.resize(
            picture, (size, size), anti_aliasing=size < len(picture)
        )
    return torch.as_tensor(picture, dtype=torch.float32)[None]


def _photographs() -> dict[str, Tensor]:
    """The ten photographs, each uint8, shape (3, H, W)."""
    import numpy as np
    import skimage.data
    from sklearn.datasets import load_sample_image

    data: Any = skimage.data
    pictures = {
        "astronaut": data.astronaut(),
        "cat": data.chelsea(),
        "coffee": data.coffee(),
        "galaxies": data.hubble_deep_field(),
        "motorcycle": data.stereo_motorcycle()[0],
        "retina": data.retina(),
        "rocket": data.rocket(),
        "temple": load_sample_image("china.jpg"),
        "tissue": data.immunohistochemistry(),
        "flower": load_sample_image("flower.jpg"),
    }
    return {
        k: torch.from_numpy(np.moveaxis(p, 2, 0).copy()) for k, p in pictures.items()
    }


def _blocks(picture: Tensor, seed: int) -> Tensor:
    """Upper left corners (K, 2) of a photograph's blocks, in a random order."""
    rows, columns = (side // BLOCK for side in picture.shape[1:])
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)) * BLOCK
    return grid[torch.randperm(len(grid), generator=Generator().manual_seed(seed))]
