"""The built book in a real browser, without network, as readers meet it.

Needs the book (make book) and Chromium; skipped, with the reason, without them.
"""

import base64
import functools
import json
import re
import statistics
from collections import Counter
from html import unescape
from urllib.parse import unquote

import pytest
import yaml

from tests.book import checks
from tests.site.conftest import FRAME_DRAWN, PATIENCE, SITE, in_browser, settle

MAX_CODE_SHARE = 0.35  # of the height of a page, as it opens
PAGES = [name for name, _ in checks.load(checks.ROOT)]
BOOK = checks.ROOT / "book"
OTHERS = [
    "intro",
    *sorted(str(p.relative_to(BOOK).with_suffix("")) for p in BOOK.glob("*/*.md")),
]
OTHERS = [name for name in OTHERS if name not in PAGES]

pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="no built book"),
]


@functools.cache
def html(name):
    return (SITE / f"{name}.html").read_text(encoding="utf-8")


@functools.cache
def topics():
    """The lecture's topics, and where the book treats them."""
    file = checks.ROOT / "book/lecture-map.yml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))


LUMINANCE = """selector => {
  const kept = f => {  // computed once for each argument
    const known = new Map()
    return x => known.has(x) ? known.get(x) : known.set(x, f(x)).get(x)
  }
  const numbers = kept(text => text.match(/[\\d.]+/g).map(Number))
  const colour = (e, what) => numbers(getComputedStyle(e)[what])
  const light = c => [0.2126, 0.7152, 0.0722].map((w, i) => {
    const v = c[i] / 255
    return w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  }).reduce((a, b) => a + b)
  const ground = kept(e => {  // colours of all ancestors, laid over white
    if (!e) return [255, 255, 255]
    const [r, g, b, alpha = 1] = colour(e, 'backgroundColor')
    const under = ground(e.parentElement)
    return [r, g, b].map((c, i) => alpha * c + (1 - alpha) * under[i])
  })
  const shown = [...document.querySelectorAll(selector)].filter(e => e.offsetParent)
  return shown.map(e => {
    const [a, b] = [light(colour(e, 'color')), light(ground(e))]
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
  })
}"""


CODE_SHARE = """() => {
  const height = e => e.getBoundingClientRect().height
  const seen = [...document.querySelectorAll('.bd-article .cell_input')]
    .filter(e => e.checkVisibility({contentVisibilityAuto: true}))
    .filter(e => !e.closest('details:not([open]), .toggle-hidden'))
  const all = height(document.querySelector('.bd-article'))
  return seen.map(height).reduce((a, b) => a + b, 0) / all
}"""
BROKEN = "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
NO_ALT = "[...document.images].filter(i => !i.hasAttribute('alt')).length"
CUT_CODE = """[...document.querySelectorAll('.bd-article .cell pre')]
  .filter(e => e.scrollWidth > e.clientWidth + 1)
  .map(e => e.textContent.slice(0, 60))"""
# What reaches over the right edge of the screen, or is cut off by a box that a
# reader cannot scroll.
OUT_OF_REACH = """() => {
  const scrolls = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)
  const article = document.querySelector('.bd-article')
  const lost = e => {
    const edge = e.getBoundingClientRect().right
    for (let a = e.parentElement; a && a !== article.parentElement;
         a = a.parentElement) {
      if (scrolls(a)) return false
      const clips = getComputedStyle(a).overflowX !== 'visible'
      if (clips && edge > a.getBoundingClientRect().right + 1) return true
    }
    return edge > innerWidth + 1
  }
  const all = article.querySelectorAll('p, img, pre, table, input, mjx-container')
  return [...all].filter(e => e.checkVisibility() && lost(e))
    .map(e => e.tagName + ': ' + (e.closest('[id]')?.id || '') + ' '
      + e.textContent.slice(0, 60))
}"""
CUT_ON_PAPER = """[...document.querySelectorAll(
    '.bd-article :is(pre, table, img, p, mjx-container)')]
  .filter(e => e.checkVisibility())
  .filter(e => e.scrollWidth > e.clientWidth + 1
    && getComputedStyle(e).overflowX !== 'visible'
    || e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.tagName + ': ' + e.textContent.slice(0, 60))"""
TEXT = ".bd-article > section p, figcaption span, .cell_input span, a.reference"
TABLE = ".bd-article table :is(caption, td, th), .fold-all, summary span, .topic-badge"
PAPER = 718  # CSS pixels: A4 less Chromium's margins

SEEN = {}


CLICK = "all => all.forEach(e => e.click())"


