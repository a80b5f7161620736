"""Check all that a change touches, and nothing else; `make test-changed` calls this.

    lint, types     ruff and mypy
    package FILE    a file of unit tests whose modules have changed
    tools FILE      a file of tests of the book's tools
    sources         the rules over all pages' sources
    page PAGE       the page executed, its outputs compared, each cell twice
    build           every page read and its references resolved, as HTML what changed

Each of these has passed for a certain content of all files that it depends on:
of a page those are its cells and stored outputs, the modules that they import,
directly or not, the data that these read, the pinned requirements, and the tools
that execute and compare. What has passed is recorded under the digest of that
content (passed.py), so that nothing is taken as good that is not, and what is as
it was before is not run again. Without changes this takes a few seconds. The
site in a browser is left to `make test`.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import check_page
import kernel
import needs
from check import PYTEST, ROOT, STEPS, WORKERS
from passed import Passed

PYTHON = sys.executable
# What executes and compares a page, as files; what they import counts too.
PAGE_TOOLS = ("tests/nbval_numeric.py", "tools/pages.py", "tools/twice.py")
# Tests that make small books of their own: they depend on modules, not on pages.
OWN_BOOK = {
    "test_changed.py",
    "test_check_page.py",
    "test_checks_can_fail.py",
    "test_figures.py",
    "test_pages_tool.py",
    "test_replay.py",
}
PAGE_HEAD = re.compile(r"\A---\n(?:(?!---\n).*\n)*?jupytext:")


@dataclass(frozen=True)
class Unit:
    """Something that passes or fails: its name, and the digest of what it needs."""

    name: str
    key: str


def page_paths(root):
    """The .md sides of all pages."""
    return [
        path
        for path in sorted((root / "book").rglob("*.md"))
        if "_build" not in path.parts
        and PAGE_HEAD.match(path.read_text(encoding="utf-8"))
    ]


def repository(sources):
    """All files but those that programs make."""
    made = {"__pycache__", "_build", ".ipynb_checkpoints", ".venv", ".git"}
    found = set()
    for folder, names, files in os.walk(sources.root):
        names[:] = [
            n
            for n in names
            if n not in made and not n.endswith((".egg-info", "_cache"))
        ]
        found.update(Path(folder, file) for file in files)
    return found


def units(root=ROOT):
    """All units of a repository as it is now."""
    sources = needs.Sources(root)
    every = repository(sources)
    environment = sources.environment()

    def unit(name, files, *more):
        key = needs.digest(name, environment, sources.content(files), *more)
        return Unit(name, key)

    def inside(*folders):
        places = [root / folder for folder in folders]
        return {p for p in every if any(p.is_relative_to(q) for q in places)}

    python = {p for p in every if p.suffix == ".py"}
    package = inside("mfdnn_src")
    around = {p for p in every if p.parent == root}
    around |= inside(".ci", ".github", "binder")
    yield unit("lint", python | around)
    yield unit("types", package)
    for path in sorted(python):
        is_test = path.name.startswith("test_")
        place = path.parent.relative_to(root).as_posix()
        fixed = {root / "conftest.py", root / "tests/__init__.py"}
        fixed |= {path.with_name("conftest.py"), path.with_name("__init__.py")}
        start = (fixed & every) | {path}
        if is_test and place == "tests/package":
            yield unit(f"package {path.name}", sources.closure(start) | around)
        elif is_test and place == "tests/book" and path.name in OWN_BOOK:
            tools = inside("tools", "book/_ext", "tests/book/checks.py")
            files = sources.closure(start | tools, named=True) | package
            yield unit(f"tools {path.name}", files | around)
    yield unit("sources", every - inside("tests/package", "tests/site"))
    tools = sources.closure([root / name for name in PAGE_TOOLS], named=True)
    for path in page_paths(root):
        name = path.relative_to(root).with_suffix("").as_posix()
        executed = needs.executed_key(path, sources)
        yield unit(f"page {name}", tools, executed)
    shown = inside("book", "records", "benchmarks", "tools") | package | around
    yield unit("build", shown)


def due(passed, root=ROOT):
    """The units that have not passed as they are now."""
    return [unit for unit in units(root) if unit.key not in passed]


def command(unit, root=ROOT):
    """The command of a unit that is run by itself."""
    kind, _, what = unit.name.partition(" ")
    if kind == "page":
        return check_page.outputs(what)
    if kind == "sources":
        files = sorted((root / "tests/book").glob("test_*.py"))
        tests = [str(f.relative_to(root)) for f in files if f.name not in OWN_BOOK]
        return [*PYTEST, "--color=no", "--tb=short", *tests]
    if kind == "build":
        return [PYTHON, "tools/build.py", "--check"]
    return STEPS[kind]


def run_alone(unit):
    """Run a unit's command; its name if it passed."""
    result = check_page.step(unit.name, *command(unit))
    return {unit.name} if result.passes else set()


