"""DnCNN, SRCNN and VDSR against the formulas, and their counts."""

import pytest
import torch
from mfdnn.nn import SRCNN, VDSR, DnCNN
from torch import nn
from torch.nn.functional import conv2d


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def convolutions(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d)]


def test_parameters_are_those_of_the_course():
    assert parameters(DnCNN()) == 557_057
    assert parameters(DnCNN(channels=3)) == 557_057 + 2 * 2 * 64 * 9 + 2
    assert parameters(SRCNN()) == 57_281
    assert [parameters(SRCNN((9, f, 5))) for f in (1, 3)] == [8_129, 24_513]
    assert parameters(VDSR()) == 664_704
    assert len(convolutions(DnCNN())) == 17
    assert len(convolutions(VDSR())) == 20


def test_dncnn_is_the_image_less_seventeen_convolutions():
    torch.manual_seed(0)
    model = DnCNN(width=6).double()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    y = torch.randn(3, 1, 10, 9, dtype=torch.float64)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    first, *middle, last = convolutions(model)
    h = conv2d(y, first.weight, first.bias, padding=1).clamp(min=0)
    for conv, norm in zip(middle, norms, strict=True):
        h = conv2d(h, conv.weight, conv.bias, padding=1)
        mean = h.mean((0, 2, 3), keepdim=True)
        variance = h.var((0, 2, 3), correction=0, keepdim=True)
        h = (h - mean) / (variance + 1e-5).sqrt()
        h = h * norm.weight[:, None, None] + norm.bias[:, None, None]
        h = h.clamp(min=0)
    noise = conv2d(h, last.weight, last.bias, padding=1)
    torch.testing.assert_close(model(y), y - noise)
    assert noise.std() > 0.01


def test_srcnn_is_three_convolutions():
    torch.manual_seed(0)
    model = SRCNN((9, 1, 5))
    y = torch.rand(2, 1, 13, 11)
    one, two, three = convolutions(model)
    h = conv2d(y, one.weight, one.bias, padding=4).clamp(min=0)
    h = conv2d(h, two.weight, two.bias).clamp(min=0)
    torch.testing.assert_close(model(y), conv2d(h, three.weight, three.bias, padding=2))


def test_vdsr_adds_twenty_convolutions():
    torch.manual_seed(0)
    model = VDSR(width=5)
    y = torch.rand(2, 1, 7, 9)
    h = y
    for number, conv in enumerate(convolutions(model)):
        assert conv.bias is None
        h = conv2d(h if number == 0 else h.clamp(min=0), conv.weight, padding=1)
    torch.testing.assert_close(model(y), y + h)
    assert h.abs().max() > 0.01


@pytest.mark.parametrize("model", [DnCNN(), VDSR()])
def test_a_zero_last_layer_changes_nothing(model):
    y = torch.rand(2, 1, 8, 8)
    assert not torch.equal(model(y), y)
    for parameter in convolutions(model)[-1].parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(model(y), y)


def test_dncnn_sees_35_pixels():
    model = DnCNN(width=2).double().eval()
    for conv in convolutions(model):  # nothing cancels, no unit is off
        nn.init.constant_(conv.weight, 0.1)
    y = torch.rand(1, 1, 51, 51, dtype=torch.float64, requires_grad=True)
    model(y)[0, 0, 25, 25].backward()
    rows = y.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert (rows.min().item(), rows.max().item()) == (25 - 17, 25 + 17)
