"""The embedded sets against the libraries and files that they come from."""

import hashlib
import socket
from fractions import Fraction

import numpy as np
import pytest
import skimage.data
import sklearn.datasets
import torch
from mfdnn.data import (
    DataError,
    LabelledImages,
    digits,
    embedded,
    image_set,
    phantom,
    photo_crops,
    restoration_crops,
    to_unit,
    two_classes,
)
from PIL import Image


@pytest.fixture(scope="module")
def crops():
    return {split: photo_crops(split) for split in ("train", "test")}


@pytest.fixture(scope="module")
def photographs():
    """The ten photographs by class, (H, W, 3), loaded by this test alone."""
    data = skimage.data
    china, flower = sklearn.datasets.load_sample_images().images
    return {
        "astronaut": data.astronaut(),
        "cat": data.chelsea(),
        "coffee": data.coffee(),
        "galaxies": data.hubble_deep_field(),
        "motorcycle": data.stereo_motorcycle()[0],
        "retina": data.retina(),
        "rocket": data.rocket(),
        "temple": china,
        "tissue": data.immunohistochemistry(),
        "flower": flower,
    }


def test_digits_are_scikit_learns():
    theirs = sklearn.datasets.load_digits()
    parts = [digits(split, size=8) for split in ("train", "test")]
    assert [len(p) for p in parts] == [1437, 360]
    pixels = torch.cat([to_unit(p.images) for p in parts])[:, 0]
    np.testing.assert_allclose(pixels, theirs.images / 16, atol=0.5 / 255 + 1e-6)
    assert torch.cat([p.labels for p in parts]).tolist() == theirs.target.tolist()


def test_large_digits_are_the_small_ones_enlarged():
    small, large = digits("test", 8), digits("test")
    assert large.images.shape == (360, 1, 28, 28)
    assert torch.equal(small.labels, large.labels)
    inner = large.images[:, 0, 4:24, 4:24]
    assert large.images.sum() == inner.sum()  # the margin is paper
    for one, other in zip(small.images[:20, 0], inner, strict=False):
        # Pillow interpolates with the same rule in fixed point.
        theirs = Image.fromarray(one.numpy()).resize(
            (20, 20), Image.Resampling.BILINEAR
        )
        assert np.abs(np.asarray(theirs).astype(int) - other.numpy()).max() <= 2


def test_large_digits_are_exact_and_so_the_same_on_every_processor():
    """Against fractions; Python rounds those that lie between to the even one."""
    raw = sklearn.datasets.load_digits().images[-360:]
    inner = digits("test").images[:, 0, 4:24, 4:24]
    places = [
        max(Fraction(2 * i + 1, 2) * Fraction(8, 20) - Fraction(1, 2), 0)
        for i in range(20)
    ]
    corners = [(int(p), min(int(p) + 1, 7), p - int(p)) for p in places]
    between = 0
    for image, found in zip(raw[:12].astype(int).tolist(), inner, strict=False):
        for i, (top, bottom, v) in enumerate(corners):
            for j, (left, right, u) in enumerate(corners):
                value = Fraction(255, 16) * (
                    (1 - v) * ((1 - u) * image[top][left] + u * image[top][right])
                    + v * ((1 - u) * image[bottom][left] + u * image[bottom][right])
                )
                between += value.denominator == 2
                assert found[i, j] == round(value)
    assert between > 0


def test_digits_have_two_sizes():
    with pytest.raises(ValueError, match="28 or 8"):
        digits("train", 16)


def test_photo_crops_have_the_promised_form(crops):
    for split, count in (("train", 500), ("test", 100)):
        found = crops[split]
        assert found.images.shape == (10 * count, 3, 32, 32)
        assert found.labels.bincount().tolist() == [count] * 10
        assert found.classes == embedded.PHOTOGRAPHS and found.name.endswith(split)


