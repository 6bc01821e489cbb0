"""`seewide predict`."""

from __future__ import annotations

import glob
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from seewide.cli._files import write_csv, write_json
from seewide.cli._parser import Parser
from seewide.console import complain, print_table, say
from seewide.errors import InputError, unknown

DETAILS = """
INPUT is a file, a folder (with the folders in it), a pattern in quotes, or `-` for a list
of files on stdin, one per line. Files that cannot be read are named at the end, and the
exit code is then 2.

Formats of --files: coco (predictions.json), yolo (labels/NAME.txt) and masks (NAME.png,
16-bit) for detections; png (NAME.png, class indices with a palette) for segmentations.

examples:
  seewide predict runs/unireplknet_a-flowers rose.jpg tulip.jpg
  seewide predict runs/unireplknet_a-flowers/unireplknet_a.onnx rose.jpg
  seewide predict runs/unireplknet_a-flowers photos --out predictions.csv
  seewide predict runs/lsnet_t-bccd images --draw drawn --files found --format yolo
  seewide predict runs/unireplknet_a-shapes desk.png --text "the left cup" --draw drawn
  find photos -newer list.txt | seewide predict runs/unireplknet_a-flowers - --out new.json
"""


def arguments(parser: Parser) -> None:
    parser.share("target")
    parser.add("inputs", "Files, folders, patterns, or `-`.", metavar="INPUT", nargs="+")
    parser.add("--text", "What to look for, for models of referring segmentation.", str, "")
    parser.add("--out", "Also write the predictions to FILE.json or FILE.csv.", Path, None, "FILE")
    parser.add("--draw", "Also draw each sample with its prediction.", Path, None, "DIR")
    parser.add("--files", "Also write them in a format of other tools.", Path, None, "DIR")
    parser.add("--format", "Format of --files. Default: the task's first.", str, None, "FORMAT")
    parser.share("--task", "--device")


def run(arguments: Namespace) -> int:
    from seewide.tasks import FilePrediction
    from seewide.train import Predictor

    out = arguments.out
    if out is not None and out.suffix not in (".json", ".csv"):
        raise InputError(f"--out must end in .json or .csv, got {out}")
    predictor = Predictor(arguments.target, task=arguments.task, device=arguments.device)
    task = predictor.task
    format = _format(task, arguments)
    paths = list(dict.fromkeys(find_files(arguments.inputs, predictor.task.is_input)))
    found, unreadable = [], []
    for path in paths:
        for number, prediction in enumerate(predictor(path, arguments.text)):
            if prediction.error is not None:
                unreadable.append(prediction.error)
                continue
            if arguments.draw is not None:
                _draw(predictor, prediction, arguments.draw / f"{path.stem}-{number}.png")
            size = prediction.sample["image"].size if format else (0, 0)
            found.append(FilePrediction(path, size, prediction.description))
    if found:
        names = short_names([one.path for one in found])
        rows = [
            {"file": name, **task.summary(one.description)}
            for name, one in zip(names, found, strict=True)
        ]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        print_table("", columns, [[brief(row.get(key)) for key in columns] for row in rows])
    written = []
    if out is not None and out.suffix == ".json":
        written.append(
            write_json(out, [{"file": str(one.path), **one.description} for one in found])
        )
    elif out is not None:
        rows = [
            {"file": str(one.path), **flatten(row)}
            for one in found
            for row in task.rows(one.description)
        ]
        columns = list(dict.fromkeys(["file", *(key for row in rows for key in row)]))
        cells = [[row.get(key) for key in columns] for row in rows]
        written.append(write_csv(out, columns, cells))
    if format:
        written += task.write_files(format, found, arguments.files, predictor.info.facts)
    if written:
        more = f" and {len(written) - 5} more" if len(written) > 5 else ""
        say(f"written: {', '.join(map(str, written[:5]))}{more}")
    for sentence in unreadable:
        complain(sentence)
    if unreadable:
        complain(f"{len(unreadable)} of {len(paths)} files could not be read")
    return 2 if unreadable else 0


def find_files(
    inputs: Iterable[str], is_input: Callable[[Path], bool] = lambda folder: False
) -> Iterator[Path]:
    """The files that the inputs name; hidden files in folders are left out.

    Args:
        is_input: whether a folder is an input itself, see `Task.is_input`.

    Raises:
        InputError: no such file, or a folder or pattern without files.
    """
    for word in inputs:
        if word == "-":
            lines = (line for line in sys.stdin.read().splitlines() if line)
            yield from find_files(lines, is_input)
            continue
        path = Path(word)
        if path.is_dir() and is_input(path):
            files = [path]
        elif path.is_dir():
            inner = sorted(d for d in path.rglob("[!.]*") if d.is_dir() and is_input(d))
            files = inner or sorted(f for f in path.rglob("[!.]*") if f.is_file())
        elif path.exists() or not glob.has_magic(word):
            files = [path]
        else:
            files = sorted(f for f in map(Path, glob.glob(word, recursive=True)) if f.is_file())
        if not files:
            raise InputError(f"there are no files in {word}")
        yield from files


def short_names(paths: list[Path]) -> list[str]:
    """The paths below the folder that they have in common, so that a table has room for them."""
    absolute = [path.absolute() for path in paths]
    common = os.path.commonpath([path.parent for path in absolute])
    return [str(path.relative_to(common)) for path in absolute]


def brief(value: Any) -> str:
    """A JSON value in a line: `[{"name": "cat", "probability": 0.97}]` -> `cat 0.97`."""
    if isinstance(value, list):
        separator = ", " if value and isinstance(value[0], dict) else " "
        return separator.join(map(brief, value))
    if isinstance(value, dict):
        return " ".join(map(brief, value.values()))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def flatten(description: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """One level of columns: `{"classes": [{"name": "cat"}]}` -> `{"classes 1 name": "cat"}`."""
    flat: dict[str, Any] = {}
    for key, value in description.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
            value = {str(number): entry for number, entry in enumerate(value, start=1)}
        if isinstance(value, dict):
            flat |= flatten(value, f"{name} ")
        else:
            flat[name] = value
    return flat


def _format(task: Any, arguments: Namespace) -> str | None:
    """The format of --files; None without it."""
    if arguments.files is None:
        if arguments.format is not None:
            raise InputError("--format is that of --files DIR, which is missing")
        return None
    if not task.file_formats:
        raise InputError(f"{task.name} has no files to write; --out FILE.json or FILE.csv has all")
    if arguments.format not in (None, *task.file_formats):
        raise unknown(f"format of {task.name}", arguments.format, task.file_formats)
    return arguments.format or task.file_formats[0]


def _draw(predictor: Any, prediction: Any, path: Path) -> None:
    figure = predictor.task.draw(prediction.sample, prediction.description)
    if figure is not None:
        from seewide.errors import write_atomically

        write_atomically(path, lambda scratch: figure.savefig(scratch))
