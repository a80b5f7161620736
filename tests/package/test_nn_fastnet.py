"""The fast network: its first layer against the covariance of patches, its sizes."""

import pytest
import torch
from mfdnn.measure import count_multiplies, count_parameters
from mfdnn.nn.fastnet import FastNet, block, whitening
from torch.nn.functional import batch_norm, conv2d, gelu, max_pool2d


@pytest.fixture
def images():
    """Images whose neighbouring pixels and colours are correlated."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(50, 3, 20, 20, generator=generator, dtype=torch.float64)
    mix = torch.randn(3, 3, 5, 5, generator=generator, dtype=torch.float64)
    return conv2d(noise, mix) + 2.0


def outputs(images, epsilon):
    weight, bias = whitening(images, epsilon)
    return conv2d(images, weight, bias).movedim(1, 3).flatten(0, 2)  # (M, 24)


def test_outputs_are_white(images):
    z = outputs(images, 0.0)
    both = torch.cat([torch.eye(12), -torch.eye(12)]).double()
    torch.testing.assert_close(torch.cov(z.T, correction=0), both @ both.T)
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(24).double())


def test_epsilon_damps_small_components(images):
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1)  # (N, 3, H, W, 2, 2)
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    variances = torch.linalg.eigvalsh(torch.cov(patches.T, correction=0))
    for epsilon in (0.1, 10.0):
        found = outputs(images, epsilon).var(dim=0, correction=0)[:12]
        torch.testing.assert_close(found, variances / (variances + epsilon))


def test_blocks_pool_after_the_first_convolution():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        part = block(3, 5).double()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    first, second = part[0].weight, part[4].weight
    y = max_pool2d(conv2d(x, first, padding=1), 2)
    y = gelu(batch_norm(y, None, None, training=True))
    y = gelu(batch_norm(conv2d(y, second, padding=1), None, None, training=True))
    torch.testing.assert_close(part(x), y)


def test_convolutions_begin_as_copies():
    part = block(3, 5)
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(part[0](x)[:, :3], x)
    y = torch.randn(2, 5, 6, 6)
    torch.testing.assert_close(part[4](y), y)


def test_sizes():
    model = FastNet()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    convolutions = 9 * (24 * 64 + 64**2 + 64 * 256 + 3 * 256**2)
    norms = 2 * (2 * 64 + 4 * 256)
    assert trained == 24 + convolutions + norms + 2560
    assert count_parameters(model) == trained + 288 == 1_972_792
    positions = [31**2, 31**2, 15**2, 15**2, 7**2, 7**2, 3**2, 1]
    weights = [288, *(9 * n for n in (24 * 64, 64**2, 64 * 256))]
    weights += [9 * 256**2] * 3 + [2560]
    expected = sum(p * w for p, w in zip(positions, weights, strict=True))
    assert count_multiplies(model, (3, 32, 32)) == expected


def test_everything_learns_but_the_whitening(images):
    model = FastNet((8, 8, 8), classes=4)
    model.whiten(images.float())
    before = model.first.weight.clone()
    weight, bias = whitening(images.float())
    assert torch.equal(before, weight)
    assert torch.equal(model.first.bias, bias)
    logits = model(images.float())
    assert logits.shape == (50, 4)
    logits.square().sum().backward()
    assert model.first.weight.grad is None
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)
