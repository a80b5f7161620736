"""Branches and skips are drawn as the network has them."""

import matplotlib.pyplot as plt
import pytest
import torch
from mfdnn import plot
from mfdnn.plot.networks import TIMES
from torch import nn
from torch.nn.functional import relu


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


class Residual(nn.Module):
    """Two convolutions and a shortcut: the identity, or a 1x1 convolution."""

    def __init__(self, n_in, n_out):
        super().__init__()
        stride = 1 if n_in == n_out else 2
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1)
        self.norm = nn.BatchNorm2d(n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.shortcut = (
            nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1, stride)
        )

    def forward(self, x):
        return relu(self.second(relu(self.norm(self.first(x)))) + self.shortcut(x))


class Inception(nn.Module):
    """Four branches side by side."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(8, 2, 1)
        self.b = nn.Sequential(nn.Conv2d(8, 3, 1), nn.Conv2d(3, 4, 3, padding=1))
        self.c = nn.Sequential(nn.Conv2d(8, 1, 1), nn.Conv2d(1, 2, 5, padding=2))
        self.d = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, 2, 1))

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x), self.c(x), self.d(x)], dim=1)


class UNet(nn.Module):
    """Down and up again, with what was seen on the way down beside it."""

    def __init__(self):
        super().__init__()
        self.down, self.pool = nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2)
        self.deep = nn.Conv2d(4, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.out = nn.Conv2d(8, 1, 1)

    def forward(self, x):
        seen = self.down(x)
        return self.out(torch.cat([seen, self.up(self.deep(self.pool(seen)))], 1))


class Many(nn.Module):
    """One convolution used five times side by side."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return torch.cat([self.layer(x) for _ in range(5)], dim=1)


CASES = {
    "identity": (
        Residual(4, 4),
        (4, 6, 6),
        {
            "input": [],
            "conv 3x3, batch norm, relu": ["input"],
            "conv 3x3": ["conv 3x3, batch norm, relu"],
            "+, relu": ["conv 3x3", "input"],
        },
    ),
    "shortcut": (
        Residual(4, 8),
        (4, 6, 6),
        {
            "input": [],
            "conv 3x3 stride 2, batch norm, relu": ["input"],
            "conv 3x3": ["conv 3x3 stride 2, batch norm, relu"],
            "conv 1x1 stride 2": ["input"],
            "+, relu": ["conv 3x3", "conv 1x1 stride 2"],
        },
    ),
    "unet": (
        UNet(),
        (1, 8, 8),
        {
            "input": [],
            "conv 3x3": ["input"],
            "max pool 2x2": ["conv 3x3"],
            "conv 3x3 again": ["max pool 2x2"],
            "transposed conv 2x2 stride 2": ["conv 3x3 again"],
            "concatenate": ["conv 3x3", "transposed conv 2x2 stride 2"],
            "conv 1x1": ["concatenate"],
        },
    ),
}


def graph_of(model, shape, whole=()):
    from mfdnn.plot.graphs import _nodes, _place

    nodes = _nodes(model, shape, whole)
    _place(nodes)
    return nodes


def read(nodes):
    """For each node, by name, the names of what it reads."""
    names = []
    for node in nodes:
        name = ", ".join(node.labels).replace(TIMES, "x")
        names.append(f"{name} again" if name in names else name)
    return {
        name: [names[s] for s in node.sources]
        for name, node in zip(names, nodes, strict=True)
    }


@pytest.mark.parametrize("case", CASES)
def test_nodes_and_what_they_read(case):
    model, shape, expected = CASES[case]
    assert read(graph_of(model, shape)) == expected


def test_branches_stand_side_by_side_and_the_merge_in_their_middle():
    nodes = graph_of(Inception(), (8, 5, 5))
    first = [node for node in nodes if node.row == 1]
    assert sorted(node.lane for node in first) == [0, 1, 2, 3]
    assert [node.lane for node in nodes if node.row == 0] == [1.5]
    assert nodes[-1].lane == pytest.approx(1.5)
    assert [node.shape[0] for node in nodes if node.row == 2] == [4, 2, 2]
    assert nodes[-1].shape == (10, 5, 5)
    assert len(nodes[-1].sources) == 4


def test_a_block_can_be_one_box():
    model = nn.Sequential(Residual(4, 4), nn.ReLU(), Residual(4, 4))
    nodes = graph_of(model, (4, 6, 6), whole=(Residual,))
    assert [", ".join(n.labels) for n in nodes] == [
        "input",
        "Residual, ReLU",
        "Residual",
    ]


@pytest.mark.parametrize(
    ("model", "shape", "edges"),
    [
        (Residual(4, 4), (4, 6, 6), 4),
        (Residual(4, 8), (4, 6, 6), 5),
        (Inception(), (8, 5, 5), 11),
        (UNet(), (1, 8, 8), 7),
    ],
)
def test_what_is_drawn_does_not_overlap(model, shape, edges):
    figure = plot.graph(model, shape)
    assert figure.get_size_inches()[0] == 6.4
    (ax,) = figure.axes
    arrows = [p for p in ax.patches if p.get_gid() == "arrow"]
    boxes = [p.get_window_extent() for p in ax.patches if p.get_gid() != "arrow"]
    assert len(arrows) == edges
    assert len(boxes) == len(graph_of(model, shape))
    for n, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:n])
    for text in ax.texts:
        extent = text.get_window_extent()
        assert any(box.x0 <= extent.x0 and extent.x1 <= box.x1 for box in boxes), (
            text.get_text()
        )
    for line in ax.lines:  # ways keep clear of the boxes
        xs, ys = ax.transData.transform(line.get_xydata()).T
        for box in boxes:
            inside = (xs.min() < box.x1 - 2) and (xs.max() > box.x0 + 2)
            inside &= (ys.min() < box.y1 - 2) and (ys.max() > box.y0 + 2)
            assert not inside or len(xs) == 3


def test_the_network_is_left_alone():
    model = Residual(4, 4)
    state = torch.get_rng_state()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    plot.graph(model, (4, 6, 6))
    assert model.training
    assert model.norm.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_what_cannot_be_drawn_is_refused():
    class Moody(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match=r"torch.fx cannot follow this network"):
        plot.graph(Moody(), (1, 2, 2))
    with pytest.raises(ValueError, match="more than four branches"):
        plot.graph(Many(), (2, 3, 3))
