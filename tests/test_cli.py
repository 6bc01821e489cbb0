"""The command line: what it prints, its exit codes, and the sentences of its refusals."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from dataclasses import dataclass, fields

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from seewide.cli import COMMANDS
from seewide.cli._parser import Parser
from seewide.console import print_table
from seewide.options import option
from seewide.recipes import RECIPES, Recipe
from seewide.train import Interrupted, Runtime, Terminated, fit

MODEL = "test_convnext"


@pytest.fixture(scope="module")
def refused(command):
    """The one sentence of a command that ends with exit code 2."""

    def call(*words) -> str:
        result = command(*words)
        assert result.exit_code == 2, result.output
        sentence = result.stderr.strip()
        assert sentence.startswith("seewide: ")
        assert "\n" not in sentence
        return sentence

    return call


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
    fit(MODEL, "digits", out=folder, smoke=True, console=Console(quiet=True))
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


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(command, name):
    result = command(name, "--help")
    assert result.exit_code == 0
    assert COMMANDS[name] in result.output
    assert f"  seewide {name}" in result.output


def test_help_imports_no_torch():
    """Within 0.7 CPU seconds; torch alone takes twice as long."""
    code = (
        "import sys, time; from seewide.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('torch' in sys.modules, time.process_time() < 0.7)"
    )
    for words in (["--help"], ["models", "--help"], ["recipes", "lsnet_*"], ["--version"]):
        call = [sys.executable, "-c", code, *words]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False True", words


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "seewide", "train", "unirepknet_a", "--data", "digits"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().startswith("seewide: unknown model 'unirepknet_a'; did you mean ")
    assert "unireplknet_a" in done.stderr
    assert "Traceback" not in done.stderr


def test_train_prints_plain_lines_to_a_log(command, tmp_path):
    result = command("train", MODEL, "--data", "digits", "--smoke", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert "\r" not in result.output
    assert "epoch   1/1  train loss " in result.output
    assert "best: top-1 " in result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe_name"] == "digits"
    assert config["recipe"]["limit_samples"] == 16


def test_flags_and_settings_reach_the_recipe(command, tmp_path):
    result = command(
        "train", MODEL, "--data", "digits", "--epochs", 1, "--batch-size", 4, "--lr", "1e-4",
        "--image-size", 40, "--set", "limit_samples=8", "--set", "mixup=0.2",
        "--set", "task.flip=0.25", "--seed", 5, "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    recipe = config["recipe"]
    assert (recipe["epochs"], recipe["batch_size"], recipe["lr"]) == (1, 4, 1e-4)
    options = recipe["options"]
    assert (options["image_size"], options["mixup"], options["flip"]) == (40, 0.2, 0.25)
    assert (config["runtime"]["seed"], config["recipe_name"]) == (5, "digits, changed")


def test_an_option_is_declared_once(monkeypatch, capsys):
    """A field with `flag=True` is in --help and reaches the options; one without is not."""

    @dataclass(frozen=True)
    class Options:
        shiny: bool = option(False, "Polish 50% of the weights.", flag=True)
        depth: int = option(3, "How deep.", least=1, flag=True, may_change=True)
        hidden: float = option(0.5, "By --set only.")

    parser = Parser("train", "Train.", "")
    parser.add_options("how", Options, show_defaults=True)
    help = parser.format_help()
    assert "--shiny" in help
    assert "Polish 50% of the weights." in help
    assert "How deep. Default: 3." in help
    assert "hidden" not in help
    assert vars(parser.parse_args(["--depth", "7"])) == {"depth": "7"}


def test_every_flag_of_the_options_is_in_help_and_config(command, run):
    help = command("train", "--help").output
    config = json.loads((run / "config.json").read_text())
    for kind, saved in ((Recipe, config["recipe"]), (Runtime, config["runtime"])):
        for field in fields(kind):
            assert field.name in saved
            if field.metadata["flag"]:
                assert f"--{field.name.replace('_', '-')}" in help


def test_a_recipe_brings_its_model(command, tmp_path):
    result = command(
        "train", "unireplknet_a_in1k", "--data", "digits", "--smoke", "--out", tmp_path / "run"
    )
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe_name"] == "unireplknet_a_in1k"
    assert config["model"] == config["recipe"]["model"]


def test_eval_prints_scores_and_writes_the_task_s_files(command, run, tmp_path):
    result = command("eval", run, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    for word in ("unfused", "fused", "359 samples", "recall %"):
        assert word in result.output
    scores = json.loads((tmp_path / "scores.json").read_text())
    lines = (tmp_path / "per-class.csv").read_text().splitlines()
    assert lines[0] == "class,images,recall %,precision %"
    rows = [line.split(",") for line in lines[1:]]
    assert sum(int(count) for _, count, *_ in rows) == 359
    right = sum(int(count) * float(recall) / 100 for _, count, recall, _ in rows)
    assert scores["scores"]["fused"]["top1"] == pytest.approx(100 * right / 359, abs=0.1)
    assert (tmp_path / "confusion.png").read_bytes()[:4] == b"\x89PNG"


def test_predict_takes_folders_patterns_and_stdin(command, run, digit, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "more/b.png", ".hidden.png"):
        (folder / name).write_bytes(digit.read_bytes())
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{digit}\n"))
    out = tmp_path / "out.json"
    result = command("predict", run, folder, "-", f"{folder}/*.png", "--out", out)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    names = [str(folder / "a.png"), str(folder / "more/b.png"), str(digit)]
    assert [row["file"] for row in found] == names
    classes = found[0]["classes"]
    assert len(classes) == 5
    assert sum(c["probability"] for c in classes) <= 1 + 1e-6
    table = tmp_path / "out.csv"
    assert command("predict", run, digit, "--out", table).exit_code == 0
    assert table.read_text().startswith("file,classes 1 name,classes 1 probability,")


def test_predict_names_unreadable_files_and_continues(command, refused, run, digit, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_text("not much of a JPEG")
    result = command("predict", run, broken, digit)
    assert result.exit_code == 2
    assert "digit.png" in result.stdout
    assert "broken.jpg" in result.stderr
    assert "1 of 2 files could not be read" in result.stderr
    assert "must end in .json or .csv" in refused("predict", run, digit, "--out", "x.txt")
    assert "there are no files in" in refused("predict", run, f"{tmp_path}/*.gif")


def test_names_are_printed_as_they_are(capsys):
    print_table("[b]", ("class",), [("[red]x[/red]",), ("a\x1b[31m",), ("$\\frac$",), ("\udcff",)])
    output = capsys.readouterr().out
    for text in ("[b]", "[red]x[/red]", "\\x1b[31m", "$\\frac$", "\\xff"):
        assert text in output
    assert "\x1b" not in output


@pytest.mark.parametrize("format", ["safetensors", "pt2"])
def test_export_prints_the_deviation(command, run, tmp_path, format):
    path = tmp_path / f"model.{format}"
    result = command("export", run, "--format", format, "--out", path)
    assert result.exit_code == 0, result.output
    assert "largest deviation" in result.output
    assert path.is_file()


def test_models_lists_ours_with_the_papers_counts(command, refused):
    result = command("models", "unireplknet_[at]")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()]
    assert rows[1][:3] == ["unireplknet_a", "4.6", "4.4"]
    assert rows[2][:3] == ["unireplknet_t", "31.7", "31.0"]
    assert "did you mean unireplknet_a" in refused("models", "unirepknet_a")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", MODEL], "--data is required"),
        (["train", "--data", "digits"], "which model?"),
        (["train", "unireplknet_q", "--data", "digits"], "unknown model 'unireplknet_q'"),
        (["train", MODEL, "--data", "nowhere"], "there is no folder nowhere"),
        (["train", MODEL, "--data", "digits", "--recipe", "digit"], "did you mean digits"),
        (["train", MODEL, "--data", "digits", "--set", "mixupp=1"], "did you mean mixup"),
        (["train", MODEL, "--data", "digits", "--set", "mixup"], "--set takes KEY=VALUE"),
        (["train", MODEL, "--data", "digits", "--image-size", "9"], "test_convnext cannot take"),
        (["train", MODEL, "--data", "digits", "--lr", "-1"], "lr must be above 0, got -1.0"),
        (["train", MODEL, "--data", "digits", "--device", "abacus"], "'abacus' is not available"),
        (
            ["train", MODEL, "--data", "digits", "--amp", "on"],
            "amp must be auto, bf16, fp16 or off",
        ),
        (["train", "lsnet_t_in1kk", "--data", "digits"], "did you mean lsnet_t_in1k,"),
        (["train", "digits", "--data", "digits"], "seewide train MODEL --recipe digits"),
        (["train", "lsnet_t_in1k", "--recipe", "digits"], "lsnet_t_in1k is a recipe, and --recipe"),
        (["train", MODEL, "--data", "digits", "--nan", "no"], "nan must be stop or skip, got"),
        (["train", "--resume", "x", "--amp", "off"], "leave out --amp"),
        (["train", "--resume", "nowhere"], "nowhere is not a run folder"),
        (["train", MODEL, "--resume", "x", "--lr", "1"], "leave out --lr, MODEL"),
        (["eval", "runs/nowhere"], "there is no run runs/nowhere"),
        (["eval", "unireplknet_t.in1k", "--data", "nowhere"], "there is no folder nowhere"),
        (["eval", "unireplknet_h", "--data", "digits"], "no pretrained weights for unireplknet_h"),
        (["predict", "nowhere", "x.png"], "unknown model 'nowhere'"),
        (["export", "nowhere", "--format", "tflite"], "unknown export format 'tflite'"),
        (["export", "nowhere"], "there is no run nowhere"),
        (["train", "unireplknet_s_ft384", "--data", "digits"], "add --pretrained"),
        (["train", "pelk_b_ft384", "--data", "digits"], "add --checkpoint WEIGHTS"),
        (["train", MODEL, "--data", "digits", "--task", "singing"], "unknown task 'singing'"),
        (["train", MODEL, "--data", "digits", "--epochs", "many"], "epochs must be a whole number"),
        (["train", MODEL, "--data", "digits", "--set", "options=1"], "unknown setting 'options'"),
        (["trian", MODEL], "unknown command 'trian'; did you mean train"),
        (["models", "--size", "1"], "unrecognized arguments: --size"),
        (["erf", MODEL, "--images", "0"], "must be at least 1, got 0"),
    ],
)
def test_one_sentence_and_exit_code_2(refused, words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(*words)
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_trained_on(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    picture_folder(tmp_path / "one", "cat")
    cut = picture_folder(tmp_path / "cut", "cat", "dog") / "dog" / "2.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    assert "is empty" in refused("train", MODEL, "--data", "empty")
    assert "has one class, cat" in refused("train", MODEL, "--data", "one")
    sentence = refused("train", MODEL, "--data", "cut", "--batch-size", 2)
    assert "dog/2.jpg is damaged" in sentence
    assert not [*tmp_path.glob("runs/*/config.json")]


def test_damaged_and_dangerous_weights(refused, run, digit, tmp_path):
    content = (run / "best.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    assert "is damaged" in refused("predict", tmp_path / "cut.safetensors", digit)

    class Code:
        def __reduce__(self):
            return print, ("this ran",)

    torch.save({"model": Code()}, tmp_path / "code.pt")
    words = "train", MODEL, "--data", "digits", "--smoke", "--checkpoint", tmp_path / "code.pt"
    sentence = refused(*words, "--out", tmp_path / "out")
    assert "could run code" in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        (Interrupted("stopped"), 130),
        (Terminated("saved", signal.SIGTERM), 143),
        (Terminated("saved", signal.SIGHUP), 129),
    ],
)
def test_exit_codes_of_stopped_runs(command, monkeypatch, stop, code):
    def fit(*args, **kwargs):
        raise stop

    monkeypatch.setattr("seewide.train.fit", fit)
    result = command("train", MODEL, "--data", "digits", "--smoke")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (code, str(stop))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_sets_the_exit_code(number, tmp_path):
    words = ["train", MODEL, "--data", "digits", "--epochs", "500", "--out", str(tmp_path / "run")]
    call = [sys.executable, "-m", "seewide", *words]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        process.send_signal(number)
        output = process.stdout.read()
        process.wait(60)
    assert process.returncode == 128 + number
    assert f"seewide train --resume {tmp_path / 'run'}" in output
    assert (tmp_path / "run" / "last.pt").is_file()


def test_unusable_run_folders_are_one_sentence(refused, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for out in (tmp_path / "file" / "run", tmp_path / "loop", tmp_path / ("n" * 300)):
        refused("train", MODEL, "--data", "digits", "--smoke", "--out", out)
    wrong = ("--set", "rand_augment=nosuch", "--out", tmp_path / "run")
    assert "nosuch" in refused("train", MODEL, "--data", "digits", "--smoke", *wrong)


def test_recipes_are_listed_and_shown(command, refused):
    result = command("recipes")
    assert result.exit_code == 0
    for name in RECIPES:
        assert name in result.output
    one = command("recipes", "digits")
    assert "warmup_epochs" in one.output
    assert "top1 98.6" in one.output
    assert "did you mean digits" in refused("recipes", "digit")


def test_tasks_are_listed_and_shown(command, refused):
    assert "classification" in command("tasks").output
    assert "label_smoothing" in command("tasks", "classification").output
    assert "unknown task" in refused("tasks", "clasification")


NAMES = [field.name for kind in (Recipe, Runtime) for field in fields(kind)]
WORDS = st.sampled_from(
    [
        *(f"--{name.replace('_', '-')}" for name in NAMES),
        "--image-size", "--data", "--task", "--recipe", "--set", "--out", "--resume", "--smoke",
        "--nosuch", "digits", MODEL, "nowhere", "0", "-1", "1e9", "nan", "", "lr=1", "mixup=x", "=",
        "[red]", "\x1b", "a" * 300, "lsnet_t_in1k", "classification", "auto",
    ]
)  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(WORDS, max_size=7))
def test_no_command_line_ends_in_a_traceback(command, monkeypatch, tmp_path, words):
    """All that comes before training; `fit` and `resume` have their own tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("seewide.train.fit", lambda *args, **kwargs: None)
    monkeypatch.setattr("seewide.train.resume", lambda *args, **kwargs: None)
    result = command("train", *words)
    assert result.exit_code in (0, 2)
    if result.exit_code:
        assert result.stderr.startswith("seewide: ")
        assert result.stderr.count("\n") == 1
