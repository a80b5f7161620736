"""Records: what is written is what was measured, and damage is found."""

import copy
import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from jsonschema import Draft202012Validator
from mfdnn import recipes, records
from mfdnn.data import digits
from mfdnn.device import threads
from mfdnn.records import RecordError
from mfdnn.train import CheckpointError

from tests.book.checks import ROOT

SHARED = ROOT.parent / "shared" / "data"
CPU = torch.device("cpu")


def tiny(recipe, epochs=2):
    return replace(recipe, settings=replace(recipe.settings, epochs=epochs))


@pytest.fixture(scope="module")
def sets():
    return digits("train"), digits("test")


@pytest.fixture(scope="module")
def record(sets):
    return recipes.run(tiny(recipes.find("softmax-regression-mnist")), sets, 3, CPU)


def change(record, path, value):
    """A copy with another value somewhere; None removes it."""
    record = copy.deepcopy(record)
    *way, last = path.split("/")
    place = record
    for key in way:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return record


def test_the_schema_is_a_schema():
    Draft202012Validator.check_schema(records.SCHEMA)


def test_a_record_says_what_was_done(record, sets):
    assert record["configuration"]["parameters"] == 7850
    assert record["seed"] == 3
    train = record["data"]["train"]
    assert (train["images"], train["shape"]) == (len(sets[0]), [1, 28, 28])
    raw = sets[0].images.numpy().tobytes() + sets[0].labels.numpy().tobytes()
    shape = repr(tuple(sets[0].images.shape)).encode()
    assert train["sha256"] == hashlib.sha256(shape + raw).hexdigest()
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert record["device"]["type"] == "cpu"
    rate = len(sets[0]) * 2 / record["wall_time_s"]
    assert record["images_per_s"] == pytest.approx(rate, rel=0.05)
    assert len(record["curves"]["test_accuracy"]) == 2


def test_records_survive_the_file(record, tmp_path):
    path = records.write(record, tmp_path / "new" / "r.json")
    assert records.read(path) == json.loads(path.read_text()) == record
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("seed", None, "'seed' is a required property"),
        ("seed", -1, r"\$.seed"),
        ("configuration/lr", 0, "configuration.lr"),
        ("configuration/typed_in", 1, "typed_in"),
        ("data/train/sha256", "abc", "sha256"),
        ("data/test", None, "test"),
        ("device/type", "abacus", "abacus"),
        ("versions/torch", None, "torch"),
        ("first_losses", [1.0], "first_losses"),
        ("wall_time_s", "fast", "wall_time_s"),
        ("curves/test_accuracy", [0.5], "one value an epoch"),
        ("curves/loss", [], "curves.loss"),
        ("final/test_accuracy", 0.999, "last values"),
        ("final/extra", 0.999, "last values"),
    ],
)
def test_a_wrong_record_is_neither_written_nor_read(
    record, tmp_path, path, value, complaint
):
    wrong = change(record, path, value)
    file = tmp_path / "r.json"
    with pytest.raises(RecordError, match=complaint):
        records.write(wrong, file)
    assert not file.exists()
    file.write_text(json.dumps(wrong))
    with pytest.raises(RecordError, match=f"r.json is not a record.*{complaint}"):
        records.read(file)


