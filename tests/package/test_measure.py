"""Measures against scikit-learn, scikit-image, closed forms and torch's counter."""

import math

import numpy as np
import pytest
import torch
from mfdnn import measure
from mfdnn.nn import LeNet, SparseLeNet, mlp
from mfdnn.trace import trace
from scipy import linalg, stats
from skimage.data import astronaut, camera
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    jaccard_score,
    top_k_accuracy_score,
)
from torch import nn
from torch.distributions import MultivariateNormal, Uniform

from tests.package.networks import alexnet_cifar10, vgg_cifar10


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


# Accuracy and confusion


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_accuracy_is_scikit_learns(rng, k):
    logits = torch.randn(500, 10, generator=rng)
    labels = torch.randint(10, (500,), generator=rng)
    expected = top_k_accuracy_score(labels, logits, k=k, labels=range(10))
    assert measure.accuracy(logits, labels, k).item() == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 3])
def test_tied_logits_count_in_the_order_of_the_classes(rng, k):
    logits = torch.randint(3, (500, 10), generator=rng).float()  # many ties
    labels = torch.randint(10, (500,), generator=rng)
    # scikit-learn lets the last of tied classes win: turn the classes round.
    expected = top_k_accuracy_score(9 - labels, logits.flip(1), k=k, labels=range(10))
    assert measure.accuracy(logits, labels, k).item() == pytest.approx(expected)
    if k == 1:
        assert expected == pytest.approx((logits.argmax(1) == labels).float().mean())


@pytest.mark.parametrize("k", [1, 2, 3])
def test_nan_is_never_right(k):
    labels = torch.tensor([0, 1, 2])
    assert measure.accuracy(torch.full((3, 3), math.nan), labels, k) == 0
    logits = torch.tensor([[1.0, math.nan, 0.0]]).expand(3, 3)
    assert measure.accuracy(logits, labels, 2) == pytest.approx(1 / 3)


def test_accuracy_of_half_precision_keeps_its_digits():
    logits = torch.eye(3, dtype=torch.bfloat16)[torch.arange(1000) % 3]
    labels = torch.zeros(1000, dtype=torch.int64)
    assert measure.accuracy(logits, labels).item() == pytest.approx(0.334)


@pytest.mark.parametrize(
    ("logits", "labels", "k"),
    [
        ((5, 3), (4,), 1),
        ((5,), (5,), 1),
        ((0, 3), (0,), 1),
        ((5, 3), (5, 1), 1),
        ((5, 3), (5,), 0),
        ((5, 3), (5,), 4),
    ],
)
def test_accuracy_refuses_what_does_not_fit(logits, labels, k):
    with pytest.raises(ValueError, match=r"not \(N, C\) and \(N,\)|k must be in"):
        measure.accuracy(torch.zeros(logits), torch.zeros(labels).long(), k)


def test_confusion_is_scikit_learns(rng):
    labels = torch.randint(7, (400,), generator=rng)
    predictions = torch.randint(6, (400,), generator=rng)  # class 6 is never guessed
    counts = measure.confusion(predictions, labels, 8)  # class 7 never occurs
    expected = confusion_matrix(labels, predictions, labels=range(8))
    assert counts.tolist() == expected.tolist()
    assert counts.dtype == torch.int64


@pytest.mark.parametrize("wrong", [[0, 3], [-1, 0]])
def test_confusion_refuses_unknown_classes(wrong):
    fine, wrong = torch.tensor([0, 1]), torch.tensor(wrong)
    for pair in ((fine, wrong), (wrong, fine)):
        with pytest.raises(ValueError, match=r"not in 0, \.\.\., 2"):
            measure.confusion(*pair, 3)


def test_overlaps_are_scikit_learns(rng):
    labels = torch.randint(4, (300,), generator=rng)
    predictions = torch.where(
        torch.rand(300, generator=rng) < 0.6,
        labels,
        torch.randint(3, (300,), generator=rng),
    )
    counts = measure.confusion(predictions, labels, 5)  # class 4 never occurs
    for ours, theirs in ((measure.iou, jaccard_score), (measure.dice, f1_score)):
        expected = theirs(labels, predictions, labels=range(4), average=None)
        assert ours(counts)[:4].tolist() == pytest.approx(expected.tolist())
        assert ours(counts)[4].isnan()
        with pytest.raises(ValueError, match=r"is square, not \(5, 4\)"):
            ours(counts[:, :4])


