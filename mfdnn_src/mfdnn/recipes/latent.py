"""Latent variable models: variational autoencoders of several kinds.

To add an experiment of these kinds, add an entry to `RECIPES` at the end of this file.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn.functional import mse_loss

from mfdnn.data import DataSet, LabelledImages, to_unit
from mfdnn.data.batches import Transform
from mfdnn.measure import perplexity
from mfdnn.modes import evaluating
from mfdnn.nn import VAE, VQVAE, Sampled, VectorQuantized
from mfdnn.recipes.optimize import ADAM_SETTINGS, adam
from mfdnn.recipes.recipe import Plan, Recipe, Settings, Task
from mfdnn.records import Metric
from mfdnn.train import Learner, Supervised

#: Samples an image for the estimate of the likelihood that ends a run.
FINAL_SAMPLES = 5_000
#: How many of them, and how many images, are computed at a time.
CHUNK = 100


def binarize(images: Tensor, generator: Generator | None) -> Tensor:
    """Draw each pixel, 1 with its grey level as probability: rows of zeros and ones.

    Args:
        images: uint8, shape (N, ...).
        generator: of the CPU.

    Source: Salakhutdinov and Murray, "On the quantitative analysis of deep belief
    networks" (2008).
    """
    uniform = torch.rand(images.shape, generator=generator).to(images.device)
    return (uniform < to_unit(images)).float().flatten(1)


@dataclass(frozen=True)
class Evidence(Task):
    """Maximize a lower bound of the log-likelihood of binary images.

    The images are drawn anew for every batch; the test images once, always the same.
    With the setting `weighted` the bound is the importance weighted one of K samples,
    otherwise the mean over K samples, with the divergence in closed form.

    Args:
        network: makes the model.
    """

    network: Callable[[], VAE]

    settings: ClassVar[dict[str, type]] = {
        **ADAM_SETTINGS,
        "samples": int,  # K, of z for each image
        "weighted": bool,
    }
    metrics: ClassVar[dict[str, Metric]] = {
        "test_bound": Metric("bound of the test log-likelihood", "nats", digits=2),
        "test_nll": Metric(
            f"test negative log-likelihood, {FINAL_SAMPLES:,} samples", "nats", digits=2
        ),
    }

    def tensors(self, data: DataSet, settings: Settings) -> tuple[Tensor, ...]:
        """The images, twice: the second becomes noise."""
        return _images(data), _images(data)

    def transform(self, settings: Settings) -> Transform | None:
        """Draw binary images, and the noise of their latents."""
        with torch.device("meta"):  # its sizes only
            latents = self.network().latents
        samples = int(settings["samples"])

        def transform(
            batch: tuple[Tensor, ...], generator: Generator | None
        ) -> tuple[Tensor, ...]:
            x = binarize(batch[0], generator)
            return x, _noise(x, samples, latents, generator)

        return transform

    def learner(self, plan: Plan) -> Learner:
        """The model, trained by Adam."""
        model = plan.compute.place(self.network())
        optimizer, schedule = adam(model.parameters(), plan.settings, plan.steps)
        bound = Sampled.iwae if plan.settings["weighted"] else Sampled.vlb
        learner = Bound(
            model,
            lambda sampled, _: -bound(sampled).mean(),
            optimizer,
            schedule,
            plan.compute.forward(),
        )
        learner.samples = int(plan.settings["samples"])
        return learner

    def evaluate(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """The bound that is trained, with the same draws after each epoch."""
        assert isinstance(learner, Bound)
        model, x, generator = self._exam(learner, test)
        with evaluating(model), torch.inference_mode():
            total = 0.0
            for some in torch.split(x, CHUNK):
                eps = _noise(some, learner.samples, model.latents, generator)
                loss = learner.loss(model(some, eps), some)
                total -= loss.double().item() * len(some)
        return {"test_bound": total / len(x)}

    def examine(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """The negative log-likelihood by importance sampling, from above."""
        model, x, generator = self._exam(learner, test)
        found = []
        with evaluating(model), torch.inference_mode():
            for some in torch.split(x, CHUNK):
                parts = []
                for _ in range(FINAL_SAMPLES // CHUNK):
                    eps = _noise(some, CHUNK, model.latents, generator)
                    parts.append(model(some, eps).weights)
                weights = torch.cat(parts, dim=1).double()
                found.append(math.log(weights.shape[1]) - weights.logsumexp(1))
        return {"test_nll": torch.cat(found).mean().item()}

    def _exam(self, learner: Learner, test: DataSet) -> tuple[VAE, Tensor, Generator]:
        """The model, the binary test images, and what draws the noise after them."""
        model, generator = learner.networks["model"], Generator().manual_seed(0)
        assert isinstance(model, VAE)
        return model, binarize(_images(test), generator), generator

    def sample(
        self, learner: Learner, test: DataSet, generator: Generator
    ) -> Tensor | None:
        """Eight test images, their reconstructions, and 48 images of the model."""
        model, x, _ = self._exam(learner, test)
        with evaluating(model), torch.inference_mode():
            z = torch.randn(48, model.latents, generator=generator).to(x.device)
            means = model.decoder(torch.cat([model.encode(x[:8])[0], z])).sigmoid()
        shown = torch.cat([x[:8], means.float()])
        return shown.reshape(64, *test.shape)


class Bound(Supervised):
    """A network of images and noise, and a bound made of what it gives."""

    samples: int  # of each image, also in the evaluation

    def objective(self, *batch: Tensor) -> Tensor:
        """The loss of images (B, n) with noise (B, K, r)."""
        x, eps = batch
        return self.loss(self.model(x, eps), x)


@dataclass(frozen=True)
class Quantize(Task):
    """Rebuild images through a grid of codes.

    Args:
        network: makes the model.
    """

    network: Callable[[], VQVAE]

    settings: ClassVar[dict[str, type]] = {
        **ADAM_SETTINGS,
        "commitment": float,  # the factor of the loss that moves the encoder
    }
    metrics: ClassVar[dict[str, Metric]] = {
        "test_mse": Metric("test mean squared error of a pixel", "", digits=5),
        "perplexity": Metric("codes in use, by entropy", "", digits=1),
    }

    def tensors(self, data: DataSet, settings: Settings) -> tuple[Tensor, ...]:
        """The images in [0, 1], twice: what goes in should come out."""
        found = to_unit(_images(data))
        return found, found

    def learner(self, plan: Plan) -> Learner:
        """The model, trained by Adam; its codes too."""
        model = plan.compute.place(self.network())
        optimizer, schedule = adam(model.parameters(), plan.settings, plan.steps)
        factor = float(plan.settings["commitment"])

        def loss(found: VectorQuantized, x: Tensor) -> Tensor:
            vectors = found.codebook + factor * found.commitment
            return mse_loss(found.rebuilt, x) + vectors

        return Supervised(model, loss, optimizer, schedule, plan.compute.forward())

    def evaluate(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """Error and use of the codes over all test images."""
        model, x = learner.networks["model"], to_unit(_images(test))
        assert isinstance(model, VQVAE)
        count = torch.zeros(len(model.codebook.weight), dtype=torch.float64)
        total = 0.0
        with evaluating(model), torch.inference_mode():
            for some in torch.split(x, 500):
                found = model(some)
                total += (found.rebuilt.float() - some).square().double().sum().item()
                count += found.codes.flatten().bincount(minlength=len(count)).cpu()
        used = perplexity(count).item()
        return {"test_mse": total / x.numel(), "perplexity": used}

    def sample(
        self, learner: Learner, test: DataSet, generator: Generator
    ) -> Tensor | None:
        """The first eight test images, and below them their reconstructions."""
        model, x = learner.networks["model"], to_unit(_images(test)[:8])
        with evaluating(model), torch.inference_mode():
            return torch.cat([x, model(x).rebuilt.float().clamp(0, 1)])


def _images(data: DataSet) -> Tensor:
    assert isinstance(data, LabelledImages)
    return data.images


def _noise(
    x: Tensor, samples: int, latents: int, generator: Generator | None
) -> Tensor:
    """Standard normal numbers for images (N, n), shape (N, samples, latents)."""
    eps = torch.randn(len(x), samples, latents, generator=generator)
    return eps.to(x.device)


RECIPES = [
    Recipe(
        "vae-mnist",
        "VAE of binary digits with 50 latents.",
        "mnist",
        Evidence(VAE),  # lecture topics 5.71 to 5.76
        epochs=100,
        batch_size=100,
        headline="test_nll",
        settings={"lr": 1e-3, "schedule": "one-cycle", "samples": 1, "weighted": False},
    ),
    Recipe(
        "iwae-mnist",
        "The same network, trained by the bound of 50 weighted samples.",
        "mnist",
        Evidence(VAE),  # lecture topic 5.63
        epochs=40,
        batch_size=100,
        headline="test_nll",
        settings={"lr": 1e-3, "schedule": "one-cycle", "samples": 50, "weighted": True},
    ),
    Recipe(
        "vq-vae-cifar10",
        "VQ-VAE with 8x8 codes out of 512.",
        "cifar10",
        Quantize(VQVAE),  # lecture topic 5.83
        epochs=40,
        batch_size=128,
        headline="test_mse",
        settings={"lr": 3e-4, "schedule": "cosine", "commitment": 0.25},
    ),
]
