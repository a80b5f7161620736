"""Recipes from image to image against plain loops: own degradation, metrics, Adam."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from mfdnn import recipes
from mfdnn.data import DataError, Examples, augment
from mfdnn.device import Compute
from mfdnn.nn import DnCNN, UNet
from mfdnn.recipes import classify, restore, segment
from PIL import Image
from skimage.filters import threshold_otsu
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import jaccard_score
from torch.nn.functional import interpolate

from tests.package import (
    test_recipes_adversarial,
    test_recipes_fast,
    test_recipes_flows,
    test_recipes_latent,
)
from tests.package.compare import (
    learning_rate,
    no_schedule,
    on_first_examples,
    on_training_images,
    wrong_curves,
)

CPU = Compute(torch.device("cpu"))
ROWS = {
    "dncnn": (557_057, (1, 24, 24), 1),
    "srcnn": (57_281, (1, 24, 24), 1),
    "vdsr": (664_704, (1, 24, 24), 1),
    "unet-nuclei": (2_509_074, (3, 32, 32), 2),
}


@pytest.mark.parametrize("name", ROWS)
def test_recipes_have_the_lectures_networks(name):
    parameters, shape, outputs = ROWS[name]
    model = recipes.find(name).task.network()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(2, *shape)).shape == (2, outputs, *shape[1:])


def test_every_recipe_is_tested_here_or_beside():
    classifiers = [recipe.name for recipe in classify.RECIPES]
    others = [
        *test_recipes_fast.ROWS,
        *ROWS,
        *test_recipes_flows.ROWS,
        *test_recipes_latent.ROWS,
        *test_recipes_adversarial.ROWS,
    ]
    assert [*classifiers, *others] == list(recipes.RECIPES)


def some_images(count, channels, side, seed):
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 5, 5, generator=rng)
    smooth = interpolate(coarse, side, mode="bilinear")
    return (255 * smooth).byte()


def photographs(seed, count, side):
    return Examples(
        {"image": some_images(count, 1, side, seed)}, f"smooth {seed}", "made here"
    )


def cells(seed, count, side):
    image = some_images(count, 3, side, seed)
    mask = (image[:, :1] > image[:, 1:2]).byte()
    return Examples({"image": image, "mask": mask}, f"cells {seed}", "made here")


def tiny_denoiser():
    """With batch normalization, and no bias before it.

    Its gradient would be zero but for rounding, which Adam makes a step of full size.
    """
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 5, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(5),
        torch.nn.ReLU(),
        torch.nn.Conv2d(5, 1, 3, padding=1),
    )


DENOISE = recipes.Recipe(
    "tiny",
    "A small denoiser.",
    "photographs",
    restore.Restore(tiny_denoiser, restore.Noise(0.1), side=20),
    epochs=2,
    batch_size=6,
    headline="test_psnr",
    settings={"lr": 0.01, "schedule": "cosine", "crop": 13},
)
SHARPEN = replace(
    DENOISE, task=restore.Restore(tiny_denoiser, restore.Shrink(3), side=20)
)
SHARPEN = replace(SHARPEN, settings={**DENOISE.settings, "crop": 15})
OUTLINE = recipes.Recipe(
    "cells",
    "A small U-Net.",
    "nuclei",
    segment.Segment(partial(UNet, 3, 2, (4, 6))),
    epochs=2,
    batch_size=6,
    headline="test_iou",
    settings={"lr": 0.01, "schedule": "one-cycle", "crop": 12},
)
KINDS = {
    "noise": (DENOISE, photographs(1, 20, 20), photographs(2, 5, 24)),
    "shrink": (SHARPEN, photographs(1, 20, 20), photographs(2, 5, 24)),
    "cells": (OUTLINE, cells(1, 20, 20), cells(2, 5, 24)),
}


def cut_and_turned(images, size, rng):
    """Image by image; several sets of images by the same draws."""
    count, side = len(images[0]), images[0].shape[2]
    top = torch.randint(side - size + 1, (count,), generator=rng)
    left = torch.randint(side - size + 1, (count,), generator=rng)
    across, down, diagonal = torch.randint(2, (3, count), generator=rng)
    changed = []
    for kind in images:
        pieces = []
        for i, image in enumerate(kind.numpy()):
            piece = image[:, top[i] : top[i] + size, left[i] : left[i] + size]
            piece = piece[:, :, ::-1] if across[i] else piece
            piece = piece[:, ::-1] if down[i] else piece
            piece = piece.swapaxes(1, 2) if diagonal[i] else piece
            pieces.append(torch.tensor(piece.copy()))
        changed.append(torch.stack(pieces))
    return changed


def degraded(task, clean, rng):
    if isinstance(task.degrade, restore.Noise):
        return clean + task.degrade.sigma * torch.randn(clean.shape, generator=rng)
    size = clean.shape[-1]
    small = interpolate(clean, size // 3, mode="bicubic", antialias=True)
    return interpolate(small, size, mode="bicubic")


def batch_of(recipe, train, index, rng):
    size = recipe.settings["crop"]
    if recipe is OUTLINE:
        both = [train["image"][index], train["mask"][index]]
        image, mask = cut_and_turned(both, size, rng)
        return image / 255, mask[:, 0].long()
    (clean,) = cut_and_turned([train["image"][index]], size, rng)
    clean = clean / 255
    return degraded(recipe.task, clean, rng), clean


def loss_of(output, target):
    if target.dtype == torch.float32:
        return (output - target).pow(2).mean()
    log_shares = output.log_softmax(1)
    return -log_shares.gather(1, target[:, None]).mean()


def measured(recipe, model, test):
    model.eval()
    with torch.no_grad():
        if recipe is OUTLINE:
            found = model(test["image"] / 255).argmax(1).numpy()
            truth = test["mask"][:, 0].numpy()
            grey = test["image"].double().mean(1).numpy()
            cut = np.stack([g > threshold_otsu(g) for g in grey])
            cut = np.stack([c if c.mean() < 0.5 else ~c for c in cut]).astype(int)

            def iou(masks):
                pairs = zip(truth, masks, strict=True)
                return np.mean([jaccard_score(t.ravel(), m.ravel()) for t, m in pairs])

            means = {
                "test_iou": iou(found),
                "pixel_accuracy": (found == truth).mean(),
                "otsu_iou": iou(cut),
            }
        else:
            clean = test["image"] / 255
            rng = torch.Generator().manual_seed(0)
            given = degraded(recipe.task, clean, rng)
            found = model(given).clamp(0, 1)
            pairs = list(zip(clean[:, 0].numpy(), found[:, 0].numpy(), strict=True))
            before = zip(clean[:, 0].numpy(), given[:, 0].numpy(), strict=True)
            ratio = partial(peak_signal_noise_ratio, data_range=1)
            means = {
                "test_psnr": np.mean([ratio(*p) for p in pairs]),
                "test_ssim": np.mean([similarity(*p) for p in pairs]),
                "degraded_psnr": np.mean([ratio(*p) for p in before]),
            }
    model.train()
    return means


def similarity(x, y):
    """Structural similarity in Wang's version, windows inside the image only."""
    _, maps = structural_similarity(
        x.astype(float),
        y.astype(float),
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return maps[5:-5, 5:-5].mean()


def train_written_out(recipe, train, test, seed, steps=None):
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    model = recipe.task.network()
    parameters = list(model.parameters())
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    total = recipe.epochs * math.ceil(len(train) / recipe.batch_size)
    losses, curves = [], {"loss": []}
    for _ in range(recipe.epochs):
        sums = 0.0
        order = torch.randperm(len(train), generator=rng)
        for index in order.split(recipe.batch_size):
            x, y = batch_of(recipe, train, index, rng)
            loss = loss_of(model(x), y)
            gradients = torch.autograd.grad(loss, parameters)
            rate = learning_rate(recipe.settings, len(losses), total)
            k = len(losses) + 1
            for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                slope = m / (1 - 0.9**k)
                p.data -= rate * slope / ((v / (1 - 0.999**k)).sqrt() + 1e-8)
            losses.append(loss.item())
            sums += loss.item() * len(index)
            if len(losses) == steps:
                return losses, curves
        curves["loss"].append(sums / len(train))
        for name, value in measured(recipe, model, test).items():
            curves.setdefault(name, []).append(float(value))
    return losses, curves


def differences(kind, record):
    found = train_written_out(*KINDS[kind], 7)
    return wrong_curves(record, *found, rel=1e-3, atol=1e-4)


def recorded(kind):
    recipe, train, test = KINDS[kind]
    return recipes.run(recipe, (train, test), 7, CPU)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_says_what_a_plain_loop_does(kind):
    assert differences(kind, recorded(kind).record) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_the_pictures_rows_are_what_they_say(kind):
    recipe, _, test = KINDS[kind]
    picture = recorded(kind).picture
    third = len(picture) // 3
    assert picture.min() >= 0 and picture.max() <= 1
    truth = test["mask" if kind == "cells" else "image"]
    last = picture[-third:]
    if kind == "cells":
        assert torch.equal(last[0, :1].byte(), truth[0])
        assert torch.equal((255 * picture[0]).round().byte(), test["image"][0])
    else:
        assert torch.equal((255 * last[0]).round().byte(), truth[0])
        given = degraded(
            recipe.task, test["image"] / 255, torch.Generator().manual_seed(0)
        )
        torch.testing.assert_close(picture[0], given[0].clamp(0, 1))


def evaluated_in_training_mode(monkeypatch, recipe, train):
    from contextlib import nullcontext

    module = restore if recipe is not OUTLINE else segment
    monkeypatch.setattr(module, "evaluating", lambda model: nullcontext())


def no_turns(monkeypatch, recipe, train):
    monkeypatch.setattr(augment.Turn, "__call__", lambda self, images, rng: images)


def alone(change):
    """The image and the mask are changed by draws of their own."""
    return lambda batch, rng: tuple(change(tensor, rng) for tensor in batch)


MISTAKES = {
    "metrics of the training images": on_training_images,
    "the first test images only": on_first_examples,
    "no schedule": no_schedule,
    "evaluated in training mode": evaluated_in_training_mode,
    "no turning": no_turns,
}


@pytest.mark.parametrize("kind", ["noise", "cells"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_plain_loop_notices(kind, mistake, monkeypatch):
    recipe, train, _ = KINDS[kind]
    MISTAKES[mistake](monkeypatch, recipe, train)
    record = recorded(kind).record
    monkeypatch.undo()
    assert differences(kind, record)


def test_the_plain_loop_notices_masks_that_do_not_turn(monkeypatch):
    monkeypatch.setattr(augment, "together", alone)
    record = recorded("cells").record
    monkeypatch.undo()
    assert "first_steps" in differences("cells", record)


def test_the_loss_of_restoration_is_that_of_the_noise():
    """Mean squares of the clean image are those of the noise (lecture topic 4.03)."""
    model = DnCNN(width=5, depth=3)
    clean = torch.rand(3, 1, 9, 9)
    noise = 0.1 * torch.randn(3, 1, 9, 9)
    y = clean + noise
    of_noise = (model.noise(y) - noise).pow(2).mean()
    torch.testing.assert_close((model(y) - clean).pow(2).mean(), of_noise)


def test_otsu_takes_the_smaller_side():
    image = torch.full((3, 8, 8), 200, dtype=torch.uint8)
    image[:, 2:5, 2:5] = 30
    expected = torch.zeros(8, 8, dtype=torch.int64)
    expected[2:5, 2:5] = 1
    assert torch.equal(segment.otsu(image), expected)
    assert torch.equal(segment.otsu(255 - image), expected)


@pytest.mark.parametrize("name", [r.name for r in restore.RECIPES])
def test_two_steps_of_every_restoration(name):
    recipe = replace(recipes.find(name), batch_size=2)
    train, test = recipe.load()
    losses, _ = train_written_out(recipe, train, test, 5, steps=2)
    assert recipes.first_steps(recipe, train, 5)["loss"] == pytest.approx(
        losses, rel=1e-4
    )
    assert len(test) == 12
    assert test.shape == (1, 198, 198)


def write_cells(folder, masks=255):
    for kind in ("images", "masks"):
        (folder / "nuclei" / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    kept = {}
    for split, names in (("train", "ab"), ("val", "c")):
        (folder / "nuclei" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            image = rng.integers(0, 256, (256, 256, 4), dtype=np.uint8)
            image[..., 3] = 255
            mask = masks * rng.integers(0, 2, (256, 256), dtype=np.uint8)
            Image.fromarray(image).save(folder / f"nuclei/images/{name}.png")
            Image.fromarray(mask).save(folder / f"nuclei/masks/{name}.png")
            kept[name] = image[..., :3], mask
    return kept


def test_nuclei_are_read_from_a_folder(tmp_path):
    from mfdnn.data import nuclei

    kept = write_cells(tmp_path)
    train, test = nuclei("train", tmp_path), nuclei("test", tmp_path)
    assert (len(train), len(test)) == (2, 1)
    assert train.shape == (3, 256, 256)
    for i, name in enumerate("ab"):
        assert np.array_equal(train["image"][i].movedim(0, -1), kept[name][0])
        assert np.array_equal(255 * train["mask"][i, 0], kept[name][1])
    sets = recipes.find("unet-nuclei").load(tmp_path)
    assert [s.checksum() for s in sets] == [train.checksum(), test.checksum()]


def test_missing_or_odd_nuclei_are_explained(tmp_path):
    from mfdnn.data import nuclei

    with pytest.raises(DataError, match="does not hold images and masks"):
        nuclei("train", tmp_path)
    with pytest.raises(DataError, match="no embedded stand-in"):
        recipes.find("unet-nuclei").load("embedded")
    write_cells(tmp_path, masks=7)
    with pytest.raises(DataError, match="other values than 0 and 255"):
        nuclei("train", tmp_path)


@pytest.mark.parametrize(
    ("name", "complaint"), [("dncnn", "of photographs"), ("unet-nuclei", "of nuclei")]
)
def test_other_data_are_refused(name, complaint):
    with pytest.raises(ValueError, match=complaint):
        replace(recipes.find(name), data="mnist").load()


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle"])
def test_adam_is_torchs(schedule):
    from mfdnn.recipes.optimize import adam

    weights = [torch.zeros(1, requires_grad=True)]
    optimizer, scheduler = adam(weights, {"lr": 0.3, "schedule": schedule}, 20)
    assert isinstance(optimizer, torch.optim.Adam)
    assert (scheduler is None) == (schedule == "constant")
