"""Writing files so that they are whole or not there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes its name only when the block ends well.

    What is written goes to a hidden file beside it, ``.NAME.part``. After an
    error, a full disk or `kill -9` at any moment the old file is still there.

    Args:
        path: the name; its folder exists.

    Yields:
        the file, to be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
