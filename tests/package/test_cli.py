"""The command, as its users call it."""

import os
import subprocess
import sys
import tomllib

import pytest
from mfdnn import cli, records
from mfdnn.recipes import RECIPES

from tests.book.checks import ROOT


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no settings from outside."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MFDNN_DATA", "embedded")
    monkeypatch.setenv("MFDNN_DEVICE", "cpu")
    monkeypatch.setattr(records, "folder", lambda: tmp_path / "records")
    return tmp_path / "cache"


TRAIN = ["train", "softmax-regression-mnist", "--data", "embedded", "--epochs", "1"]


def test_the_command_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["mfdnn"].partition(":")
    assert (module, function) == ("mfdnn.cli", "main")
    assert callable(getattr(cli, function))


@pytest.mark.parametrize(
    ("words", "taught"),
    [
        (["--help"], "mfdnn train lenet-mnist --data embedded"),
        (["train", "--help"], "torchrun --nproc-per-node=4 -m mfdnn train"),
        (["data", "--help"], "verify its checksums"),
        (["info", "--help"], "report of an error"),
        (["recipes", "--help"], "usage"),
    ],
)
def test_help_teaches(capsys, words, taught):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert taught in out
    assert max(map(len, out.splitlines())) <= 88


def test_commands_of_the_help_can_be_parsed():
    parser = cli._parser()
    for text in (cli.START, cli.TRAIN_EXAMPLES):
        for line in text.splitlines():
            words = line.partition("mfdnn ")[2].partition("   ")[0].split()
            if words and words[0] in ("train", "recipes"):
                parser.parse_args(words)


def test_help_does_not_wait_for_torch():
    code = "import sys, mfdnn.cli; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "mfdnn_src")},
    )
    assert result.stdout.strip() == "False"


def test_recipes_are_listed(capsys):
    cli.main(["recipes"])
    out = capsys.readouterr().out
    for recipe in RECIPES.values():
        assert recipe.name in out
        assert recipe.about in out
    assert "61,706" in out


def test_info_tells_versions_and_folders(capsys, cache):
    import torch

    cli.main(["info"])
    out = capsys.readouterr().out
    assert torch.__version__.partition("+")[0] in out
    assert str(cache / "mfdnn") in out
    assert "cpu" in out


def test_a_trial_prints_a_table_and_keeps_nothing(capsys, tmp_path, cache):
    cli.main(TRAIN)
    out, err = capsys.readouterr()
    assert "digits train, 1,437" in out
    assert err == ""
    assert not (tmp_path / "records").exists()
    assert not [p for p in cache.rglob("*") if p.is_file()]


def test_a_record_is_written_where_asked(tmp_path, capsys):
    cli.main([*TRAIN, "--seed", "2", "--record", str(tmp_path / "r.json")])
    assert records.read(tmp_path / "r.json").seed == 2
    assert "written to" in capsys.readouterr().out


def test_the_recipes_own_run_goes_to_the_records(tmp_path, monkeypatch):
    from dataclasses import replace

    from mfdnn import data, recipes

    name = "softmax-regression-mnist"
    short = replace(RECIPES[name], epochs=1)
    monkeypatch.setitem(RECIPES, name, short)
    asked = []

    def load(recipe, where=None, published=True):
        asked.append((where, published))
        return data.digits("train"), data.digits("test")

    monkeypatch.setattr(recipes.Recipe, "load", load)
    cli.main(["train", name, "--data", "full"])
    cli.main(["train", name, "--data", str(tmp_path), "--seed", "1", "--unpublished"])
    assert asked == [("full", True), (str(tmp_path), False)]
    for variant, seed in (("", 0), ("-seed1", 1)):
        kept = records.read(tmp_path / "records" / f"{name}{variant}.json")
        assert kept.seed == seed


