"""`seewide erf`, `seewide analyze` and `seewide report`: what a network sees."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seewide.cli._app import ImageSize
from seewide.errors import InputError, unknown, write_atomically

if TYPE_CHECKING:
    from seewide.analysis.comparison import Progress, Subject

Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="Run folders, or models of seewide or timm."),
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Models by name get random weights, seed 0.")
]
Photographs = Annotated[Path | None, typer.Option(metavar="DIR", help="A folder of pictures.")]


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
    paths = list_pictures(_needed(data, "photographs"), plan.images)
    subjects = [_subject(name, None, random_weights) for name in models]
    console = make_console()
    fields, numbers = {}, {}
    shares = [f"{t:.0%}" for t in THRESHOLDS]
    table = make_table(
        "", "network", *shares, "50% linear", "Gaussian %", "theory", left=["network", "theory"]
    )
    with _bars(console) as progress:
        for subject in subjects:
            step = progress(subject.name, len(paths))
            pictures = _each(stream(paths, plan.side, subject.mean, subject.std), step)
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


WHATS = ("cost", "shape", "corruptions", "imagenet-a", "imagenet-r", "imagenet-sketch")


def analyze(
    what: Annotated[str, typer.Argument(metavar="|".join(WHATS), help="What to measure.")],
    models: Models,
    data: Photographs = None,
    image_size: ImageSize = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="So many pictures. Default: all.")
    ] = None,
    random_weights: RandomWeights = False,
) -> None:
    """Measure one thing of some networks, as a table.

    \b
    seewide analyze cost unireplknet_t pelk_t --image-size 384
    seewide analyze shape unireplknet_t.in1k --data cue_conflict
    seewide analyze corruptions runs/unireplknet_a-flowers --data flowers/val
    seewide analyze imagenet-a unireplknet_t.in1k --data imagenet-a

    cost: by stage and kind of layer, any picture size, no data. shape: decisions for shape against
    texture. corruptions: ImageNet-C's fifteen at five severities, made on the fly, and mCE. The
    others: error among the classes of that set, in folders named by WordNet ids.
    """
    from seewide.analysis.split import split_cost
    from seewide.train.console import make_console, make_table

    if what not in WHATS:
        raise unknown("measurement", what, WHATS)
    console = make_console()
    subjects = [_subject(m, image_size, random_weights or what == "cost") for m in models]
    if what == "cost":
        for s in subjects:
            split = split_cost(s.model, (1, 3, s.side, s.side))
            table = make_table(
                f"{s.name} at {s.side} px", "stage", "kind", "M parameters", "M multiply-adds",
                "distinct", "M activations", left=["stage", "kind"],
            )  # fmt: skip
            total = split.total
            last = ("all", "", total.parameters, total.macs, total.distinct_macs, total.activations)
            for stage, kind, *values in [*split.rows(), last]:
                table.add_row(stage, kind, *(f"{value / 1e6:.3f}" for value in values))
            console.print(table)
        return
    folder = _needed(data, "pictures")
    with _bars(console) as progress:
        for s in subjects:
            table = _measured(what, s, folder, images, progress)
            console.print(table)


def _measured(what: str, s: Subject, folder: Path, images: int | None, progress: Progress):
    """The table of one network."""
    import torch

    from seewide.analysis.images import open_picture
    from seewide.analysis.robustness import (
        corruption_errors,
        list_labelled,
        subset_error,
        subset_indices,
    )
    from seewide.analysis.shape_bias import decide, list_conflicts, shape_bias
    from seewide.train.console import make_table

    model = s.model.eval()
    if what == "shape":
        conflicts = list_conflicts(folder)[:images]
        step, decisions = progress(s.name, len(conflicts)), []
        for conflict in conflicts:
            with torch.inference_mode():
                decisions += decide(model(s.prepare(s.crop(open_picture(conflict.path)))[None]))
            step()
        result = shape_bias(decisions, [c.shape for c in conflicts], [c.texture for c in conflicts])
        columns = ("class", "shape", "texture", "neither", "bias %", "95% interval")
        table = make_table(f"Shape bias of {s.name}: {result}", *columns, left=["class"])
        for name, *counts, bias, low, high in result.rows():
            interval = f"{100 * low:.1f} to {100 * high:.1f}"
            table.add_row(name, *map(str, counts), f"{100 * bias:.1f}", interval)
    elif what == "corruptions":
        pictures = _classified(folder, s)
        pictures = pictures[:: max(len(pictures) // (images or len(pictures)), 1)][:images]
        result = corruption_errors(
            model, pictures, s.crop, s.prepare, progress=progress(s.name, 76 * len(pictures))
        )
        title = f"{s.name}, {len(pictures)} pictures: mCE {result.mce:.1f}%, clean error "
        table = make_table(
            title + f"{result.clean:.1f}%", "corruption", *"12345", "mean", "CE",
            left=["corruption"],
        )  # fmt: skip
        for name, *values in result.rows():
            table.add_row(name.replace("_", " "), *(f"{value:.1f}" for value in values))
    else:
        pictures = list_labelled(folder)
        pictures = pictures[:: max(len(pictures) // (images or len(pictures)), 1)][:images]
        among = subset_indices(what)
        error = subset_error(
            model, pictures, lambda picture: s.prepare(s.crop(picture)), among,
            progress=progress(s.name, len(pictures)),
        )  # fmt: skip
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
    ] = 20,
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

    folder = _needed(data, "photographs")
    found = len(list_pictures(folder))
    photographs = list_pictures(folder, min(images, found))
    conflicts = list_conflicts(cue_conflict) if cue_conflict else []
    known = [(path, path.parent.name) for path in list_pictures(folder, min(labelled, found) or 1)]
    subjects = [_subject(name, image_size, random_weights) for name in models]
    console = make_console()
    with _bars(console) as progress:
        page = Comparison(
            subjects, out, photographs, side, conflicts, known if labelled else [], progress
        ).write()
    console.print(f"written: {page}", markup=False, soft_wrap=True)


def _needed(data: Path | None, what: str) -> Path:
    if data is None:
        raise InputError(f"--data is a folder of {what}")
    return data


def _subject(target: str, image_size: int | None, random_weights: bool) -> Subject:
    """A run, or a model by name: with its published weights, or with random ones."""
    import torch

    from seewide.analysis.comparison import Subject
    from seewide.train.build import build_model, mean_and_std
    from seewide.train.evaluate import load_target

    path = Path(target)
    is_file = path.exists() or "/" in target or path.suffix == ".safetensors"
    if random_weights and not is_file:
        torch.manual_seed(0)
        model = build_model(target, None, image_size or 224)
        side = image_size or model.pretrained_cfg["input_size"][-1]
        mean, std = mean_and_std(model)
        return Subject(target, model.eval(), side, mean=mean, std=std)
    model, info = load_target(target, image_size)
    metrics = []
    if (path / "metrics.jsonl").is_file():
        metrics = [json.loads(line) for line in (path / "metrics.jsonl").open(encoding="utf-8")]
    return Subject(
        path.name if is_file else target, model.eval(), info.image_size,
        info.crop_pct, info.mean, info.std,
        trained=True, class_names=info.class_names, metrics=metrics,
    )  # fmt: skip


def _classified(folder: Path, s: Subject) -> list[tuple[Path, int]]:
    """(file, class) of pictures whose folders are named by the network's classes or WordNet ids."""
    from seewide.analysis.images import list_pictures
    from seewide.analysis.robustness import list_labelled

    places = {name: i for i, name in enumerate(s.class_names)}
    paths = list_pictures(folder)
    if all(path.parent.name in places for path in paths):
        return [(path, places[path.parent.name]) for path in paths]
    return list_labelled(folder)


@contextmanager
def _bars(console) -> Iterator[Callable[[str, int], Callable[[], object]]]:
    """progress(what, steps) shows one more bar, and returns what advances it."""
    from functools import partial

    from seewide.train.console import make_progress

    with make_progress(console) as progress:

        def start(what: str, steps: int) -> Callable[[], object]:
            bar = progress.add_task(what, total=steps, note="")
            return partial(progress.advance, bar)

        yield start


def _each(items, step: Callable[[], object]):
    for item in items:
        step()
        yield item
