"""A small good book, to be damaged by the tests."""

import shutil

import pytest

from tests.book import checks

page_tool = checks.page_tool

HEAD = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A page

The lead asks which question this page answers and says why one should care here.

```{code-cell} ipython3
:tags: [setup]

```
"""
BODY = """
(sec-one)=
## One

:::{prf:theorem} Squares
:label: thm-squares

Squares are not negative, see {cite:t}`someone`.
:::

:::{prf:proof}
A product of two numbers of the same sign is not negative.
:::

```{code-cell} ipython3
:checks: [thm-squares]

assert all(x * x >= 0 for x in (-1.5, 0.0, 2.0))
print("smallest square of the three numbers:", 1 / 3, "of", 3)
```

```{code-cell} ipython3
---
mystnb:
  figure: {caption: A line., name: fig-line}
  image: {alt: A rising line.}
---
plt.plot([0, 1], [0, 1])
plt.show()
```

## Summary

Short.

## Further reading

None.
"""


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """A book of one page that keeps every rule, executed."""
    root = tmp_path_factory.mktemp("good")
    (root / "book").mkdir()
    (root / "_config.yml").write_text("repository: {url: https://example.org/a/b}\n")
    (root / "book/page.md").write_text(HEAD + BODY)
    (root / "book/unchecked.yml").write_text("")
    (root / "book/references.bib").write_text("@book{someone, title={T}}\n")
    topic = '- {id: "1.01", title: "T", page: page, section: sec-one}\n'
    unwritten = '- {id: "1.02", title: "U", page: unwritten}\n'
    (root / "book/lecture-map.yml").write_text(topic + unwritten)
    page_tool.make_page(root / "book/page.md", root)
    return root


@pytest.fixture
def book(good, tmp_path):
    """A copy of the good book, to be damaged."""
    return shutil.copytree(good, tmp_path / "book-copy")
