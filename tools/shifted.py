"""Shift the seeds of all random generators of a process by the same number."""

import random
import sys
from typing import Any

FIRST_SEED = 67280421310721  # torch's generators start with it


def shift_generators(shift: int) -> None:
    """Add ``shift`` to every seed that is given from now on, in this process.

    That is torch.manual_seed and torch.Generator (also one that is never seeded,
    and the global one); numpy's default_rng, RandomState and seed, and by them
    the integers that scikit-learn and SciPy are given; random.Random and seed.
    """
    import numpy as np
    import torch

    old_generator, old_state = torch.Generator, np.random.RandomState
    old_rng = np.random.default_rng

    def moved(seed: Any) -> Any:
        return int(seed) + shift if isinstance(seed, int | np.integer) else seed

    def alike(old: Any) -> type:
        """A metaclass: what is an instance of ``old`` is one of the new class."""
        check = {"__instancecheck__": lambda cls, thing: isinstance(thing, old)}
        return type("Alike", (type(old),), check)

    class Generator(old_generator, metaclass=alike(old_generator)):
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            generator = super().__new__(cls, *args, **kwargs)
            old_generator.manual_seed(generator, FIRST_SEED + shift)
            return generator

        def manual_seed(self, seed: int) -> Any:
            return super().manual_seed(moved(seed))

    class RandomState(old_state, metaclass=alike(old_state)):
        def __init__(self, seed: Any = None) -> None:
            super().__init__(moved(seed))

        def seed(self, seed: Any = None) -> None:
            super().seed(moved(seed))

    class Random(random.Random):
        def seed(self, a: Any = None, version: int = 2) -> None:
            super().seed(moved(a), version)

    def seeding(old: Any) -> Any:
        return lambda *seed: old(*map(moved, seed))

    torch.manual_seed(FIRST_SEED + shift)
    np.random.seed(shift)
    random.seed(shift)
    new = {id(f): seeding(f) for f in (torch.manual_seed, np.random.seed, random.seed)}
    new |= {id(old_rng): lambda seed=None: old_rng(moved(seed))}
    new |= {id(old_generator): Generator, id(old_state): RandomState}
    new |= {id(random.Random): Random}
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if id(value) in new:
                setattr(module, name, new[id(value)])
