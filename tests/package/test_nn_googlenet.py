"""GoogLeNet against its sizes in the paper, torchvision's, and its layers by hand."""

import pytest
import torch
from mfdnn.nn.googlenet import MODULES, GoogLeNet, GoogLeNetCIFAR10, Inception
from torch import nn
from torch.nn.functional import conv2d, max_pool2d
from torchvision.models import googlenet

# Parameters of the nine modules, from the widths of the paper's Table 1.
COUNTS = [163_696, 388_736, 376_176, 449_160, 510_104]
COUNTS += [605_376, 868_352, 1_043_456, 1_444_080]


def count(model):
    return sum(p.numel() for p in model.parameters())


def copy(source, target):
    """Copy the state of one network into another one with the same layers in order."""
    values = source.state_dict().values()
    names = target.state_dict()
    state = {name: v for name, v in zip(names, values, strict=True)}
    assert all(v.shape == names[name].shape for name, v in state.items())
    target.load_state_dict(state)


@pytest.fixture(scope="module")
def pair():
    """torchvision's network with random weights and statistics, and ours with them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = googlenet(
            weights=None, aux_logits=True, init_weights=False, dropout=0.4
        )
        for layer in theirs.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 2)
                nn.init.normal_(layer.bias)
                layer.momentum = 0.9
        with torch.no_grad():  # statistics for which images remain distinct
            theirs(torch.randn(8, 3, 64, 64))
        ours = GoogLeNet(torchvision=True)
        for layer in ours.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 0.9
        copy(theirs, ours)
    return theirs, ours


@pytest.fixture
def images():
    return torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def test_outputs_are_torchvisions(pair, images):
    theirs, ours = (model.eval() for model in pair)
    with torch.no_grad():
        found = ours(images)
        torch.testing.assert_close(found, theirs(images))
        assert found.std(dim=0).mean() > 1e-3  # the images are told apart
    assert count(ours) == count(theirs) == 13_004_888
    assert count(ours) - count(ours.auxiliary) == 6_624_904


def test_outputs_are_torchvisions_in_training(pair, images):
    """All three logits, with the same units dropped, and the new statistics."""
    theirs, ours = (model.train() for model in pair)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        expected = theirs(images)
        torch.manual_seed(2)
        logits, first, second = ours(images)
    torch.testing.assert_close(logits, expected.logits)
    torch.testing.assert_close(first, expected.aux_logits1)
    torch.testing.assert_close(second, expected.aux_logits2)
    states = zip(theirs.state_dict().values(), ours.state_dict().values(), strict=True)
    for a, b in states:
        torch.testing.assert_close(a, b)


def test_the_papers_network_has_its_sizes():
    with torch.device("meta"):
        model = GoogLeNet()
    assert [count(model.stages[name]) for name in MODULES] == COUNTS
    assert count(model) - count(model.auxiliary) == 6_998_552
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 3 + 9 * 6 + 1 + 2 * 3
    outputs = model(torch.zeros(2, 3, 224, 224, device="meta"))
    assert [y.shape for y in outputs] == [(2, 1000)] * 3
    assert model.eval()(torch.zeros(2, 3, 224, 224, device="meta")).shape == (2, 1000)


def test_cifar10_has_the_layers_of_the_lecture():
    with torch.device("meta"):
        model, with_norm = GoogLeNetCIFAR10(), GoogLeNetCIFAR10(norm=True)
    assert [count(part) for part in model.stem] == [9_472, 4_160, 307_392]
    assert [count(model.stages[name]) for name in MODULES] == COUNTS
    assert count(model.classifier) == 10_250
    assert count(model) == 6_180_410
    biases = sum(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    assert count(with_norm) == 6_180_410 - biases + 2 * biases == 6_187_690
    shapes = [(3, 32, 32)]
    x = torch.zeros(1, *shapes[0], device="meta")
    for part in [*model.stem, *model.stages.values()]:
        x = part(x)
        shapes.append(tuple(x.shape[1:]))
    sides = [32, 32, 32, 28, 28, 28, 14, 14, 14, 14, 14, 14, 7, 7, 7]
    assert [shape[2] for shape in shapes] == sides
    assert [shape[0] for shape in shapes[4:]] == [
        *(256, 480, 480, 512, 512, 512, 528, 832, 832, 832, 1024)
    ]


def test_inception_is_four_branches_by_hand():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Inception(5, (3, (4, 6), (2, 7), 8)).double()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 5, 9, 8, generator=generator, dtype=torch.float64)
    w = [p.detach() for p in module.parameters()]

    def layer(x, n, padding=0):
        return conv2d(x, w[2 * n], w[2 * n + 1], padding=padding).clamp(min=0)

    branches = [layer(x, 0), layer(layer(x, 1), 2, 1), layer(layer(x, 3), 4, 2)]
    branches.append(layer(max_pool2d(x, 3, 1, 1), 5))
    torch.testing.assert_close(module(x), torch.cat(branches, 1))
    assert module.out == 3 + 6 + 7 + 8


def test_every_weight_of_the_cifar_network_learns():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GoogLeNetCIFAR10(norm=True)
        model(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    assert sum(p.numel() for p in GoogLeNetCIFAR10().parameters()) == 6_180_410
