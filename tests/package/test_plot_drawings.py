"""What the drawings show: the data of lines, numbers, shapes, boxes. Not pixels."""

import math
from itertools import pairwise

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Annotation
from mfdnn import plot
from mfdnn.nn import VGG, LeNet, SparseLeNet, mlp
from mfdnn.nn.lenet import SparseC3
from mfdnn.plot import architecture, image_grid, neurons
from torch import nn

from tests.package.networks import alexnet_cifar10, vgg_cifar10

X = "\N{MULTIPLICATION SIGN}"


@pytest.fixture(autouse=True)
def style(monkeypatch):
    def show(*args, **kwargs):
        raise AssertionError("plt.show() belongs to the page")

    monkeypatch.setattr(plt, "show", show)
    with mpl.rc_context():
        plot.use_style()
        yield
        plt.close("all")


@pytest.fixture
def ax():
    return plt.subplots()[1]


def contrast(a, b):
    """Contrast of two colours after WCAG 2, 1 to 21."""

    def luminance(color):
        c = np.asarray(mpl.colors.to_rgb(color))
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def dark(color):
    """What the site's dark mode makes of it: invert(0.9), hue-rotate(180deg)."""
    inverted = 0.9 - 0.8 * np.asarray(mpl.colors.to_rgb(color))
    luma = np.array([0.213, 0.715, 0.072])  # weights of the CSS filter
    return np.clip(2 * inverted @ luma - inverted, 0, 1)


def legible(text, ground):
    return min(contrast(text, ground), contrast(dark(text), dark(ground)))


def labels(ax):
    return [t for t in ax.texts if isinstance(t, Annotation)]


# Learning curves


def test_curves_are_means_with_a_band_from_least_to_greatest(ax):
    train = torch.tensor([[3.0, 2.0, 1.0], [5.0, 2.0, 3.0]], requires_grad=True)
    test = torch.tensor([4.0, 3.0, 2.5])
    assert plot.learning_curves(ax, {"train": train, "test": test}, "loss") is ax
    first, second = ax.lines
    assert first.get_xydata().tolist() == [[1, 4], [2, 2], [3, 2]]
    assert second.get_xydata().tolist() == [[1, 4], [2, 3], [3, 2.5]]
    (band,) = ax.collections  # one seed has no band
    corners = {tuple(v) for v in band.get_paths()[0].vertices.tolist()}
    assert corners == {(1, 3), (1, 5), (2, 2), (3, 1), (3, 3)}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")


def test_each_curve_is_named_at_its_end(ax):
    curves = {"train": torch.tensor([3.0, 1.0]), "test": torch.tensor([3.0, 2.0, 2.5])}
    plot.learning_curves(ax, curves, "loss")
    assert {t.get_text(): t.xy for t in labels(ax)} == {
        "train": (2, 1),
        "test": (3, 2.5),
    }


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_names_of_close_curves_do_not_overlap(ax, scale):
    ax.set_yscale(scale)
    ends = [0.98, 0.981, 0.982, 0.99]
    curves = {f"curve {e}": torch.tensor([0.1, 0.9, e]) for e in ends}
    plot.learning_curves(ax, curves, "accuracy")
    ax.figure.canvas.draw()
    boxes = [t.get_window_extent() for t in labels(ax)]
    assert len(boxes) == 4
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert ax.figure.bbox.fully_contains(*box.min)
        assert ax.figure.bbox.fully_contains(*box.max)


def test_names_are_legible_in_light_and_dark_mode(ax):
    curves = {str(i): torch.tensor([1.0, 2.0 + i]) for i in range(len(plot.COLORS))}
    plot.learning_curves(ax, curves, "loss")
    assert all(legible(t.get_color(), "white") >= 4.5 for t in labels(ax))


def test_a_diverged_curve_keeps_its_name(ax):
    curve = torch.tensor([1.0, 2.0, math.nan])
    plot.learning_curves(ax, {"diverged": curve, "lost": curve * math.nan}, "loss")
    assert [(t.get_text(), t.xy) for t in labels(ax)] == [("diverged", (2, 2))]


def test_a_single_epoch_is_a_dot(ax):
    plot.learning_curves(ax, {"train": torch.tensor([1.0])}, "loss")
    assert ax.lines[0].get_marker() == "o"


