"""Two revisions of the project in one run: `python -m benchmarks ops --base REV`.

The package of REV is put in a temporary folder, and a process per side imports its own; the
shapes, the baselines and the clock are this checkout's. Both sides take turns, round by round.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from benchmarks.conditions import Settings, describe
from benchmarks.timing import LEAST
from seewide.console import make_table, track
from seewide.errors import InputError

ROOT = Path(__file__).parents[1]
COLUMNS = ("what", "form", "base ms", "here ms", "times base")


def compare(kind: str, names: list[str], base: str, settings: Settings, console: Console) -> None:
    """Print a line per case and form of ours: both times, and the median of the rounds' ratios.

    Raises:
        InputError: REV is no revision, or one of the sides cannot run a case.
    """
    table = make_table(f"here against {base}", *COLUMNS, left=("what", "form"))
    with (
        package_of(base) as folder,
        side_of(folder, kind, names, settings) as there,
        side_of(ROOT, kind, names, settings) as here,
    ):
        labels = here.ask("list")
        if there.ask("list") != labels:
            raise InputError(f"{base} does not have all that is measured here: name less")
        for index, (what, form) in enumerate(track(labels, "measuring", console)):
            pairs = _pairs(index, (there, here), settings.rounds)
            then, now = (statistics.median(times) for times in zip(*pairs, strict=True))
            ratio = statistics.median(before / after for before, after in pairs)
            table.add_row(what, form, f"{1e3 * then:.3f}", f"{1e3 * now:.3f}", f"{ratio:.2f}")
    console.print(table)
    describe(settings, console)


def _pairs(index: int, sides: tuple[Side, Side], rounds: int) -> list[tuple[float, float]]:
    """Seconds of both sides, per round; they take turns at going first."""
    repeats = max(1, round(LEAST / max(side.ask("time", index, 1) for side in sides)))
    pairs = []
    for turn in range(rounds):
        order = sides if turn % 2 == 0 else sides[::-1]
        times = [side.ask("time", index, repeats) for side in order]
        pairs.append(tuple(times if turn % 2 == 0 else times[::-1]))
    return pairs


class Side:
    """A process that measures with the package of one revision."""

    def __init__(self, process: subprocess.Popen):
        self.process = process

    def ask(self, *question):
        """Its answer; raises InputError with its last words if it has died."""
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            words = self.process.stderr.read().strip().splitlines()
            raise InputError(f"a revision cannot run this: {words[-1] if words else 'no words'}")
        return json.loads(line)


@contextlib.contextmanager
def side_of(folder: Path, kind: str, names: list[str], settings: Settings) -> Iterator[Side]:
    """The process whose `seewide` is the one in `folder`."""
    asked = json.dumps([
        kind, names, settings.quick, settings.device, str(settings.dtype).removeprefix("torch."),
    ])  # fmt: skip
    # `python -m` looks where it is run first: there, the package; `benchmarks` is this checkout's.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.side", asked], cwd=folder, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Side(process)
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def package_of(base: str) -> Iterator[Path]:
    """A temporary folder with the `seewide` of a revision."""
    call = ["git", "archive", "--format=tar", base, "seewide"]
    found = subprocess.run(call, cwd=ROOT, capture_output=True, check=False)
    if found.returncode:
        words = found.stderr.decode().strip().splitlines()
        raise InputError(f"no package in revision {base!r}: {words[-1] if words else ''}")
    with tempfile.TemporaryDirectory(prefix="seewide-base-") as folder:
        with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)
