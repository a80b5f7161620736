"""Sphinx extension of the book: what ties statements, cells and topics together.

* hides the .md side of each paired page, so that Sphinx reads the executed one
* ``:::{figure-of} PAGE NAME`` shows a figure of a page on another one
* ``:::{lecture-map}``, ``:::{errata}``, ``:::{theorem-index}``, ``:::{records}``
  ``:::{verification-report}`` and ``:::{matrix}`` print tables made from the
  book's own files
"""

import base64
import json
import os
import re
import sys
import zlib
from pathlib import Path

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from mfdnn import records
from sphinx.environment.collectors.toctree import TocTreeCollector
from sphinx.util.docutils import SphinxDirective

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import reading  # noqa: E402

CHAPTERS = {
    "1": "Optimization and stochastic gradient descent",
    "2": "Shallow networks to multilayer perceptrons",
    "3": "Convolutional networks",
    "4": "Convolutional networks for other supervised tasks",
    "5": "Unsupervised learning and generative models",
    "A": "Appendix: Monte Carlo and stochastic gradients",
}


def twins(source):
    """Names (relative to the book) of the .md sides of all paired pages."""
    return [
        str(path.with_suffix(".md").relative_to(source))
        for path in sorted(source.rglob("*.ipynb"))
        if path.with_suffix(".md").exists() and "_build" not in path.parts
    ]


def hide_twins(app, config):
    """Exclude the .md sides; runs before Sphinx looks for sources."""
    config.exclude_patterns = [*config.exclude_patterns, *twins(Path(app.srcdir))]


def checked_labels(metadata):
    """Labels of the statements that a cell checks."""
    return list(metadata.get("checks", []))


def set_apart_proofs(app, doctree):
    """Set the word "Proof." in italics, and keep it from the text's own words."""
    for box in doctree.findall(nodes.admonition):
        first = next(iter(box.findall(nodes.Text)), None)
        if "proof" in box["classes"] and first and first.startswith("Proof. "):
            rest = nodes.Text(first.removeprefix("Proof. "))
            first.parent.replace(
                first, [nodes.emphasis("", "Proof."), nodes.Text(" "), rest]
            )


def set_theme(app, config):
    """Theme options that Jupyter Book has no name for."""
    config.html_theme_options.update(navbar_persistent=[], show_toc_level=2)


def letter_appendices(app, env):
    """Number the appendix in ``appendix-a-NAME`` A, its pages A.1, ...

    Runs after the chapters are counted, and counts figures and statements again.
    """
    pages = [page for page in env.toc_secnumbers if page.startswith("appendix-")]
    for page in pages:
        letter = page.split("-")[1].upper()
        numbers = env.toc_secnumbers[page]
        for anchor, number in numbers.items():
            numbers[anchor] = number and (letter, *number[1:])
        for node in [env.titles[page], *env.tocs[page].findall(nodes.reference)]:
            if number := node.get("secnumber"):
                node["secnumber"] = [letter, *number[1:]]
    TocTreeCollector().assign_figure_numbers(env)
    return pages


def drop_thebe(app, pagename, templatename, context, doctree):
    """Leave out the scripts of live cells while they are switched off."""
    if not app.config.html_theme_options.get("launch_buttons", {}).get("thebe"):
        scripts = context.get("script_files", [])
        context["script_files"] = [s for s in scripts if not about_thebe(s)]


def about_thebe(script):
    """Whether a script file or an inline script belongs to sphinx-thebe."""
    body = getattr(script, "attributes", {}).get("body") or ""
    return "thebe" in f"{getattr(script, 'filename', script)}{body}".lower()


PUNCTUATION = re.compile(r"[.,;:!?)\]\u2019\u201d\u2013-]+\w*")


def keep_punctuation_with_formulas(app, doctree, docname):
    """Let no line begin with the full stop or comma that ends a formula."""
    for formula in list(doctree.findall(nodes.math)):
        parent = formula.parent
        at = parent.index(formula)
        after = parent[at + 1] if at + 1 < len(parent) else None
        found = isinstance(after, nodes.Text) and PUNCTUATION.match(after)
        if not found:
            continue
        parent.remove(formula)
        parent.replace(after, nodes.Text(after[found.end() :]))
        box = nodes.inline("", "", formula, nodes.Text(found[0]), classes=["nobr"])
        parent.insert(at, box)


def drop_repeated_ids(app, doctree, docname):
    """Drop the ids that sphinx-proof and sphinx-exercise give to every box."""
    repeated = {"proof", "proof-content", "exercise-content", "solution-content"}
    for node in doctree.findall(nodes.Element):
        if repeated & set(node.get("ids", [])):
            node["ids"] = [s for s in node["ids"] if s not in repeated]


