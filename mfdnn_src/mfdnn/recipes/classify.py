"""Classification of images by SGD: the experiments of Chapters 2 and 3.

To add an experiment of this kind, add an entry to `RECIPES` at the end of this file:
a name, a sentence, the data, the network as a function without arguments, and the
settings. `mfdnn train NAME` runs it; nothing else has to be changed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mfdnn.data import Batches, DataSet, LabelledImages, augment, to_unit, two_classes
from mfdnn.data.batches import Transform
from mfdnn.measure import accuracy
from mfdnn.nn import (
    VGGCIFAR10,
    AlexNetCIFAR10,
    GoogLeNetCIFAR10,
    LeNet,
    NiNCIFAR10,
    mlp,
    resnet,
)
from mfdnn.recipes.optimize import SGD_SETTINGS, sgd
from mfdnn.recipes.recipe import Plan, Recipe, Setting, Settings, Task
from mfdnn.records import Metric
from mfdnn.train import Learner, Supervised, evaluate

#: Keeps the class of photographs, and of few digits.
AUGMENTATION = augment.Chain(augment.Flip(), augment.PadCrop(4), augment.to_unit)


@dataclass(frozen=True)
class Classify(Task):
    """Tell the class of an image, pixels in [0, 1].

    With ten classes the loss is the cross entropy of ten logits. With a pair of
    classes it is log(1 + exp(-y f)) of one score f and a label y of -1 or +1.

    Args:
        network: makes the network, from images (N, C, H, W) to logits (N, 10), or
            to scores (N, 1) for a pair of classes.
        pair: the positions, among the ten, of the class with y = -1 and of the
            class with y = +1; empty for all ten classes.
    """

    network: Callable[[], nn.Module]
    pair: tuple[int, ...] = ()

    #: With flips_and_crops training images are mirrored at random, padded by 4 pixels
    #: and cropped at random.
    settings: ClassVar[dict[str, type]] = {**SGD_SETTINGS, "flips_and_crops": bool}
    metrics: ClassVar[dict[str, Metric]] = {
        "test_accuracy": Metric("test accuracy", "%", factor=100, digits=2),
        "test_loss": Metric("test loss", "", digits=4),
    }

    def load(
        self, data: str, where: str | Path | None = None, published: bool = True
    ) -> tuple[DataSet, DataSet]:
        """Training and test images, of the pair of classes if there is one."""
        sets = super().load(data, where, published)
        if not self.pair:
            return sets
        both = []
        for images in sets:
            assert isinstance(images, LabelledImages)
            names = (images.classes[i] for i in self.pair)
            both.append(two_classes(images, *names))
        return both[0], both[1]

    def tensors(self, data: DataSet, settings: Settings) -> tuple[Tensor, ...]:
        """Images and labels; bytes if they are to be flipped and cropped."""
        assert isinstance(data, LabelledImages)
        images = data.images if settings["flips_and_crops"] else to_unit(data.images)
        return images, data.labels

    def transform(self, settings: Settings) -> Transform | None:
        """Flips and crops, if so set."""
        return augment.inputs(AUGMENTATION) if settings["flips_and_crops"] else None

    def learner(self, plan: Plan) -> Learner:
        """The network, trained by SGD."""
        model = plan.compute.place(self.network())
        optimizer, schedule = sgd(model.parameters(), plan.settings, plan.steps)
        return Supervised(model, self.loss, optimizer, schedule, plan.compute.forward())

    def evaluate(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """Loss and accuracy over all test images."""
        assert isinstance(test, LabelledImages)
        batches = Batches(to_unit(test.images), test.labels, batch_size=1000)
        metrics = {"test_loss": self.loss, "test_accuracy": self.accuracy}
        return evaluate(learner.networks["model"], batches, metrics)

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """The mean loss, shape (), of outputs (N, 10) or (N, 1), labels (N,)."""
        if not self.pair:
            return cross_entropy(output, labels)
        # softplus(-f) for label 1 (y = +1), softplus(f) for label 0 (y = -1)
        return binary_cross_entropy_with_logits(output[:, 0], labels.to(output.dtype))

    def accuracy(self, output: Tensor, labels: Tensor) -> Tensor:
        """The share of right predictions, shape (); a score of 0 means label 0."""
        if self.pair:
            output = torch.cat([torch.zeros_like(output), output], dim=1)
        return accuracy(output, labels)


def _recipe(
    name: str,
    about: str,
    data: str,
    task: Classify,
    sizes: tuple[int, int],  # epochs and batch size
    **settings: Setting,
) -> Recipe:
    """A recipe with what is usual here filled in."""
    usual: dict[str, Setting] = {
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": "constant",
        "flips_and_crops": False,
    }
    return Recipe(name, about, data, task, *sizes, "test_accuracy", usual | settings)


#: What the networks of the second half of Chapter 3 are trained with.
ONE_CYCLE: dict[str, Setting] = {
    "weight_decay": 5e-4,
    "schedule": "one-cycle",
    "flips_and_crops": True,
}

RECIPES = [
    _recipe(
        "logistic-regression-mnist",
        "Logistic regression of two digits, 4 and 9, one linear layer 784-1.",
        "mnist",
        Classify(partial(mlp, [784, 1]), pair=(4, 9)),  # lecture topic 2.25
        (10, 64),
        lr=0.02,
    ),
    _recipe(
        "logistic-regression-cifar10",
        "Logistic regression of airplane and automobile, one linear layer 3072-1.",
        "cifar10",
        Classify(partial(mlp, [3072, 1]), pair=(0, 1)),  # lecture topic 2.25
        (20, 64),
        lr=0.002,
    ),
    _recipe(
        "mlp-binary-cifar10",
        "Multilayer perceptron of airplane and automobile, 3072-1536-768-384-1.",
        "cifar10",
        Classify(partial(mlp, [3072, 1536, 768, 384, 1]), pair=(0, 1)),  # topic 2.31
        (20, 64),
        lr=0.01,
    ),
    _recipe(
        "softmax-regression-mnist",
        "Softmax regression of ten digits, one linear layer 784-10.",
        "mnist",
        Classify(partial(mlp, [784, 10])),  # lecture topic 2.37
        (10, 64),
        lr=0.02,
    ),
    _recipe(
        "mlp-mnist",
        "Multilayer perceptron 784-392-196-98-10 with ReLU.",
        "mnist",
        Classify(partial(mlp, [784, 392, 196, 98, 10])),  # lecture topic 2.46
        (10, 64),
        lr=0.02,
    ),
    _recipe(
        "lenet-mnist",
        "LeNet with ReLU and max pooling.",
        "mnist",
        Classify(LeNet),  # lecture topic 3.12
        (20, 64),
        lr=0.02,
        schedule="cosine",
    ),
    _recipe(
        "lenet-cifar10",
        "LeNet with ReLU and max pooling, three input channels, no padding.",
        "cifar10",
        Classify(partial(LeNet, channels=3)),  # lecture topic 3.15
        (60, 128),
        lr=0.05,
        weight_decay=5e-4,
        schedule="cosine",
        flips_and_crops=True,
    ),
    _recipe(
        "alexnet-cifar10",
        "AlexNet for images of 32x32 pixels.",
        "cifar10",
        Classify(AlexNetCIFAR10),  # lecture topic 3.40
        (60, 128),
        lr=0.02,
        weight_decay=5e-4,
        schedule="cosine",
        flips_and_crops=True,
    ),
    _recipe(
        "vgg-cifar10",
        "VGG with thirteen layers, for images of 32x32 pixels.",
        "cifar10",
        Classify(VGGCIFAR10),  # lecture topic 3.65
        (30, 128),
        lr=0.05,
        **ONE_CYCLE,
    ),
    _recipe(
        "nin-cifar10",
        "Network in Network: no linear layer, global average pooling.",
        "cifar10",
        Classify(NiNCIFAR10),  # lecture topic 3.81
        (30, 128),
        lr=0.02,
        **ONE_CYCLE,
    ),
    _recipe(
        "googlenet-cifar10",
        "GoogLeNet for images of 32x32 pixels, without batch normalization.",
        "cifar10",
        Classify(GoogLeNetCIFAR10),  # lecture topic 3.89
        (30, 128),
        lr=0.05,
        **ONE_CYCLE,
    ),
    _recipe(
        "resnet18-cifar10",
        "ResNet18 with a stem for images of 32x32 pixels.",
        "cifar10",
        Classify(partial(resnet, 18, 10, small=True)),  # lecture topic 3.105
        (30, 128),
        lr=0.2,
        **ONE_CYCLE,
    ),
]
