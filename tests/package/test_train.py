"""The training loop against loops written out, scikit-learn, and kill -9."""

import math
import os
import pty
import signal
import subprocess
import sys
import termios
from contextlib import nullcontext

import pytest
import torch
from mfdnn.train import (
    Checkpoint,
    CheckpointError,
    DivergenceError,
    History,
    evaluate,
    fit,
    loop,
    patience,
)
from sklearn.metrics import accuracy_score, log_loss
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from tests.book.checks import ROOT
from tests.package.learners import Duel, Likelihood


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def batches():
    """Ten examples in batches of 4, 4 and 2."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(10, 4, generator=rng)
    y = torch.randint(3, (10,), generator=rng)
    return list(zip(x.split(4), y.split(4), strict=True))


def joined(batches):
    x, y = zip(*batches, strict=True)
    return torch.cat(x), torch.cat(y)


def same_weights(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(p, q) for p, q in pairs)


def test_fit_takes_the_steps_of_the_loop_written_out(batches):
    model, twin = network(), network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    fit(model, cross_entropy, batches, optimizer, 3, scheduler=schedule)
    step = 0
    for _ in range(3):
        for x, y in batches:
            grads = torch.autograd.grad(
                cross_entropy(twin(x), y), list(twin.parameters())
            )
            with torch.no_grad():
                for p, g in zip(twin.parameters(), grads, strict=True):
                    p -= 0.1 * 0.5 ** (step // 2) * g
            step += 1
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_loss_is_the_mean_over_examples_not_over_batches(batches):
    model = network()
    history = fit(
        model, cross_entropy, batches, torch.optim.SGD(model.parameters(), lr=0.0), 2
    )
    x, y = joined(batches)
    expected = log_loss(y, model(x).detach().double().softmax(1), labels=[0, 1, 2])
    assert history["loss"] == pytest.approx([expected] * 2, rel=1e-6)


def test_evaluate_agrees_with_scikit_learn(batches):
    model = nn.Sequential(network(), nn.Dropout(0.9)).train()
    metrics = {
        "loss": cross_entropy,
        "accuracy": lambda z, y: (z.argmax(1) == y).float().mean(),
    }
    found = evaluate(model, batches, metrics)
    x, y = joined(batches)
    z = model[0](x).detach()  # without dropout
    assert found["accuracy"] == pytest.approx(accuracy_score(y, z.argmax(1)))
    expected = log_loss(y, z.double().softmax(1), labels=[0, 1, 2])
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert model.training
    evaluate(model.eval(), batches, metrics)
    assert not model.training


@pytest.mark.parametrize("what", ["fit", "evaluate"])
def test_no_batches_are_refused(what):
    model = network()
    with pytest.raises(ValueError, match="no batches"):
        if what == "fit":
            fit(model, cross_entropy, [], torch.optim.SGD(model.parameters()), 1)
        else:
            evaluate(model, [], {"loss": cross_entropy})


def test_fit_works_on_a_data_loader(batches):
    x, y = joined(batches)
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    histories = []
    for source in (loader, batches):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        histories.append(fit(model, cross_entropy, source, optimizer, 2))
    assert histories[0] == histories[1]


class Transfers(TorchDispatchMode):
    """Counts how often a number is asked back from the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


def test_no_number_leaves_the_device_within_an_epoch(batches):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Transfers() as transfers:
        fit(model, cross_entropy, batches * 5, optimizer, 1)
    assert transfers.count == 0
    with Transfers() as transfers:
        fit(
            model,
            lambda z, y: (z.sum().item(), cross_entropy(z, y))[1],
            batches,
            optimizer,
            1,
        )
    assert transfers.count == len(batches)  # the counter counts


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_names_epoch_and_step(batches, value, tmp_path):
    model, calls = network(), []

    def loss(z, y):
        calls.append(1)
        return cross_entropy(z, y) * (value if len(calls) == 5 else 1)

    checkpoint = Checkpoint(tmp_path / "c.pt")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(DivergenceError, match=r"epoch 2, step 2 of 3.*smaller"):
        fit(model, loss, batches, optimizer, 4, checkpoint=checkpoint)
    # The checkpoint is that of the last good epoch.
    fresh = network()
    assert len(checkpoint.load({"model": fresh})) == 1
    assert all(p.isfinite().all() for p in fresh.parameters())


