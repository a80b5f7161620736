"""The full image sets: MNIST and its relatives, CIFAR-10.

Addresses come from torchvision, and the checksums below are torchvision's (a
test compares them). The files are read here, not by torchvision, whose readers
leave the decompressed files beside the compressed ones and hold a set twice.
"""

import gzip
import os
import pickle
import shutil
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mfdnn.data import cache
from mfdnn.data.types import DataError, LabelledImages, check_split
from mfdnn.files import replacing

DIGITS = tuple("0123456789")
CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
SYLLABLES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
THINGS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@dataclass(frozen=True)
class IdxSet:
    """One of MNIST's relatives: four gzipped idx files."""

    kind: str  # torchvision's name, and that of the folder
    classes: tuple[str, ...]
    about: str
    md5: tuple[str, str, str, str]  # of the files, in the order of FILES


#: The files of each of MNIST's relatives.
FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
#: MNIST and its relatives; the checksums are torchvision's.
IDX_SETS = {
    "mnist": IdxSet(
        "MNIST",
        DIGITS,
        "MNIST: handwritten digits, 28x28, grey, 0 is paper and 255 is ink. "
        "LeCun, Bottou, Bengio and Haffner (1998); CC BY-SA 3.0.",
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    "fashion_mnist": IdxSet(
        "FashionMNIST",
        CLOTHES,
        "Fashion-MNIST: photographs of clothes, 28x28, grey, 0 is background. "
        "Xiao, Rasul and Vollgraf (2017); MIT.",
        (
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
    "kmnist": IdxSet(
        "KMNIST",
        SYLLABLES,
        "KMNIST: cursive Japanese characters, 28x28, grey, 0 is paper and 255 is "
        "ink. Clanuwat et al. (2018), from the Kuzushiji data set of CODH; "
        "CC BY-SA 4.0.",
        (
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
    ),
}
#: Checksums of the archive of CIFAR-10 and of what it holds; torchvision's.
CIFAR_MD5 = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CIFAR_ARCHIVE, CIFAR_FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
#: Bytes unpacked at a time, so that little is held twice.
PIECE = 1 << 20


def mnist(
    split: str, root: str | Path | None = None, published: bool = True
) -> LabelledImages:
    """MNIST: handwritten digits, 28x28, grey, size-normalized and centred.

    60,000 training and 10,000 test images of shape (1, 28, 28), uint8, 0 is
    paper and 255 is ink; classes 0 to 9. Missing files are downloaded (11 MB),
    every file is verified against its published checksum at every use.

    Args:
        split: ``"train"`` or ``"test"``.
        root: folder that holds or gets ``MNIST/raw`` with the published .gz
            files; None for the one that MFDNN_DATA names, or the user's cache.
        published: False reads files that are not the published ones; then
            nothing is downloaded, and ``about`` says so.

    Returns:
        images of shape (N, 1, 28, 28) and their labels.

    Raises:
        ValueError: if there is no such split.
        DataError: if the files are missing and cannot be downloaded, or damaged.

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to
    document recognition" (1998). Licence: CC BY-SA 3.0 (LeCun and Cortes).
    """
    return _idx_set("mnist", split, root, published)


def fashion_mnist(
    split: str, root: str | Path | None = None, published: bool = True
) -> LabelledImages:
    """Fashion-MNIST: photographs of clothes, 28x28, grey.

    60,000 training and 10,000 test images of shape (1, 28, 28), uint8, 0 is
    background; classes T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal,
    Shirt, Sneaker, Bag, Ankle boot. Missing files are downloaded (31 MB), every
    file is verified at every use.

    Arguments and errors are those of `mnist`; the files belong in
    ``FashionMNIST/raw``.

    Source: Xiao, Rasul and Vollgraf, arXiv:1708.07747 (2017). Licence: MIT.
    """
    return _idx_set("fashion_mnist", split, root, published)


def kmnist(
    split: str, root: str | Path | None = None, published: bool = True
) -> LabelledImages:
    """KMNIST: cursive Japanese characters from old books, 28x28, grey.

    60,000 training and 10,000 test images of shape (1, 28, 28), uint8, 0 is
    paper and 255 is ink; the classes are ten syllables, one of each row of the
    hiragana table: o, ki, su, tsu, na, ha, ma, ya, re, wo. Only the files of the
    split asked for are needed; missing ones are downloaded (21 MB in all).

    Arguments and errors are those of `mnist`; the files belong in
    ``KMNIST/raw``.

    Source: Clanuwat et al., "Deep learning for classical Japanese literature",
    arXiv:1812.01718 (2018). Licence: CC BY-SA 4.0.
    """
    return _idx_set("kmnist", split, root, published)


def cifar10(
    split: str, root: str | Path | None = None, published: bool = True
) -> LabelledImages:
    """CIFAR-10: colour photographs of animals and vehicles, 32x32.

    50,000 training and 10,000 test images of shape (3, 32, 32), uint8, channels
    red, green, blue; classes airplane, automobile, bird, cat, deer, dog, frog,
    horse, ship, truck. A missing set is downloaded (170 MB) and unpacked, every
    batch is verified at every use.

    Args:
        split: ``"train"`` or ``"test"``.
        root: folder that holds or gets ``cifar-10-batches-py``; see `mnist`.
        published: False reads batches that are not the published ones, for
            instance of a subset; then nothing is downloaded, and ``about`` says
            so and how many images there are.

    Returns:
        images of shape (N, 3, 32, 32) and their labels.

    Raises:
        ValueError: if there is no such split.
        DataError: if the set is missing and cannot be downloaded, or damaged.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images"
    (2009). Licence: none stated by the author.
    """
    check_split(split)
    names = [n for n in CIFAR_MD5 if n.startswith(_cifar_prefix(split))]
    folder = cache.data_root(root) / CIFAR_FOLDER
    if published and not all(os.path.exists(folder / name) for name in names):
        _unpack_cifar(folder)
    batches = [_read_batch(folder / name, name, published) for name in names]
    images = torch.empty(sum(len(y) for _, y in batches), 3, 32, 32, dtype=torch.uint8)
    labels = torch.cat([y for _, y in batches])
    done = 0
    while batches:  # each batch is released once it is copied
        pixels, _ = batches.pop(0)
        images[done : done + len(pixels)] = pixels.view(-1, 3, 32, 32)
        done += len(pixels)
    about = (
        "CIFAR-10: colour photographs of animals and vehicles, 32x32. "
        "Krizhevsky (2009); no licence stated." + _unpublished(published, done)
    )
    return LabelledImages(images, labels, THINGS, f"cifar10 {split}", about)


#: The full sets by the names that `mfdnn.data.image_set` and the command take.
LOADERS: dict[str, Callable[[str, str | Path | None, bool], LabelledImages]] = {
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "kmnist": kmnist,
    "cifar10": cifar10,
}


def read_idx(file: BinaryIO, path: Path) -> Tensor:
    """Read a gzipped idx file of bytes into a tensor that is allocated once.

    Args:
        file: the open .gz file.
        path: its name, for messages.

    Returns:
        uint8, with the shape that the file states.

    Raises:
        DataError: if the contents are cut off, altered or of another format.

    Source: the format as described with MNIST (LeCun, Cortes and Burges).
    """
    try:
        with gzip.open(file) as unpacked:
            head = unpacked.read(4)
            if head[:3] != b"\0\0\x08" or len(head) < 4:
                raise DataError(f"{path} is no idx file of bytes: put the right one.")
            shape = [int.from_bytes(unpacked.read(4)) for _ in range(head[3])]
            size = 1
            for length in shape:
                size *= length
            # Deflate packs at most 1,032 bytes into one: a wrong head is caught
            # here rather than by the machine's memory.
            if size > 1032 * path.stat().st_size:
                raise DataError(f"{path} states an impossible shape: replace it.")
            values = torch.empty(size, dtype=torch.uint8)
            rest = values.numpy().data
            while count := unpacked.readinto(rest[:PIECE]):
                rest = rest[count:]
            if len(rest) or unpacked.read(1):
                raise DataError(f"{path} does not hold what its head states.")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}): replace it.") from error
    return values.view(shape)


def _idx_set(
    name: str, split: str, root: str | Path | None, published: bool
) -> LabelledImages:
    """The images and labels of one of MNIST's relatives."""
    check_split(split)
    family = IDX_SETS[name]
    folder = cache.data_root(root) / family.kind / "raw"
    start = "train" if split == "train" else "t10k"
    read = []
    for file_name, md5 in zip(FILES, family.md5, strict=True):
        if not file_name.startswith(start):
            continue
        path = folder / file_name
        if published and not os.path.exists(path):
            cache.fetch(path, md5, _mirrors(family.kind, file_name))
        with cache.opened(path, md5 if published else None) as file:
            read.append(read_idx(file, path))
    images, labels = read
    classes = family.classes
    if images.ndim != 3 or labels.shape != images.shape[:1] or len(labels) == 0:
        raise DataError(f"{folder} holds no images with one label each: replace it.")
    if int(labels.max()) >= len(classes):
        raise DataError(f"{folder} holds labels above {len(classes) - 1}: replace it.")
    about = family.about + _unpublished(published, len(labels))
    return LabelledImages(
        images.unsqueeze(1), labels.long(), classes, f"{name} {split}", about
    )


def _unpublished(published: bool, count: int) -> str:
    """What ``about`` adds for files that are not the published ones."""
    return "" if published else f" Not the published files: {count:,} images."


def _mirrors(kind: str, name: str) -> list[str]:
    """Where torchvision finds a file of one of MNIST's relatives."""
    from torchvision import datasets

    return [mirror + name for mirror in getattr(datasets, kind).mirrors]


def _cifar_prefix(split: str) -> str:
    return "data_batch" if split == "train" else "test_batch"


def _unpack_cifar(folder: Path) -> None:
    """Put the published batches into their folder, each in one step.

    The archive is taken from beside the folder, else downloaded and removed.
    """
    from torchvision.datasets import CIFAR10

    wanted = {n: md5 for n, md5 in CIFAR_MD5.items() if n != CIFAR_ARCHIVE}
    archive, md5 = folder.with_name(CIFAR_ARCHIVE), CIFAR_MD5[CIFAR_ARCHIVE]
    with cache.locked(folder.parent):
        if all(os.path.exists(folder / name) for name in wanted):
            return  # another process has just done it
        if not (given := os.path.exists(archive)):
            cache.download(archive, md5, [CIFAR10.url])
        folder.mkdir(exist_ok=True)
        with (
            cache.opened(archive, md5) as file,
            tarfile.open(fileobj=file, mode="r:gz") as tar,
        ):
            for name in wanted:
                packed = tar.extractfile(f"{CIFAR_FOLDER}/{name}")
                assert packed is not None
                with replacing(folder / name) as part:
                    shutil.copyfileobj(packed, part)
        if not given:
            archive.unlink()


class _ArraysOnly(pickle.Unpickler):
    """Reads pickled arrays and lists, and refuses everything else.

    A pickle can name any function to be called; a folder that is not the
    published one must not be able to.
    """

    ALLOWED = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def _read_batch(path: Path, name: str, published: bool) -> tuple[Tensor, Tensor]:
    """Pixels, uint8 (N, 3072), and labels, int64 (N,), of a batch of CIFAR-10."""
    with cache.opened(path, CIFAR_MD5[name] if published else None) as file:
        try:
            batch = _ArraysOnly(file, encoding="latin1").load()
            pixels, labels = (
                torch.as_tensor(batch["data"]),
                torch.tensor(batch["labels"]),
            )
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise DataError(
                f"{path} is no batch of CIFAR-10 ({error}): replace it."
            ) from error
    fits = pixels.dtype == torch.uint8 and pixels.shape == (len(labels), 3072)
    if not fits or labels.dtype != torch.int64 or len(labels) == 0:
        raise DataError(f"{path} does not hold 3,072 bytes and a label an image.")
    if labels.min() < 0 or labels.max() >= len(THINGS):
        raise DataError(f"{path} holds labels outside 0, ..., 9: replace it.")
    return pixels, labels
