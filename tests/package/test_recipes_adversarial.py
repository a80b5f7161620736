"""Adversarial networks and their recipes against a plain loop."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from mfdnn import recipes
from mfdnn.data import LabelledImages
from mfdnn.device import Compute
from mfdnn.nn import (
    DCGANDiscriminator,
    DCGANGenerator,
    LeNet,
    MLPDiscriminator,
    MLPGenerator,
)
from mfdnn.recipes import adversarial
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.nn.utils import parametrize

from tests.package.compare import on_first_examples, on_training_images, shorter

CPU = Compute(torch.device("cpu"))


def labelled(count, seed):
    rng = torch.Generator().manual_seed(seed)
    ramp = torch.rand(count, 1, 1, 1, generator=rng) * torch.linspace(0, 200, 28)
    images = ramp + 55 * torch.rand(count, 1, 28, 28, generator=rng)
    labels = torch.arange(count) % 10
    return LabelledImages(images.byte(), labels, tuple("0123456789"), "ramps", "made")


LOGISTIC = recipes.Recipe(
    "tiny-gan",
    "A small GAN.",
    "mnist",
    adversarial.Adversarial(
        partial(MLPGenerator, 3, (8,)), partial(MLPDiscriminator, (9,)), 3
    ),
    epochs=2,
    batch_size=8,
    headline="frechet_distance",
    settings={"lr": 0.01, "beta_1": 0.5, "hinge": False},
)


def normalized_generator():
    model = MLPGenerator(3, (8,))
    # A bias before it would have no gradient but rounding errors, which Adam enlarges.
    model[0] = nn.Linear(3, 8, bias=False)
    model.insert(1, nn.BatchNorm1d(8))
    return model


HINGE = replace(
    LOGISTIC,
    task=replace(LOGISTIC.task, generator=normalized_generator),
    settings={"lr": 0.02, "beta_1": 0.3, "hinge": True},
)
KINDS = {"logistic": LOGISTIC, "hinge": HINGE}
TRAIN, TEST = labelled(30, 1), labelled(21, 2)


class WrittenOutAdam:
    """Adam by its formulas (lecture topic 3.45)."""

    def __init__(self, model, lr, beta_1):
        self.parameters = list(model.parameters())
        self.lr, self.beta_1, self.k = lr, beta_1, 0
        self.m = [torch.zeros_like(p) for p in self.parameters]
        self.v = [torch.zeros_like(p) for p in self.parameters]

    def step(self, loss):
        self.k += 1
        gradients = torch.autograd.grad(loss, self.parameters)
        for p, g, m, v in zip(self.parameters, gradients, self.m, self.v, strict=True):
            m.mul_(self.beta_1).add_((1 - self.beta_1) * g)
            v.mul_(0.999).add_(0.001 * g**2)
            m_hat = m / (1 - self.beta_1**self.k)
            v_hat = v / (1 - 0.999**self.k)
            p.data -= self.lr * m_hat / (v_hat.sqrt() + 1e-8)


def losses_of(hinge, real, fake):
    """What the discriminator and the generator minimize, the latter of `fake`."""
    if hinge:
        zero = torch.zeros(())
        loss_D = torch.maximum(zero, 1 - real) + torch.maximum(zero, 1 + fake)
        return loss_D.mean(), -fake.mean()
    one = torch.ones_like(fake)
    loss_D = binary_cross_entropy_with_logits(real, one)
    loss_D = loss_D + binary_cross_entropy_with_logits(fake, 0 * one)
    return loss_D, binary_cross_entropy_with_logits(fake, one)


def frechet(x, y):
    """By the nuclear norm of the product of both centred samples."""
    x, y = x.double().numpy(), y.double().numpy()
    a = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    b = (y - y.mean(0)) / np.sqrt(len(y) - 1)
    spread = (a**2).sum() + (b**2).sum() - 2 * np.linalg.norm(a @ b.T, "nuc")
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + spread


def features(judge, images):
    seen = {}
    hook = judge.classifier[-1].register_forward_hook(
        lambda layer, inputs, output: seen.update(found=inputs[0])
    )
    with torch.no_grad():
        classes = judge(images).argmax(1)
    hook.remove()
    return seen["found"], classes


def measured(recipe, G, judge, test):
    rng = torch.Generator().manual_seed(0)
    G.eval()
    with torch.no_grad():
        fake = G(torch.randn(len(test), recipe.task.latents, generator=rng))
    G.train()
    real, classes = features(judge, test.images / 127.5 - 1)
    found, guesses = features(judge, fake)
    share = np.bincount(guesses, minlength=10) / len(guesses)
    share = share[share > 0]
    return {
        "frechet_distance": frechet(found, real),
        "frechet_halves": frechet(real[::2], real[1::2]),
        "classes": np.prod(share**-share),
        "judge_accuracy": (classes == test.labels).double().mean().item(),
    }


def train_written_out(recipe, train, test, seed, steps=None):
    """The three losses of every step, what is measured after each epoch, and G."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    G, D = recipe.task.generator(), recipe.task.discriminator()
    judge = LeNet(train.shape[0])
    lr, beta_1, hinge = (recipe.settings[n] for n in ("lr", "beta_1", "hinge"))
    players = [WrittenOutAdam(model, lr, beta_1) for model in (D, G)]
    learner = WrittenOutAdam(judge, 1e-3, 0.9)
    losses, curves = [], {}
    for _ in range(recipe.epochs):
        for index in torch.randperm(len(train), generator=rng).split(recipe.batch_size):
            x = train.images[index] / 127.5 - 1
            z = torch.randn(len(x), 2, recipe.task.latents, generator=rng)
            fake = G(z[:, 0]).detach()
            real = D(x)
            loss_D, _ = losses_of(hinge, real, D(fake))
            players[0].step(loss_D)
            _, loss_G = losses_of(hinge, real, D(G(z[:, 1])))
            players[1].step(loss_G)
            loss_J = cross_entropy(judge(x), train.labels[index])
            learner.step(loss_J)
            losses.append([loss_D.item(), loss_G.item(), loss_J.item(), len(x)])
            if len(losses) == steps:
                return losses, curves, G
        for name, value in measured(recipe, G, judge, test).items():
            curves.setdefault(name, []).append(value)
    return losses, curves, G


