"""The tools that execute pages otherwise: cells again, the path alone, other seeds.

Readers run a cell again, and skip optional sections: both must leave a page whole.
nbval sees to that while it executes the pages (``--twice``), and so does
``replay.py``; both call tools/twice.py, which does not execute a page twice but
runs a cell again where its second run can differ. Here are small pages on which it
must complain: each kind of fault that the book once had, found by what the cells
change and not because they are short (``ONLY_DOUBTFUL``).
"""

import os
import subprocess
import sys

import pytest
import replay
import seeds

from tests.book import checks


@pytest.fixture
def page(good, tmp_path):
    """A function that makes a page of code cells; text in them is a heading."""

    def make(*cells):
        text = (good / "book/page.md").read_text()
        head = text[: text.index("\n# A page")]
        parts = [
            f"## {cell[2:]}"
            if cell.startswith("##")
            else f"```{{code-cell}} ipython3\n{cell}\n```"
            for cell in ("pass", *cells)
        ]
        path = tmp_path / "page.md"
        path.write_text("\n\n".join([head, *parts]) + "\n")
        return path

    return make


def run(path, mode, good, shift=0):
    return replay.run(path, mode, shift, root=good)


def test_good_page_passes_in_all_modes(good):
    cells = {"once": 7, "path": 5, "twice": 7}
    for mode, count in cells.items():
        outcome = run(good / "book/page.md", mode, good)
        assert (outcome.error, outcome.warnings) == (None, "")
        assert outcome.cells == count
    stored = run(good / "book/page.ipynb", "once", good)
    assert "the double of two is 4" in stored.printed


def test_what_comes_after_is_left_alone(page, good):
    before = dict(os.environ)
    path = page("import os\nos.environ['A_PAGE_SET'] = '1'")
    assert run(path, "once", good).error is None
    assert dict(os.environ) == before


def test_magics_and_the_last_expression(page, good):
    path = page(
        "%pwd", "if 1:\n    %time x = 1", "import sys\nprint(1, file=sys.stderr)"
    )
    outcome = run(path, "once", good)
    assert outcome.error is None
    assert repr(str(path.parent)) in outcome.printed
    assert outcome.warnings == "1\n"


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["x = 3", "x = x - 1\nassert x == 2"], "AssertionError"),
        (["x = [3]", "x.pop()"], "IndexError"),
        (["x = 3", "y = x.bit_length()\nx = str(x)"], "AttributeError"),
    ],
)
def test_cell_that_cannot_run_twice(page, good, cells, kind):
    path = page(*cells)
    assert run(path, "once", good).error is None
    [failure] = run(path, "twice", good).failures
    assert failure.cell == 2
    assert failure.error.startswith(f"when run again: {kind}")
    assert failure.line


@pytest.mark.parametrize("mode", ["path", "twice"])
def test_path_that_needs_an_optional_cell(page, good, mode):
    path = page("x = 3", "##Side (optional)", "x = 4\ny = x", "##Path", "print(x, y)")
    assert run(path, "once", good).error is None
    [failure] = run(path, mode, good).failures
    assert (failure.cell, failure.kind) == (3, "NameError")
    assert failure.head == failure.line == "print(x, y)"


def test_path_whose_variable_an_optional_cell_changes(page, good):
    path = page("x = 3", "##Side (optional)", "x += 1", "##Path", "assert x == 4")
    assert run(path, "once", good).error is None
    assert run(path, "twice", good).failures[0].cell == 3


def test_optional_sections_are_run_as_well(page, good):
    side = ["##A (optional)", "y = x", "##Path", "x = 5", "##B (optional)"]
    assert run(page("x = 1", *side, "assert y"), "twice", good).error is None
    outcome = run(page("x = 1", *side, "assert x == 1"), "twice", good)
    assert outcome.failures[0].cell == 4


ONLY_DOUBTFUL = "import twice\ntwice.MOMENT = -1"  # as if every cell took long
STEP = """\
import torch
def steps(w):
    optimizer = torch.optim.SGD([w], 0.5)
    w.grad = w.detach().clone()
    optimizer.step()"""
W = "w = torch.ones(1, requires_grad=True)"
TRAINED = "steps(w)\nassert w.item() == 0.5"
DRAWN = "x = torch.rand(1, generator=g)"
FIRST = "import torch\ntorch.manual_seed(0)\nfirst = torch.rand(1)"
SAME = "g = torch.Generator().manual_seed(0)"
GLOBAL = "torch.manual_seed(0)"
LOG = "log = []\ndef f():\n    log.append(1)\n    return len(log)"
COUNTER = """\
def counter():
    n = 0
    def count():
        nonlocal n
        n += 1
        return n
    return count"""
