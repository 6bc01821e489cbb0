"""Data for point-cloud classification: what `--data` names, and how each layout is opened.

Layouts: `train.npz` and `test.npz` with `points` (N, P, 3), or `points_q` in 1/127, `labels` and
`class_names`; HDF5 files of ModelNet40 (`ply_data_train*.h5`) and ScanObjectNN
(`training_*.h5`, `test_*.h5`) with `data` and `label`; text clouds of ModelNet40
(`<class>/<name>.txt` with `modelnet40_train.txt`, `modelnet40_test.txt`); one folder per class of
`.off`, `.ply`, `.xyz`, `.txt` or `.npy` files, with or without train/ and test/ above or below.

No pickles are read: `.dat` files and object arrays are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from seewide.errors import InputError, require

from .folders import HELD_OUT_NAMES, find_split_folders
from .labels import HELD_OUT_IN_WORDS, hold_out
from .samples import Sample, Samples
from .series import load_array

SUFFIXES = (".off", ".ply", ".xyz", ".txt", ".npy")
SURFACE_POINTS = 2048  # drawn from the faces of a mesh


class CloudSamples(Samples):
    """`{"points": float32 (P, 3), "label": class index}`, from an array or from files.

    Args:
        clouds: (N, P, 3), or paths.
        labels: (N,) class indices.
        names: what identifies each cloud.
    """

    def __init__(
        self, clouds: np.ndarray | Sequence[Path], labels: np.ndarray, names: Sequence[str]
    ) -> None:
        self.clouds, self.labels, self._names = clouds, np.asarray(labels, np.int64), list(names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        cloud = self.clouds[index]
        if isinstance(cloud, Path):
            points = read_cloud(cloud)
        else:
            points = check_cloud(np.asarray(cloud, np.float32), self._names[index])
        return {"points": points, "label": int(self.labels[index])}

    def names(self) -> Iterable[str]:
        return self._names


@dataclass(frozen=True)
class CloudData:
    """Labelled clouds; see `seewide.data.audio.AudioData` for the attributes."""

    name: str
    class_names: tuple[str, ...]
    train: Samples
    val: Samples
    held_out: str
    in_memory: bool


def check_cloud(points: np.ndarray, name: str) -> np.ndarray:
    """The cloud, (P, 3).

    Raises:
        InputError: another shape, no points, NaN, or all points equal.
    """
    if points.ndim != 2 or points.shape[1] < 3 or not len(points):
        raise InputError(f"{name} is no cloud of points (P, 3), its shape is {points.shape}")
    points = points[:, :3]
    if not np.isfinite(points).all():
        raise InputError(f"{name} has coordinates that are NaN or infinite")
    if (points == points[0]).all():
        raise InputError(f"{name} has {len(points)} points, which are all equal")
    return points


def read_cloud(path: Path) -> np.ndarray:
    """The points of a file, float32 (P, 3); of a mesh of faces, points drawn from its surface.

    Raises:
        InputError: no such file, an unknown kind, a damaged file, or as `check_cloud`.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return check_cloud(np.asarray(load_array(path), np.float32), str(path))
    if suffix in (".txt", ".xyz", ".pts"):
        try:
            text = path.read_text().replace(",", " ")
            rows = [line.split() for line in text.splitlines() if line.strip()]
            points = np.array([[float(cell) for cell in row[:3]] for row in rows], np.float32)
        except (ValueError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is no list of coordinates: {error}") from None
        return check_cloud(points, str(path))
    if suffix == ".off":
        return check_cloud(_surface(*_read_off(path)), str(path))
    if suffix in (".ply", ".obj", ".glb", ".stl"):
        return check_cloud(_by_trimesh(path), str(path))
    if suffix in (".dat", ".pkl", ".pickle"):
        raise InputError(f"{path} is a pickle, which could run code; convert it to .npz or .npy")
    raise InputError(f"{path} is no point cloud; known are {', '.join(SUFFIXES)}, .obj and .glb")


def _read_off(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles; of larger faces the first three corners, fanned."""
    try:
        words = path.read_text().split()
        if not words or not words[0].startswith("OFF"):
            raise ValueError("it does not begin with OFF")
        # Some files of ModelNet40 have the counts right behind the letters.
        rest = [words[0][3:], *words[1:]] if len(words[0]) > 3 else words[1:]
        vertices, faces = int(rest[0]), int(rest[1])
        end = 3 + 3 * vertices
        points = np.array(rest[3:end], np.float32).reshape(vertices, 3)
        triangles, at = [], end
        for _ in range(faces):
            corners = [int(word) for word in rest[at + 1 : at + 1 + int(rest[at])]]
            triangles += [(corners[0], *pair) for pair in pairwise(corners[1:])]
            at += 1 + int(rest[at])
        found = np.array(triangles, np.int64).reshape(-1, 3)
        if len(found) and not (found.min() >= 0 and found.max() < vertices):
            raise ValueError("a face names a vertex that is not there")
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is a damaged OFF file: {error}") from None
    return points, found


def _surface(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Points drawn evenly from the triangles, the same at every call; the vertices without any."""
    if not len(triangles):
        return points
    a, b, c = (points[triangles[:, i]].astype(np.float64) for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not area.sum() > 0:
        return points
    random = np.random.default_rng(0)
    face = random.choice(len(area), SURFACE_POINTS, p=area / area.sum())
    u, v = random.random((2, SURFACE_POINTS, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return (a[face] + u * (b - a)[face] + v * (c - a)[face]).astype(np.float32)


def _by_trimesh(path: Path) -> np.ndarray:
    trimesh = require("trimesh", extra="points")
    try:
        mesh = trimesh.load(path)
        if hasattr(mesh, "to_geometry"):  # a scene
            mesh = mesh.to_geometry()
        points = np.asarray(mesh.vertices, np.float32)
        faces = np.asarray(getattr(mesh, "faces", np.zeros((0, 3))), np.int64)
    except Exception as error:  # trimesh raises what its readers raise
        raise InputError(f"{path} cannot be read as a mesh or cloud: {error}") from None
    return _surface(points, faces)


def describe_points(data: str) -> str | None:
    """What there is at `data` for point-cloud classification, in words; None if nothing is."""
    folder = Path(os.path.expanduser(data))
    if not folder.is_dir():
        return None
    if _npz_files(folder):
        return "arrays of point clouds"
    if list(folder.glob("*.h5")):
        return "HDF5 files of point clouds"
    classes = [entry for entry in _entries(folder) if any(map(_holds_clouds, _levels(entry)))]
    return f"{len(classes)} folders of point clouds" if len(classes) > 1 else None


def _levels(folder: Path) -> list[Path]:
    """The folder and those in it, as the classes of a split."""
    return [folder, *_entries(folder)]


def _holds_clouds(folder: Path) -> bool:
    """Whether the first file of a known kind is a cloud; text could be anything else too."""
    first = next(iter(_files(folder)), None)
    if first is None or first.suffix.lower() != ".txt":
        return first is not None
    with open(first, errors="replace") as file:
        cells = file.readline().replace(",", " ").split()
    try:
        return len([float(cell) for cell in cells]) >= 3
    except ValueError:
        return False


def open_points(data: str | Path) -> CloudData:
    """Clouds to train on and held-out ones.

    Raises:
        InputError: no such data, one that would have to be unpickled, or too few classes.
    """
    folder = Path(os.path.expanduser(data))
    if not folder.is_dir():
        raise InputError(f"there is no folder {data}; point clouds lie in a folder")
    folder = folder.resolve()
    if pair := _npz_files(folder):
        train, names = _npz(pair[0])
        val, others = _npz(pair[1])
        if names != others:
            raise InputError(f"{pair[0]} and {pair[1]} have different class_names")
        words = f"{pair[1].name} of the folder"
        return CloudData(str(folder), names, train, val, words, True)
    if files := sorted(folder.glob("*.h5")):
        return _hdf5(folder, files)
    pickles = [p.name for p in folder.iterdir() if p.suffix in (".dat", ".pkl")]
    if pickles:
        raise InputError(
            f"{folder / pickles[0]} is a pickle, which could run code; convert it to .npz"
        )
    return _folders(folder)


def _npz_files(folder: Path) -> tuple[Path, Path] | None:
    held = next((p for n in HELD_OUT_NAMES if (p := folder / f"{n}.npz").is_file()), None)
    train = folder / "train.npz"
    return (train, held) if train.is_file() and held else None


def _npz(path: Path) -> tuple[CloudSamples, tuple[str, ...]]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            if "points_q" in arrays:
                points = arrays["points_q"].astype(np.float32) / 127
            else:
                points = arrays["points"].astype(np.float32)
            labels = arrays["labels"]
            names = tuple(map(str, arrays["class_names"]))
    except KeyError as error:
        raise InputError(f"{path} lacks an array: {error.args[0]}") from None
    except Exception as error:  # parsers of zip archives and headers fail in any way
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read: {reason}") from None
    if points.ndim != 3 or points.shape[2] != 3 or len(points) != len(labels):
        raise InputError(f"{path} has points {points.shape} and {len(labels)} labels")
    return CloudSamples(points, labels, [f"{path.name}:{i}" for i in range(len(labels))]), names


def _hdf5(folder: Path, files: Sequence[Path]) -> CloudData:
    h5py = require("h5py", extra="points")
    parts: dict[bool, list[tuple[np.ndarray, np.ndarray, str]]] = {True: [], False: []}
    for path in files:
        held = "test" in path.stem
        if not held and "train" not in path.stem:
            continue
        try:
            with h5py.File(path, "r") as file:
                data, label = file["data"][:].astype(np.float32), file["label"][:].reshape(-1)
        except (OSError, KeyError) as error:
            raise InputError(f"{path} cannot be read: {error}") from None
        parts[held].append((data[..., :3], label.astype(np.int64), path.name))
    if not parts[False] or not parts[True]:
        raise InputError(f"{folder} needs HDF5 files named train and test")
    names_file = folder / "shape_names.txt"
    count = 1 + max(int(label.max()) for part in parts.values() for _, label, _ in part)
    names = tuple(names_file.read_text().split()) if names_file.is_file() else ()
    names = names if len(names) == count else tuple(str(i) for i in range(count))

    def samples(held: bool) -> CloudSamples:
        clouds = np.concatenate([data for data, _, _ in parts[held]])
        labels = np.concatenate([label for _, label, _ in parts[held]])
        titles = [f"{name}:{i}" for data, _, name in parts[held] for i in range(len(data))]
        return CloudSamples(clouds, labels, titles)

    return CloudData(str(folder), names, samples(False), samples(True), "the test files", True)


def _entries(folder: Path) -> list[Path]:
    return sorted(e for e in folder.iterdir() if e.is_dir() and not e.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def _folders(folder: Path) -> CloudData:
    """Splits above the classes, below them, by lists, or none."""
    splits = find_split_folders(folder)
    lists = {
        part: next(iter(sorted(folder.glob(f"modelnet*_{part}.txt"))), None)
        for part in ("train", "test")
    }
    classes = _entries(splits[0] if splits else folder)
    names = tuple(entry.name for entry in classes)
    if len(names) < 2:
        raise InputError(f"{folder} has no two folders of point clouds ({', '.join(SUFFIXES)})")

    def samples(of: Sequence[Sequence[Path]]) -> CloudSamples:
        paths = [path for members in of for path in members]
        labels = np.repeat(np.arange(len(of)), [len(members) for members in of])
        return CloudSamples(paths, labels, [os.path.relpath(path, folder) for path in paths])

    if splits:
        train, val = (samples([_files(s / n) if (s / n).is_dir() else [] for n in names])
                      for s in splits)  # fmt: skip
        return CloudData(str(folder), names, train, val, f"{splits[1].name}/ of the folder", False)
    if all((entry / "train").is_dir() and (entry / "test").is_dir() for entry in classes):
        train, val = (samples([_files(e / part) for e in classes]) for part in ("train", "test"))
        return CloudData(str(folder), names, train, val, "test/ of every class", False)
    if lists["train"] and lists["test"]:
        listed = {part: set(path.read_text().split()) for part, path in lists.items() if path}
        train, val = (
            samples([[p for p in _files(e) if p.stem in listed[part]] for e in classes])
            for part in ("train", "test")
        )
        return CloudData(str(folder), names, train, val, lists["test"].name, False)
    every = samples([_files(entry) for entry in classes])
    return CloudData(str(folder), names, *hold_out(every, names), HELD_OUT_IN_WORDS, False)