class MarkdownTable(SphinxDirective):
    """A directive whose content is Markdown made by ``lines()``."""

    def run(self):
        """Parse the generated Markdown where the directive stands."""
        parent = nodes.container(classes=["generated-table"])
        source = StringList(self.lines(), source=self.env.docname)
        self.state.nested_parse(source, self.content_offset, parent)
        return parent.children

    def read(self, name):
        """A YAML file of the book, noted as a dependency of this page."""
        path = Path(self.env.srcdir) / name
        self.env.note_dependency(str(path))
        return yaml.safe_load(path.read_text(encoding="utf-8")) or []

    def notebooks(self):
        """(document name, notebook) of each page in the order of the book."""
        toc = Path(self.config.external_toc_path)
        for name in listed(yaml.safe_load(toc.read_text(encoding="utf-8"))):
            path = Path(self.env.srcdir) / f"{name}.ipynb"
            if path.exists():
                self.env.note_dependency(str(path))
                yield name, json.loads(path.read_text(encoding="utf-8"))

    def lines(self):
        """The Markdown lines; each table defines its own."""
        raise NotImplementedError


def listed(toc):
    """All files named in a table of contents, in order."""
    if isinstance(toc, dict):
        if "file" in toc:
            yield toc["file"]
        toc = list(toc.values())
    if isinstance(toc, list):
        for entry in toc:
            yield from listed(entry)


class LectureMap(MarkdownTable):
    """Every topic of the lecture, with the section that treats it."""

    def lines(self):
        """One table a chapter."""
        topics = self.read("lecture-map.yml")
        out = []
        for key, title in CHAPTERS.items():
            own = [t for t in topics if t["id"].split(".")[0] == key]
            done = [t for t in own if t["page"] != "unwritten"]
            name = title if key == "A" else f"Chapter {key}: {title}"
            out += [f"**{name}** ({len(done)} of {len(own)} topics written)", ""]
            if not done:
                continue
            out += ["| Topic | Title in the lecture | Where |", "|---|---|---|"]
            for t in own:
                where = "not written yet"
                if t["page"] != "unwritten":
                    where = f"{{ref}}`{t['section']}`"
                anchor = f"<span id='topic-{t['id']}'></span>{t['id']}"
                out.append(f"| {anchor} | {t['title']} | {where} |")
            out.append("")
        return out


ERRATA = {
    "error": ("Errors", "Right is"),
    "precision": ("Loose statements", "More precisely"),
}


class Errata(MarkdownTable):
    """Where the lecture text is wrong or loose, and the section that shows it."""

    def run(self):
        """One section a kind, errors first, with the number of entries."""
        out = []
        for kind, (title, _) in ERRATA.items():
            lines = self.lines(kind)
            count = sum(line.startswith("Topic ") for line in lines)
            section = nodes.section(ids=[f"errata-{kind}"])
            section += nodes.title("", f"{title} ({count})")
            source = StringList(lines, source=self.env.docname)
            self.state.nested_parse(source, self.content_offset, section)
            out.append(section)
        return out

    def lines(self, kind):
        """A definition list, one entry a term, in the order of the file."""
        out = []
        for entry in self.read("errata.yml"):
            if entry["kind"] == kind:
                right, section = entry["right"], entry["section"]
                out += [
                    f"Topic {entry['topic']}: {entry['title']}",
                    f": *The lecture says*: {entry['says']}",
                    "",
                    f"  *{ERRATA[kind][1]}*: {right} See {{ref}}`{section}`.",
                    "",
                ]
        return out


STATEMENTS = ("theorem", "lemma", "proposition", "corollary", "definition", "algorithm")


def statements(notebook):
    """(kind, title, label) of each labelled statement of a page, in order."""
    for found in reading.page_directives(notebook):
        if found.numbered and found.label and found.kind in STATEMENTS:
            yield found.kind, found.title, found.label


