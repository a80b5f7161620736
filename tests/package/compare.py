"""What a record says, compared with what a plain loop found."""

import pytest


def wrong_curves(record, losses, curves, rel, atol):
    """The names of the curves that a record has otherwise than the plain loop.

    `losses` are those of all steps, `curves` one number an epoch by name.
    """
    assert record.curves.keys() == curves.keys()
    wrong = {
        name
        for name, values in curves.items()
        if record.curves[name] != pytest.approx(values, rel=rel, abs=atol)
    }
    if record.first_steps["loss"] != pytest.approx(losses[:2], rel=1e-4):
        wrong.add("first_steps")
    return wrong
