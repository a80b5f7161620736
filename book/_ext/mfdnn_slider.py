"""Sphinx extension: figures with a slider (``mfdnn.plot.slider``) on the site.

The output of such a cell holds the first frame as a picture and the slider as
HTML. In a browser the slider stands in the figure, above its caption, and every
frame has the page's alternative text with the frame's value; everywhere else the
figure shows the first frame.
"""

import zlib
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

BROWSER = {"html", "dirhtml", "singlehtml"}  # the EPUB builder's format is html too


class ChooseSliderOutput(SphinxPostTransform):
    """Keep one form of each slider, before myst-nb chooses one by its own order."""

    default_priority = 3

    def run(self, **kwargs):
        """Drop the picture in a browser, the HTML elsewhere."""
        for bundle in list(self.document.findall(nodes.container)):
            if bundle.get("nb_element") != "mime_bundle":
                continue
            forms = {form["mime_type"]: form for form in bundle}
            html = forms.get("text/html")
            raw = html and html.next_node(nodes.raw)
            if raw is None or '<div class="mfdnn-slider"' not in raw.astext():
                continue
            if self.app.builder.name in BROWSER:
                image = forms["image/png"].next_node(nodes.image)
                html.replace(raw, described(raw, image))
                bundle.children = [html]
            else:
                bundle.remove(html)


def described(raw, image):
    """The slider with what the page says of its picture.

    The alternative text goes before the value of each frame; of the classes "photo"
    counts, with which dark mode leaves the frames as they are.
    """
    text, alt = raw.astext(), image.get("alt", "")
    if alt:
        alt = escape(alt if alt.endswith((".", "?", "!")) else f"{alt}.")
        for attribute in ('data-alt="', '<img alt="'):
            text = text.replace(attribute, f"{attribute}{alt} ", 1)
    if "photo" in image["classes"]:
        text = text.replace("<img ", '<img class="photo" ', 1)
    return nodes.raw("", text, format="html", classes=raw["classes"])


def setup(app):
    """Register the transform with Sphinx."""
    app.add_post_transform(ChooseSliderOutput)
    return {
        "version": "1",
        "env_version": zlib.crc32(Path(__file__).read_bytes()),  # rebuild on change
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
