"""How good, how large and how fast: the numbers that the book reports."""

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mfdnn.trace import run_on_zeros

Nats = TypeVar("Nats", float, Tensor)


def accuracy(logits: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """Return the share of examples whose label is among the k largest logits.

    Of equal logits the one of the smaller class counts as larger, so that a
    network with constant outputs does not look good. An example whose own logit
    is NaN counts as wrong.

    Args:
        logits: shape (N, C); any increasing function of them does as well.
        labels: class indices, shape (N,).
        k: how many guesses are allowed, 1 to C.

    Returns:
        a number in [0, 1], shape (), on the device of the logits.

    Raises:
        ValueError: if the shapes do not fit, or k is not in 1, ..., C.

    Source: lecture topic 3.21.

    >>> logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    >>> labels = torch.tensor([0, 1])
    >>> accuracy(logits, labels).item(), accuracy(logits, labels, k=2).item()
    (0.5, 1.0)
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        shapes = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"logits and labels have shapes {shapes}, not (N, C) and (N,)")
    classes = torch.arange(logits.shape[1], device=logits.device)
    if not 1 <= k <= len(classes):
        raise ValueError(f"k must be in 1, ..., {len(classes)}, not {k}")
    own = logits.gather(1, labels[:, None])  # (N, 1)
    tied = (logits == own) & (classes < labels[:, None])  # (N, C)
    rank = (~(logits <= own) | tied).sum(dim=1)  # (N,): how many come before the label
    return (rank < k).float().mean()


def confusion(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count how often each class was taken for each class.

    Args:
        predictions: predicted class indices, shape (N,).
        labels: true class indices, shape (N,).
        classes: the number of classes C.

    Returns:
        counts, shape (C, C), int64: row i, column j holds how many examples of
        class i were predicted to be of class j.

    Raises:
        ValueError: if the shapes differ, or an index is not in 0, ..., C - 1.

    Source: standard; scikit-learn's confusion_matrix has the same orientation.
    """
    if predictions.ndim != 1 or predictions.shape != labels.shape:
        shapes = f"{tuple(predictions.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"predictions and labels have shapes {shapes}, not both (N,)")
    both = torch.stack([labels, predictions])
    if both.numel() and not 0 <= both.min() <= both.max() < classes:
        raise ValueError(f"a class index is not in 0, ..., {classes - 1}")
    cells = labels * classes + predictions
    return torch.bincount(cells, minlength=classes**2).view(classes, classes)


def iou(counts: Tensor) -> Tensor:
    """Return the intersection over union of each class, from a confusion matrix.

    Args:
        counts: shape (C, C), as `confusion` gives them.

    Returns:
        for each class: how many examples (pixels) have it as label and as prediction,
        over how many have it as one of both; shape (C,), float64, NaN for a class that
        occurs in neither.

    Raises:
        ValueError: if the matrix is not square.

    Source: lecture topic 4.27; Everingham et al., "The Pascal visual object classes
    challenge: a retrospective" (2015).

    >>> iou(torch.tensor([[3, 1], [0, 4]]))
    tensor([0.7500, 0.8000], dtype=torch.float64)
    """
    both, either = _overlap(counts)
    return both / (either - both)


def dice(counts: Tensor) -> Tensor:
    """Return the Dice coefficient of each class: twice the intersection over the sum.

    Arguments, results and errors as of `iou`; 2 iou / (1 + iou).

    Source: Dice, "Measures of the amount of ecologic association between species"
    (1945); for two classes the F1 score.
    """
    both, either = _overlap(counts)
    return 2 * both / either


def _overlap(counts: Tensor) -> tuple[Tensor, Tensor]:
    """For each class, its size in both, and the sum of its sizes, float64."""
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"a confusion matrix is square, not {tuple(counts.shape)}")
    counts = counts.double()
    return counts.diagonal(), counts.sum(0) + counts.sum(1)


