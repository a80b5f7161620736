"""The fast classification of images against a plain loop, and its parts."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from mfdnn import recipes
from mfdnn.data import photo_crops
from mfdnn.device import Compute
from mfdnn.nn import fast as network
from mfdnn.nn.fast import FastCIFAR10, whitening
from mfdnn.recipes import fast
from torch import nn
from torch.nn.functional import conv2d

from tests.package.compare import (
    examined_on_first,
    on_first_examples,
    on_training_images,
    wrong_curves,
)

CPU = Compute(torch.device("cpu"))
ROWS = {"cifar10-fast": 1_972_792}
TINY = replace(
    recipes.find("cifar10-fast"),
    task=fast.Fast(partial(FastCIFAR10, (25, 6))),
    epochs=2,
    batch_size=16,
    settings={
        "lr": 1.0,
        "bias_factor": 3.0,
        "momentum": 0.8,
        "weight_decay": 0.02,
        "label_smoothing": 0.2,
    },
)


def some(split, count, side=16):
    """Crops of photographs, of all classes."""
    images = photo_crops(split)
    every = len(images) // count
    return replace(
        images,
        images=images.images[::every][:count, :, :side, :side],
        labels=images.labels[::every][:count],
    )


TRAIN, TEST = some("train", 60), some("test", 150)


def factor(step, steps):
    """The share of the rate in a step, counted from 0, from its corners."""
    return np.interp((step + 1) / steps, [0, 0.25, 1], [0.2, 1, 0])


def smoothed(logits, y, weight):
    """The cross entropy with mixed labels, in full."""
    target = torch.full_like(logits, weight / 10)
    target[range(len(y)), y] += 1 - weight
    return -(target * logits.log_softmax(1)).sum(1).mean()


def padded(images, margin):
    mode = [(0, 0), (0, 0), (margin, margin), (margin, margin)]
    return torch.from_numpy(np.pad(images.numpy(), mode, "reflect"))


def averaged(model, x):
    """Six views, one by one."""
    wide = padded(x, 1)
    plain = (model(x) + model(x.flip(3))) / 2
    corners = [wide[:, :, :16, :16], wide[:, :, 2:, 2:]]
    corners = [(model(c) + model(c.flip(3))) / 2 for c in corners]
    return plain / 2 + sum(corners) / 4


def train_written_out(recipe, train, test, seed):
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    chosen = recipe.settings
    model = recipe.task.network()
    model.whiten(padded(train.images, 2) / 255)
    turned = torch.rand(len(train)) < 0.5
    wide = padded(train.images, 2)
    moved = {n: p for n, p in model.named_parameters() if p.requires_grad}
    velocity = {n: torch.zeros_like(p) for n, p in moved.items()}
    steps = recipe.epochs * -(-len(train) // recipe.batch_size)
    losses, curves = [], {"loss": [], "test_accuracy": []}
    for _ in range(recipe.epochs):
        total = 0.0
        for index in torch.randperm(len(train), generator=rng).split(16):
            corner = [torch.randint(5, (len(index),), generator=rng) for _ in "ij"]
            x = torch.stack(
                [
                    wide[n, :, i : i + 16, j : j + 16]
                    for n, i, j in zip(index, *corner, strict=True)
                ]
            )
            x[turned[index]] = x[turned[index]].flip(3)
            turned[index] = ~turned[index]
            logits = model(x / 255)
            loss = smoothed(logits, train.labels[index], chosen["label_smoothing"])
            gradients = torch.autograd.grad(loss, list(moved.values()))
            rate = chosen["lr"] * factor(len(losses), steps)
            for (name, p), g in zip(moved.items(), gradients, strict=True):
                scale = chosen["bias_factor"] if name.endswith("bias") else 1
                g = g + chosen["weight_decay"] / scale * p.detach()
                v = velocity[name]
                v.mul_(chosen["momentum"]).add_(g)
                p.data -= rate * scale * (g + chosen["momentum"] * v)
            losses.append(loss.item())
            total += loss.item() * len(index)
        curves["loss"].append(total / len(train))
        model.eval()
        with torch.no_grad():
            x = test.images / 255
            right = model(x).argmax(1) == test.labels
            averages = averaged(model, x).argmax(1) == test.labels
        model.train()
        curves["test_accuracy"].append(right.double().mean().item())
    return losses, curves, averages.double().mean().item()


def differences(record):
    losses, curves, last = train_written_out(TINY, TRAIN, TEST, 7)
    wrong = wrong_curves(record, losses, curves, rel=2e-5, atol=1e-6)
    if record.final["averaged_accuracy"] != pytest.approx(last):
        wrong.add("averaged_accuracy")
    return wrong


def recorded():
    return recipes.run(TINY, (TRAIN, TEST), 7, CPU).record


def test_a_record_says_what_a_plain_loop_does():
    assert differences(recorded()) == set()


def always_mirrored_alike(monkeypatch, train):
    monkeypatch.setattr(fast.Mirror, "forward", lambda self, x, index: x)


def mirrored_by_chance(monkeypatch, train):
    def forward(self, x, index):
        turned = torch.rand(len(x)) < 0.5
        return torch.where(turned[:, None, None, None], x.flip(-1), x)

    monkeypatch.setattr(fast.Mirror, "forward", forward)


def not_shifted(monkeypatch, train):
    monkeypatch.setattr(
        fast.augment.Crop, "__call__", lambda s, x, g: x[..., 2:-2, 2:-2]
    )


def not_smoothed(monkeypatch, train):
    real = fast.cross_entropy
    monkeypatch.setattr(fast, "cross_entropy", lambda x, y, **_: real(x, y))


def not_nesterov(monkeypatch, train):
    real = fast.SGD
    monkeypatch.setattr(fast, "SGD", lambda *a, nesterov, **b: real(*a, **b))


def constant_rate(monkeypatch, train):
    monkeypatch.setattr(fast, "triangle", lambda t: 1.0)


def biases_as_weights(monkeypatch, train):
    real = fast.nesterov
    monkeypatch.setattr(
        fast,
        "nesterov",
        lambda model, settings, steps: real(
            model, {**settings, "bias_factor": 1.0}, steps
        ),
    )


def not_whitened(monkeypatch, train):
    monkeypatch.setattr(FastCIFAR10, "whiten", lambda self, images: None)


def whitening_learned(monkeypatch, train):
    real = FastCIFAR10.whiten

    def whiten(self, images):
        real(self, images)
        self.first.requires_grad_(True)

    monkeypatch.setattr(FastCIFAR10, "whiten", whiten)


def one_view(monkeypatch, train):
    monkeypatch.setattr(fast, "views", lambda x: [(1.0, x.flip(-1))])


def with_training_images(mistake):
    return lambda monkeypatch, train: mistake(monkeypatch, TINY, train)


MISTAKES = [
    always_mirrored_alike,
    mirrored_by_chance,
    not_shifted,
    not_smoothed,
    not_nesterov,
    constant_rate,
    biases_as_weights,
    not_whitened,
    whitening_learned,
    one_view,
    with_training_images(on_training_images),
    with_training_images(on_first_examples),
    with_training_images(examined_on_first),
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_plain_loop_notices(mistake, monkeypatch):
    mistake(monkeypatch, TRAIN)
    record = recorded()
    monkeypatch.undo()
    assert differences(record)


def test_whitened_patches_are_uncorrelated():
    x = (TRAIN.images / 255).double()
    filters, biases = whitening(x)
    z = conv2d(x, filters, biases).movedim(1, 3).flatten(0, 2).numpy()
    assert np.abs(z.mean(0)).max() < 1e-10
    windows = np.lib.stride_tricks.sliding_window_view(x.numpy(), (2, 2), (2, 3))
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(len(z), 12)
    variances = np.linalg.svd(patches - patches.mean(0), compute_uv=False) ** 2
    variances /= len(z)
    wanted = np.diag(variances / (variances + network.SMALLEST))
    np.testing.assert_allclose(np.cov(z.T, ddof=0), wanted, atol=1e-9)
    assert variances.max() > 100 * variances.min()  # it was not so before


def test_the_first_filters_come_in_pairs_and_stay():
    model = FastCIFAR10()
    model.whiten(TRAIN.images / 255)
    weight, bias = model.first.weight, model.first.bias
    assert torch.equal(weight[:12], -weight[12:])
    assert torch.equal(bias[:12], -bias[12:])
    assert not weight.requires_grad and not bias.requires_grad


def test_the_filters_start_as_the_identity():
    model = FastCIFAR10((30, 40, 40))
    convs = [layer for layer in model.features if isinstance(layer, nn.Conv2d)]
    assert [c.in_channels for c in convs] == [24, 30, 30, 40, 40, 40]
    for conv in convs:
        x = torch.randn(2, conv.in_channels, 5, 5)
        torch.testing.assert_close(conv(x)[:, : conv.in_channels], x)


def test_every_image_is_mirrored_in_every_second_epoch():
    torch.manual_seed(0)
    mirror = fast.Mirror(1000)
    x = torch.arange(2.0).expand(1000, 1, 1, 2)
    seen = []
    for epoch in range(4):
        order = torch.randperm(1000, generator=torch.Generator().manual_seed(epoch))
        turned = torch.empty(1000, dtype=torch.bool)
        for index in order.split(300):
            turned[index] = mirror(x[index], index)[:, 0, 0, 0] == 1
        seen.append(turned)
    assert 430 < seen[0].sum() < 570
    assert torch.equal(seen[1], ~seen[0])
    assert torch.equal(seen[2], seen[0])
    assert torch.equal(seen[3], seen[1])


def test_an_interrupted_run_ends_alike(tmp_path):
    whole = recipes.run(TINY, (TRAIN, TEST), 3, CPU).record
    path = tmp_path / "c.pt"
    evaluate = fast.Fast.evaluate
    calls = []

    def interrupted(task, learner, test):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(task, learner, test)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast.Fast, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            recipes.run(TINY, (TRAIN, TEST), 3, CPU, checkpoint=path)
    resumed = recipes.run(TINY, (TRAIN, TEST), 3, CPU, checkpoint=path).record
    assert resumed.curves == whole.curves
    assert resumed.final == whole.final


def test_in_bfloat16_too():
    short = replace(TINY, epochs=1)
    compute = Compute(torch.device("cpu"), "bf16", channels_last=True)
    found = recipes.run(short, (TRAIN, TEST), 7, compute).record
    exact = recipes.run(short, (TRAIN, TEST), 7, CPU).record
    assert found.curves["loss"] == pytest.approx(exact.curves["loss"], rel=0.02)
    assert found.curves["loss"] != exact.curves["loss"]


def test_the_recipes_network():
    recipe = recipes.find("cifar10-fast")
    model = recipe.task.network()
    assert sum(p.numel() for p in model.parameters()) == ROWS["cifar10-fast"]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_six_views_are_averaged():
    x = TEST.images[:9] / 255
    model = nn.Sequential(nn.Conv2d(3, 2, 5), nn.Tanh(), nn.Flatten(), nn.LazyLinear(4))
    with torch.no_grad():
        found = sum(weight * model(view) for weight, view in fast.views(x))
        torch.testing.assert_close(found, averaged(model, x))


def test_two_steps_of_the_recipe():
    recipe = replace(recipes.find("cifar10-fast"), batch_size=64)
    first, second = recipes.first_steps(recipe, some("train", 128, 32), 0)["loss"]
    assert second < first < 1.1 * np.log(10)
