"""ONNX in int8: static quantization, calibrated on images, for processors without a GPU.

Activations are unsigned and weights signed 8-bit integers, one scale per output channel, written
as QuantizeLinear and DequantizeLinear around Conv, Gemm and MatMul; everything else stays in
float. Measured on UniRepLKNet-A (flowers, 644 images): 99.1% of the answers are those of float32,
at a quarter of the file size. Signed activations ran four times slower on AVX-512, and dynamic
quantization of convolutions eight times.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seewide.checkpoints import seal
from seewide.errors import InputError, require, write_atomically
from seewide.export.common import agreement, one_sentence, quiet
from seewide.export.onnx import add_metadata, metadata_of, open_session, runner

OPERATORS = ["Conv", "Gemm", "MatMul"]
LEAST_AGREEMENT = 0.98


@dataclass(frozen=True)
class Int8Report:
    """What quantization changed.

    Attributes:
        agreement: share of images (pixels, for maps) whose largest class is the one of float32.
        accuracy: before and after, in 0..1; None without labels.
    """

    path: Path
    agreement: float
    accuracy: tuple[float, float] | None
    size_bytes: int
    images: int

    def __str__(self) -> str:
        text = f"{self.path} (int8, {self.size_bytes / 1e6:.1f} MB): "
        text += f"{100 * self.agreement:.1f}% of {self.images} answers as in float32"
        if self.accuracy is not None:
            before, after = (100 * value for value in self.accuracy)
            text += f", accuracy {before:.1f}% before and {after:.1f}% after"
        return text


def quantize(
    source: Path,
    path: Path,
    calibration: Sequence[Tensor],
    images: Sequence[Tensor] | None = None,
    labels: Sequence[int] | None = None,
    least_agreement: float = LEAST_AGREEMENT,
) -> Int8Report:
    """Write an int8 version of an ONNX file of `export_model`.

    Args:
        source: the float32 file.
        path: ends in `.onnx`.
        calibration: preprocessed images (C, H, W), 100 or more that training has seen; their
            largest and smallest activations set the scales.
        images: other images to compare both files on; the calibration images if absent.
        labels: classes of `images`, for the accuracy before and after.
        least_agreement: share of equal answers below which the file is refused.

    Raises:
        InputError: no images, or less agreement; nothing is written then.
    """
    require("onnxruntime", extra="export")
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if len(calibration) == 0:
        raise InputError("int8 needs images to calibrate on, got none")
    images = calibration if images is None else images
    session = open_session(source)
    name = session.get_inputs()[0].name

    class Images(CalibrationDataReader):
        """One image at a time."""

        def __init__(self) -> None:
            self.rest = iter(calibration)

        def get_next(self) -> dict | None:
            image = next(self.rest, None)
            return None if image is None else {name: image[None].numpy()}

    reports: list[Int8Report] = []

    def write(scratch: Path) -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            one_sentence("int8"),
            quiet(),
        ):
            inferred = Path(folder) / "inferred.onnx"
            quant_pre_process(str(source), str(inferred), skip_symbolic_shape=True)
            quantize_static(
                str(inferred), str(scratch), Images(), quant_format=QuantFormat.QDQ,
                op_types_to_quantize=OPERATORS, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            )  # fmt: skip
        add_metadata(scratch, {**metadata_of(session), "precision": "int8"})
        seal(scratch)
        before, after = runner(session), runner(open_session(scratch))
        with torch.no_grad():
            wanted = [before(image[None])[0] for image in images]
            got = [after(image[None])[0] for image in images]
        share = agreement(got, wanted)
        if share < least_agreement:
            raise InputError(
                f"not exported: only {100 * share:.1f}% of the answers of the int8 file are those "
                f"of float32, at least {100 * least_agreement:.0f}% are asked for"
            )
        accuracy = None
        if labels is not None:
            right = [
                sum(int(y.argmax(1)) == int(label) for y, label in zip(side, labels, strict=True))
                for side in (wanted, got)
            ]
            accuracy = (right[0] / len(images), right[1] / len(images))
        reports.append(Int8Report(path, share, accuracy, scratch.stat().st_size, len(images)))

    if path.suffix != ".onnx":
        raise InputError(f"an int8 file ends in .onnx, got {path}")
    write_atomically(path, write)
    return reports[0]
