"""A model straight to an int8 file: exported in float32, calibrated on images, compared."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from seewide.errors import InputError, unknown
from seewide.export import openvino
from seewide.export.common import agreement, outputs, prepare
from seewide.export.files import size_of, write_several
from seewide.export.int8 import LEAST_AGREEMENT, Int8Report, quantize

INT8_SUFFIX = {"onnx_int8": ".onnx", "openvino_int8": ".xml"}
INT8_FORMATS = tuple(INT8_SUFFIX)


def export_int8(
    model: nn.Module,
    path: str | os.PathLike,
    format: str,
    calibration: Sequence[Tensor],
    metadata: Mapping[str, str] | None = None,
    images: Sequence[Tensor] | None = None,
    labels: Sequence[int] | None = None,
    family: str = "",
    least_agreement: float = LEAST_AGREEMENT,
) -> Int8Report:
    """Fuse `model` and write it with 8-bit weights and activations; `model` is not changed.

    Args:
        format: one of INT8_FORMATS.
        calibration: preprocessed images (C, H, W) of the training set; their activations set the
            scales.
        images: other images to compare the int8 file with float32 on; default: the calibration
            images.
        labels: classes of `images`, for the accuracy before and after.
        family: such as "unireplknet": which operators OpenVINO leaves in float, see
            `seewide.export.openvino.FLOAT_OPERATORS`; all that are listed if it is not there.
        least_agreement: share of equal answers below which the file is refused.

    Raises:
        InputError: an unknown format, no images, a model that cannot be exported, or less
            agreement; nothing is written then.
    """
    from seewide.export import export_model

    if format not in INT8_FORMATS:
        raise unknown("int8 format", format, INT8_FORMATS)
    path = Path(path)
    if path.suffix != INT8_SUFFIX[format]:
        raise InputError(f"a file of format {format} ends in {INT8_SUFFIX[format]}, got {path}")
    if len(calibration) == 0:
        raise InputError("int8 needs images to calibrate on, got none")
    example = calibration[0][None]
    if format == "onnx_int8":
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "float32.onnx"
            export_model(model, plain, "onnx", example, metadata)
            return quantize(plain, path, calibration, images, labels, least_agreement)
    properties = {**(metadata or {}), "precision": "int8"}
    prepared = prepare(model, example, properties)
    images = calibration if images is None else images
    found: list[Int8Report] = []

    def write(scratch: Path) -> None:
        run = openvino.write_int8(prepared, scratch, calibration, family)
        with torch.no_grad():
            wanted = [outputs(prepared.model(image[None]))[0] for image in images]
            got = [run(image[None])[0] for image in images]
        share = agreement(got, wanted)
        if share < least_agreement:
            raise InputError(
                f"not exported: only {100 * share:.1f}% of the answers of the int8 file are those "
                f"of float32, at least {100 * least_agreement:.0f}% are asked for"
            )
        accuracy = None if labels is None else (_correct(wanted, labels), _correct(got, labels))
        found.append(Int8Report(path, share, accuracy, 0, len(images)))

    write_several(path, write)
    report = found[0]
    return Int8Report(path, report.agreement, report.accuracy, size_of(path), report.images)


def _correct(logits: Sequence[Tensor], labels: Sequence[int]) -> float:
    right = sum(int(y.argmax(1)) == int(label) for y, label in zip(logits, labels, strict=True))
    return right / len(labels)
