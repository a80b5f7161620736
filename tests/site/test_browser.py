"""A missing browser: a skip with a message on a person's machine, a failure in CI."""

import os
import subprocess
import sys

import pytest

from tests.book import checks

TEST = "tests/site/test_slider.py::test_name_and_role_for_a_screen_reader"


@pytest.mark.parametrize(("value", "code"), [("true", 1), ("", 0)])
def test_no_chromium(value, code):
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PATH": "/nowhere", "CI": value}
    done = subprocess.run(
        [*command, TEST],
        cwd=checks.ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout
    assert ("no Chromium" in done.stdout) and ("1 skipped" in done.stdout) == (
        code == 0
    )


def test_ci_says_that_it_is_ci():
    assert "export CI=true" in (checks.ROOT / ".ci/run").read_text()
