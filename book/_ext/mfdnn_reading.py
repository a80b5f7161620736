"""Sphinx extension: the idea stays in view, the apparatus folds.

* Inputs of check cells, drawing cells and the setup cell become ``<details>``,
  closed in a browser, open in print, in the PDF and in the EPUB. Which cells, is
  decided in tools/reading.py from what the cells say themselves.
* A section whose heading ends with "(optional)" shows it as a badge, at the
  heading and in the page's table of contents.
* The heading of a section that treats a topic of the lecture carries the topic's
  number, linked to the lecture map.
"""

import json
import re
import sys
import zlib
from html import escape
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import reading  # noqa: E402

MAP_PAGE = "backmatter/lecture-map"


class Fold(nodes.General, nodes.Element):
    """A summary line and the input of a cell."""


class FoldSummary(nodes.General, nodes.TextElement):
    """What stands in view where the input is folded."""


class Badge(nodes.Inline, nodes.Element):
    """A mark at a heading, which is no part of the heading's text."""


def visit_fold(self, node):
    """Open a disclosure element; a text builder of one page opens it for good."""
    state = "" if self.builder.name in {"html", "dirhtml"} else " open"
    self.body.append(f'<details class="fold fold-{node["kind"]}"{state}>')


def depart_fold(self, node):
    """Close the disclosure element."""
    self.body.append("</details>\n")


def visit_fold_summary(self, node):
    """Open the summary."""
    self.body.append("<summary>")


def depart_fold_summary(self, node):
    """Close the summary."""
    self.body.append("</summary>")


def visit_badge(self, node):
    """Write the badge; its text is not in the tree, so that titles stay clean."""
    text = escape(node["text"])
    if "uri" in node:
        text = f'<a href="{escape(node["uri"])}">{text}</a>'
    self.body.append(f' <span class="{node["kind"]}-badge">{text}</span>')


def visit_badge_latex(self, node):
    """Write the badge in small type."""
    self.body.append(rf" {{\small({node['text']})}}")


def nothing(self, node):
    """Do nothing: the children speak for themselves."""


def skip(self, node):
    """Leave the node out."""
    raise nodes.SkipNode


def reference(docname, label):
    """An unresolved reference to a statement or exercise, as its role makes it."""
    return pending_xref(
        "",
        nodes.inline("", label),
        refdoc=docname,
        refdomain="std" if label.startswith("ex-") else "prf",
        reftype="ref",
        reftarget=label,
        refexplicit=False,
        refwarn=True,
    )


def checks_note(docname, labels):
    """The words "Checks Lemma 1.2 and Theorem 1.3"."""
    note = nodes.inline(classes=["checks-note"])
    note += nodes.Text("Checks ")
    for i, label in enumerate(labels):
        note += nodes.Text(", " if 0 < i < len(labels) - 1 else " and " * (i > 0))
        note += reference(docname, label)
    return note


def summary_of(docname, kind, labels):
    """What is seen where a cell's input is folded."""
    summary = FoldSummary()
    if labels:
        summary += checks_note(docname, labels)
        summary += nodes.Text(": ")
    code = {"setup": "Setup", "figure": "the code of the figure"}.get(kind, "the code")
    action = nodes.inline(classes=["fold-action"])
    shown = code if kind == "setup" else f"{'s' if labels else 'S'}how {code}"
    action += nodes.Text(shown)
    summary += action
    return summary


def fold_cells(app, doctree):
    """Fold inputs; mark the cells that check a statement and stay open."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    kinds = reading.fold_kinds(json.loads(path.read_text(encoding="utf-8")))
    cells = [
        node
        for node in doctree.findall(nodes.container)
        if node.get("nb_element") == "cell_code"
    ]
    for cell, kind in zip(cells, kinds, strict=True):
        inputs = [c for c in cell if c.get("nb_element") == "cell_code_source"]
        for box in inputs:
            drop_form_title(box)
        labels = cell.get("cell_metadata", {}).get("checks", [])
        if kind is None or not inputs:
            if labels:
                note = nodes.paragraph("", "", checks_note(app.env.docname, labels))
                cell.insert(0, note)
            continue
        fold = Fold(kind=kind)
        cell.replace(inputs[0], fold)
        fold += summary_of(app.env.docname, kind, labels)
        fold += inputs[0]


def drop_form_title(box):
    """Leave out the line that Colab shows as the form's title."""
    for block in box.findall(nodes.literal_block):
        text = reading.FORM_TITLE.sub("", block.astext())
        block.rawsource = text
        block.children = []
        block += nodes.Text(text)


