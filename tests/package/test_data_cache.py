"""Downloads and the cache: every damage gives one error and leaves nothing bad."""

import dataclasses
import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mfdnn
import pytest
import torch
import torchvision
from mfdnn.data import DataError, cache, full, image_set, mnist

from tests.package.data_server import Server, tiny_mnist

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@pytest.fixture
def server(monkeypatch):
    """A server that torchvision takes for MNIST's mirror, with a tiny MNIST."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    files, md5, arrays = tiny_mnist()
    server = Server()
    server.files, server.arrays = files, arrays
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [server.url])
    sums = tuple(md5[name] for name in full.FILES)
    tiny = dataclasses.replace(full.IDX_SETS["mnist"], md5=sums)
    monkeypatch.setitem(full.IDX_SETS, "mnist", tiny)
    monkeypatch.setattr(cache, "TIMEOUT", 0.5)
    yield server
    server.close()


@pytest.fixture
def home(monkeypatch, tmp_path):
    """The user's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MFDNN_DATA", raising=False)
    return tmp_path / "mfdnn"


def contents(root):
    """Names of all files below a folder, without the lock."""
    return sorted(
        p.name for p in Path(root).rglob("*") if p.is_file() and p.suffix != ".lock"
    )


def fails(*arguments, **options):
    """The message of the DataError: a single sentence, a single line."""
    with pytest.raises(DataError) as caught:
        mnist(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def works(server, root):
    """The set as it was made, with nothing but its files in the folder."""
    found = mnist("train", root)
    images, labels = server.arrays["train"]
    assert torch.equal(found.images, torch.tensor(images)[:, None])
    assert torch.equal(found.labels, torch.tensor(labels).long())
    assert contents(root or cache.default_root()) == [IMAGES, LABELS]


def test_download_once_then_from_disk(server, tmp_path, capsys):
    works(server, tmp_path)
    assert server.served == [IMAGES, LABELS]
    assert IMAGES in capsys.readouterr().err  # the progress bar
    server.manner = "missing"
    works(server, tmp_path)
    assert server.served == [IMAGES, LABELS]
    assert (tmp_path / "MNIST/raw" / IMAGES).stat().st_mode & 0o777 == 0o644


def test_unknown_length_is_no_obstacle(server, tmp_path):
    server.manner = "unknown length"
    works(server, tmp_path)


REASONS = {
    "missing": "404",
    "wrong bytes": "sent other bytes",
    "truncated": "the connection ended after|IncompleteRead",
    "stalled": "timed out",
}


@pytest.mark.parametrize("manner", REASONS)
def test_bad_server(server, tmp_path, manner):
    server.manner = manner
    message = fails("train", tmp_path)
    assert "could not be downloaded" in message and "run again" in message
    assert any(r in message for r in REASONS[manner].split("|")), message
    assert contents(tmp_path) == []
    server.manner = "well"
    works(server, tmp_path)


def test_second_mirror_is_tried(server, tmp_path, monkeypatch):
    bad = Server()
    bad.manner, bad.files = "wrong bytes", server.files
    mirrors = [bad.url, server.url]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", mirrors)
    works(server, tmp_path)
    assert bad.served == server.served == [IMAGES, LABELS]
    bad.close()


def test_no_server(server, tmp_path):
    server.close()
    message = fails("train", tmp_path)
    assert "refused" in message and contents(tmp_path) == []


def test_no_network(server, tmp_path, monkeypatch):
    def unknown(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", unknown)
        message = fails("train", tmp_path)
    assert "Name or service not known" in message and "check the network" in message
    works(server, tmp_path)


def test_nonsense_instead_of_http(server, tmp_path, monkeypatch):
    def nonsense(*args, **options):
        raise http.client.BadStatusLine("SSH-2.0")

    monkeypatch.setattr(cache.urllib.request, "urlopen", nonsense)
    assert "SSH-2.0" in fails("train", tmp_path)


def test_interrupted_by_the_user(server, tmp_path, monkeypatch):
    def press_ctrl_c(url, name):
        yield server.files[IMAGES][:100]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_chunks", press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            mnist("train", tmp_path)
    assert contents(tmp_path) == []
    works(server, tmp_path)


def spawn(server, root):
    """A process that loads the tiny set and prints its checksum."""
    code = f"""if True:
        from mfdnn.data import full
        from mfdnn.data.full import IdxSet
        full._mirrors = lambda kind, name: [{server.url!r} + name]
        full.IDX_SETS["mnist"] = {full.IDX_SETS["mnist"]!r}
        print("ready", flush=True)
        print(full.mnist("train", {str(root)!r}).checksum(), flush=True)
        """
    source = str(Path(mfdnn.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        text=True,
        stdout=subprocess.PIPE,
        env=environment,
    )


def test_two_processes_at_once(server, tmp_path):
    server.manner = "slow"
    both = [spawn(server, tmp_path) for _ in range(2)]
    said = [p.communicate(timeout=60)[0].split() for p in both]
    works(server, tmp_path)
    assert said == [["ready", mnist("train", tmp_path).checksum()]] * 2
    assert sorted(server.served) == [IMAGES, LABELS]  # one downloads, one waits


def test_killed_while_downloading(server, tmp_path):
    server.manner = "stalled"
    process = spawn(server, tmp_path)
    raw = tmp_path / "MNIST/raw"
    patience = time.monotonic() + 60
    while not list(raw.glob(".*.part")) and time.monotonic() < patience:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(raw.glob(".*.part")) and not (raw / IMAGES).exists()
    server.manner = "well"
    works(server, tmp_path)  # and what the killed process left is gone


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk(server, tmp_path, monkeypatch):
    real = Path.open

    def on_full_disk(path, mode="r", *args, **options):
        if path.suffix == ".part":
            path.symlink_to("/dev/full")
        return real(path, mode, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", on_full_disk)
        message = fails("train", tmp_path)
    assert os.strerror(errno.ENOSPC) in message and "make room" in message
    assert contents(tmp_path) == []
    works(server, tmp_path)


@pytest.fixture
def no_root():
    """Without root's privileges, which no permission stops."""
    import filelock  # noqa: F401  root may own the folder it is imported from

    if (user := os.geteuid()) == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.fixture(params=[0o555, 0o000])
def forbidden(request):
    """A folder in which nobody may write, or not even look."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, request.param)
        yield Path(name)
        os.chmod(name, 0o755)


def test_no_permission_to_write(server, forbidden, no_root):
    message = fails("train", forbidden)
    assert "Permission denied" in message and "choose another folder" in message
    assert server.served == []


def test_no_permission_to_read(server, forbidden, no_root):
    message = fails("train", forbidden, published=False)
    assert f"{forbidden}/MNIST/raw/{IMAGES} cannot be read" in message


def test_folder_is_a_file(server, tmp_path):
    (tmp_path / "MNIST").touch()
    assert "cannot be written" in fails("train", tmp_path)


def truncate(data):
    return data[: len(data) // 2]


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :]


def replace(data):
    return tiny_mnist(seed=1)[0][IMAGES]


def empty(data):
    return b""


@pytest.mark.parametrize("damage", [truncate, flip, replace, empty])
@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_damaged_file_in_the_users_cache(server, home, damage, name):
    works(server, None)
    path = home / "MNIST/raw" / name
    bad = damage(path.read_bytes())
    path.write_bytes(bad)
    message = fails("train")
    assert f"{path} is damaged" in message and "run again" in message
    aside = path.with_name(f"{name}.damaged")
    assert aside.read_bytes() == bad
    aside.unlink()
    works(server, None)


@pytest.mark.parametrize("damage", [truncate, flip, replace, empty])
def test_damaged_file_in_a_given_folder_is_left_alone(server, home, tmp_path, damage):
    root = tmp_path / "mine"
    works(server, root)
    path = root / "MNIST/raw" / IMAGES
    bad = damage(path.read_bytes())
    path.write_bytes(bad)
    for _ in range(2):
        message = fails("train", root)
        assert str(path) in message and "delete it" in message
        assert path.read_bytes() == bad
    path.unlink()
    works(server, root)


@pytest.mark.parametrize("damage", [truncate, flip, empty])
def test_unpublished_files_are_checked_for_sense(server, tmp_path, damage):
    """Without published checksums the format's own checks must find the damage."""
    works(server, tmp_path)
    path = tmp_path / "MNIST/raw" / IMAGES
    path.write_bytes(damage(path.read_bytes()))
    assert str(path) in fails("train", tmp_path, published=False)


def test_missing_file_without_download(tmp_path):
    message = fails("train", tmp_path, published=False)
    assert "No such file" in message and "MFDNN_DATA or root" in message


def test_mfdnn_data_names_the_folder(server, home, tmp_path, monkeypatch):
    assert cache.data_root(None) == home
    monkeypatch.setenv("MFDNN_DATA", "full")
    assert cache.data_root(None) == home
    (tmp_path / "there").mkdir()
    monkeypatch.setenv("MFDNN_DATA", str(tmp_path / "there"))
    mnist("train")
    assert contents(tmp_path) == [IMAGES, LABELS]
    assert (tmp_path / "there/MNIST/raw" / IMAGES).exists()
    monkeypatch.setenv("MFDNN_DATA", "ful")
    assert "'ful'" in fails("train")
    assert mnist("train", tmp_path / "there").name == "mnist train"


def test_image_set_follows_mfdnn_data(server, home, monkeypatch):
    assert image_set("mnist", "train").name == "digits train"
    monkeypatch.setenv("MFDNN_DATA", "embedded")
    assert image_set("mnist", "test").name == "digits test"
    assert server.served == []
    monkeypatch.setenv("MFDNN_DATA", "full")
    assert image_set("mnist", "train").name == "mnist train"
    server.close()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "empty"))
    with pytest.raises(DataError, match="could not be downloaded"):
        image_set("mnist", "train")  # nothing falls back silently
