"""nbval with numeric tolerance, figures, and limits on time and memory.

nbval compares printed outputs to the letter and skips pictures. Here two
numbers are equal within the cell's ``rtol`` and ``atol`` (metadata; by default
1e-4, and 1e-6 but at most a quarter of the stored number, so that a small one
cannot double and zero is zero), whole numbers only if they are the same (unless
the cell states an ``rtol``). Two figures are equal if their sizes agree and the
root mean square of their pixel differences, on a scale from 0 to 1, is at most
0.01 over the picture and, leaving out edges that moved by a pixel, 0.05 over any
8 by 8 pixels; a cell's ``rms`` replaces both limits by one over the picture. The
frames of a slider are compared one by one. Everything else is compared by nbval itself.

With ``--twice`` each page has one more test: each cell was run again in a copy of
the kernel, where that can matter, and the path without the optional sections
(tools/twice.py). The page itself is executed once.
"""

import base64
import importlib.metadata
import io
import math
import queue
import re
import sys
import time
from ast import literal_eval
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from jupyter_client.provisioning import local_provisioner
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter
from xdist.scheduler import LoadFileScheduling

TOOLS = Path(__file__).resolve().parents[1] / "tools"
sys.path.insert(0, str(TOOLS))

import kernel  # noqa: E402
import reading  # noqa: E402
import warm  # noqa: E402

RTOL, ATOL, RMS = 1e-4, 1e-6, 0.01
BLOCK, LOCAL = 8, 0.05  # pixels, and the limit on what differs in a block
PAGE_SECONDS, PAGE_GIB = 60, 3
IMPORT_SECONDS = 15  # of torch and others, which warm kernels have behind them
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?(?![\w.])")
WHOLE = re.compile(r"[-+]?\d+")

nbval_compare = IPyNbCell.compare_outputs


def same_number(new, old, rtol, atol):
    """Two printed numbers, equal within the tolerance; None: the default."""
    if rtol is None and WHOLE.fullmatch(new) and WHOLE.fullmatch(old):
        return int(new) == int(old)
    if atol is None:
        atol = min(ATOL, abs(float(old)) / 4)
    rtol = RTOL if rtol is None else rtol
    return math.isclose(float(new), float(old), rel_tol=rtol, abs_tol=atol)


def adopt(new, old, rtol=None, atol=None):
    """``old`` where ``new`` differs from it only within tolerance, else ``new``."""
    if NUMBER.split(new) != NUMBER.split(old):
        return new
    pairs = zip(NUMBER.findall(new), NUMBER.findall(old), strict=True)
    return old if all(same_number(a, b, rtol, atol) for a, b in pairs) else new


