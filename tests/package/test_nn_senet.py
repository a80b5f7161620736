"""Squeeze-and-excitation against torchvision's layer and the papers' counts."""

import pytest
import torch
from mfdnn.measure import count_parameters
from mfdnn.nn.resnet import resnet
from mfdnn.nn.senet import SEBasicBlock, SEBottleneck, SqueezeExcitation, se_resnet
from torchvision.ops import SqueezeExcitation as Theirs


@pytest.mark.parametrize(("channels", "reduction"), [(32, 16), (24, 4), (8, 16)])
def test_the_layer_is_torchvisions(channels, reduction):
    rng = torch.Generator().manual_seed(0)
    layer = SqueezeExcitation(channels, reduction)
    theirs = Theirs(channels, max(channels // reduction, 1))
    values = theirs.state_dict().values()
    layer.load_state_dict(dict(zip(layer.state_dict(), values, strict=True)))
    x = torch.randn(3, channels, 5, 4, generator=rng)
    torch.testing.assert_close(layer(x), theirs(x))


@pytest.mark.parametrize("layers", [18, 50])
def test_parameters_are_the_resnets_and_the_gates(layers):
    channels = {
        18: [64] * 2 + [128] * 2 + [256] * 2 + [512] * 2,
        50: [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3,
    }[layers]
    gates = sum(c * (c // 16) * 2 + c + c // 16 for c in channels)
    with torch.device("meta"):
        count = count_parameters(se_resnet(layers))
        assert count == count_parameters(resnet(layers)) + gates
    assert count == {18: 11_778_592, 50: 28_088_024}[layers]


@pytest.mark.parametrize("kind", [SEBasicBlock, SEBottleneck])
def test_the_gate_weighs_the_branch_and_not_the_shortcut(kind):
    rng = torch.Generator().manual_seed(1)
    block = kind(16, 16 // kind.expansion, 1).eval()
    x = torch.randn(2, 16, 4, 4, generator=rng)
    gate = block.residual[-1]
    branch = block.residual[:-1](x)
    weight = gate.gate(branch)
    assert weight.shape == (2, 16, 1, 1) and weight.min() > 0 and weight.max() < 1
    torch.testing.assert_close(block(x), (x + weight * branch).relu())


def test_networks_run_and_unknown_ones_are_refused():
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert se_resnet(18, 10, small=True)(x).shape == (2, 10)
    with pytest.raises(ValueError, match="layers is one of"):
        se_resnet(34)
