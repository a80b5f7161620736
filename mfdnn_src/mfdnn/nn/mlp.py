"""Multilayer perceptrons."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Build a multilayer perceptron: linear layers with ReLU between them.

    Args:
        sizes: numbers of features, from the input to the output. Two sizes give
            a linear model, for instance softmax regression.

    Returns:
        a module that maps shape (N, ...) with ``sizes[0]`` numbers an example to
        shape (N, sizes[-1]); there is no activation after the last layer.

    Raises:
        ValueError: if there are fewer than two sizes or one is not positive.

    Source: lecture topic 2.30.

    >>> mlp([784, 64, 10])
    Sequential(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=784, out_features=64, bias=True)
      (2): ReLU()
      (3): Linear(in_features=64, out_features=10, bias=True)
    )
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"an MLP needs two or more positive sizes, not {list(sizes)}")
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
