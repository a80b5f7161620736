"""Execute pages without a Jupyter kernel: once, each cell twice, or the path alone.

usage: replay.py PAGE [PAGE ...] [--mode once|twice|path] [--shift S] [--cells 5,8]

once    every cell, in order
path    every cell outside the optional sections
twice   every cell, as readers of a notebook do: twice in a row, and those of the path
        without the optional sections; in copies, where it can matter (twice.py)
--shift S adds S to every seed of every random generator
--cells   only these cells and the earlier ones whose names they need

PAGE is book/chapter/name (its .md side), or a notebook with its .ipynb.
Prints the cells that raise (numbered as nbval does, the setup cell is 0); the
page goes on after them. Figures are closed, not drawn. One server process imports
the libraries; each page runs in a process forked from it, on one thread.
"""

import argparse
import builtins
import contextlib
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import nbformat
import pages
import reading
import twice
from shifted import shift_generators

Cell = tuple[int, Any]  # the number of a code cell, and the cell
MODES = ("once", "twice", "path")
TIME_LIMIT = 900  # seconds a page, whatever the load
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
}
PRELOAD = [  # what pages import, imported once
    "torch",
    "torch.func",
    "torch._dynamo",
    "torchvision.transforms.v2",
    "matplotlib.pyplot",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.svm",
    "skimage.data",
    "nbformat",
    "jupytext",
    "IPython.core.interactiveshell",
    "mfdnn.data",
    "mfdnn.notebook",
]


class ReplayError(Exception):
    """A page that cannot be executed at all; the message says why."""


@dataclass
class Failure:
    """A cell that raised."""

    cell: int  # number among the code cells, from 0
    head: str  # the cell's first line
    line: str  # the line of the cell that raised
    error: str  # type and message
    kind: str  # the type alone

    def __str__(self) -> str:
        """One paragraph for a person."""
        return f"cell {self.cell} ({self.head}): {self.error}\n    at: {self.line}"


@dataclass
class Outcome:
    """What happened when a page was executed."""

    cells: int = 0  # cells that were executed, each repetition counted
    seconds: float = 0.0  # CPU time
    failures: list[Failure] = field(default_factory=list)
    again: int = 0  # cells that were run once more, in copies
    printed: str = ""
    warnings: str = ""  # what was written to stderr

    @property
    def own_failures(self) -> list[Failure]:
        """The failures without those that only miss what a failed cell defines."""
        first = min((f.cell for f in self.failures), default=0)
        return [f for f in self.failures if f.kind != "NameError" or f.cell == first]

    @property
    def error(self) -> str | None:
        """The failures as text, or None."""
        return "\n".join(map(str, self.own_failures)) or None


def code_lines(cell: Any) -> str:
    """A cell's first line that is code."""
    lines = [s.strip() for s in reading.source_of(cell).splitlines()]
    return next((s for s in lines if s and not s.startswith("#")), "")


class Session:
    """One page's Python: IPython without a kernel, in the page's folder."""

    def __init__(self, folder: Path) -> None:
        """Start an empty namespace."""
        import matplotlib.pyplot as plt
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        class Shell(InteractiveShell):  # type: ignore[misc]
            def showtraceback(self, *args: Any, **kwargs: Any) -> None:
                """Leave the report to us."""

            showsyntaxerror = showindentationerror = showtraceback

        config = Config()
        config.HistoryManager.enabled = False
        self.shell = Shell.instance(config=config)
        self.close = lambda *args, **kwargs: plt.close("all")
        plt.show = self.close
        os.chdir(folder)

    def run(self, cell: Any, number: int) -> Failure | None:
        """Execute a code cell; what it raised."""
        source = reading.source_of(cell)
        result = self.shell.run_cell(source, store_history=False)
        self.close()
        error = result.error_before_exec or result.error_in_exec
        return error and describe(error, cell, number)


def flush() -> None:
    """Write what is printed so far."""
    sys.stdout.flush()
    sys.stderr.flush()


def describe(error: BaseException, cell: Any, number: int) -> Failure:
    """The failure that an exception of a cell is."""
    own = [
        frame.line
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith("<ipython-input")
    ]
    line = (own[-1] if own else getattr(error, "text", None)) or ""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    what = f"{kind}: {text}" if text else kind
    return Failure(number, code_lines(cell), line.strip(), what, kind)


def read(path: Path, root: Path = pages.ROOT) -> Any:
    """The notebook of a page, from its .md side or as stored."""
    if not path.exists():
        raise ReplayError(f"there is no page {path}.")
    if path.suffix == ".ipynb":
        return nbformat.read(path, as_version=4)
    return pages.read_source(path, root)


def needed(notebook: Any, wanted: Sequence[int]) -> set[int]:
    """The numbers of some code cells, and of those before that matter to them.

    A cell matters that sets a name they read, or that reads an object they read:
    it may change it, as training changes a model.
    """
    cells = reading.code_cells(notebook)
    names = [reading.names_of(reading.source_of(cell)) for cell in cells]
    code = set(dir(builtins)).union(*(n.defines for n in names))
    chosen: set[int] = {0}
    missing: set[str] = set()
    for number in range(len(cells) - 1, 0, -1):
        own = names[number]
        touched = own.sets | own.changes | own.reads - code
        if number in wanted or missing & touched:
            chosen.add(number)
            missing |= own.reads
    return chosen


