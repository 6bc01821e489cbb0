"""`seewide analyze`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from seewide.cli._parser import Parser, whole
from seewide.cli._subjects import classified, load_subjects, needed
from seewide.console import bars, print_table
from seewide.errors import unknown

if TYPE_CHECKING:
    from seewide.analysis.analyzed_model import AnalyzedModel, Progress

MEASUREMENTS = (
    "cost", "shape", "corruptions", "imagenet-c", "imagenet-a", "imagenet-r", "imagenet-sketch",
)  # fmt: skip
DETAILS = """
cost         parameters, multiply-adds and activations by stage and kind of layer, for any
             image size and without data
shape        decisions for shape against texture
corruptions  the fifteen corruptions of ImageNet-C in five severities, computed here, and mCE
imagenet-c   the published images, in folders CORRUPTION/SEVERITY/WNID
imagenet-a, imagenet-r, imagenet-sketch
             accuracy among the classes of the set, in folders named by WordNet ids

examples:
  seewide analyze cost unireplknet_t pelk_t --image-size 384
  seewide analyze shape unireplknet_t.in1k --data cue_conflict
  seewide analyze corruptions runs/unireplknet_a-flowers --data flowers/val
  seewide analyze imagenet-c unireplknet_t.in1k --data imagenet-c --images 100
"""


def arguments(parser: Parser) -> None:
    parser.add("what", "|".join(MEASUREMENTS), metavar="WHAT")
    parser.share("models", nargs="+")
    parser.share("--data", "--image-size")
    parser.add("--images", "Number of images (imagenet-c: per folder). Default: all.", whole(1))
    parser.share("--random-weights")


def run(arguments: Namespace) -> None:
    what = arguments.what
    if what not in MEASUREMENTS:
        raise unknown("measurement", what, MEASUREMENTS)
    if what == "cost":
        for subject in load_subjects(arguments, random_weights=True):
            _cost(subject)
        return
    folder = needed(arguments.data, "images")
    measure = {"shape": _shape, "corruptions": _corruptions, "imagenet-c": _imagenet_c}.get(what)
    tables = []
    with bars() as progress:
        for subject in load_subjects(arguments):
            subject.model.eval()
            if measure is None:
                tables.append(_subset(what, subject, folder, arguments.images, progress))
            else:
                tables.append(measure(subject, folder, arguments.images, progress))
    for title, columns, rows, caption in tables:
        print_table(title, columns, rows, caption)


def _cost(subject: AnalyzedModel) -> None:
    from seewide.analysis.breakdown import break_down_cost

    split = break_down_cost(subject.model, subject.shape)
    total = split.total
    last = ("all", "", total.parameters, total.macs, total.distinct_macs, total.activations)
    print_table(
        f"{subject.name} at {subject.image_size} px",
        ("stage", "kind", "M parameters", "M multiply-adds", "distinct", "M activations"),
        [
            (stage, kind, *(f"{value / 1e6:.3f}" for value in values))
            for stage, kind, *values in [*split.rows(), last]
        ],
    )


def _shape(subject: AnalyzedModel, folder: Path, images: int | None, progress: Progress) -> tuple:
    from seewide.analysis.robustness import take_evenly
    from seewide.analysis.shape_bias import list_cue_conflicts, measure_shape_bias

    conflicts = take_evenly(list_cue_conflicts(folder), images)
    step = progress(subject.name, len(conflicts))
    result = measure_shape_bias(subject.model, conflicts, subject.prepare, progress=step)
    rows = [
        (name, *counts, f"{100 * bias:.1f}", f"{100 * low:.1f} to {100 * high:.1f}")
        for name, *counts, bias, low, high in result.rows()
    ]
    columns = ("class", "shape", "texture", "neither", "bias %", "95% interval")
    return f"Shape bias of {subject.name}: {result}", columns, rows, ""


def _corruptions(
    subject: AnalyzedModel, folder: Path, images: int | None, progress: Progress
) -> tuple:
    from seewide.analysis.corruptions import available_corruptions
    from seewide.analysis.robustness import corruption_errors, take_evenly

    names, missing = available_corruptions()
    labelled = take_evenly(classified(folder, subject), images)
    step = progress(subject.name, (1 + 5 * len(names)) * len(labelled))
    result = corruption_errors(
        subject.model, labelled, subject.crop, subject.normalize, names, progress=step
    )
    title = f"{subject.name} (images: {len(labelled)}, clean error {result.clean:.1f}%)"
    return *_errors(title, result), missing or ""


def _imagenet_c(
    subject: AnalyzedModel, folder: Path, images: int | None, progress: Progress
) -> tuple:
    from seewide.analysis.robustness import imagenet_c_errors, list_imagenet_c

    result = imagenet_c_errors(
        subject.model,
        list_imagenet_c(folder),
        subject.resizing(),  # the published images are cropped already
        count=images,
        progress=progress,
    )
    return *_errors(subject.name, result), ""


def _errors(title: str, result) -> tuple:
    columns = ("corruption", *"12345", "mean", "CE")
    rows = [
        (name.replace("_", " "), *(f"{value:.1f}" for value in values))
        for name, *values in result.rows()
    ]
    return f"{title}: {result}", columns, rows


def _subset(
    what: str, subject: AnalyzedModel, folder: Path, images: int | None, progress: Progress
) -> tuple:
    from seewide.analysis.robustness import (
        list_labeled_images,
        subset_error,
        subset_indices,
        take_evenly,
    )

    labelled, among = take_evenly(list_labeled_images(folder), images), subset_indices(what)
    step = progress(subject.name, len(labelled))
    error = subset_error(subject.model, labelled, subject.prepare, among, progress=step)
    columns = ("model", "images", "classes", "top-1 %")
    return "", columns, [(subject.name, len(labelled), len(among), f"{100 - error:.2f}")], ""
