"""Run each cell of a page twice in a row, without executing the page twice.

A page runs once, as always; this module stands beside it. What would happen to a
reader who runs a cell again is tried in a copy of the page's process:

* A second run of a cell can differ from the first only through what the first has
  changed of what the cell reads: a name that it overwrites, a list that it
  shortens, a model that it trains, a generator from which it draws. So the contents
  of all variables are compared before and after each cell. A cell that takes long
  and has changed nothing that it reads is not run again: it would repeat itself.
* Every other cell is run again in a copy, where an exception is a failure. What
  the copy holds that the page does not hold is handed on to the copies after the
  following cells, so that a list that is too short is missed wherever it is read.
* The path (a page without its optional sections) is followed in the same way: what
  optional cells set or change is taken back in the copies, and a cell of the path
  that reads it is run there.

Which names a cell reads is told by tools/reading.py, through functions too. What a
cell keeps elsewhere than in the page's variables and the global generators (a file,
an attribute of a library) is seen only by cells that run in a moment, which are
always run again. A value whose content cannot be compared counts as changed; where
one differs that cannot be handed on, the copy itself plays the page to its end,
every cell twice.
"""

import contextlib
import gc
import hashlib
import importlib
import io
import linecache
import marshal
import os
import pickle
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import types
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import reading

MOMENT = 0.5  # seconds: a cell that takes less is run again in any case
TIME_LIMIT = 300  # seconds a copy
FILE = "<ipython-input-{}>"  # what tracebacks call a cell
AMBIENT = {"In", "Out", "exit", "quit", "get_ipython", "open"}


class Missing:
    """Stands for a name that is not there."""


# Contents