FAULTS = {  # cells; the number of the cell that must fail
    "overwrites what it reads": (["x = 3", "x = x - 1\nassert x == 2"], 3),
    "overwrites, seen later": (["x = 3", "x = x - 1", "assert x == 2"], 4),
    "pops": (["x = [3]", "x.pop()"], 3),
    "pops, seen later": (["x = [3, 2]", "x.pop()", "y = 0", "assert x == [3]"], 5),
    "appends": (["x = []", "x.append(1)", "assert len(x) == 1"], 4),
    "trains on": ([STEP, W, TRAINED], 4),
    "trains on, seen later": ([STEP, W, "steps(w)", "assert w.item() == 0.5"], 5),
    "draws on": ([FIRST, SAME, f"{DRAWN}\nassert x == first"], 4),
    "draws on, globally": ([FIRST, GLOBAL, "assert torch.rand(1) == first"], 4),
    "through a function": ([LOG, "assert f() == 1"], 3),
    "through a lambda": (
        ["x = []\nf = lambda: x.append(1)", "f()\nassert len(x) < 2"], 3
    ),
    "through a method": (
        ["x = []\nclass A:\n    def f(self):\n        x.append(1)\na = A()",
         "a.f()", "assert len(x) < 2"], 4
    ),
    "through a closure": ([COUNTER, "count = counter()", "assert count() == 1"], 4),
    "a stream": (["s = (k for k in (1, 2))", "assert next(s) == 1"], 3),
    "a stream, seen later": (
        ["s = (k for k in (1, 2, 3, 4))", "next(s)", "y = 0", "assert next(s) == 2"], 5
    ),
    "an attribute": (
        ["class A:\n    n = 0\na = A()", "a.n += 1\nassert a.n == 1"], 3
    ),
    "of a class": (
        ["class A:\n    n = 0", "A.n += 1\nassert A.n == 1"], 3
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found_by_what_cells_change(page, good, fault):
    cells, number = FAULTS[fault]
    path = page(ONLY_DOUBTFUL, *cells)
    assert run(path, "once", good).error is None
    outcome = run(path, "twice", good)
    found = [(f.cell, f.error.partition(":")[0]) for f in outcome.failures]
    assert found[:1] == [(number, "when run again")]


REPEATS = {
    "sorts": ["x = [3, 1]", "y = sorted(x)\nassert y == [1, 3]"],
    "trains what it makes": [STEP, f"{W}\n{TRAINED}"],
    "seeds what it draws from": [
        FIRST,
        "torch.manual_seed(0)\nassert torch.rand(1) > 0",
    ],
    "its own generator": [
        "import torch",
        f"g = torch.Generator().manual_seed(0)\n{DRAWN}",
    ],
    "sets a name again": ["x = 1", "x = 2", "x = 3\nassert x == 3"],
    "draws a figure": [
        "import matplotlib.pyplot as plt",
        "plt.plot([1, 2])\nplt.show()",
    ],
}


@pytest.mark.parametrize("name", REPEATS)
def test_cell_that_repeats_itself_is_not_run_again(page, good, name):
    outcome = run(page(ONLY_DOUBTFUL, *REPEATS[name]), "twice", good)
    assert (outcome.error, outcome.again) == (None, 1)  # the one before MOMENT is set


def test_short_cell_is_run_again_in_any_case(page, good):
    hidden = "import os\nassert os.environ.setdefault('SEEN', str(os.getpid())) == "
    path = page("x = 1", hidden + "str(os.getpid())")
    assert run(path, "once", good).error is None
    [failure] = run(path, "twice", good).failures
    assert failure.cell == 2


def test_page_that_ends_its_process(page, good):
    ends = "import os\nos._exit(3)"
    with pytest.raises(replay.ReplayError, match="ended with code 3"):
        run(page(ends), "once", good)
    [failure] = run(
        page("x = 0", f"x += 1\nif x > 1:\n    {ends.replace(chr(10), '; ')}"),
        "twice",
        good,
    ).failures
    assert failure.error == "when run again: Ended: ends the process"


@pytest.mark.parametrize("tool", ["replay", "seeds"])
def test_page_that_does_not_exist(tool):
    command = [
        sys.executable,
        f"tools/{tool}.py",
        "book/ch1-optimization/gradient-decent",
    ]
    result = subprocess.run(command, cwd=checks.ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "Did you mean book/ch1-optimization/gradient-descent?" in result.stderr
    assert len(result.stderr.splitlines()) == 1


# Seeds


TORCH = "import torch\ng = torch.Generator().manual_seed(0)"
ONE_SEED = {  # a number, and its value at the seeds that are written
    "torch.Generator": (TORCH, "torch.rand(1, generator=g).item()"),
    "torch unseeded": (
        "import torch\ng = torch.Generator()",
        "torch.rand(1, generator=g).item()",
    ),
    "torch.manual_seed": ("import torch\ntorch.manual_seed(0)", "torch.rand(1).item()"),
    "torch, as it starts": ("import torch", "torch.rand(1).item()"),
    "default_rng": ("import numpy", "numpy.random.default_rng(0).random()"),
    "RandomState": ("import numpy", "numpy.random.RandomState(seed=0).rand()"),
    "numpy.random.seed": ("from numpy import random\nrandom.seed(0)", "random.rand()"),
    "random.Random": ("from random import Random", "Random(0).random()"),
    "random.seed": ("import random\nrandom.seed(0)", "random.random()"),
    "scikit-learn": (
        "from sklearn.datasets import make_blobs",
        "make_blobs(random_state=0)[0][0, 0]",
    ),
    "scipy": ("from scipy import stats", "stats.norm.rvs(random_state=0)"),
    "a generator made in mfdnn": (
        "from mfdnn import data",
        "data.photo_crops('train').images[0].double().mean().item()",
    ),
}


@pytest.mark.parametrize("name", ONE_SEED)
def test_assertion_that_holds_for_one_seed_only(page, good, name):
    setup, value = ONE_SEED[name]
    first = run(page(f"{setup}\nprint({value})"), "once", good).printed
    assert run(page(f"{setup}\nprint({value})"), "once", good).printed == first
    path = page(f"{setup}\nx = {value}\nassert str(x) == {first.strip()!r}")
    assert run(path, "once", good).error is None
    lines, passes = seeds.examine(path, 2, root=good)
    assert not passes
    assert "raises in 2 of 2  TOO OFTEN" in lines[1]


def test_generators_differ_from_draw_to_draw(page, good):
    path = page(f"{TORCH}\nprint(torch.rand(1, generator=g).item())")
    printed = [run(path, "once", good, shift).printed for shift in (1000, 2000, 1000)]
    assert printed[0] == printed[2] != printed[1]


def test_assertions_that_hold_for_all_seeds(page, good):
    path = page(TORCH, "assert torch.rand(9, generator=g).amax() < 1")
    lines, passes = seeds.examine(path, 3, root=good)
    assert passes
    assert len(lines) == 1


def test_one_of_twenty_draws_is_forgiven():
    cell = {"source": "x = 1\nassert x", "metadata": {}}
    failure = replay.Failure(0, "x = 1", "assert x", "AssertionError", "AssertionError")
    good, bad = replay.Outcome(), replay.Outcome(failures=[failure])
    assert seeds.report([cell], [bad] + 19 * [good], [0])[1]
    assert not seeds.report([cell], 2 * [bad] + 18 * [good], [0])[1]
    assert not seeds.report([cell], [bad] + 18 * [good], [0])[1]


def test_cell_that_says_which_draw_it_needs(page, good):
    cell = f"{TORCH}\nassert torch.rand(1, generator=g) == 0"
    long, short = "an example in which the bound fails", "because"
    assert seeds.examine(page(f':draw: "{long}"\n\n{cell}'), 1, root=good)[1]
    assert not seeds.examine(page(f':draw: "{short}"\n\n{cell}'), 1, root=good)[1]


def test_all_failing_assertions_are_counted(page, good):
    path = page(
        "assert 0\nfor k in range(3):\n    assert k == 1\nx = 1",
        "def f():\n    assert 0\nf()\nz = 1",
        "print(z)",
        "assert x == 1\nassert 2 < 1",
    )
    lines, passes = seeds.examine(path, 1, root=good)
    assert not passes
    found = [line.partition("at: ")[2] for line in lines if "at: " in line]
    assert found == ["assert 0", "assert k == 1", "assert 0", "assert 2 < 1"]
    assert lines[-1] == "  missed a name of a cell that had raised: [3]"


def test_chosen_cells_and_what_they_need(page, good):
    path = page("x = 1", "y = []", "y.append(x)", "z = 3", "print(y)", "print(z)")
    notebook = replay.read(path, good)
    assert replay.needed(notebook, [5]) == {0, 1, 2, 3, 5}
    assert replay.needed(notebook, [6]) == {0, 4, 6}
