"""Recipes of autoencoders and flows against plain loops: own noise, metrics, Adam."""

import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from mfdnn import recipes
from mfdnn.data import DataError, Examples, LabelledImages
from mfdnn.device import Compute
from mfdnn.flows import Density, logistic
from mfdnn.nn import Autoencoder, RealNVP, nice
from mfdnn.recipes import autoencode, flow
from scipy import stats

from tests.package.compare import (
    no_schedule,
    on_first_examples,
    on_training_images,
    plain_loop,
    shorter,
    wrong_curves,
)

CPU = Compute(torch.device("cpu"))
ROWS = {
    "autoencoder-mnist": 476_720,
    "anomaly-mnist-kmnist": 476_720,
    "nice-mnist": 19_158_352,
    "realnvp-cifar10": 10_889_073,
}


@pytest.mark.parametrize("name", ROWS)
def test_recipes_have_the_lectures_networks(name):
    task = recipes.find(name).task
    make = task.network if isinstance(task, autoencode.Rebuild) else task.density
    assert sum(p.numel() for p in make().parameters()) == ROWS[name]


def some_images(count, seed, side=8, channels=1):
    rng = torch.Generator().manual_seed(seed)
    steepness = torch.rand(count, 1, 1, 1, generator=rng)
    ramp = steepness * torch.linspace(0, 200, side)
    images = ramp + 55 * torch.rand(count, channels, side, side, generator=rng)
    return images.byte()


def labelled(count, seed, darker=1, **shape):
    images = some_images(count, seed, **shape) // darker
    labels = torch.zeros(count, dtype=torch.int64)
    return LabelledImages(images, labels, ("ramp",), f"ramps {seed}", "made here")


def familiar_and_novel(count):
    parts = {
        "image": some_images(count, 2),
        "novel": some_images(count, 3).flip(-1),
        "held out": some_images(count, 4),
    }
    return Examples(parts, "ramps up, ramps down", "made here")


REBUILD = recipes.Recipe(
    "tiny-autoencoder",
    "A small autoencoder.",
    "mnist",
    autoencode.Rebuild(partial(Autoencoder, (64, 12, 6))),
    epochs=2,
    batch_size=8,
    headline="test_mse",
    settings={"lr": 0.01, "schedule": "cosine"},
)
DETECT = replace(
    REBUILD,
    data="mnist-kmnist",
    task=autoencode.Detect(partial(Autoencoder, (64, 12, 6))),
    headline="type_2",
)
NICE = recipes.Recipe(
    "tiny-nice",
    "A small NICE.",
    "mnist",
    flow.Likelihood(lambda: Density(nice(64, 9, 1, 2), logistic), flat=True),
    epochs=2,
    batch_size=8,
    headline="test_nats",
    settings={"lr": 0.03, "schedule": "cosine"},
)
REALNVP = replace(
    NICE,
    task=flow.Likelihood(lambda: Density(RealNVP((1, 8, 8), 4, 1, 2)), flat=False),
)
KINDS = {
    "rebuild": (REBUILD, labelled(30, 1), labelled(21, 2, darker=2)),
    "detect": (
        DETECT,
        Examples({"image": some_images(30, 1)}, "ramps", "made here"),
        familiar_and_novel(21),
    ),
    "nice": (NICE, labelled(30, 1), labelled(21, 2, darker=2)),
    "real nvp": (REALNVP, labelled(30, 1), labelled(21, 2, darker=2)),
}


def pixels(data):
    return data.images if isinstance(data, LabelledImages) else data["image"]


def loss_of(recipe, model, images, rng):
    if isinstance(recipe.task, autoencode.Rebuild):
        x = images.flatten(1) / 255
        return ((model(x) - x) ** 2).mean()
    images = images.flatten(1) if recipe.task.flat else images
    x = (images + torch.rand(images.shape, generator=rng)) / 256
    z, log_det = model.flow(x)
    return -(log_base(recipe, z) + log_det).mean()


def log_base(recipe, z):
    """By other formulas than the model's bases."""
    if recipe.task.flat:  # logistic: the density is p (1 - p) for p = sigmoid(z)
        p = torch.sigmoid(z)
        return (p * (1 - p)).log().sum(1)
    return torch.distributions.Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)


def errors(model, images):
    x = images.flatten(1).double() / 255
    return ((model(x.float()).double() - x) ** 2).mean(1).numpy()


def measured(recipe, model, test):
    model.eval()
    with torch.no_grad():
        if isinstance(recipe.task, autoencode.Detect):
            held_out = errors(model, test["held out"])
            limit = held_out.mean() + 3 * held_out.std(ddof=1)
            normal, novel = (errors(model, test[n]) for n in ("image", "novel"))
            means = {
                "type_1": np.mean([e > limit for e in normal]),
                "type_2": 1 - np.mean([e > limit for e in novel]),
                "threshold": limit,
                "test_mse": normal.mean(),
            }
        elif isinstance(recipe.task, autoencode.Rebuild):
            means = {"test_mse": errors(model, test.images).mean()}
        else:
            rng = torch.Generator().manual_seed(0)
            nats = -loss_of(recipe, model, test.images, rng).item()
            means = {"test_nats": nats, "bits_per_dim": 8 - nats / 64 / math.log(2)}
    model.train()
    return means


