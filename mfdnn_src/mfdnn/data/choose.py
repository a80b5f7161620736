"""Which set of images a name stands for: embedded by default, or full."""

from collections.abc import Callable
from pathlib import Path

from mfdnn.data.cache import chosen, data_root
from mfdnn.data.embedded import digits, photo_crops
from mfdnn.data.full import LOADERS
from mfdnn.data.types import DataError, LabelledImages

#: What is embedded in place of a full set.
STAND_INS: dict[str, Callable[[str], LabelledImages]] = {
    "mnist": digits,
    "cifar10": photo_crops,
}


def image_set(
    name: str, split: str, where: str | Path | None = None, published: bool = True
) -> LabelledImages:
    """The images that a page or a recipe asks for: embedded by default, or full.

    Args:
        name: ``"mnist"``, ``"cifar10"``, or, only as full sets,
            ``"fashion_mnist"`` and ``"kmnist"``.
        split: ``"train"`` or ``"test"``.
        where: ``"embedded"`` for data that ship with the package: `digits` of 28x28
            pixels in place of MNIST, `photo_crops` in place of CIFAR-10, with ten
            classes and the shapes of the full sets; ``"full"`` for the full set in
            the cache; a folder for the full set there. None takes what the
            environment variable ``MFDNN_DATA`` says, or the embedded set.
        published: False admits files of a full set that are not the published
            ones.

    Returns:
        the images and their labels; the ``name`` says which set it is.

    Raises:
        ValueError: if there is no set of that name, or no such split.
        DataError: if the set is not there, or damaged.
    """
    if name not in LOADERS:
        raise ValueError(f"no set {name!r}; there are {', '.join(LOADERS)}")
    if (place := chosen(where)) != "embedded":
        return LOADERS[name](split, data_root(place), published)
    if name not in STAND_INS:
        raise DataError(
            f"{name} has no embedded stand-in: set MFDNN_DATA=full to download it, "
            "or MFDNN_DATA to the folder that holds it."
        )
    return STAND_INS[name](split)
