"""Restoration of degraded photographs: the experiments of Chapter 4.

To add an experiment of this kind, add an entry to `RECIPES` at the end of this file:
the network, the degradation, and the settings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate, mse_loss

from mfdnn.data import DataSet, Examples, augment, restoration_crops, to_unit
from mfdnn.data.batches import Transform
from mfdnn.measure import psnr, ssim
from mfdnn.modes import evaluating
from mfdnn.nn import SRCNN, VDSR, DnCNN
from mfdnn.recipes.optimize import ADAM_SETTINGS, adam
from mfdnn.recipes.recipe import Plan, Recipe, Settings, Task
from mfdnn.records import Metric
from mfdnn.train import Learner, Supervised

#: The side of the test pieces in pixels: six from each of two photographs.
TEST_SIDE = 198


@dataclass(frozen=True)
class Noise:
    """Add independent normal noise; sigma is its standard deviation, pixels in [0, 1].

    Source: lecture topic 4.02.
    """

    sigma: float

    def __call__(self, clean: Tensor, generator: Generator | None) -> Tensor:
        """Return noisy images of the same shape; draws are from a CPU generator."""
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        noise = noise.to(clean.device)
        return clean + self.sigma * noise


@dataclass(frozen=True)
class Shrink:
    """Shrink images by a whole factor, and enlarge them again, both bicubic.

    Images (N, C, H, W) whose sides the factor divides. Source: lecture topic 4.06.
    """

    factor: int

    def __call__(self, clean: Tensor, generator: Generator | None) -> Tensor:
        """Return blurred images of the same shape; nothing is drawn."""
        height, width = clean.shape[-2:]
        size = [height // self.factor, width // self.factor]
        small = interpolate(clean, size, mode="bicubic", antialias=True)
        return interpolate(small, [height, width], mode="bicubic")


@dataclass(frozen=True)
class Restore(Task):
    """Undo a degradation of grey photographs, pixels in [0, 1], by least squares.

    Training and test pieces come from different photographs, see `restoration_crops`.

    Args:
        network: makes the network, from images (N, 1, H, W) to images of that shape.
        degrade: what is done to the clean images, with draws from a generator.
        side: of the pieces of which training images are cut, in pixels.
    """

    network: Callable[[], nn.Module]
    degrade: Callable[[Tensor, Generator | None], Tensor]
    side: int

    #: In each epoch one square of crop x crop pixels is cut out of every piece at
    #: random, then turned and mirrored.
    settings: ClassVar[dict[str, type]] = {**ADAM_SETTINGS, "crop": int}
    columns: ClassVar[int] = 4
    metrics: ClassVar[dict[str, Metric]] = {
        "test_psnr": Metric("test PSNR", "dB", digits=2),
        "test_ssim": Metric("test SSIM", "", digits=4),
        "degraded_psnr": Metric("PSNR of what is restored", "dB", digits=2),
    }

    def load(
        self, data: str, where: str | Path | None = None, published: bool = True
    ) -> tuple[DataSet, DataSet]:
        """Grey pieces of the embedded photographs, `photographs` by name."""
        if data != "photographs":
            raise ValueError(f"restoration is of photographs, not of {data!r}")
        about = "Grey pieces of photographs that ship with scikit-image, scikit-learn."
        train, test = (
            Examples(
                {"image": restoration_crops(split, side)}, f"{data} {split}", about
            )
            for split, side in (("train", self.side), ("test", TEST_SIDE))
        )
        return train, test

    def tensors(self, data: DataSet, settings: Settings) -> tuple[Tensor, ...]:
        """The pieces twice, uint8: one will be degraded."""
        assert isinstance(data, Examples)
        return data["image"], data["image"]

    def transform(self, settings: Settings) -> Transform | None:
        """From a batch of pieces to degraded and clean images."""
        cut = augment.Chain(
            augment.Crop(int(settings["crop"])), augment.Turn(), augment.to_unit
        )

        def transform(
            batch: tuple[Tensor, ...], generator: Generator | None
        ) -> tuple[Tensor, ...]:
            clean = cut(batch[0], generator)
            return self.degrade(clean, generator), clean

        return transform

    def learner(self, plan: Plan) -> Learner:
        """The network, trained by Adam on the mean squared error."""
        model = plan.compute.place(self.network())
        optimizer, schedule = adam(model.parameters(), plan.settings, plan.steps)
        return Supervised(model, mse_loss, optimizer, schedule, plan.compute.forward())

    def exam(self, test: DataSet) -> tuple[Tensor, Tensor]:
        """Degraded and clean test images (N, 1, H, W), always the same draws."""
        assert isinstance(test, Examples)
        clean = to_unit(test["image"])
        return self.degrade(clean, Generator().manual_seed(0)), clean

    def evaluate(self, learner: Learner, test: DataSet) -> dict[str, float]:
        """Means over all test images."""
        degraded, clean = self.exam(test)
        restored = self.restore(learner, degraded)
        return {
            "test_psnr": psnr(restored, clean).mean().item(),
            "test_ssim": ssim(restored, clean).mean().item(),
            "degraded_psnr": psnr(degraded, clean).mean().item(),
        }

    def restore(self, learner: Learner, degraded: Tensor) -> Tensor:
        """The network's images (N, 1, H, W), brought into [0, 1], one at a time."""
        model = learner.networks["model"]
        with evaluating(model), torch.inference_mode():
            images = [model(image[None]) for image in degraded]
        return torch.cat(images).float().clamp(0, 1)

    def sample(
        self, learner: Learner, test: DataSet, generator: Generator
    ) -> Tensor | None:
        """Four test images in three rows: degraded, restored, clean."""
        degraded, clean = (images[::3] for images in self.exam(test))
        restored = self.restore(learner, degraded)
        return torch.cat([degraded.clamp(0, 1), restored, clean])


RECIPES = [
    Recipe(
        "dncnn",
        "DnCNN with 17 layers against noise of standard deviation 25/255.",
        "photographs",
        Restore(DnCNN, Noise(25 / 255), side=48),  # lecture topic 4.03
        epochs=150,
        batch_size=8,
        headline="test_psnr",
        settings={"lr": 1e-3, "schedule": "one-cycle", "crop": 40},
    ),
    Recipe(
        "srcnn",
        "SRCNN with filters of 9, 5 and 5 pixels, factor 3.",
        "photographs",
        Restore(SRCNN, Shrink(3), side=60),  # lecture topic 4.06
        epochs=60,
        batch_size=16,
        headline="test_psnr",
        settings={"lr": 1e-3, "schedule": "one-cycle", "crop": 33},
    ),
    Recipe(
        "vdsr",
        "VDSR with 20 layers, factor 3.",
        "photographs",
        Restore(VDSR, Shrink(3), side=60),  # lecture topic 4.07
        epochs=60,
        batch_size=16,
        headline="test_psnr",
        settings={"lr": 1e-3, "schedule": "one-cycle", "crop": 42},
    ),
]