def test_confusion_refuses_other_shapes():
    with pytest.raises(ValueError, match="not both"):
        measure.confusion(torch.zeros(3, 10).long(), torch.zeros(3).long(), 10)


# Images


def pairs(dtype=torch.float64):
    """Grey and colour photographs and noisy copies: (2, C, 96, 80) each."""
    rng = torch.Generator().manual_seed(3)
    grey = torch.as_tensor(camera()).double()[None] / 255
    colour = torch.as_tensor(astronaut()).double().permute(2, 0, 1) / 255
    for picture in (grey, colour):
        x = torch.stack([picture[:, :96, :80], picture[:, 200:296, 150:230]])
        noise = 0.1 * torch.randn(x.shape, generator=rng, dtype=x.dtype)
        yield x.to(dtype), (x + noise).to(dtype)


@pytest.mark.parametrize("peak", [1.0, 2.0])
def test_psnr_is_scikit_images(peak):
    for x, y in pairs():
        expected = [
            peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=peak)
            for a, b in zip(x, y, strict=True)
        ]
        assert measure.psnr(x, y, peak).tolist() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("peak", [1.0, 2.0])
def test_ssim_is_scikit_images(peak):
    for x, y in pairs():
        expected = [
            structural_similarity(
                a.numpy(),
                b.numpy(),
                data_range=peak,
                channel_axis=0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for a, b in zip(x, y, strict=True)
        ]
        assert measure.ssim(x, y, peak).tolist() == pytest.approx(expected, rel=1e-9)


def test_single_precision_is_enough():
    for (x, y), (x32, y32) in zip(pairs(), pairs(torch.float32), strict=True):
        torch.testing.assert_close(
            measure.ssim(x32, y32).double(), measure.ssim(x, y), rtol=0, atol=1e-5
        )
        assert measure.psnr(x32.half(), y32.half()).dtype == torch.float32


def test_any_batch_shape():
    (x, y), _ = pairs()
    for index in (measure.psnr, measure.ssim):
        values = index(x, y)
        assert index(x[0], y[0]).item() == pytest.approx(values[0].item())
        twice = index(x[None].expand(3, *x.shape), y[None].expand(3, *y.shape))
        torch.testing.assert_close(twice, values.expand(3, 2))
        torch.testing.assert_close(index(y, x), values)


def test_equal_images():
    x = torch.rand(2, 3, 16, 16)
    assert measure.psnr(x, x).tolist() == [math.inf] * 2
    torch.testing.assert_close(measure.ssim(x, x), torch.ones(2))


def test_known_error_has_known_psnr():
    x = torch.zeros(1, 1, 4, 4)
    assert measure.psnr(x, x + 0.1).item() == pytest.approx(20, abs=1e-4)


def test_ssim_has_a_gradient():
    x = torch.rand(1, 1, 12, 12, requires_grad=True)
    measure.ssim(x, torch.rand(1, 1, 12, 12)).sum().backward()
    assert x.grad.abs().min() > 0


@pytest.mark.parametrize("index", [measure.psnr, measure.ssim])
def test_images_that_do_not_fit_are_refused(index):
    x = torch.rand(2, 3, 16, 16)
    with pytest.raises(ValueError, match="not both"):
        index(x, x[:1])
    with pytest.raises(ValueError, match="not both"):
        index(x[0, 0], x[0, 0])
    with pytest.raises(ValueError, match="images of integers"):
        index(x.to(torch.uint8), x)


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ValueError, match="smaller than 11 by 11"):
        measure.ssim(torch.rand(1, 1, 8, 16), torch.rand(1, 1, 8, 16))


# Bits


def test_uniform_pixels_have_eight_bits():
    pixels = 256 * torch.rand(5, 12, dtype=torch.float64)
    nats = -Uniform(0.0, 256.0).log_prob(pixels).sum(dim=1)
    assert measure.bits_per_dim(nats, 12).tolist() == pytest.approx([8.0] * 5)
    nats = -Uniform(0.0, 1.0).log_prob(pixels / 256).sum(dim=1)
    bits = measure.bits_per_dim(nats, 12) + math.log2(256)
    assert bits.tolist() == pytest.approx([8.0] * 5)


