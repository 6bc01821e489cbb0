"""Small training runs, interrupted at random moments and resumed: `make torture`.

    python tests/train/torture.py [--count 100] [--minutes 20] [--seed 0] [--only N] [--kind KIND]

A case is one run. It is interrupted one to four times, each time in another way and at another
moment, and resumed after each. Then it must be what the uninterrupted run is: the same bits of all
weights, averages and optimizer states, the same best weights, the same log but for times, no
temporary files, and nothing that `seewide check` calls damaged (no curves are drawn). After each
interruption the last checkpoint must hold every epoch but the last one that was reported, and after
SIGTERM and SIGHUP every step.

Prints each failing case as a command, then a table; writes it with its conditions to
benchmarks/results. Processes are forked, so that libraries are imported once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import tiny
import torch
import torch.distributed

from seewide import cli
from seewide.checkpoints import read_state_dict
from seewide.checkpoints.files import DAMAGED
from seewide.errors import UNFINISHED, InputError
from seewide.train import loop
from seewide.train.check import check
from seewide.train.checkpoint import BEST, load_state
from seewide.train.lines import read_json_lines

EPOCHS, PATIENCE = 3, 180  # seconds until a process that should have ended counts as hanging
KINDS = ("kill -9", "SIGTERM", "SIGHUP", "full disk", "killed worker", "killed rank")
SETTINGS = [
    "--epochs", EPOCHS, "--batch-size", 4, "--image-size", 32,
    "--set", "mixup=0.2", "--set", "erase=0.5", "--set", "ema_decay=0.9", "--set", "lr=1e-3",
    "--set", "drop_path=0.2",
]  # fmt: skip


class Failure(Exception):
    """What an interruption broke, in a sentence."""


@dataclass
class Child:
    """A forked process that trains, and what it printed."""

    pid: int
    log: Path
    code: int | None = None

    def wait(self, seconds: float) -> bool:
        """Whether it has ended after so long; its exit code is then known, -9 for `kill -9`."""
        end = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= end:
                return False
            else:
                time.sleep(0.005)
        return True

    def workers(self) -> list[int]:
        """The processes that it has started."""
        try:
            found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in found.split()]


def launch(
    words: list[object], log: Path, environment: dict[str, str], before: Callable[[], object]
) -> Child:
    """Fork a process that runs the command line `words`."""
    pid = os.fork()
    if pid:
        return Child(pid, log)
    code = 1
    try:
        out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        os.environ.update(environment)
        before()
        cli.main([str(word) for word in words])
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def start(
    words: list[object], log: Path, ranks: int, before: Callable[[], object] = lambda: None
) -> list[Child]:
    """One process, or several of one group."""
    if ranks == 1:
        return [launch(words, log, {}, before)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    group |= {"MASTER_ADDR": "127.0.0.1"}
    return [
        launch(
            words,
            log if rank == 0 else log.with_suffix(f".{rank}.txt"),
            {
                key: str(value)
                for key, value in (group | {"RANK": rank, "LOCAL_RANK": rank}).items()
            },
            before,
        )
        for rank in range(ranks)
    ]


@dataclass
class Torture:
    """The folder of all runs, and what the uninterrupted ones gave."""

    folder: Path
    expected: dict[int, dict] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    interruptions: Counter = field(default_factory=Counter)
    late: Counter = field(default_factory=Counter)
    codes: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    lost: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    failed: Counter = field(default_factory=Counter)

    def command(self, run: Path, *more: object) -> list[object]:
        images = self.folder / "images"
        return ["train", tiny.NAME, "--data", images, "--out", run, *SETTINGS, *more]

    def reference(self, ranks: int) -> None:
        """Train once without interruption."""
        run = self.folder / f"uninterrupted-{ranks}"
        before = time.monotonic()
        children = start(self.command(run, "--workers", 0), self.folder / "log.txt", ranks)
        self.finish(children, run)
        self.seconds[ranks] = time.monotonic() - before
        self.expected[ranks] = content_of(run)

    def finish(self, children: list[Child], run: Path) -> None:
        """Wait for processes that should train to the end."""
        for child in children:
            if not child.wait(PATIENCE):
                os.kill(child.pid, signal.SIGKILL)
                child.wait(PATIENCE)
                raise Failure(f"training does not end:\n{last_lines(child.log)}")
        if any(child.code for child in children):
            codes = [child.code for child in children]
            words = last_lines(children[0].log)
            raise Failure(f"exit codes {codes} of an undisturbed run:\n{words}")

    def case(self, number: int, seed: int, only: str | None) -> str:
        """Run one case; returns the last kind of interruption in it."""
        chance = random.Random(f"{seed}-{number}")
        ranks = 2 if only == "killed rank" or (only is None and chance.random() < 1 / 6) else 1
        kinds = KINDS[-1:] + KINDS[:3] if ranks == 2 else KINDS[:-1]
        run, log = self.folder / "run", self.folder / "log.txt"
        shutil.rmtree(run, ignore_errors=True)
        kind = ""
        for _ in range(chance.randint(1, 4)):
            kind = only or chance.choice(kinds)
            self.interrupt(kind, run, log, ranks, chance)
        before = time.monotonic()
        log.unlink(missing_ok=True)
        words = ["train", "--resume", run] if (run / "config.json").exists() else self.command(run)
        words += ["--workers", 0]
        self.finish(start(words, log, ranks), run)
        self.seconds[ranks] = max(0.9 * self.seconds[ranks], time.monotonic() - before)
        compare(content_of(run), self.expected[ranks])
        complain_about(run)
        return kind

    def interrupt(self, kind: str, run: Path, log: Path, ranks: int, chance: random.Random) -> None:
        """Start or resume the run, interrupt it, and look at what it leaves."""
        log.unlink(missing_ok=True)
        started = read_state(run)
        more = ["--save-every", chance.choice([0, 1, 2])]
        more += ["--workers", 2 if kind == "killed worker" else 0]
        words = ["train", "--resume", run, *more]
        if not (run / "config.json").exists():
            words = self.command(run, *more)
        moment = chance.uniform(0, 0.9 * self.seconds[ranks])
        size = chance.choice([20_000, 50_000, 200_000])
        before = (lambda: limit_files(moment, size)) if kind == "full disk" else (lambda: None)
        children = start(words, log, ranks, before)
        allowed = self.strike(kind, children, moment, chance)
        for child in children:
            if not child.wait(PATIENCE):
                for other in children:
                    os.kill(other.pid, signal.SIGKILL)
                    other.wait(PATIENCE)
                raise Failure(f"{kind}: a process does not end:\n{last_lines(child.log)}")
        codes = [child.code for child in children]
        if 0 in codes:
            self.late[kind] += 1
            return
        self.interruptions[kind] += 1
        self.codes[kind][children[-1].code] += 1
        if not set(codes) <= allowed:
            raise Failure(f"{kind}: exit codes {codes}:\n{last_lines(log)}")
        self.look(kind, run, log, started)

    def strike(
        self, kind: str, children: list[Child], moment: float, chance: random.Random
    ) -> set[int]:
        """Interrupt; returns the exit codes that are right."""
        victim = chance.choice(children)
        if kind == "full disk":
            return {2}
        victim.wait(moment)
        if kind == "killed worker":
            end = time.monotonic() + PATIENCE
            while not (found := victim.workers()) and time.monotonic() < end:
                if victim.wait(0.01):
                    return {0}
            if found:
                send(chance.choice(found), signal.SIGKILL)
            return {2}
        number = {"SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP}.get(kind, signal.SIGKILL)
        if victim.code is None:
            send(victim.pid, number)
        if kind == "killed rank":
            return {-signal.SIGKILL, 1, 2}
        if len(children) == 2:
            # One process is asked to stop or killed; before training starts the other fails.
            return {-number, 128 + number, 1, 2, 143}
        return {-number, 128 + number}  # the first before training starts

    def look(self, kind: str, run: Path, log: Path, started: dict | None) -> None:
        """What the interrupted run left: a readable state that has lost little."""
        state, text = read_state(run), log.read_text(errors="replace")
        reported = text.count(f"/{EPOCHS}  train loss ")
        done = (started["epoch"] if started else 0) + reported
        found = state["epoch"] if state else 0
        self.lost[kind].append(done - found)
        if done - found > 1:
            raise Failure(f"{kind}: {done} epochs were reported, the checkpoint has {found}")
        if "everything is saved, up to " in text:
            words = text.partition("everything is saved, up to ")[2].partition(".")[0]
            step = state["position"]["step"] if state else 0
            place = f"epoch {found}" + (f", step {step} of " if step else "")
            if not words.startswith(place) or done != found:
                raise Failure(f"{kind}: {words} is said to be saved, but {place} is")
        if "Traceback" in text and kind != "killed rank":
            raise Failure(f"{kind}: a traceback:\n{last_lines(log)}")


def send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def limit_files(moment: float, size: int) -> None:
    """After some seconds the system refuses to write beyond `size` bytes of any file.

    The log is a file too, so its limit is the size it will not reach.
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    timer = threading.Timer(moment, limit)
    timer.daemon = True
    timer.start()


