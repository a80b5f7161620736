"""Learners of two kinds that the book will have: a game, and an exact likelihood."""

import math

import torch
from torch import nn


class Duel:
    """Two players on f(u, v) = u v + a v: u descends, v ascends, in alternation."""

    def __init__(self):
        self.u, self.v = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        for player in (self.u, self.v):
            nn.init.constant_(player.weight, 1.0)
        self.down = torch.optim.SGD(self.u.parameters(), lr=0.1)
        self.up = torch.optim.SGD(self.v.parameters(), lr=0.2, maximize=True)

    @property
    def networks(self):
        return {"u": self.u, "v": self.v}

    @property
    def state(self):
        return {"down": self.down, "up": self.up}

    def value(self, a):
        return (
            self.u.weight.sum() * self.v.weight.sum() + a.mean() * self.v.weight.sum()
        )

    def step(self, a):
        found = {}
        for name, optimizer in (("before u", self.down), ("before v", self.up)):
            value = self.value(a)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            found[name] = value
        return found


class Gaussian(nn.Module):
    """A normal density; its parameters are mean and logarithm of the deviation."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def log_prob(self, x):
        z = (x - self.mean) * torch.exp(-self.log_scale)
        return -0.5 * z**2 - self.log_scale - 0.5 * math.log(2 * math.pi)


class Likelihood:
    """Maximum likelihood, with noise of its own generator added to the data."""

    def __init__(self, noise=0.0, generator=None, lr=0.05):
        self.density, self.noise = Gaussian(), noise
        self.generator = generator or torch.Generator().manual_seed(1)
        self.optimizer = torch.optim.Adam(self.density.parameters(), lr=lr)

    @property
    def networks(self):
        return {"density": self.density}

    @property
    def state(self):
        return {"optimizer": self.optimizer, "noise": self.generator}

    def step(self, x):
        x = x + self.noise * torch.randn(x.shape, generator=self.generator)
        nats = -self.density.log_prob(x).mean()
        self.optimizer.zero_grad()
        nats.backward()
        self.optimizer.step()
        return {"nats": nats}
