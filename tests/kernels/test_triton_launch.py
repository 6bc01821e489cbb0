"""Which configuration a kernel is launched with, and what of that is remembered where."""

import contextlib
import json
from dataclasses import asdict

import pytest
import torch

from seewide.kernels.triton import launch
from seewide.kernels.triton.launch import Config, choose

FAST, SLOW = Config({"BM": 64}, warps=8), Config({"BM": 128})
GPU = torch.device("cuda", 0)


@pytest.fixture
def timed(monkeypatch, tmp_path):
    """A GPU whose clock reads the warps: more are faster. Returns what has been timed so far."""
    found = []

    def milliseconds(run, config):
        run(config)
        found.append(config)
        return 1 / config.warps

    monkeypatch.setattr(launch, "_milliseconds", milliseconds)
    monkeypatch.setattr(launch._Known, "by_file", {})
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SEEWIDE_AUTOTUNE", raising=False)
    return found


def chosen(shapes=(torch.float16, 28), configs=(SLOW, FAST), device=GPU):
    return choose("toeplitz", shapes, configs, lambda config: None, device)


def new_process():
    launch._Known.by_file.clear()


def test_the_fastest_is_measured_once_and_kept_on_disk(timed, tmp_path):
    assert chosen() == FAST
    assert timed == [SLOW, FAST]
    assert chosen() == FAST
    new_process()
    assert chosen() == FAST
    assert len(timed) == 2
    (file,) = (tmp_path / "seewide" / "triton").iterdir()
    assert file.name.startswith("NVIDIA-H200-triton")
    assert json.loads(file.read_text()) == {"toeplitz torch.float16 28": asdict(FAST)}


def test_other_shapes_are_measured_anew(timed):
    chosen()
    chosen((torch.float32, 28))
    assert len(timed) == 4


def test_what_another_process_wrote_meanwhile_stays(timed, tmp_path):
    chosen()
    (file,) = (tmp_path / "seewide" / "triton").iterdir()
    file.write_text(json.dumps({"other": asdict(SLOW)}))
    chosen((torch.float32, 28))
    assert set(json.loads(file.read_text())) == {
        *("other", "toeplitz torch.float16 28", "toeplitz torch.float32 28"),
    }


def test_a_choice_that_is_no_candidate_any_more_is_measured_anew(timed):
    chosen()
    new_process()
    assert chosen(configs=(SLOW, Config({"BM": 32}))) == SLOW
    assert len(timed) == 4


@pytest.mark.parametrize("text", ["{", "[1]", '{"toeplitz torch.float16 28": 3}', "\x00"])
def test_a_broken_file_is_measured_anew_and_replaced(text, timed, tmp_path):
    chosen()
    (file,) = (tmp_path / "seewide" / "triton").iterdir()
    file.write_text(text)
    new_process()
    assert chosen() == FAST
    assert json.loads(file.read_text())["toeplitz torch.float16 28"] == asdict(FAST)


def test_a_folder_that_cannot_be_written(timed, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert chosen() == FAST
    assert chosen() == FAST
    assert len(timed) == 2


def test_it_can_be_switched_off(timed, tmp_path, monkeypatch):
    monkeypatch.setenv("SEEWIDE_AUTOTUNE", "0")
    assert chosen() == SLOW  # the first
    assert timed == []
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_measured_on_a_cpu_or_while_a_graph_is_captured(timed, monkeypatch):
    assert chosen(device=torch.device("cpu")) == SLOW
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert chosen() == SLOW
    assert timed == []


def test_a_configuration_too_large_for_the_gpu_is_passed_over(timed, monkeypatch):
    def too_large(run, config):
        run(config)
        return float("inf") if config == FAST else 1.0

    monkeypatch.setattr(launch, "_milliseconds", too_large)
    assert chosen() == SLOW


def test_scratch_memory_is_poisoned():
    """What all comparisons of this folder rest on: tests/conftest.py fills it with NaN."""
    x = torch.ones(3)
    for scratch in (torch.empty(3), torch.empty_like(x), x.new_empty(3)):
        assert scratch.isnan().all()
