"""The verification rejects damaged pages: every check meets one it must catch."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from tests.book import checks
from tests.nbval_numeric import adopt

page_tool = checks.page_tool


def notebook(root):
    return json.loads((root / "book/page.ipynb").read_text())


def change(root, edit):
    """Apply a function to the stored notebook."""
    nb = notebook(root)
    edit(nb)
    (root / "book/page.ipynb").write_text(json.dumps(nb))


def rewrite(root, old, new, name="book/page.md"):
    """Replace text in a file of the book, and sync the pair without executing."""
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))


def sync(root):
    """Store the .md side's source with the outputs that the notebook has."""
    path = root / "book/page.md"
    fresh, old = page_tool.read_source(path, root), notebook(root)
    outputs = [c for c in old["cells"] if c["cell_type"] == "code"]
    cells = [c for c in fresh.cells if c.cell_type == "code"]
    for cell, kept in zip(cells, outputs, strict=True):
        cell.outputs, cell.execution_count = kept["outputs"], kept["execution_count"]
    path.with_suffix(".ipynb").write_text(json.dumps(fresh))


def code(nb, i):
    return [c for c in nb["cells"] if c["cell_type"] == "code"][i]


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
def test_good_book_passes(good, check):
    assert check(good) == []


def test_unsynced_pair(book):
    rewrite(book, "Short.", "Shorter.")
    assert checks.pairs_in_sync(book)


def test_syntax_error(book):
    rewrite(book, "double(2))", "double(2)")
    assert "syntax error" in checks.pairs_in_sync(book)[0]
    assert checks.words_between_cells(book) == []


def test_page_never_executed(book):
    (book / "book/page.ipynb").unlink()
    assert checks.pairs_in_sync(book)


def test_edited_cell_metadata(book):
    change(book, lambda nb: code(nb, 1)["metadata"].update(rtol=9.0))
    assert checks.pairs_in_sync(book)


def test_cell_not_executed(book):
    change(book, lambda nb: code(nb, 2).update(execution_count=None))
    assert checks.executed_in_order(book)


def test_printed_line_with_a_scroll_bar(book):
    wide = {"output_type": "stream", "name": "stdout", "text": ["x" * 77]}
    change(book, lambda nb: code(nb, 1)["outputs"].append(wide))
    assert checks.cells_fit(book)


def test_error_output(book):
    error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    change(book, lambda nb: code(nb, 1)["outputs"].append(error))
    assert checks.executed_in_order(book)


def test_missing_alt_text(book):
    rewrite(book, "  image: {alt: A rising line.}\n", "")
    sync(book)
    assert checks.alt_texts(book)


def test_unmapped_topic(book):
    rewrite(book, "page: page, section: sec-one", "page: ", "book/lecture-map.yml")
    assert checks.topics_mapped(book)


def test_topic_of_a_section_that_does_not_exist(book):
    rewrite(book, "section: sec-one", "section: sec-two", "book/lecture-map.yml")
    assert checks.topics_mapped(book)


def test_unchecked_theorem(book):
    rewrite(book, ":checks: [thm-squares]\n", ":other: [thm-squares]\n")
    sync(book)
    assert checks.statements_checked(book)


def test_check_without_assert(book):
    rewrite(book, "assert all(x * x", "print(x * x")
    sync(book)
    assert checks.statements_checked(book)


def test_theorem_without_proof(book):
    rewrite(book, ", see {cite:t}`someone`", "")
    rewrite(book, ":::{prf:proof}\n", ":::{note}\n")
    sync(book)
    assert checks.statements_proved(book)


def test_unknown_citation(book):
    rewrite(book, "`someone`", "`nobody`")
    assert checks.citations_resolve(book)


def test_long_cell(book):
    rewrite(book, "plt.plot", "\n" * 25 + "plt.plot")
    sync(book)
    assert checks.cells_fit(book)


def test_wide_cell(book):
    rewrite(book, "plt.show()", "plt.show()" + " " * 8 + "#" * 60)
    sync(book)
    assert checks.cells_fit(book)


def test_other_setup_cell(book):
    rewrite(book, "setup_page()\n", "setup_page()\nimport os\n")
    assert checks.setup_cells(book)


def test_loose_tolerance_without_reason(book):
    rewrite(book, ":checks:", ":rtol: 0.5\n:checks:")
    sync(book)
    assert checks.exceptions_justified(book)


def test_particular_draw_without_reason(book):
    rewrite(book, ":checks: [thm", ":draw: luck\n:checks: [thm")
    sync(book)
    assert checks.exceptions_justified(book)


