"""ResNeXt against torchvision's."""

import pytest
import torch
import torchvision
from mfdnn.measure import count_parameters
from mfdnn.nn.resnext import ResNeXtBlock, resnext
from torch import nn


def test_parameters_are_those_of_the_paper():
    with torch.device("meta"):
        counts = [count_parameters(resnext(k)) for k in (50, 101)]
        theirs = torchvision.models.resnext50_32x4d(weights=None)
        ours = [v.shape for v in resnext(50).state_dict().values()]
    assert counts == [25_028_904, 44_177_704]
    assert ours == [v.shape for v in theirs.state_dict().values()]
    block = ResNeXtBlock(256, 64)
    assert [m.weight.numel() for m in block.residual if isinstance(m, nn.Conv2d)] == [
        32_768,
        4_608,
        32_768,
    ]


@pytest.mark.parametrize("training", [False, True])
def test_outputs_are_torchvisions(training):
    rng = torch.Generator().manual_seed(0)
    model = resnext(50).train(training)
    theirs = torchvision.models.resnext50_32x4d(weights=None).train(training)
    with torch.no_grad():
        for name, value in theirs.state_dict().items():
            if value.ndim == 1:
                low = 0.5 if "var" in name else 0
                value.uniform_(low, 1.5, generator=rng)
        values = theirs.state_dict().values()
        model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
        x = torch.rand(2, 3, 64, 64, generator=rng)
        expected = theirs(x)
        assert expected.std() > 0.01
        torch.testing.assert_close(model(x), expected)


def test_unknown_networks_are_refused():
    with pytest.raises(ValueError, match="layers is one of"):
        resnext(18)
