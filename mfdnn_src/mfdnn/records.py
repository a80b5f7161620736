"""Records of full-scale runs: written once by the run, checked, shown in pages.

A record is a JSON file `records/RECIPE.json`. Nobody types one in.
"""

import html
import json
import os
import platform
import sysconfig
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfdnn import __version__

if TYPE_CHECKING:
    import torch

    from mfdnn.data import LabelledImages

Record = dict[str, Any]

_POSITIVE = {"type": "number", "exclusiveMinimum": 0}
_COUNT = {"type": "integer", "minimum": 1}
_TEXT = {"type": "string", "minLength": 1}
_CURVE = {"type": "array", "items": {"type": "number"}, "minItems": 1}


def _object(_later: tuple[str, ...] = (), **properties: object) -> dict[str, object]:
    """The schema of an object that has these properties and no others.

    The later ones may be missing: records are older than they are.
    """
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in _later],
        "additionalProperties": False,
    }


_SET = _object(
    name=_TEXT,
    about=_TEXT,
    images=_COUNT,
    shape={"type": "array", "items": _COUNT, "minItems": 3, "maxItems": 3},
    sha256={"type": "string", "pattern": "^[0-9a-f]{64}$"},
)

#: What a record looks like (JSON Schema, draft 2020-12).
SCHEMA = _object(
    recipe={"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
    about=_TEXT,
    configuration=_object(
        _later=("weight_decay", "schedule", "augment"),
        data=_TEXT,
        batch_size=_COUNT,
        lr=_POSITIVE,
        momentum={"type": "number", "minimum": 0, "exclusiveMaximum": 1},
        weight_decay={"type": "number", "minimum": 0},
        schedule={"enum": ["constant", "cosine"]},
        augment={"type": "boolean"},
        epochs=_COUNT,
        precision={"enum": ["fp32", "bf16"]},
        processes=_COUNT,
        threads=_COUNT,
        parameters=_COUNT,
    ),
    seed={"type": "integer", "minimum": 0},
    data=_object(train=_SET, test=_SET),
    device=_object(type={"enum": ["cpu", "cuda", "mps"]}, name=_TEXT),
    versions={
        "type": "object",
        "additionalProperties": _TEXT,
        "required": ["python", "torch", "mfdnn"],
    },
    wall_time_s=_POSITIVE,
    images_per_s=_POSITIVE,
    first_losses={**_CURVE, "minItems": 2, "maxItems": 2},
    curves={
        "type": "object",
        "additionalProperties": _CURVE,
        "required": ["loss"],
    },
    final={"type": "object", "additionalProperties": {"type": "number"}},
)


class RecordError(Exception):
    """A record is missing, or is not what a record has to be."""


def facts(images: "LabelledImages") -> dict[str, Any]:
    """Describe a set of images so that another run can tell whether it has the same.

    Args:
        images: the set, images of shape (N, C, H, W).

    Returns:
        name, sentence, number and shape of the images, and the SHA-256 of shape,
        pixels and labels.

    Source: the book's own convention.
    """
    return {
        "name": images.name,
        "about": images.about,
        "images": len(images),
        "shape": list(images.images.shape[1:]),
        "sha256": images.checksum(),
    }


def describe(device: "torch.device") -> dict[str, str]:
    """Name the hardware behind a device.

    Args:
        device: the device, shape ().

    Returns:
        its type and the name its maker gave it.

    Source: the book's own convention.
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
    """List the versions of Python and of the libraries that results depend on.

    Returns:
        a version for each name, shape (number of names,).

    Source: the book's own convention.
    """
    names = ("torch", "torchvision", "numpy")
    own = {"python": platform.python_version(), "mfdnn": __version__}
    return own | {name: version(name) for name in names}


def validate(record: Mapping[str, Any]) -> None:
    """Check that a record is complete and agrees with itself.

    Args:
        record: the record.

    Raises:
        RecordError: if something is missing or wrong; the message says where.

    Source: the book's own convention; JSON Schema by the library jsonschema.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(SCHEMA).iter_errors(record))
    if error is not None:
        raise RecordError(f"{error.json_path}: {error.message}")
    lengths = {len(curve) for curve in record["curves"].values()}
    if len(lengths) > 1 or max(lengths) > record["configuration"]["epochs"]:
        raise RecordError("$.curves: not one value an epoch")
    if record["final"] != {k: curve[-1] for k, curve in record["curves"].items()}:
        raise RecordError("$.final: not the last values of the curves")


def folder() -> Path:
    """Find the folder of the book's records.

    Returns:
        the repository's `records`, or, where the package is installed without the
        repository, the folder where its installation put them.

    Source: the book's own convention.
    """
    repository = Path(__file__).resolve().parents[2]
    if (repository / "pyproject.toml").exists():
        return repository / "records"
    return Path(sysconfig.get_path("data"), "share", "mfdnn", "records")


def write(record: Mapping[str, Any], path: str | Path | None = None) -> Path:
    """Validate a record and write it, whole or not at all.

    Args:
        record: the record.
        path: the file; None for RECIPE.json in the book's folder of records.

    Returns:
        where it was written.

    Raises:
        RecordError: if the record is not valid; then nothing is written.

    Source: the book's own convention.
    """
    validate(record)
    path = Path(path) if path else folder() / f"{record['recipe']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    try:
        text = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except ValueError as error:
        raise RecordError(f"a number of the record is not finite: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read(name: str | Path) -> Record:
    """Read and validate a record.

    Args:
        name: a recipe, for its record in the book's folder, or a path to a file.

    Returns:
        the record.

    Raises:
        RecordError: if there is none, or it is damaged.

    Source: the book's own convention.
    """
    path = Path(name) if Path(name).suffix else folder() / f"{name}.json"
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(
            f"there is no record {path}; `mfdnn train {path.stem}` makes it"
        ) from error
    except ValueError as error:
        raise RecordError(f"{path} is not JSON: {error}") from error
    try:
        validate(record)
    except RecordError as error:
        raise RecordError(f"{path} is not a record: {error}") from error
    return record


class Table:
    """A short table: HTML in a page, plain text elsewhere.

    Args:
        title: what stands above it.
        rows: name and value of each row.

    Source: the book's own convention.
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


def table(record: Mapping[str, Any]) -> Table:
    """Put the main facts of a record into a short table.

    Args:
        record: a valid record; its curves have shape (number of epochs,).

    Returns:
        the table.

    Source: the book's own convention.
    """
    setting = record["configuration"]
    train, test = record["data"]["train"], record["data"]["test"]
    rows = {name.replace("_", " "): f"{v:.4f}" for name, v in record["final"].items()}
    if "test accuracy" in rows:
        rows["test accuracy"] = f"{100 * record['final']['test_accuracy']:.2f} %"
    minutes, seconds = divmod(round(record["wall_time_s"]), 60)
    rows |= {
        "training": f"{len(record['curves']['loss'])} epochs, batches of "
        f"{setting['batch_size']}, lr {setting['lr']:g}, momentum "
        f"{setting['momentum']:g}{_extras(setting)}, {setting['precision']}, "
        f"seed {record['seed']}",
        "parameters": f"{setting['parameters']:,}",
        "images": f"{train['name']}, {train['images']:,}; "
        f"{test['name']}, {test['images']:,}",
        "device": f"{record['device']['name']} ({record['device']['type']}), "
        f"{setting['processes']} process(es) of {setting['threads']} thread(s)",
        "time": f"{minutes} min {seconds:02d} s",
        "throughput": f"{record['images_per_s']:,.0f} images/s",
        "versions": ", ".join(f"{k} {v}" for k, v in record["versions"].items()),
    }
    return Table(f"{record['recipe']}: {record['about']}", rows)


def _extras(setting: Mapping[str, Any]) -> str:
    """Weight decay, schedule and augmentation, where there are any."""
    decay = setting.get("weight_decay", 0)
    cosine = setting.get("schedule", "constant") == "cosine"
    return (
        (f", weight decay {decay:g}" if decay else "")
        + (", cosine schedule" if cosine else "")
        + (", flips and crops" if setting.get("augment") else "")
    )


def show(name: str | Path) -> Table:
    """Show a record: the last line of a page's cell.

    Args:
        name: a recipe, or the path of a record's file; its curves have shape
            (number of epochs,).

    Returns:
        a table that notebooks and the book render.

    Raises:
        RecordError: if there is no such record, or it is damaged.

    Source: the book's own convention.
    """
    return table(read(name))
