"""`make page` and `make update`: what they store, and what they refuse."""

import json
import subprocess
import sys

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
