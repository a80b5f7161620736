"""NICE: additive couplings of vectors."""

from itertools import pairwise

import torch
from torch import nn

from mfdnn.flows import Compose, Coupling, Flow, Scale


def nice(n: int = 784, width: int = 1000, depth: int = 5, couplings: int = 4) -> Flow:
    """Build NICE: additive couplings that take turns, then a scale for each entry.

    Even and odd entries change their roles from coupling to coupling. The network of
    a coupling has `depth` hidden layers of that width, with ReLU. The usual one, for
    MNIST, has 19,158,352 parameters.

    Args:
        n: entries of an example, an even number; the flow maps (N, n) to (N, n).
        width: of the hidden layers.
        depth: their number.
        couplings: how many.

    Source: lecture topics 5.43, 5.47; Dinh, Krueger and Bengio, "NICE: non-linear
    independent components estimation" (2015).
    """
    even = torch.arange(n) % 2 == 0
    flows: list[Flow] = []
    for i in range(couplings):
        network = nn.Sequential()
        for fan_in, fan_out in pairwise([n // 2, *[width] * depth]):
            network.extend([nn.Linear(fan_in, fan_out), nn.ReLU()])
        network.append(nn.Linear(width, n // 2))
        flows.append(Coupling(even if i % 2 == 0 else ~even, network))
    return Compose(*flows, Scale(n))
