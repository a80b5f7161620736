"""Pascal VOC with a made-up archive of the published layout."""

import tarfile
from io import BytesIO

import numpy as np
import pytest
import torch
from mfdnn.data import DataError, PascalVOC, voc
from PIL import Image
from torchvision.datasets import voc as torchvision_voc

from tests.package.data_server import Server, checksums

SPLITS = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]}


def picture(kind, seed):
    """The bytes and pixels of a photograph (PNG under another name) or a mask."""
    rng = np.random.default_rng(seed)
    size = (20 + seed, 30)
    stream = BytesIO()
    if kind == "photograph":
        pixels = rng.integers(256, size=(*size, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
    else:
        pixels = rng.choice([*range(21), 255], size=size).astype(np.uint8)
        image = Image.fromarray(pixels)
        image.putpalette(list(range(256)) * 3)
    image.save(stream, "PNG")
    return stream.getvalue(), pixels


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server that torchvision takes for the publisher's, and the pixels."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MFDNN_DATA", raising=False)
    members, pixels = {"Annotations/2007_000032.xml": b"<annotation/>"}, {}
    for split, names in SPLITS.items():
        text = "\n".join(names) + "\n"
        members[f"ImageSets/Segmentation/{split}.txt"] = text.encode()
        for name in names:
            data, photograph = picture("photograph", int(name[-2:]))
            members[f"JPEGImages/{name}.jpg"] = data
            data, mask = picture("mask", int(name[-2:]))
            members[f"SegmentationClass/{name}.png"] = data
            pixels[name] = photograph, mask
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(f"{voc.FOLDER}/{name}")
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    server = Server()
    server.files = {voc.ARCHIVE: packed.getvalue()}
    monkeypatch.setattr(voc, "MD5", checksums(server.files)[voc.ARCHIVE])
    listed = torchvision_voc.DATASET_YEAR_DICT["2012"]
    monkeypatch.setitem(listed, "url", server.url + voc.ARCHIVE)
    server.pixels = pixels
    yield server
    server.close()


@pytest.fixture
def folder(tmp_path):
    """Where the set is in the user's cache."""
    return tmp_path / "mfdnn" / voc.FOLDER


def works(server, split, *arguments, **options):
    found = PascalVOC(split, *arguments, **options)
    assert len(found) == len(SPLITS[split])
    for (image, mask), name in zip(found, SPLITS[split], strict=True):
        photograph, classes = server.pixels[name]
        assert image.dtype == mask.dtype == torch.uint8
        assert np.array_equal(image.permute(1, 2, 0), photograph)
        assert np.array_equal(mask, classes)


def test_archive_is_torchvisions():
    listed = torchvision_voc.DATASET_YEAR_DICT["2012"]
    assert (listed["filename"], listed["md5"]) == (voc.ARCHIVE, voc.MD5)
    assert listed["base_dir"].replace("\\", "/") == voc.FOLDER
    assert len(voc.CLASSES) == 21


def test_download_once(server, folder):
    works(server, "train")
    works(server, "val")
    assert server.served == [voc.ARCHIVE]
    left = {p.name for p in folder.parents[1].iterdir()}
    assert left == {"VOCdevkit", ".mfdnn.lock"}
    assert not (folder / "Annotations").exists()


def test_archive_that_is_there_is_used_and_kept(server, tmp_path):
    archive = tmp_path / voc.ARCHIVE
    archive.write_bytes(server.files[voc.ARCHIVE])
    works(server, "train", tmp_path)
    assert server.served == [] and archive.exists()


@pytest.mark.parametrize("manner", ["truncated", "wrong bytes", "missing"])
def test_bad_download_leaves_nothing(server, folder, manner):
    server.manner = manner
    with pytest.raises(DataError, match="could not be downloaded"):
        PascalVOC("train")
    assert [p.name for p in folder.parents[1].iterdir()] == [".mfdnn.lock"]
    server.manner = "well"
    works(server, "train")


def test_interrupted_while_unpacking(server, folder, monkeypatch):
    def press_ctrl_c(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(voc.Path, "rename", press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            PascalVOC("train")
    assert not folder.exists()
    works(server, "train")


DAMAGED = ["JPEGImages/2007_000032.jpg", "SegmentationClass/2007_000032.png"]


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_picture_is_found_when_it_is_read(server, folder, name, damage):
    works(server, "train")
    path = folder / name
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-50])
    found = PascalVOC("train")
    assert found[1][0].shape == (3, 59, 30)
    with pytest.raises(DataError, match=r"2007_000032.*run again"):
        found[0]


def test_damaged_list_is_found(server, folder):
    works(server, "train")
    (folder / "ImageSets/Segmentation/train.txt").write_text("2007_000032\n")
    with pytest.raises(DataError, match=r"train.txt is damaged"):
        PascalVOC("train")


def test_folder_of_another_origin_needs_the_option(server, folder):
    works(server, "train")
    (folder / voc.MANIFEST).unlink()
    with pytest.raises(DataError, match="published=False"):
        PascalVOC("train")
    works(server, "train", published=False)


def test_missing_folder_and_split(tmp_path):
    with pytest.raises(DataError, match="does not hold Pascal VOC 2012"):
        PascalVOC("train", tmp_path, published=False)
    with pytest.raises(ValueError, match="train, val"):
        PascalVOC("test", tmp_path)
