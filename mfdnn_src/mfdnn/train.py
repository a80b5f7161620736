"""The training loop that a page shows once, with what a long run needs."""

import io
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mfdnn import device, distributed

#: Batches (x, y), one pass an epoch.
Pairs = Iterable[tuple[Tensor, Tensor]]

#: What torch.load and load_state_dict raise when a file is not what it should be.
DAMAGE = (
    BadZipFile,
    EOFError,
    KeyError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
)


class DivergenceError(ArithmeticError):
    """The loss became infinite or NaN."""


class CheckpointError(Exception):
    """A checkpoint is damaged, or belongs to another run."""


@dataclass
class History:
    """What was measured, one number an epoch.

    Args:
        curves: for each name ("loss" is always there) the values of epochs
            1, 2, ..., each list of shape (number of epochs,).
        seconds: how long each epoch's steps took, without the validation. Two
            histories are equal when their curves are.

    Source: the book's own convention.
    """

    curves: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list, compare=False)

    def __len__(self) -> int:
        return len(self.seconds)

    def __getitem__(self, name: str) -> list[float]:
        return self.curves[name]

    def append(self, values: Mapping[str, float], seconds: float) -> None:
        """Add an epoch.

        Args:
            values: the same names in every epoch, each with a number, shape ().
            seconds: how long the epoch took.

        Raises:
            ValueError: if the names are not those of the epochs before.

        Source: the book's own convention.
        """
        if self.seconds and set(values) != set(self.curves):
            raise ValueError(f"curves {sorted(values)}, before {sorted(self.curves)}")
        for name, value in values.items():
            self.curves.setdefault(name, []).append(float(value))
        self.seconds.append(seconds)


