"""Random command lines, made from the arguments of every command: none ends in a traceback."""

from __future__ import annotations

import argparse
import importlib
import random
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from seewide.cli import COMMANDS, GROUPS
from seewide.cli._parser import Parser
from seewide.train import fit

NUMBERS = ["0", "-1", "1", "3", "8", "1e9", "nan", "", "x", "99999999999999999999"]
NAMES = [
    "nosuch",
    "digits",
    "test_convnext",
    "",
    "[red]",
    "\x1b[1m",
    "a" * 300,
    "a=b",
    "ü",
    "../..",
]
OTHERS = ["--nosuch", "-", "--", "=", "--help"]
CHOSEN = [name for name in COMMANDS if name not in GROUPS]


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    """A run, its files, images, and what is none of them."""
    folder = tmp_path_factory.mktemp("files")
    fit("test_convnext", "digits", out=folder / "run", smoke=True, console=Console(quiet=True))
    (folder / "images" / "cat").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(folder / "images" / "cat" / "1.png")
    (folder / "empty").mkdir()
    (folder / "broken.safetensors").write_bytes(b"\xff" * 100)
    (folder / "loop").symlink_to(folder / "loop")
    names = ["run", "run/best.safetensors", "run/last.pt", "images", "images/cat/1.png", "empty",
             "broken.safetensors", "nowhere", "loop", "new.png", "new.csv", "new.onnx"]  # fmt: skip
    return [*(str(folder / name) for name in names), "", "a" * 300, "bad\udcffname"]


def random_line(name: str, paths: list[str], chance: random.Random) -> list[str]:
    """A command with up to five of its arguments, most of them with a value of the right kind."""
    module = importlib.import_module(f"seewide.cli.{name}")
    parser = Parser(name, COMMANDS[name], module.DETAILS)
    module.arguments(parser)
    flags = [action for action in parser._actions if action.option_strings]
    places = [action for action in parser._actions if not action.option_strings]
    words = []
    for action in places:
        for _ in range(chance.choice([1, 1, 1, 0, 2])):
            words.append(value(action, paths, chance))
    for action in chance.choices(flags, k=chance.randint(0, 4)):
        words.append(chance.choice(action.option_strings))
        if action.nargs != 0 and chance.random() < 0.95:
            words.append(value(action, paths, chance))
    if chance.random() < 0.1:
        words.insert(chance.randint(0, len(words)), chance.choice(OTHERS))
    return [name, *words]


def value(action: argparse.Action, paths: list[str], chance: random.Random) -> str:
    if chance.random() < 0.1:
        return chance.choice([*NUMBERS, *NAMES, *paths])
    if action.choices:
        return chance.choice(list(map(str, action.choices)))
    if "|" in (action.metavar or "") and chance.random() < 0.6:
        return chance.choice([*action.metavar.split("|"), *paths])
    if action.type is Path:
        return chance.choice(paths)
    if action.type in (None, str):
        return chance.choice([*NAMES, *paths])
    return chance.choice(NUMBERS)


def check_lines(command, monkeypatch, tmp_path, paths, name: str, seeds: range) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("seewide.train.fit", lambda *args, **kwargs: None)
    monkeypatch.setattr("seewide.train.resume", lambda *args, **kwargs: None)
    for seed in seeds:
        line = random_line(name, paths, random.Random(f"{name} {seed}"))
        try:
            result = command(*line)
        except Exception as error:
            raise AssertionError(f"seewide {line}: {type(error).__name__}: {error}") from error
        assert result.exit_code in ((0, 1, 2) if name in ("check", "run") else (0, 2)), line
        if result.exit_code == 2:
            assert result.stderr.splitlines()[-1].startswith("seewide: "), (line, result.stderr)


@pytest.mark.parametrize("name", CHOSEN)
def test_random_lines_of_each_command(command, monkeypatch, tmp_path, paths, name):
    check_lines(command, monkeypatch, tmp_path, paths, name, range(6))


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOSEN)
def test_a_thousand_random_lines(command, monkeypatch, tmp_path, paths, name):
    check_lines(command, monkeypatch, tmp_path, paths, name, range(6, 6 + 1000 // len(CHOSEN) + 1))
