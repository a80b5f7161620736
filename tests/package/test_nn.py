"""Networks against their sizes in the literature and against loops over maps."""

import pytest
import torch
from mfdnn.nn import AlexNetCIFAR10, ClassicalLeNet, LeNet, SparseLeNet, mlp
from mfdnn.nn.lenet import C3_INPUTS, SparseC3
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, cross_entropy, max_pool2d

# Table I of LeCun et al. (1998), typed in row by row: the maps of C3 (columns 0
# to 15) that each of the six maps of S2 feeds.
TABLE_I = """
X . . . X X X . . X X X X . X X
X X . . . X X X . . X X X X . X
X X X . . . X X X . . X . X X X
. X X X . . X X X X . . X . X X
. . X X X . . X X X X . X X . X
. . . X X X . . X X X X . X X X
"""


@pytest.fixture
def images():
    return torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def sizes(model):
    """Numbers of parameters, layer by layer."""
    layers = (m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    return [sum(p.numel() for p in layer.parameters()) for layer in layers]


@pytest.mark.parametrize("network", [LeNet, ClassicalLeNet])
def test_lenet_has_the_layers_of_the_lecture(network):
    model = network()
    assert sizes(model) == [156, 2_416, 48_120, 10_164, 850]
    assert sum(p.numel() for p in model.parameters()) == 61_706


def test_sparse_lenet_has_the_parameters_of_1998():
    model = SparseLeNet()
    assert sum(p.numel() for p in model.parameters()) == 60_806
    assert sum(p.numel() for p in SparseC3().parameters()) == 1_516
    assert sum(sizes(model)[1:4]) == 1_516


def test_connections_are_table_i():
    rows = [row.split() for row in TABLE_I.split("\n") if row]
    assert [len(row) for row in rows] == [16] * 6
    for j, inputs in enumerate(C3_INPUTS):
        assert sorted(inputs) == [i for i in range(6) if rows[i][j] == "X"]


def test_sparse_c3_is_sixteen_convolutions_of_their_inputs():
    layer = SparseC3()
    x = torch.randn(2, 6, 14, 14, generator=torch.Generator().manual_seed(1))
    weights = [*layer.three.weight, *layer.four.weight, *layer.six.weight]
    biases = [*layer.three.bias, *layer.four.bias, *layer.six.bias]
    maps = [
        conv2d(x[:, inputs], w[None], b[None])
        for inputs, w, b in zip(C3_INPUTS, weights, biases, strict=True)
    ]
    torch.testing.assert_close(layer(x), torch.cat(maps, dim=1))


def test_sparse_c3_uses_exactly_the_connections_of_its_table():
    layer = SparseC3()
    x = torch.zeros(1, 6, 5, 5, requires_grad=True)
    for j, inputs in enumerate(C3_INPUTS):
        (grad,) = torch.autograd.grad(layer(x)[0, j, 0, 0], x)
        assert grad[0].abs().sum(dim=(1, 2)).nonzero().flatten().tolist() == sorted(
            inputs
        )


def test_modern_lenet_is_relu_and_max_pooling(images):
    model = LeNet()
    c1, c3 = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    c5, f6, out = (m for m in model.modules() if isinstance(m, nn.Linear))
    x = max_pool2d(conv2d(images, c1.weight, c1.bias, padding=2).clamp(min=0), 2)
    x = max_pool2d(conv2d(x, c3.weight, c3.bias).clamp(min=0), 2).flatten(1)
    for layer in (c5, f6):
        x = (x @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(model(images), x @ out.weight.T + out.bias)


def test_classical_lenet_is_tanh_also_after_average_pooling(images):
    model = ClassicalLeNet()
    c1, c3 = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    c5, f6, out = (m for m in model.modules() if isinstance(m, nn.Linear))
    x = conv2d(images, c1.weight, c1.bias, padding=2).tanh()
    x = avg_pool2d(x, 2).tanh()
    x = avg_pool2d(conv2d(x, c3.weight, c3.bias).tanh(), 2).tanh().flatten(1)
    for layer in (c5, f6):
        x = (x @ layer.weight.T + layer.bias).tanh()
    torch.testing.assert_close(model(images), x @ out.weight.T + out.bias)


@pytest.mark.parametrize("network", [LeNet, ClassicalLeNet, SparseLeNet])
def test_every_weight_learns_and_can_be_saved(network, images):
    model = network()
    cross_entropy(model(images), torch.tensor([1, 2, 3])).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    twin = network()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(images), model(images))
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_mlp_is_relu_between_linear_maps(images):
    model = mlp([784, 20, 15, 10])
    x = images.reshape(3, 784)
    linear = [m for m in model if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [
        (784, 20),
        (20, 15),
        (15, 10),
    ]
    for layer in linear[:-1]:
        x = (x @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(model(images), x @ linear[-1].weight.T + linear[-1].bias)


def test_mlp_of_the_lecture_has_its_size():
    model = mlp((784, 392, 196, 98, 10))
    assert sum(p.numel() for p in model.parameters()) == 405_044


def test_mlp_of_two_sizes_is_linear():
    model = mlp([4, 3])
    x, y = torch.randn(2, 1, 4)
    zero = model(torch.zeros(1, 4))
    torch.testing.assert_close(model(x + y) - zero, model(x) + model(y) - 2 * zero)
    assert model(-100 * torch.ones(1, 4)).shape == (1, 3)


@pytest.mark.parametrize("wrong", [[], [10], [10, 0], [-1, 10]])
def test_mlp_refuses_sizes_that_make_no_network(wrong):
    with pytest.raises(ValueError, match="two or more positive sizes"):
        mlp(wrong)


def test_alexnet_has_the_layers_of_the_lecture():
    table = [4_704, 83_040, 614_656, 885_120, 1_327_488, 884_992]
    table += [37_752_832, 16_781_312, 40_970]
    model = AlexNetCIFAR10()
    assert sizes(model) == table
    assert sum(table) == 58_375_114


def test_alexnet_is_the_layer_table_written_out():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AlexNetCIFAR10().eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    w = list(model.parameters())
    y, paddings = x, [0, 0, 2, 1, 1, 1]
    with torch.no_grad():
        for n, padding in enumerate(paddings):
            y = conv2d(y, w[2 * n], w[2 * n + 1], padding=padding).clamp(min=0)
            if n in (2, 5):
                y = max_pool2d(y, 3, 2)
        y = y.flatten(1)
        for n in (6, 7):
            y = (y @ w[2 * n].T + w[2 * n + 1]).clamp(min=0)
        torch.testing.assert_close(model(x), y @ w[16].T + w[17])


def test_alexnet_drops_half_before_both_hidden_linear_layers():
    """In training a unit is zero with probability 1/2, else doubled."""
    torch.manual_seed(0)
    model = AlexNetCIFAR10()
    given = {}
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.register_forward_hook(
                lambda _, x, y, name=name: given.update({name: (x[0], y)})
            )
    with torch.no_grad():
        model(torch.rand(2, 3, 32, 32))
    assert [x.flatten(1).shape[1] for x, _ in given.values()] == [9216, 4096]
    for x, y in given.values():
        alive = x != 0
        kept = y[alive] != 0
        assert abs(kept.double().mean() - 0.5) < 4 * 0.5 / len(kept) ** 0.5
        torch.testing.assert_close(y[alive][kept], 2 * x[alive][kept])
    model.eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))


def test_lenet_for_colour_images():
    model = LeNet(channels=3)
    assert sizes(model) == [456, 2_416, 48_120, 10_164, 850]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
