"""Autoencoders: reconstruction, and anomalies found by it.

To add an experiment of these kinds, add an entry to `RECIPES` at the end of this file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import mse_loss

from mfdnn.data import DataError, DataSet, Examples, LabelledImages, image_set, to_unit
from mfdnn.data.cache import chosen
from mfdnn.modes import evaluating
from mfdnn.nn import Autoencoder
from mfdnn.recipes.optimize import ADAM_SETTINGS, adam
from mfdnn.recipes.recipe import Plan, Recipe, Settings, Task
from mfdnn.records import Metric
from mfdnn.train import Learner, Supervised

#: How many of MNIST's training images decide the threshold of `Detect`: the last ones.
HELD_OUT = 10_000


def rows(images: Tensor) -> Tensor:
    """Pixels of uint8 images (N, ...) as rows (N, n), in [0, 1]."""
    return to_unit(images).flatten(1)


@dataclass(frozen=True)
class Rebuild(Task):
    """Reconstruct images; the loss is the mean square over all pixels.

    Args:
        network: makes the network, from rows (N, n) in [0, 1] to rows (N, n).
    """

    network: Callable[[], nn.Module]

    settings: ClassVar[dict[str, type]] = {**ADAM_SETTINGS}
    metrics: ClassVar[dict[str, Metric]] = {
        "test_mse": Metric("test mean squared error of a pixel", "", digits=5),
    }

    def tensors(self, data: DataSet, settings: Settings) -> tuple[Tensor, ...]:
        """The images as rows, twice: what goes in should come out."""
        found = rows(_images(data, "image"))
        return found, found

    def learner(self, plan: Plan) -> Learner:
        """The network, trained by Adam."""
        model = plan.compute.place(self.network())
        optimizer, schedule = adam(model.parameters(), plan.settings, plan.steps)
        return Supervised(model, mse_loss, optimizer, schedule, plan.compute.forward())

    def evaluate(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """The mean over all test images."""
        return {"test_mse": self.errors(learner, _images(test, "image")).mean().item()}

    def errors(self, learner: Learner, images: Tensor) -> Tensor:
        """The mean squared error of each image's pixels, shape (N,)."""
        found = [
            (rows(some) - self.rebuild(learner, some)).pow(2).mean(1)
            for some in torch.split(images, 1000)
        ]
        return torch.cat(found)

    def rebuild(self, learner: Learner, images: Tensor) -> Tensor:
        """The reconstructions of uint8 images, as rows."""
        model = learner.networks["model"]
        with evaluating(model), torch.inference_mode():
            found: Tensor = model(rows(images)).float()
        return found

    def sample(
        self, learner: Learner, test: DataSet, generator: Generator
    ) -> Tensor | None:
        """The first eight test images, and below them their reconstructions."""
        return self.beside(learner, _images(test, "image")[:8])

    def beside(self, learner: Learner, images: Tensor) -> Tensor:
        """Images in [0, 1], then their reconstructions, shape (2 N, C, H, W)."""
        rebuilt = self.rebuild(learner, images).reshape(images.shape)
        return torch.cat([to_unit(images), rebuilt])


@dataclass(frozen=True)
class Detect(Rebuild):
    """Tell characters of another script from digits by their reconstruction error.

    Trained on the first 50,000 training images of MNIST. An image is called an anomaly
    if its error is more than three standard deviations above the mean over the 10,000
    that were held out. Lecture topic 5.09.
    """

    metrics: ClassVar[dict[str, Metric]] = {
        "type_1": Metric("test digits that are called anomalies", "%", 100, 2),
        "type_2": Metric("characters that are called digits", "%", 100, 2),
        "threshold": Metric("threshold of the error", "", digits=5),
        **Rebuild.metrics,
    }

    def load(
        self, data: str, where: str | Path | None = None, published: bool = True
    ) -> tuple[DataSet, DataSet]:
        """MNIST and KMNIST, `mnist-kmnist` by name."""
        if data != "mnist-kmnist":
            raise ValueError(f"anomalies are looked for in no {data!r}")
        if chosen(where) == "embedded":
            raise DataError(f"{data} has no embedded stand-in: see mfdnn.data.kmnist")
        train = image_set("mnist", "train", where, published)
        test = image_set("mnist", "test", where, published)
        novel = image_set("kmnist", "test", where, published)
        parts = {
            "image": test.images,
            "novel": novel.images,
            "held out": train.images[-HELD_OUT:],
        }
        first = Examples(
            {"image": train.images[:-HELD_OUT]}, "mnist train, the first", train.about
        )
        about = f"{test.about} {novel.about}"
        return first, Examples(parts, "mnist test, kmnist test, mnist train", about)

    def evaluate(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """Errors of both kinds over the two test sets."""
        normal, novel, held_out = (
            self.errors(learner, _images(test, name)).double()
            for name in ("image", "novel", "held out")
        )
        threshold = held_out.mean() + 3 * held_out.std()
        return {
            "type_1": (normal > threshold).double().mean().item(),
            "type_2": (novel <= threshold).double().mean().item(),
            "threshold": threshold.item(),
            "test_mse": normal.mean().item(),
        }

    def sample(
        self, learner: Learner, test: DataSet, generator: Generator
    ) -> Tensor | None:
        """Eight digits, their reconstructions; eight characters, theirs."""
        both = [_images(test, name)[:8] for name in ("image", "novel")]
        return torch.cat([self.beside(learner, images) for images in both])


def _images(data: DataSet, name: str) -> Tensor:
    """The images of a set, uint8, shape (N, C, H, W)."""
    if isinstance(data, LabelledImages):
        return data.images
    assert isinstance(data, Examples)
    return data[name]


RECIPES = [
    Recipe(
        "autoencoder-mnist",
        "Autoencoder 784-256-128-32 and back.",
        "mnist",
        Rebuild(Autoencoder),  # lecture topic 5.05
        epochs=10,
        batch_size=100,
        headline="test_mse",
        settings={"lr": 1e-3, "schedule": "constant"},
    ),
    Recipe(
        "anomaly-mnist-kmnist",
        "The same autoencoder as a detector of what is no digit.",
        "mnist-kmnist",
        Detect(Autoencoder),  # lecture topic 5.09
        epochs=10,
        batch_size=100,
        headline="type_2",
        settings={"lr": 1e-3, "schedule": "constant"},
    ),
]
