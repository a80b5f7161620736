"""Execute the pages with other versions of the libraries; `make matrix` calls this.

usage: matrix.py [SET ...] [--python 3.12] [--pages PAGE ...] [--jobs 1]

oldest   the lowest versions that pyproject.toml declares, on its lowest Python
newest   the highest that it admits, as Colab has them, on the newest Python here
pinned   those of requirements.txt, on the newest Python here

Each set gets an environment of its own below _build/matrix; it must find its Python
on this machine. The pages run under nbval, with the tools that requirements.txt
pins, and every output is compared with the stored one. What was run, and which
cells disagree, is written to book/matrix.json, from which the book makes a table;
pages that are not named keep the results they have there with the same versions.
With TORCH=cpu in the environment, PyTorch comes without CUDA.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETS = ("oldest", "newest", "pinned")
FOLDER = ROOT / "_build" / "matrix"
RECORD = ROOT / "book" / "matrix.json"
SHOWN = ("torch", "torchvision", "numpy", "scipy", "matplotlib", "scikit-learn")
# What executes and compares the pages; the same in all environments.
TOOLS = ("ipykernel", "jupytext", "nbval", "pytest", "pytest-xdist", "pyyaml")
PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
UV = Path(sys.executable).parent / "uv"
ASK = (
    "import importlib.metadata as m, json, platform as p; print(json.dumps("
    f"[p.python_version(), {{n: m.version(n) for n in {SHOWN!r}}}]))"
)


class MatrixError(Exception):
    """A set that cannot be run; the message says why."""


def uv(*words):
    """Call uv; MatrixError with its words if it fails."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    kept_apart = [str(p) for p in pyenv.glob("versions/*/bin")]  # not on the PATH
    path = os.pathsep.join([os.environ.get("PATH", ""), *kept_apart])
    done = subprocess.run(
        [UV, *words],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise MatrixError(done.stderr.strip())
    return done.stdout.strip()


def pythons():
    """The versions of Python that this machine has and the package admits."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lowest = project["requires-python"].removeprefix(">=")
    found = []
    for version in PYTHONS[PYTHONS.index(lowest) :]:
        try:
            uv("python", "find", "--no-python-downloads", "--no-project", version)
            found.append(version)
        except MatrixError:
            continue
    if lowest not in found:
        raise MatrixError(f"there is no Python {lowest} here, the lowest declared.")
    return found


def tool_pins():
    """The lines of requirements.txt that pin the tools."""
    text = (ROOT / "requirements.txt").read_text("utf-8")
    return [re.search(rf"^{name}==\S+$", text, re.M)[0] for name in TOOLS]


def prepare(name, version):
    """Make the environment of a set; its Python."""
    folder = FOLDER / f"{name}-{version}"
    python = folder / "bin" / "python"
    uv("venv", "-q", "--clear", "--no-python-downloads", "-p", version, folder)
    install = ["pip", "install", "-q", "-p", python]
    if os.environ.get("TORCH"):
        install += ["--torch-backend", os.environ["TORCH"]]
    if name == "pinned":
        uv(*install, "-r", "requirements.txt")
        return python
    resolution = {"oldest": "lowest-direct", "newest": "highest"}[name]
    uv(*install, "--resolution", resolution, "-r", "pyproject.toml", *tool_pins())
    uv(*install, "--no-deps", "-e", ".")
    return python


def execute(python, paths, jobs):
    """{page: {cells, disagreeing: [[number, first words], ...]}} of some pages."""
    report = python.parents[1] / "report.xml"
    report.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    command += ["-n", str(jobs), "--dist", "loadfile", f"--junitxml={report}"]
    command += ["--nbval", "--nbval-current-env", "--nbval-cell-timeout", "300"]
    subprocess.run([*command, *paths], cwd=ROOT)
    if not report.exists():
        raise MatrixError("pytest wrote no report; see above.")
    return read_report(report)


def read_report(report):
    """What ``execute`` returns, from the report that pytest wrote.

    A cell that nbval gave up after a time-out disagrees as well.
    """
    pages = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("classname").replace(".", "/").removesuffix("/ipynb")
        page = pages.setdefault(name, {"cells": 0, "disagreeing": []})
        page["cells"] += 1
        for fault in case:
            if fault.tag not in ("failure", "error", "skipped"):
                continue
            number = int(re.search(r"\d+$", case.get("name"))[0])
            told = re.search(r"Cell \d+: (.+)", fault.text or "")
            what = told[1] if told else fault.get("message", fault.tag)
            page["disagreeing"].append([number, what])
    return pages


def ask(python):
    """The version of a Python, and those of the libraries that it has."""
    done = subprocess.run([python, "-c", ASK], capture_output=True, text=True)
    return json.loads(done.stdout)


def note(name, python, pages):
    """Write what was run to the record; the entry."""
    version, versions = ask(python)
    old = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else []
    entry = {"set": name, "python": version, "versions": versions, "pages": {}}
    for other in old:
        if all(other[key] == entry[key] for key in ("set", "python", "versions")):
            entry["pages"] = other["pages"]
    today = datetime.date.today().isoformat()
    entry["pages"] |= {page: {"run": today} | r for page, r in pages.items()}
    entry["pages"] = dict(sorted(entry["pages"].items()))
    minor = version.rpartition(".")[0] + "."
    rest = [e for e in old if not (e["set"] == name and e["python"].startswith(minor))]
    rest.append(entry)
    rest.sort(key=lambda e: (SETS.index(e["set"]), e["python"]))
    RECORD.write_text(json.dumps(rest, indent=1) + "\n", encoding="utf-8")
    return entry


def main():
    """Run the sets that are named, or all, and print what disagrees."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", default=SETS, metavar="SET")
    parser.add_argument("--python")
    parser.add_argument("--pages", nargs="+", default=["book"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    if not {*args.sets} <= {*SETS}:
        parser.error(f"the sets are {', '.join(SETS)}")
    paths = [
        p if p == "book" else str(Path(p).with_suffix(".ipynb")) for p in args.pages
    ]
    failed = False
    for name in args.sets:
        try:
            here = pythons()
            version = args.python or here[0 if name == "oldest" else -1]
            python = prepare(name, version)
            pages = execute(python, paths, args.jobs)
        except MatrixError as error:
            sys.exit(f"make matrix: {name}: {error}")
        entry = note(name, python, pages)
        bad = [(page, *d) for page, r in pages.items() for d in r["disagreeing"]]
        cells = sum(r["cells"] for r in pages.values())
        print(f"{name}, Python {entry['python']}, {entry['versions']}")
        print(f"{cells - len(bad)} of {cells} cells of {len(pages)} pages agree")
        for page, number, text in bad:
            print(f"  {page}, cell {number}: {text}")
        failed |= bool(bad) or not pages
    sys.exit(failed)


if __name__ == "__main__":
    main()
