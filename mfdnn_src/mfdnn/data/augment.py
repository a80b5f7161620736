"""Random changes of images, drawn for each image on its own.

Each is a small callable (images, generator) -> images. The draws come from the CPU
generator and are moved to the images' device, so a seed means the same changes
everywhere; with None they come from torch's global generator. For `Batches`, which
hand out several tensors, `inputs` changes the first of them, and `together` changes
some of them by the same draws.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from mfdnn.data import types
from mfdnn.data.batches import Transform

#: Changes images (B, C, H, W) with draws from a CPU generator.
ImageTransform = Callable[[Tensor, Generator | None], Tensor]


def to_unit(images: Tensor, generator: Generator | None) -> Tensor:
    """Scale uint8 pixels to [0, 1], as a step of a `Chain`; nothing is drawn.

    Args:
        images: uint8, any shape.
        generator: not used.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: if the images are not uint8.
    """
    return types.to_unit(images)


def inputs(change: ImageTransform) -> Transform:
    """Change the first tensor of each batch and leave the others.

    Args:
        change: a callable (images, generator) -> images.

    Returns:
        a transform for `Batches`.

    >>> x, y = torch.arange(6.0).view(1, 1, 2, 3), torch.tensor([1])
    >>> inputs(lambda images, generator: images.flip(-1))((x, y), None)[0]
    tensor([[[[2., 1., 0.],
              [5., 4., 3.]]]])
    """

    def transform(
        batch: tuple[Tensor, ...], generator: Generator | None
    ) -> tuple[Tensor, ...]:
        return change(batch[0], generator), *batch[1:]

    return transform


def together(change: ImageTransform, count: int = 2) -> Transform:
    """Change the first tensors of each batch, all by the same draws.

    An image and the mask that belongs to it turn together.

    Args:
        change: a callable (images, generator) -> images; its draws must depend on
            nothing but the number of images and their height and width.
        count: how many tensors, of shapes (B, C_1, H, W), ..., (B, C_count, H, W).

    Returns:
        a transform for `Batches`.
    """

    def transform(
        batch: tuple[Tensor, ...], generator: Generator | None
    ) -> tuple[Tensor, ...]:
        source = torch.default_generator if generator is None else generator
        before = source.get_state()
        changed = []
        for tensor in batch[:count]:
            source.set_state(before)
            changed.append(change(tensor, generator))
        return *changed, *batch[count:]

    return transform


class Chain:
    """Several changes, one after the other.

    Args:
        steps: callables (images, generator) -> images.
    """

    def __init__(self, *steps: ImageTransform) -> None:
        self.steps = steps

    def __call__(self, images: Tensor, generator: Generator | None) -> Tensor:
        """Return the changed images."""
        for step in self.steps:
            images = step(images, generator)
        return images


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirror each image left to right with probability 1/2.

    Images of shape (B, C, H, W), any type. Source: Krizhevsky,
    Sutskever and Hinton (2012).
    """

    def __call__(self, images: Tensor, generator: Generator | None) -> Tensor:
        """Return the changed images."""
        turn = torch.rand(len(images), generator=generator) < 0.5
        turn = turn.to(images.device)[:, None, None, None]
        return torch.where(turn, images.flip(-1), images)


@dataclasses.dataclass(frozen=True)
class PadCrop:
    """Pad by zeros on all sides, then cut the original size out at random.

    Images of shape (B, C, H, W), any type; each is shifted by -padding, ...,
    padding pixels in both directions, all shifts equally likely. Source: Lee et
    al., "Deeply-supervised nets" (2015); He et al. (2016) for CIFAR-10.
    """

    padding: int

    def __call__(self, images: Tensor, generator: Generator | None) -> Tensor:
        """Return the changed images."""
        size, p = images.shape, self.padding
        padded = pad(images, (p, p, p, p))
        windows = padded.unfold(2, size[2], 1).unfold(3, size[3], 1)
        start = torch.randint(2 * p + 1, (2, size[0]), generator=generator)
        top, left = start.to(images.device)
        each = torch.arange(size[0], device=images.device)
        return windows[each, :, top, left]  # (B, C, H, W)


@dataclasses.dataclass(frozen=True)
class Crop:
    """Cut a square out of each image at random, all places equally likely.

    Images of shape (B, C, H, W), any type, to (B, C, size, size).
    """

    size: int

    def __call__(self, images: Tensor, generator: Generator | None) -> Tensor:
        """Return the pieces."""
        windows = images.unfold(2, self.size, 1).unfold(3, self.size, 1)
        start = [
            torch.randint(places, (len(images),), generator=generator)
            for places in windows.shape[2:4]
        ]
        top, left = (s.to(images.device) for s in start)
        each = torch.arange(len(images), device=images.device)
        return windows[each, :, top, left]  # (B, C, size, size)


