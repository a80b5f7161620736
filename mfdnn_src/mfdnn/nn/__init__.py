"""The networks of the book, one module an architecture."""

from mfdnn.nn.lenet import ClassicalLeNet, LeNet, SparseLeNet
from mfdnn.nn.mlp import mlp

__all__ = ["ClassicalLeNet", "LeNet", "SparseLeNet", "mlp"]
