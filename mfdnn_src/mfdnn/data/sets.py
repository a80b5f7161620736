"""What a loader returns, what it raises, and which set a name stands for."""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor


class DataError(Exception):
    """A data set cannot be had; the message is one sentence that says what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with one class each, as tensors that hold the whole set.

    Attributes:
        images: uint8, shape (N, C, H, W), 0 is black and 255 is full intensity.
        labels: int64, shape (N,), positions in ``classes``.
        classes: the names of the classes.
        name: the set and its split, for instance ``"mnist train"``.
        about: a sentence or two on content, source and licence.

    Raises:
        ValueError: if shapes, types or labels do not fit together.

    Source: the book's own convention.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    about: str

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError("images must be uint8 of shape (N, C, H, W)")
        if self.labels.dtype != torch.int64 or self.labels.shape != (len(self),):
            raise ValueError("labels must be int64 of shape (N,), one for each image")
        if len(self) == 0:
            raise ValueError("a set without images")
        low, high = self.labels.aminmax()
        if low < 0 or high >= len(self.classes):
            raise ValueError(f"labels must lie in 0, ..., {len(self.classes) - 1}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape, device = tuple(self.images.shape), self.images.device
        return f"LabelledImages({self.name!r}, images {shape} on {device})"

    def to(self, device: torch.device | str) -> "LabelledImages":
        """The same set with both tensors on a device."""
        images, labels = self.images.to(device), self.labels.to(device)
        return dataclasses.replace(self, images=images, labels=labels)

    def checksum(self) -> str:
        """SHA-256 of shape, pixels and labels, in hexadecimal: names the data."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for values in (self.images, self.labels):
            digest.update(values.cpu().contiguous().numpy().data)
        return digest.hexdigest()


def to_unit(images: Tensor) -> Tensor:
    """Scale pixels from 0, ..., 255 to the unit interval.

    Args:
        images: uint8, any shape.

    Returns:
        float32 of the same shape and on the same device, with values in [0, 1].

    Raises:
        ValueError: if the images are not uint8, so already scaled perhaps.

    Source: standard; division by 255 as torchvision's ``ToTensor``.

    >>> to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8, not {images.dtype}")
    return images.to(torch.float32).div_(255)


def two_classes(images: LabelledImages, negative: str, positive: str) -> LabelledImages:
    """Keep the images of two classes, for binary classification.

    Args:
        images: the set, images of shape (N, C, H, W).
        negative: the name of the class that gets the label 0, which stands for
            y = -1.
        positive: the name of the class that gets the label 1, for y = +1.

    Returns:
        the M images of both classes in their order, shape (M, C, H, W), with
        labels 0 and 1, shape (M,); y = 2 * labels - 1.

    Raises:
        ValueError: if there is no class of that name, or both are the same.

    Source: the book's own convention.
    """
    for name in (negative, positive):
        if name not in images.classes:
            there = ", ".join(images.classes)
            raise ValueError(f"no class {name!r}; there are {there}")
    if negative == positive:
        raise ValueError(f"two classes are needed, not {negative!r} twice")
    labels = images.labels
    is_positive = labels == images.classes.index(positive)
    kept = is_positive | (labels == images.classes.index(negative))
    return dataclasses.replace(
        images,
        images=images.images[kept],
        labels=is_positive[kept].long(),
        classes=(negative, positive),
        name=f"{images.name}, {negative} and {positive}",
    )


def check_split(split: str, allowed: tuple[str, ...] = ("train", "test")) -> None:
    """Refuse a split that the set does not have.

    Args:
        split: the name given.
        allowed: the names that exist.

    Raises:
        ValueError: if the name is not one of those allowed.

    Source: the book's own convention.
    """
    if split not in allowed:
        raise ValueError(f"split must be one of {', '.join(allowed)}, not {split!r}")


def image_set(
    name: str, split: str, root: str | Path | None = None, published: bool = True
) -> LabelledImages:
    """The images that a page or a recipe asks for: embedded by default, or full.

    The full set is read where a ``root`` is given or the environment variable
    ``MFDNN_DATA`` is ``full`` or a folder. Otherwise ``"mnist"`` gives the
    embedded `digits` of 28x28 pixels and ``"cifar10"`` the embedded
    `photo_crops`; both have ten classes and the shapes of the full sets, and
    the ``name`` of what is returned says which one it is.

    Args:
        name: ``"mnist"``, ``"cifar10"``, or, only as full sets,
            ``"fashion_mnist"`` and ``"kmnist"``.
        split: ``"train"`` or ``"test"``.
        root: folder of the full sets; None for the one that MFDNN_DATA names.
        published: False admits files of a full set that are not the published
            ones.

    Returns:
        the images and their labels.

    Raises:
        ValueError: if there is no set of that name, or no such split.
        DataError: if the set is not there, or damaged.

    Source: the book's own convention.
    """
    from mfdnn.data import embedded, full

    loaders = full.LOADERS
    if name not in loaders:
        raise ValueError(f"no set {name!r}; there are {', '.join(loaders)}")
    wanted = os.environ.get("MFDNN_DATA", "")
    if root is not None or wanted not in ("", "embedded"):
        return loaders[name](split, root, published)
    stand_ins: dict[str, Callable[[str], LabelledImages]] = {
        "mnist": embedded.digits,
        "cifar10": embedded.photo_crops,
    }
    if name not in stand_ins:
        raise DataError(
            f"{name} has no embedded stand-in: set MFDNN_DATA=full to download it, "
            "or MFDNN_DATA to the folder that holds it."
        )
    return stand_ins[name](split)
