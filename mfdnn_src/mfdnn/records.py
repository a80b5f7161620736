"""Records of full-scale runs: written once by the run, checked, shown in pages.

A record is a JSON file `records/RECIPE.json`, or `RECIPE-seed1.json` and the like
for other runs of the same recipe. Nobody types one in.
"""

import html
import json
import platform
import statistics
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfdnn import __version__
from mfdnn.errors import RecordError as RecordError
from mfdnn.files import replacing

if TYPE_CHECKING:
    import torch

    from mfdnn.data import DataSet

Setting = float | str | bool


@dataclass(frozen=True)
class Metric:
    """How a number is written.

    Args:
        name: in words.
        unit: for instance "%" or "dB"; empty for none.
        factor: what the number is multiplied by.
        digits: decimals.
    """

    name: str
    unit: str = ""
    factor: float = 1
    digits: int = 4

    def written(self, value: float) -> str:
        """The number with its unit.

        >>> Metric("test accuracy", "%", factor=100, digits=2).written(0.9929)
        '99.29 %'
        """
        return f"{self.factor * value:.{self.digits}f} {self.unit}".strip()


@dataclass(frozen=True)
class DataFacts:
    """What tells whether another run has the same data.

    Args:
        name: the set and its split.
        about: a sentence on content and source.
        examples: how many there are.
        shape: of one example.
        sha256: of all tensors.
    """

    name: str
    about: str
    examples: int
    shape: Sequence[int]
    sha256: str

    @classmethod
    def of(cls, data: "DataSet") -> "DataFacts":
        """Describe a set of data."""
        return cls(data.name, data.about, len(data), list(data.shape), data.checksum())


@dataclass(frozen=True)
class Record:
    """What happened in one run.

    Args:
        recipe, about, task, epochs, batch_size, settings: the recipe's facts.
        headline: the name of the final value by which the run is quoted.
        metrics: how measured values are written, by name; that of the headline is here.
        seed: of all random draws.
        compute: precision, memory layout, processes, threads.
        device: type of the device, and the name its maker gave it.
        parameters: how many each network has.
        data: "train" and "test".
        versions: of Python and of the libraries that results depend on.
        seconds: how long the training steps took.
        examples_per_s: training examples a second.
        first_steps: what the first two steps returned on the CPU in float32.
        curves: for each name one value an epoch.
        final: the last value of each curve, and metrics that were measured at the end
            only.
    """

    recipe: str
    about: str
    task: str
    data: Mapping[str, DataFacts]
    epochs: int
    batch_size: int
    settings: Mapping[str, Setting]
    headline: str
    metrics: Mapping[str, Metric]
    seed: int
    compute: Mapping[str, Setting]
    device: Mapping[str, str]
    parameters: Mapping[str, int]
    versions: Mapping[str, str]
    seconds: float
    examples_per_s: float
    first_steps: Mapping[str, Sequence[float]]
    curves: Mapping[str, Sequence[float]]
    final: Mapping[str, float]

    @property
    def value(self) -> float:
        """The final value by which the run is quoted."""
        return self.final[self.headline]

    @property
    def metric(self) -> Metric:
        """How that value is written."""
        return self.metrics[self.headline]

    @property
    def variant(self) -> str:
        """What is unlike the recipe's usual run, for instance ``-seed1-cuda-bf16``.

        Empty for seed 0 on a CPU in fp32.
        """
        parts = [f"seed{self.seed}"] if self.seed else []
        parts += [self.device["type"]] if self.device["type"] != "cpu" else []
        precision = str(self.compute["precision"])
        parts += [precision] if precision != "fp32" else []
        return "".join(f"-{part}" for part in parts)


_POSITIVE = {"type": "number", "exclusiveMinimum": 0}
_COUNT = {"type": "integer", "minimum": 1}
_TEXT = {"type": "string", "minLength": 1}
_CURVE = {"type": "array", "items": {"type": "number"}, "minItems": 1}
_SCALAR = {"type": ["number", "string", "boolean"]}


