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
BODY = r"""
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

A function is defined in view.

```{code-cell} ipython3
rng = torch.Generator().manual_seed(0)
def double(x):
    return x + x
```

And then it is used.

```{code-cell} ipython3
print("the double of two is", double(2))
```

(sec-cubes)=
## Cubes (optional)

:::{prf:lemma} Cubes
:label: lem-cubes

The cube of a negative number is negative, unlike its square in {prf:ref}`thm-squares`:

$$
x^3=x\,x^2 .
$$ (eq-cubes)
:::

:::{prf:proof}
The square is positive.
:::

```{code-cell} ipython3
:checks: [lem-cubes]

negative = [-1.5, -0.5]
assert all(x**3 < 0 and x**3 == x * x**2 for x in negative)
```

```{code-cell} ipython3
---
mystnb:
  figure: {caption: Cubes., name: fig-cubes}
  image: {alt: A curve from the lower left to the upper right.}
---
plt.plot([-1, 0, 1], [double(-1) / 2, 0, 1])
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
