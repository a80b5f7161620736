"""Device, seed, threads, precision, and the division of batches among processes."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from mfdnn import device, distributed
from torch import nn
from torch.nn.functional import cross_entropy

from tests.book.checks import ROOT


@pytest.fixture
def machine(monkeypatch):
    """Pretends to have some GPUs."""

    def have(cuda, mps):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.delenv("MFDNN_DEVICE", raising=False)

    return have


@pytest.mark.parametrize(
    ("cuda", "mps", "asked", "chosen"),
    [
        (2, False, None, "cuda:0"),
        (2, False, "cuda", "cuda"),
        (2, False, "cuda:1", "cuda:1"),
        (2, False, "cpu", "cpu"),
        (0, True, None, "mps"),
        (0, False, None, "cpu"),
        (0, False, "cpu", "cpu"),
    ],
)
def test_the_best_device_is_chosen_unless_another_is_asked_for(
    machine, monkeypatch, cuda, mps, asked, chosen
):
    machine(cuda, mps)
    assert device.choose(asked) == torch.device(chosen)
    if asked:
        monkeypatch.setenv("MFDNN_DEVICE", asked)
        assert device.choose() == torch.device(chosen)


def test_an_argument_goes_before_the_environment(machine, monkeypatch):
    machine(1, False)
    monkeypatch.setenv("MFDNN_DEVICE", "cuda")
    assert device.choose("cpu").type == "cpu"


@pytest.mark.parametrize("asked", ["cuda", "cuda:1", "mps", "abacus", "cpu:x"])
def test_a_missing_device_is_refused(machine, asked):
    machine(0, False)
    with pytest.raises(ValueError, match=f"no device '{asked}' here; there is cpu"):
        device.choose(asked)


def test_seed_repeats_weights_and_draws():
    def draw(number):
        order = device.seed(number)
        return torch.cat(
            [nn.Linear(3, 2).weight.flatten(), torch.rand(3, generator=order)]
        )

    assert torch.equal(draw(1), draw(1))
    assert not (draw(1) == draw(2)).any()
    assert device.seed(3).device.type == "cpu"
    with pytest.raises(ValueError, match="not negative"):
        device.seed(-1)


def test_threads_are_set_and_restored():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), device.threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="at least one"), device.threads(0):
        pass


def test_autocast_can_be_entered_again_and_again():
    context, layer = device.autocast(torch.device("cpu"), "bf16"), nn.Linear(2, 2)
    for _ in range(2):
        with context:
            assert layer(torch.ones(1, 2)).dtype == torch.bfloat16
        assert layer(torch.ones(1, 2)).dtype == torch.float32
    with device.autocast(torch.device("cpu")):
        assert layer(torch.ones(1, 2)).dtype == torch.float32
    with pytest.raises(ValueError, match="fp32"):
        device.autocast(torch.device("cpu"), "fp8")


def flags():
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    return [part.fp32_precision for part in parts]


@pytest.mark.parametrize(
    ("precision", "meant"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")]
)
def test_fp32_means_fp32_on_a_gpu_too(precision, meant):
    before = flags()
    with pytest.raises(KeyError), device.arithmetic(precision):
        assert flags() == [meant, meant]
        raise KeyError
    assert flags() == before
    with pytest.raises(ValueError, match="fp32"), device.arithmetic("fp8"):
        pass


def test_training_runs_in_the_arithmetic_that_was_asked_for():
    from mfdnn.train import fit

    model, seen = nn.Linear(2, 3), []

    def loss(z, y):
        seen.append(flags())
        return cross_entropy(z, y)

    for precision in ("fp32", "tf32"):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        batch = (torch.ones(4, 2), torch.zeros(4, dtype=torch.long))
        fit(model, loss, [batch], optimizer, 1, precision=precision)
    assert seen == [["ieee"] * 2, ["tf32"] * 2]


def test_seeded_generators_are_put_back():
    import random

    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(2).tolist(), random.random()
    torch.manual_seed(3)
    random.seed(3)
    with pytest.raises(KeyError), device.seeded(9) as generator:
        inside = torch.rand(1).item(), random.random()
        assert torch.rand(1, generator=generator).item() == inside[0]
        raise KeyError
    assert (torch.rand(2).tolist(), random.random()) == expected
    with device.seeded(9):
        assert (torch.rand(1).item(), random.random()) == inside


def test_a_computation_is_described_and_checked():
    compute = device.Compute(torch.device("cpu"), "bf16", channels_last=True)
    conv = compute.place(nn.Conv2d(3, 4, 3))
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    with compute.forward():
        assert conv(torch.ones(1, 3, 5, 5)).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="precision is one of"):
        device.Compute(torch.device("cpu"), "fp8")


def test_channels_last_weights_make_channels_last_images():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    x = torch.randn(2, 3, 9, 9)
    expected = model(x)
    placed = device.place(model, torch.device("cpu"), channels_last=True)
    assert placed is model
    found = model(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert not expected.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)


def test_compiling_keeps_the_names_of_the_parameters(monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    model = nn.Linear(2, 2)
    assert device.place(model, torch.device("cpu"), compiled=True) is model
    assert compiled == [model]


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_parts_of_a_batch_are_the_batch(monkeypatch, processes, size):
    monkeypatch.setattr(distributed, "processes", lambda: processes)
    x, y = torch.randn(size, 2), torch.arange(size)
    parts, gradient = [], 0.0
    for rank in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda r=rank: r)
        shard = distributed.Shard([(x, y)])
        ((px, py),) = list(shard)
        assert torch.equal(px, x[py])
        parts.append(py)
        gradient += shard.weight * px.mean(0) / processes  # as `_join` does
    torch.testing.assert_close(gradient, x.mean(0))
    if size >= processes:
        assert torch.equal(torch.cat(parts), y)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_gets_everything_unchanged():
    model, batches = nn.Linear(2, 2), [(torch.ones(1, 2), torch.ones(1))]
    assert distributed.split(model, batches) == (model, batches)
    assert distributed.plain(model) is model
    with distributed.group(torch.device("cpu")) as where:
        assert where == torch.device("cpu")
        assert (distributed.rank(), distributed.processes()) == (0, 1)


# Eleven examples in batches of 5, 5 and 1 for two processes: uneven parts, and a
# batch with fewer examples than processes.
UNEVEN = """
import sys, torch
from torch import nn
from mfdnn import distributed
from mfdnn.train import Checkpoint, fit
torch.set_num_threads(1)
with distributed.group(torch.device("cpu")):
    torch.manual_seed(0)
    x, y = torch.randn(11, 4), torch.randint(3, (11,))
    model = nn.Linear(4, 3)
    batches = list(zip(x.split(5), y.split(5)))
    parallel, parts = distributed.split(model, batches)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.5)
    checkpoint = Checkpoint(sys.argv[1] + "/c.pt")
    loss = nn.functional.cross_entropy
    for epochs in (2, 4):  # the second call resumes
        history = fit(parallel, loss, parts, optimizer, epochs, checkpoint=checkpoint)
    assert len(history) == 4
    torch.save(dict(model.state_dict()), sys.argv[1] + f"/{distributed.rank()}.pt")
"""


def test_uneven_parts_train_like_the_whole(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # What torchrun tells its processes; test_cli.py calls torchrun itself.
    common = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "MASTER_PORT": port}
    common |= {"MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(ROOT / "mfdnn_src")}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", UNEVEN, tmp_path],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **common, "RANK": str(r), "LOCAL_RANK": str(r)},
        )
        for r in range(2)
    ]
    for process in started:
        _, err = process.communicate()
        assert process.returncode == 0, err
    torch.manual_seed(0)
    x, y = torch.randn(11, 4), torch.randint(3, (11,))
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(4):
        for a, b in zip(x.split(5), y.split(5), strict=True):
            optimizer.zero_grad()
            cross_entropy(model(a), b).backward()
            optimizer.step()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, value in model.state_dict().items():
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)
    assert set(torch.load(tmp_path / "c.pt")["parts"]["model"]) == {"weight", "bias"}
