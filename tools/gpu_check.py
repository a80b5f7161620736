"""Check on a GPU what no test without one can: `python tools/gpu_check.py`.

Takes at most eight minutes, needs neither network nor the full data sets, and writes
a report to commit, benchmarks/gpu-check.json: for each check whether it holds, what
was measured, and how long it took. Ends with status 1 when one does not hold.

usage: gpu_check.py [--device cuda] [--report FILE] [--only NAME]

With --device cpu all but the checks of NVIDIA's libraries run, as a rehearsal.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mfdnn_src"))

import torch
from mfdnn import device, distributed, records
from mfdnn.data import Batches, augment, digits, photo_crops, to_unit
from mfdnn.device import Compute
from mfdnn.nn import LeNet, mlp
from mfdnn.recipes import RECIPES, Recipe, prepare, run
from mfdnn.train import Checkpoint, fit, loop
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
#: How far two steps may be apart, relative to the loss, from float32 on the CPU.
FAR = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 3e-2}


class CheckError(Exception):
    """Something does not hold; the message says what was measured."""


def demand(holds: bool, measured: str) -> str:
    """The measurement, or CheckError."""
    if not holds:
        raise CheckError(measured)
    return measured


def two_steps(recipe: Recipe, compute: Compute) -> list[float]:
    """The losses of the first two steps."""
    train, _ = recipe.load("embedded")
    losses: list[float] = []
    with device.seeded(0) as generator, device.arithmetic(compute.precision):
        learner, batches = prepare(recipe, train, compute, generator)
        for batch in batches:
            losses += loop(learner, [batch], 1, progress=False)["loss"]
            if len(losses) == 2:
                return losses
    raise CheckError("fewer than two batches")


def recipes(where: torch.device) -> str:
    """All recipes, two steps, in every precision: as on the CPU in float32."""
    worst = dict.fromkeys(FAR, 0.0)
    for recipe in RECIPES.values():
        if recipe.data == "nuclei":  # has no embedded stand-in
            continue
        expected = two_steps(recipe, Compute(CPU))
        for precision, limit in FAR.items():
            found = two_steps(recipe, Compute(where, precision))
            apart = max(
                abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True)
            )
            worst[precision] = max(worst[precision], apart)
            demand(apart <= limit, f"{recipe.name} in {precision}: {found}, {expected}")
    return ", ".join(f"{p} at most {v:.1e} apart" for p, v in worst.items())


def exact(where: torch.device) -> str:
    """Fp32 is fp32: convolutions and products agree with float64 to 1e-6."""
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 64, 32, 32, generator=generator)
    conv = nn.Conv2d(64, 64, 3).requires_grad_(False)
    linear = nn.Linear(1024, 1024).requires_grad_(False)
    for layer, value in ((conv, x), (linear, x.flatten(2))):
        with device.arithmetic("fp32"):
            found = layer.to(where)(value.to(where)).cpu().double()
        layer.to(CPU)
        expected = layer.double()(value.double())
        layer.float()
        apart = ((found - expected).norm() / expected.norm()).item()
        worst = max(worst, apart)
    return demand(worst < 1e-6, f"relative error {worst:.1e}")


def resume(where: torch.device) -> str:
    """A run that is resumed ends like one that was not interrupted."""
    recipe = replace(RECIPES["lenet-mnist"], epochs=4)
    sets = recipe.load("embedded")
    compute = Compute(where)
    whole = run(recipe, sets, 0, compute).record
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "c.pt"
        with device.seeded(0) as generator:
            learner, batches = prepare(recipe, sets[0], compute, generator)
            loop(learner, batches, 2, checkpoint=Checkpoint(file), progress=False)
        with device.seeded(5) as generator:  # the checkpoint's draws must win
            learner, batches = prepare(recipe, sets[0], compute, generator)
            history = loop(
                learner, batches, 4, checkpoint=Checkpoint(file), progress=False
            )
    pairs = zip(history["loss"], whole.curves["loss"], strict=True)
    apart = max(abs(a - b) for a, b in pairs)
    return demand(apart < 2e-3, f"losses of four epochs at most {apart:.1e} apart")


def draws(where: torch.device) -> str:
    """Order, noise and augmentation are those of the CPU."""
    images = photo_crops("train").to(CPU)
    x, y = images.images[:64], images.labels[:64]
    steps = augment.Chain(
        augment.Flip(),
        augment.PadCrop(4),
        augment.Cutout(6),
        augment.to_unit,
        augment.Affine(20, 0.1, 0.1),
        augment.ColorJitter(0.3, 0.3, 0.3),
    )

    def batches(place: torch.device) -> list[tuple[Tensor, ...]]:
        order = torch.Generator().manual_seed(3)
        made = Batches(
            x.to(place),
            y.to(place),
            batch_size=16,
            generator=order,
            transform=augment.inputs(steps),
        )
        return list(made)

    worst = 0.0
    for (a, i), (b, j) in zip(batches(where), batches(CPU), strict=True):
        demand(torch.equal(i.cpu(), j), "another order of the labels")
        worst = max(worst, (a.cpu() - b).abs().max().item())
    return demand(worst < 1e-4, f"pixels at most {worst:.1e} apart")


def no_sync(where: torch.device) -> str:
    """Within an epoch nothing waits for the GPU."""
    train = digits("train").to(where)
    model = device.place(LeNet(), where)
    batches = Batches(to_unit(train.images), train.labels, batch_size=64)
    parts = list(batches)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    fit(model, cross_entropy, parts, optimizer, 1)  # allocations, kernels' choice
    count = 0
    step = optimizer.step

    def counted(*args: object, **options: object) -> None:
        nonlocal count
        count += 1
        # from the second step to the last one a wait is an error
        torch.cuda.set_sync_debug_mode("error" if 1 <= count < len(parts) else 0)
        step()

    optimizer.step = counted  # type: ignore[assignment, method-assign]
    try:
        fit(model, cross_entropy, parts, optimizer, 1)
    finally:
        torch.cuda.set_sync_debug_mode(0)
    return demand(count == len(parts), f"{count} steps without a wait")


def one_process(where: torch.device) -> str:
    """NCCL with one process (the wrapper, the hook, the sums) changes nothing."""
    import torch.distributed as dist

    sets = digits("train").to(where)
    parts = list(Batches(to_unit(sets.images), sets.labels, batch_size=64))
    losses = []
    for wrapped in (False, True):
        torch.manual_seed(0)
        model: nn.Module = mlp([784, 32, 10]).to(where)
        if wrapped:
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
            backend = "nccl" if where.type == "cuda" else "gloo"
            dist.init_process_group(backend, rank=0, world_size=1)
            model = nn.parallel.DistributedDataParallel(model)
            total = distributed.add_up(torch.ones(3, device=where)).sum().item()
            demand(total == 3, f"the sum over one process is {total}")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses.append(fit(model, cross_entropy, parts, optimizer, 2)["loss"])
    dist.destroy_process_group()
    apart = max(abs(a - b) for a, b in zip(*losses, strict=True))
    return demand(apart < 1e-4, f"losses at most {apart:.1e} apart")


def fast(where: torch.device) -> str:
    """channels_last and torch.compile give the same losses; what they bring."""
    recipe = replace(RECIPES["alexnet-cifar10"], batch_size=256)
    usual = two_steps(recipe, Compute(where, "bf16"))
    said = []
    for name, options in {
        "channels_last": {"channels_last": True},
        "compile": {"compiled": True},
        "both": {"channels_last": True, "compiled": True},
    }.items():
        compute = Compute(where, "bf16", **options)
        found = two_steps(recipe, compute)
        apart = max(abs(a - b) / abs(b) for a, b in zip(found, usual, strict=True))
        demand(apart <= FAR["bf16"], f"{name}: {found}, not {usual}")
        said.append(f"{name} {speed(recipe, compute):,.0f} images/s")
    said.insert(0, f"plain {speed(recipe, Compute(where, 'bf16')):,.0f} images/s")
    return ", ".join(said)


def speed(recipe: Recipe, compute: Compute) -> float:
    """Images a second of a recipe's steps, data resident, after ten steps."""
    train, _ = recipe.load("embedded")
    with device.seeded(0) as generator:
        learner, batches = prepare(recipe, train, compute, generator)
        parts = list(batches)[:-1]
        loop(learner, parts, 1, progress=False)
        seconds = loop(learner, parts * 3, 1, progress=False).seconds[0]
    return 3 * len(parts) * recipe.batch_size / seconds


