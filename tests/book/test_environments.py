"""The environments of Binder and of `make matrix`."""

import json
import re
import sys

import pytest

from tests.book.checks import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import matrix

REPORT = """\
<testsuites><testsuite>
<testcase classname="book.ch1.some-page.ipynb" name="Cell 0" time="1"/>
<testcase classname="book.ch1.some-page.ipynb" name="Cell 12" time="1">
<failure message="failed">#x1B[94mCell 12: Cell outputs differ

Input: ...</failure></testcase>
<testcase classname="book.ch1.some-page.ipynb" name="Cell 13" time="1">
<skipped type="pytest.xfail" message="Previous cell timed out"/></testcase>
<testcase classname="book.ch2.other.ipynb" name="Cell 0" time="1"/>
</testsuite></testsuites>
"""
VERSIONS = dict.fromkeys(matrix.SHOWN, "1.0")


def lines(name):
    """The lines of a file of the repository."""
    return (ROOT / name).read_text("utf-8").splitlines()


def test_binder_has_the_pinned_versions():
    tested = {line.split(" ;")[0] for line in lines("requirements.txt")}
    pins = [line for line in lines("binder/pins.txt") if not line.startswith("#")]
    assert {"torch", "numpy", "matplotlib"} <= {p.split("==")[0] for p in pins}
    assert [p for p in pins if p not in tested] == []


def test_binder_has_the_uv_of_the_makefile():
    (version,) = re.findall(
        r"^UV_VERSION := (\S+)$", "\n".join(lines("Makefile")), re.M
    )
    assert f"      - uv=={version}" in lines("binder/environment.yml")


def test_tools_of_the_matrix_are_pinned():
    pins = matrix.tool_pins()
    assert [p.split("==")[0] for p in pins] == list(matrix.TOOLS)
    assert {*pins} <= {*lines("requirements.txt")}


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A record elsewhere, with an environment that needs no installation."""
    path = tmp_path / "matrix.json"
    monkeypatch.setattr(matrix, "RECORD", path)
    monkeypatch.setattr(matrix, "ask", lambda python: ("3.11.7", dict(VERSIONS)))
    return path


@pytest.fixture
def pages(tmp_path):
    """What the report of two pages says."""
    (tmp_path / "report.xml").write_text(REPORT)
    return matrix.read_report(tmp_path / "report.xml")


def test_report_says_which_cells_disagree(pages):
    assert pages == {
        "book/ch1/some-page": {
            "cells": 3,
            "disagreeing": [
                [12, "Cell outputs differ"],
                [13, "Previous cell timed out"],
            ],
        },
        "book/ch2/other": {"cells": 1, "disagreeing": []},
    }


def test_pages_run_later_join_those_run_before(record, pages):
    matrix.note("oldest", None, {"book/ch1/first": {"cells": 9, "disagreeing": []}})
    entry = matrix.note("oldest", None, pages)
    assert list(entry["pages"]) == ["book/ch1/first", *sorted(pages)]
    assert json.loads(record.read_text()) == [entry]


def test_results_with_other_versions_are_dropped(record, pages, monkeypatch):
    matrix.note("oldest", None, {"book/ch1/first": {"cells": 9, "disagreeing": []}})
    newer = VERSIONS | {"torch": "2.0"}
    monkeypatch.setattr(matrix, "ask", lambda python: ("3.11.9", newer))
    entry = matrix.note("oldest", None, pages)
    assert list(entry["pages"]) == sorted(pages)
    assert json.loads(record.read_text()) == [entry]


def test_sets_and_pythons_stand_side_by_side(record, pages, monkeypatch):
    matrix.note("newest", None, pages)
    matrix.note("oldest", None, pages)
    monkeypatch.setattr(matrix, "ask", lambda python: ("3.13.0", dict(VERSIONS)))
    matrix.note("newest", None, pages)
    found = [(e["set"], e["python"]) for e in json.loads(record.read_text())]
    assert found == [("oldest", "3.11.7"), ("newest", "3.11.7"), ("newest", "3.13.0")]


def test_set_that_is_unknown(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["matrix.py", "ancient"])
    with pytest.raises(SystemExit):
        matrix.main()
    assert "oldest, newest, pinned" in capsys.readouterr().err


def test_installation_that_fails_says_why():
    with pytest.raises(matrix.MatrixError, match="no-such-folder"):
        matrix.uv("venv", "-q", "-p", "/no-such-folder/python", "/no-such-folder/env")
