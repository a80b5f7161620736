"""Sliders in a real browser: a small page of its own, and those of the built book."""

import functools
import sys
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from docutils import nodes
from docutils.utils import new_document
from mfdnn import plot
from mfdnn.plot.sliders import Slider, frames

from tests.book import checks
from tests.site.conftest import SITE, in_browser

sys.path.insert(0, str(checks.ROOT / "book/_ext"))

import mfdnn_slider

VALUES = ["one", "2", "three, with more words", "4", "5"]
SLIDERS = ".mfdnn-slider"
BUILT = {
    str(path.relative_to(SITE).with_suffix("")): path
    for path in sorted(SITE.rglob("*.html"))
    if "mfdnn-slider" in path.read_text(encoding="utf-8")
}


@functools.cache
def photographs():
    """The names of the figures that their pages call photographs."""
    found = set()
    for _, notebook in checks.load(checks.ROOT):
        for cell in notebook["cells"]:
            said = cell["metadata"].get("mystnb", {})
            if said.get("image", {}).get("classes") == "photo":
                found.add(said["figure"]["name"])
    return found


@pytest.fixture(scope="module")
def small():
    """A page as the site makes it, with two sliders and the site's styles."""

    def draw(k):
        plt.subplots(figsize=(6.4, 2))[1].plot([0, len(k)])

    with mpl.rc_context():
        plot.use_style()
        made = Slider(draw, VALUES, "what is moved, in words", start=1)
        other = Slider(draw, VALUES[:2], "another")
    styles = [
        (checks.ROOT / "book/_static" / name).read_text(encoding="utf-8")
        for name in ("book.css", "slider.css")
    ]
    output = "<figure>{}<figcaption>Caption</figcaption></figure>"
    html = f"""<!doctype html><html data-theme="THEME"><meta charset="utf-8">
        <meta name="viewport" content="width=device-width">
        <style>img {{ display: inline-block }} {" ".join(styles)}
        :root {{ --pst-color-text-base: #222; --pst-color-accent: #b0b }}
        [data-theme=dark] {{ --pst-color-text-base: #ddd; background: #121212 }}
        </style><body><main class="bd-content"><div class="cell_output">
        {output.format(made.html)}{output.format(other.html)}</div></main>"""
    return html, frames(made.html)


