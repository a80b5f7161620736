"""The built site, served locally, and one browser for all tests of a worker."""

import functools
import http.server
import shutil
import threading

import pytest

from tests.book import checks

SITE = checks.ROOT / "_build" / "html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)


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
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS.split()
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def visit(browser, address):
    """Open a page; returns (page, complaints). Close the page's context after use."""

    def open_page(name, width=1280, theme="light", **options):
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, **options)
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
        if options.get("java_script_enabled", True):
            page.wait_for_function(
                "!document.querySelector('.math') || (window.MathJax &&"
                " MathJax.startup && document.querySelector('mjx-container'))"
            )
            page.evaluate("window.MathJax?.startup?.promise")
        return page, complaints

    return open_page
