"""Data sets as tensors. By default real data that ships with the dependencies."""

from mfdnn.data import augment, toy
from mfdnn.data.batches import Batches
from mfdnn.data.choose import image_set
from mfdnn.data.embedded import digits, phantom, photo_crops, restoration_crops
from mfdnn.data.full import cifar10, fashion_mnist, kmnist, mnist
from mfdnn.data.nuclei import nuclei
from mfdnn.data.tabular import diabetes
from mfdnn.data.types import (
    DataError,
    DataSet,
    Examples,
    LabelledImages,
    to_unit,
    two_classes,
)
from mfdnn.data.voc import PascalVOC

__all__ = [
    "Batches",
    "DataError",
    "DataSet",
    "Examples",
    "LabelledImages",
    "PascalVOC",
    "augment",
    "cifar10",
    "diabetes",
    "digits",
    "fashion_mnist",
    "image_set",
    "kmnist",
    "mnist",
    "nuclei",
    "phantom",
    "photo_crops",
    "restoration_crops",
    "to_unit",
    "toy",
    "two_classes",
]