@dataclasses.dataclass(frozen=True)
class Turn:
    """Turn and mirror each image: one of the eight symmetries of the square.

    Square images of shape (B, C, H, H), any type, where left and right, up and down
    mean nothing: textures, microscopy. All eight are equally likely.
    """

    def __call__(self, images: Tensor, generator: Generator | None) -> Tensor:
        """Return the turned images."""
        if images.shape[-1] != images.shape[-2]:
            raise ValueError(f"images of shape {tuple(images.shape)} are not square")
        draw = torch.randint(2, (3, len(images)), generator=generator).bool()
        draw = draw.to(images.device)[:, :, None, None, None]
        images = torch.where(draw[0], images.flip(-1), images)
        images = torch.where(draw[1], images.flip(-2), images)
        return torch.where(draw[2], images.transpose(-1, -2), images)


@dataclasses.dataclass(frozen=True)
class Cutout:
    """Set a square to zero; its centre is a pixel drawn uniformly.

    Images of shape (B, C, H, W), any type; ``size`` is the side in pixels, and
    the square may reach over the edge. Source: DeVries and Taylor,
    arXiv:1708.04552 (2017).
    """

    size: int

    def __call__(self, images: Tensor, generator: Generator | None) -> Tensor:
        """Return the changed images."""
        inside = []
        for side in images.shape[2:]:
            centre = torch.randint(side, (len(images),), generator=generator)
            first = centre.to(images.device)[:, None] - self.size // 2
            place = torch.arange(side, device=images.device)
            inside.append((place >= first) & (place < first + self.size))
        rows, columns = inside  # (B, H), (B, W)
        hidden = rows[:, :, None] & columns[:, None, :]
        return images.masked_fill(hidden[:, None], 0)


@dataclasses.dataclass(frozen=True)
class Affine:
    """Rotate, scale and shift each image; what enters at the edges is zero.

    Images of shape (B, C, H, W), floating point. The angle is uniform in
    [-degrees, degrees], the scale in [1 - scale, 1 + scale], the shifts in
    [-shift, shift] times the side. Values between pixels are interpolated
    linearly. Source: Simard, Steinkraus and Platt (2003).
    """

    degrees: float = 0.0
    scale: float = 0.0
    shift: float = 0.0

    def __call__(self, images: Tensor, generator: Generator | None) -> Tensor:
        """Return the changed images."""
        _check_floating(images)
        draw = 2 * torch.rand(4, len(images), generator=generator) - 1
        angle = draw[0] * math.radians(self.degrees)
        factor = 1 + draw[1] * self.scale
        height, width = images.shape[2:]
        cos, sin = angle.cos() / factor, angle.sin() / factor
        # The grid tells where each output pixel comes from, in coordinates that
        # run from -1 to 1 along both sides: hence the inverse map.
        across, down = 2 * self.shift * draw[2], 2 * self.shift * draw[3]
        row_x = torch.stack([cos, sin * height / width], dim=1)
        row_y = torch.stack([-sin * width / height, cos], dim=1)
        linear = torch.stack([row_x, row_y], dim=1)  # (B, 2, 2)
        offset = -linear @ torch.stack([across, down], dim=1)[:, :, None]
        theta = torch.cat([linear, offset], dim=2).to(images)  # (B, 2, 3)
        grid = affine_grid(theta, list(images.shape), align_corners=False)
        return grid_sample(images, grid, align_corners=False)


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast and saturation of each colour image.

    Images of shape (B, 3, H, W), floating point with values in [0, 1]; so are
    those returned. Each of the three factors is uniform in [1 - a, 1 + a], where
    a is the number given, and they act in the order named: brightness multiplies
    the image, contrast blends it with the mean of its grey version, saturation
    with its grey version. Source: Howard, arXiv:1312.5402 (2013);
    definitions as in torchvision.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __call__(self, images: Tensor, generator: Generator | None) -> Tensor:
        """Return the changed images."""
        _check_floating(images)
        draw = 2 * torch.rand(3, len(images), generator=generator) - 1
        draw = draw.to(images)[:, :, None, None, None]
        images = (images * (1 + self.brightness * draw[0])).clamp(0, 1)
        mean = _grey(images).mean(dim=(2, 3), keepdim=True)
        images = mean.lerp(images, 1 + self.contrast * draw[1]).clamp(0, 1)
        return _grey(images).lerp(images, 1 + self.saturation * draw[2]).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Brightness of colour images (ITU-R BT.601), shape (B, 1, H, W)."""
    weights = torch.tensor([0.299, 0.587, 0.114]).to(images)
    return (images * weights[:, None, None]).sum(dim=1, keepdim=True)


def _check_floating(images: Tensor) -> None:
    if not images.is_floating_point():
        raise ValueError(f"images must be floating point, not {images.dtype}")
