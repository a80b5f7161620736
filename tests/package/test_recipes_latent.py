"""Variational autoencoders and their recipes against plain loops and quadrature."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from mfdnn import recipes, records
from mfdnn.data import LabelledImages
from mfdnn.device import Compute
from mfdnn.nn import VAE, VQVAE
from mfdnn.nn.vae import Sampled
from mfdnn.recipes import latent
from scipy import stats
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from tests.package.compare import (
    examined_on_first,
    no_schedule,
    on_first_examples,
    on_training_images,
    plain_loop,
    shorter,
    wrong_curves,
)

CPU = Compute(torch.device("cpu"))


def labelled(count, seed, channels=1):
    rng = torch.Generator().manual_seed(seed)
    steepness = torch.rand(count, 1, 1, 1, generator=rng)
    ramp = steepness * torch.linspace(0, 200, 8)
    images = ramp + 55 * torch.rand(count, channels, 8, 8, generator=rng)
    labels = torch.zeros(count, dtype=torch.int64)
    return LabelledImages(images.byte(), labels, ("ramp",), f"ramps {seed}", "made")


VLB = recipes.Recipe(
    "tiny-vae",
    "A small VAE.",
    "mnist",
    latent.Evidence(partial(VAE, 64, 7, 2)),
    epochs=2,
    batch_size=8,
    headline="test_nll",
    settings={"lr": 0.03, "schedule": "cosine", "samples": 3, "weighted": False},
)
IWAE = replace(VLB, settings={**VLB.settings, "weighted": True})
VQ = recipes.Recipe(
    "tiny-vq-vae",
    "A small VQ-VAE.",
    "cifar10",
    latent.Quantize(partial(VQVAE, 4, 6, 3)),
    epochs=2,
    batch_size=8,
    headline="test_mse",
    settings={"lr": 0.01, "schedule": "cosine", "commitment": 0.5},
)
KINDS = {
    "vlb": (VLB, labelled(30, 1), labelled(21, 2)),
    "iwae": (IWAE, labelled(30, 1), labelled(21, 2)),
    "vq": (VQ, labelled(30, 3, channels=3), labelled(21, 4, channels=3)),
}


ROWS = {"vae-mnist": 425_284, "iwae-mnist": 425_284, "vq-vae-cifar10": 1_308_227}


@pytest.mark.parametrize("name", ROWS)
def test_recipes_have_the_documented_sizes(name):
    network = recipes.find(name).task.network()
    assert sum(p.numel() for p in network.parameters()) == ROWS[name]


def drawn(images, rng):
    grey = images.flatten(1) / 255
    return (torch.rand(images.shape, generator=rng).flatten(1) < grey).float()


def densities(model, x):
    mu, log_sigma = model.encoder(x).split(model.latents, dim=1)
    encoder = Independent(Normal(mu, log_sigma.exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mu), 1.0), 1)
    return encoder, prior


def bound_of(model, x, eps, weighted):
    """The bound with one sample after another, by torch.distributions."""
    encoder, prior = densities(model, x)
    terms, likelihoods = [], []
    for noise in eps.unbind(1):
        z = encoder.mean + encoder.stddev * noise
        given = Independent(Bernoulli(logits=model.decoder(z)), 1).log_prob(x)
        likelihoods.append(given)
        terms.append(given + prior.log_prob(z) - encoder.log_prob(z))
    if weighted:
        return torch.stack(terms).double().exp().mean(0).log()
    return torch.stack(likelihoods).mean(0) - kl_divergence(encoder, prior)


def loss_of(recipe, model, images, rng):
    x = drawn(images, rng)
    samples = recipe.settings["samples"]
    eps = torch.randn(len(x), samples, model.latents, generator=rng)
    return -bound_of(model, x, eps, recipe.settings["weighted"]).mean()


def codes_of(model, z):
    """The nearest codes, one vector after another."""
    flat = z.movedim(1, 3).flatten(0, 2)
    codes = [((v - model.codebook.weight) ** 2).sum(1).argmin() for v in flat]
    return torch.stack(codes)


def quantized_gradients(recipe, model, images):
    """Losses and gradients of a VQ-VAE with the backward pass written out."""
    x = images / 255
    z = model.encoder(x)
    codes = codes_of(model, z)
    e = model.codebook.weight.detach()[codes].view(z.movedim(1, 3).shape)
    e = e.movedim(3, 1).contiguous().requires_grad_()
    rebuilt = ((model.decoder(e) - x) ** 2).mean()
    factor = recipe.settings["commitment"]
    gap = z.detach() - e.detach()
    rebuilt.backward()
    z.backward(e.grad + factor * 2 * gap / gap.numel())
    pull = torch.zeros_like(model.codebook.weight)
    pull.index_add_(0, codes, -2 * gap.movedim(1, 3).flatten(0, 2) / gap.numel())
    model.codebook.weight.grad = pull
    return rebuilt.item() + (1 + factor) * (gap**2).mean().item()


def measured(recipe, model, test):
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        if isinstance(recipe.task, latent.Evidence):
            return {"test_bound": -loss_of(recipe, model, test.images, rng).item()}
        x = test.images / 255
        z = model.encoder(x)
        codes = codes_of(model, z)
        e = model.codebook.weight[codes].view(z.movedim(1, 3).shape).movedim(3, 1)
        share = codes.bincount(minlength=6).double() / len(codes)
        return {
            "test_mse": ((model.decoder(e) - x) ** 2).mean().item(),
            "perplexity": math.exp(stats.entropy(share.numpy())),
        }


def train_written_out(recipe, train, test, seed, steps=None):
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    model = recipe.task.network()

    def differentiate(index):
        images = train.images[index]
        if isinstance(recipe.task, latent.Quantize):
            return quantized_gradients(recipe, model, images)
        loss = loss_of(recipe, model, images, rng)
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


def likelihood(model, x):
    """log p(x) by quadrature over the plane of latents, shape (N,)."""
    axis = torch.linspace(-6, 6, 121, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    model = model.double()
    prior = Normal(0.0, 1.0).log_prob(z).sum(1)
    logits = model.decoder(z)
    given = torch.stack([Bernoulli(logits=logits).log_prob(one).sum(1) for one in x])
    return (given + prior).logsumexp(1) + 2 * math.log(0.1)


def differences(kind, record):
    recipe, train, test = KINDS[kind]
    losses, curves, model = train_written_out(recipe, train, test, 7)
    wrong = wrong_curves(record, losses, curves, rel=2e-5, atol=1e-6)
    if kind != "vq":
        x = drawn(test.images, torch.Generator().manual_seed(0)).double()
        with torch.no_grad():
            nll = -likelihood(model, x).mean().item()
        if record.final["test_nll"] != pytest.approx(nll, abs=0.02):
            wrong.add("test_nll")
    return wrong


def recorded(kind):
    recipe, train, test = KINDS[kind]
    return recipes.run(recipe, (train, test), 7, CPU)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_says_what_a_plain_loop_does(kind):
    assert differences(kind, recorded(kind).record) == set()


def grey_images(monkeypatch, recipe, train):
    monkeypatch.setattr(latent, "binarize", lambda x, _: x.flatten(1) / 255)


def bounds_exchanged(monkeypatch, recipe, train):
    vlb, iwae = Sampled.vlb, Sampled.iwae
    monkeypatch.setattr(Sampled, "vlb", iwae)
    monkeypatch.setattr(Sampled, "iwae", vlb)


def few_final_samples(monkeypatch, recipe, train):
    monkeypatch.setattr(latent, "FINAL_SAMPLES", 1)
    monkeypatch.setattr(latent, "CHUNK", 1)


def no_commitment(monkeypatch, recipe, train):
    real = VQVAE.forward
    monkeypatch.setattr(
        VQVAE, "forward", lambda *a: real(*a)._replace(commitment=torch.zeros(()))
    )


def codes_that_stay(monkeypatch, recipe, train):
    real = VQVAE.forward

    def forward(*arguments):
        found = real(*arguments)
        return found._replace(codebook=found.codebook.detach())

    monkeypatch.setattr(VQVAE, "forward", forward)


MISTAKES = [
    ("vlb", on_training_images),
    ("vq", on_training_images),
    ("vlb", on_first_examples),
    ("vq", on_first_examples),
    ("vlb", examined_on_first),
    ("iwae", no_schedule),
    ("vq", no_schedule),
    ("vlb", grey_images),
    ("vlb", bounds_exchanged),
    ("iwae", bounds_exchanged),
    ("iwae", few_final_samples),
    ("vq", no_commitment),
    ("vq", codes_that_stay),
]


@pytest.mark.parametrize(("kind", "mistake"), MISTAKES)
def test_the_plain_loop_notices(kind, mistake, monkeypatch):
    recipe, train, _ = KINDS[kind]
    mistake(monkeypatch, recipe, train)
    record = recorded(kind).record
    monkeypatch.undo()
    assert differences(kind, record)


def test_bounds_rise_to_the_likelihood():
    """On average VLB < IWAE of 10 samples < log p, and IWAE of 10,000 nearly equals."""
    torch.manual_seed(3)
    model = VAE(6, 5, 2).double()
    for parameter in model.decoder.parameters():
        parameter.data *= 3
    for parameter in model.encoder.parameters():
        parameter.data *= 0.3  # so q is nearly the prior, and no weight is large
    rng = torch.Generator().manual_seed(4)
    x = (torch.rand(3, 6, generator=rng) < 0.5).double()
    eps = torch.randn(3, 100_000, 2, generator=rng, dtype=torch.float64)
    with torch.no_grad():
        exact = likelihood(model, x)
        tens = model(x.repeat_interleave(10_000, 0), eps.view(-1, 10, 2)).iwae()
        low = model(x, eps).vlb()
        middle = tens.view(3, -1).mean(1)
        high = model(x, eps).iwae()
    assert (low + 0.01 < middle).all()
    assert (middle + 0.002 < exact).all()
    assert (high - exact).abs().max() < 0.02


def test_binary_images_follow_their_grey_levels():
    levels = torch.tensor([0, 51, 255], dtype=torch.uint8).repeat(20_000, 1, 1, 1)
    x = latent.binarize(levels, torch.Generator().manual_seed(0))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert x.shape == (20_000, 3)
    zero, fifth, one = x.mean(0).tolist()
    assert (zero, one) == (0, 1)
    assert abs(fifth - 0.2) < 4 * math.sqrt(0.16 / 20_000)


def test_pictures():
    for kind, (recipe, train, test) in KINDS.items():
        picture = recorded(kind).picture
        _, _, model = train_written_out(recipe, train, test, 7)
        if kind == "vq":
            x = test.images[:8] / 255
            rebuilt = model(x).rebuilt.detach().clamp(0, 1)
        else:
            x = drawn(test.images, torch.Generator().manual_seed(0))[:8]
            mean, _ = model.encode(x)
            rebuilt = model.decoder(mean).sigmoid().detach().view(8, 1, 8, 8)
            x = x.view(8, 1, 8, 8)
            assert picture.shape == (64, 1, 8, 8)
            assert picture.min() >= 0 and picture.max() <= 1
            assert picture[16:].std(0).max() > 0.001
        torch.testing.assert_close(picture[:8], x)
        torch.testing.assert_close(picture[8:16], rebuilt, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ROWS)
def test_two_steps_of_the_recipes(name):
    recipe = replace(recipes.find(name), batch_size=2)
    train, test = recipe.load("embedded")
    train = shorter(train, 6)
    losses, _, _ = train_written_out(recipe, train, test, 5, steps=2)
    found = recipes.first_steps(recipe, train, 5)["loss"]
    assert found == pytest.approx(losses, rel=1e-4)


def test_what_is_measured_once_is_kept_and_shown(tmp_path):
    record = recorded("iwae").record
    assert "test_nll" not in record.curves
    read = records.read(records.write(record, tmp_path / "one.json"))
    assert read == record
    assert read.value == record.final["test_nll"]
    rows = records.table(read).rows
    assert rows["test nll"] == f"{read.value:.2f} nats"
