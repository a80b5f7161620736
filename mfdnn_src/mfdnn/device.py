"""Where and how a model runs: device, seed, threads, precision, memory layout."""

import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, nn

PRECISIONS = ("fp32", "tf32", "bf16")


def choose(name: str | None = None) -> torch.device:
    """Choose the device to train on.

    Args:
        name: a device such as "cuda", "cuda:1", "mps" or "cpu". None takes the
            environment variable MFDNN_DEVICE; when that is not set either, the
            first of CUDA, MPS and CPU that this machine has.

    Returns:
        the device; it exists.

    Raises:
        ValueError: if the device asked for is not there; the message lists
            those that are.

    >>> choose("cpu")
    device(type='cpu')
    """
    found = available()
    asked = name or os.environ.get("MFDNN_DEVICE") or found[0]
    if (f"{asked}:0" if asked == "cuda" else asked) not in found:
        raise ValueError(f"no device {asked!r} here; there is {', '.join(found)}")
    return torch.device(asked)


def available() -> list[str]:
    """List the devices of this machine, the one to prefer first.

    Returns:
        names such as ["cuda:0", "cpu"].
    """
    found = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def seed(number: int) -> Generator:
    """Seed Python's and torch's global generators, and make a fresh one.

    The global generators serve initial weights and dropout. The one returned
    serves the order of the batches and the augmentation; it lives on the CPU,
    so that its draws are the same on every device.

    Args:
        number: the seed, not negative.

    Returns:
        a CPU generator with the same seed.

    Raises:
        ValueError: if the seed is negative.
    """
    if number < 0:
        raise ValueError(f"a seed is not negative, but this one is {number}")
    random.seed(number)
    torch.manual_seed(number)  # every device's
    return Generator().manual_seed(number)


@contextmanager
def seeded(number: int) -> Iterator[Generator]:
    """Run a block with seeded generators; afterwards the global ones are as before.

    Args:
        number: the seed, not negative.

    Yields:
        a CPU generator with the same seed, as from `seed`.

    Raises:
        ValueError: if the seed is negative.
    """
    python = random.getstate()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            yield seed(number)
        finally:
            random.setstate(python)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Run a block on this many CPU threads; afterwards it is as before.

    Sums over another number of threads are rounded differently: a result repeats
    to the bit only with the same number.

    Args:
        number: at least 1.

    Returns:
        a context manager.

    Raises:
        ValueError: if the number is below 1.
    """
    if number < 1:
        raise ValueError(f"at least one thread is needed, not {number}")
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def arithmetic(precision: str = "fp32") -> Iterator[None]:
    """Run a block with the arithmetic that a precision means; then it is as before.

    On NVIDIA GPUs torch computes convolutions of float32 numbers in TF32 (11
    significant bits) unless it is told not to: "fp32" tells it not to, here, for
    matrix products and convolutions alike. Elsewhere this changes nothing.

    Args:
        precision: "fp32"; "tf32" for TF32 in both; or "bf16", which is as "fp32"
            outside of `autocast`.

    Raises:
        ValueError: if there is no such precision.
    """
    _check_precision(precision)
    cudnn: Any = torch.backends.cudnn
    flags: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv)
    before = [flag.fp32_precision for flag in flags]
    for flag in flags:
        flag.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        for flag, old in zip(flags, before, strict=True):
            flag.fp32_precision = old


def autocast(
    device: torch.device, precision: str = "fp32"
) -> AbstractContextManager[object]:
    """Make the context in which a forward pass is computed.

    With "bf16" matrix products and convolutions are computed in bfloat16 (8
    significant bits, the range of float32, so that no scaling of the loss is
    needed). Weights, and the losses that torch defines, stay in float32; a loss
    written by hand is in bfloat16 if its inputs are. For what "fp32" and "tf32"
    mean see `arithmetic`.

    Args:
        device: where the model is.
        precision: "fp32", "tf32" or "bf16".

    Returns:
        a context manager that can be entered again and again.

    Raises:
        ValueError: if there is no such precision.

    Source: Micikevicius et al., "Mixed precision training" (2018).
    """
    _check_precision(precision)
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {PRECISIONS}, not {precision!r}")


def place(
    model: nn.Module,
    device: torch.device,
    *,
    channels_last: bool = False,
    compiled: bool = False,
) -> nn.Module:
    """Move a model to a device, in place, and prepare it to run fast there.

    Args:
        model: the model.
        device: where it shall run.
        channels_last: store the weights of convolutions with the channel as the
            fastest index. The images follow by themselves. Pays for convolutional
            networks in bf16 on a GPU.
        compiled: let torch.compile generate code at the first call. Pays for
            long runs; the names of the parameters stay the same.

    Returns:
        the same model.

    Source: torch's documentation of memory formats and of torch.compile.
    """
    model = model.to(device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    if compiled:
        model.compile()
    return model


@dataclass(frozen=True)
class Compute:
    """Where and how a run is computed; all of it lands in its record.

    Args:
        device: the device.
        precision: "fp32", "tf32" or "bf16".
        channels_last: see `place`.
        compiled: see `place`.

    Raises:
        ValueError: if there is no such precision.
    """

    device: torch.device
    precision: str = "fp32"
    channels_last: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        _check_precision(self.precision)

    def place(self, model: nn.Module) -> nn.Module:
        """Move a network there and prepare it, see `place`."""
        return place(
            model,
            self.device,
            channels_last=self.channels_last,
            compiled=self.compiled,
        )

    def forward(self) -> AbstractContextManager[object]:
        """The context of a forward pass, see `autocast`."""
        return autocast(self.device, self.precision)
