"""A folder with everything that runs a classifier where neither torch nor this package is.

model.onnx, model.int8.onnx   for ONNX Runtime; int8 with calibration images
model.web.onnx                for onnxruntime-web in a browser
labels.txt, preprocess.json   class names, and how an image becomes the input
predict.py                    needs numpy, Pillow, onnxruntime
serve.py                      an HTTP API by LitServe
index.html                    classifies a dropped image in the browser, from a local server
triton/NAME/                  a model repository of the Triton inference server
README.md                     how to use each, and the measured table
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewide.errors import InputError
from seewide.export import export_model
from seewide.export.common import milliseconds
from seewide.export.int8 import quantize
from seewide.export.loading import load_exported

# Of the npm package onnxruntime-web, `dist/`; the page loads nothing from elsewhere.
WEB_FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


@dataclass(frozen=True)
class Row:
    """One model file of a bundle, as measured.

    Attributes:
        result: deviation from the trained model, or agreement with float32.
        milliseconds: CPU time of one image in ONNX Runtime with one thread, the least of 15 runs.
    """

    file: str
    megabytes: float
    result: str
    milliseconds: float

    def __str__(self) -> str:
        return f"| {self.file} | {self.megabytes:.1f} | {self.result} | {self.milliseconds:.2f} |"


def bundle(
    model: nn.Module,
    folder: str | os.PathLike,
    name: str,
    labels: Sequence[str],
    preprocess: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
    calibration: Sequence[Tensor] | None = None,
    images: Sequence[Tensor] | None = None,
    classes: Sequence[int] | None = None,
    for_runtime: str | None = "onnxruntime",
    onnxruntime_web: str | os.PathLike | None = None,
) -> list[Row]:
    """Write the folder; complete or not at all.

    Args:
        model: a classifier, fused or not.
        folder: is made, and must not exist or be empty.
        name: of the model, for the server: letters, digits, `_`, `-` and `.`.
        labels: a name per class.
        preprocess: `Preprocess.to_dict()`.
        metadata: for the model files.
        calibration: preprocessed images (C, H, W) of the training set, for the int8 file. It is
            left out, and the README says so, if its answers agree in less than 98%.
        images, classes: other images to compare int8 and float32 on, and their classes.
        for_runtime: see `export_model`.
        onnxruntime_web: the `dist` folder of the npm package, copied for the page to run without
            a network. Without it, the README says how to add it.

    Raises:
        InputError: a folder that is not empty, a name or labels that do not fit, or a model that
            cannot be exported.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder; name a new one")
    if not name or not all(c.isascii() and (c.isalnum() or c in "_-.") for c in name):
        raise InputError(f"a model name has letters, digits, '_', '-' and '.', got {name!r}")
    if any("\n" in label or "\r" in label for label in labels):
        raise InputError("a label is one line of text; one of them has a line break")
    size, channels = int(preprocess["image_size"]), len(preprocess["mean"])
    example = torch.randn(1, channels, size, size, generator=torch.Generator().manual_seed(0))
    web = None if onnxruntime_web is None else Path(onnxruntime_web)
    if web is not None and (missing := [f for f in WEB_FILES if not (web / f).is_file()]):
        raise InputError(f"{web} is no dist folder of onnxruntime-web: it has no {missing[0]}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
            inside = Path(scratch) / "bundle"
            inside.mkdir()
            rows, notes = _models(
                model, inside, example, labels, metadata, calibration, images, classes, for_runtime
            )
            _texts(inside, labels, preprocess)
            _triton(inside, name, example, labels)
            if web is not None:
                (inside / "ort").mkdir()
                for file in WEB_FILES:
                    shutil.copyfile(web / file, inside / "ort" / file)
            readme = _readme(name, rows, notes, size, web is not None)
            (inside / "README.md").write_text(readme, encoding="utf-8")
            os.replace(inside, folder)
    except OSError as error:
        raise InputError(f"could not write {folder}: {error.strerror or error}") from error
    return rows


def _models(
    model: nn.Module,
    folder: Path,
    example: Tensor,
    labels: Sequence[str],
    metadata: Mapping[str, str] | None,
    calibration: Sequence[Tensor] | None,
    images: Sequence[Tensor] | None,
    classes: Sequence[int] | None,
    for_runtime: str | None,
) -> tuple[list[Row], list[str]]:
    """Write the model files; what was measured, and what else the README says."""
    rows, notes = [], []
    facts = {"class_names": json.dumps(list(labels)), **(metadata or {})}

    def row(file: str, result: str) -> None:
        path = folder / file
        price = milliseconds(load_exported(path, threads=1), example)
        rows.append(Row(file, path.stat().st_size / 1e6, result, price))

    for file, runtime in (("model.onnx", for_runtime), ("model.web.onnx", "web")):
        report = export_model(model, folder / file, "onnx", example, facts, for_runtime=runtime)
        row(file, f"deviation {report.max_rel:.1e}")
    with torch.no_grad():
        found = load_exported(folder / "model.onnx")(example)[0]
    if found.ndim != 2 or found.shape[1] != len(labels):
        raise InputError(
            f"a bundle is of a classifier with a label per class: the model returns "
            f"{tuple(found.shape)}, and there are {len(labels)} labels"
        )
    if calibration is not None:
        # Of a plain graph: the sums of a Fourier transform have no scale that fits 8 bits.
        with tempfile.TemporaryDirectory() as scratch:
            plain = Path(scratch) / "plain.onnx"
            export_model(model, plain, "onnx", example, facts)
            try:
                int8 = quantize(plain, folder / "model.int8.onnx", calibration, images, classes)
                text = f"{100 * int8.agreement:.1f}% of {int8.images} answers as in float32"
                if int8.accuracy is not None:
                    before, after = (100 * value for value in int8.accuracy)
                    text += f"; accuracy {before:.1f}% in float32, {after:.1f}% in int8"
                row("model.int8.onnx", text)
            except InputError as error:
                notes.append(f"There is no int8 file: {error}.")
    return rows, notes


def _texts(folder: Path, labels: Sequence[str], preprocess: Mapping[str, Any]) -> None:
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    (folder / "preprocess.json").write_text(json.dumps(dict(preprocess), indent=2) + "\n")
    files = resources.files("seewide.export.bundled")
    for file in ("predict.py", "serve.py", "index.html"):
        (folder / file).write_text(
            files.joinpath(file).read_text(encoding="utf-8"), encoding="utf-8"
        )


def _triton(folder: Path, name: str, example: Tensor, labels: Sequence[str]) -> None:
    """A model repository for `tritonserver --model-repository triton`."""
    version = folder / "triton" / name / "1"
    version.mkdir(parents=True)
    shutil.copyfile(folder / "model.onnx", version / "model.onnx")
    shutil.copyfile(folder / "labels.txt", version.parent / "labels.txt")
    dims = ", ".join(str(size) for size in example.shape[1:])
    (version.parent / "config.pbtxt").write_text(
        f'name: "{name}"\n'
        'platform: "onnxruntime_onnx"\n'
        "max_batch_size: 64\n"
        f'input [ {{ name: "images", data_type: TYPE_FP32, dims: [ {dims} ] }} ]\n'
        f'output [ {{ name: "output", data_type: TYPE_FP32, dims: [ {len(labels)} ],'
        ' label_filename: "labels.txt" } ]\n'
        "dynamic_batching { }\n"
    )


def _readme(name: str, rows: list[Row], notes: list[str], size: int, has_web: bool) -> str:
    table = "\n".join(map(str, rows))
    web = ""
    if not has_web:
        files = " ".join(f"node_modules/onnxruntime-web/dist/{file}" for file in WEB_FILES)
        web = (
            "\nThe page needs three files of the npm package `onnxruntime-web` in the folder "
            f"`ort/`:\n\n    npm install onnxruntime-web && mkdir ort\n    cp {files} ort/\n"
        )
    return f"""# {name}

An image classifier, ready to run without PyTorch.

| file | MB | compared with the trained model | CPU ms per image |
| --- | --- | --- | --- |
{table}

CPU time of one image of {size} x {size} pixels in ONNX Runtime, one thread, the least of 15 runs.
{"".join(f"{note}{chr(10)}" for note in notes)}
**Python** (numpy, Pillow, onnxruntime): `python predict.py IMAGE...`

**HTTP** (`pip install litserve python-multipart onnxruntime pillow`): `python serve.py`, then
`curl -F image=@IMAGE http://127.0.0.1:8000/predict`

**Browser**: `python -m http.server`, then open http://127.0.0.1:8000/. Images stay on the machine.
The browser resizes images by its own filter, so probabilities may differ slightly.
{web}
**Triton**: `tritonserver --model-repository triton`
"""
