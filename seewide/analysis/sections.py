"""Sections of a report: each measures something, draws it, and writes down what came out.

All take the report to write to, and the folder that keeps the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from seewide.analysis.cost import compare_throughput, count_cost
from seewide.analysis.erf import THRESHOLDS, Protocol, draw_erf, effective_receptive_field
from seewide.analysis.figures import draw_bars, draw_confusion, draw_samples
from seewide.analysis.report import Report
from seewide.numerics import deviation


@torch.no_grad()
def predictions(
    report: Report,
    folder: Path,
    model: nn.Module,
    x_NCHW: Tensor,
    y_N: Tensor,
    class_names: Sequence[str],
    images: Sequence[object],
    count: int = 40,
) -> float:
    """Which class is taken for which, and `count` images, mistakes first.

    Args:
        model: images -> (N, classes), in evaluation mode.
        images: the N images as numpy understands them, such as those of PIL.

    Returns:
        The share that is right, 0 to 1.
    """
    guess_N, classes = model(x_NCHW).argmax(1), len(class_names)
    right_N = guess_N == y_N
    share = right_N.double().mean().item()
    report.text(f"{right_N.sum()} of {len(y_N)} images are right: {share:.1%}.")
    confusion = torch.bincount(classes * y_N + guess_N, minlength=classes**2)
    report.figure(
        draw_confusion(confusion.view(classes, classes), class_names, folder / "confusion.png"),
        "Which class is taken for which.",
    )
    first = right_N.int().argsort(stable=True)[:count].tolist()
    report.figure(
        draw_samples(
            [images[i] for i in first],
            [f"{class_names[y_N[i]]} as {class_names[guess_N[i]]}" for i in first],
            folder / "samples.png",
            marked=[not right_N[i] for i in first],
        ),
        "The true class and what it was taken for; the mistakes come first, in orange.",
    )
    return share


@torch.no_grad()
def forms(report: Report, forms: Mapping[str, nn.Module], x_NCHW: Tensor) -> None:
    """What forms of one network cost, and that they compute the same; the first sets the norm."""
    outputs = {label: form(x_NCHW) for label, form in forms.items()}
    norm = next(iter(outputs.values()))
    rows = [
        [
            label,
            *str(count_cost(form)).split(", "),
            f"{(outputs[label].argmax(1) == norm.argmax(1)).sum()} of {len(x_NCHW)}",
            f"{deviation(outputs[label], norm):.1e}",
        ]
        for label, form in forms.items()
    ]
    report.table(["", "size", "work at 224 x 224", "same prediction", "deviation"], rows)
    report.text("Deviation: the largest difference of the outputs over the largest output.")


@torch.no_grad()
def speed(
    report: Report, folder: Path, calls: Mapping[str, Callable[[], object]], rounds: int = 15
) -> None:
    """The callables in turns in one run, without gradients, each compared with the first."""
    timings = compare_throughput(calls, rounds)
    columns = ["", "median", "half of the rounds", "against the first"]
    report.table(columns, timings.rows())
    image = draw_bars(
        {label: timings.bar(label) for label in calls},
        "milliseconds (less is better)",
        folder / "speed.png",
    )
    report.figure(image, "Medians; the thin line spans half of the rounds.")


def receptive_fields(
    report: Report,
    folder: Path,
    networks: Mapping[str, nn.Module],
    images: Tensor,
    protocol: str | Protocol | None = None,
) -> None:
    """The effective receptive fields of several networks on the same images, side by side."""
    fields = {
        title: effective_receptive_field(network, images, protocol, progress=True)
        for title, network in networks.items()
    }
    first = next(iter(fields.values()))
    H, W = first.contribution.shape
    report.text(
        f"How much the pixels of {first.images} images of {H} x {W} contribute to the centre of "
        f"the last feature map. The squares are the smallest around the centre that hold "
        f"{', '.join(f'{t:.0%}' for t in THRESHOLDS)} of it; the table says which share of the "
        f"image they cover."
    )
    report.table(
        ["", *(f"{threshold:.0%}" for threshold in THRESHOLDS)],
        [
            [title, *(f"{ratio:.1%}" for ratio in field.area_ratios().values())]
            for title, field in fields.items()
        ],
    )
    report.figure(draw_erf(fields, folder / "erf.png"), "The effective receptive field.")