def test_divergence_of_a_real_run_is_found(batches):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e30)
    with pytest.raises(DivergenceError, match="epoch"):
        fit(model, cross_entropy, batches, optimizer, 5)


@pytest.mark.parametrize(
    ("values", "largest", "epochs"),
    [([3, 2, 1, 2, 3, 0], False, 5), ([1, 2, 2, 2, 9], True, 4), ([5, 4, 3], False, 3)],
)
def test_patience_stops_two_epochs_after_the_best(batches, values, largest, epochs):
    model, coming = network(), iter(values)
    history = fit(
        model,
        cross_entropy,
        batches,
        torch.optim.SGD(model.parameters(), lr=0.1),
        len(values),
        validate=lambda: {"score": next(coming)},
        stop=patience("score", 2, largest=largest),
    )
    assert history["score"] == values[:epochs]


def test_patience_of_no_epoch_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        patience("loss", 0)


def test_history_refuses_other_curves():
    history = History()
    history.append({"loss": 1.0}, 0.1)
    with pytest.raises(ValueError, match="before"):
        history.append({"loss": 1.0, "test": 2.0}, 0.1)


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32(batches):
    model, seen = network(), set()

    def loss(z, y):
        seen.add(z.dtype)
        return cross_entropy(z, y)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    half = fit(model, loss, batches, optimizer, 1, precision="bf16")
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    twin = network()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    full = fit(twin, cross_entropy, batches, optimizer, 1)
    assert half["loss"] == pytest.approx(full["loss"], rel=0.02)
    assert half["loss"] != full["loss"]


def test_the_mean_of_equal_losses_in_bf16_is_that_loss(batches):
    model = network()
    for precision, sizes in (("fp32", (4, 4, 2)), ("bf16", (3, 7))):
        x, y = joined(batches)
        parts = list(zip(x.split(sizes), y.split(sizes), strict=True))

        def loss(z, y):
            half = torch.tensor(2.296875, dtype=torch.bfloat16)
            return half + 0 * z.sum().to(torch.bfloat16)

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        history = fit(model, loss, parts, optimizer, 1, precision=precision)
        assert history["loss"] == [2.296875]
        assert evaluate(model, parts, {"loss": loss}) == {"loss": 2.296875}


def with_frozen_part():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    model[1].eval()
    return model


def modes_of(model):
    return [part.training for part in model.modules()]


@pytest.mark.parametrize("fails", [False, True])
def test_evaluate_leaves_every_part_in_its_mode(batches, fails):
    model = with_frozen_part()
    before = modes_of(model)

    def metric(z, y):
        assert not any(modes_of(model))
        if fails:
            raise KeyError("metric")
        return z.mean()

    with pytest.raises(KeyError) if fails else nullcontext():
        evaluate(model, batches, {"mean": metric})
    assert modes_of(model) == before == [True, True, False, True]


@pytest.mark.parametrize("fails", [False, True])
def test_fit_leaves_a_frozen_part_alone(batches, fails):
    model = with_frozen_part()
    before = modes_of(model)
    statistics = model[1].running_mean.clone()

    def loss(z, y):
        assert modes_of(model) == before
        if fails:
            raise KeyError("loss")
        return cross_entropy(z, y)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(KeyError) if fails else nullcontext():
        fit(
            model,
            loss,
            batches,
            optimizer,
            2,
            validate=lambda: {"mode": model.eval().training},
        )
    assert modes_of(model) == before
    assert torch.equal(model[1].running_mean, statistics)


def test_fit_trains_a_model_that_was_in_evaluation_mode(batches):
    model = with_frozen_part().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(model, cross_entropy, batches, optimizer, 1)
    assert model[1].running_mean.abs().min() > 0
    assert not any(modes_of(model))


# Learners of other kinds


