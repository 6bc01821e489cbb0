"""`seewide eval`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._files import write_csv, write_json
from seewide.cli._parser import Parser, pairs, whole
from seewide.console import print_facts, print_table, say

DETAILS = """
Prints the scores before and after fusing and the tables of the task, and writes
scores.json, the tables as CSV, the figures of the task, and where it has them the
worst samples with their labels and the prediction (worst.png). Exported files (ONNX,
OpenVINO, pt2 ...) are evaluated as they are.

examples:
  seewide eval runs/unireplknet_a-digits
  seewide eval runs/unireplknet_a-digits/unireplknet_a.onnx
  seewide eval unireplknet_t.in1k --data imagenet
"""
ROWS = 30  # printed of a long table; its CSV file has all


def arguments(parser: Parser) -> None:
    parser.share("target")
    parser.add("--data", "What to evaluate on. Default: what the run held out.", metavar="DATA")
    parser.share("--task", "--image-size")
    setting = "Change an option that only evaluation reads, such as task.crops=3; may be repeated."
    parser.add("--set", setting, metavar="KEY=VALUE", action="append")
    parser.add("--batch-size", "Samples per batch.", whole(1), 64)
    parser.add("--out", "Where the files go. Default: RUN/eval.", Path, metavar="DIR")
    parser.add("--workers", "Worker processes that read samples.", whole(0), 0)
    parser.share("--device")
    parser.add("--amp", "Mixed precision.", str, "off", "auto|bf16|fp16|off")


def run(arguments: Namespace) -> None:
    from seewide.train import evaluate
    from seewide.train.pages import draw_worst

    settings = vars(arguments)
    target, out = settings.pop("target"), settings.pop("out")
    settings["settings"] = pairs(settings.pop("set") or ())
    result = evaluate(target, settings.pop("data"), **settings)
    task, info, fused = result.task, result.info, result.models[-1]
    data = f"{fused.samples} samples: {result.held_out}"
    print_facts(model=info.model, task=task.name, data=data)
    rows = [
        (
            model.name,
            f"{model.parameters / 1e6:.2f}" if model.parameters else "",
            *(f"{value:.2f}" for value in model.scores.values()),
            f"{model.samples_per_second:.0f}",
        )
        for model in result.models
    ]
    say()
    print_table("", ("", "M parameters", *fused.scores, f"{task.unit}/s"), rows)
    if result.deviation is not None:
        say(f"largest relative difference of the outputs {result.deviation:.1e}")
    folder = out or _folder(target)
    scores = {
        "model": info.model,
        "task": task.name,
        "data": result.held_out,
        "samples": fused.samples,
        "deviation": result.deviation,
        "scores": {model.name: model.scores for model in result.models},
    }
    written = [write_json(folder / "scores.json", scores)]
    for table in task.tables(fused.metric, info.facts):
        more = len(table.rows) - ROWS
        cut = f" (the first {ROWS} of {len(table.rows)} rows)" if more > 0 else ""
        say()
        print_table(table.title + cut, table.columns, table.rows[:ROWS])
        name = table.title.lower().replace(" ", "-")
        written.append(write_csv(folder / f"{name}.csv", table.columns, table.rows))
    for name, draw in task.figures(fused.metric, info.facts).items():
        written.append(draw(folder / name))
    if result.worst:
        written.append(draw_worst(task, result.worst, info.facts, folder / "worst.png"))
    say(f"written: {', '.join(map(str, written))}")


def _folder(target: str) -> Path:
    from seewide.train.exported import is_exported

    path = Path(target)
    if is_exported(path):
        return path.parent / f"eval-{path.stem}"
    if path.is_dir():
        return path / "eval"
    return path.parent / "eval" if path.is_file() else Path("runs", target, "eval")