CHECKS: dict[str, Callable[[torch.device], str]] = {
    "recipes": recipes,
    "exact": exact,
    "resume": resume,
    "draws": draws,
    "no_sync": no_sync,
    "one_process": one_process,
    "fast": fast,
}
NVIDIA = {"no_sync", "fast"}


def main() -> None:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--report", default=str(ROOT / "benchmarks/gpu-check.json"))
    parser.add_argument("--only", choices=CHECKS)
    args = parser.parse_args()
    where = device.choose(args.device)
    report: dict[str, object] = {
        "date": date.today().isoformat(),
        "device": records.describe(where),
        "versions": records.versions(),
    }
    results: dict[str, dict[str, object]] = {}
    for name, check in CHECKS.items():
        if args.only not in (None, name) or (name in NVIDIA and where.type != "cuda"):
            continue
        start = time.perf_counter()
        try:
            holds, measured = True, check(where)
        except Exception as error:  # the report says what happened, and goes on
            holds, measured = False, f"{type(error).__name__}: {error}"
            if not isinstance(error, CheckError):
                traceback.print_exc()
        seconds = round(time.perf_counter() - start, 1)
        results[name] = {"holds": holds, "measured": measured, "seconds": seconds}
        print(f"{name}: {'holds' if holds else 'FAILS'}: {measured} ({seconds} s)")
    report["checks"] = results
    text = json.dumps(report, indent=2)
    Path(args.report).write_text(f"{text}\n", encoding="utf-8")
    print(f"written to {args.report}")
    sys.exit(not all(result["holds"] for result in results.values()))


if __name__ == "__main__":
    main()