def test_nan_is_not_written(record, tmp_path):
    wrong = change(record, "images_per_s", float("inf"))
    with pytest.raises(RecordError, match="not finite"):
        records.write(wrong, tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(RecordError, match=r"no record .*mfdnn train no-such-recipe"):
        records.read("no-such-recipe")
    (tmp_path / "r.json").write_text('{"recipe": ')
    with pytest.raises(RecordError, match="not JSON"):
        records.read(tmp_path / "r.json")


def test_a_failed_write_leaves_the_old_record(record, tmp_path, monkeypatch):
    path = records.write(record, tmp_path / "r.json")
    before = path.read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        records.write(change(record, "seed", 4), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_a_record_is_shown(record, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "folder", lambda: tmp_path)
    records.write(change(record, "about", "a < b"))
    table = records.show("softmax-regression-mnist")
    percent = f"{100 * record['final']['test_accuracy']:.2f} %"
    shown = table._repr_html_()
    assert f"<td>{percent}</td>" in shown
    assert "a &lt; b" in shown
    assert percent in repr(table)
    assert "digits train, 1,437" in repr(table)


# Recipes


@pytest.mark.parametrize(
    ("name", "parameters", "shape", "outputs"),
    [
        ("logistic-regression-mnist", 784 + 1, (1, 28, 28), 1),
        ("logistic-regression-cifar10", 3072 + 1, (3, 32, 32), 1),
        ("mlp-binary-cifar10", 6_196_225, (3, 32, 32), 1),
        ("softmax-regression-mnist", 784 * 10 + 10, (1, 28, 28), 10),
        (
            "mlp-mnist",
            785 * 392 + 393 * 196 + 197 * 98 + 99 * 10,
            (1, 28, 28),
            10,
        ),
        ("lenet-mnist", 61_706, (1, 28, 28), 10),
        ("lenet-cifar10", 62_006, (3, 32, 32), 10),
        ("alexnet-cifar10", 58_375_114, (3, 32, 32), 10),
    ],
)
def test_recipes_have_the_lectures_networks(name, parameters, shape, outputs):
    model = recipes.find(name).build()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(2, *shape)).shape == (2, outputs)


def test_every_recipe_is_held_to_the_lecture():
    tested = test_recipes_have_the_lectures_networks.pytestmark[0].args[1]
    assert [name for name, *_ in tested] == list(recipes.RECIPES)


def loss_written_out(recipe, output, labels):
    if recipe.pair:
        y = 2 * labels - 1
        return torch.log(1 + torch.exp(-y * output[:, 0])).mean()
    return (output.logsumexp(1) - output[range(len(labels)), labels]).mean()


def flipped_and_cropped(x, order):
    """Image by image, with the draws in the order of the package's augmentation."""
    turn = torch.rand(len(x), generator=order) < 0.5
    x = torch.stack([i.flip(2) if t else i for i, t in zip(x, turn, strict=True)])
    padded = torch.nn.functional.pad(x, (4, 4, 4, 4))
    corners = torch.randint(9, (2, len(x)), generator=order).T
    side = x.shape[2]
    return torch.stack(
        [
            image[:, top : top + side, left : left + side]
            for image, (top, left) in zip(padded, corners.tolist(), strict=True)
        ]
    )


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_two_steps_of_every_recipe(name, monkeypatch):
    """Against the update written out; also what `first_losses` must give."""
    monkeypatch.delenv("MFDNN_DATA", raising=False)
    recipe = recipes.find(name)
    recipe = replace(recipe, settings=replace(recipe.settings, batch_size=16))
    train, _ = recipes.load(recipe)
    order = torch.Generator().manual_seed(5)
    torch.manual_seed(5)
    model = recipe.build()
    parameters = list(model.parameters())
    velocity, losses = [torch.zeros_like(p) for p in parameters], []
    settings = recipe.settings
    for index in torch.randperm(len(train), generator=order).split(settings.batch_size):
        x, y = train.images[index] / 255, train.labels[index]
        if recipe.augment:
            x = flipped_and_cropped(x, order)
        loss = loss_written_out(recipe, model(x), y)
        losses.append(loss.item())
        if len(losses) == 2:
            break
        for p, g, v in zip(
            parameters, torch.autograd.grad(loss, parameters), velocity, strict=True
        ):
            v.mul_(settings.momentum).add_(g + settings.weight_decay * p.data)
            p.data -= settings.lr * v  # the first steps of a cosine: about the same
    found = recipes.first_losses(recipe, train, 5)
    assert found == pytest.approx(losses, rel=1e-5)
    assert found[0] != found[1]


def test_a_pair_is_loaded_with_the_second_class_positive(monkeypatch):
    monkeypatch.delenv("MFDNN_DATA", raising=False)
    train, test = recipes.load(recipes.find("logistic-regression-mnist"))
    assert train.classes == test.classes == ("4", "9")
    whole = digits("test")
    assert len(test) == sum(label in (4, 9) for label in whole.labels.tolist())


def test_accuracy_of_a_pair_and_what_a_zero_score_means():
    recipe = recipes.find("logistic-regression-mnist")
    scores = torch.tensor([[2.0], [-1.0], [0.0], [0.0], [-3.0]])
    labels = torch.tensor([1, 0, 0, 1, 1])
    assert recipe.accuracy(scores, labels).item() == pytest.approx(3 / 5)


def test_a_cosine_schedule_falls_from_the_rate_to_zero():
    settings = recipes.Settings(8, 0.3, 5, schedule="cosine")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler, rates = recipes.scheduler(settings, optimizer, 7), []
    for _ in range(5 * 7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    expected = [0.15 * (1 + math.cos(math.pi * k / 35)) for k in range(35)]
    assert rates == pytest.approx(expected, abs=1e-12)
    assert recipes.scheduler(recipes.Settings(8, 0.3, 5), optimizer, 7) is None
    with pytest.raises(ValueError, match="constant or cosine, not 'sine'"):
        recipes.Settings(8, 0.3, 5, schedule="sine")


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match="no recipe 'alexnet'; there are logistic"):
        recipes.find("alexnet")


def test_a_run_repeats_and_resumes(sets, record, tmp_path):
    recipe, file = recipes.find("softmax-regression-mnist"), tmp_path / "c.pt"
    short = tiny(recipe, 2)
    assert (
        recipes.run(short, sets, 3, CPU, checkpoint=file)["curves"] == record["curves"]
    )
    assert (
        recipes.run(short, sets, 3, CPU, checkpoint=file)["curves"] == record["curves"]
    )
    with pytest.raises(CheckpointError, match="another run"):
        recipes.run(short, sets, 4, CPU, checkpoint=file)


@pytest.fixture(scope="module")
def mnist_sets():
    if not (SHARED / "MNIST").is_dir():
        pytest.skip(f"the real MNIST is not at {SHARED}")
    from mfdnn.data import mnist

    return mnist("train", root=SHARED), mnist("test", root=SHARED)


@pytest.fixture(scope="session")
def cifar_root(tmp_path_factory):
    """The part of CIFAR-10 that is at hand, in the published layout."""
    unpack = SHARED / "cifar10-subset" / "unpack.py"
    if not unpack.exists():
        pytest.skip(f"no images of CIFAR-10 at {SHARED}")
    root = tmp_path_factory.mktemp("cifar")
    subprocess.run([sys.executable, unpack, root], check=True, capture_output=True)
    return root


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_kept_records_are_valid_and_their_first_steps_repeat(
    name, request, monkeypatch
):
    if not (records.folder() / f"{name}.json").exists():
        pytest.skip(f"no record of {name} yet")
    kept, recipe = records.read(name), recipes.find(name)
    if recipe.data == "cifar10":
        root = request.getfixturevalue("cifar_root")
    else:
        request.getfixturevalue("mnist_sets")
        root = SHARED
    monkeypatch.setenv("MFDNN_DATA", str(root))
    train, test = recipes.load(recipe, published=recipe.data != "cifar10")
    assert kept["data"]["train"] == records.facts(train)
    assert kept["data"]["test"] == records.facts(test)
    again = recipes.first_losses(recipe, train, kept["seed"])
    assert kept["first_losses"] == pytest.approx(again, rel=1e-4)


#: Test accuracies to exceed: of the course's own runs, or the goal that the book set.
COURSE = {
    "logistic-regression-mnist": 0.965,
    "logistic-regression-cifar10": 0.768,
    "mlp-binary-cifar10": 0.817,
    "softmax-regression-mnist": 0.847,
    "lenet-mnist": 0.99,
    "lenet-cifar10": 0.704,
}


@pytest.mark.parametrize("name", COURSE)
def test_records_reach_what_the_course_reached(name):
    assert records.read(name)["final"]["test_accuracy"] > COURSE[name]


def test_an_epoch_of_lenet_reaches_97_percent_on_mnist(mnist_sets):
    # Seeds 0 to 4 gave 98.06, 97.23, 97.67, 97.94 and 97.37 % (one thread, 7 s to
    # 18 s an epoch).
    with threads(1):
        recipe = tiny(recipes.find("lenet-mnist"), 1)
        found = recipes.run(recipe, mnist_sets, 0, CPU)
    assert found["final"]["test_accuracy"] >= 0.97
