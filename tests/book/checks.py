"""The checks over the pages' sources. Each returns a list of complaints.

They take the repository's root, so that tests can hand them damaged books.

usage: checks.py PAGE [PAGE ...]    print what all checks say about these pages
"""

import functools
import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import pages as page_tool  # noqa: E402
import reading  # noqa: E402

PROVABLE = ("theorem", "lemma", "proposition", "corollary")
LABEL = re.compile(r"^\(([\w-]+)\)=$", re.M)
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
REFERENCE = re.compile(r"\{(?:prf:ref|eq|numref|ref)\}`(?:[^`<]*<)?([\w:-]+)>?`")
DEFINED = re.compile(r"^:label:[ \t]*(\S+)|\$\$[ \t]*\(([\w:-]+)\)", re.M)
GENERATOR = re.compile(
    r"^\s*(\w+) = .*\b(?:Generator|default_rng|Random|RandomState)\(", re.M
)
MAX_LINES, MAX_COLUMNS, MAX_IGNORED = 25, 76, 0.05
MIN_DRAW = 20  # characters of the reason why a cell needs its draw (tools/seeds.py)


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


@functools.cache
def parsed(path, root, text):
    """The notebook of a page whose .md side has this text; not to be changed.

    None where a cell is no Python, which ``pairs_in_sync`` reports.
    """
    try:
        return page_tool.read_source(path, root)
    except page_tool.PageError:
        return None


def written(root):
    """(name, notebook) of every page, from its .md side."""
    for path in page_tool.find_pages(root):
        name = str(path.relative_to(root / "book").with_suffix(""))
        book = parsed(path, root, path.read_text(encoding="utf-8"))
        if book:
            yield name, book


def first_line(cell):
    """A cell's first line that is code, to find it by."""
    lines = [line.strip() for line in reading.source_of(cell).splitlines()]
    return next(
        (x for x in lines if x and not x.startswith(("#", "import", "from"))), ""
    )


