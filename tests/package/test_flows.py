"""Flows against autograd's Jacobian, Zuko, torch.distributions and their formulas."""

import math

import pytest
import torch
import zuko
from mfdnn import flows
from mfdnn.flows import Compose, Coupling, Density, Flow, Logit, Scale, gaps
from mfdnn.nn import RealNVP, nice
from mfdnn.nn.realnvp import FlowNorm, MaskedCoupling, Squeeze
from scipy import stats
from torch import nn
from torch.distributions import (
    Normal,
    SigmoidTransform,
    TransformedDistribution,
    Uniform,
)

EVEN = torch.tensor([True, False, True, False, True, False])


def drawn(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def shaken(flow):
    """The flow in float64 and eval mode, all parameters away from special values."""
    rng = torch.Generator().manual_seed(1)
    flow = flow.double()
    for parameter in flow.parameters():
        noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
        parameter.data += 0.2 * noise
    return flow.eval()


def coupling(affine=False):
    outputs = 6 if affine else 3
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, outputs))
    return Coupling(EVEN, network, affine)


def real_nvp():
    flow = RealNVP((2, 8, 8), width=6, blocks=1)
    for step in range(3):  # so that the running statistics are not 0 and 1
        flow(2 * drawn(20, 2, 8, 8, seed=step).float() + 1)
    return flow


FLOWS = {
    "identity": (Flow, (6,)),
    "additive coupling": (coupling, (6,)),
    "affine coupling": (lambda: coupling(affine=True), (6,)),
    "scale": (lambda: Scale(6), (6,)),
    "composition": (lambda: Compose(Scale(6), coupling(True), Scale(6)), (6,)),
    "NICE": (lambda: nice(6, 10, 2), (6,)),
    "squeeze": (Squeeze, (2, 4, 4)),
    "masked": (lambda: MaskedCoupling(torch.eye(4)[None].repeat(2, 1, 1), 6, 1), None),
    "Real NVP": (real_nvp, (2, 8, 8)),
}


@pytest.mark.parametrize("name", FLOWS)
def test_inverse_and_determinant(name):
    torch.manual_seed(0)
    make, shape = FLOWS[name]
    x = drawn(20, *(shape or (2, 4, 4)))
    # Eighteen couplings with exponentials multiply the rounding of the first.
    limit = 1e-9 if name == "Real NVP" else 1e-12
    assert max(gaps(shaken(make()), x)) < limit


def test_logit_of_pixels():
    x = torch.rand(20, 6, dtype=torch.float64)
    assert max(gaps(Logit(0.05), x)) < 1e-12
    z, log_det = Logit(0.05)(x)
    torch.testing.assert_close(z, torch.logit(0.05 + 0.9 * x))
    to_line = SigmoidTransform().inv
    y = 0.05 + 0.9 * x
    expected = (to_line.log_abs_det_jacobian(y, z) + math.log(0.9)).sum(1)
    torch.testing.assert_close(log_det, expected)


def test_gaps_see_what_is_wrong():
    class Wrong(Scale):
        def forward(self, x):
            z, log_det = super().forward(x)
            return z, log_det + 1e-3

    class Lost(Scale):
        def inverse(self, z):
            return super().inverse(z) + 1e-4

    x = drawn(5, 6)
    assert gaps(Wrong(6).double(), x)[1] == pytest.approx(1e-3, rel=1e-6)
    assert gaps(Lost(6).double(), x)[0] == pytest.approx(1e-4, rel=1e-6)


@pytest.mark.parametrize("affine", [False, True])
def test_couplings_are_those_of_zuko(affine):
    torch.manual_seed(0)
    flow = shaken(coupling(affine))

    def moves(x_a):
        found = flow.network(x_a)
        if not affine:
            return zuko.transforms.AdditiveTransform(found)
        s, t = found.chunk(2, 1)
        return zuko.transforms.DependentTransform(
            torch.distributions.AffineTransform(t, s.exp()), 1
        )

    theirs = zuko.transforms.CouplingTransform(moves, EVEN)
    x = drawn(20, 6)
    z, log_det = flow(x)
    torch.testing.assert_close(theirs(x), z)
    expected = theirs.log_abs_det_jacobian(x, z)
    torch.testing.assert_close(expected.reshape(20, -1).sum(1), log_det)
    torch.testing.assert_close(theirs.inv(z), x)
    assert (z - x).abs()[:, ::2].max() == 0 < (z - x).abs()[:, 1::2].min()


def test_bases_and_densities_are_those_of_torch():
    z = drawn(30, 4)
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones(()).double()
    torch.testing.assert_close(flows.normal(z), Normal(zero, one).log_prob(z).sum(1))
    line = TransformedDistribution(Uniform(zero, one), SigmoidTransform().inv)
    torch.testing.assert_close(flows.logistic(z), line.log_prob(z).sum(1))
    density = Density(shaken(Scale(4)))
    widths = (-density.flow.s).exp()
    expected = Normal(zero, widths).log_prob(z).sum(1)
    torch.testing.assert_close(density.log_prob(z), expected)


