"""`make test-changed`: each change leads to a rerun of exactly what depends on it."""

import json
import os
import shutil

import changed
import needs
import pytest
from passed import Passed

from tests.book import checks

MODULES = {
    "__init__": "",
    "direct": "from mfdnn import indirect\n",
    "indirect": "def f():\n    from mfdnn.late import g\n",
    "late": "",
    "folder/__init__": "from mfdnn.folder.inner import h\n",
    "folder/inner": "",
    "shown": "from pathlib import Path\nplace = Path('share') / 'records'\n",
    "unused": "",
}
CELLS = {
    "one": "from mfdnn.direct import f",
    "two": "import math\nfrom mfdnn import folder",
    "three": "from mfdnn.shown import place",
    "four": "%time from math import pi",
}
TESTS = {
    "direct": "from mfdnn.direct import f\n",
    "unused": "import mfdnn.unused\nfrom mfdnn.unused import x\n",
    "program": "import subprocess\n",
}
HEAD = "---\njupytext:\n  x: y\n---\n# Title\n\nWords.\n\n"


@pytest.fixture
def root(tmp_path):
    """A repository with four pages and their modules."""
    for name, text in MODULES.items():
        path = tmp_path / f"mfdnn_src/mfdnn/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "book/chapter").mkdir(parents=True)
    for name, code in CELLS.items():
        page = tmp_path / f"book/chapter/{name}.md"
        cell = f"```{{code-cell}} ipython3\n:tags: [x]\n\n{code}\n```\n"
        page.write_text(HEAD + cell)
        code_cell = {"cell_type": "code", "source": code, "outputs": [], "metadata": {}}
        words = {"cell_type": "markdown", "source": "Words.", "metadata": {}}
        book = {"cells": [words, code_cell]}
        page.with_suffix(".ipynb").write_text(json.dumps(book))
    shutil.copytree(checks.ROOT / "tools", tmp_path / "tools")
    (tmp_path / "tests/package").mkdir(parents=True)
    (tmp_path / "tests/book").mkdir(parents=True)
    for name in ("nbval_numeric.py", "book/test_figures.py", "book/test_errata.py"):
        shutil.copy(checks.ROOT / "tests" / name, tmp_path / "tests" / name)
    for name, text in TESTS.items():
        (tmp_path / f"tests/package/test_{name}.py").write_text(text)
    (tmp_path / "records").mkdir()
    (tmp_path / "records/run.json").write_text("{}")
    for name in ("requirements.txt", "pyproject.toml", "_toc.yml"):
        (tmp_path / name).write_text("x")
    return tmp_path


def keys(root):
    return {unit.name: unit.key for unit in changed.units(root)}


def touched(root, *files):
    """The units whose keys change when files get one line more; kinds in short."""
    before = keys(root)
    for file in files:
        path = root / file
        path.write_text(path.read_text() + "# more\n")
    after = keys(root)
    assert before.keys() == after.keys()
    return {n.replace("book/chapter/", "") for n in before if before[n] != after[n]}


def pages(*names):
    return {f"page {name}" for name in names}


WORDS = {"sources", "build"}
CODE = {"sources", "build", "lint", "types", "tools test_figures.py"}
STARTS = {"package test_program.py"}  # it may start whatever the package has


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("book/chapter/one.md", WORDS),
        (
            "mfdnn_src/mfdnn/direct.py",
            CODE | STARTS | pages("one") | {"package test_direct.py"},
        ),
        (
            "mfdnn_src/mfdnn/indirect.py",
            CODE | STARTS | pages("one") | {"package test_direct.py"},
        ),
        (  # imported inside a function of a module that a module imports
            "mfdnn_src/mfdnn/late.py",
            CODE | STARTS | pages("one") | {"package test_direct.py"},
        ),
        ("mfdnn_src/mfdnn/folder/inner.py", CODE | STARTS | pages("two")),
        ("mfdnn_src/mfdnn/unused.py", CODE | STARTS | {"package test_unused.py"}),
        ("records/run.json", WORDS | STARTS | pages("three")),
        ("tests/nbval_numeric.py", {"lint", "sources", "tools test_figures.py"}
            | pages(*CELLS)),
        ("tools/reading.py", {"lint", *WORDS, "tools test_figures.py"}
            | pages(*CELLS)),
        ("tests/package/test_unused.py", {"lint", "package test_unused.py"}),
        ("tests/book/test_errata.py", {"lint", "sources"}),
    ],
)  # fmt: skip
def test_what_a_change_touches(root, file, expected):
    assert touched(root, file) == expected


def test_all_that_the_package_begins_with(root):
    assert touched(root, "mfdnn_src/mfdnn/__init__.py") >= pages("one", "two", "three")