def test_no_summary(book):
    rewrite(book, "## Summary", "## Conclusion")
    assert checks.page_structure(book)


def test_long_cell_with_its_title(book):
    text = (book / "book/page.md").read_text()
    lines = "\n" * 23  # 25 with plt.plot and plt.show, 26 with the title
    (book / "book/page.md").write_text(text.replace("1])\nplt", f"1])\n{lines}plt", 1))
    sync(book)
    assert checks.cells_fit(book) == [
        "page: code cell 2 has 26 lines with its title",
    ]


# The path, optional sections, folded cells. These read the .md side.


@pytest.mark.parametrize(
    "reference",
    [
        "{prf:ref}`lem-cubes`",
        "{prf:ref}`the lemma <lem-cubes>`",
        "{eq}`eq-cubes`",
        "{numref}`fig-cubes`",
        "{numref}`Fig. %s <fig-cubes>`",
    ],
)
def test_path_refers_to_an_optional_section(book, reference):
    rewrite(book, "Short.", f"See {reference}.")
    [complaint] = checks.path_stands_alone(book)
    assert "optional section of this page" in complaint


def test_caption_on_the_path_refers_to_an_optional_section(book):
    rewrite(book, "{caption: A line.,", '{caption: "A line, {eq}`eq-cubes`.",')
    assert checks.path_stands_alone(book)


def test_path_refers_to_an_optional_section_of_another_page(book):
    other = (book / "book/page.md").read_text().replace("(optional)", "")
    other = other.replace("lem-cubes", "lem-other").replace("eq-cubes", "eq-other")
    (book / "book/other.md").write_text(other.replace("Short.", "See {eq}`eq-cubes`."))
    [complaint] = checks.path_stands_alone(book)
    assert "other: the path refers to eq-cubes" in complaint
    assert "optional section of page" in complaint


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("See {ref}`sec-cubes`.", "page"),  # a pointer to the section is welcome
        ("See {prf:ref}`thm-squares`.", "page"),
        ("See {prf:ref}`lem-cubes`.", "exercises"),
    ],
)
def test_references_that_are_allowed(book, words, name):
    rewrite(book, "Short.", words)
    (book / "book/page.md").rename(book / f"book/{name}.md")
    assert checks.path_stands_alone(book) == []


def add_cell(root, code, before):
    """Put a code cell before a line of the page."""
    cell = f"Code.\n\n```{{code-cell}} ipython3\n{code}\n```\n\n"
    rewrite(root, before, cell + before)


@pytest.mark.parametrize(
    ("optional", "path", "name"),
    [
        ("x = 1", "print(x)", "x"),
        ("def f(): return 1", "print(f())", "f"),
        ("def f(): return 1", "def g(): return f()", "f"),
        ("double = abs", "print(double(1))", "double"),  # set on the path before
        ("x = [1]", "x.append(2)", "x"),
        ("x = 1", "x += 1", "x"),
        ("torch.rand(1, generator=rng)", "torch.rand(1, generator=rng)", "rng"),
    ],
)
def test_path_reads_what_an_optional_section_sets(book, optional, path, name):
    add_cell(book, optional, ":::{prf:lemma} Cubes")
    add_cell(book, path, "Short.")
    [complaint] = checks.path_stands_alone(book)
    assert f"reads {name}, which the optional code cell 5 sets or changes" in complaint


def test_topic_in_an_optional_section(book):
    rewrite(book, "section: sec-one", "section: sec-cubes", "book/lecture-map.yml")
    assert checks.topics_mapped(book) == []
    assert checks.topics_on_the_path(book)


@pytest.mark.parametrize(
    "definition", ["def half(x): return x / 2", "import half", "class half: pass"]
)
def test_check_cell_defines(book, definition):
    rewrite(book, "assert all(x * x", f"{definition}\nassert all(x * x")
    assert checks.check_cells_define_nothing(book) == []
    rewrite(book, "double(2))", "double(2), half)")
    [complaint] = checks.check_cells_define_nothing(book)
    assert complaint.endswith("defines what later cells use: half")


@pytest.mark.parametrize("between", ["", "## A heading\n\n", "(sec-x)=\n## H\n\n"])
def test_no_words_between_cells(book, between):
    rewrite(book, "And then it is used.\n\n", between)
    [complaint] = checks.words_between_cells(book)
    assert "no words between code cells 3 (rng = torch" in complaint


def test_folded_cell_needs_no_words(book):
    rewrite(book, "And then it is used.\n\n", "")
    fold = "```{code-cell} ipython3\n:fold: true\n\nrng ="
    rewrite(book, "```{code-cell} ipython3\nrng =", fold)
    assert checks.words_between_cells(book) == []


