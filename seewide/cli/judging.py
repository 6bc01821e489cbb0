"""`seewide eval` and `seewide predict`: what a trained network says, and how often it is right."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from seewide.cli._app import INPUT_ERROR, Device, ImageSize, Workers, complain
from seewide.errors import write_atomically


def eval_(
    target: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="A run folder, or a model with weights.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="digits|DIR",
            help="Pictures to judge by. Default: those that the run held out.",
        ),
    ] = None,
    image_size: ImageSize = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 64,
    out: Annotated[Path | None, typer.Option(help="Where the files go. Default: RUN/eval.")] = None,
    workers: Workers = None,
    device: Device = None,
) -> None:
    """Score a run in training form and in merged form.

    \b
    seewide eval runs/unireplknet_a-digits
    seewide eval unireplknet_t.in1k --data imagenet

    Prints top-1, top-5 and a line per class; draws confusion.png and writes scores.json.
    """
    from seewide.analysis.pictures import draw_confusion
    from seewide.train.console import facts, make_console, make_table
    from seewide.train.evaluate import evaluate

    console = make_console()
    result = evaluate(
        target, data, image_size=image_size, batch_size=batch_size, workers=workers or 0,
        device=device or "auto", console=console,
    )  # fmt: skip
    info, merged = result.info, result.forms[-1]
    facts(
        console,
        model=f"{info.model}, {info.num_classes} classes, {info.image_size} px",
        data=f"{merged.scores.images} pictures: {result.origin}",
    )
    columns = "form", "M parameters", "top-1 %", "top-5 %", "images/s"
    table = make_table("", *columns, left=["form"])
    for form in result.forms:
        table.add_row(
            form.name, f"{form.parameters / 1e6:.2f}", f"{form.scores.top1:.2f}",
            f"{form.scores.top5:.2f}", f"{form.images_per_second:.0f}",
        )  # fmt: skip
    console.print()
    console.print(table)
    console.print(f"largest relative difference of the outputs {result.deviation:.1e}\n")
    console.print(_per_class(result))
    place = Path(target)
    if not place.is_dir():
        place = place.parent if place.is_file() else Path("runs", target)
    folder = out or place / "eval"
    picture = draw_confusion(merged.scores.confusion_KK, info.class_names, folder / "confusion.png")
    scores = {
        "model": info.model,
        "data": result.origin,
        "images": merged.scores.images,
        "deviation": result.deviation,
        "forms": {
            form.name: {name: getattr(form.scores, name) for name in ("top1", "top5", "loss")}
            for form in result.forms
        },
        "class_names": info.class_names,
        "confusion": merged.scores.confusion_KK.tolist(),
    }
    written = write_atomically(
        folder / "scores.json", lambda scratch: scratch.write_text(json.dumps(scores, indent=1))
    )
    console.print(f"written: {picture}, {written}", markup=False, soft_wrap=True)


def _per_class(result):
    """Table: found and right of each class, the merged form; the 30 worst where there are more."""
    from seewide.train.console import make_table

    scores = result.forms[-1].scores
    found, right = scores.recall_K.tolist(), scores.precision_K.tolist()
    counts = scores.confusion_KK.sum(1).tolist()
    classes = [index for index, count in enumerate(counts) if count]
    title = "Per class, merged form"
    if len(classes) > 30:
        classes = sorted(sorted(classes, key=found.__getitem__)[:30])
        title += " (the 30 worst)"
    table = make_table(title, "class", "pictures", "found %", "right when said %", left=["class"])
    for index in classes:
        name = result.info.class_names[index]
        said = "-" if math.isnan(right[index]) else f"{right[index]:.1f}"
        table.add_row(name, f"{counts[index]}", f"{found[index]:.1f}", said)
    return table


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Picture files.")],
    device: Device = None,
) -> None:
    """Name the five best classes of pictures.

    \b
    seewide predict runs/unireplknet_a-flowers rose.jpg tulip.jpg

    A broken picture is named and the rest go on; the exit code is then 2.
    """
    from seewide.train.console import make_console, make_table
    from seewide.train.predict import predict as predictions

    console = make_console()
    table = make_table("", "picture", *("1st", "2nd", "3rd", "4th", "5th"), left=["picture"])
    broken = []
    for prediction in predictions(run, images, device=device or "auto"):
        if prediction.error is not None:
            broken.append(prediction.error)
            continue
        cells = [f"{name} {100 * share:.1f}%" for name, share in prediction.best]
        table.add_row(str(prediction.picture), *cells, *[""] * (5 - len(cells)))
    if table.row_count:
        console.print(table)
    for sentence in broken:
        complain(sentence)
    if broken:
        raise typer.Exit(INPUT_ERROR)
