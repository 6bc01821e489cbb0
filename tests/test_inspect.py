"""`seewide inspect`: what it says of the data of several tasks, and of damaged data."""

import csv
import json
import wave
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_images(folder: Path) -> Path:
    for name, count in (("cat", 4), ("dog", 6)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = np.random.default_rng(i).integers(0, 255, (20, 24 + i, 3), np.uint8)
            Image.fromarray(noise).save(folder / name / f"{name}{i}x.png")
    return folder


def write_waves(folder: Path) -> Path:
    for name in ("high", "low"):
        (folder / name).mkdir(parents=True)
        for i in range(5):
            samples = np.random.default_rng(i).integers(-9000, 9000, 800 * (i + 1), np.int16)
            with wave.open(str(folder / name / f"{i}.wav"), "wb") as file:
                file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
                file.writeframes(samples.tobytes())
    return folder


def write_series(folder: Path) -> Path:
    folder.mkdir(parents=True)
    with open(folder / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["date", "a", "b"])
        for i in range(400):
            time = datetime(2020, 1, 1) + timedelta(hours=i)
            writer.writerow([time, np.sin(i), "" if i % 4 == 0 else i])
    return folder


def inspect(command, data: Path, *words: object) -> tuple[dict, str]:
    out = data.parent / "out.json"
    done = command("inspect", data, "--out", out, *words)
    assert done.exit_code == 0, done.output
    return json.loads(out.read_text()), done.output


def test_images_are_counted_measured_and_the_damaged_one_is_named(command, tmp_path):
    write_images(tmp_path / "images")
    (tmp_path / "images" / "dog" / "dog2x.png").write_bytes(b"torn")
    found, said = inspect(command, tmp_path / "images", "--limit", 0)
    assert found["task"] == "classification"
    parts = (found["train"], found["val"])
    assert sum(part["classes"]["dog"] for part in parts) == 6
    assert sum(part["samples"] for part in parts) == 10
    assert next(name for part in parts for name in part["broken"]).count("dog2x.png") == 1
    assert found["train"]["values"]["height, pixels"] == {"min": 20, "median": 20, "max": 20}
    assert "2 folders of images" in said
    assert "dog2x.png" in said


def test_recordings(command, tmp_path):
    found, said = inspect(command, write_waves(tmp_path / "waves"), "--limit", 0)
    assert found["task"] == "audio"
    assert found["train"]["values"]["sample rate, Hz"]["median"] == 8000
    longest = max(found[part]["values"]["seconds"]["max"] for part in ("train", "val"))
    assert longest == pytest.approx(0.5)
    assert "recordings" in said


def test_a_table_of_series(command, tmp_path):
    found, said = inspect(command, write_series(tmp_path / "series"), "--set", "steps=24",
                          "--set", "horizon=8")  # fmt: skip
    assert found["task"] == "forecasting"
    assert found["train"]["samples"] == 360 - 24 - 8 + 1
    assert "25.00" in said  # gaps of column b in percent
    assert "2020-01-01 00:00:00" in said


def test_boxes_shapes_and_frames(command, tmp_path):
    for name in ("a", "b"):
        for clip in "12345":
            folder = tmp_path / "clips" / name / clip
            folder.mkdir(parents=True)
            for t in range(4):
                Image.new("RGB", (20, 10)).save(folder / f"{t}.png")
    found, _ = inspect(command, tmp_path / "clips")
    assert (found["task"], found["train"]["values"]["frames"]["max"]) == ("video", 4)
    done = command("inspect", "shapes", "--limit", 5)
    assert done.exit_code == 0, done.output
    assert "object, % of the image" in done.stdout


def test_folders_that_no_task_recognizes_are_one_sentence(command, tmp_path):
    done = command("inspect", tmp_path)
    assert done.exit_code == 2
    assert "is not recognized as data of any task" in done.stderr