def test_gaussian_entropy_in_bits():
    scale = torch.tensor([[2.0, 0.0], [0.7, 0.5]], dtype=torch.float64)
    density = MultivariateNormal(torch.zeros(2, dtype=torch.float64), scale_tril=scale)
    # At the points of mean squared radius the log-likelihood is minus the entropy.
    points = math.sqrt(2) * scale.T
    nats = -density.log_prob(points).mean()
    expected = 0.5 * math.log2(2 * math.pi * math.e) + math.log2(2.0 * 0.5) / 2
    assert measure.bits_per_dim(nats, 2).item() == pytest.approx(expected)
    assert measure.bits_per_dim(nats.item(), 2) == pytest.approx(expected)


def test_bits_need_a_dimension():
    with pytest.raises(ValueError, match="must be positive"):
        measure.bits_per_dim(1.0, 0)


# Sizes


@pytest.mark.parametrize(
    ("network", "parameters", "millions"),
    [(alexnet_cifar10, 58_375_114, 1_090.1), (vgg_cifar10, 32_850_250, 310.1)],
)
def test_published_sizes(network, parameters, millions):
    with torch.device("meta"):  # shapes are enough: no memory, no arithmetic
        model = network()
    assert measure.count_parameters(model) == parameters
    assert round(measure.count_multiplies(model, (3, 32, 32)) / 1e6, 1) == millions


def test_multiplies_by_hand():
    shapes = [
        (nn.Linear(7, 5), (7,), 7 * 5),
        (nn.Linear(7, 5, bias=False), (3, 7), 3 * 7 * 5),
        (nn.Conv1d(4, 6, 3, stride=2), (4, 11), 5 * 6 * 4 * 3),
        (nn.Conv2d(3, 6, 5, padding=2), (3, 8, 9), 8 * 9 * 6 * 3 * 25),
        (nn.Conv2d(8, 12, 3, groups=4), (8, 6, 6), 4 * 4 * 12 * 2 * 9),
        (nn.Conv2d(8, 8, 3, dilation=2, groups=8), (8, 6, 6), 2 * 2 * 8 * 9),
        (nn.Conv3d(1, 2, 2), (1, 3, 3, 3), 8 * 2 * 8),
        (nn.ConvTranspose2d(4, 6, 4, stride=2), (4, 5, 5), 25 * 4 * 6 * 16),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), (4, 5, 5), 25 * 4 * 3 * 9),
        (nn.BatchNorm2d(3), (3, 4, 4), 0),
    ]
    for layer, shape, expected in shapes:
        assert measure.count_multiplies(layer, shape) == expected, layer


class Twice(nn.Module):
    """One layer used twice, under two names."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Linear(5, 5)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (LeNet(), (1, 28, 28)),
        (SparseLeNet(), (1, 28, 28)),
        (mlp([784, 64, 10]), (1, 28, 28)),
        (Twice(), (5,)),
        (nn.Sequential(nn.Conv2d(8, 16, 3, groups=4), nn.BatchNorm2d(16)), (8, 9, 9)),
        (nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=2), (4, 5, 5)),
    ],
)
def test_multiplies_are_those_of_the_layers_one_by_one(model, shape):
    """A weight is used once at each place of the output, or of a transposed input."""
    total = 0
    for call in trace(model, shape):
        weight = getattr(call.module, "weight", None)
        if isinstance(call.module, nn.Linear):
            total += math.prod(call.output[:-1]) * weight.numel()
        elif isinstance(call.module, nn.ConvTranspose2d):
            total += math.prod(call.input[1:]) * weight.numel()
        elif isinstance(call.module, nn.Conv2d):
            total += math.prod(call.output[1:]) * weight.numel()
    assert measure.count_multiplies(model, shape) == total > 0


def test_products_that_are_no_layers_count_too():
    class Square(nn.Module):
        def forward(self, x):
            return x @ x.mT

    assert measure.count_multiplies(Square(), (3, 5)) == 3 * 3 * 5


def test_shared_and_frozen_parameters_count_once_buffers_do_not():
    assert measure.count_parameters(Twice()) == 30
    frozen = nn.BatchNorm2d(4).requires_grad_(False)
    assert measure.count_parameters(frozen) == 8


# Trace


class Moody(nn.Module):
    """Batch normalisation kept in evaluation mode, a random layer, and a failure."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4).eval()
        self.drop = nn.Dropout()

    def forward(self, x):
        torch.rand(3)
        return self.drop(self.norm(x[:, :4]))


