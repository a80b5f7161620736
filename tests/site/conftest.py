"""The built site, served locally, and one browser for all tests of a worker."""

import functools
import http.server
import os
import shutil
import threading

import pytest

from tests.book import checks

SITE = checks.ROOT / "_build" / "html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # in containers /dev/shm is small
]
# No other machine is found, so that nothing can come from there.
FLAGS.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
# MathJax's promise waits for what it reads aloud as well: that is given five seconds.
FORMULAS_SET = """async () => {
  const wait = time => new Promise(done => setTimeout(done, time))
  const unset = () => [...document.querySelectorAll('.math')]
    .some(e => !e.querySelector('mjx-container'))
  while (unset()) await wait(20)
  await Promise.race([window.MathJax?.startup?.promise, wait(5000)])
}"""
# Resize events come before the next frame; a browser may draw none, so not forever.
FRAME_DRAWN = """() => new Promise(done => {
  setTimeout(done, 2000)
  requestAnimationFrame(() => setTimeout(done))
})"""
PATIENCE = 120_000  # milliseconds: busy machines take ten times longer than idle ones
SKIP_BROWSER = CHROMIUM is None and not IN_CI  # in CI its lack is a failure
in_browser = pytest.mark.skipif(
    SKIP_BROWSER, reason="no Chromium on this machine: install it to test the site"
)


def settle(page, promise):
    """Wait for a promise of the page, but not forever, as evaluate does."""
    page.evaluate(
        f"() => {{ window.settled = false; ({promise})()"
        ".then(() => { window.settled = true }) }"
    )
    page.wait_for_function("window.settled", polling=20)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def browser():
    """One browser for all tests of a worker."""
    if CHROMIUM is None:
        pytest.fail("there is no Chromium, and in CI the site is not left untested")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def visit(browser, address):
    """Open a page; returns (page, complaints). Close the page's context after use."""

    def open_page(name, width=1280, theme="light", **options):
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, **options)
        context.set_default_timeout(PATIENCE)
        script = f"localStorage.mode = '{theme}'; localStorage.theme = '{theme}'"
        context.add_init_script(script)
        return load(context, name, options.get("java_script_enabled", True))

    def load(context, name, scripts=True):
        """Open a page in a context that has what it loaded for other pages."""
        page, complaints = context.new_page(), []

        def request(asked):
            if not asked.url.startswith((address, "data:", "blob:")):
                complaints.append(f"asks a third party: {asked.url}")

        page.on("request", request)
        page.on(
            "console",
            lambda m: complaints.append(m.text) if m.type == "error" else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{address}/{name}.html")
        if scripts:
            settle(page, FORMULAS_SET)
        return page, complaints

    open_page.load = load
    return open_page
