"""Which network becomes which file: `python -m benchmarks exports [NAME...]`.

One network of each family, with random weights, in every format of `seewide.export`: the largest
deviation of the file's outputs from the model's, relative to the largest output, as `export_model`
finds it by running the file again at several batch sizes (and sizes of images, where these are
free), or the sentence by which it is refused. The file is written after each row; rows
of networks and forms that a run does not measure stay.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
from rich.console import Console

from benchmarks.conditions import RESULTS, Settings, conditions, describe, read_csv, write_rows
from seewide.console import make_table
from seewide.errors import InputError, unknown
from seewide.export import SUFFIX, export_model
from seewide.testing import randomize

NETWORKS = ("unireplknet_a", "lsnet_t", "uniconvnet_a", "pelk_t", "slak_t", "replknet_31b")
# Title -> arguments of `export_model`.
FORMS: dict[str, dict[str, object]] = {
    "onnx": {"format": "onnx"},
    "onnx, free size": {"format": "onnx", "free_size": True},
    "onnx for onnxruntime": {"format": "onnx", "for_runtime": "onnxruntime"},
    "pt2": {"format": "pt2"},
    "openvino": {"format": "openvino"},
    "openvino_f16": {"format": "openvino_f16"},
    "executorch": {"format": "executorch"},
    "coreml": {"format": "coreml"},
    "aoti": {"format": "aoti"},
}
SIDE = 96
COLUMNS = ("network", "form", "deviation", "MB", "seconds", "sentence")


def measure(name: str, form: str, side: int = SIDE) -> tuple[str, ...]:
    """A line of COLUMNS."""
    torch.manual_seed(0)
    model = randomize(timm.create_model(name, num_classes=10)).eval()
    example = torch.randn(1, 3, side, side)
    options = FORMS[form]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{SUFFIX[str(options['format'])]}"
        try:
            report = export_model(model, path, example=example, **options)  # type: ignore[arg-type]
        except InputError as error:
            sentence = str(error).replace(folder, "")
            return name, form, "", "", "", sentence
    ran = "compared" not in report.notes
    return (
        name, form, f"{report.max_rel:.1e}" if ran else "", f"{report.size_bytes / 1e6:.1f}",
        f"{report.seconds:.0f}", "" if ran else "written; it does not run on this machine",
    )  # fmt: skip


def lines(names: list[str], forms: list[str]) -> Iterator[tuple[str, ...]]:
    for name in names:
        for form in forms:
            yield measure(name, form)


def run(names: list[str], settings: Settings, console: Console) -> None:
    """Export, print and write the file."""
    for name in names:
        if not timm.is_model(name):
            raise unknown("model", name, NETWORKS)
    names = names or list(NETWORKS[:1] if settings.quick else NETWORKS)
    forms = list(FORMS)[:1] if settings.quick else list(FORMS)
    label = f"exports-cpu-torch{torch.__version__.partition('+')[0]}"
    path = RESULTS / f"{label}.csv"
    before = [tuple(row.values()) for row in read_csv(path)] if path.is_file() else []
    found: list[tuple[str, ...]] = []
    for line in lines(names, forms):
        found.append(line)
        console.print("  ".join(line), markup=False, soft_wrap=True)
        if not settings.quick:
            facts = {**conditions(settings), "image": f"{SIDE} x {SIDE} pixels, random weights"}
            measured = {row[:2] for row in found}
            write_rows(label, facts, COLUMNS, [r for r in before if r[:2] not in measured] + found)
    table = make_table("", *COLUMNS, left=("network", "form", "sentence"))
    for line in found:
        table.add_row(*line)
    console.print(table)
    describe(settings, console)
