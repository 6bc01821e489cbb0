"""Pictures that cannot be read: skipped, counted and named, and how many are too many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from seewide.errors import InputError

BROKEN = "broken.txt"
SHARE = 0.01


class Broken:
    """The broken pictures of a run, in a file that all its processes add to.

    Args:
        file: one sentence a line; it need not exist.
        images: in the run's splits.
        share: of `images` that may be broken before the run stops.
        tell: what to do with the sentence of a picture at its first time.
    """

    def __init__(
        self,
        file: Path,
        images: int,
        share: float = SHARE,
        tell: Callable[[str], object] = lambda sentence: None,
    ) -> None:
        if not 0 <= share <= 1:
            raise InputError(f"the share of broken pictures must be within 0..1, got {share}")
        self.file, self.images, self.share, self.tell = file, images, share, tell

    @property
    def sentences(self) -> list[str]:
        """Of all processes, in the order of their first times."""
        with contextlib.suppress(FileNotFoundError):
            text = self.file.read_text(encoding="utf-8", errors="replace")
            return list(dict.fromkeys(text.splitlines()))  # two processes may find the same one
        return []

    def add(self, sentences: Iterable[str]) -> None:
        """Name those that are new.

        Raises:
            InputError: with these it is more than the share.
        """
        known = self.sentences
        new = [line for line in dict.fromkeys(sentences) if line not in known]
        if not new:
            return
        self.refuse([*known, *new])
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # Processes add to the end, in one write each, and so do not write over one another.
        with self.file.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in new))
        for line in new:
            self.tell(f"skipped: {line}")

    def refuse(self, sentences: list[str]) -> None:
        """Raise InputError if so many are too many."""
        if len(sentences) > self.share * self.images:
            raise InputError(
                f"{len(sentences)} of {self.images} pictures cannot be read, more than "
                f"{self.share:.2%}; the latest: {sentences[-1]}"
            )
