"""Worker processes decode thousands of recordings and videos without growing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from test_audio_task import tone, write_wave
from test_video_task import moving, write_mp4

from seewide.data import Order, make_loader
from seewide.data.audio import AudioSamples
from seewide.data.samples import Samples
from seewide.data.video import VideoSamples

COUNT = 2000
WARM = 400  # samples after which nothing is allocated for the first time
MOST_GROWTH = 16e6  # bytes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux' /proc"),
]


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def with_memory(sample: dict) -> dict:
    """Decode the sample, and the memory of the worker afterwards."""
    if "video" in sample:
        sample["video"].read([0, 5, 11])
    return {"resident": resident()}


def collate(samples: list[dict]) -> dict:
    return {"resident": torch.tensor([sample["resident"] for sample in samples])}


def memory(samples: Samples) -> np.ndarray:
    """Bytes after each of `COUNT` samples that one worker reads."""
    many = samples.take(np.arange(COUNT) % len(samples))
    loader = make_loader(many, with_memory, collate, Order(COUNT), 50, workers=1)
    return torch.cat([batch["resident"] for batch in loader]).numpy()


def assert_constant(found: np.ndarray) -> None:
    early, late = found[WARM : WARM + 200].mean(), found[-200:].mean()
    print(f"{early / 1e6:.1f} MB after {WARM} samples, {late / 1e6:.1f} MB after {COUNT}")
    assert late - early < MOST_GROWTH


def test_recordings(tmp_path):
    names = [write_wave(tmp_path / f"{i}.wav", tone(400, i, 16000)).name for i in range(20)]
    samples = AudioSamples(tmp_path, names, np.zeros(20, np.int64), 8000)
    assert_constant(memory(samples))


def test_recordings_by_soundfile(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    names = [f"{i}.flac" for i in range(20)]
    for i, name in enumerate(names):
        soundfile.write(tmp_path / name, tone(400, i, 16000), 8000)
    samples = AudioSamples(tmp_path, names, np.zeros(20, np.int64), 8000)
    assert_constant(memory(samples))


def test_videos(tmp_path):
    names = [write_mp4(tmp_path / f"{i}.mp4", moving(1, i, side=64)).name for i in range(20)]
    assert_constant(memory(VideoSamples(tmp_path, names, [0] * 20)))