def cell_labels(notebook):
    """Labels that the cells of a page check, with repetition."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            yield from checked_labels(cell["metadata"])


class TheoremIndex(MarkdownTable):
    """All numbered statements, with what checks them."""

    def lines(self):
        """One row a statement, in the order of the book."""
        books = list(self.notebooks())
        checks = [label for _, book in books for label in cell_labels(book)]
        unchecked = {e["label"]: e["why"] for e in self.read("unchecked.yml")}
        out = ["| Statement | Name | Checked by |", "|---|---|---|"]
        for _, book in books:
            for kind, title, label in statements(book):
                count = checks.count(label)
                how = f"{count} cell{'s' * (count > 1)}"
                if not count:
                    how = unchecked.get(label, f"({kind})")
                out.append(f"| {{prf:ref}}`{label}` | {title} | {how} |")
        return out


class VerificationReport(MarkdownTable):
    """What is executed and compared on each page, counted from the notebooks."""

    def lines(self):
        """One row a page."""
        out = [
            "| Page | Cells | Printed outputs compared | Figures compared "
            "| Statements checked | Outputs not compared |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for name, book in self.notebooks():
            code = [c for c in book["cells"] if c["cell_type"] == "code"]
            outputs = [o for c in code for o in c["outputs"]]
            figures = sum("image/png" in o.get("data", {}) for o in outputs)
            ignored = sum(
                "nbval-ignore-output" in c["metadata"].get("tags", []) for c in code
            )
            out.append(
                f"| {{doc}}`/{name}` | {len(code)} | {len(outputs) - figures} "
                f"| {figures} | {len(set(cell_labels(book)))} | {ignored} |"
            )
        return out


class Matrix(MarkdownTable):
    """What agreed with other versions of the libraries, as ``make matrix`` found."""

    def lines(self):
        """One row an environment, and below the table each cell that disagrees."""
        out = [
            "| Versions | Python | Libraries | Pages run | Cells that agree | Run |",
            "|---|---|---|---:|---:|---|",
        ]
        names = [name for name, _ in self.notebooks()]
        below = []
        for e in self.read("matrix.json"):
            pages, v = e["pages"], e["versions"]
            bad = [(page, n) for page, r in pages.items() for n, _ in r["disagreeing"]]
            cells = sum(r["cells"] for r in pages.values())
            days = sorted({r["run"] for r in pages.values()})
            out.append(
                f"| {e['set']} | {e['python']} | PyTorch {v['torch']}, "
                f"NumPy {v['numpy']}, SciPy {v['scipy']}, "
                f"Matplotlib {v['matplotlib']}, scikit-learn {v['scikit-learn']} "
                f"| {len(pages)} of {len(names)} | {cells - len(bad)} of {cells} "
                f"| {' to '.join({days[0]: 0, days[-1]: 0})} |"
            )
            for page, n in bad:
                name = page.removeprefix("book/")
                below.append(
                    f"* {e['set']}, Python {e['python']}: cell {n} of {{doc}}`/{name}`"
                )
        return [*out, "", *(["These cells disagree:", "", *below] if below else [])]


class Records(MarkdownTable):
    """The full-scale runs, from the repository's folder of records."""

    def lines(self):
        """A definition list, one entry a run, with its picture if it has one."""
        out = []
        folder = Path(self.env.srcdir).parent / "records"
        for path in folder.glob("*"):
            self.env.note_dependency(str(path))
        for record in records.runs(where=folder):
            name = f"{record.recipe}{record.variant}"
            out += [f"`{name}`", f": {record.about} {records.sentence(record)}", ""]
            if (folder / f"{name}.png").exists():
                picture = f"![Made by {name} after training.](../../records/{name}.png)"
                out += [f"  {picture}", ""]
        return out or ["There are no records yet."]


class FigureOf(SphinxDirective):
    """A figure that the cell of another page has drawn, with a caption of its own."""

    required_arguments = 2  # the page, and the name of its figure
    has_content = True

    def run(self):
        """A figure in the place of a cell's output; the picture is the stored one."""
        page, name = self.arguments
        path = Path(self.env.srcdir) / f"{page}.ipynb"
        self.env.note_dependency(str(path))
        shown = stored_figure(json.loads(path.read_text(encoding="utf-8")), name)
        if shown is None:
            raise self.error(f"{page} has no figure {name}")
        picture, alt = shown
        file = Path(self.env.app.outdir).parent / "jupyter_execute" / f"{name}-of.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture)
        here = Path(self.env.doc2path(self.env.docname)).parent
        image = nodes.image(uri=os.path.relpath(file, here), alt=alt)
        caption = nodes.caption()
        caption += self.parse_inline(" ".join(self.content), lineno=self.lineno)[0]
        return [
            nodes.container(
                "", nodes.figure("", image, caption), classes=["cell_output"]
            )
        ]


def stored_figure(notebook, name):
    """The PNG and the alternative text of a notebook's figure of that name."""
    for cell in notebook["cells"]:
        shown = cell["metadata"].get("mystnb", {})
        if shown.get("figure", {}).get("name") == name:
            for output in cell["outputs"]:
                if "image/png" in output.get("data", {}):
                    png = "".join(output["data"]["image/png"])
                    return base64.b64decode(png), shown["image"]["alt"]
    return None


def setup(app):
    """Register everything with Sphinx."""
    app.connect("config-inited", hide_twins, priority=100)
    app.connect("config-inited", set_theme)
    app.connect("env-get-updated", letter_appendices, priority=900)
    app.connect("doctree-read", set_apart_proofs)
    app.connect("doctree-resolved", drop_repeated_ids)
    app.connect("doctree-resolved", keep_punctuation_with_formulas)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.add_directive("figure-of", FigureOf)
    app.add_directive("lecture-map", LectureMap)
    app.add_directive("errata", Errata)
    app.add_directive("matrix", Matrix)
    app.add_directive("records", Records)
    app.add_directive("theorem-index", TheoremIndex)
    app.add_directive("verification-report", VerificationReport)
    return {
        "version": "1",
        "env_version": zlib.crc32(Path(__file__).read_bytes()),  # rebuild on change
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
