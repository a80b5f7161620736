"""Every check of the book, in order; `make test` calls this.

1. ruff and mypy over the package and the tools
2. one pytest run, in parallel over the cores: the package's unit tests; the
   tests over the pages' sources; nbval, which re-executes every page and compares
   every output; and, in copies of the same kernels, each cell run again where that
   can matter, and the path without the optional sections (twice.py)
3. the HTML build, in which a warning is an error
4. the tests over the built site, in a real browser
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKERS = str(os.cpu_count() or 1)
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
NBVAL = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout", "240"]
# A test that hangs is ended and fails; a browser that hangs gets one more chance.
LIMIT = ["--timeout", "900", "--timeout-method", "signal"]
BROWSER = ["--timeout", "300", "--reruns", "1", "--only-rerun", "from pytest-timeout"]
STEP_SECONDS = 2700
PARALLEL = ["-n", WORKERS, "--dist", "loadfile"]
PAGES = [*PARALLEL, *NBVAL]  # re-executed in parallel
STEPS = {
    "lint": [sys.executable, "-m", "ruff", "check", "--no-cache", "."],
    "types": [sys.executable, "-m", "mypy"],
    "package, sources, pages": [
        *PYTEST,
        *PAGES,
        *LIMIT,
        *("--twice", "--warm"),
        *("book", "tests/package", "tests/book"),
    ],
    "build": [sys.executable, "tools/build.py"],
    "site": [*PYTEST, *PARALLEL, *LIMIT, *BROWSER, "tests/site"],
}


def holds(command):
    """Whether a step succeeds, in the time that it may take."""
    try:
        return subprocess.run(command, cwd=ROOT, timeout=STEP_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"ended: it took more than {STEP_SECONDS} s", flush=True)
        return False


def main():
    """Run all steps, stop at none, fail when one failed."""
    failed = []
    for name, command in STEPS.items():
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        if not holds(command):
            failed.append(name)
        print(f"== {name}: {time.perf_counter() - start:.0f} s", flush=True)
    if failed:
        sys.exit(f"make test: failed: {', '.join(failed)}")
    print("make test: everything holds")


if __name__ == "__main__":
    main()