# The comparison by nbval. One pytest run over all damaged notebooks.

DAMAGE = {
    "same": (None, True),
    "digit-within-tolerance": (("0.3333333333", "0.3333333999"), True),
    "digit": (("0.3333333333", "0.3343333333"), False),
    "whole-number": (("of 3", "of 4"), False),
    "word": (("smallest", "largest"), False),
    "raising-cell": ("raise", False),
    "missing-output": ("drop", False),
    "missing-figure": ("drop-figure", False),
    "other-figure": ("figure", False),
    "killed-kernel": ("kill", False),
    "cell-that-cannot-run-twice": ("overwrite", False),
    "cell-that-shortens-a-list": ("pop", False),
}


def damage(nb, how):
    """Damage a notebook's stored outputs, or its code."""
    printed, figure = code(nb, 1), code(nb, 2)
    if isinstance(how, tuple):
        text = "".join(printed["outputs"][0]["text"])
        assert how[0] in text
        printed["outputs"][0]["text"] = text.replace(*how)
    elif how == "raise":
        printed["source"] += "\nraise ValueError"
    elif how == "kill":
        printed["source"] += "\nimport os\nos.kill(os.getpid(), 9)"
    elif how == "overwrite":
        code(nb, 6)["source"] += "\ndouble = None"
    elif how == "pop":
        printed["source"] += "\nleft = [1]"
        code(nb, 3)["source"] += "\nlast = left.pop()"
    elif how == "drop":
        printed["outputs"] = []
    elif how == "drop-figure":
        figure["outputs"] = []
    elif how == "figure":
        figure["source"] = figure["source"].replace("[0, 1])", "[1, 0])")
        assert "[1, 0]" in figure["source"]


@pytest.fixture(scope="module")
def verdicts(good, tmp_path_factory):
    """For each damaged notebook: does nbval accept it?"""
    folder = tmp_path_factory.mktemp("damaged")
    for name, (how, _) in DAMAGE.items():
        nb = notebook(good)
        damage(nb, how)
        (folder / f"{name}.ipynb").write_text(json.dumps(nb))
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env"]
    command += ["--twice", "-p", "tests.nbval_numeric", "-p", "no:cacheprovider"]
    command += [f"--junitxml={folder}/result.xml", str(folder)]
    done = subprocess.run(command, cwd=checks.ROOT, capture_output=True, text=True)
    assert "Cell 1: its process was killed, as happens when memory" in done.stdout
    failed = {name: False for name in DAMAGE}
    seen = set()
    for case in ElementTree.parse(folder / "result.xml").iter("testcase"):
        found = re.search(r"([\w-]+)(?:\.ipynb)?$", case.get("classname"))
        name = found[1] if found[1] in DAMAGE else case.get("classname").split(".")[-2]
        seen.add(name)
        failed[name] |= len(case) > 0
    assert seen == set(DAMAGE)
    return {name: not bad for name, bad in failed.items()}


@pytest.mark.parametrize("name", DAMAGE)
def test_nbval(verdicts, name):
    assert verdicts[name] is DAMAGE[name][1]


@pytest.mark.parametrize(
    ("new", "old", "options", "equal"),
    [
        ("loss 0.12345", "loss 0.12346", {}, True),
        ("loss 0.1234", "loss 0.1236", {}, False),
        ("loss 1e-9", "loss -3e-8", {}, False),
        ("loss 1e-9", "loss -3e-8", {"atol": 1e-7}, True),
        ("loss 6.8e-07", "loss 6.8e-09", {}, False),
        ("loss 7.1e-09", "loss 6.8e-09", {}, True),
        ("loss 3e-16", "loss 2e-16", {}, False),
        ("loss 2e-16", "loss 0.0", {}, False),
        ("loss 2e-16", "loss 0.0", {"atol": 1e-12}, True),
        ("loss -0.0", "loss 0.0", {}, True),
        ("k = 100000", "k = 100001", {}, False),
        ("k = 100", "k = 104", {"rtol": 0.05}, True),
        ("1.0, 2.0", "1.0, 2.0, 3.0", {}, False),
        ("a 1.0", "b 1.0", {}, False),
        ("nan", "1.0", {}, False),
        ("v2.10", "v2.11", {}, False),
        ("1e+04", "1.00001e+04", {}, True),
    ],
)
def test_tolerance(new, old, options, equal):
    assert (adopt(new, old, **options) == old) is equal