NAMES = "discriminator_loss", "generator_loss", "judge_loss"


def differences(recipe, record):
    losses, curves, _ = train_written_out(recipe, TRAIN, TEST, 7)
    table = np.array(losses)
    steps = len(losses) // recipe.epochs
    for k, name in enumerate(NAMES):
        curves[name] = [
            np.average(part[:, k], weights=part[:, 3])
            for part in (table[:steps], table[steps:])
        ]
    assert record.curves.keys() == curves.keys()
    assert record.first_steps.keys() == set(NAMES)
    wrong = {
        name
        for name, values in curves.items()
        if record.curves[name] != pytest.approx(values, rel=2e-4, abs=1e-6)
    }
    for k, name in enumerate(NAMES):
        if record.first_steps[name] != pytest.approx(table[:2, k], rel=1e-4):
            wrong.add("first_steps")
    return wrong


def recorded(kind):
    return recipes.run(KINDS[kind], (TRAIN, TEST), 7, CPU)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_says_what_a_plain_loop_does(kind):
    assert differences(KINDS[kind], recorded(kind).record) == set()


def saturating(monkeypatch, recipe, train):
    real = adversarial.softplus
    monkeypatch.setattr(
        adversarial, "softplus", lambda z: -real(-z) if z.requires_grad else real(z)
    )


def no_hinge(monkeypatch, recipe, train):
    monkeypatch.setattr(adversarial, "relu", lambda z: z)


def usual_betas(monkeypatch, recipe, train):
    real = adversarial.Adam
    monkeypatch.setattr(adversarial, "Adam", lambda p, lr, betas=None: real(p, lr))


def one_latent_for_both(monkeypatch, recipe, train):
    real = torch.randn

    def randn(*shape, **options):
        z = real(*shape, **options)
        return z[:, :1].expand(-1, 2, -1) if z.ndim == 3 else z

    monkeypatch.setattr(torch, "randn", randn)


def evaluated_in_training_mode(monkeypatch, recipe, train):
    monkeypatch.setattr(adversarial, "evaluating", lambda *models: nullcontext())


def _without(monkeypatch, name):
    """The player of that name never moves."""
    real = adversarial.Game._move

    def move(game, player, loss):
        if player != name:
            real(game, player, loss)

    monkeypatch.setattr(adversarial.Game, "_move", move)


def idle_judge(monkeypatch, recipe, train):
    _without(monkeypatch, "judge")


def idle_generator(monkeypatch, recipe, train):
    _without(monkeypatch, "generator")


def bright_images(monkeypatch, recipe, train):
    monkeypatch.setattr(adversarial, "to_symmetric", lambda x: x / 255)


MISTAKES = [
    ("logistic", on_training_images),
    ("logistic", on_first_examples),
    ("logistic", saturating),
    ("hinge", no_hinge),
    ("logistic", usual_betas),
    ("logistic", one_latent_for_both),
    ("hinge", evaluated_in_training_mode),
    ("logistic", idle_judge),
    ("hinge", idle_generator),
    ("logistic", bright_images),
]