def _object(**properties: object) -> dict[str, object]:
    """The schema of an object that has these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _each(schema: object, *names: str, least: int = 1) -> dict[str, object]:
    """The schema of an object whose values are all alike; these names are there."""
    return {
        "type": "object",
        "additionalProperties": schema,
        "required": list(names),
        "minProperties": least,
    }


_SET = _object(
    name=_TEXT,
    about=_TEXT,
    examples=_COUNT,
    shape={"type": "array", "items": _COUNT},
    sha256={"type": "string", "pattern": "^[0-9a-f]{64}$"},
)

_METRIC = _object(
    name=_TEXT,
    unit={"type": "string"},
    factor={"type": "number", "not": {"const": 0}},
    digits={"type": "integer", "minimum": 0},
)

#: What a record looks like in its file (JSON Schema, draft 2020-12).
SCHEMA = _object(
    recipe={"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
    about=_TEXT,
    task=_TEXT,
    data=_object(train=_SET, test=_SET),
    epochs=_COUNT,
    batch_size=_COUNT,
    settings=_each(_SCALAR, least=0),
    headline=_TEXT,
    metrics=_each(_METRIC),
    seed={"type": "integer", "minimum": 0},
    compute=_each(_SCALAR, "precision", "processes", "threads"),
    device=_object(type={"enum": ["cpu", "cuda", "mps"]}, name=_TEXT),
    parameters=_each(_COUNT),
    versions=_each(_TEXT, "python", "torch", "mfdnn"),
    seconds=_POSITIVE,
    examples_per_s=_POSITIVE,
    first_steps=_each({**_CURVE, "minItems": 2, "maxItems": 2}),
    curves=_each(_CURVE),
    final=_each({"type": "number"}),
)


def describe(device: "torch.device") -> dict[str, str]:
    """Name the hardware behind a device.

    Args:
        device: the device.

    Returns:
        its type and the name its maker gave it.
    """
    if device.type == "cuda":
        import torch

        return {"type": "cuda", "name": torch.cuda.get_device_name(device)}
    name = platform.processor() or platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        fields = (s.partition(":") for s in cpus.read_text().splitlines())
        found = [value.strip() for key, _, value in fields if "model name" in key]
        name = found[0] if found else name
    return {"type": device.type, "name": name}


def versions() -> dict[str, str]:
    """List the versions of Python and of the libraries that results depend on."""
    names = ("torch", "torchvision", "numpy")
    own = {"python": platform.python_version(), "mfdnn": __version__}
    return own | {name: version(name) for name in names}


def from_json(fields: Mapping[str, Any]) -> Record:
    """Make a record of what its file holds.

    Args:
        fields: the file's contents.

    Returns:
        the record; it is complete and agrees with itself.

    Raises:
        RecordError: if something is missing or wrong; the message says where.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    if "configuration" in fields:
        raise RecordError("$: it has the form of mfdnn 0.1.0; train the recipe again")
    error = best_match(Draft202012Validator(SCHEMA).iter_errors(fields))
    if error is not None:
        raise RecordError(f"{error.json_path}: {error.message}")
    lengths = {len(curve) for curve in fields["curves"].values()}
    if len(lengths) > 1 or max(lengths) > fields["epochs"]:
        raise RecordError("$.curves: not one value an epoch")
    last = {k: curve[-1] for k, curve in fields["curves"].items()}
    once = fields["final"].keys() - last.keys()
    if fields["final"] | last != fields["final"] or once - fields["metrics"].keys():
        raise RecordError("$.final: not the last values of the curves, or no metrics")
    if fields["headline"] not in fields["final"]:
        raise RecordError("$.headline: not a name of the final values")
    if fields["headline"] not in fields["metrics"]:
        raise RecordError("$.headline: not a name of the metrics")
    sets = {name: DataFacts(**facts) for name, facts in fields["data"].items()}
    metrics = {name: Metric(**facts) for name, facts in fields["metrics"].items()}
    return Record(**{**fields, "data": sets, "metrics": metrics})