def train_written_out(recipe, train, test, seed, steps=None):
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    task = recipe.task
    model = task.network() if hasattr(task, "network") else task.density()

    def differentiate(index):
        loss = loss_of(recipe, model, pixels(train)[index], rng)
        loss.backward()
        return loss.item()

    losses, curves = plain_loop(
        recipe,
        model,
        len(train),
        rng,
        differentiate,
        lambda: measured(recipe, model, test),
        steps,
    )
    return losses, curves, model


def differences(kind, record):
    losses, curves, _ = train_written_out(*KINDS[kind], 7)
    return wrong_curves(record, losses, curves, rel=2e-5, atol=1e-6)


def recorded(kind):
    recipe, train, test = KINDS[kind]
    return recipes.run(recipe, (train, test), 7, CPU)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_says_what_a_plain_loop_does(kind):
    assert differences(kind, recorded(kind).record) == set()


def evaluated_in_training_mode(monkeypatch, recipe, train):
    monkeypatch.setattr(flow, "evaluating", lambda model: nullcontext())


def no_noise(monkeypatch, recipe, train):
    monkeypatch.setattr(flow, "dequantize", lambda images, rng: images / 256)


def no_determinant(monkeypatch, recipe, train):
    monkeypatch.setattr(Density, "forward", lambda self, x: self.base(self.flow(x)[0]))


def swapped_sets(monkeypatch, recipe, train):
    real = autoencode.Detect.evaluate

    def evaluate(task, model, test):
        names = {"image": "novel", "novel": "image", "held out": "held out"}
        parts = {name: test[other] for name, other in names.items()}
        return real(task, model, replace(test, tensors=parts))

    monkeypatch.setattr(autoencode.Detect, "evaluate", evaluate)


MISTAKES = [
    ("rebuild", on_training_images),
    ("nice", on_training_images),
    ("rebuild", on_first_examples),
    ("detect", on_first_examples),
    ("nice", on_first_examples),
    ("rebuild", no_schedule),
    ("nice", no_schedule),
    ("real nvp", evaluated_in_training_mode),
    ("nice", no_noise),
    ("nice", no_determinant),
    ("detect", swapped_sets),
]


@pytest.mark.parametrize(("kind", "mistake"), MISTAKES)
def test_the_plain_loop_notices(kind, mistake, monkeypatch):
    recipe, train, _ = KINDS[kind]
    mistake(monkeypatch, recipe, train)
    record = recorded(kind).record
    monkeypatch.undo()
    assert differences(kind, record)


def test_noise_is_uniform_within_a_grey_level():
    levels = torch.tensor([0, 7, 255], dtype=torch.uint8).repeat(4000, 1)
    x = flow.dequantize(levels, torch.Generator().manual_seed(0))
    assert x.max() < 1
    assert torch.equal((256 * x).floor(), levels.float())
    for column in (256 * x - levels).T:
        assert stats.kstest(column.numpy(), "uniform").pvalue > 0.001


def test_pictures():
    for kind in ("rebuild", "detect"):
        picture, test = recorded(kind).picture, KINDS[kind][2]
        _, _, model = train_written_out(*KINDS[kind], 7)
        shown = [pixels(test)[:8]]
        if kind == "detect":
            shown.append(test["novel"][:8])
        for i, images in enumerate(shown):
            x = images / 255
            rebuilt = model(x.flatten(1)).detach().reshape(x.shape)
            torch.testing.assert_close(picture[16 * i : 16 * i + 8], x)
            found = picture[16 * i + 8 : 16 * i + 16]
            torch.testing.assert_close(found, rebuilt, rtol=0, atol=1e-3)
    for kind in ("nice", "real nvp"):
        picture = recorded(kind).picture
        assert picture.shape == (64, 1, 8, 8)
        assert picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0.01


def test_anomalies_need_the_full_sets(monkeypatch):
    recipe = recipes.find("anomaly-mnist-kmnist")
    with pytest.raises(DataError, match="no embedded stand-in"):
        recipe.load("embedded")
    with pytest.raises(ValueError, match="no 'cifar10'"):
        recipe.task.load("cifar10")
    monkeypatch.setattr(autoencode, "HELD_OUT", 9)
    asked = []

    def image_set(name, split, where, published):
        asked.append((name, split, where, published))
        return labelled(29 if split == "train" else 9, seed=len(asked), side=2)

    monkeypatch.setattr(autoencode, "image_set", image_set)
    train, test = recipe.load("somewhere")
    assert len(train) == 20
    both = torch.cat([train["image"], test["held out"]])
    assert torch.equal(both, some_images(29, 1, side=2))
    assert torch.equal(test["image"], some_images(9, 2, side=2))
    assert torch.equal(test["novel"], some_images(9, 3, side=2))
    assert asked == [
        ("mnist", "train", "somewhere", True),
        ("mnist", "test", "somewhere", True),
        ("kmnist", "test", "somewhere", True),
    ]


@pytest.mark.parametrize("name", ["autoencoder-mnist", "nice-mnist", "realnvp-cifar10"])
def test_two_steps_of_the_recipes(name):
    recipe = replace(recipes.find(name), batch_size=2)
    train, test = recipe.load("embedded")
    train = shorter(train, 6)
    losses, _, _ = train_written_out(recipe, train, test, 5, steps=2)
    found = recipes.first_steps(recipe, train, 5)["loss"]
    assert found == pytest.approx(losses, rel=1e-4)