@pytest.mark.parametrize("shape", [(), (0,), (2, 3, 4)])
def test_curves_of_another_shape_are_refused(ax, shape):
    with pytest.raises(ValueError, match=r"'train' has shape"):
        plot.learning_curves(ax, {"train": torch.zeros(shape)}, "loss")
    with pytest.raises(ValueError, match="no curve"):
        plot.learning_curves(ax, {}, "loss")


# Confusion matrix


def test_confusion_matrix_shows_counts_and_shares(ax):
    counts = torch.tensor([[90, 10], [1, 3]])
    assert plot.confusion_matrix(ax, counts, ["cat", "dog"]) is ax
    shown = {t.get_position(): t.get_text() for t in ax.texts}
    assert shown == {(0, 0): "90", (1, 0): "10", (0, 1): "1", (1, 1): "3"}
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), [[0.9, 0.1], [0.25, 0.75]])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["cat", "dog"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["cat", "dog"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first class is on top


def test_numbers_are_legible_in_light_and_dark_mode(ax):
    counts = torch.tensor([[i, 100 - i, 0] for i in (0, 30, 50)])  # one row is full
    plot.confusion_matrix(ax, counts, list("abc"))
    (image,) = ax.images
    colours = image.to_rgba(image.get_array())[..., :3]
    for text in ax.texts:
        j, i = text.get_position()
        assert legible(text.get_color(), colours[i, j]) >= 4.5


def test_ten_classes_fit_into_their_cells():
    figure, ax = plt.subplots(figsize=(6.4, 5))
    names = [f"long name {i}" for i in range(10)]
    plot.confusion_matrix(ax, torch.full((10, 10), 88_888), names)
    figure.canvas.draw()
    (left, _), (right, _) = ax.transData.transform([(0, 0), (1, 0)])
    assert all(t.get_window_extent().width < right - left for t in ax.texts)
    for text in [*ax.get_xticklabels(), *ax.get_yticklabels()]:
        box = text.get_window_extent()
        assert figure.bbox.fully_contains(*box.min)
        assert figure.bbox.fully_contains(*box.max)


def test_class_without_examples_is_white(ax):
    plot.confusion_matrix(ax, torch.tensor([[0, 0], [0, 2]]), ["a", "b"])
    assert ax.images[0].get_array().tolist() == [[0, 0], [0, 1]]


def test_counts_must_match_the_names(ax):
    with pytest.raises(ValueError, match=r"not \(3, 3\)"):
        plot.confusion_matrix(ax, torch.zeros(2, 2), ["a", "b", "c"])


# Image grid


def pixels(image):
    return torch.as_tensor(np.asarray(image.get_array()))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_grid_shows_every_image_unchanged(channels, dtype):
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (5, channels, 6, 4), generator=rng, dtype=torch.uint8)
    images = images if dtype == torch.uint8 else images / 255
    figure = image_grid(images, columns=3)
    (ax,) = figure.axes
    unit = images / 255 if dtype == torch.uint8 else images
    assert len(ax.images) == 5
    for image, expected in zip(ax.images, unit, strict=True):
        shown = pixels(image)
        shown = shown[None] if channels == 1 else shown.movedim(-1, 0)
        torch.testing.assert_close(shown, expected)
        assert (image.norm.vmin, image.norm.vmax) == (0, 1)


def test_grid_places_images_row_by_row_inside_the_figure():
    figure = image_grid(torch.zeros(5, 1, 8, 4), list("abcde"), columns=2)
    (ax,) = figure.axes
    figure.canvas.draw()
    boxes = [image.get_window_extent() for image in ax.images]
    corners = [(round(b.x0), round(-b.y1)) for b in boxes]
    assert corners == sorted(corners, key=lambda c: (c[1], c[0]))
    assert len({x for x, _ in corners}) == 2
    assert len({y for _, y in corners}) == 3
    for i, box in enumerate(boxes):
        assert box.height / box.width == pytest.approx(2, rel=1e-3)
        assert figure.bbox.fully_contains(*box.min)
        assert figure.bbox.fully_contains(*box.max)
        title = ax.texts[i].get_window_extent()
        assert ax.texts[i].get_text() == "abcde"[i]
        assert title.y0 >= box.y1
        assert box.x0 < (title.x0 + title.x1) / 2 < box.x1
        assert not any(title.overlaps(b) or box.overlaps(b) for b in boxes[:i])
    assert figure.bbox.fully_contains(*ax.texts[0].get_window_extent().max)
    assert figure.get_size_inches()[0] == pytest.approx(6.4)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: image_grid(torch.zeros(3, 1, 8, 7)),
        lambda: architecture(LeNet(), (1, 28, 28)),
        lambda: neurons(mlp([2, 7, 1]), (2,)),
        lambda: plot.graph(LeNet(), (1, 28, 28)),
    ],
    ids=["image_grid", "architecture", "neurons", "graph"],
)
def test_figures_are_whole_pixels_high(draw):
    plot.use_style()
    height = draw().bbox.height
    assert height == int(height)


