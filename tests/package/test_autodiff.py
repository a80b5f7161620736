"""The tape against torch.autograd, on random programs, and against its page."""

import re
from types import SimpleNamespace

import mfdnn.autodiff
import numpy as np
import pytest
import torch
from mfdnn.autodiff import Var, sum_to

from tests.book.checks import ROOT

SHAPES = ((3, 4), (4,), (3, 1), (1, 4), (1,), ())
OPERATIONS = (
    lambda lib, a, b: a + b,
    lambda lib, a, b: a - b,
    lambda lib, a, b: a * b,
    lambda lib, a, b: a / (b * b + 1),
    lambda lib, a, b: 2 * a + 1,
    lambda lib, a, b: lib.tanh(a),
    lambda lib, a, b: lib.relu(a),
    lambda lib, a, b: lib.log(a * a + 1),
    lambda lib, a, b: lib.sqrt(a * a + 1),
    lambda lib, a, b: lib.exp(lib.sin(b)),
    lambda lib, a, b: lib.cosh(lib.tanh(a)),
    lambda lib, a, b: a.sum(),
)


def page_tape():
    """The tape as the page defines it."""
    page = ROOT / "book/ch3-convolution/computation-graphs.md"
    cells = re.findall(
        r"^```\{code-cell\}[^\n]*\n((?:(?!```).*\n)*)", page.read_text("utf-8"), re.M
    )
    names = ("def sum_to(", "class Var:", "def binary(", "ours = SimpleNamespace(")
    scope = {"np": np, "itertools": __import__("itertools"), "math": __import__("math")}
    scope |= {"SimpleNamespace": SimpleNamespace}
    for name in names:
        (cell,) = [c for c in cells if re.search(rf"^{re.escape(name)}", c, re.M)]
        exec(re.split(r"\nx(?:, y)? = ", cell)[0], scope)
    return scope["Var"], scope["ours"]


TAPES = {"package": lambda: (Var, mfdnn.autodiff), "page": page_tape}


def execute(program, lib, inputs):
    """All results of a random program, squashed and added up."""
    y = list(inputs)
    for operation, i, j in program:
        y.append(OPERATIONS[operation](lib, y[i], y[j]))
    return sum((lib.sin(value).sum() for value in y[1:]), y[0].sum())


@pytest.mark.parametrize("tape", TAPES)
@pytest.mark.parametrize("seed", range(50))
def test_random_programs_have_torchs_values_and_gradients(tape, seed):
    variable, lib = TAPES[tape]()
    draws = np.random.default_rng(seed)
    n = len(SHAPES)
    program = [
        (draws.integers(len(OPERATIONS)), *draws.integers(known, size=2))
        for known in range(n, n + 12)
    ]
    arrays = [draws.normal(size=shape) for shape in SHAPES]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    ours = [variable(a) for a in arrays]
    right, left = execute(program, torch, theirs), execute(program, lib, ours)
    right.backward()
    left.backward()
    np.testing.assert_allclose(left.value, right.item(), rtol=1e-10)
    for v, t in zip(ours, theirs, strict=True):
        assert v.grad.shape == tuple(t.shape)
        scale = 1 + t.grad.abs().max().item()
        np.testing.assert_allclose(v.grad / scale, t.grad / scale, atol=1e-10)


@pytest.mark.parametrize("tape", TAPES)
def test_matrix_products(tape):
    variable, lib = TAPES[tape]()
    draws = np.random.default_rng(0)
    arrays = [draws.normal(size=s) for s in ((5, 3), (3, 4), (4,), (4, 2))]

    def network(lib, X, W1, b1, W2):
        return lib.tanh(lib.relu(X @ W1 + b1) @ W2).sum()

    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    ours = [variable(a) for a in arrays]
    network(torch, *theirs).backward()
    network(lib, *ours).backward()
    for v, t in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(v.grad, t.grad, rtol=1e-10)


@pytest.mark.parametrize("tape", TAPES)
def test_gradients_accumulate_over_calls(tape):
    variable, _ = TAPES[tape]()
    x = variable([1.0, 2.0])
    loss = (x * x).sum()
    loss.backward()
    loss.backward()
    np.testing.assert_array_equal(x.grad, [4.0, 8.0])


@pytest.mark.parametrize("shape", SHAPES)
def test_sum_to_is_the_transpose_of_broadcasting(shape):
    draws = np.random.default_rng(1)
    v, G = draws.normal(size=shape), draws.normal(size=(2, 3, 4))
    back = sum_to(G, shape)
    assert back.shape == shape
    np.testing.assert_allclose(
        (np.broadcast_to(v, G.shape) * G).sum(), (v * back).sum()
    )


def test_only_numbers_have_gradients():
    with pytest.raises(ValueError, match="not a number"):
        Var([1.0, 2.0]).backward()
