"""Re-pin requirements.txt from the ranges in pyproject.toml and requirements.in.

binder/pins.txt gets those of the same pins that pages need, and nothing else.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# The tested environment: exact versions, for every platform (markers tell).
# Made by `make lock` from the ranges in pyproject.toml; do not edit by hand.
# The CUDA libraries are left to torch, which pins them itself.
-e .
"""


BINDER = """\
# What pages import, as pinned in requirements.txt, for Binder's image.
# Made by `make lock`; do not edit by hand.
"""
CUDA = re.compile(r"(nvidia-|cuda-|triton)")


def pins(constraints, *options):
    """The pins that uv finds for pyproject.toml, without those of CUDA."""
    command = [Path(sys.executable).parent / "uv", "pip", "compile", "-q"]
    command += ["--python-version", "3.11", "pyproject.toml", *options]
    command += ["--no-header", "--no-annotate", "-c", "-"]
    result = subprocess.run(
        command, cwd=ROOT, input=constraints, capture_output=True, text=True
    )
    if result.returncode:
        sys.exit(f"make lock: {result.stderr.strip()}")
    found = [s for s in result.stdout.splitlines() if s and not CUDA.match(s)]
    return "\n".join(found) + "\n"


def binder_pins(book):
    """Those of the book's pins that its pages need on Binder."""
    return pins(book, "--python-platform", "linux")


def main():
    """Resolve for all platforms from Python 3.11 on and write the pins."""
    wanted = (ROOT / "requirements.in").read_text()
    book = pins(wanted, "--universal", "--extra", "book", "--extra", "test")
    (ROOT / "requirements.txt").write_text(HEAD + book)
    (ROOT / "binder" / "pins.txt").write_text(BINDER + binder_pins(book))


if __name__ == "__main__":
    main()
