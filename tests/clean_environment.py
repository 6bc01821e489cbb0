"""seewide as a user installs it: the wheel in a new virtual environment, in a folder of its own.

    python tests/clean_environment.py wheel                      # newest versions, no extras
    python tests/clean_environment.py oldest                     # the lower bounds of pyproject
    python tests/clean_environment.py wheel --torch 2.9          # another minor version of torch
    python tests/clean_environment.py wheel --python python3.13  # another Python

`wheel` imports the package, asks every command for its help, and trains, resumes, evaluates,
predicts and fuses on generated images. `oldest` does the same and then runs the tests of the
operators, layers, networks, re-parameterization and training. Exit code 0 if all of it works.
"""

from __future__ import annotations

import argparse
import email
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
TEST_TOOLS = ["pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "scikit-learn>=1.3", "fvcore"]
TESTED = [
    "ops",
    "layers",
    "models",
    "train",
    "tasks/test_classification.py",
    "test_reparam.py",
    "test_fuse.py",
    "test_surgery.py",
    "test_cli_runs.py",
]

FIRST_STEPS = """
import subprocess, sys
from pathlib import Path
import numpy as np
from PIL import Image

random = np.random.default_rng(0)
for label, brightness in (("dark", 40), ("bright", 200)):
    Path("images", label).mkdir(parents=True)
    for i in range(16):
        pixels = random.integers(brightness - 30, brightness + 30, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"images/{label}/{i}.png")

import seewide, timm, torch
print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, timm {timm.__version__}, "
      f"seewide {seewide.__version__} of {Path(seewide.__file__).parent}")

def command(*words):
    print("seewide", *words, flush=True)
    done = subprocess.run([Path(sys.executable).with_name("seewide"), *map(str, words)],
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}\\n{done.stdout}\\n{done.stderr}")
    return done.stdout

from seewide.cli import COMMANDS
assert "usage" in command("--help")
for name in COMMANDS:
    assert "usage" in command(name, "--help")
command("train", "test_convnext", "--data", "images", "--recipe", "small_folder", "--epochs", 1,
        "--batch-size", 8, "--image-size", 32, "--out", "run", "--workers", 0)
command("train", "--resume", "run", "--epochs", 2)
command("eval", "run", "--data", "images")
table = command("predict", "run", "images/dark/0.png")
assert "dark" in table or "bright" in table, table
model = timm.create_model("unireplknet_a").eval()
x = torch.rand(1, 3, 64, 64)
with torch.no_grad():
    torch.testing.assert_close(seewide.fuse(model)(x), model(x), rtol=1e-4, atol=1e-4)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lane", choices=["wheel", "oldest"])
    parser.add_argument("--python", default=sys.executable, help="the interpreter to test with")
    parser.add_argument("--torch", help="a minor version such as 2.9; default: the newest")
    parser.add_argument("--env", help="an environment to make, or to use again; default: temporary")
    parser.add_argument("--tests", action="store_true", help="run the tests in lane `wheel`, too")
    lane = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="seewide-") as folder:
        check(Path(folder), lane, Path(lane.env or f"{folder}/env").resolve())


def check(folder: Path, lane: argparse.Namespace, env: Path) -> None:
    """Build the package in `folder`, which is empty, install it into `env` and try it."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    (wheel,) = folder.glob("seewide-*.whl")
    python = env / "bin" / "python"
    if not python.exists():
        run(lane.python, "-m", "venv", env)
    pins = lower_bounds(wheel) if lane.lane == "oldest" else []
    if lane.torch:
        pins = [f"torch=={lane.torch}.*"]
    tests = lane.lane == "oldest" or lane.tests
    tools = TEST_TOOLS if tests else []
    run(python, "-m", "pip", "install", "-q", "--upgrade", wheel, *pins, *tools)
    run(python, "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", wheel)
    elsewhere = folder / "elsewhere"  # no checkout of seewide beside it
    elsewhere.mkdir()
    run(python, "-c", FIRST_STEPS, cwd=elsewhere)
    if tests:
        shutil.copytree(ROOT / "tests", elsewhere / "tests")
        shutil.copy(ROOT / "pyproject.toml", elsewhere)
        chosen = [f"tests/{name}" for name in TESTED]
        run(python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *chosen, cwd=elsewhere)


def lower_bounds(wheel: Path) -> list[str]:
    """`torch==2.7.*` for `torch>=2.7`: the dependencies at the oldest version allowed."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    pins = []
    for line in metadata.get_all("Requires-Dist"):
        requirement = Requirement(line)
        if requirement.marker is None:
            for bound in requirement.specifier:
                exact = bound.version.count(".") > 1
                pins.append(f"{requirement.name}=={bound.version}{'' if exact else '.*'}")
    return pins


def run(*words: object, cwd: Path | None = None) -> None:
    """Run a command; end this script with its exit code if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=environment)
    if done.returncode:
        sys.exit(f"failed with exit code {done.returncode}: {' '.join(map(str, words))[:200]}")


if __name__ == "__main__":
    main()
