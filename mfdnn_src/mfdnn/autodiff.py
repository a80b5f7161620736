"""A small tape: reverse-mode automatic differentiation of NumPy arrays.

The page ``computation-graphs`` writes it out and explains it.

>>> x = Var(3.0)
>>> (x * x + sin(x)).backward()
>>> bool(np.isclose(x.grad, 6 + np.cos(3)))
True
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def sum_to(G: Array, shape: Sequence[int]) -> Array:
    """Sum ``G`` over the copies that broadcasting from ``shape`` made."""
    G = np.asarray(G.sum(axis=tuple(range(G.ndim - len(shape)))))
    ones = tuple(k for k, n in enumerate(shape) if n == 1)
    return np.asarray(G.sum(axis=ones, keepdims=True))


class Var:
    """A value on the tape, with what its operation read.

    Operators ``+``, ``-``, ``*``, ``/`` broadcast as in NumPy; ``@`` is the product
    of two matrices. ``back`` maps the derivative with respect to the value to one
    contribution for each Var that was read, of its shape or a broadcast one.
    """

    numbers: ClassVar[itertools.count[int]] = itertools.count()

    def __init__(
        self,
        value: ArrayLike,
        read: Sequence[Var] = (),
        back: Callable[[Array], Sequence[Array]] = lambda g: (),
    ) -> None:
        self.value: Array = np.asarray(value, dtype=float)
        self.read, self.back = read, back
        self.grad: Array = np.zeros_like(self.value)
        self.number = next(Var.numbers)  # creation order is a topological order

    def backward(self) -> None:
        """Add the derivatives of this number to ``grad`` of its inputs."""
        if self.value.ndim:
            raise ValueError(f"backward of shape {self.value.shape}, not a number")
        nodes: dict[int, Var] = {}
        waiting = [self]
        while waiting:
            node = waiting.pop()
            nodes[node.number] = node
            waiting += [i for i in node.read if i.number not in nodes]
        g = {number: np.zeros_like(node.value) for number, node in nodes.items()}
        g[self.number] = np.ones_like(self.value)
        for number in sorted(nodes, reverse=True):
            node = nodes[number]
            if not node.read:
                node.grad = node.grad + g[number]
                continue
            for i, part in zip(node.read, node.back(g[number]), strict=True):
                g[i.number] = g[i.number] + sum_to(part, i.value.shape)

    def sum(self) -> Var:
        """The sum of all entries, shape ()."""
        return Var(
            self.value.sum(), (self,), lambda g: (np.broadcast_to(g, self.value.shape),)
        )

    def __add__(self, other: Any) -> Var:
        a, b = self, _var(other)
        return Var(a.value + b.value, (a, b), lambda g: (g, g))

    def __sub__(self, other: Any) -> Var:
        a, b = self, _var(other)
        return Var(a.value - b.value, (a, b), lambda g: (g, -g))

    def __mul__(self, other: Any) -> Var:
        a, b = self, _var(other)
        return Var(a.value * b.value, (a, b), lambda g: (g * b.value, g * a.value))

    def __truediv__(self, other: Any) -> Var:
        a, b = self, _var(other)
        y = a.value / b.value
        return Var(y, (a, b), lambda g: (g / b.value, -g * y / b.value))

    def __matmul__(self, other: Var) -> Var:
        a, b = self, other
        return Var(a.value @ b.value, (a, b), lambda g: (g @ b.value.T, a.value.T @ g))

    __radd__, __rmul__ = __add__, __mul__


def _var(value: Any) -> Var:
    return value if isinstance(value, Var) else Var(value)


def _entrywise(
    name: str, f: Callable[[Array], Array], slope: Callable[[Array, Array], Array]
) -> Callable[[Var], Var]:
    """An operation on each entry, from y = f(x) and its derivative at (x, y)."""

    def operation(x: Var) -> Var:
        y = f(x.value)
        return Var(y, (x,), lambda g: (g * slope(x.value, y),))

    operation.__name__ = operation.__qualname__ = name
    operation.__doc__ = f"{name} of each entry of a Var, of the same shape."
    return operation


log = _entrywise("log", np.log, lambda x, y: 1 / x)
sqrt = _entrywise("sqrt", np.sqrt, lambda x, y: 0.5 / y)
exp = _entrywise("exp", np.exp, lambda x, y: y)
sin = _entrywise("sin", np.sin, lambda x, y: np.cos(x))
cosh = _entrywise("cosh", np.cosh, lambda x, y: np.sinh(x))
tanh = _entrywise("tanh", np.tanh, lambda x, y: 1 - y * y)
relu = _entrywise(
    "relu", lambda x: np.maximum(x, 0), lambda x, y: (x > 0).astype(float)
)
