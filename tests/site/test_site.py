"""The built book in a real browser, without network, as readers meet it.

Needs the book (make book) and Chromium; skipped, with the reason, without them.
"""

import functools
import http.server
import json
import re
import shutil
import threading
from urllib.parse import unquote

import pytest
import yaml

from tests.book import checks

SITE = checks.ROOT / "_build" / "html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
PAGES = [name for name, _ in checks.load(checks.ROOT)]
OTHERS = [
    "intro",
    "ch1-optimization/index",
    "ch2-networks/index",
    "ch3-convolution/index",
    "backmatter/notation",
    "backmatter/theorem-index",
    "backmatter/lecture-map",
    "backmatter/errata",
    "backmatter/verification",
    "backmatter/records",
    "backmatter/api",
    "backmatter/benchmarks",
    "backmatter/references",
]

pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="no built book"),
]
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def html(name):
    return (SITE / f"{name}.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def address():
    """The site served on this machine only."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=SITE)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS.split()
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Open a page; returns (page, complaints)."""
    contexts = []

    def open_page(name, width=1280, theme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page, complaints = context.new_page(), []
        script = f"localStorage.mode = '{theme}'; localStorage.theme = '{theme}'"
        page.add_init_script(script)

        def request(route):
            url = route.request.url
            if url.startswith(address):
                return route.continue_()
            complaints.append(f"asks a third party: {url}")
            return route.abort()

        page.route("**/*", request)
        page.on(
            "console",
            lambda m: complaints.append(m.text) if m.type == "error" else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{address}/{name}.html")
        page.wait_for_function(
            "!document.querySelector('.math') || (window.MathJax && MathJax.startup"
            " && document.querySelector('mjx-container'))"
        )
        page.evaluate("window.MathJax?.startup?.promise")
        return page, complaints

    yield open_page
    for context in contexts:
        context.close()


@in_browser
@pytest.mark.parametrize("name", PAGES + OTHERS)
def test_page_is_self_contained_and_mathematics_renders(visit, name):
    page, complaints = visit(name)
    assert page.locator("mjx-merror").count() == 0
    formulas = page.locator(".bd-article .math").count()
    assert page.locator(".bd-article mjx-container").count() >= formulas
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
    assert page.evaluate(broken) == 0
    missing_alt = "[...document.images].filter(i => !i.hasAttribute('alt')).length"
    assert page.evaluate(missing_alt) == 0
    assert complaints == []


@in_browser
@pytest.mark.parametrize("name", PAGES + OTHERS)
def test_phone_has_no_sideways_scrolling(visit, name):
    page, _ = visit(name, width=360)
    page.wait_for_timeout(500)  # book.js runs after the formulas are set
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    clipped = page.evaluate(
        """[...document.querySelectorAll(
          '.bd-article p, .bd-article img, .bd-article mjx-container')]
        .filter(e => e.getBoundingClientRect().right > 361 && !e.closest(
          'table, .cell_input, .cell_output, div.math, .wide-formula'))
        .map(e => e.textContent.slice(0, 60))"""
    )
    assert clipped == []


@in_browser
@pytest.mark.parametrize("name", PAGES)
def test_code_and_output_fit_into_the_page(visit, name):
    page, _ = visit(name)
    for button in page.locator("button.toggle-button").all():
        button.click()  # the solutions
    boxes = page.locator(".bd-article .cell pre")
    assert boxes.count() > 10
    wide = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1)"
    too_wide = f"all => ({wide})(all).map(e => e.textContent.slice(0, 60))"
    assert boxes.evaluate_all(too_wide) == []


LUMINANCE = """selector => {
  const colour = (e, what) => getComputedStyle(e)[what].match(/[\\d.]+/g).map(Number)
  const light = c => [0.2126, 0.7152, 0.0722].map((w, i) => {
    const v = c[i] / 255
    return w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  }).reduce((a, b) => a + b)
  const ground = e => {  // colours of all ancestors, laid over white
    const layers = []
    for (let a = e; a; a = a.parentElement) layers.unshift(colour(a, 'backgroundColor'))
    return layers.reduce((under, [r, g, b, alpha = 1]) =>
      [r, g, b].map((c, i) => alpha * c + (1 - alpha) * under[i]), [255, 255, 255])
  }
  const shown = [...document.querySelectorAll(selector)].filter(e => e.offsetParent)
  return shown.map(e => {
    const [a, b] = [light(colour(e, 'color')), light(ground(e))]
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
  })
}"""


@in_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_text_is_legible(visit, name, theme):
    page, _ = visit(name, theme=theme)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    selector = ".bd-article > section p, figcaption span, .cell_input span, a.reference"
    ratios = page.evaluate(LUMINANCE, selector)
    assert len(ratios) > 50
    assert min(ratios) >= 4.5


@in_browser
def test_dark_figures_are_dark(visit):
    page, _ = visit("ch1-optimization/gradient-descent", theme="dark")
    figure = page.locator(".cell_output img").first
    assert "invert" in figure.evaluate("e => getComputedStyle(e).filter")


@in_browser
@pytest.mark.parametrize(
    "query", ["Summability", "Lipschitz gradient lemma", "Steepest descent"]
)
def test_search_finds_a_statement(visit, query):
    page, _ = visit("search")
    page.goto(page.url + f"?q={query.replace(' ', '+')}")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").evaluate_all("a => a.map(x => x.href)")
    assert any("gradient-descent" in link for link in found)


@in_browser
def test_keyboard_reaches_the_content(visit):
    page, _ = visit("ch1-optimization/gradient-descent")
    page.keyboard.press("Tab")
    assert "skip" in page.evaluate("document.activeElement.textContent").lower()


@pytest.mark.parametrize("name", PAGES)
def test_launch_buttons_open_this_notebook(name):
    url = checks.page_tool.repository_url(checks.ROOT)
    slug = url.removeprefix("https://github.com/")
    links = [unquote(s) for s in re.findall(r'href="([^"]+)"', html(name))]
    colab = "https://colab.research.google.com/github/"
    assert f"{colab}{slug}/blob/main/book/{name}.ipynb" in links
    binder = (
        f"https://mybinder.org/v2/gh/{slug}/main?urlpath=lab/tree/book/{name}.ipynb"
    )
    assert binder in links
    assert (checks.ROOT / f"book/{name}.ipynb").exists()


def test_every_mapped_section_exists():
    file = checks.ROOT / "book/lecture-map.yml"
    for topic in yaml.safe_load(file.read_text(encoding="utf-8")):
        if topic["page"] != "unwritten":
            assert f'id="{topic["section"]}"' in html(topic["page"]), topic["id"]


@pytest.mark.parametrize("name", PAGES)
def test_statements_and_checks_are_linked(name):
    text = html(name)
    book = json.loads((checks.ROOT / f"book/{name}.ipynb").read_text(encoding="utf-8"))
    marked = [c for c in checks.code_cells(book) if c["metadata"].get("checks")]
    assert text.count('class="checks-note"') == len(marked)
    for cell in marked:
        for label in cell["metadata"]["checks"]:
            assert f'#{label}"' in text


@pytest.mark.parametrize("name", PAGES + OTHERS)
def test_ids_are_unique(name):
    ids = re.findall(r'\sid="([^"]+)"', html(name))
    repeated = {i for i in ids if ids.count(i) > 1 and not i.startswith("pst-")}
    assert repeated == set()
