"""`seewide eval`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._output import facts, say, show_results, show_table, write_csv, write_json
from seewide.cli._parser import Parser, whole

DETAILS = """
Prints the scores before and after fusing and the tables of the task, and writes
scores.json, the tables as CSV, and the figures of the task.

examples:
  seewide eval runs/unireplknet_a-digits
  seewide eval unireplknet_t.in1k --data imagenet
"""


def arguments(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add("target", metavar="RUN|MODEL", help="A run folder, or a model with weights.")
    parser.add(
        "--data", metavar="DATA", help="What to evaluate on. Default: what the run held out."
    )
    parser.add("--task", metavar="TASK", help="Of a model; a run knows its own.")
    parser.add("--image-size", metavar="PIXELS", type=whole(8), help="Side of the images.")
    parser.add(
        "--batch-size", metavar="N", type=whole(1), default=64, help="Samples per batch. Default: 64."
    )
    parser.add("--out", metavar="DIR", type=Path, help="Where the files go. Default: RUN/eval.")
    parser.add(
        "--workers",
        metavar="N",
        type=whole(0),
        default=0,
        help="Worker processes that read samples. Default: 0.",
    )
    parser.add("--device", metavar="DEVICE", default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
    parser.add("--amp", metavar="auto|bf16|fp16|off", default="off", help="Mixed precision.")


def run(arguments: Namespace) -> None:
    """Evaluate, print the tables, write the files."""
    from seewide.train import evaluate

    target = arguments.target
    result = evaluate(
        target,
        arguments.data,
        task=arguments.task,
        image_size=arguments.image_size,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
        device=arguments.device,
        amp=arguments.amp,
    )
    task, info, fused = result.task, result.info, result.models[-1]
    facts(model=info.model, task=task.name, data=f"{fused.samples} samples: {result.held_out}")
    say("")
    show_table(
        "",
        ("", "M parameters", *fused.scores, f"{task.unit}/s"),
        [
            (
                model.name,
                f"{model.parameters / 1e6:.2f}",
                *(f"{value:.2f}" for value in model.scores.values()),
                f"{model.samples_per_second:.0f}",
            )
            for model in result.models
        ],
    )
    say(f"largest relative difference of the outputs {result.deviation:.1e}\n")
    tables = task.tables(fused.metric, info.facts)
    show_results(tables)
    folder = arguments.out or _folder(target)
    written = [
        write_json(
            folder / "scores.json",
            {
                "model": info.model,
                "task": task.name,
                "data": result.held_out,
                "samples": fused.samples,
                "deviation": result.deviation,
                "scores": {model.name: model.scores for model in result.models},
            },
        )
    ]
    for table in tables:
        name = table.title.lower().replace(" ", "-")
        written.append(write_csv(folder / f"{name}.csv", table.columns, table.rows))
    for name, draw in task.figures(fused.metric, info.facts).items():
        written.append(draw(folder / name))
    say(f"written: {', '.join(map(str, written))}")


def _folder(target: str) -> Path:
    path = Path(target)
    if path.is_dir():
        return path / "eval"
    return path.parent / "eval" if path.is_file() else Path("runs", target, "eval")