def folder() -> Path:
    """Find the folder of the book's records.

    Returns:
        the repository's `records`, or, where the package is installed without the
        repository, the folder where its installation put them.
    """
    repository = Path(__file__).resolve().parents[2]
    if (repository / "pyproject.toml").exists():
        return repository / "records"
    return Path(sysconfig.get_path("data"), "share", "mfdnn", "records")


def write(
    record: Record,
    path: str | Path | None = None,
    picture: "torch.Tensor | None" = None,
    columns: int = 8,
) -> Path:
    """Check a record and write it, whole or not at all.

    Args:
        record: the record.
        path: the file; None for RECIPE.json in the book's folder of records, or for
            another seed, device or precision RECIPE-seed1.json and the like. A
            record of the same run is replaced.
        picture: images (N, C, H, W) in [0, 1]; they go beside it as a PNG.
        columns: how many of them stand in a row.

    Returns:
        where it was written.

    Raises:
        RecordError: if the record is not valid, or the file is of another recipe,
            seed, device or precision; then nothing is written.
    """
    fields = asdict(record)
    from_json(json.loads(json.dumps(fields)))
    name = f"{record.recipe}{record.variant}.json"
    path = Path(path) if path else folder() / name
    if path.exists():
        old = read(path)
        if (old.recipe, old.variant) != (record.recipe, record.variant):
            raise RecordError(
                f"{path} holds the record of {old.recipe}{old.variant}; it is not "
                f"replaced by one of {record.recipe}{record.variant}"
            )
    try:
        text = json.dumps(fields, indent=2, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise RecordError(f"a number of the record is not finite: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    if picture is not None:
        from torchvision.utils import save_image

        with replacing(path.with_suffix(".png")) as file:
            save_image(picture, file, format="png", nrow=columns)
    with replacing(path) as file:
        file.write(f"{text}\n".encode())
    return path


def read(name: str | Path) -> Record:
    """Read a record.

    Args:
        name: a recipe, for its usual run in the book's folder, or a path to a file.

    Returns:
        the record.

    Raises:
        RecordError: if there is none, or it is damaged.
    """
    path = Path(name) if Path(name).suffix else folder() / f"{name}.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(
            f"there is no record {path}; `mfdnn train {path.stem}` makes it"
        ) from error
    except ValueError as error:
        raise RecordError(f"{path} is not JSON: {error}") from error
    try:
        return from_json(fields)
    except (RecordError, TypeError) as error:
        raise RecordError(f"{path} is not a record: {error}") from error


def runs(recipe: str | None = None, where: Path | None = None) -> list[Record]:
    """Read the records of a recipe, or all.

    Args:
        recipe: the recipe; None for all.
        where: the folder; None for the book's.

    Returns:
        the records in the order of their names, a recipe's usual run first.

    Raises:
        RecordError: if one is damaged.
    """
    files = sorted((where or folder()).glob("*.json"), key=lambda path: path.stem)
    found = [read(path) for path in files]
    return [record for record in found if recipe in (None, record.recipe)]


class Table:
    """A short table: HTML in a page, plain text elsewhere.

    Args:
        title: what stands above it.
        rows: name and value of each row.
    """

    def __init__(self, title: str, rows: Mapping[str, str]) -> None:
        self.title, self.rows = title, rows

    def __repr__(self) -> str:
        width = max(map(len, self.rows))
        lines = [f"{name:<{width}}  {value}" for name, value in self.rows.items()]
        return "\n".join([self.title, *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th>'
            f"<td>{html.escape(value)}</td></tr>"
            for name, value in self.rows.items()
        )
        return f"<table><caption>{html.escape(self.title)}</caption>{rows}</table>"


def table(record: Record, others: Iterable[Record] = ()) -> Table:
    """Put the main facts of a run into a short table.

    Args:
        record: the run.
        others: further runs of the same recipe; then mean and standard deviation of
            what they are quoted by are shown as well.

    Returns:
        the table.
    """
    metric, plain = record.metric, Metric("")
    rows = {
        name.replace("_", " "): record.metrics.get(name, plain).written(value)
        for name, value in record.final.items()
    }
    compute, train, test = record.compute, record.data["train"], record.data["test"]
    minutes, seconds = divmod(round(record.seconds), 60)
    values = [r.value for r in (record, *others)]
    if len(values) > 1:
        mean, spread = statistics.mean(values), statistics.stdev(values)
        rows[f"{len(values)} runs"] = (
            f"{metric.written(mean)} on average, standard deviation "
            f"{metric.written(spread)}"
        )
    rows |= {
        "training": f"{len(next(iter(record.curves.values())))} epochs, batches of "
        f"{record.batch_size}, {_listed(record.settings)}, {compute['precision']}, "
        f"seed {record.seed}",
        "parameters": _counts(record.parameters),
        "data": f"{train.name}, {train.examples:,}; {test.name}, {test.examples:,}",
        "device": f"{record.device['name']} ({record.device['type']}), "
        f"{_plural(int(compute['processes']), 'process', 'processes')}, "
        f"{_plural(int(compute['threads']), 'thread', 'threads')}",
        "time": f"{minutes} min {seconds:02d} s",
        "throughput": f"{record.examples_per_s:,.0f} examples/s",
        "versions": ", ".join(f"{k} {v}" for k, v in record.versions.items()),
    }
    return Table(f"{record.recipe}: {record.about}", rows)


def sentence(record: Record) -> str:
    """What was reached, in a sentence of Markdown: for the list of all runs.

    Args:
        record: the run.

    Returns:
        the headline in bold, then on what, how long, and where.
    """
    done = table(record).rows
    test = record.data["test"]
    return (
        f"**{record.metric.written(record.value)}** {record.metric.name} on the "
        f"{test.examples:,} examples of {test.name}. {done['parameters']} parameters, "
        f"{done['training']}. {done['time']}, {done['throughput']}, on "
        f"{done['device']}, torch {record.versions['torch']}."
    )


def show(name: str | Path) -> Table:
    """Show a record: the last line of a page's cell.

    Args:
        name: a recipe, or the path of a record's file.

    Returns:
        a table that notebooks and the book render; with other runs of the recipe in
        the book's folder, their mean and spread too.

    Raises:
        RecordError: if there is no such record, or it is damaged.
    """
    record = read(name)
    others = [] if Path(name).suffix else runs(record.recipe)
    return table(record, [r for r in others if r != record])


def picture(name: str | Path) -> object:
    """Show the picture that was made with a record: the last line of a page's cell.

    Args:
        name: a recipe, or the path of a record's file.

    Raises:
        RecordError: if there is none.
    """
    from IPython.display import Image

    path = Path(name) if Path(name).suffix else folder() / f"{name}.json"
    path = path.with_suffix(".png")
    if not path.exists():
        raise RecordError(f"there is no picture {path}")
    return Image(filename=str(path))  # type: ignore[no-untyped-call]


def _listed(settings: Mapping[str, Setting]) -> str:
    """Settings in words; those that are off are left out."""
    words = []
    for name, value in settings.items():
        text = name.replace("_", " ")
        if isinstance(value, bool):
            words += [text] if value else []
        elif value not in (0, "constant"):
            words.append(
                f"{text} {value:g}" if not isinstance(value, str) else f"{value} {text}"
            )
    return ", ".join(words)


def _counts(parameters: Mapping[str, int]) -> str:
    """Numbers of parameters, by network where there are several."""
    if len(parameters) == 1:
        return f"{next(iter(parameters.values())):,}"
    return ", ".join(f"{name} {count:,}" for name, count in parameters.items())


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
