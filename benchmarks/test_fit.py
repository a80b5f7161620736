"""What `fit` costs: one epoch of the same steps on the same data, by six loops.

`make bench` prints the table. A loop whose library is not installed is skipped.
All train on one CPU thread, with SGD, from the same batch size; none writes
files, logs or shows a bar. Each is set up before the clock starts.
"""

import logging
import warnings

import pytest
import torch
from mfdnn.data import Batches, digits, to_unit
from mfdnn.nn import LeNet, mlp
from mfdnn.train import fit
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

# Name, network, side of the digits, number of images (a multiple of 128).
WORKLOADS = {"mlp 64-64-10": (8, 128 * 128), "lenet": (28, 128 * 16)}
BATCH = 128
LR = 0.05


def network(work):
    torch.manual_seed(0)
    return LeNet() if work == "lenet" else mlp([64, 64, 10])


@pytest.fixture(params=WORKLOADS)
def work(request):
    torch.set_num_threads(1)
    return request.param


@pytest.fixture
def tensors(work):
    """The embedded digits, repeated up to the number of images."""
    side, number = WORKLOADS[work]
    train = digits("train", size=side)
    index = torch.arange(number) % len(train)
    return to_unit(train.images)[index], train.labels[index]


def shuffled(x, y):
    generator = torch.Generator().manual_seed(0)
    return Batches(x, y, batch_size=BATCH, generator=generator)


def bare(work, x, y):
    model = network(work)
    optimizer, rng = SGD(model.parameters(), lr=LR), torch.Generator().manual_seed(0)

    def epoch():
        for index in torch.randperm(len(x), generator=rng).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()

    return epoch, model


def mfdnn_fit(work, x, y):
    model = network(work)
    optimizer = SGD(model.parameters(), lr=LR)
    batches = shuffled(x, y)
    return lambda: fit(model, cross_entropy, batches, optimizer, 1), model


def data_loader(work, x, y):
    model = network(work)
    optimizer = SGD(model.parameters(), lr=LR)
    loader = DataLoader(TensorDataset(x, y), BATCH, shuffle=True)

    def epoch():
        for a, b in loader:
            optimizer.zero_grad()
            cross_entropy(model(a), b).backward()
            optimizer.step()

    return epoch, model


def _lightning(work, loader):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = network(work)

        def training_step(self, batch, _):
            x, y = batch
            return cross_entropy(self.model(x), y)

        def configure_optimizers(self):
            return SGD(self.parameters(), lr=LR)

    module = Module()

    def epoch():
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)

    return epoch, module.model


def lightning_loader(work, x, y):
    return _lightning(work, DataLoader(TensorDataset(x, y), BATCH, shuffle=True))


def lightning_batches(work, x, y):
    return _lightning(work, shuffled(x, y))


def fastai(work, x, y):
    pytest.importorskip("fastai", reason="fastai is not installed")
    from fastai.callback import progress
    from fastai.callback.core import Callback, CancelValidException
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner, Recorder
    from fastai.optimizer import OptimWrapper

    class NoValidation(Callback):
        def before_validate(self):
            raise CancelValidException

    loader = DataLoader(TensorDataset(x, y), BATCH, shuffle=True)
    model = network(work)
    learner = Learner(
        DataLoaders(loader, loader),
        model,
        loss_func=cross_entropy,
        lr=LR,
        opt_func=lambda params, **_: OptimWrapper(params, SGD, lr=LR),
        cbs=[NoValidation()],
    )
    learner.remove_cbs([progress.ProgressCallback, Recorder])
    return lambda: learner.fit(1, lr=LR), model


LOOPS = {
    "bare loop": bare,
    "fit": mfdnn_fit,
    "DataLoader": data_loader,
    "Lightning, DataLoader": lightning_loader,
    "Lightning, Batches": lightning_batches,
    "fastai, DataLoader": fastai,
}


@pytest.mark.parametrize("name", LOOPS)
def test_epoch(benchmark, work, tensors, name):
    epoch, model = LOOPS[name](work, *tensors)
    x, y = tensors
    before = cross_entropy(model(x[:500]), y[:500]).item()
    benchmark.group = f"one epoch of {work}, {len(x) // BATCH} steps of {BATCH}"
    benchmark.pedantic(epoch, rounds=15, warmup_rounds=3)
    after = cross_entropy(model(x[:500]), y[:500]).item()
    assert after < before  # it did train
