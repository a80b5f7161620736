"""Execute the book's pages: NAME.md is written by people, NAME.ipynb is made here.

usage: pages.py run PAGE            execute one page
       pages.py update [--force]    execute every page whose code changed;
                                    --force: every page

A page whose words changed but whose code did not keeps its outputs. A page is
stored only when all its cells ran; otherwise the old notebook stays.
"""

import argparse
import difflib
import hashlib
import json
import os
import re
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jupytext
import nbformat
import reading
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

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
import importlib.util
if importlib.util.find_spec("mfdnn") is None:
    %pip install -q "mfdnn @ git+{url}"
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
    setup = SETUP.format(url=repository_url(root))
    for cell in notebook.cells:
        if "setup" in cell.metadata.get("tags", []):
            cell.source = setup
        digest = hashlib.sha1(cell.source.encode()).hexdigest()[:10]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = f"{digest}-{seen[digest]}"  # same text, same id: no noise
    fold(notebook)
    return notebook


def fold(notebook):
    """Fold the apparatus in Colab (as a form with a title) and in JupyterLab."""
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
    setup = SETUP.format(url=repository_url(root))
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
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        joined = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                raise PageError(f"cell {number} writes to stderr:\n{output.text}")
            stream = output.output_type == "stream"
            if stream and joined and joined[-1].output_type == "stream":
                joined[-1].text += output.text
            else:
                joined.append(output)
        cell.outputs = joined


def execute(notebook, folder):
    """Run all cells in a fresh kernel on one thread; PageError if one fails."""
    client = NotebookClient(
        notebook,
        timeout=TIME_LIMIT,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=40"],  # errors only: no start-up warnings
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError) as error:
        number, cell = failing_cell(notebook)
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
        reason = plain.splitlines()[-1] if plain else type(error).__name__
        first = cell.source.strip().splitlines()[0] if cell else ""
        raise PageError(f"cell {number} ({first!r}) fails: {reason}") from None
    notebook.metadata = nbformat.from_dict(METADATA)
    tidy_outputs(notebook)


def failing_cell(notebook):
    """Number and cell at which execution stopped."""
    last = (None, None)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source.strip():
            last = (number, cell)
            failed = any(o.output_type == "error" for o in cell.outputs)
            if failed or cell.execution_count is None:
                break
    return last


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
    if target.exists() and not force:
        stored = nbformat.read(target, as_version=4)
        counts = [c.execution_count for c in stored.cells if c.cell_type == "code"]
        complete = counts == list(range(1, len(counts) + 1))
        if complete and code_of(stored) == code_of(notebook):
            carry_outputs(notebook, stored)
            store(notebook, target)
            return None
    start = time.perf_counter()
    execute(notebook, path.parent)
    store(notebook, target)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return f"{name}: executed in {seconds:.0f} s (peak so far {peak:.1f} GiB)"


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
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
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