def test_two_optimizers_take_the_steps_written_out():
    a = torch.tensor([1.0, -2.0, 4.0, 0.5, 3.0])
    learner = Duel()
    history = loop(learner, [(part,) for part in a.split(2)], 3)
    u, v, values = 1.0, 1.0, []
    for _ in range(3):
        sums = [0.0, 0.0]
        for part in (a[:2], a[2:4], a[4:]):
            mean, size = part.mean().item(), len(part)
            sums[0] += size * (u * v + mean * v)
            u -= 0.1 * v
            sums[1] += size * (u * v + mean * v)
            v += 0.2 * (u + mean)
        values.append([s / 5 for s in sums])
    assert learner.u.weight.item() == pytest.approx(u, rel=1e-5)
    assert learner.v.weight.item() == pytest.approx(v, rel=1e-5)
    before_u, before_v = zip(*values, strict=True)
    assert history["before u"] == pytest.approx(before_u, rel=1e-5)
    assert history["before v"] == pytest.approx(before_v, rel=1e-5)


def test_an_exact_likelihood_is_maximized():
    x = 3 + 2 * torch.randn(64, generator=torch.Generator().manual_seed(0))
    learner = Likelihood()
    history = loop(learner, [(x,)], 600)
    assert learner.density.mean.item() == pytest.approx(x.mean().item(), abs=1e-3)
    scale = learner.density.log_scale.exp().item()
    assert scale == pytest.approx(x.std(correction=0).item(), rel=1e-3)
    entropy = 0.5 * math.log(2 * math.pi * math.e * x.var(correction=0))
    assert history["nats"][-1] == pytest.approx(entropy, rel=1e-4)


@pytest.mark.parametrize("make", [Duel, lambda: Likelihood(0.5)], ids=["duel", "noise"])
def test_any_learner_resumes_to_the_same_bits(make, tmp_path):
    batches = [(torch.tensor([1.0, -2.0]),), (torch.tensor([0.5]),)]
    whole, first, second = make(), make(), make()
    expected = loop(whole, batches, 4)
    checkpoint = Checkpoint(tmp_path / "c.pt")
    loop(first, batches, 2, checkpoint=checkpoint)
    assert loop(second, batches, 4, checkpoint=checkpoint) == expected
    for name, network_ in whole.networks.items():
        assert same_weights(network_, second.networks[name])


def test_divergence_names_the_value():
    class Lost(Duel):
        def step(self, a):
            return {"distance": a.mean(), "score": a.mean() / 0}

    with pytest.raises(DivergenceError, match="score became inf in epoch 1, step 1"):
        loop(Lost(), [(torch.ones(2),)], 1)


def test_steps_must_name_the_same_values():
    class Moody(Duel):
        def step(self, a):
            return {"loss" if len(a) == 2 else "other": a.mean()}

    with pytest.raises(ValueError, match="same names"):
        loop(Moody(), [(torch.ones(2),), (torch.ones(1),)], 1)


# Checkpoints

RUN = """
import os, signal, sys, torch
from torch import nn
from mfdnn.data import Batches, augment, digits, to_unit
from mfdnn.train import Checkpoint, fit

folder, die = sys.argv[1], sys.argv[2]
torch.set_num_threads(1)
torch.manual_seed(0)
train = digits("train", size=8)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.2), nn.ReLU(),
                      nn.BatchNorm1d(32), nn.Linear(32, 10))
noise = lambda x, rng: x + 0.1 * torch.randn(x.shape, generator=rng)
batches = Batches(to_unit(train.images), train.labels, batch_size=128,
                  generator=torch.Generator().manual_seed(1),
                  transform=augment.inputs(noise))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6 * len(batches))
steps = 0

def loss(z, y):
    global steps
    steps += 1
    if die == "epoch" and steps == 3 * len(batches) + 2:  # step 2 of epoch 4
        os.kill(os.getpid(), signal.SIGKILL)
    return nn.functional.cross_entropy(z, y)

if die == "save":  # in the third epoch's save, the temporary file is half written
    real, saves = torch.save, []
    def torch_save(state, file):
        real(state, file)
        saves.append(1)
        if len(saves) == 3:
            file.truncate(file.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    torch.save = torch_save

history = fit(model, loss, batches, optimizer, 6, scheduler=schedule,
              validate=lambda: {"rate": optimizer.param_groups[0]["lr"]},
              checkpoint=Checkpoint(folder + "/run.pt"))
torch.save({"model": model.state_dict(), "curves": history.curves, "steps": steps,
      "optimizer": optimizer.state_dict(), "draw": torch.rand(3)}, folder + "/end.pt")
"""