def whole(code):
    """What a piece of code does, without where it stands."""
    inner = [
        whole(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts
    ]
    return (code.co_code, code.co_names, code.co_varnames, tuple(inner))


def contents(function):
    """What the closure of a function holds."""
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:
            found.append(Missing)
    return tuple(found)


def tensor_bytes(tensor):
    """The numbers of a tensor as a digest."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    data = flat.view(sys.modules["torch"].uint8).numpy() if flat.numel() else b""
    return hashlib.blake2b(data, digest_size=16).digest()


class Contents(pickle.Pickler):
    """Writes what a value holds, so that equal values give equal bytes."""

    def reducer_override(self, thing):
        """Our own view of tensors, functions, classes and drawings."""
        torch = sys.modules.get("torch")
        if torch and isinstance(thing, torch.Tensor):
            kind = (str(thing.dtype), tuple(thing.shape), thing.requires_grad)
            grad = thing.grad if thing.is_leaf else None
            return tuple, ((*kind, tensor_bytes(thing), grad),)
        if torch and isinstance(thing, torch.Generator):
            return tuple, ((tensor_bytes(thing.get_state()),),)
        if isinstance(thing, types.ModuleType):
            return str, (thing.__name__,)
        if isinstance(thing, types.FunctionType):
            if thing.__module__ != "__main__":
                return str, (f"{thing.__module__}.{thing.__qualname__}",)
            own = thing.__defaults__, thing.__kwdefaults__, thing.__dict__
            return tuple, (
                (thing.__qualname__, whole(thing.__code__), own, contents(thing)),
            )
        if isinstance(thing, type):
            if thing.__module__ == "builtins":
                return NotImplemented  # what our own views are made of
            name = f"{thing.__module__}.{thing.__qualname__}"
            plain = ()
            if thing.__module__ == "__main__":
                kinds = int | float | str | list | dict | tuple | set
                plain = sorted(
                    (k, v)
                    for k, v in vars(thing).items()
                    if isinstance(v, kinds) and not k.startswith("__")
                )
            return tuple, ((name, *plain),)
        if type(thing).__module__.startswith("matplotlib"):
            return str, (type(thing).__name__,)  # figures are closed after each cell
        return NotImplemented


def mark(value):
    """A digest of what a value holds; None where that cannot be told."""
    file = io.BytesIO()
    try:
        Contents(file, protocol=5).dump(value)
    except Exception:
        return None
    return hashlib.blake2b(file.getbuffer(), digest_size=16).digest()


class Luggage(pickle.Pickler):
    """Writes values so that another copy of this process can have them."""

    def reducer_override(self, thing):
        """Functions of the page by what they do, modules by name."""
        if isinstance(thing, types.ModuleType):
            return importlib.import_module, (thing.__name__,)
        if isinstance(thing, types.FunctionType) and thing.__module__ == "__main__":
            parts = (thing.__name__, thing.__qualname__, thing.__defaults__)
            return make_function, (
                marshal.dumps(thing.__code__),
                *parts,
                thing.__kwdefaults__,
                contents(thing),
            )
        torch = sys.modules.get("torch")
        if torch and isinstance(thing, torch.Generator):
            return make_generator, (thing.get_state().numpy(),)
        return NotImplemented


SPACE = {}  # "page": the namespace of the page that is played


def make_function(code, name, qualname, defaults, kwdefaults, closure):
    """A function of the page that was handed on."""
    cells = tuple(types.CellType(value) for value in closure)
    code = marshal.loads(code)
    function = types.FunctionType(code, SPACE["page"], name, defaults, cells or None)
    function.__qualname__, function.__kwdefaults__ = qualname, kwdefaults
    function.__module__ = "__main__"
    return function


def make_generator(state):
    """A generator of torch with this state."""
    import torch

    generator = torch.Generator()
    generator.set_state(torch.from_numpy(state.copy()))
    return generator


def packed(values):
    """Values as bytes, or None if one cannot be handed on."""
    file = io.BytesIO()
    try:
        Luggage(file, protocol=5).dump(values)
    except Exception:
        return None
    return file.getvalue()


# The state of a page


def generators():
    """The global generators: name, how to read its state, how to set it."""
    modules = sys.modules
    if "torch" in modules:
        torch = modules["torch"]
        yield "<torch>", torch.get_rng_state, torch.set_rng_state
    if "numpy" in modules:
        random = modules["numpy"].random
        yield "<numpy>", random.get_state, random.set_state
    if "random" in modules:
        yield "<random>", modules["random"].getstate, modules["random"].setstate


def values(space):
    """All variables of a page, and the states of the global generators."""
    found = {
        name: value
        for name, value in space.items()
        if not name.startswith("_") and name not in AMBIENT
    }
    found.update((name, get()) for name, get, _ in generators())
    return found


def marks(space):
    """The digests of all variables of a page."""
    return {name: mark(value) for name, value in values(space).items()}


def give(space, changes):
    """Put values into a page's namespace, take the missing ones away."""
    setters = {name: put for name, _, put in generators()}
    for name, value in changes.items():
        if name in setters:
            setters[name](value)
        elif value is Missing:
            space.pop(name, None)
        else:
            space[name] = value


@dataclass
class Trail:
    """What a copy holds that the page does not: one such world of a reader."""

    names: set = field(default_factory=set)
    data: bytes = packed({})

    def left(self, without=()):
        """The values that are handed on, but some."""
        found = pickle.loads(self.data)
        keep = self.names - set(without)
        return {name: value for name, value in found.items() if name in keep}


@dataclass
class Wrong:
    """A cell that raised in a copy."""

    cell: int
    line: str = ""
    kind: str = ""
    text: str = ""
    again: bool = False  # when run again; else on the path

    def __str__(self):
        """One sentence for a person."""
        how = "when run again" if self.again else "without the optional sections"
        what = f"{self.kind}: {self.text}" if self.text else self.kind
        return f"code cell {self.cell}, {how}: {what}\n    at: {self.line}"


class Twice:
    """Follows a page, cell by cell; see the module's text.

    ``cells``: (number, source) of each code cell that will run; ``optional``: the
    numbers of those in optional sections.
    """

    def __init__(self, space, cells, optional=(), shell=None):
        """Nothing has run yet."""
        self.space, self.shell = space, shell
        self.sources = dict(cells)
        self.order = [number for number, _ in cells]
        self.optional = set(optional)
        self.names = {n: reading.names_of(s) for n, s in cells}
        self.again, self.path = Trail(), Trail()
        self.marks = None
        self.held = None  # the copy in which the path is followed, while a cell runs
        self.aside = None  # the copy that plays the page to its end
        self.failures = []
        self.warnings = []
        self.runs = 0  # of cells in copies
        self.seconds = 0.0
        SPACE["page"] = space

    # Names

    def reads(self, number):
        """Names that a cell may read, directly or in functions of earlier cells."""
        own = self.names[number]
        found, left = set(), own.reads | own.changes
        earlier = [self.names[k] for k in self.order[: self.order.index(number)]]
        while left:
            found |= left
            more = set()
            for name in left:
                if runs_code(self.space.get(name)):
                    makers = [n for n in earlier if name in n.sets]
                    more = more.union(*(n.inner | n.reads for n in makers))
            left = more - found
        return found

    def watch_seeds(self):
        """Note whether a cell seeds torch's global generator before it draws."""
        self.seeded = None
        torch = sys.modules.get("torch")
        if torch is None or hasattr(torch.manual_seed, "watched"):
            return
        original = torch.manual_seed

        def manual_seed(seed):
            if self.seeded is None:
                self.seeded = self.marks.get("<torch>") == mark(torch.get_rng_state())
            return original(seed)

        manual_seed.watched = True
        torch.manual_seed = torch.random.manual_seed = manual_seed

    def not_drawn(self, reads):
        """The global generators whose state before a cell it does not use."""
        mine = [self.space.get(name) for name in reads]
        random = sys.modules.get("random")
        uses = [v is random or getattr(v, "__module__", "") == "random" for v in mine]
        found = set() if any(uses) else {"<random>"}  # libraries touch it on import
        return found | ({"<torch>"} if self.seeded else set())

    # Before and after each cell

    def before(self, number):
        """Note the state; where the path is another one, set out on it in a copy."""
        if self.marks is None:
            self.marks = marks(self.space)
        self.watch_seeds()
        aside = number in self.optional
        if aside or self.path.names & self.reads(number):
            steps = [] if aside else [number]
            self.held = self.copy(self.path.left(), steps, again=False, wait=True)
        self.start = time.perf_counter()

    def after(self, number, good=True):
        """Compare the states and run the cell again in a copy, where that says more."""
        seconds = time.perf_counter() - self.start
        before, now = self.marks, marks(self.space)
        self.marks = now
        changed = {
            name
            for name, old in before.items()
            if now.get(name) != old or old is None or name not in now
        }
        new = set(now) - set(before)
        sets = self.names[number].sets
        if self.held:
            self.receive(self.held, self.path, now)
            self.held = None
        else:
            self.path.names -= (sets & (changed | new)) | (sets - self.path.names)
        if self.aside or not good:
            return
        reads = self.reads(number)
        reads |= {n for n in changed if n.startswith("<")} - self.not_drawn(reads)
        doubtful = reads & changed
        unclear = self.again.names & (reads | (sets - changed - new))
        if seconds > MOMENT and not doubtful and not unclear:
            self.again.names -= changed | new
            return
        left = self.again.left(without=changed | new)
        copy = self.copy(left, [number], again=True, now=now, reads=reads)
        self.receive(copy, self.again)

    def finish(self):
        """Wait for the copy that plays the page to its end; the failures, in order."""
        if self.aside:
            self.receive(self.aside, self.again)
            self.aside = None
        return sorted(self.failures, key=lambda wrong: wrong.cell)

    # Copies

    def copy(self, given, steps, again, wait=False, now=None, reads=frozenset()):
        """A copy of this process that has some other values and runs some cells."""
        down_reader, down_writer = os.pipe()
        up_reader, up_writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        states = {name: get() for name, get, _ in generators()}
        process = os.fork()  # which seeds the module random again
        given = {**states, **given}
        if process == 0:
            os.close(down_writer)
            os.close(up_reader)
            code = 1
            try:
                self.live(
                    given,
                    steps,
                    again,
                    down_reader if wait else None,
                    up_writer,
                    now,
                    reads,
                )
                code = 0
            finally:
                os._exit(code)
        os.close(down_reader)
        os.close(up_writer)
        self.runs += len(steps)
        return process, down_writer, up_reader, steps

    def live(self, given, steps, again, orders, answers, now, reads):
        """What the copy does: it runs the cells and tells what it then holds."""
        gc.disable()
        started = time.process_time()
        with open(answers, "wb") as up:
            with quiet(self.shell) as said:
                give(self.space, given)
                wrong = [w for w in (self.run(n, again) for n in steps) if w]
                if orders is not None:
                    with open(orders, "rb") as down:
                        now = pickle.load(down)
                own = marks(self.space)
                differ = {
                    name
                    for name in own.keys() | now.keys()
                    if own.get(name) != now.get(name)
                    or (name in own) != (name in now)
                    or (own.get(name) is None and name in reads)
                }
                holds = values(self.space)
                data = packed({name: holds.get(name, Missing) for name in differ})
            spent = time.process_time() - started
            self.tell(up, wrong, differ, data, said(), spent)
            if data is None and again:
                with quiet(self.shell) as said:
                    left = self.order[self.order.index(steps[-1]) + 1 :]
                    wrong = []
                    for number in left:
                        for _ in range(2):
                            bad = self.run(number, again=True)
                            if bad:
                                wrong.append(bad)
                                break
                spent = time.process_time() - started
                self.tell(up, wrong, set(), packed({}), said(), spent)

    def tell(self, pipe, wrong, differ, data, text, seconds):
        """Send what happened to the page's process."""
        pickle.dump((wrong, differ, data, text, seconds), pipe)
        pipe.flush()

    def receive(self, copy, trail, now=None):
        """Take over what a copy tells, and let it end."""
        process, down, up, steps = copy
        with contextlib.suppress(OSError), open(down, "wb") as pipe:
            if now is not None:
                pickle.dump(now, pipe)
        pipe = open(up, "rb")  # noqa: SIM115
        ready, _, _ = select.select([pipe], [], [], TIME_LIMIT)
        try:
            if not ready:
                os.kill(process, signal.SIGKILL)
                raise EOFError
            wrong, differ, data, text, seconds = pickle.load(pipe)
        except EOFError:
            ends = (
                f"does not end within {TIME_LIMIT} s"
                if not ready
                else "ends the process"
            )
            cell = steps[0] if steps else self.order[0]
            self.failures.append(
                Wrong(cell, kind="Ended", text=ends, again=trail is self.again)
            )
            differ, data, text, seconds = set(), packed({}), "", 0.0
            wrong = []
        self.failures += wrong
        self.seconds += seconds
        if text:
            self.warnings.append(text)
        if data is None and trail is self.again:
            self.aside = (
                process,
                os.open(os.devnull, os.O_WRONLY),
                os.dup(pipe.fileno()),
                steps,
            )
            pipe.close()
            trail.names, trail.data = set(), packed({})
            return
        pipe.close()
        os.waitpid(process, 0)
        trail.names, trail.data = set(differ), data or packed({})

    def run(self, number, again):
        """Run a cell in this process; what it raises."""
        name, source = FILE.format(number), self.sources[number]
        if self.shell:
            source = self.shell.transform_cell(source)
        linecache.cache[name] = len(source), None, source.splitlines(True), name
        try:
            exec(compile(source, name, "exec"), self.space)
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [f.line for f in frames if f.filename.startswith("<ipython-input")]
            text = " ".join(str(error).split())
            line = lines[-1] if lines else getattr(error, "text", "") or ""
            kind = type(error).__name__
            return Wrong(number, line.strip(), kind, text, again)
        finally:
            close_figures()
        return None


def runs_code(value):
    """Whether using a value may run code of the page: functions, its own objects."""
    return callable(value) or type(value).__module__ == "__main__"


def close_figures(*args, **kwargs):
    """What takes the place of showing figures."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot:
        pyplot.close("all")


# In a kernel


def follow(cells, optional):
    """Follow the page that this kernel executes; ``report`` tells what was found."""
    from IPython import get_ipython

    shell = get_ipython()
    left = [number for number, _ in cells]
    follower = Twice(shell.user_ns, cells, optional, shell)
    spent = [0.0]  # CPU seconds of the comparisons, in this process

    def counted(look, *arguments):
        start = time.process_time()
        look(*arguments)
        spent[0] += time.process_time() - start

    def before(info):
        if left and follower.sources[left[0]] == info.raw_cell:
            counted(follower.before, left[0])

    def after(result):
        if left and follower.sources[left[0]] == result.info.raw_cell:
            counted(follower.after, left.pop(0), result.success)

    shell.events.register("pre_run_cell", before)
    shell.events.register("post_run_cell", after)
    follow.now = follower, left, spent


def report():
    """(complaints, CPU seconds of comparisons and copies) of the page followed."""
    follower, left, spent = follow.now
    found = [str(wrong) for wrong in follower.finish()]
    found += [f"written to stderr: {text}" for text in follower.warnings]
    found += [f"code cell {n}: was not followed" for n in left]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found, spent[0] + used.ru_utime + used.ru_stime


class Nothing:
    """Takes what a copy would display."""

    def publish(self, *args, **kwargs):
        """Display nothing."""

    clear_output = set_parent = publish


@contextlib.contextmanager
def quiet(shell):
    """Show nothing; yields a function that gives what was written to stderr."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot:
        pyplot.show = close_figures
    if shell:
        shell.display_pub = Nothing()
    errors = tempfile.TemporaryFile("w+", buffering=1)  # noqa: SIM115
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(errors.fileno(), 2)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = errors

    def said():
        errors.flush()
        errors.seek(0)
        return errors.read()

    yield said
