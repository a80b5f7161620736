"""Optimizers and schedules from a recipe's settings."""

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from mfdnn.recipes.recipe import Settings

#: The settings that `sgd` reads, and their types.
SGD_SETTINGS = {
    "lr": float,  # the learning rate
    "momentum": float,  # the factor of the velocity in each step, 0 for plain SGD
    "weight_decay": float,  # the factor of theta that is added to each gradient
    #: "constant"; "cosine": half a period, down to 0 at the end; or "one-cycle": up to
    #: lr on a straight line for a quarter of the steps, then down to 0 on another one
    "schedule": str,
}
#: The settings that `adam` reads, and their types.
ADAM_SETTINGS = {name: SGD_SETTINGS[name] for name in ("lr", "schedule")}


def sgd(
    parameters: Iterable[nn.Parameter], settings: Settings, steps: int
) -> tuple[Optimizer, LRScheduler | None]:
    """Make SGD and the schedule of its learning rate (lecture topics 3.28, 3.43, 3.53).

    Args:
        parameters: what it moves.
        settings: see `SGD_SETTINGS`.
        steps: how many steps the run has.

    Returns:
        the optimizer, and the scheduler to be stepped after every step; None for a
        constant rate.

    Raises:
        ValueError: if there is no schedule of that name.
    """
    optimizer = SGD(
        parameters,
        lr=float(settings["lr"]),
        momentum=float(settings["momentum"]),
        weight_decay=float(settings["weight_decay"]),
    )
    return optimizer, _schedule(optimizer, settings, steps)


def adam(
    parameters: Iterable[nn.Parameter], settings: Settings, steps: int
) -> tuple[Optimizer, LRScheduler | None]:
    """Make Adam and the schedule of its learning rate (lecture topic 3.45).

    Arguments, results and errors as of `sgd`, settings of `ADAM_SETTINGS`.
    """
    optimizer = Adam(parameters, lr=float(settings["lr"]))
    return optimizer, _schedule(optimizer, settings, steps)


def _schedule(
    optimizer: Optimizer, settings: Settings, steps: int
) -> LRScheduler | None:
    """The scheduler that the settings name, to be stepped after every step."""
    if settings["schedule"] == "constant":
        return None
    if settings["schedule"] == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    if settings["schedule"] == "one-cycle":
        return OneCycleLR(
            optimizer,
            float(settings["lr"]),
            total_steps=steps,
            pct_start=0.25,
            anneal_strategy="linear",
            cycle_momentum=False,
        )
    raise ValueError(
        f"schedule is constant, cosine or one-cycle, not {settings['schedule']!r}"
    )