def read_state(run: Path) -> dict | None:
    """The state to resume from; None before the first."""
    return load_state(run)[0] if run.is_dir() else None


def content_of(run: Path) -> dict:
    """All that a run gives, without times."""
    state = load_state(run)[0]
    rows = read_json_lines(run / "metrics.jsonl")[0]
    steps = [row["step"] for row in read_json_lines(run / "steps.jsonl")[0]]
    best = read_state_dict(run / BEST)
    return {
        "weights": state["model"],
        "average": state["ema"],
        "optimizer": {
            f"{index}.{key}": value
            for index, row in state["optimizer"]["state"].items()
            for key, value in row.items()
        },
        "best": best,
        "log": [{key: value for key, value in row.items() if "second" not in key} for row in rows],
        "steps": steps,
    }


def compare(found: dict, expected: dict) -> None:
    """Both to the bit."""
    for part, wanted in expected.items():
        got = found[part]
        if not isinstance(wanted, dict):
            if got != wanted:
                raise Failure(f"the {part} is {got}, not {wanted}")
            continue
        if got.keys() != wanted.keys():
            raise Failure(f"the {part} has other entries")
        for key, value in wanted.items():
            if not torch.equal(torch.as_tensor(got[key]), torch.as_tensor(value)):
                raise Failure(f"the {part} differs in {key}")


