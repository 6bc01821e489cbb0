"""The interface between the training engine and what is learned.

A task is one file of this package whose name is the task's name. It says what a sample is, how it
becomes a batch, what the loss is and how results are judged and shown; everything else (order,
workers, optimizer, schedule, processes, checkpoints, logs) is the engine's and knows no task.
The convention of dict batches follows `timm.task`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from seewide.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from seewide.data.samples import Samples

Sample = dict[str, Any]
Batch = dict[str, Any]
Facts = dict[str, Any]
O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True)
class Score:
    """The number that picks the best weights.

    Attributes:
        key: of the dict that `Metric.compute` returns.
        mode: `max` or `min`.
        unit: how it is shown, `%` or empty.
        label: for tables and figures; default: `key`.
    """

    key: str
    mode: str = "max"
    unit: str = ""
    label: str = ""

    def rank(self, row: dict[str, float]) -> tuple[float, float]:
        """A sort key for validation rows: larger is better. Ties go to the lower loss."""
        value, loss = row.get(f"val_{self.key}"), row.get("val_loss", 0.0)
        if value is None or value != value:
            return float("-inf"), -loss
        return (value if self.mode == "max" else -value), -loss

    def show(self, value: float) -> str:
        """`top-1 97.21%`"""
        return f"{self.label or self.key} {value:.4g}{self.unit}"


@dataclass(frozen=True)
class DataSplits:
    """What a task makes of `--data`.

    Attributes:
        name: opens the same data again from any working directory.
        train, val: samples to learn from, and held-out samples to judge by.
        held_out: in words, where the held-out samples come from.
        facts: JSON values that evaluation, prediction, export and serving need: class names,
            anchors, sample rate, number of series. They travel with the weights and are compared
            when a run is resumed.
        short: a name for folders and tables, such as `flowers`.
        in_memory: whether the samples need no worker processes to be read.
    """

    name: str
    train: Samples
    val: Samples
    held_out: str
    facts: Facts
    short: str = ""
    in_memory: bool = False


class Metric(Protocol):
    """Accumulates predictions. It is pickled to be gathered from several processes."""

    def update(self, prediction: Any, batch: Batch) -> None: ...

    def merge(self, others: Sequence[Metric]) -> None:
        """Add what other processes have accumulated."""
        ...

    def compute(self) -> dict[str, float]:
        """Finite numbers by name; `loss` too if it is known."""
        ...


@dataclass(frozen=True)
class ResultTable:
    """A table of results: what `seewide eval` and `seewide predict` print and write as CSV."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class FilePrediction:
    """A prediction to be written to a file.

    Attributes:
        path: of the image that it is for.
        size: (width, height) of the image in pixels.
        description: see `Task.describe`.
    """

    path: Path
    size: tuple[int, int]
    description: dict[str, Any]


@dataclass(frozen=True)
class TrainingContext:
    """What `Task.prepare` gets.

    Attributes:
        facts, preprocess: of the run.
        device: that the model trains on.
        device_batch: samples of a micro-batch.
        load: `load(name)` -> (model in evaluation mode, facts or None, preprocess): a run folder,
            its weights file, or a timm name, with `create` options for the latter.
    """

    facts: Facts
    preprocess: dict[str, Any]
    device: torch.device
    device_batch: int
    load: Callable[..., tuple[nn.Module, Facts | None, dict[str, Any]]]


