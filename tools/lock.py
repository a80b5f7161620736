"""Re-pin requirements.txt from the ranges in pyproject.toml and requirements.in."""

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


def main():
    """Resolve for all platforms from Python 3.11 on and write the pins."""
    command = [
        Path(sys.executable).parent / "uv",
        "pip",
        "compile",
        "-q",
        "--universal",
    ]
    command += ["--python-version", "3.11", "pyproject.toml", "-c", "requirements.in"]
    command += ["--extra", "book", "--extra", "test", "--no-header", "--no-annotate"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"make lock: {result.stderr.strip()}")
    cuda = re.compile(r"(nvidia-|cuda-|triton)")
    pins = [s for s in result.stdout.splitlines() if s and not cuda.match(s)]
    (ROOT / "requirements.txt").write_text(HEAD + "\n".join(pins) + "\n")


if __name__ == "__main__":
    main()
