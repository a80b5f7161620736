"""U-Net against its formula written out, and its counts."""

import pytest
import torch
from mfdnn.nn import UNet
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d, max_pool2d


def test_parameters_are_those_of_the_lectures_figure():
    assert sum(p.numel() for p in UNet(3, 21).parameters()) == 10_002_373


def written_out(model, x):
    """The forward pass in training mode, from weights taken in order."""
    convs = iter([m for m in model.modules() if isinstance(m, nn.Conv2d)])
    norms = iter([m for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    larger = iter([m for m in model.modules() if isinstance(m, nn.ConvTranspose2d)])

    def block(h, count):
        for _ in range(count):
            norm = next(norms)
            h = conv2d(h, next(convs).weight, padding=1)
            mean = h.mean((0, 2, 3), keepdim=True)
            variance = h.var((0, 2, 3), correction=0, keepdim=True)
            h = (h - mean) / (variance + 1e-5).sqrt()
            h = h * norm.weight[:, None, None] + norm.bias[:, None, None]
            h = h.clamp(min=0)
        return h

    fine = block(x, 2)
    middle = block(max_pool2d(fine, 2), 2)
    coarse = block(max_pool2d(middle, 2), 2)
    for across in (middle, fine):
        layer = next(larger)
        up = conv_transpose2d(coarse, layer.weight, layer.bias, stride=2)
        coarse = block(torch.cat([up, across], 1), 3)
    head = next(convs)
    return conv2d(coarse, head.weight, head.bias)


def test_unet_is_the_formula():
    torch.manual_seed(0)
    model = UNet(2, 3, (4, 6, 5)).double()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    x = torch.randn(2, 2, 8, 12, dtype=torch.float64)
    y = model(x)
    assert y.shape == (2, 3, 8, 12)
    assert y.std() > 0.01
    torch.testing.assert_close(y, written_out(model, x))


def test_every_parameter_is_used():
    torch.manual_seed(0)
    model = UNet(1, 2, (4, 6, 8, 5))
    model(torch.randn(2, 1, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("size", [(30, 32), (32, 36)])
def test_sides_that_do_not_halve_are_refused(size):
    with pytest.raises(ValueError, match="not divisible by 16"):
        UNet(1, 2)(torch.zeros(1, 1, *size))
