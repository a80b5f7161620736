"""Plain loops that recipes are compared with, and mistakes that these must notice."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from mfdnn.data import LabelledImages


def learning_rate(settings, step, total):
    """That of a step, counted from 0, by other formulas than torch's schedulers."""
    if settings["schedule"] == "cosine":
        return settings["lr"] * (1 + math.cos(math.pi * step / total)) / 2
    if settings["schedule"] == "one-cycle":
        knots = [0, total / 4 - 1, total - 1]
        return settings["lr"] * np.interp(step, knots, [0.04, 1, 4e-6])
    return settings["lr"]


def plain_loop(recipe, model, count, rng, differentiate, measured, steps=None):
    """Train by Adam; the losses of all steps, and one number an epoch by name.

    `differentiate(index)` leaves the gradients of a batch and returns its loss;
    `measured()` returns what is measured after an epoch. Stops after `steps`.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
    total = recipe.epochs * math.ceil(count / recipe.batch_size)
    losses, curves = [], {"loss": []}
    for _ in range(recipe.epochs):
        sums = 0.0
        for index in torch.randperm(count, generator=rng).split(recipe.batch_size):
            rate = learning_rate(recipe.settings, len(losses), total)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            losses.append(differentiate(index))
            optimizer.step()
            sums += losses[-1] * len(index)
            if len(losses) == steps:
                return losses, curves
        curves["loss"].append(sums / count)
        for name, value in measured().items():
            curves.setdefault(name, []).append(float(value))
    return losses, curves


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


def shorter(data, count):
    """The first examples of a set."""
    if isinstance(data, LabelledImages):
        return replace(data, images=data.images[:count], labels=data.labels[:count])
    return replace(data, tensors={n: t[:count] for n, t in data.tensors.items()})


def measured_on(change, *names):
    """The mistake that these methods of a task measure on other data."""

    def mistake(monkeypatch, recipe, train):
        for name in names:
            real = getattr(type(recipe.task), name)
            monkeypatch.setattr(
                type(recipe.task),
                name,
                lambda task, model, test, real=real: real(
                    task, model, change(train, test)
                ),
            )

    return mistake


on_training_images = measured_on(lambda train, test: train, "evaluate", "examine")
on_first_examples = measured_on(
    lambda train, test: shorter(test, len(test) // 2), "evaluate"
)
examined_on_first = measured_on(
    lambda train, test: shorter(test, len(test) // 2), "examine"
)


def no_schedule(monkeypatch, recipe, train):
    """The mistake that the learning rate is left as it is."""
    module = sys.modules[type(recipe.task).__module__]
    real = module.adam
    monkeypatch.setattr(module, "adam", lambda *a: (real(*a)[0], None))
