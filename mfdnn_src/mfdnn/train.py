"""The training loop of every experiment of the book, and its short form `fit`.

`loop` knows no task: a `Learner` says what is trained and how one step goes. `fit`
is the loop for one network, one loss and one optimizer.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mfdnn import device, distributed, modes
from mfdnn.checkpoint import Checkpoint, History
from mfdnn.errors import CheckpointError, DivergenceError

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "DivergenceError",
    "History",
    "Learner",
    "Supervised",
    "evaluate",
    "fit",
    "loop",
    "patience",
]

#: One pass is an epoch; a batch is a sequence of tensors of shapes (B, ...).
BatchSource = Iterable[Sequence[Tensor]]


class Learner(Protocol):
    """What is trained, and how one step goes.

    A network with a loss is `Supervised`; a pair of networks that play against each
    other, or a density with an exact likelihood, is a class of a few lines.
    """

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The networks by name, to be counted, put into training mode, saved."""

    @property
    def state(self) -> Mapping[str, Any]:
        """What else a resumed run needs, as optimizers, schedules, generators."""

    def step(self, *batch: Tensor) -> Mapping[str, Tensor]:
        """Learn from one batch.

        Args:
            batch: tensors of shapes (B, ...).

        Returns:
            means over the batch by name, each of shape () and on the device; the
            same names in every step.
        """


class Supervised:
    """One network, one loss, one optimizer.

    Args:
        model: the network.
        loss: maps the model's output and y to the mean loss over the batch, shape ().
        optimizer: of the model's parameters.
        scheduler: stepped after every step, so its times count steps.
        forward: a context for the forward pass, such as `device.autocast`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Tensor], Tensor],
        optimizer: Optimizer,
        scheduler: LRScheduler | None = None,
        forward: AbstractContextManager[object] | None = None,
    ) -> None:
        self.model, self.loss = model, loss
        self.optimizer, self.scheduler = optimizer, scheduler
        self.forward = nullcontext() if forward is None else forward

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network, without the wrapper of several processes."""
        return {"model": distributed.plain(self.model)}

    @property
    def state(self) -> dict[str, Any]:
        """Optimizer and schedule."""
        return {"optimizer": self.optimizer, "scheduler": self.scheduler}

    def objective(self, *batch: Tensor) -> Tensor:
        """The loss of a batch (x, y), shape ()."""
        x, y = batch
        return self.loss(self.model(x), y)

    def step(self, *batch: Tensor) -> dict[str, Tensor]:
        """Compute the objective of a batch, its gradient, and move the weights."""
        with self.forward:
            value = self.objective(*batch)
        self.optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        return {"loss": value}


def loop(
    learner: Learner,
    batches: BatchSource,
    epochs: int,
    *,
    validate: Callable[[], Mapping[str, float]] | None = None,
    stop: Callable[[History], bool] | None = None,
    checkpoint: Checkpoint | None = None,
    progress: bool | None = None,
) -> History:
    """Let a learner learn, epoch by epoch.

    Nothing leaves the device before an epoch ends. Only then are the values looked
    at, so a loss of NaN stops the run at the end of its epoch. The networks are in
    training mode meanwhile, and afterwards in the modes that they had before; parts
    that are in evaluation mode, inside a network that is not, stay in it.

    Args:
        learner: what is trained, and how one step goes.
        batches: one epoch a pass, batches of tensors of shapes (B, ...). Their
            `generator`, if they have one, goes into the checkpoint.
        epochs: how many epochs in all, those of a resumed checkpoint included.
        validate: called after each epoch; what it returns joins the history.
        stop: looks at the history after each epoch and says whether to stop.
        checkpoint: saved after each epoch; an existing one is resumed.
        progress: whether to show a bar; None shows it on a terminal only.

    Returns:
        the history: for each name that the steps return the mean over all examples
        of the epoch, while the weights move, and the curves of `validate`.

    Raises:
        DivergenceError: if a value becomes infinite or NaN; names epoch and step.
        CheckpointError: if the checkpoint is damaged, of another run, or of one
            with other settings.
        ValueError: if there are no batches, or steps return different names.
    """
    parts = {
        **learner.networks,
        **learner.state,
        "generator": getattr(batches, "generator", None),
    }
    history = checkpoint.load(parts) if checkpoint else History()
    with modes.training(*learner.networks.values()) as set_modes:
        while len(history) < epochs and not (stop and stop(history)):
            start = time.perf_counter()
            steps: list[Mapping[str, Tensor]] = []
            sizes: list[int] = []
            set_modes()
            for batch in _bar(batches, len(history) + 1, progress):
                values = learner.step(*batch)
                steps.append({name: value.detach() for name, value in values.items()})
                sizes.append(len(batch[0]))
            means = _means(steps, sizes, len(history) + 1)
            seconds = time.perf_counter() - start
            history.append(means | dict(validate() if validate else {}), seconds)
            _report(history, epochs, progress)
            if checkpoint:
                checkpoint.save(parts, history)
    return history


