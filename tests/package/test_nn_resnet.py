"""Residual networks against torchvision's, and their versions against the papers."""

import pytest
import torch
import torchvision
from mfdnn.measure import count_parameters
from mfdnn.nn.resnet import BasicBlock, Bottleneck, ResNet, resnet
from torch import nn

PARAMETERS = {
    18: 11_689_512,
    34: 21_797_672,
    50: 25_557_032,
    101: 44_549_160,
    152: 60_192_808,
}
SMALL = {
    18: 11_173_962,
    34: 21_282_122,
    50: 23_520_842,
    101: 42_512_970,
    152: 58_156_618,
}


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def shake(model, rng):
    """Random numbers for all weights and statistics, so that none is a default."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if "running_var" in name:
                value.uniform_(0.5, 2, generator=rng)
            elif value.ndim == 1:
                value.normal_(0.5, 0.5, generator=rng)


@pytest.mark.parametrize("layers", PARAMETERS)
def test_parameters_are_those_of_the_papers_networks(layers):
    with torch.device("meta"):
        model, small = resnet(layers), resnet(layers, 10, small=True)
        theirs = getattr(torchvision.models, f"resnet{layers}")(weights=None)
    assert count_parameters(model) == PARAMETERS[layers]
    assert count_parameters(small) == SMALL[layers]
    ours = [value.shape for value in model.state_dict().values()]
    assert ours == [value.shape for value in theirs.state_dict().values()]
    counted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    projections = sum(block.projects for block in model.blocks)
    assert len(counted) - projections == layers


@pytest.mark.parametrize("layers", [18, 50])
@pytest.mark.parametrize("training", [False, True])
def test_outputs_are_torchvisions(layers, training, rng):
    model = resnet(layers).train(training)
    theirs = getattr(torchvision.models, f"resnet{layers}")(weights=None)
    shake(theirs, rng)
    values = theirs.state_dict().values()
    model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
    x = torch.rand(2, 3, 64, 64, generator=rng)
    with torch.no_grad():
        expected = theirs.train(training)(x)
        found = model(x)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected)
    if training:  # the running statistics moved alike
        for a, b in zip(
            model.state_dict().values(), theirs.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(a, b)


def test_version_1_halves_in_the_first_convolution_of_a_bottleneck(rng):
    x = torch.rand(1, 8, 6, 6, generator=rng, requires_grad=True)
    for version, share in [("1", 1 / 4), ("1.5", 1), ("2", 1)]:
        block = Bottleneck(8, 16, 2, version).eval()
        y = block(x)
        assert y.shape == (1, 64, 3, 3)
        (grad,) = torch.autograd.grad(y.square().sum(), x)
        assert (grad != 0).any(1).float().mean() == share
        strides = [m.stride[0] for m in block.residual if isinstance(m, nn.Conv2d)]
        assert sorted(strides) == [1, 1, 2]


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("stride", [1, 2])
def test_version_2_activates_before_each_convolution(block, stride, rng):
    module = block(8, 4 if stride == 2 else 8 // block.expansion, stride, "2").eval()
    shake(module, rng)
    x = torch.randn(2, 8, 5, 5, generator=rng)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    convs = [m for m in module.residual if isinstance(m, nn.Conv2d)]
    assert len(norms) == len(convs)  # none in the shortcut
    h = start = norms[0](x).clamp(min=0)
    for norm, conv in zip([*norms[1:], None], convs, strict=True):
        h = conv(h)
        h = norm(h).clamp(min=0) if norm else h
    skip = module.shortcut[0](start) if stride == 2 else x
    torch.testing.assert_close(module(x), skip + h)
    assert module(x).min() < 0  # nothing after the sum


def test_version_2_of_the_networks():
    with torch.device("meta"):
        counts = [count_parameters(resnet(k, version="2")) for k in (18, 50)]
        small = count_parameters(resnet(18, 10, small=True, version="2"))
    # Version 1's, less the norms of stem and shortcuts, plus other widths in between.
    assert counts == [11_687_720, 25_549_352] and small == 11_172_170
    model = ResNet(BasicBlock, (1, 1), 5, 8, small=True, version="2")
    kinds = [type(m) for m in (*model.stem, *model.head)]
    norm = [nn.BatchNorm2d, nn.ReLU, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]
    assert kinds == [nn.Conv2d, *norm]


def test_small_networks_keep_the_size_of_small_images(rng):
    model = ResNet(BasicBlock, (1, 1, 1, 1), 10, 8, small=True).eval()
    x = torch.rand(2, 3, 32, 32, generator=rng)
    sizes = [tuple(model.stem(x).shape)]
    for block in model.blocks:
        sizes.append(tuple(block(torch.zeros(sizes[-1])).shape))
    assert [s[1:] for s in sizes] == [
        (8, 32, 32),
        (8, 32, 32),
        (16, 16, 16),
        (32, 8, 8),
        (64, 4, 4),
    ]
    assert model(x).shape == (2, 10)


def test_unknown_networks_are_refused():
    with pytest.raises(ValueError, match="layers is one of"):
        resnet(20)
    with pytest.raises(ValueError, match="version is"):
        resnet(18, version="3")