def psnr(x: Tensor, y: Tensor, peak: float = 1.0) -> Tensor:
    """Return the peak signal-to-noise ratio of images, in decibels.

    Args:
        x: images of floating point, shape (..., C, H, W).
        y: the images to compare with, same shape; the order does not matter.
        peak: the largest possible value, 1 for images in [0, 1].

    Returns:
        one value an image, shape (...), infinite where the images are equal.
        What papers report for a test set is the mean of these.

    Raises:
        ValueError: if the shapes differ or the images hold integers.

    Source: standard; agrees with scikit-image's peak_signal_noise_ratio.
    """
    x, y = _image_pair(x, y)
    mse = (x - y).square().mean(dim=(-3, -2, -1))
    return -10 * torch.log10(mse / peak**2)


def ssim(x: Tensor, y: Tensor, peak: float = 1.0) -> Tensor:
    """Return the structural similarity of images, at most 1.

    Local means, variances and covariances have a Gaussian window of 11 by 11
    pixels, standard deviation 1.5; windows that stick out are left out. Colours
    are compared one by one and averaged.

    Args:
        x: images of floating point, shape (..., C, H, W), H and W at least 11.
        y: the images to compare with, same shape; the order does not matter.
        peak: the range of the values, 1 for images in [0, 1].

    Returns:
        one value an image, shape (...).

    Raises:
        ValueError: if the shapes differ, the images hold integers or are smaller
            than the window.

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from
    error visibility to structural similarity" (2004).
    """
    x, y = _image_pair(x, y)
    if min(x.shape[-2:]) < 11:
        raise ValueError(f"images of shape {tuple(x.shape)} are smaller than 11 by 11")
    mu_x, mu_y, xx, yy, xy = _blur(torch.stack([x, y, x * x, y * y, x * y])).unbind()
    var_x, var_y, cov = xx - mu_x**2, yy - mu_y**2, xy - mu_x * mu_y
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    similar = (2 * mu_x * mu_y + c1) * (2 * cov + c2)
    similar = similar / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))
    return similar.mean(dim=(-3, -2, -1))


def _image_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape != y.shape or x.ndim < 3:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"images have shapes {shapes}, not both (..., C, H, W)")
    if not (x.is_floating_point() and y.is_floating_point()):
        raise ValueError("images of integers: convert them to [0, 1] first")
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    return x.to(dtype), y.to(dtype)


def _blur(maps: Tensor) -> Tensor:
    """Average with a Gaussian window: (..., H, W) to (..., H - 10, W - 10).

    As a sum of shifted maps, not as a convolution: on a GPU that one may round
    to TF32, and the variances are small differences of these averages.
    """
    window = [math.exp(-0.5 * (i / 1.5) ** 2) for i in range(-5, 6)]
    weights = [w / sum(window) for w in window]
    H, W = maps.shape[-2] - 10, maps.shape[-1] - 10
    rows = sum(w * maps[..., i : i + H, :] for i, w in enumerate(weights))
    assert isinstance(rows, Tensor)
    blurred = sum(w * rows[..., i : i + W] for i, w in enumerate(weights))
    assert isinstance(blurred, Tensor)
    return blurred


def bits_per_dim(nats: Nats, dims: int) -> Nats:
    """Convert a negative log-likelihood from nats to bits per dimension.

    A density of pixels in 0, ..., 255 (with uniform noise in [0, 1] added) gives
    the number that papers report. A density of the same pixels divided by 256
    gives 8 less: add log2(256).

    Args:
        nats: -log p(x) with the natural logarithm, a number or any shape.
        dims: the number of dimensions of one x, 3072 for a 3x32x32 image.

    Returns:
        nats / (dims log 2), a number or the same shape.

    Raises:
        ValueError: if dims is not positive.

    Source: standard; Theis, van den Oord and Bethge, "A note on the evaluation
    of generative models" (2016).

    >>> bits_per_dim(3072 * math.log(256), 3072)
    8.0
    """
    if dims < 1:
        raise ValueError(f"the number of dimensions must be positive, not {dims}")
    return nats / (dims * math.log(2))


def perplexity(counts: Tensor) -> Tensor:
    """Say how many values are in use: e to the entropy of their shares.

    Args:
        counts: how often each value occurs, shape (K,), not all zero.

    Returns:
        shape (), float64: k if k values are equally frequent and no others occur.

    >>> perplexity(torch.tensor([5, 0, 5, 5]))
    tensor(3.0000, dtype=torch.float64)
    """
    share = counts.double() / counts.sum()
    entropy: Tensor = -torch.xlogy(share, share).sum()
    return entropy.exp()


