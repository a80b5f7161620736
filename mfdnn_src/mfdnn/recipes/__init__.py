"""The full-scale experiments of the book, one module a kind.

To add an experiment of a kind that is here, see the top of that module. A new kind
is one module with a `Task` and its `RECIPES`, and a line in `KINDS`.
"""

from mfdnn.recipes import (
    adversarial,
    autoencode,
    classify,
    fast,
    flow,
    latent,
    restore,
    segment,
)
from mfdnn.recipes.recipe import (
    Plan,
    Recipe,
    Result,
    Task,
    first_steps,
    prepare,
    run,
)

__all__ = [
    "RECIPES",
    "Plan",
    "Recipe",
    "Result",
    "Task",
    "find",
    "first_steps",
    "prepare",
    "run",
]

KINDS = (classify, fast, restore, segment, autoencode, flow, latent, adversarial)
#: All recipes by name.
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for kind in KINDS for recipe in kind.RECIPES
}


def find(name: str) -> Recipe:
    """Find a recipe by its name.

    Args:
        name: one of RECIPES.

    Returns:
        the recipe.

    Raises:
        ValueError: if there is none; the message lists those that there are.

    >>> find("lenet-mnist").batch_size
    64
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]
