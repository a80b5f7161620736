"""Sliders: what the output holds, and what is refused."""

import base64
import io
import json
from html.parser import HTMLParser

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from mfdnn import plot
from mfdnn.plot import sliders as plot_slider
from mfdnn.plot.sliders import Slider, frames, without_frames
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

ALPHA = "\N{GREEK SMALL LETTER ALPHA}"


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context():
        plot.use_style()
        yield
        assert plt.get_fignums() == []


def line(height, figsize=(3, 2)):
    _, ax = plt.subplots(figsize=figsize)
    ax.plot([0, 1], [0, height], color=plot.COLORS[0])
    ax.set_ylim(0, 5)


def noise(k):
    _, ax = plt.subplots()
    ax.imshow(np.random.default_rng(k).random((400, 600)), cmap="gray")


def picture(png):
    return Image.open(io.BytesIO(base64.b64decode(png)))


class Elements(HTMLParser):
    """All start tags with their attributes, and the text within each tag."""

    def __init__(self, html):
        super().__init__()
        self.all, self.text, self.open = [], {}, []
        self.feed(html)
        assert self.open == []  # every element is closed

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        self.all.append((tag, dict(attrs)))
        if tag not in {"img", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.text[self.open[-1]] = data.strip()

    def one(self, tag):
        (found,) = [attributes for name, attributes in self.all if name == tag]
        return found


def test_a_cell_has_one_output_with_a_picture_and_the_slider():
    cell = """\
import matplotlib.pyplot as plt
from mfdnn import plot
plot.use_style()
def draw(k):
    plt.subplots(figsize=(3, 2))[1].plot([0, k])
plot.slider(draw, [1, 2], "k")"""
    notebook = new_notebook(cells=[new_code_cell("%matplotlib inline\n" + cell)])
    NotebookClient(notebook, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    made = dict(output.data)
    assert sorted(made) == ["image/png", "text/html", "text/plain"]
    assert made["image/png"].strip() == frames(made["text/html"])[0]
    assert made["text/plain"] == "slider: k = 1, 2"


def test_without_a_notebook_one_line_is_printed(capsys):
    plot.slider(line, [1, 2], "height")
    assert capsys.readouterr().out == "slider: height = 1, 2\n"


def test_frames_show_the_values_in_order():
    made = Slider(line, [1, 2.5, 4], "height", start=1)
    shown = [np.asarray(picture(f).convert("L")) for f in frames(made.html)]
    assert len(shown) == 3
    ends = [(image < 150)[:, -60:].any(axis=1) for image in shown]
    tops = [np.flatnonzero(dark).min() for dark in ends]
    assert tops[0] > tops[1] > tops[2]  # the curve rises with the value
    start = base64.b64encode(made.png).decode()
    assert start == frames(made.html)[1] == made._repr_mimebundle_()["image/png"]


def test_frames_are_small_pictures_with_the_exact_main_colours():
    made = [picture(f) for f in frames(Slider(line, [1, 2], "height").html)]
    for image in made:
        assert image.format == "PNG" and image.mode == "P"
        assert image.size == (3 * plot_slider.DPI, 2 * plot_slider.DPI)
        colors = dict((c, n) for n, c in image.convert("RGB").getcolors())
        assert len(colors) <= plot_slider.PALETTE
        assert max(colors, key=colors.get) == (255, 255, 255)
        assert colors[0, 0x72, 0xB2] > 300  # the line, as in plot.COLORS
    assert made[0].getpalette() == made[1].getpalette()  # no colour flickers


def test_palette_is_close_to_the_drawing():
    drawn = plot_slider._render(line, 3)
    shown = Image.open(io.BytesIO(plot_slider._compress([drawn])[0])).convert("RGB")
    difference = np.asarray(shown, float) - np.asarray(drawn, float)
    assert np.sqrt((difference**2).mean()) / 255 < 0.005


def test_few_colours_are_kept_all():
    image = Image.new("RGB", (4, 2), "white")
    image.putpixel((1, 1), (1, 2, 3))
    (png,) = plot_slider._compress([image])
    assert Image.open(io.BytesIO(png)).convert("RGB").tobytes() == image.tobytes()


def test_the_same_slider_twice_is_the_same_text():
    assert Slider(line, [1, 2], "height").html == Slider(line, [1, 2], "height").html


def test_html_is_a_labelled_native_control():
    made = Slider(line, [1, 2.5, 4], f"height {ALPHA}", start=1)
    page = Elements(made.html)
    div = dict(page.all[0][1])
    assert page.all[0][0] == "div" and div["class"] == "mfdnn-slider"
    assert json.loads(div["data-values"]) == ["1", "2.5", "4"]
    control = page.one("input")
    assert control["type"] == "range"
    limits = [control[key] for key in ("min", "max", "step", "value")]
    assert limits == ["0", "2", "1", "1"]
    assert control["aria-valuetext"] == page.text["output"] == "2.5"
    assert page.text["label"] == f"height {ALPHA}:"
    assert page.one("img")["alt"] == f"height {ALPHA}: 2.5"
    assert page.one("img")["src"].startswith("data:image/png;base64,iVBOR")
    assert control["hidden"] == "hidden"  # until it works; see plot_slider.REVEAL
    assert "data-lm-suppress-shortcuts" in control and "oninput" in control


def test_html_has_no_ids_and_asks_nobody():
    page = Elements(Slider(line, [1, 2], "height").html)
    assert {tag for tag, _ in page.all} == {"div", "img", "label", "input", "output"}
    assert not any(key in {"id", "for", "href"} for _, a in page.all for key in a)
    assert "://" not in Slider(line, [1, 2], "height").html


def test_names_and_values_are_text_never_html():
    evil = "<b> & \"x\" 'y'"
    made = Slider(lambda k: line(len(k)), [evil, "2"], evil)
    page = Elements(made.html)
    assert page.text["output"] == evil and page.text["label"] == f"{evil}:"
    assert json.loads(page.all[0][1]["data-values"]) == [evil, "2"]
    assert page.one("img")["alt"] == f"{evil}: {evil}"


def test_values_are_written_as_a_reader_would():
    values = [1, 100_000_000, 0.1 + 0.2, np.float64(1e-5), np.int64(7), "same"]
    made = Slider(lambda v: line(1), values, "value")
    assert made.texts == ["1", "100000000", "0.3", "1e-05", "7", "same"]
    made = Slider(line, [1, 2], "value", text=lambda k: f"{k} m")
    assert made.texts == ["1 m", "2 m"]


def test_without_frames_compares_the_rest():
    first, second = (Slider(lambda k, s=s: line(s * k), [1, 2], "k") for s in (1, 2))
    assert frames(first.html) != frames(second.html)
    rest = without_frames(first.html)
    assert rest == without_frames(second.html)
    assert rest.count("PNG") == 2 and len(rest) < 2500
    assert rest != without_frames(Slider(line, [1, 3], "k").html)
    assert rest != without_frames(Slider(line, [1, 2], "K").html)
    assert rest != without_frames(Slider(line, [1, 2, 3], "k").html)


def test_frames_of_other_html():
    table = '<div class="x"><img src="data:image/png;base64,AAAA"></div>'
    assert frames(table) == [] and without_frames(table) == table
    one, two = Slider(line, [1, 2], "k").html, Slider(line, [3, 4, 5], "k").html
    assert frames(one + table + two) == frames(one) + frames(two)


@pytest.mark.parametrize(
    "values, options, message",
    [
        ([1], {}, "2 to 24 values, not 1"),
        (range(25), {}, "2 to 24 values, not 25"),
        ([1, 2, 2.0000000001], {}, "written alike: 1, 2, 2"),
        ([1, 2], {"start": 2}, "start is 2"),
        ([1, 2], {"start": -1}, "start is -1"),
        ([1, 2], {"label": r"$\alpha$"}, "plain words"),
        ([1, 2], {"label": " "}, "empty"),
        ([1, 2], {"draw": lambda k: line(k, (3, k))}, "different sizes.*360, 120"),
        ([1, 2], {"draw": lambda k: None}, "leaves 0 open figures"),
        ([1, 2], {"draw": lambda k: [line(k), line(k)]}, "leaves 2 open figures"),
        ([1, 2], {"draw": noise}, "2 frames are .* KB of PNG, more than 300"),
    ],
)
def test_what_makes_no_slider_is_refused(values, options, message):
    arguments = {"draw": line, "label": "k"} | options
    with pytest.raises(ValueError, match=message):
        Slider(values=values, **arguments)


def test_figures_of_the_reader_stay_and_those_of_a_failed_drawing_go():
    own = plt.figure()

    def draw(k):
        line(k)
        assert k < 2

    with pytest.raises(AssertionError):
        Slider(draw, [1, 2], "k")
    Slider(line, [1, 2], "k")
    assert plt.get_fignums() == [own.number]
    plt.close(own)