@pytest.fixture
def show(browser, small):
    """Open the small page with some options of the browser's context."""
    contexts = []

    def open_page(width=1000, theme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_content(small[0].replace("THEME", theme))
        return page

    yield open_page
    for context in contexts:
        context.close()


def state(slider):
    """What a reader is shown: (frame, alternative text, value, spoken value)."""
    image, control = slider.locator("img"), slider.locator("input")
    return (
        image.get_attribute("src").removeprefix("data:image/png;base64,"),
        image.get_attribute("alt"),
        slider.locator("output").inner_text(),
        control.get_attribute("aria-valuetext"),
    )


@in_browser
def test_keys_choose_the_frame(show, small):
    page = show()
    slider = page.locator(SLIDERS).first
    page.keyboard.press("Tab")
    assert slider.locator("input").evaluate("e => e === document.activeElement")
    at = 1
    for key, then in [
        ("ArrowRight", 2), ("ArrowUp", 3), ("End", 4), ("ArrowRight", 4),
        ("ArrowLeft", 3), ("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1),
    ]:  # fmt: skip
        expected = state(slider)
        assert expected[0] == small[1][at]
        page.keyboard.press(key)
        at = then
        word = VALUES[at]
        alt = f"what is moved, in words: {word}"
        assert state(slider) == (small[1][at], alt, word, word)
        assert slider.locator("img").evaluate("e => e.decode().then(() => true)")


@in_browser
def test_a_slider_moves_only_itself(show):
    page = show()
    other = page.locator(SLIDERS).nth(1)
    before = state(other)
    page.locator(SLIDERS).first.locator("input").press("End")
    assert state(other) == before
    other.locator("input").press("End")
    assert state(other)[2] == "2" and state(other) != before


@in_browser
def test_name_and_role_for_a_screen_reader(show):
    control = show().get_by_role("slider", name="what is moved, in words:")
    assert control.count() == 1 and control.is_visible()


@in_browser
def test_pointer_chooses_the_frame(show, small):
    page = show()
    slider = page.locator(SLIDERS).first
    box = slider.locator("input").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    assert state(slider)[0] == small[1][-1]


@in_browser
def test_place_does_not_change_while_moving(show):
    page = show(width=400)
    slider = page.locator(SLIDERS).first
    places = set()
    for key in ["Home"] + ["ArrowRight"] * 4:
        slider.locator("input").press(key)
        places.add(str(slider.locator("input").bounding_box()))
    assert len(places) == 1


@in_browser
@pytest.mark.parametrize("theme, sign", [("light", "none"), ("dark", "invert")])
def test_frames_follow_the_theme(show, theme, sign):
    slider = show(theme=theme).locator(SLIDERS).first
    slider.locator("input").press("End")
    style = slider.locator("img").evaluate("e => getComputedStyle(e).filter")
    assert style.startswith(sign)
    scheme = slider.locator("input").evaluate("e => getComputedStyle(e).colorScheme")
    assert scheme == theme


@in_browser
def test_phone(show):
    page = show(width=360, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box = page.locator(f"{SLIDERS} input").first.bounding_box()
    assert box["height"] >= 40 and box["width"] >= 300
    page.touchscreen.tap(box["x"] + box["width"] - 3, box["y"] + 20)
    assert page.locator(f"{SLIDERS} output").first.inner_text() == VALUES[-1]


@in_browser
def test_without_scripts_the_first_frame_stands_alone(show, small):
    page = show(java_script_enabled=False)
    slider = page.locator(SLIDERS).first
    assert slider.locator("img").count() == 1
    assert slider.locator("img").is_visible()
    assert slider.locator("img").get_attribute("src").endswith(small[1][1])
    assert not slider.locator("input").is_visible()
    assert slider.locator("output").inner_text() == VALUES[1]


@in_browser
def test_paper_shows_the_frame_and_its_value_without_control(show):
    page = show()
    slider = page.locator(SLIDERS).first
    assert slider.locator("input").is_visible()
    page.emulate_media(media="print")
    assert not slider.locator("input").is_visible()
    assert slider.locator("img").is_visible()
    assert slider.locator("output").is_visible()


FOCUS = "e => [getComputedStyle(e).outlineStyle, getComputedStyle(e).outlineWidth]"


@in_browser
def test_focus_is_seen(show):
    page = show()
    page.keyboard.press("Tab")
    control = page.locator(f"{SLIDERS} input").first
    assert control.evaluate(FOCUS) == ["solid", "2px"]


def resolve(html, builder, alt="What is seen"):
    """The figure of a cell's output, as a builder gets it."""
    image = nodes.image(uri="frame.png", alt=alt)
    raw = nodes.raw("", html, format="html", classes=["output"])
    forms = [
        nodes.container("", image, mime_type="image/png"),
        nodes.container("", raw, mime_type="text/html"),
    ]
    bundle = nodes.container("", *forms, nb_element="mime_bundle")
    document = new_document("page")
    document += nodes.figure("", bundle, nodes.caption("", "Caption"))
    app = SimpleNamespace(builder=SimpleNamespace(name=builder))
    document.settings.env = SimpleNamespace(app=app)
    mfdnn_slider.ChooseSliderOutput(document).run()
    return document


def kinds(document):
    """Whether the figure has a picture, and whether it has HTML."""
    return tuple(
        document.next_node(kind) is not None for kind in (nodes.image, nodes.raw)
    )


@pytest.mark.parametrize("builder", ["epub", "latex", "text"])
def test_books_show_the_first_frame(builder):
    html = '<div class="mfdnn-slider" data-alt="k: "><img alt="k: 1"></div>'
    assert kinds(resolve(html, builder)) == (True, False)


def test_a_browser_gets_the_slider_with_the_words_of_the_page():
    html = '<div class="mfdnn-slider" data-alt="k: "><img alt="k: 1"></div>'
    for alt, words in [('A "b" & c', "A &quot;b&quot; &amp; c. "), ("So?", "So? ")]:
        document = resolve(html, "html", alt)
        assert kinds(document) == (False, True)
        raw = document.next_node(nodes.raw)
        assert raw.astext() == html.replace('alt="', f'alt="{words}')
        assert raw["classes"] == ["output"] and raw["format"] == "html"


@pytest.mark.parametrize("builder", ["html", "epub"])
def test_other_outputs_are_left_to_myst_nb(builder):
    html = '<div class="table"><img alt="k: 1"></div>'
    assert kinds(resolve(html, builder)) == (True, True)


@pytest.mark.site
@pytest.mark.skipif(not BUILT, reason="no built page with a slider")
@pytest.mark.parametrize("name", BUILT or ["none"])
@in_browser
def test_sliders_of_the_book(visit, name):
    page, complaints = visit(name, width=360, theme="dark")
    stored = frames(BUILT[name].read_text(encoding="utf-8"))
    for slider in page.locator(SLIDERS).all():
        figure = slider.locator("xpath=ancestor::figure")
        assert figure.locator("figcaption .caption-number").count() == 1
        assert figure.locator("img").count() == 1
        image, control = slider.locator("img"), slider.locator("input")
        inverted = "invert" in image.evaluate("e => getComputedStyle(e).filter")
        assert inverted == (figure.get_attribute("id") not in photographs())
        assert control.bounding_box()["height"] >= 40
        control.press("Home")
        seen = [state(slider)]
        for _ in range(int(control.get_attribute("max"))):
            control.press("ArrowRight")
            seen.append(state(slider))
        own, stored = stored[: len(seen)], stored[len(seen) :]
        assert [shown for shown, *_ in seen] == own
        for _, alt, value, spoken in seen:
            assert value == spoken and alt.endswith(f": {value}")
            assert len(alt) > len(value) + 20  # the page's own words come first
        assert slider.locator(SLIDERS).count() == 0
    assert stored == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.emulate_media(media="print")
    controls = page.locator(f"{SLIDERS} input")
    assert not any(control.is_visible() for control in controls.all())
    assert complaints == []
    page.context.close()