def test_tracing_leaves_no_trace():
    model = Moody()
    before = torch.get_rng_state()
    calls = trace(model, (4,))
    assert torch.equal(before, torch.get_rng_state())
    assert (model.training, model.norm.training, model.drop.training) == (
        True,
        False,
        True,
    )
    assert model.norm.num_batches_tracked == 0
    assert [call.name for call in calls] == ["norm", "drop"]
    with pytest.raises(ValueError, match="4"):
        trace(model, (4, 1, 1))  # batch normalisation refuses it
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())


def test_trace_lists_calls_in_the_order_of_execution():
    model = Twice()
    assert [call.name for call in trace(model, (5,))] == ["first", "first"]
    whole = trace(nn.Sequential(model, nn.Linear(5, 2)), (5,), whole=(Twice,))
    assert [(call.name, call.input, call.output) for call in whole] == [
        ("0", (5,), (5,)),
        ("1", (5,), (2,)),
    ]


def test_trace_follows_the_models_type():
    calls = trace(nn.Linear(3, 2).double(), (3,))
    assert [call.output for call in calls] == [(2,)]


# Throughput


def test_throughput_counts_only_what_is_timed():
    seconds, seen = 0.0, []

    def step(images):
        nonlocal seconds
        seen.append(len(images))
        seconds += 5.0 if len(seen) <= 2 else 0.25  # the first two calls are slow

    images = torch.zeros(32, 1, 2, 2)
    rate = measure.throughput(step, images, repeats=4, warmup=2, clock=lambda: seconds)
    assert rate == pytest.approx(32 / 0.25)
    assert seen == [32] * 6


def test_the_device_has_finished_when_the_clock_is_read(monkeypatch):
    events = []
    monkeypatch.setattr(
        torch.accelerator, "synchronize", lambda device: events.append(device.type)
    )

    def clock():
        events.append("clock")
        return float(len(events))

    images = torch.zeros(8, 1, device="meta")
    measure.throughput(lambda x: events.append("step"), images, 2, 1, clock)
    timed = ["step", "step", "meta", "clock"]
    assert events == ["step", "meta", "clock", *timed]


def test_throughput_of_a_network():
    model, images = mlp([64, 256, 10]), torch.zeros(64, 8, 8)
    with torch.no_grad():
        rate = measure.throughput(model, images)
    assert 1e3 < rate < 1e9
    with pytest.raises(ValueError, match="cannot time 0 repeats"):
        measure.throughput(model, images, repeats=0)


def test_oracles_can_fail():
    """The tolerance of the SSIM test tells the two usual windows apart."""
    (x, y), _ = pairs()
    uniform = structural_similarity(
        x[0].numpy(), y[0].numpy(), data_range=1.0, channel_axis=0
    )
    assert not np.isclose(measure.ssim(x, y)[0].item(), uniform, rtol=1e-3)


def test_perplexity_is_that_of_scipys_entropy():
    counts = torch.tensor([7, 0, 2, 41])
    expected = math.exp(stats.entropy(counts.numpy()))
    assert measure.perplexity(counts).item() == pytest.approx(expected, rel=1e-12)
    assert measure.perplexity(torch.tensor([0, 9])).item() == 1


def test_frechet_distance_is_that_of_normal_densities():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)) + 3
    y = rng.normal(size=(70, 4)) @ rng.normal(size=(4, 4))
    S, T = np.cov(x.T), np.cov(y.T)
    root = linalg.sqrtm(S @ T).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(S + T - 2 * root)
    found = measure.frechet_distance(torch.tensor(x), torch.tensor(y))
    assert found.item() == pytest.approx(expected, rel=1e-9)
    back = measure.frechet_distance(torch.tensor(y), torch.tensor(x))
    assert back.item() == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_on_the_line_is_that_of_means_and_deviations():
    x, y = torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([[0.0], [4.0]])
    means, deviations = (x.mean() - y.mean()) ** 2, (x.std() - y.std()) ** 2
    found = measure.frechet_distance(x, y).item()
    assert found == pytest.approx((means + deviations).item(), rel=1e-6)


def test_frechet_distance_of_fewer_rows_than_columns():
    x = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    assert abs(measure.frechet_distance(x, x.flip(0)).item()) < 1e-6
    assert measure.frechet_distance(x, x + 2).item() == pytest.approx(36, rel=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.ones(3, 2), torch.ones(3, 4), "of one length"),
        (torch.ones(3), torch.ones(3), "of one length"),
        (torch.ones(1, 2), torch.ones(3, 2), "two rows"),
    ],
)
def test_frechet_distance_wants_two_samples(x, y, words):
    with pytest.raises(ValueError, match=words):
        measure.frechet_distance(x, y)
