"""The command `mfdnn`: train a recipe, list recipes, fetch data, show the machine."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ABOUT = """\
Full-scale experiments of the book Mathematical Foundations of Deep Neural Networks.
The pages of the book run small experiments on data that ship with the package.
This command runs the same networks on the full data sets."""

START = """\
to begin:
  mfdnn recipes                          what can be trained
  mfdnn train lenet-mnist --data embedded --epochs 2
                                         try it in seconds, without a download
  mfdnn train lenet-mnist                the full run; its record is kept

`mfdnn COMMAND --help` says more about each command."""

TRAIN = """\
Train RECIPE on its full data set and write what was measured to a record.

After each epoch the state goes to a checkpoint. A run that was interrupted (Ctrl-C,
kill, power) goes on from there when you give the same command again, and ends with
the same result. A finished run removes its checkpoint, unless you named it."""

TRAIN_EXAMPLES = """\
examples:
  mfdnn train mlp-mnist                  download MNIST once, train, write the record
  mfdnn train mlp-mnist --data DIR       read MNIST from DIR/MNIST/raw instead
  mfdnn train mlp-mnist --data embedded --epochs 1
                                         a quick trial; prints the record's table
  mfdnn train mlp-mnist --seed 1 --device cuda --precision bf16 --channels-last
  torchrun --nproc-per-node=4 -m mfdnn train mlp-mnist
                                         four processes, on GPUs one each; the batch
                                         is divided among them, the result is the
                                         same up to rounding

The record goes to records/RECIPE.json when the run is the recipe's own (full data,
its number of epochs); with another seed, device or precision to a file beside it,
such as records/RECIPE-seed1-cuda.json. Elsewhere only when --record says where."""

DATA = """\
Fetch a full data set into the cache, verify its checksums, and say what it is.
Without NAME: list the sets."""

INFO = """\
Print versions, devices and folders: what a report of an error should contain."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: the words after `mfdnn`, None takes
            those of the command line.

    Raises:
        SystemExit: with a sentence for the user when something cannot be done
            (status 1), or when the words make no sense (status 2).
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough: mfdnn recipes | head -3
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit("mfdnn: stopped; the same command goes on after the last epoch")
    except Exception as error:
        from mfdnn.errors import MfdnnError

        if not isinstance(error, (MfdnnError, OSError, ValueError)):
            raise
        sys.exit(f"mfdnn: {error}")


