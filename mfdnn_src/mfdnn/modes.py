"""Training and evaluation mode, put back part by part."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def kept(*models: nn.Module) -> Iterator[None]:
    """Put every part of the models back into its mode when the block ends."""
    before = {part: part.training for model in models for part in model.modules()}
    try:
        yield
    finally:
        _set(before)


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Run a block in evaluation mode."""
    with kept(*models):
        for model in models:
            model.eval()
        yield


@contextmanager
def training(*models: nn.Module) -> Iterator[Callable[[], None]]:
    """Run a block in training mode, frozen parts excepted.

    In a model that is in training mode a part in evaluation mode, such as a batch
    normalization with frozen statistics, stays in it. A model that is in evaluation
    mode as a whole is put into training mode as a whole.

    Yields:
        a function that sets these modes again, should something have changed them.
    """
    with kept(*models):
        for model in models:
            if not model.training:
                model.train()
        wanted = {part: part.training for model in models for part in model.modules()}
        yield lambda: _set(wanted)


def _set(modes: dict[nn.Module, bool]) -> None:
    for part, mode in modes.items():
        part.training = mode
