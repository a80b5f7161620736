"""A figure that moves: one picture for each value, and a slider that chooses.

The output carries its pictures and a native range input, so it works without a
kernel, a library or a network: on the site, in JupyterLab and in Colab alike.
"""

import base64
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from html.parser import HTMLParser
from numbers import Integral
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

DPI = 120  # 6.4 inches are 768 pixels: more than the site's column, twice a phone
PALETTE = 48  # colours of all frames together
MAX_FRAMES = 24
MAX_BYTES = 300_000  # of all PNGs; a third more in base64

# The frames are text until they are shown and the control appears when the first
# one is loaded: where scripts and attributes are stripped (GitHub, a notebook that
# is not trusted yet), one picture and its value remain. JupyterLab drops attributes
# without a value (hence hidden="hidden"), and takes the arrow keys for itself from
# any element that does not say data-lm-suppress-shortcuts.
REVEAL = "this.closest('.mfdnn-slider').querySelector('input').hidden = false"
SHOW = (
    "const s = this.closest('.mfdnn-slider'), m = s.querySelector('img'),"
    " v = JSON.parse(s.dataset.values)[this.value],"
    " f = s.dataset.frames.trim().split(/\\s+/)[this.value];"
    " this.first ??= m.src;"
    " m.src = f == '-' ? this.first : 'data:image/png;base64,' + f;"
    " m.alt = s.dataset.alt + v;"
    " s.querySelector('output').textContent = v;"
    " this.setAttribute('aria-valuetext', v)"
)


def slider(
    draw: Callable[[Any], object],
    values: Sequence[Any],
    label: str,
    start: int = 0,
    text: Callable[[Any], str] | None = None,
) -> None:
    """Display one figure for each value, and a slider that chooses among them.

    The last line of a cell, without ``plt.show()``. All frames should have the
    same axis limits, and at the first one the figure should say what it is
    about: in print and without JavaScript it stands alone.

    Args:
        draw: draws the figure for a value: calls ``plt.subplots`` once and leaves
            the figure open. What it returns is ignored.
        values: the values, 2 to 24 numbers or strings, in the slider's order.
        label: the values' name beside the slider, plain words or Unicode letters
            such as α, no TeX.
        start: which value is shown first, as an index.
        text: how a value is written; by default numbers as by format "g".

    Raises:
        ValueError: if the frames are too few, too many, too large together
            (300 KB of PNG) or of different sizes, or ``draw`` leaves no figure.
    """
    from IPython.display import display

    display(Slider(draw, values, label, start, text))  # type: ignore[no-untyped-call]


class Slider:
    """The output that ``slider`` displays: ``html``, ``png`` and ``__repr__``."""

    def __init__(
        self,
        draw: Callable[[Any], object],
        values: Sequence[Any],
        label: str,
        start: int = 0,
        text: Callable[[Any], str] | None = None,
    ) -> None:
        self.label = label
        self.texts = [(text or _text)(value) for value in values]
        n = len(self.texts)
        if not 2 <= n <= MAX_FRAMES:
            raise ValueError(f"a slider has 2 to {MAX_FRAMES} values, not {n}")
        if len(set(self.texts)) < n:
            raise ValueError(f"two values are written alike: {', '.join(self.texts)}")
        if not 0 <= start < n:
            raise ValueError(f"start is {start}, not an index of the {n} values")
        if not label.strip() or "$" in label:
            raise ValueError(f"the label {label!r} is empty or TeX; use plain words")
        pictures = [_render(draw, value) for value in values]
        sizes = sorted({picture.size for picture in pictures})
        if len(sizes) > 1:
            raise ValueError(f"the frames have different sizes in pixels: {sizes}")
        self.width, self.height = sizes[0]
        pngs = _compress(pictures)
        total = sum(map(len, pngs))
        if total > MAX_BYTES:
            raise ValueError(
                f"{n} frames are {total / 1000:.0f} KB of PNG, more than "
                f"{MAX_BYTES // 1000}: take fewer values or a plainer figure"
            )
        self.png = pngs[start]
        self.html = self._html([base64.b64encode(p).decode() for p in pngs], start)

    def _html(self, frames: list[str], start: int) -> str:
        alt, first = escape(f"{self.label}: "), escape(self.texts[start])
        values = escape(json.dumps(self.texts, ensure_ascii=False))
        others = "\n".join("-" if i == start else f for i, f in enumerate(frames))
        columns = max(map(len, self.texts))  # the slider keeps its place
        return f"""\
<div class="mfdnn-slider" data-alt="{alt}" data-values="{values}" data-frames="
{others}
">
<img alt="{alt}{first}" width="{self.width}" height="{self.height}"
 style="max-width: 100%; height: auto" decoding="sync" onload="{escape(REVEAL)}"
 src="data:image/png;base64,{frames[start]}">
<div class="mfdnn-slider-control">
<label>{escape(self.label)}:
<input type="range" min="0" max="{len(frames) - 1}" step="1" value="{start}"
 autocomplete="off" aria-valuetext="{first}"
 hidden="hidden" data-lm-suppress-shortcuts="true"
 style="width: 20em; max-width: 60%; height: 40px; vertical-align: middle"
 oninput="{escape(SHOW)}"></label>
<output aria-live="off"
 style="display: inline-block; min-width: {columns}ch">{first}</output>
</div>
</div>
"""

    def __repr__(self) -> str:
        return f"slider: {self.label} = {', '.join(self.texts)}"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        png = base64.b64encode(self.png).decode()
        return {"image/png": png, "text/html": self.html}