@pytest.mark.parametrize("name", ["normal", "logistic"])
def test_samples_have_the_base_density_after_the_inverse(name):
    flow = shaken(Scale(2))
    density = Density(flow, getattr(flows, name))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        x = density.sample((5000, 2), rng)
        z, _ = flow(x)
    assert x.dtype == torch.float64
    cdf = {"normal": "norm", "logistic": "logistic"}[name]
    for column in z.T:
        assert stats.kstest(column.numpy(), cdf).pvalue > 0.001
    again = density.sample((5000, 2), torch.Generator().manual_seed(0))
    assert torch.equal(x, again)


def test_nice_is_the_formula_and_has_the_lectures_size():
    assert sum(p.numel() for p in nice().parameters()) == 19_158_352
    torch.manual_seed(0)
    flow = shaken(nice(8, 5, 2, couplings=4))
    x = drawn(7, 8)
    even, odd = x[:, ::2], x[:, 1::2]
    with torch.no_grad():
        for i in range(4):
            network = flow.flows[i].network
            if i % 2 == 0:
                odd = odd + network(even)
            else:
                even = even + network(odd)
        expected = torch.stack([even, odd], 2).flatten(1) * flow.flows[4].s.exp()
        z, log_det = flow(x)
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(log_det, flow.flows[4].s.detach().sum().expand(7))
    assert [type(layer).__name__ for layer in flow.flows[0].network] == [
        *("Linear", "ReLU") * 2,
        "Linear",
    ]


def test_a_masked_coupling_is_the_formula():
    torch.manual_seed(0)
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).expand(3, 2, 2).double()
    flow = shaken(MaskedCoupling(mask, 5, 1))
    x = drawn(6, 3, 2, 2)
    z, log_det = flow(x)
    out = flow.network(x * mask)
    s = flow.factor * torch.tanh(out[:, :3])
    moved = x * s.exp() + out[:, 3:]
    torch.testing.assert_close(z, torch.where(mask == 1, x, moved))
    torch.testing.assert_close(log_det, (s * (1 - mask)).sum((1, 2, 3)))


def test_the_flows_normalization_follows_the_lecture():
    layer = FlowNorm(3, rho=0.75).double()
    x = drawn(10, 3, 4, 5)
    x[:, 1] = 3 * x[:, 1] + 2
    x.requires_grad_()
    z, log_det = layer(x)
    mean = 0.25 * x.mean((0, 2, 3))
    var = 0.75 + 0.25 * x.var((0, 2, 3), correction=0)
    torch.testing.assert_close(layer.mean.flatten(), mean.detach())
    torch.testing.assert_close(layer.var.flatten(), var.detach())
    centred = x - mean[:, None, None]
    torch.testing.assert_close(z, centred / (var + 1e-5).sqrt()[:, None, None])
    expected = -0.5 * 20 * (var + 1e-5).log().sum()
    torch.testing.assert_close(log_det, expected.expand(10))
    (slope,) = torch.autograd.grad(log_det[0], x, retain_graph=True)
    (true,) = torch.autograd.grad(expected, x)
    torch.testing.assert_close(slope, true)
    assert slope.abs().max() > 0
    layer(x)[0].sum().backward()  # a second step does not need the first one's graph
    layer.eval()
    assert max(gaps(layer, x.detach())) < 1e-12
    torch.testing.assert_close(layer(x[:1])[0], layer(x)[0][:1])


def test_the_scales_of_real_nvp():
    """At first s = t = 0: latents are pixels, the fine scales' first."""
    flow = RealNVP((3, 32, 32), 4, 1).eval()
    assert sum(isinstance(m, MaskedCoupling) for m in flow.modules()) == 18
    x = torch.randn(2, 3, 32, 32)
    z, log_det = flow(x)
    norms = 6 * 3 / 2 * math.log(1 + 1e-5)  # of the eps, which all pixels meet
    assert log_det.abs().max() < 3072 * norms
    scale = (1 + 1e-5) ** (-0.5 * 6)
    cells = nn.functional.pixel_unshuffle(x, 2)
    first = cells[:, 6:].flatten(1) * scale
    torch.testing.assert_close(z[:, :1536], first)
    second = nn.functional.pixel_unshuffle(cells[:, :6], 2)
    torch.testing.assert_close(
        z[:, 1536 : 1536 + 768], second[:, 12:].flatten(1) * scale**2
    )
    assert z.shape == (2, 3072)
    for flows_of_scale in flow.scales:
        masks = [m.mask for m in flows_of_scale.flows if hasattr(m, "mask")]
        assert [float(m.mean()) for m in masks] == [0.5] * 6
        for before, after in zip(
            masks[:2] + masks[3:5], masks[1:3] + masks[4:], strict=True
        ):
            assert torch.equal(before, 1 - after)
