"""What a network really does to the shape of its input, found by running it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mfdnn import modes


@dataclass(frozen=True)
class Call:
    """One call of one layer; both shapes are those of a single example."""

    name: str
    module: nn.Module
    input: tuple[int, ...]
    output: tuple[int, ...]


def trace(
    model: nn.Module, shape: Sequence[int], whole: tuple[type[nn.Module], ...] = ()
) -> list[Call]:
    """Run a network on a zero input and list the calls of its layers, in order.

    Layers are modules without submodules. Operations that are not modules
    (``x.flatten(1)``, ``F.relu``, ``a + b``) are not seen. The run is in
    evaluation mode and without gradients, on the model's device; afterwards the
    model and torch's random generator are as before.

    Args:
        model: the network; it is given one input, shape with a 1 in front.
        shape: the shape of one example, for instance (1, 28, 28).
        whole: classes of modules to list as one layer, submodules and all.

    Returns:
        a call for every time that a layer ran and returned a tensor.

    >>> from mfdnn.nn import mlp
    >>> for call in trace(mlp([784, 64, 10]), (1, 28, 28)):
    ...     print(call.name, type(call.module).__name__, call.output)
    0 Flatten (784,)
    1 Linear (64,)
    2 ReLU (64,)
    3 Linear (10,)
    """
    calls: list[Call] = []
    layers = _layers(model, "", whole)

    def record(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            given, returned = tuple(args[0].shape[1:]), tuple(output.shape[1:])
            calls.append(Call(layers[module], module, given, returned))

    hooks = [module.register_forward_hook(record) for module in layers]
    try:
        run_on_zeros(model, shape)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def run_on_zeros(model: nn.Module, shape: Sequence[int]) -> object:
    """Run a network on one zero input, in evaluation mode and without gradients.

    Args:
        model: the network; it, and torch's random generator, are left as they were.
        shape: the shape of one example.

    Returns:
        the network's output.
    """
    floats = (p for p in model.parameters() if p.is_floating_point())
    like = next(floats, torch.empty(0))
    zeros = torch.zeros(1, *shape, dtype=like.dtype, device=like.device)
    with modes.evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        return model(zeros)


def _layers(
    module: nn.Module, name: str, whole: tuple[type[nn.Module], ...]
) -> dict[nn.Module, str]:
    """The modules to watch, each once, with their names."""
    children = list(module.named_children())
    if not children or isinstance(module, whole):
        return {module: name}
    layers: dict[nn.Module, str] = {}
    for key, child in children:
        path = f"{name}.{key}" if name else key
        layers = _layers(child, path, whole) | layers
    return layers
