"""The checks over the pages' sources. Each returns a list of complaints.

They take the repository's root, so that tests can hand them damaged books.
"""

import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import pages as page_tool  # noqa: E402

PROVABLE = ("theorem", "lemma", "proposition", "corollary")
DIRECTIVE = re.compile(r"^(:{3,}|`{3,})\{prf:(\w+)\}[^\n]*\n((?::\w+:[^\n]*\n)*)", re.M)
LABEL = re.compile(r"^\(([\w-]+)\)=$", re.M)
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
MAX_LINES, MAX_COLUMNS, MAX_IGNORED = 25, 76, 0.05


def load(root):
    """(name, notebook) of every page that has one."""
    for path in page_tool.find_pages(root):
        target = path.with_suffix(".ipynb")
        if target.exists():
            name = str(path.relative_to(root / "book").with_suffix(""))
            yield name, json.loads(target.read_text(encoding="utf-8"))


def source(cell):
    """A cell's text."""
    return "".join(cell["source"])


def code_cells(book):
    """The code cells of a notebook."""
    return [c for c in book["cells"] if c["cell_type"] == "code"]


def pairs_in_sync(root):
    """NAME.md and NAME.ipynb are the same page."""
    bad = []
    for path in page_tool.find_pages(root):
        target = path.with_suffix(".ipynb")
        name = path.relative_to(root)
        if not target.exists():
            bad.append(f"{name}: never executed; run make update")
            continue
        page_tool_view = json.loads(json.dumps(page_tool.read_source(path, root)))
        stored = json.loads(target.read_text(encoding="utf-8"))
        for book in (page_tool_view, stored):
            for cell in book["cells"]:
                cell["source"] = source(cell)
                cell.pop("outputs", None)
                cell.pop("execution_count", None)
        if page_tool_view["cells"] != stored["cells"]:
            bad.append(f"{name}: differs from its notebook; run make update")
    for target in (root / "book").rglob("*.ipynb"):
        hidden = "_build" in target.parts or ".ipynb_checkpoints" in target.parts
        if not hidden and not target.with_suffix(".md").exists():
            bad.append(f"{target.relative_to(root)}: has no .md side")
    return bad


def executed_in_order(root):
    """Every code cell ran, once, from top to bottom, without error or warning."""
    bad = []
    for name, book in load(root):
        cells = code_cells(book)
        counts = [c["execution_count"] for c in cells]
        if counts != list(range(1, len(cells) + 1)):
            bad.append(f"{name}: execution counts are {counts}")
        for i, cell in enumerate(cells):
            for output in cell["outputs"]:
                if output["output_type"] == "error" or output.get("name") == "stderr":
                    bad.append(f"{name}: code cell {i} shows an error or a warning")
    return bad


def cells_fit(root):
    """No code cell is longer than 25 lines; no code or printed line exceeds 76 columns.

    Wider lines get a scroll bar.
    """
    bad = []
    for name, book in load(root):
        for i, cell in enumerate(code_cells(book)):
            lines = source(cell).splitlines()
            if len(lines) > MAX_LINES:
                bad.append(f"{name}: code cell {i} has {len(lines)} lines")
            bad += [
                f"{name}: code cell {i} has a line of {len(line)} columns"
                for line in lines
                if len(line) > MAX_COLUMNS
            ]
            bad += [
                f"{name}: code cell {i} prints a line of {len(line)} columns"
                for output in cell["outputs"]
                for line in "".join(output.get("text", "")).splitlines()
                if len(line) > MAX_COLUMNS
            ]
    return bad


def setup_cells(root):
    """The first code cell of each page is the setup cell, the same everywhere."""
    setup = page_tool.SETUP.format(url=page_tool.repository_url(root))
    bad = []
    for path in page_tool.find_pages(root):
        blocks = re.findall(
            r"^```\{code-cell\}[^\n]*\n((?:.*\n)*?)```$",
            path.read_text(encoding="utf-8"),
            re.M,
        )
        if not blocks or blocks[0].strip() != f":tags: [setup]\n\n{setup}":
            bad.append(f"{path.relative_to(root)}: the setup cell differs")
    return bad


def alt_texts(root):
    """Every figure has alt text, a caption and a name."""
    bad = []
    for name, book in load(root):
        for i, cell in enumerate(code_cells(book)):
            data = [output.get("data", {}) for output in cell["outputs"]]
            if not any(kind.startswith("image/") for d in data for kind in d):
                continue
            meta = cell["metadata"].get("mystnb", {})
            if not str(meta.get("image", {}).get("alt", "")).strip():
                bad.append(f"{name}: the figure of code cell {i} has no alt text")
            if not {"caption", "name"} <= set(meta.get("figure", {})):
                bad.append(f"{name}: the figure of code cell {i} lacks caption or name")
    return bad


def statements(root):
    """(page, kind, label or None) of every numbered statement."""
    for name, book in load(root):
        for cell in book["cells"]:
            if cell["cell_type"] != "markdown":
                continue
            for _, kind, options in DIRECTIVE.findall(source(cell)):
                label = re.search(r"^:label:\s*(\S+)", options, re.M)
                yield name, kind, label and label[1]