def pairs_in_sync(root):
    """NAME.md and NAME.ipynb are the same page."""
    bad = []
    for path in page_tool.find_pages(root):
        target = path.with_suffix(".ipynb")
        name = path.relative_to(root)
        if not target.exists():
            bad.append(f"{name}: never executed; run make update")
            continue
        fresh = parsed(path, root, path.read_text(encoding="utf-8"))
        if fresh is None:
            bad.append(f"{name}: a cell has a syntax error")
            continue
        page_tool_view = json.loads(json.dumps(fresh))
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

    The line with a folded cell's title counts. Wider lines get a scroll bar.
    """
    bad = []
    for name, book in load(root):
        for i, cell in enumerate(code_cells(book)):
            lines = reading.source_of(cell).splitlines()
            total = len(source(cell).splitlines())
            if total > MAX_LINES:
                title = " with its title" if total > len(lines) else ""
                bad.append(f"{name}: code cell {i} has {total} lines{title}")
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
    setup = page_tool.setup_cell(root)
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
        for found in reading.page_directives(book):
            if found.numbered:
                yield name, found.kind, found.label


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
        found = [d for d in reading.directives(text) if d.numbered]
        for i, statement in enumerate(found):
            label = statement.label
            if statement.kind not in PROVABLE:
                continue
            after = found[i + 1].kind if i + 1 < len(found) else ""
            late = label and re.search(
                r"\{prf:proof\}\n\(Of \{prf:ref\}`" + re.escape(label) + "`", text
            )
            end = found[i + 1].start if i + 1 < len(found) else len(text)
            cited = CITATION.search(text[statement.start : end])
            if after != "proof" and not late and not cited:
                bad.append(f"{name}: {label} has no proof and no citation")
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
    """Own tolerances, draws and ignored outputs have a reason; few are ignored."""
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
            if "draw" in meta and len(str(meta["draw"])) < MIN_DRAW:
                bad.append(f"{name}: code cell {i} does not say why it needs its draw")
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
        exercises = path.stem.startswith("exercises")
        if not exercises and last != ["Summary", "Further reading"]:
            bad.append(f"{name}: ends with {last}, not Summary and Further reading")
    return bad


def optional_labels(root):
    """{label: page} of statements, equations and figures in optional sections."""
    labels = {}
    for name, book in written(root):
        for number, text, optional in reading.segments(book):
            if not optional:
                continue
            meta = book["cells"][number]["metadata"]
            figure = meta.get("mystnb", {}).get("figure", {})
            found = [a or b for a, b in DEFINED.findall(text)]
            labels.update(dict.fromkeys([*found, figure.get("name")], name))
    return labels


def names_from_optional(book):
    """(number of a code cell on the path, name, number of the optional cell)."""
    cells = reading.code_cells(book)
    names = [reading.names_of(reading.source_of(cell)) for cell in cells]
    optional = reading.optional_cells(book)
    last, generators = {}, set()  # name: the cell that gave it its value
    for number, (cell, own) in enumerate(zip(cells, names, strict=True)):
        if not optional[number]:
            needed = own.reads | own.changes - own.sets
            for name in sorted(needed & last.keys()):
                if optional[last[name]]:
                    yield number, name, last[name]
        drawn_from = own.reads & generators  # drawing changes a generator
        last.update(dict.fromkeys(own.sets | own.changes | drawn_from, number))
        generators -= own.sets
        generators |= set(GENERATOR.findall(reading.source_of(cell)))


def path_stands_alone(root):
    """Nothing outside the optional sections needs what one of them defines."""
    labels, bad = optional_labels(root), []
    for name, book in written(root):
        if name.rpartition("/")[2].startswith("exercises"):
            continue
        cells = reading.code_cells(book)
        for number, text, optional in reading.segments(book):
            if optional:
                continue
            meta = book["cells"][number]["metadata"]
            caption = meta.get("mystnb", {}).get("figure", {}).get("caption", "")
            for label in REFERENCE.findall(f"{text}\n{caption}"):
                if label in labels:
                    where = labels[label] if labels[label] != name else "this page"
                    bad.append(
                        f"{name}: the path refers to {label}, which is in an "
                        f"optional section of {where}"
                    )
        for number, variable, source_number in names_from_optional(book):
            bad.append(
                f"{name}: code cell {number} ({first_line(cells[number])}) reads "
                f"{variable}, which the optional code cell {source_number} sets or "
                "changes"
            )
    return bad


def topics_on_the_path(root):
    """No section that treats a topic of the lecture is optional."""
    topics = yaml.safe_load((root / "book/lecture-map.yml").read_text(encoding="utf-8"))
    optional = {
        (name, label)
        for name, book in written(root)
        for _, text, is_optional in reading.segments(book)
        if is_optional
        for label in LABEL.findall(text)
    }
    return [
        f"{t['page']}: topic {t['id']} is treated in {t['section']}, which is optional"
        for t in topics
        if (t.get("page"), t.get("section")) in optional
    ]


def check_cells_define_nothing(root):
    """A definition that a later cell uses is an idea: it stands in an open cell."""
    bad = []
    for name, book in written(root):
        cells = reading.code_cells(book)
        names = [reading.names_of(reading.source_of(cell)) for cell in cells]
        for number, cell in enumerate(cells):
            used = names[number].defines & reading.used_later(names, number)
            if cell["metadata"].get("checks") and used:
                bad.append(
                    f"{name}: code cell {number} ({first_line(cell)}) checks, and "
                    f"defines what later cells use: {', '.join(sorted(used))}"
                )
    return bad


def words_between_cells(root):
    """An open code cell is not followed by code without a sentence between."""
    bad = []
    for name, book in written(root):
        kinds = iter(reading.fold_kinds(book))
        before, number = None, -1  # the open code cell just before, if any
        for cell in book["cells"]:
            if cell["cell_type"] == "code":
                number += 1
                if before is not None:
                    bad.append(
                        f"{name}: no words between code cells {number - 1} "
                        f"({first_line(before)}) and {number} ({first_line(cell)})"
                    )
                before = cell if next(kinds) is None else None
            elif re.search(r"^(?!#|\([\w-]+\)=)\S", source(cell), re.M):
                before = None
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
    path_stands_alone,
    topics_on_the_path,
    check_cells_define_nothing,
    words_between_cells,
)


def main():
    """Print the complaints about the pages that are named; see the module's text."""
    try:
        paths = [page_tool.page_path(name, ROOT) for name in sys.argv[1:]]
    except page_tool.PageError as error:
        sys.exit(str(error))
    if not paths:
        sys.exit(__doc__.strip().splitlines()[-1])
    names = [str(p.relative_to(ROOT / "book").with_suffix("")) for p in paths]
    own = re.compile(rf"(?:book/)?({'|'.join(map(re.escape, names))})(?:\.md)?:")
    found = [
        f"{check.__name__}: {complaint}"
        for check in ALL
        for complaint in check(ROOT)
        if own.match(complaint)
    ]
    print("\n".join(found) or f"no complaints about {', '.join(names)}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
