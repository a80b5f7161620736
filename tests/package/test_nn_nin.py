"""Network in Network against the table of the course and against perceptrons."""

import torch
from mfdnn.nn.nin import NiNCIFAR10, mlpconv
from mfdnn.trace import trace
from torch import nn
from torch.nn.functional import max_pool2d, pad


def test_nin_has_the_layers_of_the_course():
    model = NiNCIFAR10()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [sum(p.numel() for p in layer.parameters()) for layer in layers] == [
        *(14_592, 30_880, 15_456, 460_992, 37_056, 37_056),
        *(331_968, 37_056, 1_930),
    ]
    assert sum(p.numel() for p in model.parameters()) == 966_986
    assert not any(isinstance(m, nn.Linear) for m in model.modules())


def test_nin_has_the_sizes_of_the_lecture():
    calls = trace(NiNCIFAR10(), (3, 32, 32))
    pools = [c.output for c in calls if isinstance(c.module, nn.MaxPool2d)]
    assert pools == [(96, 16, 16), (192, 8, 8)]
    assert calls[-3].output == (10, 8, 8)
    assert calls[-1].output == (10,)


def test_mlpconv_is_a_perceptron_on_every_patch():
    torch.manual_seed(0)
    layers = mlpconv(3, (7, 6, 5), 5)
    x = torch.randn(2, 3, 6, 4)
    around = pad(x, (2, 2, 2, 2))
    y = torch.empty(2, 5, 6, 4)
    for i in range(6):
        for j in range(4):
            h = around[:, :, i : i + 5, j : j + 5].flatten(1)
            for conv in layers[::2]:
                h = (h @ conv.weight.flatten(1).T + conv.bias).clamp(min=0)
            y[:, :, i, j] = h
    torch.testing.assert_close(nn.Sequential(*layers)(x), y)


def test_nin_is_three_perceptrons_two_pools_and_a_mean():
    torch.manual_seed(0)
    model = NiNCIFAR10().eval()
    x = torch.rand(2, 3, 32, 32)
    conv = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    y = x
    for number, layer in enumerate(conv):
        y = layer(y).clamp(min=0)
        if number in (2, 5):  # a window that sticks out sees what is there
            y = max_pool2d(pad(y, (0, 1, 0, 1), value=float("-inf")), 3, 2)
    torch.testing.assert_close(model(x), y.mean((2, 3)))
    assert model(x).std() > 0


def test_dropout_follows_the_pools_and_is_off_in_evaluation():
    model = NiNCIFAR10()
    kinds = [type(m).__name__ for m in model.features]
    drops = [n for n, kind in enumerate(kinds) if kind == "Dropout"]
    assert [kinds[n - 1] for n in drops] == ["MaxPool2d", "MaxPool2d"]
    assert [model.features[n].p for n in drops] == [0.5, 0.5]
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(model.eval()(x), model(x))
    assert not torch.equal(model.train()(x), model(x))
