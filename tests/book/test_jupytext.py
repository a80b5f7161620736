"""JupyterLab with jupytext opens a page, whichever side of the pair is newer."""

import datetime
import os
import shutil
import sys
import types
from pathlib import Path

import nbformat
import pytest
from traitlets import Unicode
from traitlets.config import LoggingConfigurable

from tests.book import checks


class Files(LoggingConfigurable):
    """The part of a Jupyter server's contents manager that jupytext builds on."""

    root_dir = Unicode()
    allow_hidden = False

    def place(self, path):
        return Path(self.root_dir, path.strip("/"))

    def file_exists(self, path):
        return self.place(path).is_file()

    def dir_exists(self, path):
        return self.place(path).is_dir()

    def exists(self, path):
        return self.place(path).exists()

    def get(self, path, content=True, type=None, format=None, require_hash=False):
        place = self.place(path)
        changed = datetime.datetime.fromtimestamp(place.stat().st_mtime, datetime.UTC)
        model = {"path": path, "name": place.name, "last_modified": changed}
        model |= {"type": type, "content": None, "format": format}
        if place.is_dir():
            model["content"] = [
                {"name": p.name, "path": str(p.relative_to(self.root_dir))}
                for p in place.iterdir()
            ]
        elif place.suffix == ".ipynb":
            model["content"] = nbformat.read(place, 4)
        else:
            model["content"] = place.read_text()
        return model


@pytest.fixture
def manager(book, monkeypatch):
    """jupytext's contents manager over a small book; no server is installed."""
    name = "jupyter_server.services.contents.largefilemanager"
    for end in range(1, 5):
        part = ".".join(name.split(".")[:end])
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    sys.modules[name].LargeFileManager = Files
    from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class

    shutil.copy(checks.ROOT / "jupytext.toml", book)
    return build_sync_jupytext_contents_manager_class(Files)(root_dir=str(book))


@pytest.mark.parametrize("newer", [".md", ".ipynb"])
@pytest.mark.parametrize("opened", [".md", ".ipynb"])
def test_page_opens_with_its_outputs(manager, book, newer, opened):
    for suffix in (".md", ".ipynb"):
        when = 2e9 if suffix == newer else 1e9
        os.utime(book / f"book/page{suffix}", (when, when))
    stored = nbformat.read(book / "book/page.ipynb", 4)
    shown = manager.get(f"book/page{opened}", type="notebook")["content"]
    cells = checks.code_cells(shown)
    assert [c.source for c in cells] == [
        checks.reading.source_of(c) for c in checks.code_cells(stored)
    ]
    assert [c.outputs for c in cells] == [c.outputs for c in checks.code_cells(stored)]
