"""Matrices from unit vectors, adjoints against matrices and against wrong ones."""

import pytest
import torch
from mfdnn.operators import adjoint_gap, matrix_of
from torch.nn.functional import conv2d, conv_transpose2d


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(
        shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)
    )


def test_the_matrix_of_a_matrix_is_itself():
    matrix = draw(4, 6)
    assert torch.equal(matrix_of(lambda x: matrix @ x.flatten(), (2, 3)), matrix)


def test_the_matrix_of_the_fourier_transform():
    found = matrix_of(lambda x: torch.fft.fft(x, norm="ortho"), (5,))
    k = torch.arange(5)
    expected = torch.exp(-2j * torch.pi * torch.outer(k, k) / 5) / 5**0.5
    torch.testing.assert_close(found, expected.to(found.dtype), atol=1e-6, rtol=0)


def test_adjoints_have_no_gap():
    matrix = draw(4, 6)
    x, y = draw(6, seed=1), draw(4, seed=2)
    assert adjoint_gap(matrix.mv, matrix.T.mv, x, y) < 1e-15
    w, x, y = draw(3, 2, 3, 3), draw(1, 2, 9, 9, seed=1), draw(1, 3, 4, 4, seed=2)

    def forward(x):
        return conv2d(x, w, stride=2)

    def adjoint(y):
        return conv_transpose2d(y, w, stride=2)

    assert adjoint_gap(forward, adjoint, x, y) < 1e-14
    assert adjoint_gap(forward, lambda y: -adjoint(y), x, y) > 1e-2
    assert adjoint_gap(forward, lambda y: adjoint(y).flip(2), x, y) > 1e-2


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_complex_maps_need_the_conjugate(dtype):
    matrix = draw(4, 6, dtype=torch.complex128)
    x, y = draw(6, seed=1, dtype=dtype), draw(4, seed=2, dtype=torch.complex128)

    def forward(x):
        return matrix @ x.to(matrix.dtype)

    def adjoint(y):
        found = matrix.mH @ y
        return found if dtype.is_complex else found.real

    def transpose(y):
        found = matrix.mT @ y
        return found if dtype.is_complex else found.real

    assert adjoint_gap(forward, adjoint, x, y) < 1e-15
    assert adjoint_gap(forward, transpose, x, y) > 1e-2


def test_wrong_shapes_and_zeros_are_refused():
    x, y = draw(6), draw(4)
    with pytest.raises(ValueError, match=r"takes shape \(6,\) to \(6,\), its adjoint"):
        adjoint_gap(lambda x: x, lambda y: y, x, y)
    with pytest.raises(ValueError, match="nothing is tested"):
        adjoint_gap(lambda x: 0 * x[:4], lambda y: 0 * x, x, y)
