"""What every kernel that executes a page needs, and what it has used."""

import os
import resource
import sys
import tempfile
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def prepare_environment():
    """One thread a process; and a folder for matplotlib that can be written.

    Without such a folder matplotlib complains on stderr: noise of the machine, not
    a page's output. The folder of this process goes when the process ends.
    """
    os.environ.update(dict.fromkeys(THREADS, "1"))
    if "MPLCONFIGDIR" not in os.environ and not writable(matplotlib_folder()):
        folder = tempfile.TemporaryDirectory(prefix="matplotlib-")
        prepare_environment.folder = folder  # kept as long as this process
        os.environ["MPLCONFIGDIR"] = folder.name


def matplotlib_folder():
    """Where matplotlib keeps its settings if nothing else is said."""
    home = Path(os.path.expanduser("~"))
    if sys.platform.startswith(("linux", "freebsd")):
        return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "matplotlib")
    return home / ".matplotlib"


def writable(folder):
    """Whether a folder, or the nearest one above it that exists, can be written."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def gibibytes(maxrss, platform=sys.platform):
    """The largest memory that getrusage tells, in GiB: bytes on a Mac, else KiB."""
    return maxrss / 2 ** (30 if platform == "darwin" else 20)


def usage(who):
    """CPU seconds and the largest GiB of this process, or of its children."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime, gibibytes(used.ru_maxrss)


def used_by_children():
    """CPU seconds of all processes that have ended, and GiB of the largest one."""
    return usage(resource.RUSAGE_CHILDREN)


def end_of_process(exit_code):
    """One sentence on how a kernel ended that should have gone on."""
    if exit_code == -9:
        return "its process was killed, as happens when memory runs out."
    if exit_code is not None and exit_code < 0:
        return f"its process was ended by signal {-exit_code}."
    if exit_code is not None:
        return f"it ends the process with exit code {exit_code}."
    return "its process has ended."
