"""Pascal VOC 2012: photographs with a class for every pixel."""

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from mfdnn.data import cache
from mfdnn.data.types import DataError, check_split

#: The archive's name and checksum, as torchvision lists them.
ARCHIVE, MD5 = "VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd"
FOLDER = "VOCdevkit/VOC2012"
NEEDED = ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass")
#: Checksums of the unpacked files, written when they are unpacked; the form is
#: that of the program md5sum.
MANIFEST = "mfdnn.md5"
CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car"),
    *("cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class PascalVOC:
    """Pascal VOC 2012: photographs with a class for every pixel.

    1,464 training and 1,449 validation photographs. Item i is the image, uint8,
    shape (3, H, W), and the mask, uint8, shape (H, W): positions in ``classes``
    (background and twenty things), and 255 where the annotators left the class
    open. H and W differ between photographs, at most 500. A missing set is
    downloaded once (2 GB); each photograph is verified when it is read.

    Args:
        split: ``"train"`` or ``"val"``.
        root: folder that holds or gets ``VOCdevkit/VOC2012``, or holds the
            published archive; None for the one that MFDNN_DATA names, or the
            user's cache.
        published: False reads a folder that was not unpacked here from the
            published archive, without verification.

    Raises:
        ValueError: if there is no such split.
        DataError: if the set is missing and cannot be downloaded, or damaged.

    Source: Everingham et al., "The Pascal visual object classes challenge: a
    retrospective" (2015). Licence: the photographs are Flickr users' and under
    Flickr's terms of use.
    """

    classes = CLASSES

    def __init__(
        self, split: str, root: str | Path | None = None, published: bool = True
    ) -> None:
        check_split(split, ("train", "val"))
        from torchvision.datasets import VOCSegmentation

        base = cache.data_root(root)
        self.folder = base / FOLDER
        self.name = f"pascal_voc {split}"
        self._md5: dict[str, str] | None = None
        if published:
            if not os.path.exists(self.folder):
                _unpack(base)
            self._md5 = _manifest(self.folder)
        try:
            self._verify(f"ImageSets/Segmentation/{split}.txt")
            self._pairs = VOCSegmentation(base, year="2012", image_set=split)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{self.folder} does not hold Pascal VOC 2012 ({error}): delete it and "
                "run again without published=False to download it."
            ) from error

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        from torchvision.transforms.functional import pil_to_tensor

        paths = (self._pairs.images[index], self._pairs.masks[index])
        try:
            for path in paths:
                self._verify(Path(path).relative_to(self.folder).as_posix())
            image, mask = (pil_to_tensor(p) for p in self._pairs[index])
        except (OSError, SyntaxError) as error:  # Pillow raises both
            raise DataError(
                f"{paths[0]} or its mask cannot be read ({error}): delete "
                f"{self.folder} and run again to download it anew."
            ) from error
        return image, mask[0]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self[i] for i in range(len(self)))

    def _verify(self, name: str) -> None:
        """Compare a file with the manifest; without one, with nothing."""
        if self._md5 is not None:
            data = (self.folder / name).read_bytes()
            found = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if found != self._md5.get(name):
                raise DataError(
                    f"{self.folder / name} is damaged: delete {self.folder} and run "
                    "again to download it anew."
                )


def _manifest(folder: Path) -> dict[str, str]:
    """The checksums that were written when the set was unpacked."""
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"{folder} was not unpacked from the published archive by this package: "
            "delete it and run again, or pass published=False to read it as it is."
        ) from error
    return {line[34:]: line[:32] for line in lines}


def _unpack(base: Path) -> None:
    """Unpack the published archive; the folder appears in one step, complete.

    The archive is taken from the root folder, else downloaded and removed.
    """
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    archive, target = base / ARCHIVE, base / FOLDER
    with cache.locked(base):
        if os.path.exists(target):  # another process has just done it
            return
        if not (given := os.path.exists(archive)):
            cache.download(archive, MD5, [DATASET_YEAR_DICT["2012"]["url"]])
        target.parent.mkdir(exist_ok=True)
        with (
            cache.opened(archive, MD5) as file,
            tempfile.TemporaryDirectory(dir=base, prefix=".voc-") as scratch,
            tarfile.open(fileobj=file) as tar,
        ):
            made = Path(scratch) / "VOC2012"
            lines = []
            for member in tar:
                name = member.name.removeprefix(f"{FOLDER}/")
                packed = tar.extractfile(member) if name.startswith(NEEDED) else None
                if packed is None:  # a folder, or not needed for segmentation
                    continue
                data = packed.read()
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                (made / name).write_bytes(data)
                digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
                lines.append(f"{digest}  {name}\n")
            (made / MANIFEST).write_text("".join(lines), encoding="utf-8")
            made.rename(target)
        if not given:
            archive.unlink()
