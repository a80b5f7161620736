"""How a page reads: which cells fold, which sections are optional.

The page tool, the Sphinx extension and the checks share this module, so that
Colab, JupyterLab, the site and the tests agree. It takes notebooks as plain
dictionaries or as nbformat's nodes; a cell's source may be a text or a list.
"""

import ast
import re
from dataclasses import dataclass, field

OPTIONAL = re.compile(r"\s*\(optional\)$")
HEADING = re.compile(r"^(#{1,6})\s+(.*\S)\s*$")
FENCE = re.compile(r"^(`{3,}|~{3,})")
DIRECTIVE = re.compile(
    r"^(?::{3,}|`{3,})\{(prf:)?(\w+)\}[ \t]*([^\n]*)\n((?::[\w-]+:[^\n]*\n)*)", re.M
)
LABEL_OPTION = re.compile(r"^:label:[ \t]*(\S+)", re.M)
FORM_TITLE = re.compile(r"\A# @title [^\n]*\n")
MUTATORS = {"append", "extend", "insert", "update", "add", "setdefault", "pop"}


def source_of(cell):
    """A cell's text, without the line that Colab shows as the form's title."""
    return FORM_TITLE.sub("", "".join(cell["source"]))


def code_cells(notebook):
    """The code cells of a notebook, in order."""
    return [c for c in notebook["cells"] if c["cell_type"] == "code"]


# Names: what a cell reads from earlier cells, and what it leaves to later ones.


@dataclass
class Names:
    """Names that a cell reads before it sets them, and names that it sets."""

    reads: set = field(default_factory=set)
    sets: set = field(default_factory=set)
    changes: set = field(default_factory=set)  # x of x[i] = ..., x.append(...)
    defines: set = field(default_factory=set)  # functions, classes, modules
    inner: set = field(default_factory=set)  # names that its functions read


def locals_of(function):
    """Names that are local to a function, lambda or comprehension."""
    own = set()
    if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        a = function.args
        every = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
        own |= {arg.arg for arg in every if arg}
    body = function.body if isinstance(getattr(function, "body", 0), list) else []
    stack = [*body, *getattr(function, "generators", [])]
    shared = set()
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
            continue
        if isinstance(node, ast.Global | ast.Nonlocal):
            shared |= set(node.names)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        if isinstance(node, ast.ExceptHandler) and node.name:
            own.add(node.name)
        if isinstance(node, ast.alias):
            own.add((node.asname or node.name).split(".")[0])
        if not isinstance(node, ast.Lambda | ast.ListComp | ast.GeneratorExp):
            stack.extend(ast.iter_child_nodes(node))
    return own - shared


SCOPES = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)


def free_names(node, local=frozenset()):
    """Names that a node reads and that are not local to a scope inside it."""
    if isinstance(node, SCOPES):
        local = local | locals_of(node)
        found = set()
        for child in ast.iter_child_nodes(node):
            found |= free_names(child, local)
        return found
    if isinstance(node, ast.Name):
        return {node.id} - local if isinstance(node.ctx, ast.Load) else set()
    found = set()
    for child in ast.iter_child_nodes(node):
        found |= free_names(child, local)
    return found


def base_name(node):
    """The x of x[i].y, or None."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def stored_names(node):
    """(set, changed) names of a statement's own targets, not inside functions."""
    names, changed = set(), set()
    if isinstance(node, SCOPES):
        return names, changed
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        names.add(node.id)
    if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(
        node.ctx, ast.Load
    ):
        changed.add(base_name(node))
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (node.func.attr in MUTATORS or node.func.attr.endswith("_"))
    ):
        changed.add(base_name(node.func))
    for child in ast.iter_child_nodes(node):
        more, other = stored_names(child)
        names |= more
        changed |= other
    return names, changed - {None}


def names_of(source):
    """The names that a cell reads, sets, changes and defines."""
    python = "\n".join(
        re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in source.splitlines()
    )
    result, later = Names(), set()

    def walk(statements):
        for node in statements:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                outer = [*node.decorator_list, *node.args.defaults]
                for part in outer:
                    result.reads.update(free_names(part) - result.sets)
                later.update(free_names(node))
                result.sets.add(node.name)
                result.defines.add(node.name)
            elif isinstance(node, ast.ClassDef):
                for part in (*node.bases, *node.decorator_list):
                    result.reads.update(free_names(part) - result.sets)
                later.update(free_names(node))
                result.sets.add(node.name)
                result.defines.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    name = (alias.asname or alias.name).split(".")[0]
                    result.sets.add(name)
                    result.defines.add(name)
            else:
                single(node)

    def single(node):
        blocks = [
            name
            for name in ("body", "orelse", "finalbody", "handlers")
            if isinstance(getattr(node, name, None), list)
        ]
        if isinstance(node, ast.ExceptHandler) and node.name:
            result.sets.add(node.name)
        if isinstance(node, ast.AugAssign):
            name = base_name(node.target)
            result.reads.update({name} - result.sets - {None})
        heads = [
            child
            for name, value in ast.iter_fields(node)
            if name not in blocks
            for child in (value if isinstance(value, list) else [value])
            if isinstance(child, ast.AST)
        ]
        for head in heads:
            result.reads.update(free_names(head) - result.sets)
        for head in heads:
            names, changed = stored_names(head)
            result.changes.update(changed)
            result.sets.update(names)
        for block in blocks:
            for child in getattr(node, block):
                walk([child])

    tree = ast.parse(python)
    walk(tree.body)
    result.reads |= later - result.sets
    lambdas = [n for n in ast.walk(tree) if isinstance(n, ast.Lambda)]
    result.inner = later.union(*map(free_names, lambdas))
    return result