def test_values_outside_are_clipped_and_gradients_ignored():
    images = torch.tensor([-1.0, 0.5, 2.0]).view(1, 1, 1, 3).requires_grad_()
    (image,) = image_grid(images).axes[0].images
    assert pixels(image).tolist() == [[0.0, 0.5, 1.0]]


@pytest.mark.parametrize(
    ("images", "titles"),
    [
        (torch.zeros(2, 2, 4, 4), None),
        (torch.zeros(3, 4, 4), None),
        (torch.zeros(0, 1, 4, 4), None),
        (torch.zeros(2, 1, 4, 4).long(), None),
        (torch.zeros(2, 1, 4, 4), ["only one"]),
    ],
)
def test_grid_refuses_what_are_no_images(images, titles):
    with pytest.raises(ValueError, match="images"):
        image_grid(images, titles)


# Densities


def gauss(x):
    """Log-density of independent normals with deviations 1 and 2."""
    return -0.5 * (x[:, 0] ** 2 + (x[:, 1] / 2) ** 2) - math.log(4 * math.pi)


def mass(ax):
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    values = pixels(image)
    return values, values.mean().item() * (right - left) * (top - bottom)


def test_density_is_shown_at_the_right_place(ax):
    assert plot.density(ax, gauss, (-6, 5), (-9, 10)) is ax
    values, total = mass(ax)
    assert total == pytest.approx(1, abs=1e-4)
    assert values.max().item() == pytest.approx(1 / (4 * math.pi), rel=1e-2)
    row, column = divmod(values.argmax().item(), 200)
    assert -6 + 11 * (column + 0.5) / 200 == pytest.approx(0, abs=0.06)
    assert -9 + 19 * (row + 0.5) / 200 == pytest.approx(0, abs=0.1)
    assert ax.images[0].origin == "lower"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$x_1$", "$x_2$")


def test_histogram_of_samples_estimates_the_same_density():
    rng = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 2.0])
    samples = torch.randn(400_000, 2, generator=rng) * scale
    _, (left, right) = plt.subplots(1, 2)
    plot.density(left, gauss, (-2, 2), (-4, 4), vmax=0.1)
    plot.sample_density(right, samples, (-2, 2), (-4, 4), vmax=0.1)
    exact, _ = mass(left)
    counted, inside = mass(right)
    # The 80 cells are compared with the 200, both averaged to 40.
    exact = exact.view(40, 5, 40, 5).mean(dim=(1, 3))
    counted = counted.view(40, 2, 40, 2).mean(dim=(1, 3))
    # A cell of area 0.02 holds 25 to 637 points: five deviations.
    noise = 5 * (exact / (400_000 * 0.02)).sqrt()
    assert ((counted - exact).abs() < noise).all()
    assert inside == pytest.approx(math.erf(math.sqrt(2)) ** 2, abs=3e-3)
    assert left.images[0].get_clim() == right.images[0].get_clim() == (0, 0.1)


def test_one_sample_lies_in_its_cell(ax):
    plot.sample_density(ax, torch.tensor([[0.905, 0.105]]), (0, 1), (0, 1))
    values, total = mass(ax)
    assert total == pytest.approx(1)
    assert values.nonzero().tolist() == [[8, 72]]  # row from below, column


def test_no_density_no_drawing(ax):
    with pytest.raises(ValueError, match="not \\(40000,\\)"):
        plot.density(ax, lambda x: x, (0, 1), (0, 1))
    for shape in ((3,), (3, 3), (0, 2)):
        with pytest.raises(ValueError, match=r"not \(N, 2\)"):
            plot.sample_density(ax, torch.zeros(shape), (0, 1), (0, 1))


