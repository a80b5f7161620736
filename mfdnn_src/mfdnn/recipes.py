"""The full-scale experiments of the book, each a few plain facts and a network."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from mfdnn import device, distributed, records
from mfdnn.data import Batches, LabelledImages, augment, image_set, to_unit, two_classes
from mfdnn.measure import accuracy, count_parameters
from mfdnn.nn import AlexNetCIFAR10, LeNet, mlp
from mfdnn.train import Checkpoint, evaluate, fit


@dataclass(frozen=True)
class Settings:
    """How SGD is run.

    Args:
        batch_size: examples a step, over all processes together.
        lr: the learning rate.
        epochs: passes over the training images.
        momentum: the factor of the velocity in each step, 0 for plain SGD.
        weight_decay: the factor of theta that is added to each gradient.
        schedule: "constant", or "cosine" for half a period, down to 0 at the end.

    Raises:
        ValueError: if there is no schedule of that name.

    Source: lecture topics 3.28, 3.43 and 3.53.
    """

    batch_size: int
    lr: float
    epochs: int
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"

    def __post_init__(self) -> None:
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule is constant or cosine, not {self.schedule!r}")


@dataclass(frozen=True)
class Recipe:
    """A classification experiment: images with pixels in [0, 1], trained by SGD.

    With ten classes the loss is the cross entropy of ten logits. With a pair of
    classes it is log(1 + exp(-y f)) of one score f and a label y of -1 or +1.

    Args:
        name: what `mfdnn train` calls it.
        data: the set of images, a name that `image_set` knows.
        settings: how SGD is run.
        build: makes the network, from images (N, C, H, W) to logits (N, 10), or
            to scores (N, 1) for a pair of classes.
        pair: the positions, among the ten, of the class with y = -1 and of the
            class with y = +1; empty for all ten classes.
        augment: whether training images are mirrored at random, padded by 4 pixels
            and cropped at random.

    Source: the book's own convention.
    """

    name: str
    data: str
    settings: Settings
    build: Callable[[], nn.Module]
    pair: tuple[int, ...] = ()
    augment: bool = False

    @property
    def about(self) -> str:
        """What is trained, in a line."""
        return (self.build.__doc__ or "").strip().partition("\n")[0]

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


def logistic_digits() -> nn.Module:
    """Logistic regression of two digits, 4 and 9, one linear layer 784-1.

    Returns:
        a network for images of shape (N, 1, 28, 28), 785 parameters.

    Source: lecture topic 2.25.
    """
    return mlp([784, 1])


def logistic_color() -> nn.Module:
    """Logistic regression of airplane and automobile, one linear layer 3072-1.

    Returns:
        a network for images of shape (N, 3, 32, 32), 3,073 parameters.

    Source: lecture topic 2.25.
    """
    return mlp([3072, 1])


def perceptron_color() -> nn.Module:
    """Multilayer perceptron of airplane and automobile, 3072-1536-768-384-1.

    Returns:
        a network for images of shape (N, 3, 32, 32), 6,196,225 parameters.

    Source: lecture topic 2.31.
    """
    return mlp([3072, 1536, 768, 384, 1])


def softmax_regression() -> nn.Module:
    """Softmax regression of ten digits, one linear layer 784-10.

    Returns:
        a network for images of shape (N, 1, 28, 28), 7,850 parameters.

    Source: lecture topic 2.37.
    """
    return mlp([784, 10])


def perceptron() -> nn.Module:
    """Multilayer perceptron 784-392-196-98-10 with ReLU.

    Returns:
        a network for images of shape (N, 1, 28, 28), 405,044 parameters.

    Source: lecture topic 2.46.
    """
    return mlp([784, 392, 196, 98, 10])


def lenet_color() -> nn.Module:
    """LeNet with ReLU and max pooling, three input channels, no padding.

    Returns:
        a network for images of shape (N, 3, 32, 32), 62,006 parameters.

    Source: lecture topic 3.15.
    """
    return LeNet(channels=3)


def alexnet_color() -> nn.Module:
    """AlexNet for images of 32x32 pixels.

    Returns:
        a network for images of shape (N, 3, 32, 32), 58,375,114 parameters.

    Source: lecture topic 3.40.
    """
    return AlexNetCIFAR10()


def lenet() -> nn.Module:
    """LeNet with ReLU and max pooling.

    Returns:
        a network for images of shape (N, 1, 28, 28), 61,706 parameters.

    Source: lecture topic 3.12.
    """
    return LeNet()


#: Keeps the class of photographs, and of few digits.
AUGMENTATION = augment.Chain(augment.Flip(), augment.PadCrop(4), augment.to_unit)

USUAL = Settings(batch_size=64, lr=0.02, epochs=10)
LINEAR_COLOR = Settings(batch_size=64, lr=0.002, epochs=20)
LENET = Settings(batch_size=64, lr=0.02, epochs=20, schedule="cosine")
ALEXNET = Settings(
    batch_size=128, lr=0.02, epochs=60, weight_decay=5e-4, schedule="cosine"
)
LENET_COLOR = Settings(
    batch_size=128, lr=0.05, epochs=60, weight_decay=5e-4, schedule="cosine"
)
DEEP_COLOR = Settings(batch_size=64, lr=0.01, epochs=20)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("logistic-regression-mnist", "mnist", USUAL, logistic_digits, (4, 9)),
        Recipe(
            "logistic-regression-cifar10",
            "cifar10",
            LINEAR_COLOR,
            logistic_color,
            (0, 1),
        ),
        Recipe("mlp-binary-cifar10", "cifar10", DEEP_COLOR, perceptron_color, (0, 1)),
        Recipe("softmax-regression-mnist", "mnist", USUAL, softmax_regression),
        Recipe("mlp-mnist", "mnist", USUAL, perceptron),
        Recipe("lenet-mnist", "mnist", LENET, lenet),
        Recipe("lenet-cifar10", "cifar10", LENET_COLOR, lenet_color, augment=True),
        Recipe("alexnet-cifar10", "cifar10", ALEXNET, alexnet_color, augment=True),
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

    >>> find("lenet-mnist").settings.batch_size
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
    sets = [image_set(recipe.data, s, published=published) for s in ("train", "test")]
    if recipe.pair:
        sets = [two_classes(s, *(s.classes[i] for i in recipe.pair)) for s in sets]
    train, test = sets
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
    settings = recipe.settings
    batches = Batches(
        train.images if recipe.augment else to_unit(train.images),
        train.labels,
        settings.batch_size,
        order,
        transform=AUGMENTATION if recipe.augment else None,
    )
    optimizer = SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    return model, batches, optimizer


def scheduler(
    settings: Settings, optimizer: Optimizer, steps: int
) -> LRScheduler | None:
    """Make the schedule of the learning rate, in steps.

    Args:
        settings: how SGD is run.
        optimizer: whose learning rate it is.
        steps: how many steps an epoch has.

    Returns:
        the scheduler, to be stepped after every step, or None for a constant rate.

    Source: lecture topic 3.53.
    """
    if settings.schedule == "constant":
        return None
    return CosineAnnealingLR(optimizer, settings.epochs * steps)


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
        history = fit(model, recipe.loss, [(x, y)], optimizer, 1, progress=False)
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
        **asdict(recipe.settings),
        "augment": recipe.augment,
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
    metrics = {"test_loss": recipe.loss, "test_accuracy": recipe.accuracy}
    parallel, parts = distributed.split(model, batches)
    about = f"{recipe.name}, seed {seed}, {train.name}, {settings}"
    history = fit(
        parallel,
        recipe.loss,
        parts,
        optimizer,
        recipe.settings.epochs,
        scheduler=scheduler(recipe.settings, optimizer, len(batches)),
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
