"""Tables: one row a person, one column a measurement."""

import torch
from torch import Tensor


def diabetes() -> tuple[Tensor, Tensor]:
    """Ten measurements of 442 patients, and their disease progression.

    Columns: age, sex, body mass index, blood pressure, and six blood serum
    values (s1 to s6). Y is a score of how far the disease progressed within a
    year. All columns and Y have mean 0 and variance 1 (division by N), so one
    unit is one standard deviation and no intercept is needed.

    Returns:
        X of shape (442, 10) and Y of shape (442,), both float64.

    Source: Efron, Hastie, Johnstone and Tibshirani, "Least angle regression"
    (2004); the copy that ships with scikit-learn (BSD licence).

    >>> X, Y = diabetes()
    >>> X.shape, Y.shape
    (torch.Size([442, 10]), torch.Size([442]))
    """
    from sklearn.datasets import load_diabetes

    features, target = load_diabetes(return_X_y=True, scaled=False)
    X = torch.as_tensor(features, dtype=torch.float64)
    Y = torch.as_tensor(target, dtype=torch.float64)
    return standardize(X), standardize(Y)


def standardize(values: Tensor) -> Tensor:
    """Shift and scale each column to mean 0 and variance 1.

    Args:
        values: shape (N,) or (N, p), no column constant.

    Returns:
        a tensor of the same shape; variances divide by N, not by N - 1.

    Raises:
        ValueError: if a column is constant.
    """
    spread = values.std(dim=0, correction=0)
    if bool((spread == 0).any()):
        raise ValueError("a constant column cannot be scaled to variance 1")
    return (values - values.mean(dim=0)) / spread
