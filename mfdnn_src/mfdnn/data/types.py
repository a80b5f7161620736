"""What a loader returns: tensors with a name, a sentence and a checksum."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Protocol, Self

import torch
from torch import Tensor

from mfdnn.errors import DataError as DataError


class DataSet(Protocol):
    """What an experiment is run on, and what its record says about it."""

    @property
    def name(self) -> str:
        """The set and its split, for instance ``"mnist train"``."""

    @property
    def about(self) -> str:
        """A sentence or two on content, source and licence."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""

    def __len__(self) -> int:
        """The number of examples."""

    def checksum(self) -> str:
        """SHA-256 of all tensors, in hexadecimal: names the data."""

    def to(self, device: torch.device | str) -> Self:
        """The same set on a device."""


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Tensors of any kind with one entry an example: points, image and mask, ...

    Attributes:
        tensors: by name, each of shape (N, ...); the first one gives the shape of
            an example.
        name: the set and its split.
        about: a sentence or two on content, source and licence.

    Raises:
        ValueError: if there is no tensor, or their lengths differ.
    """

    tensors: Mapping[str, Tensor]
    name: str
    about: str

    def __post_init__(self) -> None:
        sizes = {name: len(tensor) for name, tensor in self.tensors.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise ValueError(f"tensors need one and the same length, not {sizes}")

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one entry of the first tensor."""
        return tuple(next(iter(self.tensors.values())).shape[1:])

    def to(self, device: torch.device | str) -> Self:
        """The same set with all tensors on a device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return dataclasses.replace(self, tensors=moved)

    def checksum(self) -> str:
        """SHA-256 of names, types, shapes and values, in hexadecimal."""
        digest = hashlib.sha256()
        for name, tensor in self.tensors.items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


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

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image, (C, H, W)."""
        return tuple(self.images.shape[1:])

    def to(self, device: torch.device | str) -> Self:
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
    """
    if split not in allowed:
        raise ValueError(f"split must be one of {', '.join(allowed)}, not {split!r}")
