"""Data sets as tensors. By default real data that ships with the dependencies."""

from mfdnn.data.tabular import diabetes

__all__ = ["diabetes"]