def test_another_runs_record_is_not_overwritten(tmp_path, capsys):
    file = str(tmp_path / "r.json")
    cli.main([*TRAIN, "--record", file])
    before = (tmp_path / "r.json").read_bytes()
    with pytest.raises(SystemExit, match="is not replaced by one of softmax"):
        cli.main([*TRAIN, "--seed", "2", "--record", file])
    assert (tmp_path / "r.json").read_bytes() == before


def test_the_way_of_computing_reaches_the_record(tmp_path):
    import torch

    words = ["--precision", "bf16", "--channels-last", "--threads", "1"]
    before, data = torch.get_num_threads(), os.environ["MFDNN_DATA"]
    cli.main([*TRAIN, *words, "--record", str(tmp_path / "r.json")])
    found = records.read(tmp_path / "r.json").compute
    assert found["precision"] == "bf16"
    assert found["channels_last"] is True
    assert found["threads"] == 1
    assert torch.get_num_threads() == before
    assert os.environ["MFDNN_DATA"] == data


def test_recipes_are_listed_without_building_networks(monkeypatch):
    import torch

    built = []
    real = torch.nn.Linear.__init__

    def linear(layer, *args, **options):
        real(layer, *args, **options)
        built.append(layer.weight.device.type)

    monkeypatch.setattr(torch.nn.Linear, "__init__", linear)
    cli.main(["recipes"])
    assert set(built) == {"meta"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "alexnet-mars"], "no recipe 'alexnet-mars'"),
        (["train", "mlp-mnist", "--device", "cuda:9"], "no device 'cuda:9'"),
        (["train", "mlp-mnist", "--data", "/no/such/folder"], "/no/such/folder"),
        (["train", "mlp-mnist", "--seed", "-1"], "not negative"),
        (["data", "imagenet"], "no set 'imagenet'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(words, sentence):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert str(stop.value.code).startswith("mfdnn: ")
    assert sentence in str(stop.value.code)


@pytest.mark.parametrize(
    "words", [[], ["fly"], ["train"], ["train", "mlp-mnist", "--epochs", "0"]]
)
def test_nonsense_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_ctrl_c_tells_how_to_go_on(monkeypatch):
    from mfdnn import recipes

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "run", interrupted)
    with pytest.raises(SystemExit, match="same command goes on"):
        cli.main(TRAIN)


def test_own_mistakes_are_not_hidden(monkeypatch):
    from mfdnn import recipes

    def mistaken(*args, **options):
        raise KeyError("a bug")

    monkeypatch.setattr(recipes, "run", mistaken)
    with pytest.raises(KeyError, match="a bug"):
        cli.main(TRAIN)


def test_data_sets_are_listed(capsys):
    cli.main(["data"])
    assert "mnist" in capsys.readouterr().out.split()


def test_mnist_is_read_from_a_folder(capsys):
    shared = ROOT.parent / "shared" / "data"
    if not (shared / "MNIST").is_dir():
        pytest.skip(f"the real MNIST is not at {shared}")
    cli.main(["data", "mnist", "--folder", str(shared)])
    out = capsys.readouterr().out
    assert "60,000 images 1x28x28, 10 classes" in out
    assert "10,000 images" in out


def test_two_processes_reach_the_result_of_one(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "mfdnn_src")}
    environment["OMP_NUM_THREADS"] = "1"
    words = ["-m", "mfdnn", *TRAIN, "--checkpoint", str(tmp_path / "c2.pt")]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [sys.executable, *launch, *words, "--record", str(tmp_path / "two.json")],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("written to") == 1  # one process talks
    cli.main([*TRAIN, "--record", str(tmp_path / "one.json")])
    one, two = (records.read(tmp_path / f"{n}.json") for n in ("one", "two"))
    assert two.compute["processes"] == 2
    for name, value in one.final.items():
        assert two.final[name] == pytest.approx(value, abs=1e-5)


def test_reader_who_has_seen_enough():
    # as in `mfdnn recipes | head -3`
    process = subprocess.Popen(
        [sys.executable, "-m", "mfdnn", "info"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
