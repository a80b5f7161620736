"""The embedded data sets against the libraries that ship them."""

import numpy as np
import pytest
import torch
from mfdnn.data import diabetes
from mfdnn.data.tabular import standardize
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import StandardScaler


def test_diabetes_is_scikit_learns_standardized():
    X, Y = diabetes()
    raw = load_diabetes(scaled=False)
    np.testing.assert_allclose(X, StandardScaler().fit_transform(raw.data), atol=1e-12)
    target = StandardScaler().fit_transform(raw.target[:, None])[:, 0]
    np.testing.assert_allclose(Y, target, atol=1e-12)
    assert X.dtype == Y.dtype == torch.float64
    assert X.shape == (442, 10)
    assert Y.shape == (442,)


def test_diabetes_is_a_copy():
    X, _ = diabetes()
    X.zero_()
    assert diabetes()[0].abs().sum() > 0


def test_constant_column_is_refused():
    with pytest.raises(ValueError, match="constant column"):
        standardize(torch.ones(5, 2))
