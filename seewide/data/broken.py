"""Samples that cannot be read: skipped, counted and named, and how many are too many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from seewide.errors import InputError

BROKEN = "broken.txt"
SHARE = 0.01


class BrokenSamples:
    """The broken samples of a run, in a file that all its processes append to.

    Args:
        file: one sentence per line; it need not exist.
        count: samples of the run, to train on and held out.
        share: of `count` that may be broken before the run stops.
        report: called with a sentence for each broken sample the first time it is met.
    """

    def __init__(
        self,
        file: Path,
        count: int,
        share: float = SHARE,
        report: Callable[[str], object] = lambda sentence: None,
    ) -> None:
        if not 0 <= share <= 1:
            raise InputError(f"the share of broken samples must be within 0..1, got {share}")
        self.file, self.count, self.share, self.report = file, count, share, report

    @property
    def sentences(self) -> list[str]:
        """Of all processes, in the order in which they were found."""
        with contextlib.suppress(FileNotFoundError):
            text = self.file.read_text(encoding="utf-8", errors="replace")
            return list(dict.fromkeys(text.splitlines()))  # two processes may find the same one
        return []

    def add(self, sentences: Iterable[str]) -> None:
        """Record and report those that are new.

        Raises:
            InputError: with these it is more than the allowed share.
        """
        known = self.sentences
        new = [line for line in dict.fromkeys(sentences) if line not in known]
        if not new:
            return
        self.check([*known, *new])
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # Processes append in one write each, and so do not overwrite one another.
        with self.file.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in new))
        for line in new:
            self.report(f"skipped: {line}")

    def check(self, sentences: list[str]) -> None:
        """Raise InputError if this many are too many."""
        if len(sentences) > self.share * self.count:
            raise InputError(
                f"{len(sentences)} of {self.count} samples cannot be read, more than "
                f"{self.share:.2%}; the latest: {sentences[-1]}"
            )
