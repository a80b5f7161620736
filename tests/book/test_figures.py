"""The comparison of figures: what it must notice, and what it must not."""

import base64
import io
import json
import types

import matplotlib.pyplot as plt
import numpy as np
import pytest
from mfdnn import plot
from mfdnn.plot.sliders import Slider
from PIL import Image

from tests import nbval_numeric
from tests.nbval_numeric import figure_fault, pixels

x = np.linspace(0, 3, 200)


def draw(shift=0.0, scale=1.0, thin=True, dash="--", label="gradient", noise=0.0):
    """A figure in the book's style, as a PNG in base64."""
    with plt.rc_context():
        plot.use_style()
        fig, ax = plt.subplots()
        ax.plot(x + noise, np.exp(-x), label=label)
        ax.plot(x, scale * np.cos(2 * x) + shift * 2, dash, label="momentum")
        if thin:
            ax.plot(x[::100], 0.3 * x[::100], color="0.7", lw=0.8)
        ax.set(xlim=(0, 3), ylim=(-1.1, 1.1), xlabel="step", ylabel="loss")
        ax.legend(loc="upper right")
        file = io.BytesIO()
        fig.savefig(file, format="png")
        plt.close(fig)
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def stored():
    return draw()


@pytest.mark.parametrize(
    "damage",
    [
        {"thin": False},
        {"shift": 0.02},
        {"scale": 1.02},
        {"dash": "-."},
        {"dash": "-"},
        {"label": "gradieut"},
    ],
    ids=str,
)
def test_damage_is_noticed(stored, damage):
    assert figure_fault(draw(**damage), stored)
    assert figure_fault(draw(**damage), stored, rms=0.5) is None  # the cell says so


def test_same_figure_again(stored):
    assert draw() == stored
    assert figure_fault(draw(), stored) is None


def edited(png, change):
    """A PNG with its pixels, from 0 to 1, changed by a function."""
    values = np.clip(change(pixels(png)), 0, 1) * 255
    file = io.BytesIO()
    Image.fromarray(values.round().astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_noise_is_not(stored):
    moved = draw(noise=2e-4)  # a tenth of a pixel
    assert moved != stored
    assert figure_fault(moved, stored) is None
    rng = np.random.default_rng(0)
    rounding = edited(stored, lambda a: a + rng.normal(scale=0.004, size=a.shape))
    assert figure_fault(rounding, stored) is None


def test_line_that_snaps_to_the_next_pixel(stored):
    def with_line(row):
        here = np.arange(pixels(stored).shape[0])[:, None, None] == row
        return edited(stored, lambda a: np.where(here, 0.85, a))

    assert figure_fault(with_line(100), with_line(99)) is None
    assert figure_fault(with_line(103), with_line(99))


def test_other_size(stored):
    assert figure_fault(edited(stored, lambda a: a[:-1]), stored)


# Sliders


def slider(*sizes, label="size"):
    """The output of a cell whose figure has a slider."""

    def draw_dot(size):
        _, ax = plt.subplots(figsize=(2, 2))
        ax.plot([0.5], [0.5], "o", markersize=size)
        ax.set(xlim=(0, 1), ylim=(0, 1))

    texts = map(str, range(len(sizes))).__next__
    made = Slider(draw_dot, sizes, label, text=lambda _: texts())
    data = {**made._repr_mimebundle_(), "text/plain": repr(made)}
    return [{"output_type": "display_data", "data": data, "metadata": {}}]


@pytest.fixture
def accepts(monkeypatch):
    """Whether an output is accepted; nbval's own part is equality."""

    def nbval_compare(cell, test, ref, skip):
        def view(outputs):
            kinds = {k: v for o in outputs for k, v in o["data"].items()}
            return {k: v for k, v in kinds.items() if k != "image/png"}

        return view(test) == view(ref)

    monkeypatch.setattr(nbval_numeric, "nbval_compare", nbval_compare)

    def accepts(test, ref, **metadata):
        inner = types.SimpleNamespace(metadata=metadata)
        cell = types.SimpleNamespace(cell=inner, comparison_traceback=[])
        test, ref = json.loads(json.dumps([test, ref]))
        accepted = nbval_numeric.compare_outputs(cell, test, ref)
        return accepted, cell.comparison_traceback

    return accepts


def test_slider(accepts):
    ref = slider(5, 20, 40)
    assert accepts(slider(5, 20, 40), ref) == (True, [])
    assert accepts(slider(5, 20, 40.02), ref) == (True, [])
    [fault] = accepts(slider(5, 20, 44), ref)[1]
    assert fault.startswith("frame 2 of the slider changed")
    [fault] = accepts(slider(9, 20, 40), ref)[1]
    assert fault.startswith("the figure changed")
    assert accepts(slider(5, 20, 44), ref, rms=0.2) == (True, [])
    assert accepts(slider(5, 20), ref) == (False, [])
    assert accepts(slider(5, 20, 40, label="rate"), ref) == (False, [])
