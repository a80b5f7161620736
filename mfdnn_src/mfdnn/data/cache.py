"""Files in a cache: verified on every use, downloaded once, never half there."""

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mfdnn.errors import DataError
from mfdnn.files import replacing

#: Seconds without a byte after which a download counts as interrupted.
TIMEOUT = 30.0
CHUNK = 1 << 18


def default_root() -> Path:
    """The cache folder of full sets: ``mfdnn`` in the user's cache folder.

    Returns:
        ``$XDG_CACHE_HOME/mfdnn``, or ``~/.cache/mfdnn``; it need not exist.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mfdnn"


def chosen(where: str | Path | None = None) -> str | Path:
    """Which data are meant: ``"embedded"``, ``"full"`` or a folder.

    Args:
        where: one of these; None takes what ``MFDNN_DATA`` says, and ``"embedded"``
            where that is unset or empty.

    Returns:
        the choice.
    """
    return where or os.environ.get("MFDNN_DATA") or "embedded"


def data_root(root: str | Path | None = None) -> Path:
    """The folder where the full sets are, or will be put.

    Args:
        root: the folder, or ``"full"`` for the default cache, or None: then the
            folder that ``MFDNN_DATA`` names, and the default cache where MFDNN_DATA
            is unset, empty, ``full`` or ``embedded``.

    Returns:
        the folder.

    Raises:
        DataError: if MFDNN_DATA is neither a known word nor a folder.
    """
    if root == "full":
        return default_root()
    if root is not None:
        return Path(root).expanduser()
    named = os.environ.get("MFDNN_DATA", "")
    if named in ("", "full", "embedded"):
        return default_root()
    if not os.path.isdir(folder := Path(named).expanduser()):
        raise DataError(
            f"MFDNN_DATA is {named!r}, which is no folder: set it to 'full', "
            "to 'embedded' or to an existing folder."
        )
    return folder


@contextlib.contextmanager
def opened(path: Path, md5: str | None) -> Iterator[BinaryIO]:
    """Open a file for reading after its checksum was verified.

    What is read is what was verified: both use the same open file. A damaged
    file in the default cache is moved aside (``NAME.damaged``), so that the next
    run downloads it anew; elsewhere nothing is touched.

    Args:
        path: the file.
        md5: the checksum of the published file, or None for no verification.

    Yields:
        the file, at its beginning.

    Raises:
        DataError: if the file is missing, unreadable or not the published one.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): put the file there, or name "
            "the folder that holds the data with MFDNN_DATA or root."
        ) from error
    with file:
        if md5 is not None:
            found = hashlib.file_digest(file, _md5).hexdigest()
            if found != md5:
                raise _damaged(path, f"its md5 is {found}, not {md5}")
            file.seek(0)
        yield file


def fetch(path: Path, md5: str, urls: Sequence[str]) -> None:
    """Download a file unless it is there, or another process gets it meanwhile.

    Args:
        path: where the file belongs.
        md5: its checksum.
        urls: where to find it; tried in this order.

    Raises:
        DataError: if no server delivers the file, or it cannot be written.
    """
    if not os.path.exists(path):
        with locked(path.parent):
            if not os.path.exists(path):
                download(path, md5, urls)


def download(path: Path, md5: str, urls: Sequence[str]) -> None:
    """Download a file to its place; the caller holds the lock of its folder.

    The bytes go to a temporary file in the same folder, which takes the file's
    name only after its checksum was verified: the file is whole or not there.

    Args:
        path: where the file belongs.
        md5: its checksum.
        urls: where to find it; tried in this order.

    Raises:
        DataError: if no server delivers the file.
        OSError: if it cannot be written.
    """
    reasons = []
    for url in urls:
        digest = _md5()
        try:
            with replacing(path) as part:
                for chunk in _chunks(url, path.name):
                    part.write(chunk)
                    digest.update(chunk)
                if digest.hexdigest() != md5:
                    raise _NetworkError("sent other bytes than the published ones")
            return
        except _NetworkError as error:
            reasons.append(f"{url}: {error}")
    raise DataError(
        f"{path.name} could not be downloaded ({'; '.join(reasons)}): check the "
        f"network and run again, or put the published file into {path.parent}."
    )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder and be the only process that writes into it.

    Args:
        folder: the folder.

    Raises:
        DataError: if it cannot be written, for whatever reason.

    The lock is the library filelock's; the operating system releases it when a
    process dies.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".mfdnn.lock"):
            for left in folder.glob(".*.part"):  # of a process that was killed
                left.unlink(missing_ok=True)
            yield
    except (OSError, NotImplementedError) as error:
        raise DataError(
            f"{folder} cannot be written ({getattr(error, 'strerror', error)}): make "
            "room or get permission, or choose another folder with MFDNN_DATA or root."
        ) from error


class _NetworkError(Exception):
    """A server does not answer, or stops answering."""


def _md5() -> "hashlib._Hash":
    return hashlib.md5(usedforsecurity=False)


def _damaged(path: Path, why: str) -> DataError:
    """The error for a file with wrong contents, which the default cache drops."""
    ours = default_root() in path.parents
    with contextlib.suppress(OSError):
        if ours:
            aside = path.with_name(f"{path.name}.damaged")
            os.replace(path, aside)
            return DataError(
                f"{path} is damaged ({why}) and was moved to {aside.name}: run again "
                "to download it anew."
            )
    return DataError(
        f"{path} is not the published file ({why}): delete it and run again to "
        "download it, or pass published=False to read it as it is."
    )


def _chunks(url: str, name: str) -> Iterator[bytes]:
    """The bytes behind an address, with a progress bar."""
    from tqdm import tqdm

    request = urllib.request.Request(url, headers={"User-Agent": "mfdnn"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            size, done = response.length, 0
            with tqdm(
                total=size, desc=name, unit="B", unit_scale=True, leave=False
            ) as bar:
                while chunk := response.read(CHUNK):
                    yield chunk
                    bar.update(len(chunk))
                    done += len(chunk)
            if size is not None and done < size:
                raise _NetworkError(f"the connection ended after {done} of {size} B")
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if type(error) is urllib.error.URLError else error
        raise _NetworkError(str(reason) or type(error).__name__) from error