def run(folder, die="never"):
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", RUN, str(folder), die],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "mfdnn_src")},
    )


def flat(state):
    """All tensors and numbers in a nested state."""
    if isinstance(state, dict):
        return [v for key in state for v in flat(state[key])]
    return (
        [v for item in state for v in flat(item)]
        if isinstance(state, list)
        else [state]
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    result = run(folder)
    assert result.returncode == 0, result.stderr
    return torch.load(folder / "end.pt")


@pytest.mark.parametrize(("die", "finished"), [("epoch", 3), ("save", 2)])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, uninterrupted, die, finished):
    assert run(tmp_path, die).returncode == -signal.SIGKILL
    assert not (tmp_path / "end.pt").exists()
    result = run(tmp_path)
    assert result.returncode == 0, result.stderr
    end, whole = torch.load(tmp_path / "end.pt"), uninterrupted
    assert end.pop("steps") == whole["steps"] // 6 * (6 - finished)  # it did resume
    assert end["curves"] == whole["curves"]
    assert len(end["curves"]["loss"]) == 6
    for a, b in zip(flat(end), flat({k: whole[k] for k in end}), strict=True):
        same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        assert same
    assert not list(tmp_path.glob("*.part"))


def train(path, model=None, epochs=1, name="a", **options):
    """A short run with a checkpoint."""
    model = model or network()
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    checkpoint = Checkpoint(path, name, **options)
    data = [(x, torch.arange(8) % 3)]
    return fit(model, cross_entropy, data, optimizer, epochs, checkpoint=checkpoint)


def test_a_finished_run_is_not_repeated(tmp_path):
    model = network()
    history = train(tmp_path / "c.pt", model, epochs=2)
    again = network()
    assert train(tmp_path / "c.pt", again, epochs=2) == history
    assert same_weights(model, again)


def test_checkpoints_are_saved_every_so_many_epochs(tmp_path):
    train(tmp_path / "c.pt", epochs=5, every=2)
    parts = {"model": network()}
    assert len(Checkpoint(tmp_path / "c.pt", "a").load(parts)) == 4


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.999])
def test_a_damaged_checkpoint_is_refused(tmp_path, kept):
    path = tmp_path / "c.pt"
    train(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if kept < 1 else kept])
    with pytest.raises(CheckpointError, match=r"c.pt is damaged. Delete .*c.pt"):
        train(path)


def test_a_flipped_byte_in_the_weights_is_found(tmp_path):
    path, model = tmp_path / "c.pt", network()
    train(path, model)
    data = bytearray(path.read_bytes())
    at = data.find(model[0].weight.detach().numpy().tobytes())
    assert at > 0
    data[at + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        train(path)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    train(tmp_path / "c.pt", name="lr 0.1")
    with pytest.raises(CheckpointError, match=r"another run .lr 0.1, not lr 0.2"):
        train(tmp_path / "c.pt", name="lr 0.2")


def scheduled(
    path, epochs, period, kind=torch.optim.lr_scheduler.CosineAnnealingLR, **options
):
    """A run with a schedule, or without one; the rates after each epoch."""
    model = network()
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0} | options
    optimizer = torch.optim.SGD(model.parameters(), **settings)
    schedule = kind and kind(optimizer, period)
    data = [(torch.ones(8, 4), torch.arange(8) % 3)]
    return fit(
        model,
        cross_entropy,
        data,
        optimizer,
        epochs,
        scheduler=schedule,
        validate=lambda: {"rate": optimizer.param_groups[0]["lr"]},
        checkpoint=Checkpoint(path),
    )["rate"]


