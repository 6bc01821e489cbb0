"""Whether a run folder is intact: every file by itself, and the files together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seewide.checkpoints import read_metadata
from seewide.checkpoints.files import DAMAGED, INTACT, UNCHECKED, FileReport, check_file
from seewide.errors import UNFINISHED, InputError
from seewide.train.checkpoint import (
    BEST,
    CONFIG,
    LAST,
    METRICS,
    PREVIOUS,
    RunConfig,
    WeightsInfo,
    read_state,
)
from seewide.train.lines import has_checksums, json_line, read_json_lines
from seewide.train.log import STEPS
from seewide.train.writer import LOCK


def check(path: Path) -> list[FileReport]:
    """Check a run folder, or one file.

    Returns:
        A report per file: of a run, first its own files, then all others in the folder.

    Raises:
        InputError: no such file, or a folder that is not a run.
    """
    if not path.is_dir():
        return [check_file(path)]
    if not (path / CONFIG).is_file():
        raise InputError(f"{path} is not a run folder: it has no {CONFIG}")
    return list(RunCheck(path).reports())


class RunCheck:
    """The files of a run, and what they say about each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: RunConfig | None = None
        self.states: dict[str, dict[str, Any]] = {}

    def reports(self) -> Iterator[FileReport]:
        yield self.check_config()
        for name in (LAST, PREVIOUS):
            if self.has(name):
                yield self.check_state(name)
        if self.has(METRICS):
            yield self.check_metrics()
        if self.has(STEPS):
            yield self.check_lines(STEPS)
        weights = sorted(self.folder.glob("*.safetensors"))
        yield from map(self.check_weights, weights)
        done = {CONFIG, LAST, PREVIOUS, METRICS, STEPS, *(path.name for path in weights)}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and name not in done:
                yield self.check_other(path)

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def check_config(self) -> FileReport:
        path = self.folder / CONFIG
        try:
            self.config = RunConfig.load(self.folder)
            checked = "checksum" in json.loads(path.read_text(encoding="utf-8"))
        except InputError as error:
            return FileReport(path, DAMAGED, str(error).removeprefix(f"{path} is not valid: "))
        detail = f"{self.config.model} on {self.config.data}"
        return FileReport(path, INTACT if checked else UNCHECKED, detail)

    def check_state(self, name: str) -> FileReport:
        path = self.folder / name
        try:
            state = self.states[name] = read_state(path)
        except InputError as error:
            return FileReport(path, DAMAGED, str(error))
        step = state["position"]["step"]
        detail = f"after epoch {state['epoch']}" + (f", step {step} of the next" if step else "")
        return FileReport(path, INTACT, detail)

    def check_lines(self, name: str) -> FileReport:
        """A log by itself; an unfinished last line is what a killed process leaves."""
        path = self.folder / name
        rows, damaged = read_json_lines(path)
        if damaged is None:
            checked = not rows or has_checksums(path)
            return FileReport(path, INTACT if checked else UNCHECKED, f"{len(rows)} lines")
        content = path.read_bytes()
        if damaged == len(content.splitlines()) and not content.endswith(b"\n"):
            detail = f"line {damaged}, the last one, is unfinished; resuming removes it"
            return FileReport(path, INTACT, detail)
        return FileReport(path, DAMAGED, f"line {damaged} does not match its checksum")

    def check_metrics(self) -> FileReport:
        """The log of epochs, which the last checkpoint holds too."""
        report = self.check_lines(METRICS)
        if report.verdict == DAMAGED or not self.states:
            return report
        history = (self.states.get(LAST) or self.states[PREVIOUS])["history"]
        rows = read_json_lines(report.path)[0]
        wanted = [json.loads(json_line(row)) for row in history]
        for number, row in enumerate(wanted, start=1):
            row.pop("crc")
            if number > len(rows) or rows[number - 1] != row:
                detail = f"line {number} is not what the last checkpoint says of epoch {number}"
                return replace(report, verdict=DAMAGED, detail=detail)
        if len(rows) > len(wanted):  # killed between the two files
            detail = f"{report.detail}, {len(rows) - len(wanted)} after the last checkpoint"
            return replace(report, detail=detail)
        return report

    def check_weights(self, path: Path) -> FileReport:
        """Weights by themselves, and the epoch and score that they name."""
        report = check_file(path)
        if report.verdict == DAMAGED:
            return report
        info = WeightsInfo.from_header(read_metadata(path))
        if info is None:
            return replace(report, detail=f"{report.detail}; not written by a run")
        problem = self.disagreement(info, path)
        if problem:
            return replace(report, verdict=DAMAGED, detail=problem)
        return replace(report, detail=f"{info.model} after epoch {info.epoch}")

    def disagreement(self, info: WeightsInfo, path: Path) -> str:
        """How the header of weights differs from the rest of the run, or ""."""
        if self.config is not None and info.model != self.config.model:
            return f"they are of {info.model}, and the run trains {self.config.model}"
        if not self.states or self.config is None:
            return ""
        score = self.config.task.score
        history = (self.states.get(LAST) or self.states[PREVIOUS])["history"]
        if info.epoch > len(history):  # killed before the checkpoint of that epoch
            return ""
        row = history[info.epoch - 1]
        if row.get(f"val_{score.key}") != info.score:
            return f"their score is not what the last checkpoint says of epoch {info.epoch}"
        best: Mapping[str, Any] = max(history, key=score.rank)
        if path.name == BEST and best["epoch"] != info.epoch:
            return f"they are of epoch {info.epoch}, and the best is epoch {best['epoch']}"
        return ""

    def check_other(self, path: Path) -> FileReport:
        if path.name.startswith(UNFINISHED):
            return FileReport(path, UNCHECKED, "left by a killed process; resuming removes it")
        if path.name == LOCK:
            return FileReport(path, UNCHECKED, "who used the folder last")
        return check_file(path)
