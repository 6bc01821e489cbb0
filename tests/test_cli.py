"""The command as a user meets it: what it prints, the sentence and exit code 2 when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from seewide.cli import app
from seewide.train import fit

MODEL = "test_convnext"


def seewide(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words) -> str:
    """The one sentence of a command that ends with exit code 2."""
    result = seewide(*words)
    assert result.exit_code == 2, result.output
    sentence = result.stderr.strip()
    assert sentence.startswith("seewide: ")
    assert "\n" not in sentence
    assert "Traceback" not in result.output
    return sentence


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small only lose time to threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "digits"
    fit(MODEL, "digits", out=folder, fast=True, console=Console(quiet=True))
    return folder


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "digit.png"
    Image.new("RGB", (8, 8), (200, 200, 200)).save(path)
    return path


def picture_folder(folder, *classes, count=4):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (32, 32), (60 * index, 80, 90)).save(folder / name / f"{index}.jpg")
    return folder


@pytest.mark.parametrize("command", ["train", "eval", "predict", "export", "models"])
def test_help_shows_an_example(command):
    result = seewide(command, "--help")
    assert result.exit_code == 0
    assert f"seewide {command} " in result.output.replace("Usage: ", "")


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "seewide", "train", "unirepknet_a", "--data", "digits"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().startswith("seewide: unknown model 'unirepknet_a'; did you mean ")
    assert "unireplknet_a" in done.stderr
    assert "Traceback" not in done.stderr


def test_train_prints_what_reads_well_in_a_log(tmp_path):
    result = seewide("train", MODEL, "--data", "digits", "--fast", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert "\r" not in result.output
    assert "epoch   1/1  loss " in result.output
    assert "top-1" in result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe_name"] == "digits"
    assert config["recipe"]["limit_images"] == 16


def test_flags_and_settings_reach_the_recipe(tmp_path):
    result = seewide(
        "train", MODEL, "--data", "digits", "--epochs", 1, "--batch-size", 4, "--lr", "1e-4",
        "--image-size", 40, "--set", "limit_images=8", "--set", "mixup=0.2", "--seed", 5,
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    recipe = config["recipe"]
    assert (recipe["epochs"], recipe["batch_size"], recipe["lr"]) == (1, 4, 1e-4)
    assert (recipe["image_size"], recipe["mixup"]) == (40, 0.2)
    assert (config["seed"], config["recipe_name"]) == (5, "digits, changed")


def test_a_recipe_brings_its_model(tmp_path):
    result = seewide(
        "train", "unireplknet_a_in1k", "--data", "digits", "--fast", "--out", tmp_path / "run"
    )
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe_name"] == "unireplknet_a_in1k"
    assert config["model"] == config["recipe"]["model"]


def test_eval_prints_both_forms_and_writes_pictures(run, tmp_path):
    result = seewide("eval", run, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "training form" in result.output
    assert "merged form" in result.output
    assert "359 pictures" in result.output
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert sum(map(sum, scores["confusion"])) == 359
    right = sum(row[index] for index, row in enumerate(scores["confusion"]))
    assert scores["forms"]["merged form"]["top1"] == pytest.approx(100 * right / 359)
    assert (tmp_path / "confusion.png").read_bytes()[:4] == b"\x89PNG"


def test_predict_names_the_broken_and_goes_on(run, digit, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_text("not much of a JPEG")
    result = seewide("predict", run, broken, digit)
    assert result.exit_code == 2
    assert "digit.png" in result.stdout
    assert result.stdout.count("%") == 5
    assert "broken.jpg is no picture" in result.stderr
    assert seewide("predict", run, digit).exit_code == 0


@pytest.mark.parametrize("format", ["safetensors", "pt2"])
def test_export_prints_the_deviation(run, tmp_path, format):
    path = tmp_path / f"model.{format}"
    result = seewide("export", run, "--format", format, "--out", path)
    assert result.exit_code == 0, result.output
    assert "largest deviation" in result.output
    assert path.is_file()


def test_models_lists_ours_with_the_papers_counts():
    result = seewide("models", "unireplknet_[at]")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()]
    assert rows[1][:3] == ["unireplknet_a", "4.6", "4.4"]
    assert rows[2][:3] == ["unireplknet_t", "31.7", "31.0"]
    assert "did you mean unireplknet_a" in refused("models", "unirepknet_a")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", MODEL], "--data is `digits` or a folder"),
        (["train", "--data", "digits"], "which model?"),
        (["train", "unireplknet_q", "--data", "digits"], "unknown model 'unireplknet_q'"),
        (["train", MODEL, "--data", "nowhere"], "there is no folder nowhere"),
        (["train", MODEL, "--data", "digits", "--recipe", "digit"], "did you mean digits"),
        (["train", MODEL, "--data", "digits", "--set", "mixupp=1"], "did you mean mixup"),
        (["train", MODEL, "--data", "digits", "--set", "mixup"], "--set takes KEY=VALUE"),
        (["train", MODEL, "--data", "digits", "--image-size", "9"], "test_convnext cannot take"),
        (["train", MODEL, "--data", "digits", "--lr", "-1"], "lr must be above 0, got -1.0"),
        (["train", MODEL, "--data", "digits", "--device", "abacus"], "device 'abacus' is not here"),
        (["train", MODEL, "--data", "digits", "--amp", "on"], "unknown --amp 'on'"),
        (["train", "lsnet_t_in1kk", "--data", "digits"], "did you mean lsnet_t_in1k,"),
        (["train", "digits", "--data", "digits"], "seewide train MODEL --recipe digits"),
        (["train", "lsnet_t_in1k", "--recipe", "digits"], "lsnet_t_in1k is a recipe, and --recipe"),
        (["train", MODEL, "--data", "digits", "--nan", "no"], "--nan must be stop or skip, got"),
        (["train", "--resume", "x", "--compile"], "leave out --compile"),
        (["train", "--resume", "nowhere"], "nowhere is no run folder"),
        (["train", MODEL, "--resume", "x", "--lr", "1"], "leave out MODEL, --lr"),
        (["eval", "runs/nowhere"], "there is no run runs/nowhere"),
        (["eval", "unireplknet_t.in1k", "--data", "nowhere"], "there is no folder nowhere"),
        (["eval", "unireplknet_h", "--data", "digits"], "no pretrained weights for unireplknet_h"),
        (["predict", "nowhere", "x.png"], "there is no run nowhere"),
        (["export", "nowhere", "--format", "tflite"], "unknown export format 'tflite'"),
        (["export", "nowhere"], "there is no run nowhere"),
    ],
)
def test_one_sentence_and_exit_code_2(words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(*words)
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    picture_folder(tmp_path / "one", "cat")
    cut = picture_folder(tmp_path / "cut", "cat", "dog") / "dog" / "2.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    assert "is empty" in refused("train", MODEL, "--data", "empty")
    assert "holds one class, cat" in refused("train", MODEL, "--data", "one")
    sentence = refused("train", MODEL, "--data", "cut", "--batch-size", 2)
    assert "dog/2.jpg is damaged" in sentence
    assert not (tmp_path / "runs").exists()


def test_damaged_and_dangerous_weights(run, digit, tmp_path):
    content = (run / "best.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    assert "is damaged" in refused("predict", tmp_path / "cut.safetensors", digit)

    class Code:
        def __reduce__(self):
            return print, ("this ran",)

    torch.save({"model": Code()}, tmp_path / "code.pt")
    words = "train", MODEL, "--data", "digits", "--fast", "--checkpoint", tmp_path / "code.pt"
    sentence = refused(*words, "--out", tmp_path / "out")
    assert "could run code" in sentence
    assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_with_130(monkeypatch, tmp_path):
    from seewide.train import learner

    def interrupt(self, epoch, update, images):
        raise KeyboardInterrupt

    monkeypatch.setattr(learner.Learner, "update", interrupt)
    result = seewide("train", MODEL, "--data", "digits", "--fast", "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert f"Go on with: seewide train --resume {tmp_path / 'run'}" in result.output


def test_recipes_are_listed_and_shown():
    result = seewide("recipes")
    assert result.exit_code == 0
    assert "small_folder" in result.output
    assert "unireplknet_t_in1k" in result.output
    one = seewide("recipes", "digits")
    assert "warmup_epochs" in one.output.replace(" ", "_")
    assert "98.9%" in one.output
    assert "did you mean digits" in refused("recipes", "digit")
