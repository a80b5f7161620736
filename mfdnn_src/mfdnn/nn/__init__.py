"""The networks of the book, one module an architecture."""

from mfdnn.nn.alexnet import AlexNetCIFAR10
from mfdnn.nn.lenet import ClassicalLeNet, LeNet, SparseLeNet
from mfdnn.nn.mlp import mlp

__all__ = ["AlexNetCIFAR10", "ClassicalLeNet", "LeNet", "SparseLeNet", "mlp"]
