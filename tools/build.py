"""Build the HTML book with warnings as errors, and say where it is."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build(quiet=True):
    """Run jupyter-book; its output is shown only when the build fails."""
    command = [Path(sys.executable).parent / "jupyter-book", "build", "book"]
    command += ["--config", ROOT / "_config.yml", "--toc", ROOT / "_toc.yml"]
    command += ["--path-output", ROOT]
    command += ["-W", "--keep-going", "-n"]
    result = subprocess.run(command, cwd=ROOT, capture_output=quiet, text=True)
    if result.returncode or not (ROOT / "_build/html/index.html").exists():
        lines = (result.stdout + result.stderr).splitlines() if quiet else []
        told = [s for s in lines if re.search("WARNING|ERROR|[Ee]rror:", s)] or lines[
            -30:
        ]
        sys.exit("\n".join([*told, "make: the book was not built; see above."]))
    # Sphinx leaves old styles in place when no page has changed.
    shutil.copytree(
        ROOT / "book/_static", ROOT / "_build/html/_static", dirs_exist_ok=True
    )


if __name__ == "__main__":
    build()
    print(f"The book: {ROOT / '_build' / 'html' / 'index.html'}")
