"""Files that hold all that a run needs to go on as if never interrupted."""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mfdnn import distributed
from mfdnn.errors import CheckpointError
from mfdnn.files import replacing

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
#: What moves while a scheduler runs; all else in its state was asked for.
MOVING = {
    "last_epoch",
    "_step_count",
    "_last_lr",
    "_get_lr_called_within_step",
    "_is_initial",
    "best",
    "num_bad_epochs",
    "cooldown_counter",
}
#: What a cyclic schedule of the momentum moves as well.
CYCLED = {"momentum", "betas"}


@dataclass
class History:
    """What was measured, one number an epoch.

    Args:
        curves: for each name (such as "loss") the values of epochs 1, 2, ..., each
            list of shape (number of epochs,).
        seconds: how long each epoch's steps took, without the validation. Two
            histories are equal when their curves are.
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
            values: the same names in every epoch, each with a number.
            seconds: how long the epoch took.

        Raises:
            ValueError: if the names are not those of the epochs before.
        """
        if self.seconds and set(values) != set(self.curves):
            raise ValueError(f"curves {sorted(values)}, before {sorted(self.curves)}")
        for name, value in values.items():
            self.curves.setdefault(name, []).append(float(value))
        self.seconds.append(seconds)


class Checkpoint:
    """A file that holds all that a run needs to go on as if never interrupted.

    Networks, optimizers, schedules, history and the state of every random generator,
    written at the end of an epoch to a temporary file that then takes the
    checkpoint's name: after `kill -9` at any moment the file is that of the last
    finished epoch, and a run that resumes there ends with the same bits on the
    same machine and number of threads.

    What is resumed must be what was asked for: a checkpoint of another run, another
    kind of optimizer or schedule, or other settings of it (learning rate, momentum,
    weight decay, length of the schedule) is refused.

    Args:
        path: where the file is; folders are made.
        run: what identifies the run, such as its settings.
        every: save after every so many epochs.
    """

    def __init__(self, path: str | Path, run: str = "", every: int = 1) -> None:
        self.path, self.run, self.every = Path(path), run, every

    def save(self, parts: Mapping[str, Any], history: History) -> None:
        """Write the state of all parts; process 0 does, the others wait for it.

        Args:
            parts: objects with `state_dict`, or generators, or None.
            history: of the run so far.
        """
        if len(history) % self.every:
            return
        if distributed.rank() == 0:
            state = {
                "parts": {name: _state(part) for name, part in parts.items()},
                "asked": {name: asked(part) for name, part in parts.items()},
                "run": self.run,
                "history": asdict(history),
                "random": _random(),
            }
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as file:
                torch.save(state, file)
        distributed.wait()

    def load(self, parts: Mapping[str, Any]) -> History:
        """Put the saved state into all parts, if there is a saved state.

        Args:
            parts: as for `save`, their tensors of the same shapes.

        Returns:
            the history of the run so far; an empty one without a file.

        Raises:
            CheckpointError: if the file is damaged, of another run, or made with
                other settings than those of the parts.
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
            before = dict(state["asked"])
        except DAMAGE as error:
            raise CheckpointError(f"{self.path} is damaged. {advice}") from error
        if run != self.run:
            raise CheckpointError(
                f"{self.path} is of another run ({run}, not {self.run}). {advice}"
            )
        now = {name: asked(part) for name, part in parts.items()}
        if difference := _difference(before, now):
            raise CheckpointError(f"{self.path} has {difference}. {advice}")
        try:
            for name, part in parts.items():
                _set_state(part, state["parts"][name])
        except DAMAGE as error:
            raise CheckpointError(
                f"{self.path} does not fit this model. {advice}"
            ) from error
        _set_random(state["random"])
        return history


def asked(part: Any) -> dict[str, Any]:
    """What a user chose when making a part: its kind and its settings.

    Args:
        part: an optimizer, a schedule, or anything else, of which the kind alone
            is looked at unless it is a network.

    Returns:
        plain values by name, the same before, while and after the part is used.
    """
    if isinstance(part, Optimizer):
        found: dict[str, Any] = {"kind": type(part).__name__}
        for number, group in enumerate(part.param_groups):
            chosen = dict(group)
            chosen["lr"] = chosen.get("initial_lr", chosen["lr"])
            cycled = CYCLED if "max_momentum" in group else set()
            where = f" of group {number}" if number else ""
            for name in sorted(chosen.keys() - cycled - {"params", "initial_lr"}):
                found[name + where] = _plain(chosen[name])
        return found
    if isinstance(part, LRScheduler):
        state = {k: v for k, v in part.state_dict().items() if k not in MOVING}
        return {"kind": type(part).__name__} | {k: _plain(v) for k, v in state.items()}
    return {}


def _plain(value: Any) -> Any:
    """A value as numbers and texts that can be compared."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items() if k not in MOVING}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else type(value).__name__


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first setting that is not what it was, in words; empty if all are."""
    for name in now:
        if name not in before:
            return f"no {name}"
        old, new = before[name], now[name]
        for key in [*new, *old]:
            if old.get(key) != new.get(key):
                return f"{name} with {key} {old.get(key)}, not {new.get(key)}"
    return ""


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
