"""Minibatches of tensors that stay where they are."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Generator, Tensor

#: Changes a batch (B, ...) with draws from a CPU generator, see `augment`.
Transform: TypeAlias = Callable[[Tensor, Generator | None], Tensor]


class Batches:
    """Minibatches of inputs and targets; each loop over them is one epoch.

    Inputs and targets stay on their device. With a generator every epoch follows
    a fresh permutation drawn from it, so saving and restoring the generator's
    state repeats the epochs; without one the order is that of the tensors.

    Args:
        inputs: shape (N, ...).
        targets: shape (N, ...), on the same device.
        batch_size: how many items a batch has; the last may have fewer.
        generator: a CPU generator for shuffling and for the transform, or None.
        transform: applied to the inputs of each batch on their device; it is
            handed the batch and the generator.

    Raises:
        ValueError: if the lengths or devices differ, the batch size is not
            positive, or the generator is not a CPU generator.

    Source: shuffled cyclic minibatches, lecture topics 1.36 and 1.37.

    >>> batches = Batches(torch.arange(5), torch.arange(5), batch_size=2)
    >>> len(batches), [x.tolist() for x, _ in batches]
    (3, [[0, 1], [2, 3], [4]])
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        batch_size: int,
        generator: Generator | None = None,
        transform: Transform | None = None,
    ) -> None:
        if len(inputs) != len(targets):
            raise ValueError(f"{len(inputs)} inputs but {len(targets)} targets")
        if inputs.device != targets.device:
            raise ValueError(
                f"inputs are on {inputs.device}, targets on {targets.device}"
            )
        if batch_size < 1:
            raise ValueError(f"the batch size must be positive, not {batch_size}")
        if generator is not None and generator.device.type != "cpu":
            raise ValueError("draws come from a CPU generator, on every device")
        self.inputs = inputs
        self.targets = targets
        self.batch_size = batch_size
        self.generator = generator
        self.transform = transform

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self._pieces():
            yield (
                (x if self.transform is None else self.transform(x, self.generator)),
                y,
            )

    def _pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.generator is None:
            pieces = zip(
                torch.split(self.inputs, self.batch_size),
                torch.split(self.targets, self.batch_size),
                strict=True,
            )
            yield from pieces
            return
        order = torch.randperm(len(self.inputs), generator=self.generator)
        for index in torch.split(order.to(self.inputs.device), self.batch_size):
            yield self.inputs[index], self.targets[index]
