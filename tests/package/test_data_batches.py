"""Batches against DataLoader, augmentation against torchvision, pixel by pixel."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from mfdnn.data import Batches, augment, to_unit
from scipy import stats
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=64, channels=3, height=12, width=10, seed=0):
    """Random pixels, no two alike, uint8."""
    size = (count, channels, height, width)
    return torch.randint(1, 256, size, generator=rng(seed), dtype=torch.uint8)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 17, 100])
def test_unshuffled_batches_are_data_loaders(batch_size):
    x, y = torch.randn(17, 3), torch.arange(17)
    ours = Batches(x, y, batch_size=batch_size)
    theirs = DataLoader(TensorDataset(x, y), batch_size)
    assert len(ours) == len(theirs)
    for _ in range(2):
        for (a, b), (c, d) in zip(ours, theirs, strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)


def test_an_epoch_is_a_permutation_and_pairs_stay_together():
    x = torch.arange(50)
    batches = Batches(x, x * 10, batch_size=8, generator=rng())
    epochs = [list(batches) for _ in range(3)]
    orders = [torch.cat([a for a, _ in epoch]) for epoch in epochs]
    for epoch, order in zip(epochs, orders, strict=True):
        assert sorted(order.tolist()) == list(range(50))
        assert torch.equal(torch.cat([b for _, b in epoch]), order * 10)
        assert [len(a) for a, _ in epoch] == [8] * 6 + [2]
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(orders))


def test_permutations_are_uniform():
    batches = Batches(torch.arange(4), torch.arange(4), batch_size=4, generator=rng())
    counts = {p: 0 for p in itertools.permutations(range(4))}
    for _ in range(2400):
        counts[tuple(next(iter(batches))[0].tolist())] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_the_generators_state_repeats_the_epochs():
    x = images(40)
    flip = augment.Flip()
    batches = Batches(
        x,
        torch.arange(40),
        batch_size=7,
        generator=rng(),
        transform=augment.inputs(flip),
    )
    list(batches)
    state = batches.generator.get_state()
    first = list(batches)
    resumed = Batches(
        x,
        torch.arange(40),
        batch_size=7,
        generator=rng(99),
        transform=augment.inputs(flip),
    )
    resumed.generator.set_state(state)
    for (a, b), (c, d) in zip(first, resumed, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)


def test_transform_sees_the_whole_batch_and_the_generator():
    seen = []

    def swap(batch, generator):
        x, y, z = batch
        seen.append((len(x), generator))
        return y, 2 * x, z

    generator, x = rng(), torch.arange(5)
    for given in (None, generator):
        batches = Batches(x, -x, 3 * x, batch_size=2, generator=given, transform=swap)
        y, doubled, z = (torch.cat(part) for part in zip(*batches, strict=True))
        assert sorted(doubled.tolist()) == [0, 2, 4, 6, 8]
        assert torch.equal(doubled, -2 * y)
        assert torch.equal(z, -3 * y)
    assert seen == [(n, g) for g in (None, generator) for n in (2, 2, 1)]
    assert x.tolist() == [0, 1, 2, 3, 4]


def test_one_tensor_alone_makes_batches():
    x = torch.arange(5)
    assert [b.tolist() for (b,) in Batches(x, batch_size=3)] == [[0, 1, 2], [3, 4]]


def test_inputs_are_changed_and_targets_are_not():
    x, y = images(6), torch.arange(6)
    change = augment.inputs(augment.PadCrop(2))
    found, targets = change((x, y), rng(3))
    assert torch.equal(found, augment.PadCrop(2)(x, rng(3)))
    assert targets is y


@pytest.mark.parametrize(
    "step", [augment.Flip(), augment.PadCrop(2), augment.Cutout(3)], ids=str
)
@pytest.mark.parametrize("given", [True, False])
def test_image_and_mask_turn_together(step, given):
    x = images(50)
    mask = x[:, :1].clone()
    torch.manual_seed(4)
    generator = rng(4) if given else None
    moved, mask_moved, rest = augment.together(step)((x, mask, x), generator)
    assert torch.equal(mask_moved, moved[:, :1])
    assert not torch.equal(moved, x)
    assert rest is x
    again, *_ = augment.together(step)((x, mask, x), generator)
    assert not torch.equal(moved, again)  # new draws for the next batch


def test_early_stop_leaves_the_next_epoch_whole():
    batches = Batches(torch.arange(10), torch.arange(10), batch_size=3, generator=rng())
    next(iter(batches))
    assert sorted(torch.cat([x for x, _ in batches]).tolist()) == list(range(10))


def test_senseless_batches_are_refused():
    x = torch.zeros(4)
    for tensors, size, sentence in (
        ((x, x[:3]), 2, "the tensors have 4 and 3 entries"),
        ((x, x), 0, "must be positive"),
        ((x, x.to("meta")), 2, "the tensors are on cpu and meta"),
        ((), 2, "not of nothing"),
        ((x, 4), 2, "not of Tensor, int"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Batches(*tensors, batch_size=size)


@pytest.mark.parametrize(
    ("transform", "sentence"),
    [
        (lambda batch, generator: batch[0], "of 2 tensors must return a tuple of as"),
        (lambda batch, generator: batch[:1], "of as many, not 1"),
        (lambda batch, generator: (batch[0][:1], batch[1]), "2 examples returned 1 an"),
    ],
)
def test_transforms_that_return_something_else_are_refused(transform, sentence):
    x = torch.zeros(4)
    with pytest.raises(ValueError, match=sentence):
        list(Batches(x, x, batch_size=2, transform=transform))


STEPS = [
    augment.Flip(),
    augment.PadCrop(3),
    augment.Cutout(5),
    augment.Affine(degrees=20, scale=0.2, shift=0.1),
    augment.ColorJitter(0.4, 0.4, 0.4),
    augment.Chain(augment.PadCrop(2), augment.Flip()),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("device", DEVICES)
def test_a_seed_means_the_same_change_everywhere(step, device):
    x = to_unit(images())
    before = x.clone()
    here = step(x, rng(3))
    assert torch.equal(x, before)  # the input is left alone
    assert here.shape == x.shape and here.dtype == x.dtype
    assert torch.equal(here, step(x, rng(3)))
    assert not torch.equal(here, step(x, rng(4)))
    there = step(x.to(device), rng(3))
    assert there.device.type == device
    torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("step", STEPS[:3], ids=lambda s: type(s).__name__)
def test_moving_pixels_needs_no_floats(step):
    x = images()
    out = step(x, rng())
    assert out.dtype == torch.uint8
    torch.testing.assert_close(to_unit(out), step(to_unit(x), rng()))


def test_flip_turns_half_of_the_images():
    x = images(400)
    out = augment.Flip()(x, rng())
    turned = [torch.equal(a, tv.hflip(b)) for a, b in zip(out, x, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(out, x, strict=True)]
    assert all(t != k for t, k in zip(turned, kept, strict=True))
    assert stats.binomtest(sum(turned), 400).pvalue > 1e-3


def test_pad_crop_draws_every_shift_of_torchvisions_crop():
    x = images(3000, 1, 5, 4)
    out = augment.PadCrop(1)(x, rng())
    counts = torch.zeros(3, 3)
    for before, after in zip(tv.pad(x, [1]), out, strict=True):
        found = [
            (i, j)
            for i in range(3)
            for j in range(3)
            if torch.equal(tv.crop(before, i, j, 5, 4), after)
        ]
        assert len(found) == 1
        counts[found[0]] += 1
    assert stats.chisquare(counts.flatten().numpy()).pvalue > 1e-3


def test_crop_draws_every_place_of_torchvisions_crop():
    x = images(2000, 2, 5, 4)
    out = augment.Crop(3)(x, rng())
    counts = torch.zeros(3, 2)
    for before, after in zip(x, out, strict=True):
        places = itertools.product(range(3), range(2))
        found = [p for p in places if torch.equal(tv.crop(before, *p, 3, 3), after)]
        assert len(found) == 1
        counts[found[0]] += 1
    assert stats.chisquare(counts.flatten().numpy()).pvalue > 1e-3


def test_turn_draws_the_eight_symmetries_of_the_square():
    x = images(2400, 2, 4, 4)
    out = augment.Turn()(x, rng())
    counts = [0] * 8
    for before, after in zip(x, out, strict=True):
        turns = [torch.rot90(before, k, (1, 2)) for k in range(4)]
        turns += [tv.hflip(image) for image in turns]
        found = [k for k, image in enumerate(turns) if torch.equal(image, after)]
        assert len(found) == 1
        counts[found[0]] += 1
    assert stats.chisquare(counts).pvalue > 1e-3


def test_turn_wants_squares():
    with pytest.raises(ValueError, match=r"shape \(64, 3, 12, 10\) are not square"):
        augment.Turn()(images(), rng())


@pytest.mark.parametrize("size", [1, 4, 5])
def test_cutout_hides_a_square_around_every_pixel_equally_often(size):
    x = images(6000, 1, 6, 5)  # no pixel is 0
    hidden = (augment.Cutout(size)(x, rng()) == 0)[:, 0]
    shown = augment.Cutout(size)(x, rng())[:, 0]
    assert torch.equal(shown[~hidden], x[:, 0][~hidden])
    kinds = {}
    for top, left in itertools.product(range(6), range(5)):
        mask = torch.zeros(6, 5, dtype=torch.bool)
        first, other = top - size // 2, left - size // 2
        mask[max(first, 0) : first + size, max(other, 0) : other + size] = True
        kinds.setdefault(mask.numpy().tobytes(), []).append((top, left))
    counts = dict.fromkeys(kinds, 0)
    for mask in hidden:
        counts[mask.numpy().tobytes()] += 1  # a KeyError is another shape
    expected = np.array([len(k) for k in kinds.values()]) * 6000 / 30
    assert stats.chisquare(list(counts.values()), expected).pvalue > 1e-3


def drawn(rows, count, seed):
    """What a step drew for each image, in [-1, 1)."""
    return (2 * torch.rand(rows, count, generator=rng(seed)) - 1).T.tolist()


@pytest.mark.parametrize("shape", [(12, 12), (16, 8)])
@pytest.mark.parametrize(
    "step",
    [
        augment.Affine(degrees=40),
        augment.Affine(scale=0.4),
        augment.Affine(degrees=30, scale=0.3),
        augment.Affine(degrees=90, scale=0.3, shift=0.25),
    ],
    ids=str,
)
def test_affine_is_torchvisions(step, shape):
    x = to_unit(images(8, 2, *shape))
    out = step(x, rng(5))
    for before, after, (turn, grow, across, down) in zip(
        x, out, drawn(4, 8, 5), strict=True
    ):
        theirs = tv.affine(
            before,
            angle=turn * step.degrees,
            translate=[0, 0],
            scale=1 + grow * step.scale,
            shear=[0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        if step.shift:  # torchvision shifts by whole pixels only, so by its matrix
            matrix = tv._get_inverse_affine_matrix(
                [0.0, 0.0],
                turn * step.degrees,
                [across * step.shift * shape[1], down * step.shift * shape[0]],
                1 + grow * step.scale,
                [0.0, 0.0],
            )
            theirs = warp(before, matrix)
        torch.testing.assert_close(after, theirs, atol=2e-5, rtol=0)


def warp(image, matrix):
    """Linear interpolation at the places that an inverse matrix names, by SciPy."""
    from scipy.ndimage import map_coordinates

    height, width = image.shape[1:]
    y, x = np.mgrid[:height, :width].astype(float)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    a, b, c, d, e, f = matrix
    place = [
        d * x + e * y + f + (height - 1) / 2,
        a * x + b * y + c + (width - 1) / 2,
    ]
    rows = [
        map_coordinates(np.pad(p, 9), [q + 9 for q in place], order=1)
        for p in image.double().numpy()
    ]
    return torch.tensor(np.stack(rows), dtype=torch.float32)


def test_affine_without_change_is_the_identity():
    x = to_unit(images())
    torch.testing.assert_close(augment.Affine()(x, rng()), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation", "all"])
def test_color_jitter_is_torchvisions(field):
    names = [f.name for f in dataclasses.fields(augment.ColorJitter)]
    strength = {n: 0.7 if field in (n, "all") else 0.0 for n in names}
    x = to_unit(images(16))
    out = augment.ColorJitter(**strength)(x, rng(6))
    for before, after, draws in zip(x, out, drawn(3, 16, 6), strict=True):
        theirs = before
        for name, draw in zip(names, draws, strict=True):
            change = getattr(tv, f"adjust_{name}")
            theirs = change(theirs, 1 + draw * strength[name])
        # torchvision's weights of grey have four digits.
        torch.testing.assert_close(after, theirs, atol=3e-4, rtol=0)


@pytest.mark.parametrize("step", STEPS[3:5], ids=lambda s: type(s).__name__)
def test_changes_of_values_need_floats(step):
    with pytest.raises(ValueError, match="floating point"):
        step(images(), rng())


def test_chain_applies_its_steps_in_order():
    x, generator = images(), rng(7)
    expected = to_unit(augment.Flip()(augment.PadCrop(2)(x, generator), generator))
    steps = (augment.PadCrop(2), augment.Flip(), augment.to_unit)
    assert torch.equal(augment.Chain(*steps)(x, rng(7)), expected)
    assert math.isclose(float(expected.max()), 1.0)