def fit(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: BatchSource,
    optimizer: Optimizer,
    epochs: int,
    *,
    scheduler: LRScheduler | None = None,
    validate: Callable[[], Mapping[str, float]] | None = None,
    stop: Callable[[History], bool] | None = None,
    checkpoint: Checkpoint | None = None,
    precision: str = "fp32",
    progress: bool | None = None,
) -> History:
    """Train a model: for each batch a forward pass, a backward pass, a step.

    The short form of `loop` for one network, one loss and one optimizer.

    Args:
        model: the model; it is trained in place.
        loss: maps the model's output and y to the mean loss over the batch, shape ().
        batches: one epoch a pass, batches (x, y) of shapes (B, ...) on the model's
            device. Their `generator`, if they have one, goes into the checkpoint.
        optimizer: of the model's parameters.
        epochs: how many epochs in all, those of a resumed checkpoint included.
        scheduler: stepped after every step, so its times count steps.
        validate: called after each epoch; what it returns joins the history.
        stop: looks at the history after each epoch and says whether to stop.
        checkpoint: saved after each epoch; an existing one is resumed.
        precision: "fp32", "tf32" or "bf16", see `mfdnn.device.arithmetic`.
        progress: whether to show a bar; None shows it on a terminal only.

    Returns:
        the history: "loss", the mean over the epoch while the weights move, and
        the curves of `validate`.

    Raises:
        DivergenceError: if the loss becomes infinite or NaN; names epoch and step.
        CheckpointError: if the checkpoint is damaged, of another run, or of one
            with other settings.
    """
    where = next(model.parameters()).device
    forward = device.autocast(where, precision)
    learner = Supervised(model, loss, optimizer, scheduler, forward)
    with device.arithmetic(precision):
        return loop(
            learner,
            batches,
            epochs,
            validate=validate,
            stop=stop,
            checkpoint=checkpoint,
            progress=progress,
        )


def evaluate(
    model: nn.Module,
    batches: BatchSource,
    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor | float]],
) -> dict[str, float]:
    """Measure a model in evaluation mode, without gradients.

    Args:
        model: the model; every part of it is afterwards in the mode that it had.
        batches: one pass, batches (x, y) of shapes (B, ...) on the model's device.
        metrics: for each name a function of the model's output and y that gives a
            mean over the batch, shape ().

    Returns:
        for each name the mean over all examples.

    Raises:
        ValueError: if there is no batch.
    """
    sums: dict[str, Tensor | float] = dict.fromkeys(metrics, 0.0)
    total = 0
    with modes.evaluating(model), torch.inference_mode():
        for x, y in batches:
            output = model(x)
            total += len(x)
            for name, metric in metrics.items():
                sums[name] = sums[name] + _precise(metric(output, y)) * len(x)
    if total == 0:
        raise ValueError("there are no batches to evaluate the model on")
    return {name: float(value) / total for name, value in sums.items()}


def patience(
    curve: str, epochs: int, *, largest: bool = False
) -> Callable[[History], bool]:
    """Make a rule for early stopping, to be handed to `fit` as `stop`.

    Args:
        curve: which curve of the history to watch.
        epochs: stop when the best value is this many epochs old.
        largest: whether large values are good, as for an accuracy.

    Returns:
        a function that maps a history to whether to stop. It has no state of its
        own, so a resumed run stops where an uninterrupted one does.

    Raises:
        ValueError: if epochs is below 1.

    Source: Prechelt, "Early stopping -- but when?" (1998).
    """
    if epochs < 1:
        raise ValueError(f"patience lasts at least one epoch, not {epochs}")

    def stop(history: History) -> bool:
        if not len(history):
            return False
        values = history[curve]
        best = (max if largest else min)(values)
        return len(values) - 1 - values.index(best) >= epochs

    return stop


def _precise(value: Tensor | float) -> Tensor | float:
    """A number in float32 or better: sums of many in bfloat16 would drift."""
    if not isinstance(value, Tensor):
        return value
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _means(
    steps: Sequence[Mapping[str, Tensor]], sizes: list[int], epoch: int
) -> dict[str, float]:
    """The means over all examples of all processes; one transfer for each name."""
    if not steps:
        raise ValueError("there are no batches to train the model on")
    if any(values.keys() != steps[0].keys() for values in steps):
        raise ValueError("the steps of an epoch must all return the same names")
    means = {}
    for name in steps[0]:
        values = _precise(torch.stack([step[name] for step in steps]))
        assert isinstance(values, Tensor)
        weights = torch.tensor(sizes, dtype=values.dtype).to(values.device)
        sums = distributed.add_up(torch.stack([values * weights, weights])).tolist()
        for step, value in enumerate(sums[0], start=1):
            if not math.isfinite(value):
                what = "the loss" if name == "loss" else name
                raise DivergenceError(
                    f"{what} became {value} in epoch {epoch}, step {step} of "
                    f"{len(steps)}: try a smaller learning rate"
                )
        means[name] = sum(sums[0]) / sum(sums[1])
    return means


def _shown(progress: bool | None) -> bool:
    """Whether to show progress: when asked, or else on a terminal."""
    if progress is None:
        progress = sys.stderr is not None and sys.stderr.isatty()
    return progress and distributed.rank() == 0


def _bar(batches: BatchSource, epoch: int, progress: bool | None) -> BatchSource:
    """The batches, with a bar that vanishes when the epoch ends."""
    if not _shown(progress):
        return batches
    from tqdm.auto import tqdm

    bar: BatchSource = tqdm(batches, f"epoch {epoch}", leave=False, unit="step")
    return bar


def _report(history: History, epochs: int, progress: bool | None) -> None:
    """Say in one line what the last epoch brought."""
    if _shown(progress):
        values = ", ".join(f"{k} {v[-1]:.4g}" for k, v in history.curves.items())
        text = f"epoch {len(history)}/{epochs}: {values}, {history.seconds[-1]:.1f} s"
        print(text, file=sys.stderr)