def frechet_distance(x: Tensor, y: Tensor) -> Tensor:
    """Compare two samples by the normal densities with their means and covariances.

    The square of the 2-Wasserstein distance of these densities,
    ``|m - n|^2 + tr(S + T - 2 (S^(1/2) T S^(1/2))^(1/2))``.

    Args:
        x: shape (N, d), features of images for instance.
        y: shape (M, d).

    Returns:
        shape (), float64, on the CPU.

    Raises:
        ValueError: if a sample has fewer than two rows, or the rows differ in length.

    Source: Dowson and Landau, "The Frechet distance between multivariate normal
    distributions" (1982); Heusel et al., "GANs trained by a two time-scale update
    rule converge to a local Nash equilibrium" (2017).

    >>> frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [3.0]]))
    tensor(6., dtype=torch.float64)
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"two samples of rows of one length are compared, not of shapes "
            f"{tuple(x.shape)} and {tuple(y.shape)}"
        )
    if min(len(x), len(y)) < 2:
        raise ValueError("a covariance needs two rows or more")
    x, y = x.double().cpu(), y.double().cpu()
    m, n = x.mean(0), y.mean(0)
    # S = A^T A and T = B^T B; the trace of the root is the nuclear norm of A B^T.
    A, B = (
        torch.linalg.qr(centred, mode="r").R / math.sqrt(len(centred) - 1)
        for centred in (x - m, y - n)
    )
    middle = torch.linalg.svdvals(A @ B.T).sum()
    spread = A.square().sum() + B.square().sum() - 2 * middle
    found: Tensor = (m - n).square().sum() + spread
    return found


def count_parameters(model: nn.Module) -> int:
    """Count a network's parameters, frozen ones too, shared ones once.

    Args:
        model: the network. Buffers (running means and the like) do not count.

    Returns:
        the number of weights and biases.

    Source: lecture topic 3.80.

    >>> count_parameters(nn.Linear(784, 10))
    7850
    """
    return sum(p.numel() for p in model.parameters())


def count_multiplies(model: nn.Module, shape: Sequence[int]) -> int:
    """Count the multiplications in matrix products and convolutions.

    One multiplication a weight and place where it is used, padding included; these
    are the "multiply-accumulates" (MACs) of papers, half the FLOPs. Biases,
    normalisation and activations are left out.

    Args:
        model: the network. It runs once on a zero input, in evaluation mode;
            afterwards its modes are as before.
        shape: the shape of one example, for instance (3, 32, 32).

    Returns:
        the number of multiplications for one example.

    Source: torch's FlopCounterMode; He, Zhang, Ren and Sun, "Deep residual learning
    for image recognition" (2016), count the same way.

    >>> count_multiplies(nn.Conv2d(3, 64, 5), (3, 32, 32)) == 28 * 28 * 64 * 3 * 5 * 5
    True
    """
    with FlopCounterMode(display=False) as counter:
        run_on_zeros(model, shape)
    return int(counter.get_total_flops()) // 2


def throughput(
    step: Callable[[Tensor], object],
    images: Tensor,
    repeats: int = 10,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Measure how many images a second a step processes.

    Args:
        step: what to time: a training step, or a network (then under
            ``torch.no_grad()``).
        images: one batch, shape (B, ...), given to every call; its device is
            waited for before the clock is read.
        repeats: how many calls are timed together.
        warmup: how many calls come first, untimed (allocation, compilation).
        clock: a function that returns seconds.

    Returns:
        images per second, the mean over the repeats.

    Raises:
        ValueError: if repeats is not positive or warmup is negative.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"cannot time {repeats} repeats after {warmup} to warm up")
    for _ in range(warmup):
        step(images)
    _wait_for(images.device)
    start = clock()
    for _ in range(repeats):
        step(images)
    _wait_for(images.device)
    return repeats * len(images) / (clock() - start)


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
