"""Classification of CIFAR-10 in minutes: all that makes a training short.

To add an experiment of this kind, add an entry to `RECIPES` at the end of this file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from mfdnn.data import Batches, DataSet, LabelledImages, augment, to_unit
from mfdnn.data.batches import Transform
from mfdnn.measure import accuracy
from mfdnn.modes import evaluating
from mfdnn.nn.fast import FastCIFAR10
from mfdnn.recipes.recipe import Plan, Recipe, Settings, Task
from mfdnn.records import Metric
from mfdnn.train import Learner, Supervised, evaluate

#: Training images are shifted by at most so many pixels.
SHIFT = 2
#: How many images fix the whitening.
SOME = 5_000


class Mirror(nn.Module):
    """Mirrors an image in every second epoch, half of the images in the first.

    Args:
        count: of the images.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.turned: Tensor
        self.register_buffer("turned", torch.rand(count) < 0.5)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Mirror images (B, C, H, W) with these positions (B,) if it is their turn."""
        turned = self.turned[index]
        self.turned[index] = ~turned
        return torch.where(turned[:, None, None, None], images.flip(-1), images)


class Mirrored(Supervised):
    """Supervised learning of images that are mirrored in every second epoch."""

    mirror: Mirror

    @property
    def state(self) -> dict[str, Any]:
        """What `Supervised` has, and whose turn it is."""
        return {**super().state, "mirror": self.mirror}

    def objective(self, *batch: Tensor) -> Tensor:
        """The loss of images (B, C, H, W), labels and positions (B,)."""
        x, y, index = batch
        return super().objective(self.mirror(x, index), y)


@dataclass(frozen=True)
class Fast(Task):
    """Tell the class of an image, pixels in [0, 1], after few epochs.

    Args:
        network: makes the network, from images (N, 3, H, W) to logits (N, 10).
    """

    network: Callable[[], FastCIFAR10]

    settings: ClassVar[dict[str, type]] = {
        "lr": float,  # the highest, after a quarter of the steps
        "bias_factor": float,  # the biases' rate is so many times higher
        "momentum": float,  # Nesterov's
        "weight_decay": float,  # the factor of theta that is added to each gradient
        "label_smoothing": float,  # the weight of the uniform distribution
    }
    metrics: ClassVar[dict[str, Metric]] = {
        "test_accuracy": Metric("test accuracy", "%", factor=100, digits=2),
        "averaged_accuracy": Metric(
            "test accuracy, mean over six views", "%", factor=100, digits=2
        ),
    }

    def tensors(self, data: DataSet, settings: Settings) -> tuple[Tensor, ...]:
        """Images that are reflected at their edges, labels and positions."""
        assert isinstance(data, LabelledImages)
        images = reflected(data.images.float(), SHIFT).to(torch.uint8)
        return images, data.labels, torch.arange(len(data)).to(data.labels.device)

    def transform(self, settings: Settings) -> Transform | None:
        """Cut the images' own size out, at random."""

        def crop(images: Tensor, generator: torch.Generator | None) -> Tensor:
            size = images.shape[-1] - 2 * SHIFT
            return to_unit(augment.Crop(size)(images, generator))

        return augment.inputs(crop)

    def learner(self, plan: Plan) -> Learner:
        """The network, whitened by training images, and Nesterov's method."""
        model = self.network()
        count = 0
        if plan.train:
            count = len(plan.train[0])
            model.whiten(to_unit(plan.train[0][:SOME]).cpu())
        mirror = Mirror(count).to(plan.compute.device)
        optimizer, schedule = nesterov(model, plan.settings, plan.steps)
        learner = Mirrored(
            plan.compute.place(model),
            lambda logits, y: cross_entropy(
                logits, y, label_smoothing=float(plan.settings["label_smoothing"])
            ),
            optimizer,
            schedule,
            plan.compute.forward(),
        )
        learner.mirror = mirror
        return learner

    def evaluate(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """Accuracy over all test images."""
        assert isinstance(test, LabelledImages)
        assert isinstance(learner, Mirrored)
        batches = Batches(to_unit(test.images), test.labels, batch_size=1000)
        with learner.forward:
            return evaluate(
                learner.networks["model"], batches, {"test_accuracy": accuracy}
            )

    def examine(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """Accuracy of the mean of the logits over six views of each image."""
        assert isinstance(test, LabelledImages)
        assert isinstance(learner, Mirrored)
        model, right = learner.networks["model"], 0
        batches = Batches(to_unit(test.images), test.labels, batch_size=1000)
        with evaluating(model), torch.inference_mode(), learner.forward:
            for x, y in batches:
                logits = sum(weight * model(view) for weight, view in views(x))
                assert isinstance(logits, Tensor)
                right += int((logits.argmax(1) == y).sum())
        return {"averaged_accuracy": right / len(test)}


def reflected(images: Tensor, margin: int) -> Tensor:
    """Images (N, C, H, W) with their own mirror images around them."""
    return pad(images, (margin,) * 4, "reflect")


def views(images: Tensor) -> list[tuple[float, Tensor]]:
    """An image, its shifts by a pixel up left and down right, and the mirror images.

    Args:
        images: shape (N, C, H, W).

    Returns:
        six weights, with sum 1, and images of the same shape; the unshifted ones
        weigh as much as the shifted ones together.
    """
    height, width = images.shape[2:]
    wide = reflected(images, 1)
    shifted = [wide[:, :, k : k + height, k : k + width] for k in (0, 2)]
    weighted = [(1 / 4, images), *((1 / 8, view) for view in shifted)]
    return weighted + [(weight, view.flip(-1)) for weight, view in weighted]


def nesterov(model: nn.Module, settings: Settings, steps: int) -> tuple[SGD, LambdaLR]:
    """Nesterov's method; the rate rises for a quarter of the steps, then falls to 0.

    Args:
        model: what it moves.
        settings: see `Fast`.
        steps: how many steps the run has.

    Returns:
        the optimizer, with a group for the biases, and its schedule.
    """
    lr, decay = float(settings["lr"]), float(settings["weight_decay"])
    factor = float(settings["bias_factor"])
    moved = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    weights = [p for name, p in moved if not name.endswith("bias")]
    biases = [p for name, p in moved if name.endswith("bias")]
    groups: list[dict[str, Any]] = [
        {"params": weights},
        {"params": biases, "lr": factor * lr, "weight_decay": decay / factor},
    ]
    optimizer = SGD(
        groups,
        lr,
        momentum=float(settings["momentum"]),
        weight_decay=decay,
        nesterov=True,
    )
    return optimizer, LambdaLR(optimizer, lambda step: triangle((step + 1) / steps))


def triangle(t: float) -> float:
    """The learning rate's factor at a time t in [0, 1], at most 1."""
    return min(0.2 + 0.8 * 4 * t, (1 - t) / (1 - 1 / 4))


RECIPES = [
    Recipe(
        "cifar10-fast",
        "Seven convolutions, ten epochs: what two CPU cores train in minutes.",
        "cifar10",
        Fast(FastCIFAR10),
        epochs=10,
        batch_size=512,
        headline="averaged_accuracy",
        settings={
            "lr": 0.75,
            "bias_factor": 64.0,
            "momentum": 0.85,
            "weight_decay": 1.3e-3,
            "label_smoothing": 0.2,
        },
    ),
]
