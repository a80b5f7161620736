"""Several processes, one a GPU: torchrun starts them, torch joins their gradients.

`torchrun --nproc-per-node=4 -m mfdnn train RECIPE` starts four copies of the
program. Each computes its part of every batch; DistributedDataParallel averages
the gradients. One process alone needs nothing from here, and gets it unchanged.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def processes() -> int:
    """Count the processes that train together.

    Returns:
        the number; 1 outside of torchrun.
    """
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number this process among those that train together.

    Returns:
        0, ..., processes() - 1; 0 writes files and talks to the user.
    """
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def group(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun started, for the duration of a block.

    Args:
        device: the device asked for; "cuda" becomes this process's own GPU.

    Returns:
        a context manager that gives the device to use. Outside of torchrun it
        gives the device unchanged and does nothing else.

    Source: torch.distributed; gradients travel through NCCL between GPUs, through
    gloo between CPUs.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


class Shard:
    """One process's part of every batch, in the order of the whole batches.

    All processes draw the same batches (same seed, same augmentation) and keep
    consecutive parts whose sizes differ by at most one. A batch with fewer
    examples than processes is computed by each of them.

    Args:
        batches: batches of tensors of shapes (B, ...), the same in every process.
    """

    def __init__(self, batches: Iterable[Sequence[Tensor]]) -> None:
        self.batches = batches
        self.weight = 1.0  # of the present part, so that the mean part has 1

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    @property
    def generator(self) -> Generator | None:
        """The generator that shuffles the batches."""
        return getattr(self.batches, "generator", None)

    def __iter__(self) -> Iterator[Sequence[Tensor]]:
        n, r = processes(), rank()
        for batch in self.batches:
            total = len(batch[0])
            if total < n:
                self.weight = 1.0
                yield batch
            else:
                part = slice(r * total // n, (r + 1) * total // n)
                self.weight = (part.stop - part.start) * n / total
                yield [tensor[part] for tensor in batch]


def _join(
    shard: Shard,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """Average gradients over the examples: parts of a batch differ in size."""
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    if shard.weight != 1.0:
        bucket.buffer().mul_(shard.weight)
    return default_hooks.allreduce_hook(dist.group.WORLD, bucket)  # type: ignore[arg-type]


def split(
    model: nn.Module, batches: Iterable[Sequence[Tensor]]
) -> tuple[nn.Module, Iterable[Sequence[Tensor]]]:
    """Give this process its copy of the model and its part of the batches.

    The gradient of a step is that of the mean loss over the whole batch, up to
    rounding. Batch normalization takes its statistics over the whole batch on
    GPUs (SyncBatchNorm), and over the process's part on CPUs.

    Args:
        model: the model on this process's device, the same in every process.
        batches: the whole batches, tensors of shapes (B, ...).

    Returns:
        the model and the batches to hand to `fit`; unchanged in one process.

    Source: Li et al., "PyTorch distributed" (2020).
    """
    if processes() == 1:
        return model, batches
    shard = Shard(batches)
    if next(model.parameters()).is_cuda:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    parallel = DistributedDataParallel(model)
    parallel.register_comm_hook(shard, _join)
    return parallel, shard


def plain(model: nn.Module) -> nn.Module:
    """Undo `split`: the model itself, with its own names of parameters.

    Args:
        model: a model, split or not; its parameters keep their shapes.

    Returns:
        the model without the wrapper.
    """
    return model.module if isinstance(model, DistributedDataParallel) else model


def add_up(values: Tensor) -> Tensor:
    """Add a tensor over all processes.

    Args:
        values: any shape, the same in every process.

    Returns:
        the sum, same shape; the tensor itself when there is one process.
    """
    if processes() > 1:
        dist.all_reduce(values)
    return values


def wait() -> None:
    """Wait until every process has come here."""
    if processes() > 1:
        dist.barrier()
