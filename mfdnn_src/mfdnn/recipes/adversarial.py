"""Generative adversarial networks: two players, and a judge who only looks on.

To add an experiment of this kind, add an entry to `RECIPES` at the end of this file.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, relu, softplus
from torch.optim import Adam, Optimizer

from mfdnn.data import DataSet, LabelledImages, to_unit
from mfdnn.data.batches import Transform
from mfdnn.measure import frechet_distance, perplexity
from mfdnn.modes import evaluating
from mfdnn.nn import (
    DCGANDiscriminator,
    DCGANGenerator,
    LeNet,
    MLPDiscriminator,
    MLPGenerator,
)
from mfdnn.recipes.recipe import Plan, Recipe, Settings, Task
from mfdnn.records import Metric
from mfdnn.train import Learner

#: How many images pass a network at a time when it is measured.
CHUNK = 500


def to_symmetric(images: Tensor) -> Tensor:
    """Bytes as numbers in [-1, 1], float32, the range of tanh.

    Args:
        images: uint8, any shape.
    """
    return 2 * to_unit(images) - 1


class Game:
    """Generator and discriminator in alternation, and a judge of labelled images.

    The discriminator's step comes first. The judge learns to classify the real
    images. It has no say in the game; what it sees in images measures them.

    Args:
        generator: maps latents (N, r) to images in [-1, 1].
        discriminator: maps images to logits (N, 1).
        judge: maps images to logits of their classes.
        settings: see `Adversarial.settings`.
        forward: a context for all forward passes.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        judge: LeNet,
        settings: Settings,
        forward: AbstractContextManager[object],
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.judge, self.forward = judge, forward
        self.hinge = bool(settings["hinge"])
        lr, betas = float(settings["lr"]), (float(settings["beta_1"]), 0.999)
        self.optimizers: dict[str, Optimizer] = {
            "generator": Adam(generator.parameters(), lr, betas),
            "discriminator": Adam(discriminator.parameters(), lr, betas),
            "judge": Adam(judge.parameters(), 1e-3),
        }

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The two players and the judge."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "judge": self.judge,
        }

    @property
    def state(self) -> Mapping[str, Any]:
        """Their optimizers."""
        return {f"optimizer of the {k}": v for k, v in self.optimizers.items()}

    def step(self, *batch: Tensor) -> Mapping[str, Tensor]:
        """Play one round with images (B, C, H, W), labels and latents (B, 2, r)."""
        x, labels, z = batch
        with self.forward:
            fake = self.generator(z[:, 0]).detach()
            real = self.discriminator(x)
            loss_D = self._discriminator_loss(real, self.discriminator(fake))
        self._move("discriminator", loss_D)
        with self.forward:
            logits = self.discriminator(self.generator(z[:, 1]))
            loss_G = -logits.mean() if self.hinge else softplus(-logits).mean()
        self._move("generator", loss_G)
        with self.forward:
            loss_J = cross_entropy(self.judge(x), labels)
        self._move("judge", loss_J)
        return {
            "discriminator_loss": loss_D,
            "generator_loss": loss_G,
            "judge_loss": loss_J,
        }

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss of logits (B, 1) of real and of fake images."""
        if self.hinge:
            return relu(1 - real).mean() + relu(1 + fake).mean()
        return softplus(-real).mean() + softplus(fake).mean()

    def _move(self, name: str, loss: Tensor) -> None:
        """One step of one network; what others have in .grad is overwritten later."""
        self.optimizers[name].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers[name].step()


@dataclass(frozen=True)
class Adversarial(Task):
    """Let a generator and a discriminator play, and measure what is generated.

    The Frechet distance is that of Heusel et al. (2017) with the features of the
    book's own LeNet, which is trained beside the players, in place of those of an
    Inception network: its values compare only with others of the same kind.

    Args:
        generator: makes the generator.
        discriminator: makes the discriminator.
        latents: r.
    """

    generator: Callable[[], nn.Module]
    discriminator: Callable[[], nn.Module]
    latents: int

    settings: ClassVar[dict[str, type]] = {
        "lr": float,  # the learning rate of both players
        "beta_1": float,  # of their Adam
        "hinge": bool,  # hinge losses, instead of the non-saturating logistic ones
    }
    metrics: ClassVar[dict[str, Metric]] = {
        "frechet_distance": Metric(
            "Frechet distance of LeNet's features", "", digits=2
        ),
        "frechet_halves": Metric(
            "the same between two halves of the test images", "", digits=2
        ),
        "classes": Metric("classes in the generated images, by entropy", "", digits=2),
        "judge_accuracy": Metric("test accuracy of that LeNet", "%", 100, 2),
    }

    def tensors(self, data: DataSet, settings: Settings) -> tuple[Tensor, ...]:
        """Images and labels, and these once more: the second become latents."""
        assert isinstance(data, LabelledImages)
        return data.images, data.labels, data.labels

    def transform(self, settings: Settings) -> Transform | None:
        """Scale the images, and draw two latents for each."""

        def transform(
            batch: tuple[Tensor, ...], generator: Generator | None
        ) -> tuple[Tensor, ...]:
            x, labels, _ = batch
            z = torch.randn(len(x), 2, self.latents, generator=generator)
            return to_symmetric(x), labels, z.to(x.device)

        return transform

    def learner(self, plan: Plan) -> Learner:
        """The players, and a LeNet for the channels of the images."""
        generator, discriminator = self.generator(), self.discriminator()
        with torch.inference_mode(), evaluating(generator):
            channels = generator(torch.zeros(2, self.latents)).shape[1]
        judge = LeNet(channels)
        place = plan.compute.place
        generator, discriminator = place(generator), place(discriminator)
        moved = place(judge)
        assert isinstance(moved, LeNet)
        return Game(
            generator, discriminator, moved, plan.settings, plan.compute.forward()
        )

    def evaluate(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """Compare as many generated images as there are test images with these."""
        assert isinstance(learner, Game)
        assert isinstance(test, LabelledImages)
        z = torch.randn(
            len(test), self.latents, generator=Generator().manual_seed(0)
        ).to(test.images.device)
        judge = learner.judge
        with evaluating(*learner.networks.values()), torch.inference_mode():
            real, logits = _seen(judge, to_symmetric(test.images))
            right = (logits.argmax(1) == test.labels).double().mean().item()
            fake = torch.cat(
                [learner.generator(some) for some in torch.split(z, CHUNK)]
            )
            features, logits = _seen(judge, fake)
        return {
            "frechet_distance": frechet_distance(features, real).item(),
            "frechet_halves": frechet_distance(real[::2], real[1::2]).item(),
            "classes": perplexity(logits.argmax(1).bincount()).item(),
            "judge_accuracy": right,
        }

    def sample(
        self, learner: Learner, test: DataSet, generator: Generator
    ) -> Tensor | None:
        """Sixty-four generated images, none chosen."""
        assert isinstance(learner, Game)
        z = torch.randn(64, self.latents, generator=generator)
        device = next(learner.generator.parameters()).device
        with evaluating(learner.generator), torch.inference_mode():
            images: Tensor = learner.generator(z.to(device)).float()
        return (images + 1) / 2


def _seen(judge: LeNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """The features (N, 84) that LeNet classifies by, and its logits (N, 10)."""
    found = []
    for some in torch.split(images, CHUNK):
        features = judge.classifier[:-1](judge.features(some))
        found.append((features, judge.classifier[-1](features)))
    features, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
    return features, logits


RECIPES = [
    Recipe(
        "gan-mnist",
        "GAN of fully connected networks, non-saturating loss.",
        "mnist",
        Adversarial(MLPGenerator, MLPDiscriminator, 100),  # lecture topic 5.99
        epochs=30,
        batch_size=100,
        headline="frechet_distance",
        settings={"lr": 2e-4, "beta_1": 0.5, "hinge": False},
    ),
    Recipe(
        "dcgan-cifar10",
        "DCGAN for 32x32 images, non-saturating loss.",
        "cifar10",
        Adversarial(
            partial(DCGANGenerator, 100, (256, 128, 64), 3, 4),
            partial(DCGANDiscriminator, (64, 128, 256), 3, 4),
            100,
        ),  # lecture topic 5.100
        epochs=60,
        batch_size=128,
        headline="frechet_distance",
        settings={"lr": 2e-4, "beta_1": 0.5, "hinge": False},
    ),
    Recipe(
        "sngan-cifar10",
        "The same generator against a spectrally normalized discriminator, hinge loss.",
        "cifar10",
        Adversarial(
            partial(DCGANGenerator, 100, (256, 128, 64), 3, 4),
            partial(DCGANDiscriminator, (64, 128, 256), 3, 4, spectral=True),
            100,
        ),  # lecture topic 5.119
        epochs=60,
        batch_size=128,
        headline="frechet_distance",
        settings={"lr": 2e-4, "beta_1": 0.5, "hinge": True},
    ),
]