def pixels(png):
    """A PNG in base64 as an array of RGB values from 0 to 1."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    return np.asarray(image, dtype=float) / 255


def root_mean_square(values, axis=None):
    """The root of the mean square, over all axes or some."""
    return np.sqrt(np.mean(values**2, axis=axis))


def unexplained(a, b):
    """How far each pixel of ``a`` lies outside the values of ``b`` around it.

    Around it means the pixel and its neighbours: edges that a last bit moves to
    the next pixel do not count.
    """
    around = (3, 3, 1)
    return np.maximum(a - maximum_filter(b, around), minimum_filter(b, around) - a)


def figure_difference(new, old):
    """Root mean square difference of two pictures, over all and over a small block.

    new, old: PNGs in base64. The second number is the largest one of the blocks of
    8 by 8 pixels, of what neighbouring pixels do not explain: a thin line that is
    missing changes few pixels of the picture, but many of a block. Both numbers
    are infinite if the sizes differ.
    """
    if new == old:
        return 0.0, 0.0
    a, b = pixels(new), pixels(old)
    if a.shape != b.shape:
        return math.inf, math.inf
    rest = np.maximum(0, np.maximum(unexplained(a, b), unexplained(b, a)))
    height, width, _ = rest.shape
    rest = np.pad(rest, ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0)))
    rows, columns = rest.shape[0] // BLOCK, rest.shape[1] // BLOCK
    blocks = rest.reshape(rows, BLOCK, columns, BLOCK, 3)
    local = root_mean_square(blocks, axis=(1, 3, 4)).max()
    return float(root_mean_square(a - b)), float(local)


def text_drawn_alike():
    """Whether this matplotlib draws text as in the stored figures: from 3.11 on."""
    version = importlib.metadata.version("matplotlib").split(".")
    return (int(version[0]), int(version[1])) >= (3, 11)


def figure_fault(new, old, rms=None):
    """What is wrong with a figure, or None; rms: the limit that its cell states."""
    whole, local = figure_difference(new, old)
    limit = RMS if rms is None else rms
    if whole > limit:
        return f"rms difference {whole:.3f}, limit {limit}"
    if rms is None and local > LOCAL:
        return f"rms difference {local:.3f} within a few pixels, limit {LOCAL}"
    return None


def texts(output):
    """(container, key) of each text of an output that carries numbers."""
    if output.get("output_type") == "stream":
        yield output, "text"
    for kind in output.get("data", {}):
        if kind.startswith("text/"):
            yield output["data"], kind


def compare_outputs(cell, test, ref, skip_compare=None):
    """Adopt what agrees within tolerance, compare figures, leave the rest to nbval."""
    metadata = cell.cell.metadata
    options = {"rtol": metadata.get("rtol"), "atol": metadata.get("atol")}
    figures = zip(take_figures(test), take_figures(ref), strict=False)
    for new, old in zip(test, ref, strict=False):
        stored = {key: box[key] for box, key in texts(old)}
        for box, key in texts(new):
            if key in stored:
                box[key] = adopt(box[key], stored[key], **options)
    if not nbval_compare(cell, test, ref, skip_compare):
        return False
    limit = metadata.get("rms") if text_drawn_alike() else 1  # 1: the sizes alone
    for (name, new), (_, old) in figures:
        fault = figure_fault(new, old, limit)
        if fault:
            cell.comparison_traceback.append(f"{name} changed: {fault}")
            return False
    return True


def take_figures(outputs):
    """(what it is, PNG) of all figures; a slider's frames are taken out of its HTML."""
    found = []
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            found.append(("the figure", data["image/png"]))
        if 'class="mfdnn-slider"' in data.get("text/html", ""):
            from mfdnn.plot.sliders import frames, without_frames

            html = data["text/html"]
            data["text/html"] = without_frames(html)
            found += [
                (f"frame {k} of the slider", f) for k, f in enumerate(frames(html))
            ]
    return found


IPyNbCell.compare_outputs = compare_outputs


# A kernel that ends


class KernelEndedError(Exception):
    """The kernel has ended while a cell was running."""


def await_reply(running, sent, timeout=None):
    """Wait for the reply to a request, but no longer than the kernel lives."""
    end = time.monotonic() + (timeout or math.inf)
    while True:
        try:
            message = running.get_message("shell", timeout=1)
        except queue.Empty:
            if not running.is_alive():
                raise KernelEndedError from None
            if time.monotonic() > end:
                raise
            continue
        if message["parent_header"].get("msg_id") == sent:
            return message


RunningKernel.await_reply = await_reply
nbval_runtest = IPyNbCell.runtest


def runtest(cell):
    """Execute a cell; where the kernel ends, say how in one sentence."""
    running = cell.parent.kernel
    if not running.is_alive():
        cell.raise_cell_error("not executed: the kernel has ended before.")
    try:
        nbval_runtest(cell)
    except KernelEndedError:
        process = running.km.provisioner.process
        cell.raise_cell_error(kernel.end_of_process(process and process.poll()))


IPyNbCell.runtest = runtest


# Twice


def pytest_addoption(parser):
    """Add the options to pytest's."""
    parser.addoption("--twice", action="store_true", help="run each cell again")
    parser.addoption("--warm", action="store_true", help="kernels that have imported")


def ask(running, code, expression="None"):
    """Run code in a kernel, unseen; the value of an expression there."""
    asked = {"value": expression}
    sent = running.kc.execute(code, silent=True, user_expressions=asked)
    answer = await_reply(running, sent, timeout=600)["content"]
    value = answer.get("user_expressions", {}).get("value", answer)
    if value.get("status") != "ok":
        raise RuntimeError(f"{value.get('ename')}: {value.get('evalue')}")
    return literal_eval(value["data"]["text/plain"])


class Twice(pytest.Item):
    """Every cell of a page run again; the path without the optional sections."""

    def runtest(self):
        """Ask the kernel what its copies found."""
        if not self.parent.kernel.is_alive():
            raise AssertionError("not looked at: the kernel has ended before.")
        found, self.parent.seconds_twice = ask(
            self.parent.kernel, "", "__import__('twice').report()"
        )
        if found:
            raise AssertionError("\n".join(found))

    def repr_failure(self, excinfo):
        """Tell what was found, and no more."""
        return str(excinfo.value)

    def reportinfo(self):
        """Where it is."""
        return self.path, 0, f"{self.nodeid}"