def run_tests(chosen):
    """Run files of tests in one parallel pytest; the names of those that passed."""
    if not chosen:
        return set()
    folders = {"package": "tests/package", "tools": "tests/book"}
    files = {}
    for unit in chosen:
        kind, name = unit.name.split()
        files[f"{folders[kind]}/{name}"] = unit.name
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        arguments = [*PYTEST, "-n", WORKERS, "--dist", "loadfile", "--color=no"]
        arguments += ["--tb=short", f"--junitxml={report}", *files]
        result = check_page.step(f"{len(files)} files of unit tests", *arguments)
        if result.passes:
            return set(files.values())
        failed = failures(report)
    if not failed:
        return set()
    return {n for file, n in files.items() if file[:-3].replace("/", ".") not in failed}


def failures(report):
    """The modules, or names, of all tests that failed or could not be collected."""
    try:
        cases = ElementTree.parse(report).iter("testcase")
    except (OSError, ElementTree.ParseError):
        return set()
    bad = set()
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            place = case.get("classname") or case.get("name")
            bad.add(place)
    return bad


def sync():
    """Give all notebooks their pages' words, execute those whose code changed."""
    passed, sources = Passed(ROOT), needs.Sources(ROOT)
    tools = sources.closure([ROOT / "tools/pages.py"], named=True)
    config = {ROOT / "_config.yml", ROOT / "jupytext.toml"}
    pairs = {p for q in page_paths(ROOT) for p in (q, q.with_suffix(".ipynb"))}

    def key():
        return needs.digest("sync", needs.Sources(ROOT).content(tools | config | pairs))

    if key() in passed:
        return True
    done = subprocess.run([PYTHON, "tools/pages.py", "update"], cwd=ROOT)
    if done.returncode == 0:
        passed.note(key(), what="all pairs in sync")
    return done.returncode == 0


def main():
    """Run what is due, record what passes; see the module's text."""
    start = time.perf_counter()
    kernel.prepare_environment()
    passed = Passed(ROOT)
    if not sync():
        sys.exit("make test-changed: a page could not be executed; see above.")
    todo = due(passed)
    together = [u for u in todo if u.name.split()[0] in ("package", "tools")]
    alone = [u for u in todo if u not in together]
    good = set()
    with ThreadPoolExecutor(int(WORKERS)) as pool:
        for names in pool.map(run_alone, alone):
            good |= names
    good |= run_tests(together)
    now = {u.name: u.key for u in units()}
    for unit in todo:  # only what did not change meanwhile
        if unit.name in good and now.get(unit.name) == unit.key:
            passed.note(unit.key, what=unit.name)
    seconds = time.perf_counter() - start
    bad = [u.name for u in todo if u.name not in good]
    if bad:
        sys.exit(f"make test-changed: failed: {', '.join(bad)} ({seconds:.0f} s)")
    what = f"{len(todo)} checks run" if todo else "nothing has changed"
    print(f"make test-changed: everything holds; {what} ({seconds:.0f} s)")


if __name__ == "__main__":
    main()
