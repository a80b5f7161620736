"""Check one page, as CI checks all; `make check PAGE=book/chapter/name` calls this.

1. sync: the notebook takes the page's words. If its code is as it was executed, its
   stored outputs stay and are compared; if not, it is executed and the new outputs
   are stored, for you to read.
2. outputs: the page is executed, and each output compared (nbval), within the
   limits on time and memory; in copies of the kernel each cell is run again where
   that can matter, and the path without the optional sections (twice.py)
3. sources: what tests/book/checks.py says about this page
4. build: this page as HTML; a warning is an error. The first check of a clone
   reads the whole book (a minute), a later one what has changed.

Two run at the same time. Says what fails and ends with 1, or with 0.
"""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import kernel
from check import NBVAL, PYTEST, ROOT

PYTHON = sys.executable
ANSI = re.compile(r"\x1b\[[0-9;]*m")
SHOWN = 40  # lines of a failing step


@dataclass
class Result:
    """How a step ended."""

    name: str
    passes: bool
    seconds: float
    text: str  # what it printed

    def __str__(self):
        """One line, and what went wrong."""
        head = f"  {'passes' if self.passes else 'FAILS'}  {self.name}"
        lines = [f"{head} ({self.seconds:.0f} s)"]
        if not self.passes:
            told = [f"    {s}" for s in self.text.rstrip().split("\n") if s.strip()]
            left = len(told) - SHOWN
            lines += told[:SHOWN] + ([f"    ({left} more lines)"] if left > 0 else [])
        return "\n".join(lines)


def step(name, *command):
    """Run a command and say how it ended; prints the line at once."""
    start = time.perf_counter()
    done = subprocess.run(
        list(command), cwd=ROOT, capture_output=True, text=True, errors="replace"
    )
    text = ANSI.sub("", done.stdout + done.stderr)
    seconds = time.perf_counter() - start
    if name.startswith("outputs"):
        text = only_failures(text)
    result = Result(name, done.returncode == 0, seconds, text)
    print(result, flush=True)
    return result


def only_failures(text):
    """What pytest says of cells that fail, without its frame."""
    found = re.search(r"=+ FAILURES =+\n(.*?)(?=\n=+ (?!FAIL))", text, re.S)
    if not found:  # over a limit, or pytest itself failed
        lines = text.splitlines()
        told = [s for s in lines if "TOO " in s]
        return "\n".join(told or lines[-SHOWN:])
    return found[1]


def outputs(name):
    """The command that executes a page, compares its outputs and runs cells again."""
    return [*PYTEST, *NBVAL, "--twice", "--tb=short", "--color=no", f"{name}.ipynb"]


def sync(name):
    """Store the page's new words; whether its code is as it was executed.

    Ends with a message when the page cannot be read.
    """
    import pages

    try:
        path = pages.page_path(name, ROOT)
        pages.refresh_setup_cell(path, ROOT)
        notebook = pages.read_source(path, ROOT)
    except pages.PageError as error:
        sys.exit(f"make check: {error}")
    return pages.carry_words(notebook, path.with_suffix(".ipynb"))


def check(name):
    """All steps for a page; whether all pass."""
    same = sync(name)
    print(
        f"{name}: its code is as it was executed; the stored outputs are compared"
        if same
        else f"{name}: its code has changed; the new outputs are stored"
    )
    sources = ("sources", PYTHON, "tests/book/checks.py", name)
    build = ("build", PYTHON, "tools/build.py", "--check", name)
    with ThreadPoolExecutor(2) as pool:
        if same:
            futures = [pool.submit(step, "outputs", *outputs(name))]
        else:
            store = "outputs: executed and stored"
            executed = pool.submit(step, store, PYTHON, "tools/pages.py", "run", name)
            again = (PYTHON, "tools/replay.py", name, "--mode", "twice")
            futures = [executed, pool.submit(step, "cells again", *again)]
            executed.result()  # the other steps look at the stored notebook
        futures += [pool.submit(step, *build), pool.submit(step, *sources)]
        results = [future.result() for future in futures]
    return all(result.passes for result in results)


def main():
    """Command line; see the module's text."""
    start = time.perf_counter()
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit("make check: say which page: make check PAGE=book/chapter/name")
    kernel.prepare_environment()
    name = sys.argv[1].removesuffix(".md").removesuffix(".ipynb")
    passes = check(os.path.relpath(Path.cwd() / name, ROOT))
    seconds = time.perf_counter() - start
    end = "everything holds" if passes else "does not pass"
    print(f"{name}: {end} ({seconds:.0f} s)")
    sys.exit(not passes)


if __name__ == "__main__":
    main()
