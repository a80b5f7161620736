"""Execute the book's pages: NAME.md is written by people, NAME.ipynb is made here.

usage: pages.py run PAGE            execute one page
       pages.py update [--force]    execute every page whose code changed, or a
                                    module of the package that it imports;
                                    --force: every page

A page whose words changed but whose code did not keeps its outputs. A page is
stored only when all its cells ran; otherwise the old notebook stays. With which
modules a page was executed is recorded here (passed.py); of a page that was never
executed here, the outputs that came with the repository are taken as they are.
"""

import argparse
import difflib
import hashlib
import json
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jupytext
import kernel
import nbformat
import needs
import reading
import yaml
from mfdnn import __version__
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)
from passed import Passed

ROOT = Path(__file__).resolve().parents[1]
METADATA = {  # no versions: the same on every machine
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}
TIME_LIMIT = 120  # seconds a cell
SETUP = """\
# Every page starts with this cell. On Colab it installs the package.
from importlib.metadata import distributions
if "{version}" not in {{d.version for d in distributions(name="mfdnn")}}:
    %pip install -qU "mfdnn@git+{url}"
import matplotlib.pyplot as plt
import torch
from mfdnn.notebook import setup_page
setup_page()"""


class PageError(Exception):
    """A page that cannot be read or executed; the message says why."""


def repository_url(root):
    """The repository's address, as _config.yml states it."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return config["repository"]["url"]


def setup_cell(root):
    """The first cell of every page."""
    return SETUP.format(url=repository_url(root), version=__version__)


def find_pages(root):
    """Paths of all pages (the .md sides), in a fixed order."""
    head = re.compile(r"\A---\n(?:(?!---\n).*\n)*?jupytext:")
    return [
        path
        for path in sorted((root / "book").rglob("*.md"))
        if "_build" not in path.parts and head.match(path.read_text(encoding="utf-8"))
    ]


def page_path(name, root):
    """The .md side of the page that a person named, or PageError."""
    path = (Path.cwd() / name).with_suffix(".md") if name else None
    pages = find_pages(root)
    if path in pages:
        return path
    if not name:
        raise PageError("say which page: make page PAGE=book/chapter/name")
    known = {str(p.relative_to(root).with_suffix("")): p for p in pages}
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise PageError(f"there is no page {name}.{hint}")


def read_source(path, root):
    """The notebook that a .md side stands for, without outputs."""
    text = path.read_text(encoding="utf-8")
    notebook = jupytext.reads(text, fmt="md:myst")
    notebook.metadata = nbformat.from_dict(METADATA)
    seen = {}
    setup = setup_cell(root)
    for cell in notebook.cells:
        if "setup" in cell.metadata.get("tags", []):
            cell.source = setup
        digest = hashlib.sha1(cell.source.encode()).hexdigest()[:10]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = f"{digest}-{seen[digest]}"  # same text, same id: no noise
    fold(notebook)
    return notebook


def named(number, cell):
    """How messages name a code cell; the first one of a page, its setup, is 0."""
    first = reading.source_of(cell).strip().split("\n")[0]
    return f"code cell {number} ({first})"


def fold(notebook):
    """Fold the apparatus in Colab (as a form with a title) and in JupyterLab."""
    for number, cell in enumerate(reading.code_cells(notebook)):
        try:
            reading.names_of(cell.source)
        except SyntaxError as error:
            where = f"{named(number, cell)} is no Python"
            raise PageError(f"{where}: {error.msg}, line {error.lineno}.") from None
    titles = reading.statement_titles(notebook)
    kinds = reading.fold_kinds(notebook)
    for cell, kind in zip(reading.code_cells(notebook), kinds, strict=True):
        if kind:
            title = reading.form_title(kind, cell.metadata.get("checks", []), titles)
            cell.source = f"# @title {title}\n{cell.source}"
            cell.metadata["cellView"] = "form"
            cell.metadata["jupyter"] = {"source_hidden": True}


def refresh_setup_cell(path, root):
    """Rewrite the setup cell of a .md side when the repository moved."""
    text = path.read_text(encoding="utf-8")
    cell = r"(```\{code-cell\} ipython3\n:tags: \[setup\]\n\n)((?!```)[^\n]*\n)*```"
    setup = setup_cell(root)
    fresh = re.sub(cell, lambda found: f"{found[1]}{setup}\n```", text)
    if fresh != text:
        path.write_text(fresh, encoding="utf-8")


def code_of(notebook):
    """What decides the outputs: the code cells' sources, in order."""
    return [reading.source_of(c) for c in reading.code_cells(notebook)]