@pytest.fixture(scope="module")
def shelf(browser):
    """One context for all pages that are turned over: they share what they load."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    context.add_init_script("localStorage.mode = localStorage.theme = 'light'")
    context.add_init_script("localStorage.removeItem('mfdnn-code')")  # folded
    yield context
    context.close()


@pytest.fixture
def seen(visit, shelf, name):
    """What a reader meets on one page: loaded once, then turned over."""
    if name in SEEN:
        return SEEN[name]
    page, complaints = visit.load(shelf, name)
    found = {"complaints": complaints}
    found["errors in formulas"] = page.locator("mjx-merror").count()
    found["formulas"] = page.locator(".bd-article .math").count()
    found["formulas set"] = page.locator(".bd-article mjx-container").count()
    found["broken images"] = page.evaluate(BROKEN)
    found["images without alt"] = page.evaluate(NO_ALT)
    found["share of code"] = page.evaluate(CODE_SHARE)
    page.locator("button.toggle-button").evaluate_all(CLICK)  # the solutions
    page.locator(".fold-all").evaluate_all(CLICK)
    found["folded"] = page.locator("details.fold:not([open])").count()
    found["cut code"] = page.evaluate(CUT_CODE)
    for theme in ("light", "dark"):
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        page.wait_for_timeout(50)
        found[f"contrast, {theme}"] = page.evaluate(LUMINANCE, TEXT)
        found[f"contrast of tables, {theme}"] = page.evaluate(LUMINANCE, TABLE)
    page.set_viewport_size({"width": 360, "height": 800})
    settle(page, FRAME_DRAWN)  # book.js measures the formulas
    found["phone: width"] = page.evaluate("document.documentElement.scrollWidth")
    found["phone: out of reach"] = page.evaluate(OUT_OF_REACH)
    page.set_viewport_size({"width": PAPER, "height": 1000})
    page.emulate_media(media="print")
    settle(page, FRAME_DRAWN)  # book.js measures the formulas
    found["paper: cut"] = page.evaluate(CUT_ON_PAPER)
    page.close()
    SEEN[name] = found
    return found


def each(names):
    """Parametrize over pages; one worker sees all of a page."""
    marked = [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in names]
    return pytest.mark.parametrize("name", marked)


@in_browser
@each(PAGES + OTHERS)
def test_page_is_self_contained_and_mathematics_renders(seen):
    assert seen["errors in formulas"] == 0
    assert seen["formulas set"] >= seen["formulas"]
    assert seen["broken images"] == 0
    assert seen["images without alt"] == 0
    assert seen["complaints"] == []


@in_browser
@each(PAGES + OTHERS)
def test_phone_reaches_everything(seen):
    assert seen["phone: width"] <= 360
    assert seen["phone: out of reach"] == []


@in_browser
@each(PAGES + OTHERS)
def test_paper_cuts_nothing_off(seen):
    assert seen["paper: cut"] == []


@in_browser
@each(PAGES)
def test_code_and_output_fit_into_the_page(seen):
    assert seen["folded"] == 0
    assert seen["cut code"] == []


@in_browser
@each(PAGES)
def test_code_does_not_crowd_out_the_text(seen):
    assert seen["share of code"] <= MAX_CODE_SHARE


@in_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@each(PAGES)
def test_text_is_legible(seen, theme):
    assert len(seen[f"contrast, {theme}"]) > 50
    assert min(seen[f"contrast, {theme}"]) >= 4.5
    assert min(seen[f"contrast of tables, {theme}"], default=9) >= 4.5


# Folding, on one page.

FOLDED = "ch1-optimization/gradient-descent"
CLOSED = "details.fold:not([open])"


@in_browser
def test_code_is_folded_until_asked_for_and_the_choice_is_remembered(visit):
    page, _ = visit(FOLDED)
    count = page.locator("details.fold").count()
    assert page.locator(CLOSED).count() == count >= 8
    assert not page.locator("details.fold .cell_input").first.is_visible()
    assert page.locator("details.fold-check ~ .cell_output").first.is_visible()
    page.click(".fold-all")
    assert page.locator(CLOSED).count() == 0
    page.reload()
    assert page.locator(CLOSED).count() == 0
    page.click(".fold-all")
    page.reload()
    assert page.locator(CLOSED).count() == count
    page.context.close()


@in_browser
def test_keyboard_opens_a_fold(visit):
    page, _ = visit(FOLDED)
    page.locator("details.fold > summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details.fold").first.get_attribute("open") is not None
    page.context.close()


@in_browser
def test_folds_work_without_javascript(visit):
    page, _ = visit(FOLDED, java_script_enabled=False)
    assert page.locator(".fold-all").count() == 0
    page.locator("details.fold-check > summary .fold-action").first.click()
    assert page.locator("details.fold-check .cell_input").first.is_visible()
    page.context.close()


@in_browser
def test_paper_shows_folded_code(visit):
    page, _ = visit(FOLDED)
    page.emulate_media(media="print")
    boxes = page.locator("details.fold .cell_input")
    heights = boxes.evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().height)"
    )
    assert min(heights) > 20
    assert not page.locator(".fold-all").is_visible()
    page.context.close()


@in_browser
def test_link_into_folded_code_opens_it(visit):
    page, _ = visit(FOLDED)
    mark = "document.querySelector('details.fold pre').id = 'mark'"
    page.evaluate(mark)
    page.evaluate("location.hash = '#mark'")
    page.wait_for_timeout(200)
    assert page.locator("#mark").is_visible()
    page.context.close()


@each(PAGES)
def test_what_folds_is_what_the_notebook_says(name):
    book = json.loads((checks.ROOT / f"book/{name}.ipynb").read_text(encoding="utf-8"))
    kinds = checks.reading.fold_kinds(book)
    found = re.findall(r'<details class="fold fold-(\w+)"', html(name))
    assert found == [kind for kind in kinds if kind]
    assert "# @title" not in html(name)


# The lecture's path.


@each(PAGES)
def test_headings_show_the_lectures_topics_and_what_is_optional(name):
    sections = {t["section"] for t in topics() if t["page"] == name}
    badges = re.findall(r'class="topic-badge"><a href="([^"]+)"', html(name))
    assert len(badges) == len(sections)
    for link in badges:
        assert f"id='{link.partition('#')[2]}'" in html("backmatter/lecture-map")
    source = (checks.ROOT / f"book/{name}.md").read_text(encoding="utf-8")
    marked = re.findall(r"^#+ .*\(optional\)$", source, re.M)
    headings = re.findall(r"<h\d>.*?</h\d>", html(name), re.S)
    shown = [text for text in headings if "optional-badge" in text]
    assert len(shown) == len(marked)
    entry = r'toc-entry"><a [^>]*href="([^"]+)">(?:(?!</a>).)*optional-badge'
    assert len(set(re.findall(entry, html(name), re.S))) == len(marked)
    assert "(optional)" not in re.sub(r"<[^>]+>", "", html(name))


# Weight.


def weight(name):
    """Bytes of a page's own HTML and images."""
    text = html(name)
    images = set(re.findall(r'src="(?:\.\./)?_images/([^"]+)"', text))
    files = [SITE / "_images" / image for image in images]
    return len(text.encode()) + sum(file.stat().st_size for file in files)