class Checkpoint:
    """A file that holds all that a run needs to go on as if never interrupted.

    Model, optimizer, scheduler, history and the state of every random generator,
    written at the end of an epoch to a temporary file that then takes the
    checkpoint's name: after `kill -9` at any moment the file is that of the last
    finished epoch, and a run that resumes there ends with the same bits on the
    same machine and number of threads.

    Args:
        path: where the file is; folders are made.
        run: what identifies the run, such as its settings. A checkpoint of
            another run is refused.
        every: save after every so many epochs.

    Raises:
        CheckpointError: on loading, if the file is damaged or of another run.

    Source: the book's own convention.
    """

    def __init__(self, path: str | Path, run: str = "", every: int = 1) -> None:
        self.path, self.run, self.every = Path(path), run, every

    def save(self, parts: Mapping[str, Any], history: History) -> None:
        """Write the state of all parts; process 0 does, the others wait for it.

        Args:
            parts: objects with `state_dict`, or generators, or None.
            history: of the run so far, shape (number of epochs,).

        Source: the book's own convention.
        """
        if len(history) % self.every:
            return
        if distributed.rank() == 0:
            state: dict[str, Any] = {k: _state(part) for k, part in parts.items()}
            state |= {"run": self.run, "history": asdict(history), "random": _random()}
            self._write(state)
        distributed.wait()

    def _write(self, state: Mapping[str, Any]) -> None:
        """Write a state to the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f"{self.path.name}.part")
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, parts: Mapping[str, Any]) -> History:
        """Put the saved state into all parts, if there is a saved state.

        Args:
            parts: as for `save`, their tensors of the same shapes.

        Returns:
            the history of the run so far; an empty one without a file.

        Raises:
            CheckpointError: if the file is damaged or of another run.

        Source: the book's own convention.
        """
        if not self.path.exists():
            return History()
        advice = f"Delete {self.path} to start anew."
        data = io.BytesIO(self.path.read_bytes())
        try:
            if broken := ZipFile(data).testzip():
                raise ValueError(f"the checksum of {broken} is wrong")
            data.seek(0)
            state = torch.load(data, map_location="cpu", weights_only=True)
            run, history = state["run"], History(**state["history"])
        except DAMAGE as error:
            raise CheckpointError(f"{self.path} is damaged. {advice}") from error
        if run != self.run:
            raise CheckpointError(
                f"{self.path} is of another run ({run}, not {self.run}). {advice}"
            )
        try:
            for name, part in parts.items():
                _set_state(part, state[name])
        except DAMAGE as error:
            raise CheckpointError(
                f"{self.path} does not fit this model. {advice}"
            ) from error
        _set_random(state["random"])
        return history


def _state(part: Any) -> Any:
    """The state of a part: of a generator, or of what has a state_dict."""
    if isinstance(part, torch.Generator):
        return part.get_state()
    return None if part is None else part.state_dict()


def _set_state(part: Any, state: Any) -> None:
    """Put a state back."""
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif part is not None:
        part.load_state_dict(state)


def _random() -> dict[str, Any]:
    """The states of torch's global generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random(state: Mapping[str, Any]) -> None:
    """Put them back."""
    torch.set_rng_state(state["cpu"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def fit(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Pairs,
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

    Nothing leaves the device before an epoch ends. Only then is the loss looked
    at, so a loss of NaN stops the run at the end of its epoch.

    Args:
        model: the model; it is trained in place, and left in training mode.
        loss: maps the model's output and y to the mean loss over the batch, shape ().
        batches: one epoch a pass, batches (x, y) of shapes (B, ...) on the model's
            device. Their `generator`, if they have one, goes into the checkpoint.
        optimizer: of the model's parameters.
        epochs: how many epochs in all, those of a resumed checkpoint included.
        scheduler: stepped after every step, so its times count steps.
        validate: called after each epoch; what it returns joins the history.
        stop: looks at the history after each epoch and says whether to stop.
        checkpoint: saved after each epoch; an existing one is resumed.
        precision: of the forward pass, "fp32" or "bf16".
        progress: whether to show a bar; None shows it on a terminal only.

    Returns:
        the history: "loss", the mean over the epoch while the weights move, and
        the curves of `validate`.

    Raises:
        DivergenceError: if the loss becomes infinite or NaN; names epoch and step.
        CheckpointError: if the checkpoint is damaged or of another run.

    Source: lecture topics 1.37 and 2.04; the loop is every textbook's.
    """
    parts = {
        "model": distributed.plain(model),
        "optimizer": optimizer,
        "scheduler": scheduler,
        "generator": getattr(batches, "generator", None),
    }
    history = checkpoint.load(parts) if checkpoint else History()
    context = device.autocast(next(model.parameters()).device, precision)
    while len(history) < epochs and not (stop and stop(history)):
        start = time.perf_counter()
        losses, sizes = [], []
        model.train()
        for x, y in _bar(batches, len(history) + 1, progress):
            with context:
                value = loss(model(x), y)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            losses.append(value.detach())
            sizes.append(len(x))
        values = {"loss": _mean_loss(losses, sizes, len(history) + 1)}
        seconds = time.perf_counter() - start
        history.append(values | dict(validate() if validate else {}), seconds)
        _report(history, epochs, progress)
        if checkpoint:
            checkpoint.save(parts, history)
    return history


def evaluate(
    model: nn.Module,
    batches: Pairs,
    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor | float]],
) -> dict[str, float]:
    """Measure a model in evaluation mode, without gradients.

    Args:
        model: the model; its mode is afterwards what it was before.
        batches: one pass, batches (x, y) of shapes (B, ...) on the model's device.
        metrics: for each name a function of the model's output and y that gives a
            mean over the batch, shape ().

    Returns:
        for each name the mean over all examples.

    Raises:
        ValueError: if there is no batch.

    Source: the book's own convention.
    """
    mode = model.training
    model.eval()
    sums: dict[str, Tensor | float] = dict.fromkeys(metrics, 0.0)
    total = 0
    with torch.inference_mode():
        for x, y in batches:
            output = model(x)
            total += len(x)
            for name, metric in metrics.items():
                sums[name] = sums[name] + metric(output, y) * len(x)
    model.train(mode)
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


def _mean_loss(losses: list[Tensor], sizes: list[int], epoch: int) -> float:
    """The mean over all examples of all processes; one transfer from the device."""
    if not losses:
        raise ValueError("there are no batches to train the model on")
    values = torch.stack(losses)
    weights = torch.tensor(sizes, dtype=values.dtype).to(values.device)
    sums = distributed.add_up(torch.stack([values * weights, weights])).tolist()
    for step, value in enumerate(sums[0], start=1):
        if not math.isfinite(value):
            raise DivergenceError(
                f"the loss became {value} in epoch {epoch}, step {step} of "
                f"{len(losses)}: try a smaller learning rate"
            )
    return float(sum(sums[0]) / sum(sums[1]))


def _shown(progress: bool | None) -> bool:
    """Whether to show progress: when asked, or else on a terminal."""
    if progress is None:
        progress = sys.stderr is not None and sys.stderr.isatty()
    return progress and distributed.rank() == 0


def _bar(batches: Pairs, epoch: int, progress: bool | None) -> Pairs:
    """The batches, with a bar that vanishes when the epoch ends."""
    if not _shown(progress):
        return batches
    from tqdm.auto import tqdm

    bar: Pairs = tqdm(batches, f"epoch {epoch}", leave=False, unit="step")
    return bar


def _report(history: History, epochs: int, progress: bool | None) -> None:
    """Say in one line what the last epoch brought."""
    if _shown(progress):
        values = ", ".join(f"{k} {v[-1]:.4g}" for k, v in history.curves.items())
        text = f"epoch {len(history)}/{epochs}: {values}, {history.seconds[-1]:.1f} s"
        print(text, file=sys.stderr)
