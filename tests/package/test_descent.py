"""GD and SGD against closed forms, torch.optim and the pages that define them."""

import re

import pytest
import torch
from mfdnn.descent import gradient_descent, stochastic_gradient_descent
from torch.func import grad

from tests.book.checks import ROOT


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def problem():
    """A random least-squares problem: X, Y, start."""
    rng = torch.Generator().manual_seed(0)
    X = torch.randn(12, 4, generator=rng)
    return X, torch.randn(12, generator=rng), torch.randn(4, generator=rng)


def test_gradient_descent_has_the_closed_form_of_a_quadratic(problem):
    X, Y, start = problem
    A, b = X.T @ X, X.T @ Y
    path = gradient_descent(lambda t: A @ t - b, start, 0.01, 50)
    star = torch.linalg.solve(A, b)
    shrink = torch.linalg.matrix_power(torch.eye(4) - 0.01 * A, 50)
    torch.testing.assert_close(path[-1], star + shrink @ (start - star))
    assert path.shape == (51, 4)
    assert torch.equal(path[0], start)


def loss(theta, X, Y):
    return 0.5 * (X @ theta - Y).square().mean()


@pytest.mark.parametrize("decay", [False, True])
def test_sgd_agrees_with_torch_optim(problem, decay):
    X, Y, start = problem
    rng = torch.Generator().manual_seed(1)
    batches = [torch.randint(12, (3,), generator=rng) for _ in range(40)]
    alpha = (lambda k: 0.1 / (k + 1)) if decay else 0.1
    path = stochastic_gradient_descent(
        lambda t, i: grad(loss)(t, X[i], Y[i]), start, alpha, batches
    )
    theta = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([theta], lr=0.1)
    for k, i in enumerate(batches):
        optimizer.param_groups[0]["lr"] = alpha(k) if decay else alpha
        optimizer.zero_grad()
        loss(theta, X[i], Y[i]).backward()
        optimizer.step()
        torch.testing.assert_close(path[k + 1], theta.detach())


def test_no_batches_no_steps(problem):
    *_, start = problem
    path = stochastic_gradient_descent(lambda t, i: t, start, 0.1, [])
    assert torch.equal(path, start[None])


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan")])
def test_learning_rate_must_be_positive(alpha):
    with pytest.raises(ValueError, match="must be positive"):
        gradient_descent(lambda t: t, torch.ones(2), alpha, 1)


def from_page(page, name):
    """A function as a page defines it."""
    text = (ROOT / f"book/ch1-optimization/{page}.md").read_text(encoding="utf-8")
    found = re.search(rf"^def {name}\(.*?(?=^\S|^$)", text, re.M | re.S)
    scope = {"torch": torch}
    exec(found[0], scope)
    return scope[name]


def test_page_defines_the_same_gradient_descent(problem):
    X, Y, start = problem
    taught = from_page("gradient-descent", "gradient_descent")
    arguments = (grad(lambda t: loss(t, X, Y)), start, 0.05, 30)
    assert torch.equal(taught(*arguments), gradient_descent(*arguments))


@pytest.mark.parametrize("alpha", [0.1, lambda k: 0.1 / (k + 1)])
def test_page_defines_the_same_sgd(problem, alpha):
    X, Y, start = problem
    taught = from_page("stochastic-gradient-descent", "stochastic_gradient_descent")
    batches = torch.randperm(12, generator=torch.Generator().manual_seed(2)).split(3)

    def gradient(theta, batch):
        return grad(loss)(theta, X[batch], Y[batch])

    arguments = (gradient, start, alpha, batches)
    assert torch.equal(taught(*arguments), stochastic_gradient_descent(*arguments))