def index(picture):
    """Where each 32x32 window with given bytes lies: digest to corners."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, (32, 32), (0, 1))
    corners = {}
    # Two probing pixels narrow the search; the digest decides.
    for top, left in np.ndindex(windows.shape[:2]):
        key = windows[top, left, :, 0, 0].tobytes()
        key += windows[top, left, :, 31, 31].tobytes()
        key += windows[top, left, :, 16, 16].tobytes()
        corners.setdefault(key, []).append((top, left))
    return windows, corners


@pytest.mark.parametrize("name", ["cat", "coffee", "motorcycle", "temple"])
def test_crops_are_of_their_photograph_and_splits_share_no_pixel(
    crops, photographs, name
):
    """Every crop is found in the photograph itself, and its pixels are marked."""
    picture = photographs[name]
    windows, corners = index(picture)
    seen = {split: np.zeros(picture.shape[:2], bool) for split in crops}
    for split, found in crops.items():
        label = found.classes.index(name)
        for crop in found.images[found.labels == label].numpy():
            key = b"".join(crop[:, i, i].tobytes() for i in (0, 31, 16))
            places = [
                place
                for place in corners.get(key, [])
                if np.array_equal(windows[place], crop)
            ]
            assert places, f"a crop of {name} is not in the photograph"
            if len(places) == 1:  # not a piece of plain sky, which is everywhere
                top, left = places[0]
                seen[split][top : top + 32, left : left + 32] = True
    assert seen["test"].any() and seen["train"].any()
    assert not (seen["test"] & seen["train"]).any()


def test_crops_are_the_same_every_time(crops):
    assert crops["test"].checksum() == photo_crops("test").checksum()
    assert crops["test"].checksum() != crops["train"].checksum()


def test_nothing_embedded_needs_the_network(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", refuse)
    assert len(photo_crops("test")) == 1000
    assert phantom().shape == (1, 400, 400)


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("size", [32, 64, 100])
def test_restoration_crops_tile_their_photographs(photographs, size, color):
    names = ("astronaut", "cat", "motorcycle", "rocket", "temple")
    expected = []
    for name in names:
        picture = Image.fromarray(photographs[name])
        pixels = np.asarray(picture if color else picture.convert("L"))
        for top in range(0, pixels.shape[0] - size + 1, size):
            for left in range(0, pixels.shape[1] - size + 1, size):
                expected.append(pixels[top : top + size, left : left + size])
    found = restoration_crops("train", size, color).numpy().astype(int)
    theirs = np.stack(expected).reshape(len(expected), size, size, -1)
    # Pillow's grey has weights of 16 bits, so the last digit may differ.
    assert np.abs(found.transpose(0, 2, 3, 1) - theirs).max() <= (0 if color else 1)


def test_grey_levels_are_the_same_on_every_processor(photographs):
    """Where 0.299 r + 0.587 g + 0.114 b ends with .5, the order of rounding counts."""
    red, green, blue = np.moveaxis(photographs["astronaut"].astype(float), 2, 0)
    grey = np.rint(0.299 * red + 0.587 * green + 0.114 * blue).astype(np.uint8)
    first = restoration_crops("train", 256)[0, 0].numpy()
    np.testing.assert_array_equal(first, grey[:256, :256])
    ties = (299 * red + 587 * green + 114 * blue)[:256, :256] % 1000 == 500
    assert ties.sum() > 10


def test_restoration_crops_are_of_different_photographs():
    pieces = [restoration_crops(split) for split in ("train", "test")]
    assert [p.shape[1:] for p in pieces] == [(1, 64, 64)] * 2
    known = [{p.numpy().tobytes() for p in part} for part in pieces]
    assert not known[0] & known[1]
    with pytest.raises(ValueError, match="between 1 and 300"):
        restoration_crops("train", 301)


def test_phantom_is_scikit_images_and_keeps_its_mean():
    full = phantom()
    np.testing.assert_allclose(full[0], skimage.data.shepp_logan_phantom(), atol=1e-7)
    small = phantom(100)
    assert small.shape == (1, 100, 100) and small.dtype == torch.float32
    blocks = full.view(100, 4, 100, 4).mean(dim=(1, 3))
    assert (small[0] - blocks).abs().mean() < 0.01
    assert small.min() >= 0 and small.max() <= 1
    with pytest.raises(ValueError, match="positive"):
        phantom(0)


@pytest.mark.parametrize("load", [digits, photo_crops, restoration_crops])
def test_unknown_split(load):
    with pytest.raises(ValueError, match="not 'valid'"):
        load("valid")


def test_image_set_is_embedded_by_default(monkeypatch):
    monkeypatch.delenv("MFDNN_DATA", raising=False)
    assert image_set("mnist", "test").images.shape[1:] == (1, 28, 28)
    assert image_set("cifar10", "test").images.shape[1:] == (3, 32, 32)
    with pytest.raises(DataError, match="MFDNN_DATA=full"):
        image_set("kmnist", "test")
    with pytest.raises(ValueError, match="no set 'imagenet'"):
        image_set("imagenet", "test")


def test_to_unit_is_division_by_255():
    pixels = torch.arange(256, dtype=torch.uint8)
    theirs = np.arange(256) / 255
    np.testing.assert_allclose(to_unit(pixels), theirs, rtol=1e-6)
    with pytest.raises(ValueError, match="float32"):
        to_unit(torch.zeros(3))


def tiny(**changes):
    """A set of two images, with changes."""
    parts = {
        "images": torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        "labels": torch.tensor([0, 1]),
        "classes": ("no", "yes"),
        "name": "tiny",
        "about": "Made up.",
    }
    return LabelledImages(**(parts | changes))


BAD = {
    "float": {"images": torch.zeros(2, 1, 4, 4)},
    "no channels": {"images": torch.zeros(2, 4, 4, dtype=torch.uint8)},
    "fewer": {"labels": torch.tensor([0])},
    "int32": {"labels": torch.tensor([0, 1], dtype=torch.int32)},
    "high": {"labels": torch.tensor([0, 2])},
    "negative": {"labels": torch.tensor([0, -1])},
    "none": {
        "images": torch.zeros(0, 1, 4, 4, dtype=torch.uint8),
        "labels": torch.zeros(0, dtype=torch.int64),
    },
}


@pytest.mark.parametrize("case", BAD)
def test_senseless_sets_are_refused(case):
    with pytest.raises(ValueError, match=r"labels|images"):
        tiny(**BAD[case])


def test_labelled_images():
    made = tiny()
    assert len(made) == 2 and "tiny" in repr(made)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    moved = made.to(device)
    assert moved.images.device.type == moved.labels.device.type == device
    assert moved.checksum() == made.checksum() and moved.classes == made.classes
    text = b"(2, 1, 4, 4)" + bytes(32) + np.array([0, 1], "<i8").tobytes()
    assert made.checksum() == hashlib.sha256(text).hexdigest()
    assert made.checksum() != tiny(labels=torch.tensor([1, 0])).checksum()


def test_two_classes_are_kept_in_their_order():
    whole = digits("test", size=8)
    pair = two_classes(whole, "9", "4")
    raw = sklearn.datasets.load_digits()
    target = raw.target[-360:]
    kept = np.isin(target, [4, 9])
    assert pair.classes == ("9", "4")
    np.testing.assert_array_equal(pair.labels, (target[kept] == 4).astype(int))
    expected = np.round(raw.images[-360:][kept] * 255 / 16).astype(np.uint8)
    np.testing.assert_array_equal(pair.images[:, 0], expected)
    assert pair.name == "digits test, 9 and 4"
    assert whole.classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("names", "complaint"),
    [(("4", "eleven"), "no class 'eleven'; there are 0, 1"), (("4", "4"), "'4' twice")],
)
def test_two_classes_must_exist_and_differ(names, complaint):
    with pytest.raises(ValueError, match=complaint):
        two_classes(digits("test", size=8), *names)
