"""Linear maps that are given as functions: their matrices, and tests of adjoints.

Source: lecture topics 4.12 to 4.14.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def matrix_of(forward: Callable[[Tensor], Tensor], shape: Sequence[int]) -> Tensor:
    """Return the matrix of a linear map, column by column from unit vectors.

    Args:
        forward: the map, from one tensor of the shape to a tensor of any shape.
        shape: of its input, with n entries in all.

    Returns:
        shape (m, n), with m entries of the output; entries in row-major order.

    >>> matrix_of(lambda x: x[1:] - x[:-1], (3,))
    tensor([[-1.,  1.,  0.],
            [ 0., -1.,  1.]], dtype=torch.float64)
    """
    size = torch.Size(shape).numel()
    units = torch.eye(size, dtype=torch.float64)
    columns = [forward(unit.reshape(tuple(shape))).flatten() for unit in units]
    return torch.stack(columns, dim=1)


def adjoint_gap(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
) -> float:
    """Return how far two maps are from being adjoint, measured at one pair of vectors.

    Args:
        forward: a linear map A, from tensors like x to tensors like y.
        adjoint: what should be its adjoint A*.
        x: any shape, real or complex.
        y: any shape, real or complex.

    Returns:
        the distance of <y, A x> from <A* y, x>, over the norms of y and A x; about the
        rounding error for an adjoint. <a, b> sums conj(a) b. Where x is real its space
        is the real one, and real parts are compared.

    Raises:
        ValueError: if a map returns something of another shape, or if A x is zero, so
            that nothing would be tested.

    >>> x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    >>> adjoint_gap(lambda x: x.sum(0, keepdim=True), lambda y: y.expand(2), x, y)
    0.0
    """
    image, preimage = forward(x), adjoint(y)
    if image.shape != y.shape or preimage.shape != x.shape:
        there = f"{tuple(x.shape)} to {tuple(image.shape)}"
        back = f"{tuple(y.shape)} to {tuple(preimage.shape)}"
        raise ValueError(f"the map takes shape {there}, its adjoint {back}")
    size = torch.linalg.vector_norm(y) * torch.linalg.vector_norm(image)
    if size == 0:
        raise ValueError("A x or y is zero: nothing is tested")
    gap = _inner(y, image) - _inner(preimage, x)
    if not x.is_complex():
        gap = gap.real
    return float(gap.abs() / size)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """The sum of conj(a) b, complex, shape ()."""
    both = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.complex64)
    return torch.vdot(a.flatten().to(both), b.flatten().to(both))
