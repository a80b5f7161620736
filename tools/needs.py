"""What a page or a test depends on, found in the sources without executing them.

The files that a Python file imports, directly and through other files of the
repository; those of a page, through its cells; and one digest of the content of
all of them. Imports inside functions count. Where a file imports what cannot be
read off its text, it depends on the whole package. Only content counts, never
the time of a change. Imports nothing but the standard library: it runs at once.
"""

import ast
import functools
import hashlib
import json
import platform
import re
import sys
from pathlib import Path

import reading

ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(r"^```\{code-cell\}[^\n]*\n((?:(?!```)[^\n]*\n)*)```", re.M)
OPTIONS = re.compile(r"\A(?:---\n.*?^---\n|(?::[^\n]*\n)+)", re.M | re.S)
# Who imports these can run modules that its text does not name: everywhere, and
# in tests, which start programs and processes of the package.
UNSEEN = {"importlib", "importlib.import_module", "pkgutil", "runpy"}
STARTS = {"subprocess", "multiprocessing", "torch.multiprocessing"}
ENVIRONMENT = ("requirements.txt", "pyproject.toml")


def digest(*parts):
    """One short name for some texts, byte strings or lists of them."""
    result = hashlib.sha1()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        result.update(b"%d:" % len(data) + data)
    return result.hexdigest()


class Sources:
    """The repository's files as they are now; each is read and parsed once."""

    def __init__(self, root=ROOT):
        """Look at the repository under ``root``."""
        self.root = root
        self.package = root / "mfdnn_src" / "mfdnn"
        self.read = functools.cache(self._read)
        self.uses = functools.cache(self._uses)
        self.module = functools.cache(self._module)
        self.digest = functools.cache(self._digest)

    def _read(self, path):
        """A file's bytes, none if it is gone."""
        try:
            return path.read_bytes()
        except OSError:
            return b""

    @functools.cached_property
    def whole_package(self):
        """All files of the package."""
        return self.under(self.package)

    @functools.cached_property
    def folders(self):
        """Names of the repository's folders that code may read from."""
        return {
            p.name for p in self.root.iterdir() if p.is_dir() and p.name[0] not in "._"
        } - {"mfdnn_src", "tools", "tests", "binder"}

    def under(self, folder):
        """All files of a folder, but what programs leave there."""
        made = {"__pycache__", "_build", ".ipynb_checkpoints"}
        return frozenset(
            p for p in folder.rglob("*") if p.is_file() and not made & set(p.parts)
        )

    def _module(self, name, beside=None):
        """The files that importing a module of the repository runs, or none."""
        parts = name.split(".")
        bases = [self.package.parent, self.root, self.root / "tools"]
        for base in [*bases, *([beside] if beside else [])]:
            found, place = [], base
            for part in parts:
                place = place / part
                file = place.with_suffix(".py")
                init = place / "__init__.py"
                if init.exists() or file.exists():
                    found.append(init if init.exists() else file)
                elif not place.is_dir():
                    break
            if found:
                return found
        return []

    def imported(self, source, beside=None):
        """(files, whether the whole package) that Python text may use."""
        files, whole = set(), False
        package = beside and beside.is_relative_to(self.package)
        unseen = UNSEEN if package else UNSEEN | STARTS
        for node in ast.walk(ast.parse(source)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
                whole |= "mfdnn" in names
            elif isinstance(node, ast.ImportFrom):
                start = node.module or ""
                if node.level:  # beside the file, or above it
                    place = beside
                    for _ in range(node.level - 1):
                        place = place.parent
                    start = ".".join(
                        [*place.relative_to(self.base(place)).parts, start]
                    ).strip(".")
                names = [start, *(f"{start}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                for part in set(node.value.split("/")) & self.folders:
                    files |= self.under(self.root / part)
            elif isinstance(node, ast.Name) and node.id == "__import__":
                whole = True
            for name in names:
                whole |= name in unseen
                files.update(self.module(name, beside))
        return files, whole

    def base(self, place):
        """The folder from which the modules in ``place`` are named."""
        inside = place.is_relative_to(self.package)
        return self.package.parent if inside else self.root

    def _uses(self, path):
        """(files, whether the whole package) that a file of the repository uses."""
        if path.suffix != ".py":
            return frozenset(), False
        try:
            files, whole = self.imported(self.read(path), path.parent)
        except SyntaxError:
            return frozenset(), True
        return frozenset(files), whole

    def closure(self, start, whole=False, named=False):
        """``start`` and all files that these use, directly or not.

        named: only the modules that they name, not what else they may start or read.
        """
        found, left = set(), set(start)
        if whole:
            left |= self.whole_package
        while left:
            path = left.pop()
            found.add(path)
            files, everything = self.uses(path)
            if named:
                files = {f for f in files if f.suffix == ".py"}
            whole |= everything and not named
            left |= files - found
            if whole:
                left |= self.whole_package - found
        return found

    def of_cells(self, cells):
        """All files that the code cells of a page use."""
        files, whole = set(), False
        for cell in cells:
            python = OPTIONS.sub("", cell)
            python = re.sub(r"^(\s*)[%!].*", r"\1pass", python, flags=re.M)
            # The setup cell asks whether the package is there, and no more.
            python = python.replace("import importlib.util\n", "")
            try:
                more, everything = self.imported(python)
            except SyntaxError:
                more, everything = set(), True
            files |= more
            whole |= everything
        return self.closure(files, whole)

    def content(self, files):
        """The digest of some files' names and contents."""
        return digest(*map(self.digest, sorted(files)))

    def _digest(self, path):
        """The digest of one file's name and content."""
        return digest(path.relative_to(self.root).as_posix(), self.read(path))

    def environment(self):
        """The digest of what outputs depend on beside the repository's code."""
        files = [self.root / name for name in ENVIRONMENT]
        return digest(self.content(files), sys.version, platform.machine())


def code_of(path):
    """The code cells of a page's .md side, as texts."""
    return CODE.findall(path.read_text(encoding="utf-8"))


def outputs_key(path, sources):
    """What decides the outputs of the page whose .md side this is."""
    cells = code_of(path)
    return digest(
        *cells, sources.content(sources.of_cells(cells)), sources.environment()
    )


def executed_key(path, sources):
    """What decides whether a page's stored cells run and give their outputs."""
    notebook = json.loads(sources.read(path.with_suffix(".ipynb")) or '{"cells": []}')
    cells = reading.code_cells(notebook)
    return digest(
        outputs_key(path, sources),
        json.dumps(cells, sort_keys=True),
        reading.optional_cells(notebook),
    )
