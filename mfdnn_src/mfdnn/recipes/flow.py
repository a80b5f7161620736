"""Flows: exact likelihoods of images, maximized.

To add an experiment of this kind, add an entry to `RECIPES` at the end of this file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Generator, Tensor

from mfdnn.data import DataSet, LabelledImages
from mfdnn.data.batches import Transform
from mfdnn.flows import Compose, Density, Logit, logistic, normal
from mfdnn.measure import bits_per_dim
from mfdnn.modes import evaluating
from mfdnn.nn import RealNVP, nice
from mfdnn.recipes.optimize import ADAM_SETTINGS, adam
from mfdnn.recipes.recipe import Plan, Recipe, Settings, Task
from mfdnn.records import Metric
from mfdnn.train import Learner, Supervised

#: What must be added to bits per dimension when pixels are divided by 256.
SCALED = 8


def dequantize(images: Tensor, generator: Generator | None) -> Tensor:
    """Uniform noise makes pixels 0, ..., 255 continuous: (x + u) / 256, in [0, 1).

    Args:
        images: uint8, any shape.
        generator: of the CPU.

    Source: Uria, Murray and Larochelle, "RNADE: the real-valued neural autoregressive
    density-estimator" (2013).
    """
    noise = torch.rand(images.shape, generator=generator).to(images.device)
    # The sum may round to 256 in float32.
    return ((images + noise) / 256).clamp(max=1 - 2**-24)


def negative(log_prob: Tensor, _: Tensor) -> Tensor:
    """The mean of -log p over a batch, shape ()."""
    return -log_prob.mean()


@dataclass(frozen=True)
class Likelihood(Task):
    """Fit a density to images with uniform noise, by maximum likelihood.

    Args:
        density: makes it.
        flat: whether it is one of rows (N, C H W) or of images (N, C, H, W).
    """

    density: Callable[[], Density]
    flat: bool

    settings: ClassVar[dict[str, type]] = {**ADAM_SETTINGS}
    metrics: ClassVar[dict[str, Metric]] = {
        "test_nats": Metric("test log-likelihood, pixels in [0, 1]", "nats", digits=1),
        "bits_per_dim": Metric("test bits per dimension", "", digits=3),
    }

    def tensors(self, data: DataSet, settings: Settings) -> tuple[Tensor, ...]:
        """The images, twice, since a batch of `Supervised` is a pair."""
        found = self.shaped(data)
        return found, found

    def shaped(self, data: DataSet) -> Tensor:
        """The images as the density wants them, uint8."""
        assert isinstance(data, LabelledImages)
        return data.images.flatten(1) if self.flat else data.images

    def transform(self, settings: Settings) -> Transform | None:
        """Noise, drawn anew for every batch."""

        def transform(
            batch: tuple[Tensor, ...], generator: Generator | None
        ) -> tuple[Tensor, ...]:
            x = dequantize(batch[0], generator)
            return x, x

        return transform

    def learner(self, plan: Plan) -> Learner:
        """The density, trained by Adam."""
        model = plan.compute.place(self.density())
        optimizer, schedule = adam(model.parameters(), plan.settings, plan.steps)
        return Supervised(model, negative, optimizer, schedule, plan.compute.forward())

    def evaluate(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """Means over all test images, always with the same noise."""
        model, generator = learner.networks["model"], Generator().manual_seed(0)
        images = self.shaped(test)
        nats = 0.0
        with evaluating(model), torch.inference_mode():
            for some in torch.split(images, 250):
                nats += model(dequantize(some, generator)).double().sum().item()
        nats /= len(images)
        bits = bits_per_dim(-nats, images[0].numel()) + SCALED
        return {"test_nats": nats, "bits_per_dim": bits}

    def sample(
        self, learner: Learner, test: DataSet, generator: Generator
    ) -> Tensor | None:
        """Sixty-four images of the model."""
        model = learner.networks["model"]
        assert isinstance(model, Density)
        n = self.shaped(test)[0].numel()
        with evaluating(model), torch.inference_mode():
            drawn = model.sample((64, n), generator)
        return drawn.float().clamp(0, 1).reshape(64, *test.shape)


def nice_density() -> Density:
    """NICE of MNIST's size, logistic latents."""
    return Density(nice(), logistic)


def real_nvp_density(width: int, blocks: int) -> Density:
    """Real NVP of 3x32x32 images in logit space, normal latents."""
    return Density(Compose(Logit(), RealNVP((3, 32, 32), width, blocks)), normal)


RECIPES = [
    Recipe(
        "nice-mnist",
        "NICE of four couplings with five hidden layers of 1,000.",
        "mnist",
        Likelihood(nice_density, flat=True),  # lecture topic 5.47
        epochs=60,
        batch_size=256,
        headline="test_nats",
        settings={"lr": 1e-3, "schedule": "cosine"},
    ),
    Recipe(
        "realnvp-cifar10",
        "Real NVP of three scales and eighteen couplings.",
        "cifar10",
        Likelihood(partial(real_nvp_density, 64, 8), flat=False),  # lecture topic 5.52
        epochs=60,
        batch_size=64,
        headline="bits_per_dim",
        settings={"lr": 1e-3, "schedule": "cosine"},
    ),
]