def _parser() -> argparse.ArgumentParser:
    """Describe the words that the command understands."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "mfdnn", description=ABOUT, epilog=START, formatter_class=raw
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    train = commands.add_parser(
        "train",
        help="run a full-scale experiment and record it",
        description=TRAIN,
        epilog=TRAIN_EXAMPLES,
        formatter_class=raw,
    )
    train.set_defaults(run=_train)
    train.add_argument("recipe", metavar="RECIPE", help="a name from `mfdnn recipes`")
    train.add_argument(
        "--data",
        metavar="WHERE",
        help="full (default; downloaded once), embedded (small, in the package), or a "
        "folder that holds the full sets; the environment's MFDNN_DATA says the same",
    )
    train.add_argument(
        "--unpublished",
        action="store_true",
        help="accept files that are not the published ones; the record says so",
    )
    train.add_argument("--epochs", type=_positive, help="instead of the recipe's")
    train.add_argument("--seed", type=int, default=0, help="default 0")
    train.add_argument("--device", help="cuda, mps or cpu; default: the best there is")
    train.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    train.add_argument(
        "--channels-last", action="store_true", help="pays for convolutions in bf16"
    )
    train.add_argument("--compile", action="store_true", help="pays for long runs")
    train.add_argument("--threads", type=_positive, help="on the CPU")
    train.add_argument("--record", metavar="FILE", help="where to write the record")
    train.add_argument("--checkpoint", metavar="FILE", help="keep the checkpoint here")

    recipes = commands.add_parser("recipes", help="list the experiments")
    recipes.set_defaults(run=_recipes)

    data = commands.add_parser(
        "data",
        help="fetch a data set, or list them",
        description=DATA,
        formatter_class=raw,
    )
    data.set_defaults(run=_data)
    data.add_argument("name", metavar="NAME", nargs="?", help="for instance mnist")
    data.add_argument("--folder", metavar="DIR", help="instead of the cache")

    info = commands.add_parser(
        "info", help="versions, devices, folders", description=INFO, formatter_class=raw
    )
    info.set_defaults(run=_info)
    return parser


def _positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def _train(options: argparse.Namespace) -> None:
    import torch

    from mfdnn import device, distributed, records
    from mfdnn.data.cache import default_root
    from mfdnn.recipes import find, run

    recipe = find(options.recipe)
    where = options.data or os.environ.get("MFDNN_DATA") or "full"
    epochs = options.epochs or recipe.epochs
    own = where != "embedded" and epochs == recipe.epochs
    recipe = replace(recipe, epochs=epochs)
    checkpoint = Path(
        options.checkpoint
        or default_root() / "checkpoints" / f"{recipe.name}-{options.seed}.pt"
    )
    with (
        distributed.group(device.choose(options.device)) as place,
        device.threads(options.threads or torch.get_num_threads()),
    ):
        result = run(
            recipe,
            recipe.load(where, published=not options.unpublished),
            options.seed,
            device.Compute(
                place, options.precision, options.channels_last, options.compile
            ),
            checkpoint=checkpoint,
        )
        if distributed.rank():
            return
        print(records.table(result.record))
        if options.record or own:
            path = records.write(
                result.record, options.record, result.picture, recipe.task.columns
            )
            print(f"written to {path}")
        if not options.checkpoint:
            checkpoint.unlink(missing_ok=True)


def _recipes(options: argparse.Namespace) -> None:
    import torch

    from mfdnn.device import Compute
    from mfdnn.measure import count_parameters
    from mfdnn.recipes import RECIPES, Plan

    row = "{:<28} {:<8} {:>10} {:>6} {:>6}  {}"
    print(row.format("recipe", "data", "parameters", "batch", "epochs", "what"))
    for r in RECIPES.values():
        with torch.device("meta"):  # shapes without numbers
            compute, draws = Compute(torch.device("meta")), torch.Generator("cpu")
            learner = r.task.learner(Plan(r.settings, compute, r.epochs, draws))
        size = f"{sum(map(count_parameters, learner.networks.values())):,}"
        print(row.format(r.name, r.data, size, r.batch_size, r.epochs, r.about))


def _data(options: argparse.Namespace) -> None:
    from mfdnn.data.cache import data_root
    from mfdnn.data.full import LOADERS

    if options.name is None:
        print("\n".join(LOADERS))
        return
    if options.name not in LOADERS:
        raise ValueError(f"no set {options.name!r}; there are {', '.join(LOADERS)}")
    root = data_root(options.folder)
    for split in ("train", "test"):
        images = LOADERS[options.name](split, root, True)
        n, shape = len(images), "x".join(map(str, images.images.shape[1:]))
        print(f"{images.name}: {n:,} images {shape}, {len(images.classes)} classes")
        print(f"  sha256 {images.checksum()}")
    print(f"{images.about}\nin {root}")


def _info(options: argparse.Namespace) -> None:
    import torch

    from mfdnn import device, records
    from mfdnn.data.cache import data_root

    found = device.available()
    names = [f"{n} ({records.describe(torch.device(n))['name']})" for n in found]
    rows = {
        **records.versions(),
        "devices": ", ".join(names),
        "chosen": str(device.choose()),
        "threads": str(torch.get_num_threads()),
        "data": f"{data_root(None)} (MFDNN_DATA={os.environ.get('MFDNN_DATA', '')})",
        "records": str(records.folder()),
    }
    print(records.Table("mfdnn", rows))
