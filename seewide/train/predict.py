"""Predictions for single files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seewide.errors import InputError
from seewide.reparam import fuse
from seewide.tasks import Sample
from seewide.train.evaluate import describe_sample, device_of, load_target
from seewide.train.exported import ExportedModel


@dataclass(frozen=True)
class Prediction:
    """What a model says of a sample of a file, or why the file cannot be read.

    Attributes:
        path: of the file.
        sample: as it was read; None if it cannot be.
        description: the task's JSON values, see `Task.describe`.
        error: a sentence, or None.
    """

    path: Path
    sample: Sample | None = None
    description: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


class Predictor:
    """The fused best model of a run, an exported file, or a published model, for single files.

    Raises:
        InputError: what is wrong with the run or the model.
    """

    def __init__(
        self, target: str | Path, *, task: str | None = None, device: str = "auto"
    ) -> None:
        model, self.task, self.info = load_target(str(target), task=task)
        self.device = device_of(model, device)
        if not isinstance(model, ExportedModel):
            model = fuse(model)
        self.model = model.to(self.device)

    def __call__(self, path: str | Path, text: str = "") -> Iterator[Prediction]:
        """A prediction for each sample of a file; if it cannot be read, one with an error.

        Args:
            text: what to look for, for tasks that need it (`Task.needs_text`).

        Raises:
            InputError: a text for a task that takes none, or none for one that needs it.
        """
        if bool(text) != self.task.needs_text:
            wanted = "needs a text" if self.task.needs_text else "takes no text"
            raise InputError(f"the task {self.task.name} {wanted} beside the file, got {text!r}")
        path = Path(path)
        more = {"text": text} if text else {}
        try:
            for sample in self.task.read(path, **more):
                yield Prediction(path, sample, self.describe(sample))
        except InputError as error:
            yield Prediction(path, error=str(error))

    def describe(self, sample: Sample) -> dict[str, Any]:
        """The task's description of a sample as it was read."""
        return describe_sample(self.model, self.task, self.info, self.device, sample)


def predict(
    target: str | Path,
    paths: Sequence[str | Path],
    *,
    task: str | None = None,
    device: str = "auto",
) -> Iterator[Prediction]:
    """Predict file by file: with a run's fused best model, an exported file, a published model.

    A file that cannot be read gives a prediction with an error, and the others go on.

    Raises:
        InputError: what is wrong with the run or the model.
    """
    predictor = Predictor(target, task=task, device=device)
    for path in paths:
        yield from predictor(path)