def test_pages_are_light():
    weights = {name: weight(name) for name in PAGES}
    assert max(weights.values()) <= 2e6, max(weights, key=weights.get)
    assert statistics.median(weights.values()) <= 1e6


@in_browser
def test_dark_figures_are_dark(visit):
    page, _ = visit("ch1-optimization/gradient-descent", theme="dark")
    figure = page.locator(".cell_output img").first
    assert "invert" in figure.evaluate("e => getComputedStyle(e).filter")
    page.context.close()


def test_an_appendix_counts_by_its_letter():
    text = html("appendix-a-monte-carlo/importance-sampling")
    assert '<span class="section-number">A.2. </span>' in text
    assert {"Theorem A", "Proposition A", "Fig. A"} <= set(
        re.findall(r"(?:Theorem|Proposition|Fig\.) [A\d]", text)
    )
    assert "A.2.1. " in text


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
    page.context.close()


@in_browser
def test_request_to_a_third_party_is_noticed_and_goes_nowhere(visit):
    page, complaints = visit("backmatter/references")
    assert complaints == []
    asked = "fetch('https://example.org/x').then(() => 'came', () => 'nothing')"
    assert page.evaluate(asked) == "nothing"
    assert complaints[0] == "asks a third party: https://example.org/x"
    page.context.close()


@in_browser
def test_keyboard_reaches_the_content(visit):
    page, _ = visit("ch1-optimization/gradient-descent")
    page.keyboard.press("Tab")
    assert "skip" in page.evaluate("document.activeElement.textContent").lower()
    page.context.close()


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


def test_the_front_page_shows_a_figure_that_a_cell_has_drawn():
    figure = html("intro").split("<figure", 1)[1].split("</figure>", 1)[0]
    source, alt = (re.search(rf' {a}="([^"]*)"', figure)[1] for a in ("src", "alt"))
    path = BOOK / "ch5-unsupervised/conclusion.ipynb"
    (cell,) = (
        cell
        for cell in json.loads(path.read_text("utf-8"))["cells"]
        if "fig-four-models" in str(cell["metadata"])
    )
    (output,) = cell["outputs"]
    drawn = base64.b64decode("".join(output["data"]["image/png"]))
    assert (SITE / source).read_bytes() == drawn
    assert unescape(alt) == cell["metadata"]["mystnb"]["image"]["alt"]


def test_every_mapped_section_exists():
    for topic in topics():
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
    repeated = {i for i, n in Counter(ids).items() if n > 1}
    assert {i for i in repeated if not i.startswith("pst-")} == set()