def carry_outputs(source, stored):
    """Give a notebook the outputs of a stored one with the same code."""
    kept = [c for c in stored.cells if c.cell_type == "code"]
    cells = [c for c in source.cells if c.cell_type == "code"]
    for cell, old in zip(cells, kept, strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count


def tidy_outputs(notebook):
    """Join neighbouring prints, refuse stderr: outputs hold results only."""
    for number, cell in enumerate(reading.code_cells(notebook)):
        cell.metadata.pop("execution", None)
        joined = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                where = named(number, cell)
                raise PageError(f"{where} writes to stderr:\n{output.text}")
            stream = output.output_type == "stream"
            if stream and joined and joined[-1].output_type == "stream":
                joined[-1].text += output.text
            else:
                joined.append(output)
        cell.outputs = joined


class Client(NotebookClient):
    """Executes a notebook; knows at which cell it is, and how its kernel ended."""

    at = None  # index of the cell that was started last
    exit_code = None

    async def async_execute_cell(self, cell, cell_index, *args, **kwargs):
        """Note the cell and, if the kernel ends in it, the kernel's exit code."""
        self.at = cell_index
        try:
            return await super().async_execute_cell(cell, cell_index, *args, **kwargs)
        except DeadKernelError:
            self.exit_code = await self.km.provisioner.poll()
            raise


def execute(notebook, folder):
    """Run all cells in a fresh kernel on one thread; PageError if one fails."""
    client = Client(
        notebook,
        timeout=TIME_LIMIT,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=40"],  # errors only: no start-up warnings
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, RuntimeError) as error:
        reason = cause(error, client.exit_code)
        if client.at is None:
            raise PageError(f"no kernel starts: {reason}") from None
        cell = notebook.cells[client.at]
        cells = reading.code_cells(notebook)
        number = next(k for k, c in enumerate(cells) if c is cell)
        raise PageError(f"{named(number, cell)} fails: {reason}") from None
    notebook.metadata = nbformat.from_dict(METADATA)
    tidy_outputs(notebook)


def cause(error, exit_code=None):
    """One sentence on why a cell, or its kernel, failed."""
    if isinstance(error, CellTimeoutError):
        return f"it takes longer than {TIME_LIMIT} s."
    if isinstance(error, DeadKernelError):
        return kernel.end_of_process(exit_code)
    if isinstance(error, CellExecutionError):
        first = error.evalue.strip().split("\n")[0]
        return f"{error.ename}: {first}" if first else f"{error.ename}."
    return " ".join(str(error).split())


def store(notebook, path):
    """Write a notebook in one step, so that no half-written page remains."""
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    draft = path.with_suffix(".ipynb.part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def make_page(path, root=ROOT, force=True):
    """Bring one page's notebook up to date; returns what was done.

    force executes the page in any case; otherwise a page whose code is
    unchanged and whose stored outputs are complete only takes the new words.
    """
    refresh_setup_cell(path, root)
    name = path.relative_to(root).with_suffix("")
    notebook = read_source(path, root)
    target = path.with_suffix(".ipynb")
    if carry_words(notebook, target) and not force and not stale(path, root):
        return None
    start = time.perf_counter()
    execute(notebook, path.parent)
    store(notebook, target)
    note_outputs(path, root)
    seconds = time.perf_counter() - start
    _, peak = kernel.used_by_children()
    return f"{name}: executed in {seconds:.0f} s (peak so far {peak:.1f} GiB)"


def carry_words(notebook, target):
    """Store new words with the old outputs, if all code is as it was executed."""
    if not target.exists():
        return False
    stored = nbformat.read(target, as_version=4)
    counts = [c.execution_count for c in stored.cells if c.cell_type == "code"]
    complete = counts == list(range(1, len(counts) + 1))
    if not complete or code_of(stored) != code_of(notebook):
        return False
    carry_outputs(notebook, stored)
    store(notebook, target)
    for cell in reading.code_cells(notebook):  # to be executed again, perhaps
        cell.outputs, cell.execution_count = [], None
    return True


def record_of_outputs(path, root):
    """(name of the record, what it holds) of a page's stored outputs."""
    sources = needs.Sources(root)
    notebook = json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))
    code = [(reading.source_of(c), c["outputs"]) for c in reading.code_cells(notebook)]
    name = f"outputs/{path.relative_to(root).with_suffix('')}"
    cells = needs.digest(json.dumps(code, sort_keys=True))
    return name, {"cells": cells, "needs": needs.outputs_key(path, sources)}


def note_outputs(path, root):
    """Record with which modules and packages a page's stored outputs were made."""
    Passed(root).store(*record_of_outputs(path, root))


def stale(path, root):
    """Whether what a page imports has changed since its outputs were made.

    Outputs that were not made here, but came with the repository, are fresh.
    """
    name, now = record_of_outputs(path, root)
    then = Passed(root).load(name)
    if then.get("cells") != now["cells"]:
        note_outputs(path, root)
        return False
    return then != now


def attempt(path, root, force):
    """make_page for a worker process: (done, error), one of them None."""
    try:
        return make_page(path, root, force), None
    except PageError as error:
        name = path.relative_to(root).with_suffix("")
        return None, f"{name}: {error} The stored outputs are unchanged."


def main():
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("page")
    update = commands.add_parser("update")
    update.add_argument("--force", action="store_true")
    args = parser.parse_args()
    kernel.prepare_environment()
    try:
        if args.command == "run":
            pages, force = [page_path(args.page, ROOT)], True
        else:
            pages, force = find_pages(ROOT), args.force
    except PageError as error:
        sys.exit(f"make {'page' if args.command == 'run' else 'update'}: {error}")
    with ProcessPoolExecutor(min(len(pages), os.cpu_count() or 1)) as pool:
        n = len(pages)
        results = list(pool.map(attempt, pages, [ROOT] * n, [force] * n))
    for done, _ in results:
        if done:
            print(done)
    errors = [error for _, error in results if error]
    if errors:
        sys.exit("\n".join(errors))


if __name__ == "__main__":
    main()