def test_a_checkpoint_of_another_schedule_is_refused(tmp_path):
    whole = scheduled(tmp_path / "whole.pt", 4, 4)
    scheduled(tmp_path / "c.pt", 2, 4)
    assert scheduled(tmp_path / "c.pt", 4, 4) == whole  # more epochs are no fault
    scheduled(tmp_path / "short.pt", 2, 2)
    with pytest.raises(CheckpointError, match="T_max 2, not 4"):
        scheduled(tmp_path / "short.pt", 4, 4)


def test_a_checkpoint_with_a_schedule_is_not_resumed_without_one(tmp_path):
    scheduled(tmp_path / "c.pt", 2, 4)
    with pytest.raises(CheckpointError, match="scheduler with kind CosineAnnealingLR"):
        scheduled(tmp_path / "c.pt", 4, 4, kind=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", 0.2), ("momentum", 0.5), ("weight_decay", 0.1), ("nesterov", True)],
)
def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path, name, value):
    scheduled(tmp_path / "c.pt", 2, 4)
    with pytest.raises(CheckpointError, match=f"optimizer with {name} .*, not {value}"):
        scheduled(tmp_path / "c.pt", 4, 4, **{name: value})


def test_a_checkpoint_of_another_kind_of_optimizer_is_refused(tmp_path):
    train(tmp_path / "c.pt")
    model = network()
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    with pytest.raises(CheckpointError, match="kind SGD, not Adam"):
        fit(
            model,
            cross_entropy,
            [(torch.ones(3, 4), torch.arange(3))],
            adam,
            2,
            checkpoint=Checkpoint(tmp_path / "c.pt", "a"),
        )


def test_a_cycled_momentum_is_no_other_setting(tmp_path):
    def cycle(optimizer, period):
        kind = torch.optim.lr_scheduler.OneCycleLR
        return kind(optimizer, 0.5, total_steps=period)

    scheduled(tmp_path / "c.pt", 3, 9, kind=cycle)
    assert len(scheduled(tmp_path / "c.pt", 6, 9, kind=cycle)) == 6


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    train(tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="does not fit"):
        train(tmp_path / "c.pt", nn.Linear(4, 3))


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made"),))

    torch.save({"run": "a", "history": Evil()}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="damaged"):
        train(tmp_path / "c.pt")
    assert not (tmp_path / "made").exists()


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    train(path, epochs=1)
    before = path.read_bytes()

    def full(state, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        train(path, epochs=2)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


# Progress

SHORT = """
import torch
from mfdnn.train import fit
model = torch.nn.Linear(2, 1)
data = [(torch.ones(3, 2), torch.ones(3, 1))] * 4
loss = torch.nn.functional.mse_loss
history = fit(model, loss, data, torch.optim.SGD(model.parameters(), lr=0.1), 2, {})
"""


def test_progress_is_silent_without_a_terminal(capfd):
    exec(SHORT.format(""), {})
    out, err = capfd.readouterr()
    assert out == err == ""
    exec(SHORT.format("progress=True"), {})
    out, err = capfd.readouterr()
    assert out == ""
    assert "epoch 2/2: loss " in err


def test_progress_shows_on_a_terminal():
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 80))
    process = subprocess.Popen(
        [sys.executable, "-c", SHORT.format("")],
        stderr=child,
        env={**os.environ, "PYTHONPATH": str(ROOT / "mfdnn_src")},
    )
    os.close(child)
    shown = b""
    try:
        while piece := os.read(parent, 4096):
            shown += piece
    except OSError:  # the other side is closed
        pass
    os.close(parent)
    assert process.wait() == 0
    assert b"0/4" in shown  # the bar
    lines = [s.rpartition(b"\r")[2] for s in shown.split(b"\n")]
    assert b"epoch 1/2: loss" in shown
    assert all(b"%|" not in s for s in lines)  # the bar went away


def test_no_output_is_stored_in_a_notebook():
    import nbformat
    from nbclient import NotebookClient

    cell = nbformat.v4.new_code_cell(SHORT.format(""))
    book = nbformat.v4.new_notebook(cells=[cell])
    path = f"import sys; sys.path.insert(0, {str(ROOT / 'mfdnn_src')!r})\n"
    cell.source = path + cell.source
    NotebookClient(book, kernel_name="python3").execute()
    assert cell.outputs == []
