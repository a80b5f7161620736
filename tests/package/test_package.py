"""The package as a whole: import, documentation, style."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import warnings

import matplotlib as mpl
import matplotlib.pyplot as plt
import mfdnn
import pytest
import torch
from mfdnn import plot
from mfdnn.notebook import setup_page

MODULES = [m.name for m in pkgutil.walk_packages(mfdnn.__path__, "mfdnn.")]


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, mfdnn; print([m for m in sys.modules if m in ('torch', 'numpy')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_are_documented(name):
    module = importlib.import_module(name)
    for key, item in inspect.getmembers(module, inspect.isfunction):
        if key.startswith("_") or item.__module__ != name:
            continue
        text = item.__doc__ or ""
        assert text.strip(), f"{name}.{key} has no docstring"
        described = text.partition("Args:")[2].partition("\n\n")[0]
        for parameter in inspect.signature(item).parameters if described else ():
            assert re.search(rf"\b{parameter}\b", described), f"{name}.{key}"


def test_examples_exist():
    finder = doctest.DocTestFinder()
    found = [t for m in MODULES for t in finder.find(importlib.import_module(m))]
    assert sum(len(t.examples) for t in found) > 0


@pytest.fixture
def axes():
    with mpl.rc_context():
        plot.use_style()
        fig, ax = plt.subplots()
        yield ax
        plt.close(fig)


def test_style_is_selected(axes):
    assert tuple(axes.figure.get_size_inches()) == (6.4, 3.8)
    assert axes.plot([0, 1])[0].get_color() == plot.COLORS[0]


def test_contours_are_level_lines(axes):
    drawn = plot.contours(axes, lambda t: t.norm(dim=-1), (-1, 1), (-1, 1), [0.5])
    points = torch.as_tensor(drawn.get_paths()[0].vertices)
    assert (points.norm(dim=1) - 0.5).abs().max() < 1e-3


def test_path_goes_through_the_iterates(axes):
    iterates = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    assert plot.path(axes, iterates).get_xydata().tolist() == iterates.tolist()


@pytest.mark.parametrize("shape", [(3,), (3, 3)])
def test_path_refuses_points_outside_the_plane(axes, shape):
    with pytest.raises(ValueError, match="not \\(K \\+ 1, 2\\)"):
        plot.path(axes, torch.zeros(shape))


def test_setup_page_silences_what_depends_on_the_clock():
    """A page's stderr must not tell how busy the machine is; other warnings stay."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        setup_page()
        warnings.warn('Creating legend with loc="best" can be slow', stacklevel=1)
        warnings.warn("Something else", stacklevel=1)
    assert [str(one.message) for one in caught] == ["Something else"]