def frames(html: str) -> list[str]:
    """All frames of the sliders in ``html``, in order, as PNGs in base64."""
    reader = _Frames()
    reader.feed(html)
    return reader.found


def without_frames(html: str) -> str:
    """``html`` with the word PNG in place of each frame of its sliders."""
    for frame in frames(html):
        html = html.replace(frame, "PNG")
    return html


class _Frames(HTMLParser):
    """Collects the frames; the first one shown stands in the picture itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if values.get("class") == "mfdnn-slider":
            self.found += values["data-frames"].split()
        elif tag == "img" and "-" in self.found:
            self.found[self.found.index("-")] = values["src"].partition(",")[2]


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str | Integral) else format(value, "g")


def _render(draw: Callable[[Any], object], value: Any) -> Image.Image:
    """The one figure that ``draw`` leaves open, as a picture on white."""
    before = set(plt.get_fignums())
    try:
        draw(value)
        new = set(plt.get_fignums()) - before
        if len(new) != 1:
            raise ValueError(
                f"draw({value!r}) leaves {len(new)} open figures, not one; it calls "
                "plt.subplots() once and neither plt.show() nor plt.close()"
            )
        file = io.BytesIO()
        plt.figure(new.pop()).savefig(
            file, format="png", dpi=DPI, facecolor="white", bbox_inches=None
        )
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)
    return Image.open(file).convert("RGB")


def _compress(pictures: Sequence[Image.Image]) -> list[bytes]:
    """PNGs with one palette for all, so that no colour flickers."""
    counts: Counter[Any] = Counter()
    for picture in pictures:
        for n, color in picture.getcolors(picture.width * picture.height) or []:
            counts[color] += n
    colors = np.array(sorted(counts))  # (C, 3)
    weights = np.sqrt([counts[color] for color in sorted(counts)])
    palette, nearest = _choose_palette(colors, weights)
    index = np.zeros((256, 256, 256), np.uint8)
    index[tuple(colors.T)] = nearest
    pngs = []
    for picture in pictures:
        mapped = Image.fromarray(index[tuple(np.asarray(picture).transpose(2, 0, 1))])
        mapped.putpalette(palette.astype(np.uint8).tobytes())
        file = io.BytesIO()
        mapped.save(file, format="PNG", optimize=True, dpi=(DPI, DPI))
        pngs.append(file.getvalue())
    return pngs


def _choose_palette(colors: Array, weights: Array) -> tuple[Array, Array]:
    """Greedily the colour that is worst represented so far, weighted.

    Pillow's methods average colours, so that white and the lines' colours change;
    here the colours of large areas are kept exactly.

    Returns:
        the palette, shape (K, 3), and for each colour the index of the nearest one
        in it.
    """
    distance = np.full(len(colors), np.inf)
    nearest = np.zeros(len(colors), int)
    worst = int(weights.argmax())
    chosen = []
    for k in range(min(PALETTE, len(colors))):
        chosen.append(worst)
        to_new = ((colors - colors[worst]) ** 2).sum(axis=1)
        nearest[to_new < distance] = k
        distance = np.minimum(distance, to_new)
        worst = int((weights * distance).argmax())
    return colors[chosen], nearest
