"""Gradient descent and its stochastic relatives, as chapter 1 defines them.

The pages of chapter 1 write these loops out; later pages import them from here.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def gradient_descent(
    grad: Callable[[Tensor], Tensor], theta: Tensor, alpha: float, steps: int
) -> Tensor:
    """Run gradient descent with a constant learning rate.

    Args:
        grad: maps a point of shape (p,) to the gradient there, shape (p,).
        theta: the starting point, shape (p,).
        alpha: the learning rate, positive.
        steps: how many steps K to take.

    Returns:
        all iterates theta^0, ..., theta^K, shape (K + 1, p).

    Raises:
        ValueError: if alpha is not positive.

    Source: lecture topic 1.09 (Cauchy, 1847).
    """
    if not alpha > 0:
        raise ValueError(f"the learning rate must be positive, not {alpha}")
    iterates = [theta]
    for _ in range(steps):
        theta = theta - alpha * grad(theta)
        iterates.append(theta)
    return torch.stack(iterates)


def stochastic_gradient_descent(
    grad: Callable[[Tensor, Tensor], Tensor],
    theta: Tensor,
    alpha: float | Callable[[int], float],
    batches: Iterable[Tensor],
) -> Tensor:
    """Run (minibatch) SGD over a given sequence of index batches.

    The batches decide the variant: independent draws give SGD, consecutive
    pieces of a permutation give shuffled cyclic SGD.

    Args:
        grad: maps a point of shape (p,) and indices of shape (B,) to the mean
            of the gradients of the terms with these indices, shape (p,).
        theta: the starting point, shape (p,).
        alpha: the learning rate, a number or a function of the step k = 0, 1, ...
        batches: the index batches, in the order of use.

    Returns:
        all iterates theta^0, ..., theta^K, shape (K + 1, p), where K is the
        number of batches.

    Source: lecture topics 1.21, 1.27, 1.31 (Robbins and Monro, 1951).
    """
    iterates = [theta]
    for k, batch in enumerate(batches):
        alpha_k = alpha(k) if callable(alpha) else alpha
        theta = theta - alpha_k * grad(theta, batch)
        iterates.append(theta)
    return torch.stack(iterates)
