"""Kernels that start warm: forked from a process that has imported what pages import.

Importing torch, matplotlib and their friends takes longer than most pages. Here one
process imports them once, and becomes a kernel whenever a page is to be executed, by
a fork. Such a kernel has run nothing: it holds modules, and no page's variables.
`make page` starts kernels afresh, so an import that a page forgets is missed there.

The process reads one request a line and answers each with a line, both in JSON:
{"start": [arguments, environment, folder]} with the number of the new process, and
{"ended": number} with [exit code, CPU seconds, GiB], or null while it runs.
"""

import gc
import importlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import kernel

MODULES = [  # what takes long; a page still has to import what it uses
    "numpy",
    "matplotlib.pyplot",
    "torch",
    "torch._dynamo",
    "torchvision",
    "sklearn.datasets",
    "scipy.stats",
    "ipykernel.kernelapp",
]


RUNNING = set()  # the kernels forked from this process, by number


class Process:
    """One kernel, with what jupyter_client asks of subprocess.Popen."""

    stdin = stdout = stderr = None

    def __init__(self, nursery, arguments, environment, folder):
        self.nursery = nursery
        self.returncode = None
        self.seconds, self.gib = 0.0, 0.0  # known when it has ended
        self.pid = nursery.ask(start=[arguments, environment, str(folder)])

    def poll(self):
        """The exit code, or None while it runs."""
        if self.returncode is None:
            ended = self.nursery.ask(ended=self.pid)
            if ended is not None:
                self.returncode, self.seconds, self.gib = ended
        return self.returncode

    def wait(self):
        """The exit code, when it has ended."""
        while self.poll() is None:
            time.sleep(0.05)
        return self.returncode

    def send_signal(self, number):
        """Send it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """End it at once."""
        self.send_signal(9)

    def terminate(self):
        """Ask it to end."""
        self.send_signal(15)


class Nursery:
    """The process from which kernels are forked; it ends with this one."""

    def __init__(self, modules=MODULES):
        self.process = subprocess.Popen(
            [sys.executable, __file__, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if json.loads(self.process.stdout.readline() or "null") != "ready":
            raise RuntimeError("no kernels: the imports of tools/warm.py failed")

    def ask(self, **request):
        """Send one request; the answer."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def launch(self, command, env=None, cwd=None, **_):
        """Start the kernel that a command of jupyter_client starts."""
        where = command.index("-f")
        return Process(self, command[where : where + 2], env, cwd or os.getcwd())

    def close(self):
        """End the process, and the kernels that still run."""
        self.process.stdin.close()
        self.process.wait()


def become_kernel(arguments, environment, folder):
    """Be a kernel of its own, as if it had been started by a command."""
    parent = str(os.getppid())
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=parent)
    os.chdir(folder)
    random.seed()
    sys.modules["numpy"].random.seed()
    sys.argv = ["ipykernel_launcher", *arguments]
    gc.enable()
    sys.modules["ipykernel.kernelapp"].launch_new_instance(arguments)


def fork(arguments, environment, folder):
    """Fork a kernel; the number of its process."""
    pid = os.fork()
    if pid:
        os.setpgid(pid, pid)  # before anyone asks to which group it belongs
        RUNNING.add(pid)
        return pid
    code = 1
    try:
        become_kernel(arguments, environment, folder)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        os._exit(code)


def ended(pid):
    """How a kernel has ended and what it used, or None while it runs."""
    found, status, used = os.wait4(pid, os.WNOHANG)
    if not found:
        return None
    RUNNING.discard(pid)
    seconds = used.ru_utime + used.ru_stime
    return os.waitstatus_to_exitcode(status), seconds, kernel.gibibytes(used.ru_maxrss)


def main():
    """Import, then answer requests until there are no more."""
    tools = str(Path(__file__).resolve().parent)
    sys.path = [folder for folder in sys.path if folder != tools]  # as a page has it
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that the copies share what was imported
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start = request.get("start")
        answer = fork(*start) if start else ended(request["ended"])
        print(json.dumps(answer), flush=True)
    for pid in RUNNING:
        os.kill(pid, 9)
    os._exit(0)  # some libraries complain when they are taken down


if __name__ == "__main__":
    main()