class OptionalHeadings(SphinxTransform):
    """Turn "(optional)" at the end of a heading into a badge.

    Runs before Sphinx collects the titles, so that references name the section
    without it.
    """

    default_priority = 700

    def apply(self, **kwargs):
        """Cut the word from the heading's last text and add the badge."""
        for title in self.document.findall(nodes.title):
            last = title.children[-1] if title.children else None
            if not isinstance(last, nodes.Text) or not reading.OPTIONAL.search(last):
                continue
            title.replace(last, nodes.Text(reading.OPTIONAL.sub("", last)))
            title += Badge(kind="optional", text="optional")
            title.parent["classes"].append("optional-section")


def topics_by_section(app):
    """Topic numbers of each section label."""
    path = Path(app.srcdir) / "lecture-map.yml"
    sections = {}
    for topic in yaml.safe_load(path.read_text(encoding="utf-8")):
        if topic["page"] != "unwritten":
            sections.setdefault(topic["section"], []).append(topic["id"])
    return sections


def ranges(ids):
    """Topic numbers in words: "1.09", "1.09 and 1.11", "1.09 to 1.12"."""
    groups = []
    for number in ids:
        chapter, _, k = number.partition(".")
        if groups and groups[-1][1] == (chapter, int(k) - 1):
            groups[-1] = (groups[-1][0], (chapter, int(k)), number)
        else:
            groups.append((number, (chapter, int(k)), number))
    words = []
    for first, (_, last), end in groups:
        width = last - int(first.partition(".")[2])
        joint = " to " if width > 1 else ", "
        words.append(first if first == end else f"{first}{joint}{end}")
    return ", ".join(words)


def mark_topics(app, doctree, docname):
    """Put the lecture's topic numbers beside the headings that treat them."""
    if app.builder.format != "html" or docname == MAP_PAGE:
        return
    sections = topics_by_section(app)
    uri = app.builder.get_relative_uri(docname, MAP_PAGE)
    for section in doctree.findall(nodes.section):
        own = [t for label in section["ids"] for t in sections.get(label, [])]
        title = section.next_node(nodes.title)
        if own and title is not None:
            text = f"Lecture {ranges(own)}"
            title += Badge(kind="topic", text=text, uri=f"{uri}#topic-{own[0]}")


def outdated_pages(app, env, added, changed, removed):
    """Pages whose badges may have changed with the lecture map: all of them."""
    path = Path(app.srcdir) / "lecture-map.yml"
    now = zlib.crc32(path.read_bytes())
    before = getattr(env, "mfdnn_map", None)
    env.mfdnn_map = now
    return [] if before in (None, now) else sorted(env.found_docs)


def setup(app):
    """Register nodes, transforms and events with Sphinx."""
    app.add_node(
        Fold,
        html=(visit_fold, depart_fold),
        latex=(nothing, nothing),
        text=(nothing, nothing),
    )
    app.add_node(
        FoldSummary,
        html=(visit_fold_summary, depart_fold_summary),
        latex=(skip, None),
        text=(skip, None),
    )
    app.add_node(
        Badge,
        html=(visit_badge, nothing),
        latex=(visit_badge_latex, nothing),
        text=(skip, None),
    )
    app.add_transform(OptionalHeadings)
    app.connect("doctree-read", fold_cells)
    app.connect("doctree-resolved", mark_topics)
    app.connect("env-get-outdated", outdated_pages)
    app.add_js_file(None, body=OPEN_AT_ONCE, priority=100)
    return {
        "version": "1",
        "env_version": zlib.crc32(
            Path(__file__).read_bytes() + (TOOLS / "reading.py").read_bytes()
        ),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }


# Whoever left all code open finds it open, before the page is painted.
OPEN_AT_ONCE = re.sub(
    r"\s+",
    " ",
    """try { if (localStorage.getItem("mfdnn-code") === "open")
    document.documentElement.classList.add("code-open"); } catch (e) {}""",
)