@pytest.mark.parametrize("file", changed.needs.ENVIRONMENT)
def test_requirements_touch_everything(root, file):
    assert touched(root, file) == {n.replace("book/chapter/", "") for n in keys(root)}


def test_code_of_a_page(root):
    path = root / "book/chapter/one.md"
    before = keys(root)
    path.write_text(path.read_text().replace("import f", "import f as g"))
    after = keys(root)
    changes = {n for n in before if before[n] != after[n]}
    assert changes == WORDS | {"page book/chapter/one"}


@pytest.mark.parametrize(
    "edit",
    [
        lambda cell: cell.update(outputs=[{"output_type": "stream", "text": "3"}]),
        lambda cell: cell.update(metadata={"rtol": 0.5}),
    ],
)
def test_stored_output_or_tolerance_of_a_page(root, edit):
    before = keys(root)
    path = root / "book/chapter/two.ipynb"
    book = json.loads(path.read_text())
    edit(book["cells"][1])
    path.write_text(json.dumps(book))
    after = keys(root)
    changes = {n for n in before if before[n] != after[n]}
    assert changes == WORDS | {"page book/chapter/two"}


def test_new_module_that_takes_the_place_of_another(root):
    before = keys(root)
    (root / "mfdnn_src/mfdnn/late").mkdir()
    (root / "mfdnn_src/mfdnn/late/__init__.py").write_text("")
    after = keys(root)
    assert before["page book/chapter/one"] != after["page book/chapter/one"]


def test_time_does_not_count(root):
    before = keys(root)
    for path in root.rglob("*"):
        os.utime(path, (1e9, 1e9))
    assert keys(root) == before


@pytest.mark.parametrize(
    "code",
    [
        "import mfdnn\nmfdnn.unused.f()",
        "from importlib import import_module\nimport_module('mfdnn.unused')",
        "__import__('mfdnn.unused')",
        "x = (",
    ],
)
def test_what_cannot_be_read_off_depends_on_the_whole_package(root, code):
    sources = needs.Sources(root)
    assert root / "mfdnn_src/mfdnn/unused.py" in sources.of_cells([code])


def test_pages_of_the_book_need_what_they_import():
    sources = needs.Sources()
    package = sources.package
    for path in checks.page_tool.find_pages(checks.ROOT):
        text = path.read_text()
        files = sources.of_cells(needs.code_of(path))
        assert package / "notebook.py" in files
        assert (package / "records.py" in files) >= ("records.show" in text)
        assert files != sources.whole_package
    assert changed.page_paths(checks.ROOT) == checks.page_tool.find_pages(checks.ROOT)


# Records


def test_what_has_passed_is_due_again_when_it_changes(root):
    passed = Passed(root)
    for unit in changed.units(root):
        passed.note(unit.key, what=unit.name)
    assert changed.due(passed, root) == []
    path = root / "mfdnn_src/mfdnn/unused.py"
    path.write_text("x = 1\n")
    due = {unit.name for unit in changed.due(passed, root)}
    assert "package test_unused.py" in due and "page book/chapter/one" not in due
    path.write_text("")  # as it was, and it had passed
    assert changed.due(passed, root) == []
    shutil.rmtree(root / "_build")
    assert len(changed.due(passed, root)) == len(keys(root))


def test_only_what_passes_counts(monkeypatch):
    unit = changed.Unit("lint", "key")
    for code, good in ((0, {"lint"}), (1, set())):
        command = [changed.PYTHON, "-c", f"raise SystemExit({code})"]
        monkeypatch.setattr(changed, "command", lambda _, c=command: c)
        assert changed.run_alone(unit) == good


def test_which_file_of_tests_failed(tmp_path):
    case = '<testcase classname="tests.package.test_a" name="x">{}</testcase>'
    report = tmp_path / "report.xml"
    report.write_text(f"<x>{case.format('')}</x>")
    assert changed.failures(report) == set()
    report.write_text(f"<x>{case.format('<failure/>')}{case.format('')}</x>")
    assert changed.failures(report) == {"tests.package.test_a"}
    assert changed.failures(tmp_path / "nowhere") == set()


def test_no_heavy_import_when_nothing_has_changed():
    program = (
        "import sys; sys.path.insert(0, 'tools')\n"
        "import changed; list(changed.units())\n"
        "print(sorted({'torch', 'numpy', 'jupytext', 'nbformat', 'yaml', 'pytest'}"
        " & sys.modules.keys()))"
    )
    done = changed.subprocess.run(
        [changed.PYTHON, "-c", program],
        cwd=checks.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stderr
