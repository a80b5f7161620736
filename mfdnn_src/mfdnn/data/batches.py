"""Minibatches of tensors that stay where they are."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Generator, Tensor

#: Changes a batch, tensors (B, ...), with draws from a CPU generator: see `augment`.
Transform: TypeAlias = Callable[
    [tuple[Tensor, ...], Generator | None], tuple[Tensor, ...]
]


class Batches:
    """Minibatches of any number of tensors; each loop over them is one epoch.

    The tensors stay on their device. With a generator every epoch follows a fresh
    permutation drawn from it, so saving and restoring the generator's state repeats
    the epochs; without one the order is that of the tensors.

    Args:
        tensors: one entry an example, shapes (N, ...), on one device: inputs and
            targets, images and masks, or points alone.
        batch_size: how many examples a batch has; the last may have fewer.
        generator: a CPU generator for shuffling and for the transform, or None.
        transform: applied to each batch on its device; it is handed all tensors of
            the batch and the generator, and returns as many of the same lengths.

    Raises:
        ValueError: if there is no tensor, the lengths or devices differ, the batch
            size is not positive, the generator is not a CPU generator, or, while a
            batch is made, if the transform returns anything else than it should.

    Source: shuffled cyclic minibatches, lecture topics 1.36 and 1.37.

    >>> batches = Batches(torch.arange(5), -torch.arange(5), batch_size=2)
    >>> len(batches), [(x.tolist(), y.tolist()) for x, y in batches]
    (3, [([0, 1], [0, -1]), ([2, 3], [-2, -3]), ([4], [-4])])
    """

    def __init__(
        self,
        *tensors: Tensor,
        batch_size: int,
        generator: Generator | None = None,
        transform: Transform | None = None,
    ) -> None:
        if not tensors or not all(isinstance(t, Tensor) for t in tensors):
            kinds = ", ".join(type(t).__name__ for t in tensors) or "nothing"
            raise ValueError(f"batches are made of tensors, not of {kinds}")
        lengths = [len(t) for t in tensors]
        if len(set(lengths)) > 1:
            raise ValueError(f"the tensors have {_listed(lengths)} entries")
        places = [str(t.device) for t in tensors]
        if len(set(places)) > 1:
            raise ValueError(f"the tensors are on {_listed(places)}")
        if batch_size < 1:
            raise ValueError(f"the batch size must be positive, not {batch_size}")
        if generator is not None and generator.device.type != "cpu":
            raise ValueError("draws come from a CPU generator, on every device")
        self.tensors = tensors
        self.batch_size = batch_size
        self.generator = generator
        self.transform = transform

    def __len__(self) -> int:
        return -(-len(self.tensors[0]) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for batch in self._pieces():
            yield batch if self.transform is None else self._changed(batch)

    def _pieces(self) -> Iterator[tuple[Tensor, ...]]:
        if self.generator is None:
            pieces = (torch.split(t, self.batch_size) for t in self.tensors)
            yield from zip(*pieces, strict=True)
            return
        first = self.tensors[0]
        order = torch.randperm(len(first), generator=self.generator)
        for index in torch.split(order.to(first.device), self.batch_size):
            yield tuple(tensor[index] for tensor in self.tensors)

    def _changed(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert self.transform is not None
        changed = self.transform(batch, self.generator)
        if not isinstance(changed, tuple) or len(changed) != len(batch):
            what = len(changed) if isinstance(changed, tuple) else type(changed)
            raise ValueError(
                f"the transform of a batch of {len(batch)} tensors must return a tuple "
                f"of as many, not {what}"
            )
        if any(len(t) != len(batch[0]) for t in changed):
            raise ValueError(
                f"the transform of a batch of {len(batch[0])} examples returned "
                f"{_listed([len(t) for t in changed])}"
            )
        return changed


def _listed(values: list[int] | list[str]) -> str:
    """Several values as words: 3, 4 and 5."""
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last
