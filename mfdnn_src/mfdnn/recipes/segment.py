"""Semantic segmentation: a class for every pixel.

To add an experiment of this kind, add an entry to `RECIPES` at the end of this file.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from mfdnn.data import DataError, DataSet, Examples, augment, nuclei, to_unit
from mfdnn.data.batches import Transform
from mfdnn.data.cache import chosen
from mfdnn.measure import confusion, iou
from mfdnn.modes import evaluating
from mfdnn.nn import UNet
from mfdnn.recipes.optimize import ADAM_SETTINGS, adam
from mfdnn.recipes.recipe import Plan, Recipe, Settings, Task
from mfdnn.records import Metric
from mfdnn.train import Learner, Supervised


def pixel_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """The cross entropy, mean over all pixels, shape () (lecture topic 4.27).

    Args:
        logits: shape (N, K, H, W).
        mask: class indices, uint8, shape (N, 1, H, W).
    """
    return cross_entropy(logits, mask[:, 0].long())


def otsu(image: Tensor) -> Tensor:
    """Nuclei by a threshold: the smaller side of Otsu's threshold on the brightness.

    Args:
        image: uint8, shape (3, H, W), on the CPU.

    Returns:
        1 on nuclei, shape (H, W), int64.
    """
    import skimage.filters

    filters: Any = skimage.filters
    grey = image.double().mean(0)
    bright: Tensor = grey > float(filters.threshold_otsu(grey.numpy()))
    return (bright if bright.double().mean() < 0.5 else ~bright).long()


@dataclass(frozen=True)
class Segment(Task):
    """Tell nuclei from background in microscopy images.

    Args:
        network: makes the network, from images (N, 3, H, W), pixels in [0, 1], to
            logits (N, 2, H, W).
    """

    network: Callable[[], nn.Module]

    #: In each epoch one square of crop x crop pixels is cut out of every image at
    #: random, then turned and mirrored.
    settings: ClassVar[dict[str, type]] = {**ADAM_SETTINGS, "crop": int}
    columns: ClassVar[int] = 6
    metrics: ClassVar[dict[str, Metric]] = {
        "test_iou": Metric("test IoU of the nuclei, mean over images", "", digits=3),
        "pixel_accuracy": Metric("test pixel accuracy", "%", factor=100, digits=2),
        "otsu_iou": Metric("the same IoU of Otsu's threshold", "", digits=3),
    }

    def load(
        self, data: str, where: str | Path | None = None, published: bool = True
    ) -> tuple[DataSet, DataSet]:
        """Images and masks, `nuclei` by name."""
        if data != "nuclei":
            raise ValueError(f"segmentation is of nuclei, not of {data!r}")
        if (place := chosen(where)) == "embedded":
            raise DataError("nuclei has no embedded stand-in: see mfdnn.data.nuclei")
        return nuclei("train", place), nuclei("test", place)

    def tensors(self, data: DataSet, settings: Settings) -> tuple[Tensor, ...]:
        """Images and masks, uint8."""
        assert isinstance(data, Examples)
        return data["image"], data["mask"]

    def transform(self, settings: Settings) -> Transform | None:
        """Cut and turn images and masks by the same draws."""
        cut = augment.Chain(augment.Crop(int(settings["crop"])), augment.Turn())
        both, scale = augment.together(cut), augment.inputs(augment.to_unit)
        return lambda batch, generator: scale(both(batch, generator), generator)

    def learner(self, plan: Plan) -> Learner:
        """The network, trained by Adam."""
        model = plan.compute.place(self.network())
        optimizer, schedule = adam(model.parameters(), plan.settings, plan.steps)
        forward = plan.compute.forward()
        return Supervised(model, pixel_loss, optimizer, schedule, forward)

    def evaluate(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """Means over all test images."""
        assert isinstance(test, Examples)
        images, masks = test["image"], test["mask"].long()
        return {
            **self._means(self.predict(learner, images), masks),
            "otsu_iou": self._means([otsu(i) for i in images.cpu()], masks)["test_iou"],
        }

    def predict(self, learner: Learner, images: Tensor) -> Tensor:
        """The classes of all pixels, shape (N, H, W), image by image."""
        model = learner.networks["model"]
        with evaluating(model), torch.inference_mode():
            found = [model(to_unit(image[None])).argmax(1) for image in images]
        return torch.cat(found)

    def sample(
        self, learner: Learner, test: DataSet, generator: Generator
    ) -> Tensor | None:
        """Six test images in three rows: image, prediction, mask."""
        assert isinstance(test, Examples)
        some = slice(None, 66, 11)
        images, masks = test["image"][some], test["mask"][some]
        found = self.predict(learner, images)[:, None]
        shown = [to_unit(images), found.expand_as(images), masks.expand_as(images)]
        return torch.cat([images.float() for images in shown])

    @staticmethod
    def _means(found: Iterable[Tensor], masks: Tensor) -> dict[str, float]:
        """IoU of the nuclei and share of right pixels, of each image, averaged."""
        ious, shares = [], []
        for prediction, mask in zip(found, masks, strict=True):
            counts = confusion(prediction.flatten(), mask.flatten(), 2)
            ious.append(iou(counts)[1])
            shares.append(counts.diagonal().sum() / counts.sum())
        return {
            "test_iou": torch.stack(ious).nanmean().item(),
            "pixel_accuracy": torch.stack(shares).mean().item(),
        }


RECIPES = [
    Recipe(
        "unet-nuclei",
        "U-Net of five scales, 16 to 256 maps, that finds nuclei.",
        "nuclei",
        Segment(partial(UNet, 3, 2, (16, 32, 64, 128, 256))),  # lecture topic 4.28
        epochs=30,
        batch_size=16,
        headline="test_iou",
        settings={"lr": 2e-3, "schedule": "one-cycle", "crop": 128},
    ),
]
