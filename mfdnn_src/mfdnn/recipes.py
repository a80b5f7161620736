"""The full-scale experiments of the book, each a few plain facts and a network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer

from mfdnn import device, distributed, records
from mfdnn.data import Batches, LabelledImages, image_set, to_unit
from mfdnn.measure import accuracy, count_parameters
from mfdnn.nn import LeNet, mlp
from mfdnn.train import Checkpoint, evaluate, fit

#: Of SGD, in all recipes.
MOMENTUM = 0.9


@dataclass(frozen=True)
class Recipe:
    """A classification experiment: images with pixels in [0, 1], cross entropy, SGD.

    Args:
        name: what `mfdnn train` calls it.
        data: the set of images, a name that `image_set` knows.
        batch_size: examples a step, over all processes together.
        lr: the learning rate.
        epochs: passes over the training images.
        build: makes the network, from images (N, C, H, W) to logits (N, 10).

    Source: the book's own convention.
    """

    name: str
    data: str
    batch_size: int
    lr: float
    epochs: int
    build: Callable[[], nn.Module]

    @property
    def about(self) -> str:
        """What is trained, in a line."""
        return (self.build.__doc__ or "").strip().partition("\n")[0]


def logistic_regression() -> nn.Module:
    """Softmax (multinomial logistic) regression, one linear layer 784-10.

    Returns:
        a network for images of shape (N, 1, 28, 28), 7,850 parameters.

    Source: lecture topics on softmax regression (chapter 2).
    """
    return mlp([784, 10])


def perceptron() -> nn.Module:
    """Multilayer perceptron 784-392-196-98-10 with ReLU.

    Returns:
        a network for images of shape (N, 1, 28, 28), 405,044 parameters.

    Source: the lecture's demonstration of GPUs (chapter 2).
    """
    return mlp([784, 392, 196, 98, 10])


def lenet() -> nn.Module:
    """LeNet with ReLU and max pooling.

    Returns:
        a network for images of shape (N, 1, 28, 28), 61,706 parameters.

    Source: the lecture's demonstration of LeNet (chapter 3).
    """
    return LeNet()


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("logistic-regression-mnist", "mnist", 64, 0.02, 10, logistic_regression),
        Recipe("mlp-mnist", "mnist", 64, 0.02, 10, perceptron),
        Recipe("lenet-mnist", "mnist", 64, 0.02, 10, lenet),
    )
}


def find(name: str) -> Recipe:
    """Find a recipe by its name.

    Args:
        name: one of RECIPES.

    Returns:
        the recipe.

    Raises:
        ValueError: if there is none; the message lists those that there are.

    Source: the book's own convention.

    >>> find("lenet-mnist").batch_size
    64
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]


def load(
    recipe: Recipe, published: bool = True
) -> tuple[LabelledImages, LabelledImages]:
    """Load the images that a recipe is about.

    Args:
        recipe: the recipe.
        published: whether only the published files will do.

    Returns:
        training and test images, uint8 of shape (N, C, H, W); MFDNN_DATA says
        whether from the embedded or the full set.

    Raises:
        DataError: if they are not to be had.

    Source: the book's own convention.
    """
    train, test = (
        image_set(recipe.data, split, published=published)
        for split in ("train", "test")
    )
    return train, test


def prepare(
    recipe: Recipe, train: LabelledImages, seed: int, where: torch.device
) -> tuple[nn.Module, Batches, Optimizer]:
    """Make all that is trained, from the seed alone.

    Args:
        recipe: the recipe.
        train: training images, uint8 of shape (N, C, H, W).
        seed: of initial weights and of the order of the batches.
        where: the device.

    Returns:
        the network, the shuffled batches (x, y) of pixels in [0, 1] and class
        indices, both on the device, and the optimizer.

    Source: the book's own convention.
    """
    order = device.seed(seed)
    model = device.place(recipe.build(), where)
    train = train.to(where)
    batches = Batches(to_unit(train.images), train.labels, recipe.batch_size, order)
    return model, batches, SGD(model.parameters(), lr=recipe.lr, momentum=MOMENTUM)


def first_losses(recipe: Recipe, train: LabelledImages, seed: int) -> list[float]:
    """Take the first two steps of a recipe; a record keeps what they gave.

    Args:
        recipe: the recipe.
        train: training images, uint8 of shape (N, C, H, W), at least two batches.
        seed: the seed.

    Returns:
        the losses before step 1 and before step 2, computed on the CPU in
        float32, shape (2,).

    Source: the book's own convention.
    """
    model, batches, optimizer = prepare(recipe, train, seed, torch.device("cpu"))
    losses = []
    for x, y in batches:
        history = fit(model, cross_entropy, [(x, y)], optimizer, 1, progress=False)
        losses += history["loss"]
        if len(losses) == 2:
            break
    return losses


def run(
    recipe: Recipe,
    sets: tuple[LabelledImages, LabelledImages],
    seed: int = 0,
    where: torch.device | None = None,
    *,
    precision: str = "fp32",
    checkpoint: str | Path | None = None,
) -> dict[str, object]:
    """Train a recipe from begin to end, or from its checkpoint on.

    Args:
        recipe: the recipe.
        sets: training and test images, uint8 of shape (N, C, H, W).
        seed: of initial weights and of the order of the batches.
        where: the device; None for the best one.
        precision: of the forward pass, "fp32" or "bf16".
        checkpoint: file to save after each epoch, and to resume when it exists.

    Returns:
        the record of the run, see `mfdnn.records`.

    Raises:
        DivergenceError: if the loss becomes infinite or NaN.
        CheckpointError: if the checkpoint is of another run, or damaged.

    Source: the book's own convention.
    """
    train, test = sets
    where = where or device.choose()
    settings = {
        "data": recipe.data,
        "batch_size": recipe.batch_size,
        "lr": recipe.lr,
        "momentum": MOMENTUM,
        "epochs": recipe.epochs,
        "precision": precision,
        "processes": distributed.processes(),
        "threads": torch.get_num_threads(),
    }
    begin = first_losses(recipe, train, seed)
    model, batches, optimizer = prepare(recipe, train, seed, where)
    settings["parameters"] = count_parameters(model)
    exam = test.to(where)
    exam_batches = Batches(to_unit(exam.images), exam.labels, 1000)
    metrics: dict[str, Callable[[Tensor, Tensor], Tensor]]
    metrics = {"test_loss": cross_entropy, "test_accuracy": accuracy}
    parallel, parts = distributed.split(model, batches)
    about = f"{recipe.name}, seed {seed}, {train.name}, {settings}"
    history = fit(
        parallel,
        cross_entropy,
        parts,
        optimizer,
        recipe.epochs,
        validate=lambda: evaluate(model, exam_batches, metrics),
        checkpoint=Checkpoint(checkpoint, about) if checkpoint else None,
        precision=precision,
    )
    seconds = sum(history.seconds)
    return {
        "recipe": recipe.name,
        "about": recipe.about,
        "configuration": settings,
        "seed": seed,
        "data": {"train": records.facts(train), "test": records.facts(test)},
        "device": records.describe(where),
        "versions": records.versions(),
        "wall_time_s": round(seconds, 3),
        "images_per_s": round(len(train) * len(history) / seconds, 1),
        "first_losses": begin,
        "curves": history.curves,
        "final": {name: values[-1] for name, values in history.curves.items()},
    }