# Architecture


def drawn(figure):
    """Front faces, and the pairs (label above, shape below), in the order drawn."""
    (ax,) = figure.axes
    fronts = [p for p in ax.patches if p.get_gid() == "front"]
    texts = [t.get_text() for t in ax.texts if not isinstance(t, Annotation)]
    above = [t.replace("\n", ", ") for t in texts[::2]]
    below = [t.replace("\n", "").replace(X, "x") for t in texts[1::2]]
    assert len(fronts) == len(above) == len(below)
    return fronts, list(zip(above, below, strict=True))


def extent(front):
    """Width and height of a front face, in inches."""
    low, high = front.get_xy().min(axis=0), front.get_xy().max(axis=0)
    return high - low


def test_lenet_is_drawn_with_its_shapes():
    fronts, texts = drawn(architecture(LeNet(), (1, 28, 28)))
    assert texts == [
        ("input", "1x28x28"),
        (f"conv 5{X}5, ReLU", "6x28x28"),
        (f"max pool 2{X}2", "6x14x14"),
        (f"conv 5{X}5, ReLU", "16x10x10"),
        (f"max pool 2{X}2", "16x5x5"),
        ("flatten", "400"),
        ("linear, ReLU", "120"),
        ("linear, ReLU", "84"),
        ("linear", "10"),
    ]
    kinds = [tuple(np.round(f.get_facecolor(), 6)) for f in fronts]
    assert kinds[1] == kinds[3] and kinds[2] == kinds[4] and kinds[6] == kinds[8]
    assert len(set(kinds)) == 5  # input, conv, pool, flatten, linear


def test_boxes_are_scaled_by_channels_and_size():
    fronts, _ = drawn(architecture(LeNet(), (1, 28, 28)))
    thick, tall = np.array([extent(front) for front in fronts]).T
    np.testing.assert_allclose(
        tall[1:5] / tall[1], np.sqrt([1, 1 / 2, 10 / 28, 5 / 28])
    )
    np.testing.assert_allclose(thick[1:5] / thick[3], np.sqrt([6 / 16, 6 / 16, 1, 1]))
    np.testing.assert_allclose(tall[5:] / tall[5], np.sqrt([1, 0.3, 0.21, 0.025]))
    assert np.ptp(thick[5:]) < 1e-9


def test_alexnet_and_vgg_are_drawn_with_their_shapes():
    with torch.device("meta"):
        alexnet, vgg = alexnet_cifar10(), vgg_cifar10()
    _, texts = drawn(architecture(alexnet, (3, 32, 32)))
    shapes = "3x32x32 96x29x29 96x27x27 256x27x27 256x13x13 384x13x13 384x13x13"
    shapes += " 256x13x13 256x6x6 9216 4096 4096 10"
    assert [shape for _, shape in texts] == shapes.split()
    assert texts[8][0] == f"max pool 3{X}3 stride 2, dropout"
    fronts, texts = drawn(architecture(vgg, (3, 32, 32)))
    assert len(fronts) == 1 + 10 + 4 + 1 + 3
    centres = [front.get_xy()[:, 0].mean() for front in fronts]
    assert sum(b < a for a, b in pairwise(centres)) == 1  # continues in a second row
    assert texts[-1] == ("linear", "10")


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (LeNet, (1, 28, 28)),
        (lambda: mlp([784, 392, 196, 98, 10]), (1, 28, 28)),
        (lambda: mlp([2, 1]), (2,)),
        (alexnet_cifar10, (3, 32, 32)),
        (vgg_cifar10, (3, 32, 32)),
        (lambda: VGG(16), (3, 224, 224)),
    ],
)
def test_drawings_fit_and_their_texts_do_not_overlap(network, shape):
    with torch.device("meta"):
        figure = architecture(network(), shape)
    assert figure.get_size_inches()[0] == pytest.approx(6.4)
    (ax,) = figure.axes
    figure.canvas.draw()
    texts = [t for t in ax.texts if t.get_text()]
    for artist in [*texts, *ax.patches]:
        box = artist.get_window_extent()
        assert figure.bbox.fully_contains(*box.min), artist
        assert figure.bbox.fully_contains(*box.max), artist
    below = [t.get_window_extent() for t in texts[1::2]]
    fronts = [p.get_window_extent() for p in ax.patches]
    for i, box in enumerate(below):
        assert not any(box.overlaps(other) for other in below[:i])
        assert not any(box.overlaps(front) for front in fronts)
    # Slanted labels: the distance of neighbouring lines of text, across them.
    starts = [t.get_transform().transform(t.get_position()) for t in texts[::2]]
    steps = [b[0] - a[0] for a, b in pairwise(starts)]
    points = [step / math.sqrt(2) * 72 / figure.dpi for step in steps if step > 0]
    assert min(points) > 2 * 8 * 1.2  # two lines of 8 points


