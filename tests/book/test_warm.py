"""Kernels forked from a process that has imported: new, separate, and accounted for."""

import os
import time

import jupyter_client.manager
import pytest
from jupyter_client.provisioning import local_provisioner

from tests.nbval_numeric import KernelEndedError, ask, warm

MODULES = ["numpy", "ipykernel.kernelapp"]


@pytest.fixture(scope="module")
def nursery():
    nursery = warm.Nursery(MODULES)
    yield nursery
    nursery.close()


@pytest.fixture
def start(nursery, monkeypatch, tmp_path):
    """Start a kernel; a function that runs code there, and its process."""
    monkeypatch.setattr(local_provisioner, "launch_kernel", nursery.launch)
    managers = []

    def start():
        manager, client = jupyter_client.manager.start_new_kernel(cwd=tmp_path)
        managers.append((manager, client))
        process = manager.provisioner.process
        running = Running(client, process)
        return (lambda code, value="None": ask(running, code, value)), process

    yield start
    for manager, client in managers:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


class Running:
    """What `ask` needs of nbval's kernel."""

    def __init__(self, client, process):
        self.kc = client
        self.is_alive = lambda: process.poll() is None

    def get_message(self, stream, timeout):
        return self.kc.get_shell_msg(timeout=timeout)


def end_kernel(run, how):
    with pytest.raises(KernelEndedError):
        run(f"import os; {how}")


def test_kernel_holds_modules_and_nothing_else(start, tmp_path):
    run, process = start()
    assert isinstance(process, warm.Process)
    assert run("import sys", "'numpy' in sys.modules")
    assert run("", "[n for n in ('warm', 'kernel', 'np') if n in globals()]") == []
    assert not run("", "any(folder.endswith('tools') for folder in sys.path)")
    assert run("import os", "os.getcwd()") == str(tmp_path)
    backend = "module://matplotlib_inline.backend_inline"
    assert run("", "os.environ['MPLBACKEND']") == backend


def test_two_kernels_share_no_variables_and_no_random_numbers(start):
    (one, _), (two, _) = start(), start()
    one("import numpy, random; x = 1; numpy.mean = 3")
    two("import numpy, random")
    assert two("", "'x' in globals()") is False
    assert two("", "callable(numpy.mean)")
    for draw in ("numpy.random.rand()", "random.random()"):
        assert one("", draw) != two("", draw)


@pytest.mark.parametrize(
    ("end", "code"), [("os._exit(7)", 7), ("os.kill(os.getpid(), 9)", -9)]
)
def test_end_is_told(start, end, code):
    run, process = start()
    end_kernel(run, end)
    assert process.wait() == process.returncode == code


def test_time_and_memory_are_the_kernels_own(start):
    idle, work = start(), start()
    work[0]("import time\nwhile time.process_time() < 3: pass\nx = b'1' * (300 << 20)")
    for run, process in (idle, work):
        end_kernel(run, "os._exit(0)")
        process.wait()
    assert 3 <= work[1].seconds < 6
    assert idle[1].seconds < 3
    assert work[1].gib - idle[1].gib == pytest.approx(300 / 1024, abs=0.1)


def test_kernels_end_with_their_nursery(monkeypatch):
    nursery = warm.Nursery(MODULES)
    monkeypatch.setattr(local_provisioner, "launch_kernel", nursery.launch)
    manager, client = jupyter_client.manager.start_new_kernel()
    pid = manager.provisioner.process.pid
    nursery.close()
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)
    client.stop_channels()
