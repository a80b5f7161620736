"""`make page` and `make update`: what they store, and what they refuse."""

import json
import os
import shutil
import subprocess
import sys

import kernel
import nbformat
import pytest

from tests.book import checks

page_tool = checks.page_tool


def run(*arguments):
    command = [sys.executable, checks.ROOT / "tools/pages.py", *arguments]
    return subprocess.run(command, cwd=checks.ROOT, capture_output=True, text=True)


def test_unknown_page_is_named_with_a_suggestion():
    result = run("run", "book/ch1-optimization/gradient-decent")
    assert result.returncode == 1
    assert "Did you mean book/ch1-optimization/gradient-descent?" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_no_page_given():
    result = run("run", "")
    assert result.returncode == 1
    assert "make page PAGE=" in result.stderr


def test_raising_cell_keeps_the_old_outputs(book):
    path = book / "book/page.md"
    before = path.with_suffix(".ipynb").read_bytes()
    text = path.read_text().replace("plt.plot([0, 1], [0, 1])", "1 / 0")
    path.write_text(text)
    done, error = page_tool.attempt(path, book, False)
    assert done is None
    assert "ZeroDivisionError" in error
    assert "outputs are unchanged" in error
    assert path.with_suffix(".ipynb").read_bytes() == before


def test_warning_is_refused(book):
    path = book / "book/page.md"
    path.write_text(
        path.read_text().replace("plt.show()", "import sys\nprint(1, file=sys.stderr)")
    )
    assert "stderr" in page_tool.attempt(path, book, False)[1]


def test_words_change_without_execution(book):
    path = book / "book/page.md"
    old = json.loads(path.with_suffix(".ipynb").read_text())
    path.write_text(path.read_text().replace("Short.", "Shorter."))
    assert page_tool.make_page(path, book, force=False) is None
    new = json.loads(path.with_suffix(".ipynb").read_text())
    assert "Shorter." in json.dumps(new)
    for a, b in zip(old["cells"], new["cells"], strict=True):
        assert a.get("outputs") == b.get("outputs")
    assert checks.pairs_in_sync(book) == []


FAILS = {
    "1 / 0": "ZeroDivisionError: division by zero",
    "import nowhere": "ModuleNotFoundError: No module named 'nowhere'",
    "%nowhere": "UsageError: Line magic function `%nowhere` not found.",
    "import os; os.kill(os.getpid(), 9)": "its process was killed, as happens when "
    "memory runs out.",
    "import os; os._exit(3)": "it ends the process with exit code 3.",
    "while True: pass": "it takes longer than 3 s.",
}


@pytest.mark.parametrize("code", FAILS)
def test_failing_cell_is_named_with_one_sentence(code, tmp_path, monkeypatch):
    monkeypatch.setattr(page_tool, "TIME_LIMIT", 3)
    new = nbformat.v4
    cells = [new.new_code_cell(s) for s in ("x = 1", f"{code}\ny = 2", "z = 3")]
    book = new.new_notebook(cells=[cells[0], new.new_markdown_cell("M"), *cells[1:]])
    with pytest.raises(page_tool.PageError) as error:
        page_tool.execute(book, tmp_path)
    assert str(error.value) == f"code cell 1 ({code}) fails: {FAILS[code]}"


def test_syntax_error_is_named_with_its_page(book):
    path = book / "book/page.md"
    path.write_text(path.read_text().replace("double(2))", "double(2)"))
    _, error = page_tool.attempt(path, book, False)
    assert error.startswith("book/page: code cell 4 (print(")
    assert "is no Python: '(' was never closed, line 1" in error


def test_module_of_the_package_changes(book, monkeypatch):
    path = book / "book/page.md"
    shutil.rmtree(book / "_build")  # its records: as in a clone
    package = book / "mfdnn_src/mfdnn"
    package.mkdir(parents=True)
    (package / "notebook.py").write_text("from mfdnn import deep\n")
    (package / "deep.py").write_text("")
    (package / "other.py").write_text("")
    executed = []
    monkeypatch.setattr(page_tool, "execute", lambda *_: executed.append(1))
    monkeypatch.setattr(page_tool, "store", lambda *_: None)

    def update():
        executed.clear()
        page_tool.make_page(path, book, force=False)
        return len(executed)

    assert update() == 0  # outputs that came with the repository
    (package / "other.py").write_text("x = 1")
    assert update() == 0
    (package / "deep.py").write_text("x = 1")
    assert (update(), update()) == (1, 0)


def test_machine_without_a_folder_for_matplotlib(book, monkeypatch):
    for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/dev/null/home")
    monkeypatch.setenv("IPYTHONDIR", str(book))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(book))
    done, error = page_tool.attempt(book / "book/page.md", book, True)
    assert "writes to stderr" in error and "matplotlib" in error
    kernel.prepare_environment()
    done, error = page_tool.attempt(book / "book/page.md", book, True)
    assert done and error is None
    assert os.environ["MPLCONFIGDIR"]


def test_memory_on_linux_and_on_a_mac():
    assert kernel.gibibytes(2**20, "linux") == 1
    assert kernel.gibibytes(2**30, "darwin") == 1


def test_second_execution_changes_nothing(book):
    path = book / "book/page.md"
    before = path.with_suffix(".ipynb").read_bytes()
    for force in (True, False):
        page_tool.make_page(path, book, force=force)
        assert path.with_suffix(".ipynb").read_bytes() == before


def test_setup_cell_follows_the_configuration(book):
    (book / "_config.yml").write_text("repository: {url: https://example.org/moved}\n")
    page_tool.refresh_setup_cell(book / "book/page.md", book)
    assert "git+https://example.org/moved" in (book / "book/page.md").read_text()
    assert checks.setup_cells(book) == []


@pytest.mark.parametrize("version", ["3.10", "2.7"])
def test_old_python_is_refused(version, tmp_path):
    fake = tmp_path / "python-old"
    fake.write_text(
        f'#!/bin/sh\n[ "$1" = -V ] && echo Python {version} && exit\nexit 1\n'
    )
    fake.chmod(0o755)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text((checks.ROOT / name).read_text())
    command = ["make", "-s", f"PYTHON={fake}", "book"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode != 0
    assert "Python 3.11 or newer is needed" in result.stderr
    assert f"Python {version}" in result.stderr
    assert not (tmp_path / ".venv").exists()