class Block(nn.Module):
    """A residual block that keeps the shape."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))

    def forward(self, x):
        return x + self.inside(x)


def test_modules_can_be_drawn_whole():
    _, texts = drawn(architecture(SparseLeNet(), (1, 28, 28), whole=(SparseC3,)))
    assert texts[3] == ("SparseC3, tanh", "16x10x10")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Block(), nn.AdaptiveAvgPool2d(1))
    _, texts = drawn(architecture(model, (3, 8, 8), whole=(Block,)))
    assert texts[1:] == [
        (f"conv 3{X}3", "4x6x6"),
        ("Block", "4x6x6"),
        ("global average pool", "4x1x1"),
    ]
    _, texts = drawn(architecture(model, (3, 8, 8)))
    assert [label for label, _ in texts[2:3]] == [f"conv 3{X}3, batch norm"]


def test_other_layers_are_named():
    model = nn.Sequential(
        nn.Linear(3, 32),
        nn.Identity(),
        nn.Unflatten(1, (8, 4)),
        nn.Conv1d(8, 8, 3, padding=1),
        nn.Dropout1d(),
        nn.MaxPool1d(2),
        nn.Unflatten(2, (2, 1)),
        nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(2),
        nn.Softmax(1),
    )
    _, texts = drawn(architecture(model, (3,)))
    assert texts == [
        ("input", "3"),
        ("linear", "32"),
        ("Unflatten", "8x4"),
        ("conv 3, dropout", "8x4"),
        ("max pool 2", "8x2"),
        ("Unflatten", "8x2x1"),
        (f"transposed conv 4{X}4 stride 2", "3x4x2"),
        ("adaptive average pool, Softmax", "3x2x2"),
    ]


def test_a_network_without_layers_has_no_drawing():
    with pytest.raises(ValueError, match="no layer to draw"):
        architecture(nn.Identity(), (3,))


# Neurons


def circles(figure):
    return [p for p in figure.axes[0].patches if isinstance(p, mpl.patches.Circle)]


def test_neurons_are_numbers_and_lines_are_weights():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    figure = neurons(model, (3,))
    assert len(circles(figure)) == 3 + 4 + 2
    weights = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert len(figure.axes[0].lines) == weights
    ends = {tuple(np.round(c.center, 6)) for c in circles(figure)}
    for line in figure.axes[0].lines:
        assert {tuple(np.round(xy, 6)) for xy in line.get_xydata()} <= ends
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts == ["3", "input", "4", "tanh", "2", "output"]


def test_long_columns_are_shortened_and_say_so():
    figure = neurons(mlp([3072, 1536, 768, 384, 1]), (3, 32, 32))
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts.count("\N{VERTICAL ELLIPSIS}") == 4
    assert [t for t in texts if t[0].isdigit()] == ["3,072", "1,536", "768", "384", "1"]
    assert texts.count("ReLU") == 3
    assert len(circles(figure)) == 4 * 6 + 1
    figure.canvas.draw()
    width, height = figure.bbox.size
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height


@pytest.mark.parametrize(
    ("model", "shape", "complaint"),
    [
        (LeNet(), (1, 28, 28), "Conv2d is not a layer of a perceptron"),
        (nn.Sequential(nn.Flatten(), nn.ReLU()), (1, 2, 2), "no linear layer"),
    ],
)
def test_other_networks_are_refused(model, shape, complaint):
    with pytest.raises(ValueError, match=complaint):
        neurons(model, shape)