def used_later(names, number):
    """Names that cell ``number`` sets or changes and a later cell reads from it.

    names: what ``names_of`` says of each code cell, in order.
    """
    alive = names[number].sets | names[number].changes
    used = set()
    for later in names[number + 1 :]:
        used |= alive & (later.reads | later.changes - later.sets)
        alive = alive - later.sets
    return used


# Folding


def fold_kinds(notebook):
    """For each code cell: "setup", "check", "figure", "code", or None if open.

    A check cell says so in its metadata. A drawing cell has a figure and leaves
    nothing that a later cell reads. ``fold: true`` or ``false`` in the metadata
    decides otherwise.
    """
    cells = code_cells(notebook)
    names = [names_of(source_of(c)) for c in cells]
    kinds = []
    for number, cell in enumerate(cells):
        meta = cell["metadata"]
        figure = "figure" in meta.get("mystnb", {})
        if "setup" in meta.get("tags", []):
            kind = "setup"
        elif meta.get("checks"):
            kind = "check"
        elif figure and (meta.get("fold") or not used_later(names, number)):
            kind = "figure"
        else:
            kind = "code" if meta.get("fold") else None
        kinds.append(None if meta.get("fold") is False else kind)
    return kinds


@dataclass(frozen=True)
class Directive:
    """A directive of a page: a theorem, a proof, an exercise, a note."""

    kind: str
    title: str
    label: str | None
    numbered: bool  # one of sphinx-proof's: a statement, or a proof
    start: int  # where it begins in the text


def directives(text):
    """The directives of a Markdown text, in order."""
    for found in DIRECTIVE.finditer(text):
        label = LABEL_OPTION.search(found[4])
        yield Directive(
            found[2],
            found[3],
            label and label[1],
            bool(found[1]),
            found.start(),
        )


def page_directives(notebook):
    """The directives of all Markdown cells of a page, in order."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            yield from directives("".join(cell["source"]))


def statement_titles(notebook):
    """Titles of the labelled statements and exercises of a page, by label."""
    return {
        d.label: d.title.replace("$", "") or d.kind
        for d in page_directives(notebook)
        if d.label
    }


def form_title(kind, labels, titles):
    """What Colab shows where a folded cell's code is."""
    if kind == "check":
        named = [titles.get(label, label.partition("-")[2]) for label in labels]
        return f"Checks: {', '.join(named)}"
    return {"setup": "Setup", "figure": "Code of the figure", "code": "Code"}[kind]


# Sections


def segments(notebook):
    """(cell number, text, whether optional) for each stretch of a page.

    A stretch is a code cell, or the part of a Markdown cell within one section. A
    section whose heading ends with "(optional)" is optional up to the next
    heading of the same or a higher level.
    """
    level = 0  # level of the optional section that we are in; 0: on the path
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "markdown":
            yield number, source_of(cell), level > 0
            continue
        fence, lines = "", []
        for line in "".join(cell["source"]).splitlines():
            mark = FENCE.match(line)
            if mark and (not fence or line.startswith(fence)):
                fence = "" if fence else mark[1]
            heading = None if fence else HEADING.match(line)
            if heading:
                # A label right above a heading belongs to the heading.
                label = [s for s in lines[-1:] if re.match(r"\([\w-]+\)=$", s)]
                before = lines[: len(lines) - len(label)]
                if any(before):
                    yield number, "\n".join(before), level > 0
                lines = label
                depth = len(heading[1])
                if level and depth <= level:
                    level = 0
                if not level and OPTIONAL.search(heading[2]):
                    level = depth
            lines.append(line)
        if any(lines):
            yield number, "\n".join(lines), level > 0


def optional_cells(notebook):
    """For each code cell, whether it stands in an optional section."""
    flags = {n: opt for n, _, opt in segments(notebook)}
    return [
        flags[n] for n, c in enumerate(notebook["cells"]) if c["cell_type"] == "code"
    ]
