"""`seewide check`, and files whose bits have changed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch
from flips import ANSWERS, copy_of_run, make_run, try_flip

from seewide.checkpoints import check_file, check_seal, save_safetensors, seal
from seewide.cli import call
from seewide.errors import InputError
from seewide.train import WeightsInfo
from seewide.train.check import check


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained, tmp_path):
    return copy_of_run(trained, tmp_path / "copy")


def verdicts(folder: Path) -> dict[str, str]:
    return {report.path.name: report.verdict for report in check(folder)}


def details(folder: Path) -> dict[str, str]:
    return {report.path.name: report.detail for report in check(folder)}


def flip(path: Path, text: bytes, by: int = 1) -> None:
    """Change a bit of the first occurrence of `text`."""
    content = bytearray(path.read_bytes())
    content[content.index(text) + by] ^= 1
    path.write_bytes(content)


def test_a_finished_run_is_intact(run, capsys):
    assert call(["check", str(run)]) == 0
    output = capsys.readouterr().out
    assert "nothing is damaged" in output
    found = verdicts(run)
    assert {"config.json", "last.pt", "previous.pt", "best.safetensors", "epoch-1.safetensors",
            "metrics.jsonl", "steps.jsonl", "curves.png"} <= found.keys()  # fmt: skip
    assert {name for name, verdict in found.items() if verdict != "intact"} == {"run.lock"}


@pytest.mark.parametrize(
    "name",
    ["config.json", "last.pt", "previous.pt", "best.safetensors", "metrics.jsonl", "steps.jsonl",
     "curves.png"],
)  # fmt: skip
def test_a_flipped_bit_is_damage(run, capsys, name):
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run / name).write_bytes(content)
    assert call(["check", str(run)]) == 1
    assert verdicts(run)[name] == "damaged"
    assert "1 of " in capsys.readouterr().out


def test_files_are_compared_with_each_other(run):
    rows = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text(rows[0])
    assert "line 2 is not what the last checkpoint says" in details(run)["metrics.jsonl"]
    (run / "metrics.jsonl").write_text("".join([*rows, rows[-1]]))  # killed before `last.pt`
    assert verdicts(run)["metrics.jsonl"] == "intact"
    best = WeightsInfo.of(run / "best.safetensors").epoch
    shutil.copy(run / f"epoch-{3 - best}.safetensors", run / "best.safetensors")
    assert f"and the best is epoch {best}" in details(run)["best.safetensors"]


def test_what_a_killed_run_leaves_is_no_damage(run):
    with open(run / "steps.jsonl", "a") as file:
        file.write('{"step": 99, "lo')
    (run / ".writing-12.pt").write_bytes(b"PK")
    found = check(run)
    assert not [report for report in found if report.verdict == "damaged"]
    assert "unfinished; resuming removes it" in details(run)["steps.jsonl"]


def test_wrong_input(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        call(["check", str(tmp_path / "missing.pt")])
    with pytest.raises(InputError, match=r"not a run folder: it has no config\.json"):
        call(["check", str(tmp_path)])


def test_single_files(tmp_path):
    path = save_safetensors(tmp_path / "a.safetensors", {"w": torch.arange(8.0)})
    assert check_file(path).verdict == "intact"
    flip(path, torch.tensor(3.0).numpy().tobytes(), by=2)
    assert check_file(path).verdict == "damaged"
    torch.save({"w": torch.arange(8.0)}, tmp_path / "a.pt")
    assert check_file(tmp_path / "a.pt").verdict == "intact"
    (tmp_path / "a.json").write_text("{}")
    assert check_file(tmp_path / "a.json").verdict == "no checksum"
    (tmp_path / "a.json").write_text("{")
    assert check_file(tmp_path / "a.json").verdict == "damaged"


def test_seals_of_exported_files(tmp_path):
    onnx, xml = tmp_path / "a.onnx", tmp_path / "b.xml"
    onnx.write_bytes(b"\x08\x08")
    xml.write_text("<net/>")
    xml.with_suffix(".bin").write_bytes(b"weights")
    for path in (onnx, xml):
        assert not check_seal(path)  # as other programs write them
        seal(path)
        assert check_seal(path)
    for path in (onnx, xml.with_suffix(".bin")):
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 4]) + content[1:])
    for path in (onnx, xml):
        with pytest.raises(InputError, match="does not match the checksum at its end"):
            check_seal(path)
    assert check_file(xml.with_suffix(".bin")).verdict == "damaged"


def test_twelve_flips_anywhere_change_no_result_silently(trained, tmp_path):
    """`make torture` tries a thousand."""
    chance = random.Random(0)
    for number in range(12):
        found = try_flip(trained, tmp_path / "scratch", chance)
        assert found.answer in ANSWERS, f"flip {number}: {found}"
