"""Build the HTML book with warnings as errors, and say where it is.

usage: build.py                 the whole book
       build.py --check [PAGE]  look for warnings only: read what has changed, write
                                the named pages (without names: all that changed)
                                and resolve the references of all others

A check keeps what it read in a folder of its own and reads again every file whose
content differs from what it read, whatever the clock says. What it found wrong is
not kept, so that a second check finds it again.
"""

import hashlib
import io
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def build(quiet=True):
    """Run jupyter-book; its output is shown only when the build fails."""
    command = [Path(sys.executable).parent / "jupyter-book", "build", "book"]
    command += ["--config", ROOT / "_config.yml", "--toc", ROOT / "_toc.yml"]
    command += ["--path-output", ROOT]
    command += ["-W", "--keep-going", "-n"]
    result = subprocess.run(command, cwd=ROOT, capture_output=quiet, text=True)
    if result.returncode or not (ROOT / "_build/html/index.html").exists():
        # Sphinx would keep quiet about a page that it has read.
        shutil.rmtree(ROOT / "_build/.doctrees", ignore_errors=True)
        lines = (result.stdout + result.stderr).splitlines() if quiet else []
        told = [s for s in lines if re.search("WARNING|ERROR|[Ee]rror:", s)] or lines[
            -30:
        ]
        sys.exit("\n".join([*told, "make: the book was not built; see above."]))
    # Sphinx leaves old styles in place when no page has changed.
    shutil.copytree(
        ROOT / "book/_static", ROOT / "_build/html/_static", dirs_exist_ok=True
    )


def digest(path):
    """A file's content in short; of a file that is gone, nothing."""
    try:
        return hashlib.sha1(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def sources(env, docname):
    """The content, in short, of all files that a document was read from."""
    files = [Path(env.doc2path(docname)), *env.dependencies.get(docname, ())]
    paths = sorted({os.path.normpath(Path(env.srcdir) / file) for file in files})
    return {path: digest(Path(path)) for path in paths}


class Checker:
    """The book in Sphinx's hands; what it reads is kept in ``folder``."""

    def __init__(self, root=ROOT, folder=None):
        """Load what was read before; nothing is read yet."""
        from jupyter_book.config import get_final_config
        from sphinx.application import Sphinx

        self.folder = folder or root / "_build/check"
        self.told = io.StringIO()
        settings, _ = get_final_config(
            user_yaml=root / "_config.yml",
            sourcedir=root / "book",
            cli_config={
                "external_toc_path": str(root / "_toc.yml"),
                "latex_individualpages": False,
                "nitpicky": True,
            },
        )
        self.app = Sphinx(
            srcdir=root / "book",
            confdir=None,
            outdir=self.folder / "html",
            doctreedir=self.folder / ".doctrees",
            buildername="html",
            confoverrides=settings,
            status=None,
            warning=self.told,
        )
        self.app.builder.search = False
        self.env = self.app.env

    def read(self, named):
        """Read what is named or has changed; returns the changed documents."""
        known = getattr(self.env, "mfdnn_sources", {})
        changed = {n for n in known if sources(self.env, n) != known[n]}
        self.app.connect("env-get-outdated", lambda *_: changed | set(named))
        done = set(self.app.builder.read()) | changed
        done |= set(self.env.check_dependents(self.app, done))  # numbers changed
        self.env.mfdnn_sources = {n: sources(self.env, n) for n in self.env.found_docs}
        self.env.check_consistency()
        return (done | set(named)) & self.env.found_docs

    def write(self, docnames):
        """Write the documents as HTML, resolve the references of all others."""
        from sphinx.util.build_phase import BuildPhase

        builder = self.app.builder
        self.app.phase = BuildPhase.RESOLVING
        builder.prepare_writing(docnames)
        for docname in sorted(docnames):
            doctree = self.env.get_and_resolve_doctree(docname, builder)
            builder.write_doc_serialized(docname, self.env.get_doctree(docname))
            builder.write_doc(docname, doctree)

    def resolve(self, docnames):
        """Resolve the references of documents that are not written."""
        for docname in sorted(docnames):
            self.env.get_and_resolve_doctree(docname, self.app.builder)

    def keep(self):
        """Keep what was read, in one step."""
        draft = self.folder / ".doctrees/environment.part"
        with draft.open("wb") as file:
            pickle.dump(self.env, file, pickle.HIGHEST_PROTOCOL)
        os.replace(draft, self.folder / ".doctrees/environment.pickle")

    def warnings(self):
        """What Sphinx has complained about, one warning a text."""
        text = ANSI.sub("", self.told.getvalue()).replace(f"{ROOT}{os.sep}", "")
        return [line for line in text.splitlines() if line.strip()]


def check(names=()):
    """The warnings that pages cause; without names, those of the whole book."""
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    with patch_docutils(None), docutils_namespace():
        checker = Checker()
        names = [str(Path(n).relative_to("book")) for n in names]
        try:
            read = checker.read(names)
        except Exception as error:
            where = checker.env.temp_data.get("docname", "the book")
            return [f"{where} cannot be read: {type(error).__name__}: {error}"]
        checker.write(names or read)
        if not names:
            checker.resolve(checker.env.found_docs - read)
        found = checker.warnings()
        if names:  # others' warnings are theirs, and are found when they are named
            own = re.compile(rf"book/({'|'.join(map(re.escape, names))})\.(ipynb|md)\b")
            elsewhere = re.compile(r"book/[\w/-]+\.(ipynb|md)\b")
            found = [w for w in found if own.match(w) or not elsewhere.match(w)]
        if names or not found:
            checker.keep()
        else:
            shutil.rmtree(checker.folder, ignore_errors=True)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        found = check(sys.argv[2:])
        sys.exit("\n".join(found) if found else 0)
    build()
    print(f"The book: {ROOT / '_build' / 'html' / 'index.html'}")