nbval_collect = IPyNbFile.collect


def collect(page):
    """The cells of a page; then, if that is asked for, all of them again."""
    yield from nbval_collect(page)
    if page.config.getoption("--twice"):
        yield Twice.from_parent(page, name="twice")


IPyNbFile.collect = collect
nbval_setup = IPyNbFile.setup
NURSERY = []  # with --warm: where kernels come from


def setup(page):
    """Start the page's kernel, and let it be followed."""
    launch = local_provisioner.launch_kernel
    if page.config.getoption("--warm"):
        if not NURSERY:
            NURSERY.append(warm.Nursery())
        launch = NURSERY[0].launch
    with mock.patch.object(local_provisioner, "launch_kernel", launch):
        nbval_setup(page)
    page.process = page.kernel.km.provisioner.process
    page.seconds_twice = 0.0
    if page.config.getoption("--twice"):
        cells = list(enumerate(c.source for c in reading.code_cells(page.nb)))
        flags = reading.optional_cells(page.nb)
        optional = [number for number, flag in enumerate(flags) if flag]
        find = f"__import__('sys').path.append({str(TOOLS)!r})"
        ask(page.kernel, f"{find}; __import__('twice').follow({cells}, {optional})")


IPyNbFile.setup = setup
PAGES = {}  # name of a page: CPU seconds
PEAK = [0.0]  # GiB
nbval_teardown = IPyNbFile.teardown


def teardown(page):
    """Stop the page's kernel and note what it used; in a warm one without imports."""
    before, _ = kernel.used_by_children()
    nbval_teardown(page)
    after, peak = kernel.used_by_children()
    used = after - before
    if NURSERY:
        page.process.wait()
        used, peak = page.process.seconds, page.process.gib
    PEAK[0] = max(PEAK[0], peak)
    PAGES[page.nodeid] = used - page.seconds_twice


IPyNbFile.teardown = teardown


def pytest_configure(config):
    """Run kernels on one thread, as `make update` does."""
    kernel.prepare_environment()


def pytest_unconfigure(config):
    """End the process from which kernels were forked."""
    while NURSERY:
        NURSERY.pop().close()


THEME = "light|dark"
SITE_PAGE = re.compile(
    rf"test_site\.py::.*\[(?:(?:{THEME})-)?(.*?)(?:-(?:{THEME}))?\]$"
)


class ByFile(LoadFileScheduling):
    """One file, one worker; of the site's tests, one page of the book, one worker."""

    def _split_scope(self, nodeid):
        page = SITE_PAGE.search(nodeid)
        return page[1] if page else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Take our schedule in place of ``--dist loadfile``."""
    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


def page_seconds(config):
    """How many CPU seconds a page may take."""
    return PAGE_SECONDS - IMPORT_SECONDS * config.getoption("--warm")


def too_much(config):
    """Whether a page used more than a page may."""
    slowest = max(PAGES.values(), default=0)
    return slowest > page_seconds(config) or PEAK[0] > PAGE_GIB


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """Fail the run when a page takes too long or too much memory."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["pages"] = [PAGES, PEAK[0]]
    elif too_much(session.config) and session.exitstatus == 0:
        session.exitstatus = 1


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Take over what a parallel worker noted."""
    pages, peak = getattr(node, "workeroutput", {}).get("pages", ({}, 0.0))
    PAGES.update(pages)
    PEAK[0] = max(PEAK[0], peak)


def pytest_terminal_summary(terminalreporter):
    """Print the CPU time of each page and the largest memory."""
    if not PAGES:
        return
    if not text_drawn_alike():
        terminalreporter.line("matplotlib before 3.11: figures compared by size only")
    limit = page_seconds(terminalreporter.config)
    terminalreporter.section(f"CPU time of the pages, at most {limit} s")
    for page, seconds in sorted(PAGES.items()):
        mark = "  TOO LONG" if seconds > limit else ""
        terminalreporter.line(f"{seconds:6.1f} s  {page}{mark}")
    mark = "  TOO MUCH" if PEAK[0] > PAGE_GIB else ""
    terminalreporter.line(f"largest process: {PEAK[0]:.2f} GiB{mark}")
