"""What a full-scale experiment is, and how it is run.

A `Recipe` is a few plain facts. Its `Task` says what they mean: which tensors, which
learner, which metrics. `run` trains and returns a record of what happened.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from mfdnn import distributed
from mfdnn.checkpoint import Checkpoint
from mfdnn.data import Batches, DataSet, image_set
from mfdnn.data.batches import Transform
from mfdnn.device import Compute, arithmetic, choose, seeded
from mfdnn.measure import count_parameters
from mfdnn.records import DataFacts, Metric, Record, describe, versions
from mfdnn.train import Learner, Supervised, loop

Setting = float | str | bool
Settings = Mapping[str, Setting]


@dataclass(frozen=True)
class Plan:
    """What a task is given to make its learner of.

    Args:
        settings: the recipe's.
        compute: where and how the learner is computed.
        steps: how many steps the whole run has.
        generator: a CPU generator, for draws that a step needs (noise, samples). The
            order of the batches comes from it too. Initial weights come from torch's
            global generators, which are seeded.
        train: the tensors of the training batches, for what is fixed by data; none
            where a network is only to be counted.
    """

    settings: Settings
    compute: Compute
    steps: int
    generator: Generator
    train: tuple[Tensor, ...] = ()


class Task(ABC):
    """A kind of experiment: what is learned from the data, and how it is measured.

    A task is one module of this package; see `mfdnn.recipes.classify` for one.
    """

    #: The settings that a recipe of this kind must have, and their types.
    settings: ClassVar[Mapping[str, type]]
    #: What it measures, by name.
    metrics: ClassVar[Mapping[str, Metric]]
    #: How many images of its picture stand in a row.
    columns: ClassVar[int] = 8

    def load(
        self, data: str, where: str | Path | None = None, published: bool = True
    ) -> tuple[DataSet, DataSet]:
        """Load training and test data; by default the images of that name.

        Args:
            data: the name of the set.
            where: "embedded", "full" or a folder, see `image_set`.
            published: whether only the published files will do.

        Raises:
            DataError: if they are not to be had.
        """
        train, test = (
            image_set(data, split, where, published) for split in ("train", "test")
        )
        return train, test

    @abstractmethod
    def tensors(self, data: DataSet, settings: Settings) -> tuple[Tensor, ...]:
        """The tensors of which training batches are made, shapes (N, ...)."""

    def transform(self, settings: Settings) -> Transform | None:
        """What is done to each training batch."""
        return None

    @abstractmethod
    def learner(self, plan: Plan) -> Learner:
        """Make what is trained, its networks on the plan's device."""

    @abstractmethod
    def evaluate(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """Measure a learner on the whole test set, which is on its device."""

    def examine(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """Measure what takes too long after each epoch: at the end only."""
        return {}

    def sample(
        self, learner: Learner, test: DataSet, generator: Generator
    ) -> Tensor | None:
        """Make a picture for the record: images (N, C, H, W) in [0, 1], or nothing."""
        return None


@dataclass(frozen=True)
class Recipe:
    """A full-scale experiment, as plain facts that all land in its record.

    Args:
        name: what `mfdnn train` calls it.
        about: what is trained, in a sentence.
        data: the name of the data.
        task: what is done with them.
        epochs: passes over the training data.
        batch_size: examples a step, over all processes together.
        headline: the metric that the record is quoted by.
        settings: what the task needs to know.

    Raises:
        ValueError: if a setting is missing, unknown or of the wrong type, or if the
            task does not measure the headline.
    """

    name: str
    about: str
    data: str
    task: Task
    epochs: int
    batch_size: int
    headline: str
    settings: Settings

    def __post_init__(self) -> None:
        wanted = self.task.settings
        if missing := sorted(wanted.keys() - self.settings.keys()):
            raise ValueError(f"recipe {self.name} misses the setting {missing[0]!r}")
        if unknown := sorted(self.settings.keys() - wanted.keys()):
            raise ValueError(
                f"recipe {self.name} has an unknown setting {unknown[0]!r}; "
                f"there are {', '.join(wanted)}"
            )
        for name, kind in wanted.items():
            value = self.settings[name]
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise ValueError(
                    f"recipe {self.name}: {name} is a {kind.__name__}, not {value!r}"
                )
        ordered = {name: self.settings[name] for name in wanted}
        object.__setattr__(self, "settings", ordered)
        if self.headline not in self.task.metrics:
            raise ValueError(
                f"recipe {self.name} is quoted by {self.headline!r}, but its task "
                f"measures {', '.join(self.task.metrics)}"
            )
        if min(self.epochs, self.batch_size) < 1:
            raise ValueError(f"recipe {self.name}: epochs and batch size are positive")

    def load(
        self, where: str | Path | None = None, published: bool = True
    ) -> tuple[DataSet, DataSet]:
        """Load training and test data, see `Task.load`."""
        return self.task.load(self.data, where, published)


@dataclass(frozen=True)
class Result:
    """What a run gives: its record, and images (N, C, H, W) in [0, 1] if it has any."""

    record: Record
    picture: Tensor | None


def run(
    recipe: Recipe,
    sets: tuple[DataSet, DataSet],
    seed: int = 0,
    compute: Compute | None = None,
    *,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> Result:
    """Train a recipe from begin to end, or from its checkpoint on.

    The global generators are afterwards as before.

    Args:
        recipe: the recipe.
        sets: training and test data.
        seed: of initial weights, of the order of the batches and of all other draws.
        compute: where and how; None for the best device in fp32.
        checkpoint: file to save after each epoch, and to resume when it exists.
        progress: whether to show a bar; None shows it on a terminal only.

    Returns:
        the record of the run, and its picture.

    Raises:
        DivergenceError: if a loss becomes infinite or NaN.
        CheckpointError: if the checkpoint is of another run, or damaged.
        ValueError: if several processes train something else than one network.
    """
    train, test = sets
    compute = compute or Compute(choose())
    exam = test.to(compute.device)
    begin = first_steps(recipe, train, seed)
    with seeded(seed) as generator, arithmetic(compute.precision):
        learner, batches = prepare(recipe, train, compute, generator)
        parameters = {
            name: count_parameters(network)
            for name, network in learner.networks.items()
        }
        facts = {
            "recipe": recipe.name,
            "about": recipe.about,
            "task": type(recipe.task).__name__,
            "seed": seed,
            "data": {"train": DataFacts.of(train), "test": DataFacts.of(test)},
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "settings": dict(recipe.settings),
            "compute": _facts(compute),
            "parameters": parameters,
        }
        if distributed.processes() > 1:
            learner, batches = _split(learner, batches)
        history = loop(
            learner,
            batches,
            recipe.epochs,
            validate=lambda: recipe.task.evaluate(learner, exam),
            checkpoint=Checkpoint(checkpoint, str(facts)) if checkpoint else None,
            progress=progress,
        )
        once = recipe.task.examine(learner, exam)
        picture = recipe.task.sample(learner, exam, generator)
    seconds = sum(history.seconds)
    record = Record(
        **facts,  # type: ignore[arg-type]
        headline=recipe.headline,
        metrics=dict(recipe.task.metrics),
        device=describe(compute.device),
        versions=versions(),
        seconds=round(seconds, 3),
        examples_per_s=round(len(train) * len(history) / seconds, 1),
        first_steps=begin,
        curves=history.curves,
        final={name: values[-1] for name, values in history.curves.items()} | once,
    )
    return Result(record, picture)


def prepare(
    recipe: Recipe, train: DataSet, compute: Compute, generator: Generator
) -> tuple[Learner, Batches]:
    """Make all that is trained; the global generators are seeded before.

    Args:
        recipe: the recipe.
        train: training data.
        compute: where and how.
        generator: of the order of the batches, and of the draws of a step.

    Returns:
        the learner and the shuffled batches, both on the device.
    """
    task, settings = recipe.task, recipe.settings
    steps = recipe.epochs * -(-len(train) // recipe.batch_size)
    tensors = task.tensors(train.to(compute.device), settings)
    learner = task.learner(Plan(settings, compute, steps, generator, tensors))
    batches = Batches(
        *tensors,
        batch_size=recipe.batch_size,
        generator=generator,
        transform=task.transform(settings),
    )
    return learner, batches


def first_steps(recipe: Recipe, train: DataSet, seed: int) -> dict[str, list[float]]:
    """Take the first two steps of a recipe; a record keeps what they gave.

    Args:
        recipe: the recipe.
        train: training data, at least two batches.
        seed: the seed.

    Returns:
        what steps 1 and 2 returned by name, two numbers each, computed on the CPU in
        float32.
    """
    with seeded(seed) as generator:
        compute = Compute(torch.device("cpu"))
        learner, batches = prepare(recipe, train, compute, generator)
        found: dict[str, list[float]] = {}
        for batch in islice(batches, 2):
            history = loop(learner, [batch], 1, progress=False)
            for name, values in history.curves.items():
                found.setdefault(name, []).extend(values)
    return found


def _facts(compute: Compute) -> dict[str, Any]:
    return {
        "precision": compute.precision,
        "channels_last": compute.channels_last,
        "compiled": compute.compiled,
        "processes": distributed.processes(),
        "threads": torch.get_num_threads(),
    }


def _split(learner: Learner, batches: Batches) -> tuple[Learner, Any]:
    """Give this process its part of the work."""
    if not isinstance(learner, Supervised):
        raise ValueError("several processes can train one network with one loss only")
    learner.model, parts = distributed.split(learner.model, batches)
    return learner, parts