@pytest.mark.parametrize(("kind", "mistake"), MISTAKES)
def test_the_plain_loop_notices(kind, mistake, monkeypatch):
    mistake(monkeypatch, KINDS[kind], TRAIN)
    record = recorded(kind).record
    monkeypatch.undo()
    assert differences(KINDS[kind], record)


def test_the_picture_is_what_the_generator_draws():
    _, _, G = train_written_out(HINGE, TRAIN, TEST, 7)
    picture = recorded("hinge").picture
    assert picture.shape == (64, 1, 28, 28)
    assert picture.min() >= 0 and picture.max() <= 1
    # The latents go on where the batches ended.
    rng = torch.Generator().manual_seed(7)
    for _ in range(HINGE.epochs):
        torch.randperm(30, generator=rng)
        for size in (8, 8, 8, 6):
            torch.randn(size, 2, 3, generator=rng)
    with torch.no_grad():
        expected = G.eval()(torch.randn(64, 3, generator=rng))
    torch.testing.assert_close(picture, (expected + 1) / 2, rtol=0, atol=1e-3)


# Numbers of parameters, counted layer by layer: weights, then normalization.
LECTURE_G = 1_638_400 + 13_107_200 + 3_276_800 + 819_200 + 9_600 + 3_840
LECTURE_D = 3 * 64 * 25 + (64 * 128 + 128 * 256 + 256 * 512) * 25 + 1_792 + 8_193
SMALL_G = 100 * 4096 + (256 * 128 + 128 * 64 + 64 * 3) * 16 + 2 * (256 + 128 + 64)
SMALL_D = (3 * 64 + 64 * 128 + 128 * 256) * 16 + 2 * (128 + 256) + 4097
SIZES = [
    (DCGANGenerator(), LECTURE_G),
    (DCGANDiscriminator(), LECTURE_D),
    (DCGANGenerator(100, (512, 256, 128, 64), 3, 4), 3_576_704),
    (DCGANDiscriminator((64, 128, 256, 512), 3, 4), 2_765_568 + 1),
    (recipes.find("gan-mnist").task.generator(), 559_632),
    (recipes.find("gan-mnist").task.discriminator(), 533_505),
    (recipes.find("dcgan-cifar10").task.generator(), SMALL_G),
    (recipes.find("dcgan-cifar10").task.discriminator(), SMALL_D),
    (recipes.find("sngan-cifar10").task.generator(), SMALL_G),
    # biases in the place of normalization
    (recipes.find("sngan-cifar10").task.discriminator(), SMALL_D - 768 + 448),
]


@pytest.mark.parametrize(("model", "parameters"), SIZES)
def test_sizes(model, parameters):
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("kernel", [4, 5])
def test_dcgan_doubles_and_halves(kernel):
    G = DCGANGenerator(7, (12, 8, 6, 4), 2, kernel)
    D = DCGANDiscriminator((4, 6, 8, 12), 2, kernel)
    x = G(torch.randn(3, 7))
    assert x.shape == (3, 2, 64, 64)
    assert x.abs().max() <= 1
    assert D(x).shape == (3, 1)
    sides = []
    for layer in G:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda *a: sides.append(a[2].shape[-1]))
    G(torch.randn(2, 7))
    assert sides == [8, 16, 32, 64]
    norms = [isinstance(layer, nn.BatchNorm2d) for layer in D]
    assert norms == [False, False, False, True, False, False, True, False, False, True,
                     False, False, False]  # fmt: skip


def test_weights_begin_small():
    for model in (DCGANGenerator(), DCGANDiscriminator()):
        layers = [m for m in model if hasattr(m, "weight") and m.weight.ndim > 1]
        for layer in layers:
            assert abs(layer.weight.std().item() - 0.02) < 0.001
            assert abs(layer.weight.mean().item()) < 0.001


def test_spectral_layers_have_norm_one():
    torch.manual_seed(0)
    D = DCGANDiscriminator((4, 6, 8), 2, 4, spectral=True)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in D)
    for _ in range(300):
        D(torch.randn(2, 2, 32, 32))  # each pass one step of the power iteration
    layers = [layer for layer in D if parametrize.is_parametrized(layer)]
    assert len(layers) == 4
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
        assert abs(norm - 1) < 1e-3


ROWS = ["gan-mnist", "dcgan-cifar10", "sngan-cifar10"]


@pytest.mark.parametrize("name", ROWS)
def test_two_steps_of_the_recipes(name):
    recipe = replace(recipes.find(name), batch_size=2)
    train = shorter(recipe.load("embedded")[0], 6)
    losses, _, _ = train_written_out(recipe, train, None, 5, steps=2)
    found = recipes.first_steps(recipe, train, 5)
    for k, key in enumerate(NAMES):
        assert found[key] == pytest.approx([row[k] for row in losses], rel=1e-4)
