"""`seewide run`: programs that never import seewide use its networks. Each is its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What timm's train.py and validate.py do with a model, in their order.
TRAIN = """
import argparse, sys
import torch
from timm import utils
from timm.models import create_model, is_model, safe_model_name
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2

parser = argparse.ArgumentParser()
parser.add_argument("--model")
parser.add_argument("--exit", type=int, default=0)
parser.add_argument("--out")
options = parser.parse_args()
assert __name__ == "__main__"
assert sys.argv[0] == __file__
model = create_model(options.model, num_classes=4, drop_path_rate=0.1)
optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, layer_decay=0.8)
scheduler, epochs = create_scheduler_v2(optimizer, sched="cosine", num_epochs=2)
ema = utils.ModelEmaV3(model, decay=0.9)
loss = torch.nn.functional.cross_entropy(model(torch.randn(2, 3, 64, 64)), torch.tensor([0, 1]))
loss.backward()
optimizer.step()
ema.update(model)
torch.save({"state_dict": model.state_dict(), "arch": options.model}, options.out)
sys.exit(options.exit)
"""
VALIDATE = """
import sys
import torch
from timm.data import resolve_data_config
from timm.models import create_model, load_checkpoint
model = create_model(sys.argv[1], num_classes=4, scriptable=False)
load_checkpoint(model, sys.argv[2], weights_only=True)
config = resolve_data_config({}, model=model)
with torch.no_grad():
    print(config["interpolation"], tuple(model.eval()(torch.zeros(1, 3, 64, 64)).shape))
"""


def seewide_run(*words, cwd=None, **environment):
    """The result of `python -m seewide run ...` in a new process."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "seewide", "run", *map(str, words)],
        env={**env, **environment}, cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_scripts_of_timm_know_the_networks(tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "validate.py").write_text(VALIDATE)
    weights = tmp_path / "weights.pth"
    train = ("train.py", "--model", "lsnet_t", "--out", weights, "--exit", 3)
    done = seewide_run(*train, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    done = seewide_run("validate.py", "lsnet_t", weights, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "bicubic (1, 4)"


@pytest.mark.parametrize(
    ("source", "words", "code", "printed"),
    [
        ("import sys; print(sys.argv[1:])", ["--help", "-x"], 0, "['--help', '-x']"),
        ("import beside; print(beside.VALUE)", [], 0, "5"),
        ("raise SystemExit('no data')", [], 1, "no data"),
        ("1 / 0", [], 1, "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_a_script_runs_as_python_would_run_it(tmp_path, source, words, code, printed):
    (tmp_path / "script.py").write_text(source)
    (tmp_path / "beside.py").write_text("VALUE = 5\n")
    done = seewide_run(tmp_path / "script.py", *words)
    assert done.returncode == code, done.stderr
    assert printed in done.stdout + done.stderr


def test_a_search_for_timm_does_not_use_up_the_registration(tmp_path):
    """transformers asks whether timm is installed before anything imports it."""
    (tmp_path / "script.py").write_text(
        "import importlib.util, sys\n"
        "assert importlib.util.find_spec('timm') is not None\n"
        "assert 'timm' not in sys.modules\n"
        "import timm\n"
        "ours = [f for f in sys.meta_path if type(f).__module__.startswith('seewide.')]\n"
        "print(timm.is_model('unireplknet_a'), bool(ours))\n"
    )
    done = seewide_run(tmp_path / "script.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True False\n"


def test_modules_commands_and_names_that_are_none(tmp_path):
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "main.py").write_text("import sys; print(__name__, sys.argv[1:])")
    for words in (["tool.main"], ["-m", "tool.main"]):
        done = seewide_run(*words, "--model", "a", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "__main__ ['--model', 'a']\n"
    done = seewide_run("seewide", "--version")  # a console script, where it is installed
    assert done.returncode == 0 or "there is no file, command or module seewide" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere.py"], "there is no file nowhere.py"),
        (["no.such.module", "--x"], "there is no file, command or module no.such.module"),
        (["-m", "no_such_module"], "there is no module no_such_module"),
        (["-m"], "needs a command"),
    ],
)
def test_refusals(command, words, sentence):
    result = command("run", *words)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.output


def test_help_is_the_commands_own(command):
    result = command("run", "--help")
    assert result.exit_code == 0
    assert "torchrun" in result.output


CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"timm_model_name": "unireplknet_a", "timm_pool": "avg", "timm_proj": "linear",
                   "image_size": 64},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}  # fmt: skip


@pytest.mark.slow
def test_open_clip_trains_a_tower(tmp_path):
    """Two steps on synthetic pairs by open_clip's own training program."""
    pytest.importorskip("open_clip_train")
    model = tmp_path / "model"
    model.mkdir()
    (model / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP}))
    done = seewide_run(
        "open_clip_train.main", "--model", f"local-dir:{model}", "--dataset-type", "synthetic",
        "--train-num-samples", 8, "--batch-size", 4, "--epochs", 1, "--workers", 0, "--warmup", 1,
        "--device", "cpu", "--precision", "fp32", "--logs", tmp_path / "logs", "--name", "x",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.glob("logs/x/checkpoints/*.pt"))


def test_lightly_train_supports_the_networks(tmp_path):
    pytest.importorskip("lightly_train")
    script = tmp_path / "check.py"
    script.write_text(
        "import lightly_train, timm\n"
        "from lightly_train._models import package_helpers\n"
        "model = timm.create_model('unireplknet_a')\n"
        "print(package_helpers.get_wrapped_model(model, num_input_channels=3))\n"
    )
    done = seewide_run(script)
    assert done.returncode == 0, done.stderr