def statements_checked(root):
    """Every statement that can be proved is tested by a cell that can fail."""
    file = root / "book" / "unchecked.yml"
    listed = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    excused = {e["label"]: e.get("why", "") for e in listed}
    known, checked, bad = set(), set(), []
    for name, book in load(root):
        for i, cell in enumerate(code_cells(book)):
            labels = cell["metadata"].get("checks", [])
            checked.update(labels)
            if labels and "assert" not in source(cell):
                bad.append(f"{name}: code cell {i} checks {labels} without an assert")
    for name, kind, label in statements(root):
        if kind == "proof":
            continue
        known.add(label)
        if label is None:
            bad.append(f"{name}: a {kind} has no label")
        elif kind in PROVABLE and label not in checked and label not in excused:
            bad.append(f"{name}: {label} is checked by no cell")
    bad += [f"a cell checks {s}, which does not exist" for s in checked - known]
    for label, why in excused.items():
        if label not in known or label in checked or len(why) < 10:
            bad.append(f"unchecked.yml: {label} is needless or has no reason")
    return bad


def statements_proved(root):
    """Each theorem, lemma, proposition and corollary has a proof or a citation."""
    bad = []
    for name, book in load(root):
        text = "\n\n".join(source(c) for c in book["cells"])
        found = list(DIRECTIVE.finditer(text))
        for i, match in enumerate(found):
            if match[2] not in PROVABLE:
                continue
            label = re.search(r":label:\s*(\S+)", match[3])
            after = found[i + 1][2] if i + 1 < len(found) else ""
            late = label and re.search(
                r"\{prf:proof\}\n\(Of \{prf:ref\}`" + re.escape(label[1]) + "`", text
            )
            end = found[i + 1].start() if i + 1 < len(found) else len(text)
            cited = CITATION.search(text[match.start() : end])
            if after != "proof" and not late and not cited:
                bad.append(f"{name}: {label and label[1]} has no proof and no citation")
    return bad


def topics_mapped(root):
    """Each topic is mapped to a section that exists, or marked unwritten."""
    topics = yaml.safe_load((root / "book/lecture-map.yml").read_text(encoding="utf-8"))
    ids = [t["id"] for t in topics]
    bad = [f"topic {i} is listed twice" for i in set(ids) if ids.count(i) > 1]
    for topic in topics:
        page = topic.get("page")
        if page == "unwritten":
            continue
        path = root / "book" / f"{page}.md"
        if not page or not path.exists():
            bad.append(f"topic {topic['id']}: there is no page {page}")
        elif topic.get("section") not in LABEL.findall(path.read_text("utf-8")):
            bad.append(f"topic {topic['id']}: {page} has no {topic.get('section')}")
    return bad


def citations_resolve(root):
    """Every key that a page cites is in references.bib."""
    bib = (root / "book/references.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", bib, re.M))
    bad = []
    for path in sorted((root / "book").rglob("*.md")):
        if "_build" in path.parts:
            continue
        for group in CITATION.findall(path.read_text(encoding="utf-8")):
            missing = {key.strip() for key in group.split(",")} - keys
            bad += [f"{path.relative_to(root)}: cites unknown {key}" for key in missing]
    return bad


def exceptions_justified(root):
    """Own tolerances and ignored outputs have a reason; few outputs are ignored."""
    bad, total, ignored = [], 0, 0
    for name, book in load(root):
        for i, cell in enumerate(code_cells(book)):
            meta = cell["metadata"]
            total += 1
            ignore = any(
                word in str(meta.get("tags", [])) + source(cell)
                for word in (
                    "nbval-ignore-output",
                    "nbval-skip",
                    "NBVAL_",
                    "raises-exc",
                )
            )
            ignored += ignore
            loose = ignore or {"rtol", "atol", "rms"} & set(meta)
            if loose and len(str(meta.get("why", ""))) < 10:
                bad.append(f"{name}: code cell {i} is compared loosely without a why")
    if ignored > MAX_IGNORED * total:
        bad.append(f"{ignored} of {total} outputs are not compared")
    return bad


def page_structure(root):
    """Title, lead, setup cell, sections; Summary and Further reading at the end."""
    bad = []
    for path in page_tool.find_pages(root):
        name, text = path.relative_to(root), path.read_text(encoding="utf-8")
        body = text.split("\n---\n", 1)[1]
        prose = re.sub(r"^```.*?^```$", "", body, flags=re.S | re.M)
        headings = re.findall(r"^(#+) (.+)$", prose, re.M)
        if [level for level, _ in headings].count("#") != 1:
            bad.append(f"{name}: a page has one title")
        lead = re.match(r"\s*(?:\([\w-]+\)=\n)?# [^\n]+\n\n([A-Z*\[][^\n]{80,})", body)
        if not lead:
            bad.append(f"{name}: no lead below the title")
        last = [title for _, title in headings[-2:]]
        if path.stem != "exercises" and last != ["Summary", "Further reading"]:
            bad.append(f"{name}: ends with {last}, not Summary and Further reading")
    return bad


ALL = (
    pairs_in_sync,
    executed_in_order,
    cells_fit,
    setup_cells,
    alt_texts,
    statements_checked,
    statements_proved,
    topics_mapped,
    citations_resolve,
    exceptions_justified,
    page_structure,
)
