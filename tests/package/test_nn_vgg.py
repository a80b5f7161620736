"""VGG networks against torchvision's, and against loops over the layers."""

import pytest
import torch
import torchvision
from mfdnn.nn.vgg import VGG, VGGCIFAR10, stages
from torch import nn
from torch.nn.functional import conv2d, max_pool2d

COUNTS = {11: 132_863_336, 13: 133_047_848, 16: 138_357_544, 19: 143_667_240}


@pytest.mark.parametrize("layers", COUNTS)
def test_vgg_has_torchvisions_layers(layers):
    with torch.device("meta"):
        mine = VGG(layers)
        theirs = getattr(torchvision.models, f"vgg{layers}")(weights=None)
    shapes = [p.shape for p in mine.parameters()]
    assert shapes == [p.shape for p in theirs.parameters()]
    assert sum(p.numel() for p in mine.parameters()) == COUNTS[layers]
    weighted = [m for m in mine.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(weighted) == layers


def test_vgg19_has_the_shares_of_the_lecture():
    with torch.device("meta"):
        model = VGG(19)
    assert sum(p.numel() for p in model.features.parameters()) == 20_024_384
    assert sum(p.numel() for p in model.classifier.parameters()) == 123_642_856


def test_vgg11_computes_what_torchvision_computes():
    torch.manual_seed(0)
    theirs = torchvision.models.vgg11(weights=None, init_weights=False)
    with torch.device("meta"):
        mine = VGG(11)
    names = [name for name, _ in mine.named_parameters()]
    weights = dict(zip(names, theirs.parameters(), strict=True))
    mine.load_state_dict(weights, assign=True)  # shares the 0.5 GB
    assert all(b.any() for b in mine.parameters())  # biases too
    for size in (32, 64):
        x = torch.rand(2, 3, size, size)
        for training in (False, True):
            outputs = []
            for model in (mine, theirs):
                torch.manual_seed(1)  # for dropout
                with torch.no_grad():
                    outputs.append(model.train(training)(x))
            torch.testing.assert_close(*outputs)
            assert outputs[0].std() > 0


def test_stages_are_convolutions_relu_and_pooling():
    model = stages((2, 1), channels=2)
    x = torch.randn(3, 2, 9, 8)
    layers = [m for m in model if isinstance(m, nn.Conv2d)]
    for layer in layers:
        nn.init.normal_(layer.bias)
    y = x
    for number, layer in enumerate(layers):
        y = conv2d(y, layer.weight, layer.bias, padding=1).clamp(min=0)
        y = max_pool2d(y, 2) if number in (1, 2) else y
    torch.testing.assert_close(model(x.clone()), y)


def test_vgg_cifar10_has_the_layers_of_the_course():
    model = VGGCIFAR10()
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert [sum(p.numel() for p in layer.parameters()) for layer in layers] == [
        *(1_792, 36_928, 73_856, 147_584, 295_168, 590_080, 590_080),
        *(1_180_160, 2_359_808, 2_359_808, 8_392_704, 16_781_312, 40_970),
    ]
    assert sum(p.numel() for p in model.parameters()) == 32_850_250
    y = model.eval()(torch.rand(2, 3, 32, 32))
    assert y.shape == (2, 10)
    assert (y[0] - y[1]).abs().max() > 0.01  # the signal arrives
    kinds = [type(m).__name__ for m in model.classifier]
    assert kinds == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]


def test_filters_are_drawn_by_hes_rule():
    torch.manual_seed(0)
    for layer in stages((1, 1, 2)):
        if isinstance(layer, nn.Conv2d) and layer.in_channels > 3:
            spread = layer.weight.std() * (9 * layer.in_channels / 2) ** 0.5
            assert abs(spread - 1) < 0.02
            assert not layer.bias.any()