class Task(Generic[O]):
    """What is learned. Subclasses say only their difference.

    Args:
        options: an instance of the class's `Options`.

    Class attributes:
        name: that of the file.
        Options: a frozen dataclass of `seewide.options.option` fields: the task's own recipe keys.
        score: picks the best weights.
        unit: what "per second" counts.
        accumulates: False where the loss needs all samples of a step at once (contrastive losses).
        default_recipe: used where nothing names one.
        preferred_to: tasks that recognize this task's data too, as what it is not in the first
            place: frames of videos are images.
        file_formats: that `write_files` knows; `seewide predict --files` takes the first of them.
        not_exported: a sentence that says why `seewide export` cannot write the models, if so.
        needs_text: whether `read` takes `text` too: what to look for in the file.
    """

    name: ClassVar[str]
    Options: ClassVar[type]
    score: ClassVar[Score]
    unit: ClassVar[str] = "images"
    accumulates: ClassVar[bool] = True
    default_recipe: ClassVar[str] = "small_folder"
    preferred_to: ClassVar[tuple[str, ...]] = ()
    file_formats: ClassVar[tuple[str, ...]] = ()
    needs_text: ClassVar[bool] = False
    not_exported: ClassVar[str] = ""

    def __init__(self, options: O | None = None) -> None:
        self.options: O = self.Options() if options is None else options

    # ---- data

    @classmethod
    def recognize(cls, data: str) -> str | None:
        """What this task finds at `data`, in words (`5 folders of images`); None if nothing.

        `seewide train` without `--task` takes the first task that recognizes its data.
        """
        return None

    def open(self, data: str) -> DataSplits:
        """Find the samples.

        Raises:
            InputError: no such data, or data this task cannot learn from.
        """
        raise NotImplementedError

    def check_data(self, data: str) -> None:
        """Refuse data that cannot be evaluated on, before weights are downloaded.

        Raises:
            InputError: as `open`, as far as it can be said at no cost.
        """

    def held_out(self, data: str, facts: Facts, *, trained_on: str) -> tuple[Samples, str]:
        """The samples to evaluate a trained model on, and in words where they come from.

        Args:
            facts: of the model. By default those of the data must be equal.
            trained_on: the `DataSplits.name` of the run; empty for published weights.
        """
        splits = self.open(data)
        if splits.facts != facts:
            raise InputError(
                f"{data} does not agree with what the model was trained for: its facts are "
                f"{splits.facts}, those of the model {facts}"
            )
        return splits.val, splits.held_out

    @classmethod
    def default_recipe_for(cls, data: str) -> str:
        """The recipe to train by if none is named."""
        return cls.default_recipe

    def published_facts(self, backbone: nn.Module) -> Facts:
        """The facts of published weights, which have none of a run.

        Raises:
            InputError: this task has no published weights under timm's names.
        """
        raise InputError(f"there are no published weights for the task {self.name}; give a run")

    def published_preprocess(self, backbone: nn.Module) -> dict[str, Any]:
        """How published weights were evaluated."""
        return self.preprocess(backbone)

    def measure(self, sample: Sample) -> dict[str, float]:
        """Numbers that describe a sample as it was read, for `seewide inspect`."""
        if "image" not in sample:
            return {}
        return {"width, pixels": sample["image"].width, "height, pixels": sample["image"].height}

    def overview(self, splits: DataSplits) -> list[ResultTable]:
        """Tables that describe the data beyond single samples, for `seewide inspect`."""
        return []

    def preprocess(self, backbone: nn.Module) -> dict[str, Any]:
        """Evaluation preprocessing as JSON values; it travels with the weights.

        Networks for images return `seewide.preprocess.Preprocess(...).to_dict()`.
        """
        return {}

    def transform(self, train: bool, preprocess: dict[str, Any]) -> Callable[[Sample], Sample]:
        """From a sample as it was read to tensors. All randomness comes from the global
        generators of Python, numpy and torch, which the engine seeds per sample."""
        raise NotImplementedError

    def collate(self, samples: list[Sample]) -> Batch:
        """Samples to a (nested) dict of tensors and lists; every value has one entry a sample."""
        return torch.utils.data.default_collate(samples)

    # ---- model

    def backbone_options(self, facts: Facts) -> dict[str, Any]:
        """Arguments of `timm.create_model`: `num_classes`, `features_only`, `in_chans` ..."""
        return {}

    def prepare(self, model: nn.Module, context: TrainingContext) -> None:
        """Called once before training, for what the loss needs beyond the model: a teacher."""

    def announce(self, backbone: nn.Module) -> dict[str, Any]:
        """Lines for the beginning of a run, beyond those that all tasks share."""
        return {}

    def build(self, backbone: nn.Module, facts: Facts) -> nn.Module:
        """The model to train. If it is not the backbone itself, `.backbone` is."""
        return backbone

    def example(self, facts: Facts, preprocess: dict[str, Any], count: int = 2) -> Tensor:
        """An input of the model: to check it before any training, and for export."""
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """`{"loss": sum over the samples, "weight": what it is to be divided by, ...}`.

        The engine divides by the sum of `weight` over the micro-batches and processes of an
        optimizer step. Further entries are sums that are logged as means of the same weight.
        """
        raise NotImplementedError

    # ---- exported files

    def graph(self, model: nn.Module) -> tuple[nn.Module, dict[str, Any]]:
        """What `seewide export` records of a model: a module from one tensor to tensors, and
        arguments of `seewide.export.common.Axes` instead of those of the command line."""
        return model, {}

    def prepare_exported(self, facts: Facts) -> None:
        """Set up what predictions of an exported file need, in place of `build`."""
        self.build(nn.Identity(), facts)

    def run_exported(
        self, run: Callable[[Tensor], tuple[Tensor, ...]], inputs: Any, preprocess: dict[str, Any]
    ) -> Any:
        """What the model would return, by an exported file of its `graph`."""
        found = run(inputs)
        return found[0] if len(found) == 1 else found

    # ---- results

    def predict(self, model: nn.Module, batch: Batch) -> Any:
        """What the model says of a batch, in the form that `metric` and `describe` take."""
        raise NotImplementedError

    def metric(self, facts: Facts) -> Metric:
        raise NotImplementedError

    def tables(self, metric: Metric, facts: Facts) -> list[ResultTable]:
        """Tables of an evaluation beyond `metric.compute()`: per class, per horizon."""
        return []

    def figures(self, metric: Metric, facts: Facts) -> dict[str, Callable[[Path], Path]]:
        """Figures of an evaluation: file name -> function that draws into a path."""
        return {}

    def is_input(self, folder: Path) -> bool:
        """Whether `read` takes this folder itself, such as the frames of a video, and not the
        files in it."""
        return False

    def read(self, path: Path) -> Iterable[Sample]:
        """The samples of a file that a user wants a prediction of.

        Raises:
            InputError: the file cannot be read; the sentence names it.
        """
        raise NotImplementedError

    def describe(self, prediction: Any, index: int, facts: Facts) -> dict[str, Any]:
        """The prediction of sample `index` as JSON values, best first where there is an order."""
        raise NotImplementedError

    def labels(self, sample: Sample, facts: Facts) -> dict[str, Any] | None:
        """The truth of a sample as it was read, in the form of `describe`; None if that form
        cannot say it. With it, runs begin with a page of samples and evaluations draw the worst."""
        return None

    def rows(self, description: dict[str, Any]) -> list[dict[str, Any]]:
        """A description as rows of a table."""
        return [description]

    def summary(self, description: dict[str, Any]) -> dict[str, Any]:
        """A description as one short row, for the terminal."""
        return description

    def write_files(
        self, format: str, found: Sequence[FilePrediction], folder: Path, facts: Facts
    ) -> list[Path]:
        """Write predictions into a folder in one of `file_formats`; returns what was written."""
        raise NotImplementedError

    def worst(self, metric: Metric) -> list[int]:
        """Positions of the evaluated samples, those with the largest errors first; empty if no
        error of single samples is known."""
        return []

    def plot(self, axes: Axes, sample: Sample, description: dict[str, Any]) -> None:
        """Draw a sample with a description into axes of matplotlib."""
        raise NotImplementedError

    def draw(self, sample: Sample, description: dict[str, Any]) -> Figure | None:
        """A sample and its prediction as a figure; None where there is nothing to see."""
        if type(self).plot is Task.plot:
            return None
        from seewide.analysis.figures import image_figure

        figure, axes = image_figure(sample["image"].size)
        self.plot(axes, sample, description)
        return figure

    def draw_page(
        self, entries: Sequence[tuple[str, Sample, dict[str, Any]]], path: Path, columns: int = 4
    ) -> Path:
        """(title, sample, description) as one page of images."""
        from seewide.analysis.figures import draw_page

        cells = [
            (title, lambda axes, s=sample, d=description: self.plot(axes, s, d))
            for title, sample, description in entries
        ]
        return draw_page(cells, path, columns)


def find_backbone(model: nn.Module) -> nn.Module:
    """The timm network inside a model: the innermost `.backbone`, or the model itself."""
    while isinstance(inner := getattr(model, "backbone", None), nn.Module):
        model = inner
    return model
