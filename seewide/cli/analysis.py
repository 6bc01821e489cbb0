"""`seewide erf`, `seewide analyze` and `seewide report`: what a network sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seewide.cli._app import ImageSize
from seewide.cli._subjects import (
    Models,
    Photographs,
    RandomWeights,
    bars,
    classified,
    load_subject,
    needed,
)
from seewide.errors import unknown, write_atomically

if TYPE_CHECKING:
    from rich.table import Table

    from seewide.analysis.subject import Progress, Subject


def erf(
    models: Models,
    data: Photographs = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="replknet: 50 pictures at 1024 px. uniconvnet: 1000 at 224."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Pictures, without a protocol.")] = 16,
    side: Annotated[int, typer.Option(min=16, help="Their pixels, without a protocol.")] = 512,
    layer: Annotated[
        str | None, typer.Option(help="A layer by name. Default: the last feature map.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 1,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="A fraction of the memory, twice the time.")
    ] = False,
    random_weights: RandomWeights = False,
    out: Annotated[Path, typer.Option(help="Picture; the numbers go beside it.")] = Path("erf.png"),
) -> None:
    """Measure and draw effective receptive fields.

    \b
    seewide erf unireplknet_t.in1k convnext_tiny --data photos --protocol replknet
    seewide erf unireplknet_a pelk_t --data photos --random-weights
    seewide erf runs/unireplknet_a-flowers --data flowers/val --layer stages.2

    Prints which percentage of the picture the smallest square with 20, 30, 50 and 99% of the
    scores covers, and how Gaussian the field is.
    """
    from seewide.analysis.erf import (
        PROTOCOLS,
        THRESHOLDS,
        Protocol,
        draw_erf,
        effective_receptive_field,
    )
    from seewide.analysis.gaussian import gaussian_shape
    from seewide.analysis.images import list_pictures, stream
    from seewide.analysis.theory import theoretical_receptive_field
    from seewide.train.console import make_console, make_table

    if protocol is not None and protocol not in PROTOCOLS:
        raise unknown("ERF protocol", protocol, PROTOCOLS)
    plan = PROTOCOLS[protocol] if protocol else Protocol(images, side)
    paths = list_pictures(needed(data, "photographs"), plan.images)
    subjects = [load_subject(name, None, random_weights) for name in models]
    console = make_console()
    fields, numbers = {}, {}
    shares = [f"{t:.0%}" for t in THRESHOLDS]
    table = make_table(
        "", "network", *shares, "50% linear", "Gaussian %", "theory", left=["network", "theory"]
    )
    with bars(console) as progress:
        for subject in subjects:
            step = progress(subject.name, len(paths))
            pictures = stream(paths, plan.side, subject.mean, subject.std, step)
            field = effective_receptive_field(
                subject.model, pictures, plan, layer=layer, batch=batch, recompute=recompute
            )
            shape = (1, 3, plan.side, plan.side)
            theory = theoretical_receptive_field(subject.model, shape, layer=layer)
            gaussian = gaussian_shape(field)
            linear = field.area_ratio(0.5, linear=True)
            ratios = field.area_ratios()
            table.add_row(
                subject.name, *(f"{100 * r:.1f}" for r in ratios.values()), f"{100 * linear:.2f}",
                f"{100 * gaussian.gaussianity:.1f}", str(theory),
            )  # fmt: skip
            fields[subject.name] = field
            numbers[subject.name] = {
                "images": field.images,
                "side": plan.side,
                "layer": layer,
                "area_ratio": {f"{t:g}": r for t, r in ratios.items()},
                "area_ratio_linear": {f"{t:g}": field.area_ratio(t, True) for t in THRESHOLDS},
                "gaussianity": gaussian.gaussianity,
                "sigma": gaussian.sigma,
                "monotonicity": gaussian.monotonicity,
                "theoretical": {
                    "size": theory.size, "sees_everything": theory.sees_everything
                },
            }  # fmt: skip
    console.print(table)
    picture = draw_erf(fields, out)
    text = json.dumps(numbers, indent=1)
    beside = write_atomically(out.with_suffix(".json"), lambda scratch: scratch.write_text(text))
    console.print(f"written: {picture}, {beside}", markup=False, soft_wrap=True)


WHATS = (
    "cost", "shape", "corruptions", "imagenet-c", "imagenet-a", "imagenet-r", "imagenet-sketch",
)  # fmt: skip


def analyze(
    what: Annotated[str, typer.Argument(metavar="|".join(WHATS), help="What to measure.")],
    models: Models,
    data: Photographs = None,
    image_size: ImageSize = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="So many pictures, of imagenet-c per folder. Default: all."),
    ] = None,
    random_weights: RandomWeights = False,
) -> None:
    """Measure one thing of some networks, as a table.

    \b
    seewide analyze cost unireplknet_t pelk_t --image-size 384
    seewide analyze shape unireplknet_t.in1k --data cue_conflict
    seewide analyze corruptions runs/unireplknet_a-flowers --data flowers/val
    seewide analyze imagenet-c unireplknet_t.in1k --data imagenet-c --images 100
    seewide analyze imagenet-a unireplknet_t.in1k --data imagenet-a

    cost: by stage and kind of layer, any picture size, no data. shape: decisions for shape against
    texture. corruptions: ImageNet-C's fifteen at five severities, made on the fly, and mCE.
    imagenet-c: the published pictures, in CORRUPTION/SEVERITY/WNID. The others: error among the
    classes of that set, in folders named by WordNet ids.
    """
    from seewide.train.console import make_console

    if what not in WHATS:
        raise unknown("measurement", what, WHATS)
    console = make_console()
    subjects = [load_subject(m, image_size, random_weights or what == "cost") for m in models]
    if what == "cost":
        for subject in subjects:
            console.print(_cost(subject))
        return
    folder = needed(data, "pictures")
    with bars(console) as progress:
        for subject in subjects:
            if what == "shape":
                table = _shape(subject, folder, images, progress)
            elif what in ("corruptions", "imagenet-c"):
                table = _corruptions(what, subject, folder, images, progress)
            else:
                table = _subset(what, subject, folder, images, progress)
            console.print(table)


def _cost(s: Subject) -> Table:
    from seewide.analysis.split import split_cost
    from seewide.train.console import make_table

    split = split_cost(s.model, s.shape)
    table = make_table(
        f"{s.name} at {s.side} px", "stage", "kind", "M parameters", "M multiply-adds",
        "distinct", "M activations", left=["stage", "kind"],
    )  # fmt: skip
    total = split.total
    last = ("all", "", total.parameters, total.macs, total.distinct_macs, total.activations)
    for stage, kind, *values in [*split.rows(), last]:
        table.add_row(stage, kind, *(f"{value / 1e6:.3f}" for value in values))
    return table


def _shape(s: Subject, folder: Path, images: int | None, progress: Progress) -> Table:
    from seewide.analysis.robustness import evenly
    from seewide.analysis.shape_bias import list_conflicts, measure_shape_bias
    from seewide.train.console import make_table

    conflicts = evenly(list_conflicts(folder), images)
    step = progress(s.name, len(conflicts))
    result = measure_shape_bias(s.model.eval(), conflicts, s.prepare, progress=step)
    columns = ("class", "shape", "texture", "neither", "bias %", "95% interval")
    table = make_table(f"Shape bias of {s.name}: {result}", *columns, left=["class"])
    for name, *counts, bias, low, high in result.rows():
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
        table.add_row(name, *map(str, counts), f"{100 * bias:.1f}", interval)
    return table


def _corruptions(
    what: str, s: Subject, folder: Path, images: int | None, progress: Progress
) -> Table:
    from seewide.analysis.corruptions import corruptions_here
    from seewide.analysis.images import normalized
    from seewide.analysis.robustness import (
        corruption_errors,
        evenly,
        imagenet_c_errors,
        list_imagenet_c,
    )
    from seewide.train.console import make_table

    model, title, reason = s.model.eval(), s.name, ""
    if what == "imagenet-c":
        result = imagenet_c_errors(
            model, list_imagenet_c(folder),
            lambda picture: normalized(picture, s.side, s.mean, s.std),  # they are cut already
            images=images, progress=progress,
        )  # fmt: skip
    else:
        names, reason = corruptions_here()
        pictures = evenly(classified(folder, s), images)
        steps = (1 + 5 * len(names)) * len(pictures)
        result = corruption_errors(
            model, pictures, s.crop, s.normalize, names, progress=progress(s.name, steps)
        )
        title += f" (pictures: {len(pictures)}, clean error {result.clean:.1f}%)"
    table = make_table(
        f"{title}: {result}", "corruption", *"12345", "mean", "CE", left=["corruption"]
    )
    table.caption = reason or None
    for name, *values in result.rows():
        table.add_row(name.replace("_", " "), *(f"{value:.1f}" for value in values))
    return table


def _subset(what: str, s: Subject, folder: Path, images: int | None, progress: Progress) -> Table:
    from seewide.analysis.robustness import evenly, list_labelled, subset_error, subset_indices
    from seewide.train.console import make_table

    pictures, among = evenly(list_labelled(folder), images), subset_indices(what)
    step = progress(s.name, len(pictures))
    error = subset_error(s.model.eval(), pictures, s.prepare, among, progress=step)
    table = make_table("", "network", "pictures", "classes", "right %", left=["network"])
    table.add_row(s.name, str(len(pictures)), str(len(among)), f"{100 - error:.2f}")
    return table


def report(
    models: Models,
    data: Photographs = None,
    cue_conflict: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pictures of Geirhos et al., for shape bias.")
    ] = None,
    image_size: ImageSize = None,
    images: Annotated[int, typer.Option(min=1, help="Photographs for receptive fields.")] = 8,
    side: Annotated[int, typer.Option(min=32, help="Their side in pixels.")] = 448,
    labelled: Annotated[
        int, typer.Option(min=0, help="Pictures for robustness, if DIR has the network's classes.")
    ] = 10,
    random_weights: RandomWeights = False,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("report"),
) -> None:
    """Compare networks on one page: cost, speed, receptive fields, shape bias, robustness.

    \b
    seewide report unireplknet_t.in1k convnext_tiny --data photos
    seewide report runs/a runs/b --data flowers/val --cue-conflict cue_conflict
    seewide report unireplknet_a pelk_t --data photos --random-weights

    Writes OUT/index.html, which needs no network; all figures also as PNG and SVG, their numbers as
    CSV and JSON. Shape bias and robustness need trained networks.
    """
    from seewide.analysis.comparison import Comparison
    from seewide.analysis.images import list_pictures
    from seewide.analysis.shape_bias import list_conflicts
    from seewide.train.console import make_console

    folder = needed(data, "photographs")
    found = len(list_pictures(folder))
    photographs = list_pictures(folder, min(images, found))
    conflicts = list_conflicts(cue_conflict) if cue_conflict else []
    known = [(path, path.parent.name) for path in list_pictures(folder, min(labelled, found) or 1)]
    subjects = [load_subject(name, image_size, random_weights) for name in models]
    console = make_console()
    with bars(console) as progress:
        page = Comparison(
            subjects, out, photographs, side, conflicts, known if labelled else [], progress
        ).write()
    console.print(f"written: {page}", markup=False, soft_wrap=True)
