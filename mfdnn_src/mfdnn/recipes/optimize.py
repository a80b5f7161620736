"""Optimizers and schedules from a recipe's settings."""

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Optimizer
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
    if settings["schedule"] == "constant":
        return optimizer, None
    if settings["schedule"] == "cosine":
        return optimizer, CosineAnnealingLR(optimizer, steps)
    if settings["schedule"] == "one-cycle":
        return optimizer, OneCycleLR(
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
