"""Damaged annotations, recordings, tables and clouds: a sample, or one sentence, never a traceback.

Images and tar shards are damaged in test_reading_images.py and test_shards.py.
"""

from __future__ import annotations

import json
import random
import shutil
import warnings
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewide.data.audio import open_audio
from seewide.data.coco import category_names, open_coco, read_json
from seewide.data.csv_labels import open_csv
from seewide.data.masks import open_masks
from seewide.data.points import open_points
from seewide.data.series import open_series
from seewide.data.voc import open_voc
from seewide.data.yolo import class_names, open_yolo
from seewide.errors import InputError

TOKENS = ["-1", "0", "1e999", "nan", "null", "", "99999999999999999999", "[]", "{}", '"x"', "\x00",
          "é", "[" * 3000, ",", "\n", "../x", "true", "<", "&bad;"]  # fmt: skip


def images(folder: Path, names: list[str], mode: str = "RGB") -> None:
    folder.mkdir(parents=True)
    for index, name in enumerate(names):
        Image.new(mode, (20, 16), index if mode == "L" else (index, 9, 9)).save(folder / name)


def make_coco(folder: Path) -> None:
    images(folder / "images", ["a.png", "b.png"])
    square = [[2, 2, 9, 2, 9, 9]]
    content = {
        "images": [{"id": i, "file_name": n, "height": 16, "width": 20}
                   for i, n in enumerate(["a.png", "b.png"])],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": i + 1, "bbox": [2, 2, 7, 7], "iscrowd": 0,
             "segmentation": square} for i in (0, 1)
        ],
    }  # fmt: skip
    (folder / "train.json").write_text(json.dumps(content))


def read_coco(folder: Path) -> list:
    path = folder / "train.json"
    return [open_coco(path, category_names(path, read_json(path)))]


def make_yolo(folder: Path) -> None:
    images(folder / "images", ["a.png", "b.png"])
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n1 0.3 0.3 0.1 0.2\n")
    (folder / "labels" / "b.txt").write_text("")
    (folder / "classes.txt").write_text("cat\ndog\n")


def make_voc(folder: Path) -> None:
    images(folder / "JPEGImages", ["a.jpg", "b.jpg"])
    (folder / "Annotations").mkdir()
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    for name in "ab":
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>20</width><height>16</height>"
            "<depth>3</depth></size><object><name>cat</name><difficult>0</difficult><bndbox>"
            "<xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
            "</annotation>"
        )


def make_masks(folder: Path) -> None:
    names = [f"{i}.png" for i in range(6)]
    images(folder / "images", names)
    images(folder / "masks", names, "L")
    (folder / "classes.txt").write_text("\n".join("abcdef"))


def make_audio(folder: Path) -> None:
    for name in ("low", "high"):
        (folder / name).mkdir(parents=True)
        for index in range(5):
            with wave.open(str(folder / name / f"{index}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8000)
                file.writeframes(np.arange(400, dtype=np.int16).tobytes())


def make_series(folder: Path) -> None:
    rows = [f"2020-01-{1 + i // 24:02} {i % 24:02}:00:00,{i % 7},{i * 0.5}" for i in range(60)]
    (folder / "a.csv").write_text("\n".join(["date,x,y", *rows]) + "\n")


def make_points(folder: Path) -> None:
    cube = "OFF\n4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.off").write_text(cube)
        (folder / name / "2.xyz").write_text("0 0 0\n1 2 3\n4 5 6\n")
        np.save(folder / name / "3.npy", np.random.default_rng(0).random((9, 3), np.float32))


def make_arrays(folder: Path) -> None:
    clouds = np.random.default_rng(0).random((6, 9, 3), np.float32)
    for name in ("train", "test"):
        labels, classes = np.arange(6) % 2, np.array(["a", "b"])
        np.savez(folder / f"{name}.npz", points=clouds, labels=labels, class_names=classes)


def make_csv(folder: Path) -> None:
    images(folder / "images", ["a.png", "b.png", "c.png", "d.png"])
    rows = [f"images/{n}.png,{'cat' if n < 'c' else 'dog'},train" for n in "abcd"]
    (folder / "labels.csv").write_text("\n".join(["image,label,split", *rows]) + "\n")


VOC_LIST = Path("ImageSets/Main/train.txt")

# What makes a valid folder, what opens it, and the files that are damaged.
READERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], list], str]] = {
    "coco": (make_coco, read_coco, "*.json"),
    "yolo": (make_yolo, lambda f: [open_yolo(f / "images", class_names(f))], "**/*.txt"),
    "voc": (make_voc, lambda f: [open_voc(f / VOC_LIST)[0]], "Annotations/*"),
    "masks": (make_masks, lambda f: [open_masks(f).train, open_masks(f).val], "**/*.*"),
    "audio": (make_audio, lambda f: [open_audio(f).train, open_audio(f).val], "**/*.wav"),
    "series": (make_series, lambda f: [open_series(f).table.values_TM], "*.csv"),
    "points": (make_points, lambda f: [open_points(f).train, open_points(f).val], "*/*"),
    "point arrays": (make_arrays, lambda f: [open_points(f).train], "*.npz"),
    "csv": (make_csv, lambda f: [open_csv(str(f / "labels.csv"))[2]], "*.csv"),
}


def damage(content: bytes, chance: random.Random) -> bytes:
    """Bits flipped, bytes cut out or doubled, or a word replaced by another one."""
    if not content:
        return chance.choice(TOKENS).encode()
    start = chance.randrange(len(content))
    end = min(len(content), start + chance.choice([1, 2, 8, 50]))
    kind = chance.choice(["flip", "cut", "end", "double", "word", "word", "word"])
    if kind == "flip":
        return content[:start] + bytes([content[start] ^ 1 << chance.randrange(8)]) + \
            content[start + 1 :]  # fmt: skip
    if kind == "cut":
        return content[:start] + content[end:]
    if kind == "end":
        return content[:start]
    if kind == "double":
        return content[:end] + content[start:]
    ends = b" ,\n<>:[]{}"
    while start > 0 and content[start - 1] not in ends and end - start < 40:
        start -= 1
    while end < len(content) and content[end] not in ends and end - start < 40:
        end += 1
    return content[:start] + chance.choice(TOKENS).encode() + content[end:]


def check_reader(folder: Path, name: str, seeds: range) -> None:
    make, read, pattern = READERS[name]
    sound = folder / "sound"
    sound.mkdir()
    make(sound)
    assert all(len(samples) for samples in read(sound))
    refused = 0
    for seed in seeds:
        chance, broken = random.Random(f"{name} {seed}"), folder / "broken"
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(sound, broken)
        victim = chance.choice(sorted(p for p in broken.glob(pattern) if p.is_file()))
        victim.write_bytes(damage(victim.read_bytes(), chance))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for samples in read(broken):
                    for index in range(min(len(samples), 12)):
                        _ = samples[index]
        except InputError as error:
            sentence = str(error)
        except Exception as error:
            raise AssertionError(
                f"{name} {seed}, {victim.name}: {type(error).__name__}: {error}; "
                f"{victim.read_bytes()[:300]!r}"
            ) from error
        else:
            continue
        refused += 1
        assert "\n" not in sentence, f"{name} {seed}: {sentence}"
    assert refused


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(tmp_path, name):
    check_reader(tmp_path, name, range(12))


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_hundred_damaged_files(tmp_path, name):
    check_reader(tmp_path, name, range(12, 112))