def complain_about(run: Path) -> None:
    """Temporary files and damage."""
    left = [path.name for path in run.rglob(f"{UNFINISHED}*")]
    if left:
        raise Failure(f"{left} is left in the run folder")
    damaged = [report for report in check(run) if report.verdict == DAMAGED]
    if damaged:
        raise Failure(f"{damaged[0].path.name} is damaged: {damaged[0].detail}")


def last_lines(log: Path, count: int = 12) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="interruptions")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop early after this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone")
    parser.add_argument("--kind", choices=KINDS, help="interrupt in this way alone")
    parser.add_argument("--dry", action="store_true", help="write no result file")
    arguments = parser.parse_args()
    from benchmarks.conditions import Settings, conditions

    loop.draw_run = lambda *words: None  # half of the time of such a run, and nobody reads it
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    found, began = conditions(Settings()), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        torture = Torture(Path(scratch))
        tiny.paint(torture.folder / "images")
        for ranks in (1, 2):
            torture.reference(ranks)
        number = arguments.only or 0
        while torture.interruptions.total() < arguments.count:
            if time.monotonic() - began > 60 * arguments.minutes:
                break
            kind = arguments.kind or "any"
            try:
                torture.case(number, arguments.seed, arguments.kind)
            except (Failure, InputError) as error:
                torture.failed[str(error).partition(":")[0]] += 1
                option = f" --kind '{arguments.kind}'" if arguments.kind else ""
                print(f"FAILED: {error}\n  python tests/train/torture.py --seed {arguments.seed} "
                      f"--only {number}{option}", flush=True)  # fmt: skip
            done = torture.interruptions.total()
            print(f"case {number} ({kind}): {done} interruptions, "
                  f"{torture.failed.total()} failed", file=sys.stderr, flush=True)  # fmt: skip
            number += 1
            if arguments.only is not None:
                break
        cases = number - (arguments.only or 0)
    report(torture, found, cases, time.monotonic() - began, arguments.dry)
    return 1 if torture.failed else 0


def report(torture: Torture, found: dict[str, str], cases: int, seconds: float, dry: bool) -> None:
    """The table, on the screen and in benchmarks/results."""
    from benchmarks.conditions import write_rows
    from seewide.console import print_table

    columns = ["interruption", "count", "run had ended", "exit codes", "epochs lost, mean", "most"]
    rows = []
    for kind in KINDS:
        codes = " ".join(f"{code} ({n})" for code, n in sorted(torture.codes[kind].items()))
        lost = torture.lost[kind] or [0]
        mean = f"{statistics.mean(lost):.2f}"
        rows.append([kind, torture.interruptions[kind], torture.late[kind], codes, mean, max(lost)])
    print_table("", columns, rows)
    failed = torture.failed.total()
    summary = (
        f"{torture.interruptions.total()} interruptions of {cases} runs in {seconds:.0f} s, "
        f"{failed} failed"
    )
    print(summary)
    for sentence, count in torture.failed.items():
        print(f"{count} x {sentence}")
    if not dry:
        found |= {"command": " ".join(sys.argv), "interruptions": summary}
        name = f"torture-torch{torch.__version__.partition('+')[0]}"
        print(write_rows(name, found, columns, rows))


if __name__ == "__main__":
    sys.exit(main())