def chosen_cells(notebook: Any, only: Sequence[int] = ()) -> list[Cell]:
    """The code cells, numbered; if some are wanted, those and what they need."""
    cells = list(enumerate(reading.code_cells(notebook)))
    keep = needed(notebook, only) if only else range(len(cells))
    return [(number, cell) for number, cell in cells if number in keep]


def play(path: Path, root: Path, mode: str, shift: int, only: Sequence[int]) -> Outcome:
    """Execute a page in this process."""
    outcome = Outcome()
    notebook = read(path, root)
    optional = reading.optional_cells(notebook)
    if shift:
        shift_generators(shift)
    session = Session(path.parent)
    chosen = chosen_cells(notebook, only)
    aside = {number for number, _ in chosen if optional[number]}
    if mode == "path":
        chosen = [cell for cell in chosen if cell[0] not in aside]
    follower = mode == "twice" and twice.Twice(
        session.shell.user_ns,
        [(number, reading.source_of(cell)) for number, cell in chosen],
        aside,
        session.shell,
    )
    for number, cell in chosen:
        if follower:
            follower.before(number)
        failure = session.run(cell, number)
        if failure:
            outcome.failures.append(failure)
        if follower:
            follower.after(number, not failure)
    outcome.cells = len(chosen)
    if follower:
        cells = dict(chosen)
        for wrong in follower.finish():
            outcome.failures.append(in_a_copy(wrong, cells[wrong.cell]))
        outcome.again = follower.runs
        if follower.warnings:
            sys.stderr.write("".join(follower.warnings))
    return outcome


def in_a_copy(wrong: Any, cell: Any) -> Failure:
    """The failure of a cell that raised when it was run again, or on the path."""
    what = f"{wrong.kind}: {wrong.text}" if wrong.text else wrong.kind
    how = "when run again: " if wrong.again else "without the optional sections: "
    return Failure(wrong.cell, code_lines(cell), wrong.line, how + what, wrong.kind)


def end_with_parent() -> None:
    """End this process when the one that asked for it has ended."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def child(pipe: Any, function: Callable[..., Outcome], args: tuple[Any, ...]) -> None:
    """Run in the forked process: send the outcome, or the error's text."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        for stream, file in ((sys.stdout, out), (sys.stderr, err)):
            os.dup2(file.fileno(), stream.fileno())
        try:
            outcome = function(*args)
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
            return
        flush()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    outcome.printed, outcome.warnings = texts
    used = [
        resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    outcome.seconds = sum(u.ru_utime + u.ru_stime for u in used)
    pipe.send(outcome)


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables, and put back what was there."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def in_child(function: Callable[..., Outcome], *args: Any) -> Outcome:
    """Call a function in a process of its own that has the libraries imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(send, function, args))
    with environment(ENVIRONMENT):  # the server process keeps it, this one does not
        process.start()
    send.close()
    try:
        if not receive.poll(TIME_LIMIT):
            raise ReplayError(f"stopped after {TIME_LIMIT} s.")
        answer = receive.recv()
    except EOFError:
        process.join()
        raise ReplayError(f"its process ended with code {process.exitcode}.") from None
    finally:
        process.kill()
        process.join()
    if isinstance(answer, str):
        raise ReplayError(answer)
    return answer


def run(
    path: Path,
    mode: str = "once",
    shift: int = 0,
    only: Sequence[int] = (),
    root: Path = pages.ROOT,
) -> Outcome:
    """Execute a page in a process of its own."""
    if not path.exists():
        raise ReplayError(f"there is no page {path}.")
    return in_child(play, path.resolve(), root, mode, shift, only)


def find(name: str) -> Path:
    """The file of the page that a person named, or ReplayError."""
    try:
        path = pages.page_path(name, pages.ROOT)
    except pages.PageError as error:
        raise ReplayError(str(error)) from None
    return path.with_suffix(".ipynb") if name.endswith(".ipynb") else path


def numbers(text: str) -> list[int]:
    """The cell numbers of ``5,8``."""
    return [int(n) for n in text.split(",")]


def main() -> None:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", nargs="+")
    parser.add_argument("--mode", choices=MODES, default="once")
    parser.add_argument("--shift", type=int, default=0)
    parser.add_argument("--cells", type=numbers, default=[])
    args = parser.parse_args()
    failed = False
    for name in args.page:
        try:
            outcome = run(find(name), args.mode, args.shift, args.cells)
        except ReplayError as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
            continue
        bad = bool(outcome.error or outcome.warnings)
        failed |= bad
        result = "fails" if bad else "passes"
        print(
            f"{name}: {args.mode} {result}; {outcome.cells} cells run, "
            f"{outcome.again} of them again, {outcome.seconds:.1f} s CPU",
            flush=True,
        )
        if outcome.error:
            print(outcome.error)
        if outcome.warnings:
            print(f"written to stderr:\n{outcome.warnings}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
