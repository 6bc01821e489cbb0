"""One bit of one file of a run folder flipped, and everything that reads the folder.

    python tests/train/flips.py [--count 1000] [--minutes 30] [--seed 0] [--only N] [--dry]

A flip must be harmless (every result is what it was) or noticed (a sentence, or `seewide check`
says that the file is damaged). Prints each other case as a command, then a table; writes the counts
with their conditions to benchmarks/results. `make torture` runs it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tiny
import torch
from rich.console import Console

from seewide.checkpoints import checksum
from seewide.checkpoints.files import DAMAGED
from seewide.errors import InputError
from seewide.train import fit, load_run, loop, resume, step
from seewide.train.check import check
from seewide.train.checkpoint import RunConfig, load_state
from seewide.train.compare import read_run

QUIET = Console(quiet=True)
HARMLESS, NOTICED = "harmless", "noticed"
ANSWERS = (HARMLESS, NOTICED)
RECIPE = tiny.change(
    tiny.SMALL,
    batch_size=2,
    device_batch=0,
    epochs=3,
    ema_decay=0.0,
    optimizer="sgd",
    model_options={"kernel_sizes": [3, 3, 3, 3]},
)  # few tensors: reading the checkpoints takes most of the time
RESUMED = 0.05  # share of the flips after which training also goes on to its end


@dataclass(frozen=True)
class Answer:
    """What became of one flip.

    Attributes:
        answer: one of ANSWERS, or what went wrong.
        words: the sentence, or what is different.
    """

    file: str
    bit: int
    answer: str
    words: str


class Stop(Exception):
    """Ends the run that is damaged afterwards, in its last epoch."""


def make_run(folder: Path) -> Path:
    """A run that ended in its third epoch of three, and beside it `expected.pt`: what it gives."""
    original = step.Trainer.step

    def stopping(self, epoch, number, batches, stop=lambda: False):
        if epoch == 3:
            raise Stop
        return original(self, epoch, number, batches, stop)

    step.Trainer.step = stopping
    try:
        images = tiny.paint(folder / "images", count=5)
        fit(tiny.NAME, images, RECIPE, folder / "run", workers=0, keep_every=1, console=QUIET)
    except Stop:
        pass
    finally:
        step.Trainer.step = original
    scratch = copy_of_run(folder / "run", folder / "scratch")
    torch.save(results(scratch), folder / "expected.pt")
    return folder / "run"


def copy_of_run(run: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(run, target))


def results(run: Path, resumed: bool = True) -> dict[str, object]:
    """What users take from a run: the best model's outputs, the log, the state to resume from.

    And the end of the resumed run, if `resumed`; figures are not drawn.

    The value is the sentence where there is an `InputError`.
    """

    def outputs() -> list[float]:
        model, _, info = load_run(run)
        x = torch.linspace(-2, 2, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
        with torch.no_grad():
            return [*model(x).flatten().tolist(), str(info)]

    def log() -> list[object]:
        record = read_run(run)
        if record.problem:
            raise InputError(record.problem)
        return [record.model, record.task, record.epochs, record.seed, *map(str, record.history)]

    def state() -> list[object]:
        RunConfig.load(run)
        content, warning = load_state(run)
        if warning:  # `previous.pt` is read instead
            raise InputError(warning)
        return [checksum(content)]

    def end() -> list[object]:
        draw, loop.draw_run = loop.draw_run, lambda *words: None
        try:
            resume(run, console=QUIET)
        finally:
            loop.draw_run = draw
        state = load_state(run)[0]
        timeless = [
            {key: value for key, value in row.items() if "second" not in key}
            for row in state["history"]
        ]
        tensors = [state["model"][key].numpy().tobytes() for key in sorted(state["model"])]
        return [str(timeless), *tensors, *outputs()]

    found: dict[str, object] = {}
    for use in (outputs, log, state, end) if resumed else (outputs, log, state):
        try:
            found[use.__name__] = use()
        except InputError as error:
            found[use.__name__] = f"InputError: {error}"
    return found


def try_flip(run: Path, scratch: Path, chance: random.Random) -> Answer:
    """Flip a random bit of a random file of a copy of the run; every file is as likely."""
    folder = copy_of_run(run, scratch)
    file = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    content = bytearray(file.read_bytes())
    bit = chance.randrange(8 * max(len(content), 1))
    if content:
        content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    name = file.relative_to(folder).as_posix()
    expected = torch.load(run.parent / "expected.pt", weights_only=True)
    try:
        damaged = [report for report in check(folder) if report.verdict == DAMAGED]
        found = results(folder, chance.random() < RESUMED)
    except Exception as error:  # any other exception is a finding
        return Answer(name, bit, "traceback", f"{type(error).__name__}: {error}")
    refused = [text for text in found.values() if isinstance(text, str)]
    different = [key for key, value in found.items()
                 if not isinstance(value, str) and value != expected[key]]  # fmt: skip
    if different:
        return Answer(name, bit, "changed in silence", ", ".join(different))
    if damaged:
        return Answer(name, bit, NOTICED, damaged[0].detail)
    if refused:
        return Answer(name, bit, "missed by check", refused[0])
    return Answer(name, bit, HARMLESS, "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop early after this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this flip alone")
    parser.add_argument("--dry", action="store_true", help="write no result file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    numbers = range(arguments.count) if arguments.only is None else [arguments.only]
    start, counts, failed = time.monotonic(), Counter(), 0
    from benchmarks.conditions import Settings, conditions

    found = conditions(Settings())  # before the run: names the revision that it imports
    with tempfile.TemporaryDirectory() as scratch:
        run = make_run(Path(scratch))
        for number in numbers:
            if time.monotonic() - start > 60 * arguments.minutes:
                break
            chance = random.Random(int(np.random.SeedSequence((arguments.seed, number))
                                       .generate_state(1)[0]))  # fmt: skip
            answer = try_flip(run, Path(scratch) / "copy", chance)
            counts[answer.file, answer.answer] += 1
            if counts.total() % 50 == 0:
                print(f"{counts.total()} flips, {failed} failed", file=sys.stderr, flush=True)
            if answer.answer not in ANSWERS:
                failed += 1
                print(f"FAILED: {answer}\n  python tests/train/flips.py "
                      f"--seed {arguments.seed} --only {number}", flush=True)  # fmt: skip
    report(counts, found, failed, time.monotonic() - start, arguments.dry)
    return 1 if failed else 0


def report(counts: Counter, found: dict[str, str], failed: int, seconds: float, dry: bool) -> None:
    """The table, on the screen and in benchmarks/results."""
    from benchmarks.conditions import write_rows
    from seewide.console import print_table

    columns = ["file", *ANSWERS, "failed"]
    files = sorted({file for file, _ in counts})
    rows = []
    for file in files:
        good = [counts[file, answer] for answer in ANSWERS]
        every = sum(n for (name, _), n in counts.items() if name == file)
        rows.append([file, *good, every - sum(good)])
    rows.append(["all", *(sum(row[i] for row in rows) for i in range(1, len(columns)))])
    print_table("", columns, rows)
    summary = f"{counts.total()} in {seconds:.0f} s, {failed} failed"
    print(summary)
    if not dry:
        found |= {"command": " ".join(sys.argv), "flips": summary}
        print(write_rows(f"flips-torch{torch.__version__.partition('+')[0]}", found, columns, rows))


if __name__ == "__main__":
    sys.exit(main())
