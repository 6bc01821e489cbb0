"""A recipe: how a network is trained, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from seewide.errors import InputError, unknown
from seewide.options import check, option, parse

SCHEDULES = ("cosine", "poly", "step", "constant")


@dataclass(frozen=True)
class Recipe:
    """All settings of a training run that belong to no task.

    `options` holds the settings of the task, which validates them: `Task.Options(**options)`.
    `batch_size` counts the samples of an optimizer step over all processes and micro-batches, so a
    recipe written for 32 GPUs gives the same steps, more slowly, on one.

    Raises:
        InputError: a value out of range.
    """

    # The network.
    model: str = option(
        "",
        "Network by its timm name; a weight tag (`unireplknet_s.in22k`) names the weights that "
        "--pretrained loads. Empty: the command line names the network.",
    )
    smoke_model: str = option(
        "", "Network of the smoke test: the smallest one of the family. Empty: the same network."
    )
    model_options: dict[str, Any] = option(
        {}, "Further arguments of `timm.create_model`, such as kernel_size:7."
    )
    stem_stride: int = option(
        0, "Stride of the first feature map (0: the model's own, usually 4).", least=0
    )
    layer_scale: float = option(
        0.0, "Initial value of the layer scale (0: the model's own, often 1e-6).", least=0
    )
    fan_in_init: bool = option(
        False,
        "Initialize convolutions and linear layers with a standard deviation of 1 / sqrt(fan-in), "
        "in networks with layer norm.",
    )
    head_init_scale: float = option(1.0, "Factor on the initial weights of the classifier.")
    drop_path: float = option(0.0, "Rate of stochastic depth.", least=0, most=1)
    freeze: tuple[str, ...] = option(
        (), "Prefixes of parameter names that are not trained, such as stem,stages.0."
    )
    start_from: str = option(
        "random",
        "Weights that the recipe is meant for: random, those of --pretrained, or those of "
        "--checkpoint.",
        choices=("random", "pretrained", "checkpoint"),
        may_change=True,
    )

    # The task.
    task: str = option("classification", "What is learned; `seewide tasks` lists the tasks.")
    options: dict[str, Any] = option({}, "Options of the task.")
    smoke_options: dict[str, Any] = option(
        {}, "Options of the task that the smoke test changes.", may_change=True
    )
    limit_samples: int = option(
        0, "Use at most N training and N validation samples (0: all).", least=0
    )
    repeated_augment: int = option(
        1,
        "Number of times that a sample is drawn in an epoch, each time augmented differently; "
        "the length of the epoch stays the same.",
        least=1,
    )

    # How long.
    epochs: int = option(300, "Number of epochs.", least=1, flag=True)
    steps: int = option(
        0, "Number of optimizer steps (0: `epochs` sets the length of training).", least=0
    )
    batch_size: int = option(
        4096,
        "Samples per optimizer step, over all processes and micro-batches.",
        least=1,
        flag=True,
    )
    device_batch: int = option(
        0,
        "Samples that one device processes at once; gradients of further micro-batches accumulate "
        "(0: its share of the batch).",
        least=0,
    )
    val_every: int = option(1, "Validate every N epochs, and after the last one.", least=1)
    patience: int = option(
        0, "Stop after N validations without a better score (0: never).", least=0
    )

    # The optimizer.
    optimizer: str = option("adamw", "Optimizer by its timm name, such as adamw, sgd or lamb.")
    lr: float = option(4e-3, "Peak learning rate.", above=0, flag=True)
    lr_batch: int = option(
        0,
        "Batch size that `lr` is meant for; the learning rate scales in proportion to the actual "
        "batch size (0: it does not scale).",
        least=0,
    )
    momentum: float = option(0.9, "Momentum of SGD and RMSprop.", least=0, below=1)
    betas: tuple[float, ...] = option(
        (), "Coefficients of the running averages of Adam and its relatives (empty: the default)."
    )
    weight_decay: float = option(0.05, "Weight decay.", least=0)
    layer_decay: float = option(
        1.0,
        "Factor on the learning rate from each group of layers to the one before it.",
        above=0,
        most=1,
    )
    layer_groups: int = option(
        0,
        "Number of groups for `layer_decay` (12: as in the authors' scripts, with three blocks of "
        "the third stage per group; 0: one group per block).",
        least=0,
    )
    lr_multipliers: dict[str, float] = option(
        {}, "Factors on the learning rate by prefix of the parameter name: head:10,backbone:0.1."
    )
    weight_decay_multipliers: dict[str, float] = option(
        {}, "Factors on the weight decay by prefix of the parameter name: attention_biases:0."
    )
    clip_grad: float = option(
        0.0, "Largest norm of the gradient of all parameters (0: no clipping).", least=0
    )
    clip_adaptive: float = option(
        0.0,
        "Adaptive gradient clipping: largest gradient norm of a unit relative to the norm of its "
        "weights (0: no clipping).",
        least=0,
    )

    # The schedule.
    schedule: str = option("cosine", "Shape of the learning rate schedule.", choices=SCHEDULES)
    min_lr: float = option(1e-6, "Learning rate at the end of training.", least=0)
    warmup_epochs: float = option(5.0, "Length of the linear warm-up in epochs.", least=0)
    warmup_steps: int = option(
        0, "Length of the linear warm-up in optimizer steps (0: use `warmup_epochs`).", least=0
    )
    warmup_lr: float = option(1e-6, "Learning rate at the start of the warm-up.", least=0)
    poly_power: float = option(0.9, "Exponent of the poly schedule.", above=0)
    decay_at: tuple[int, ...] = option(
        (),
        "When the step schedule multiplies the learning rate by `decay_rate`: epochs, or "
        "optimizer steps if `steps` is set.",
    )
    decay_rate: float = option(0.1, "Factor of the step schedule.", above=0, most=1)

    # Statistics and averages.
    ema_decay: float = option(
        0.0,
        "Decay of the exponential moving average of the weights, which is then what is validated "
        "and saved (0: no average).",
        least=0,
        below=1,
    )
    ema_warmup: bool = option(
        False, "Increase the decay of the average from 0 during training, as timm does."
    )
    sync_batch_norm: bool = option(
        False, "Compute batch normalization statistics over all processes (CUDA only)."
    )

    # Dynamic sparsity (SLaK, PeLK).
    sparsity: float = option(
        0.0,
        "Share of the weights of convolutions and linear layers that is zero.",
        least=0,
        below=1,
    )
    sparse_init: str = option("snip", "How the first zeros are chosen.", choices=("snip", "random"))
    prune_rate: float = option(
        0.3,
        "Share of the non-zero weights that is exchanged at a time; it falls to 0 with a cosine.",
        least=0,
        most=1,
    )
    prune_every: int = option(100, "Exchange weights every N optimizer steps.", least=1)
    growth: str = option("random", "Which zeros become weights.", choices=("random", "gradient"))

    # Where it comes from.
    dataset: str = option("", "Data set that the recipe was made for.", may_change=True)
    source: str = option("", "Where the settings are from: paper, table, command.", may_change=True)
    expected: dict[str, float] = option(
        {}, "Published or measured results, by metric.", may_change=True
    )
    hardware: str = option(
        "", "Published hardware: GPUs x samples per GPU x micro-batches.", may_change=True
    )
    note: str = option("", "What else there is to know.", may_change=True)

    def __post_init__(self) -> None:
        for name in ("options", "smoke_options", "model_options"):  # as JSON has them
            object.__setattr__(self, name, _plain(getattr(self, name)))
        check(self)
        if self.layer_groups and self.layer_groups < 4:
            raise InputError(f"layer_groups must be 0, or 4 or more, got {self.layer_groups}")
        if self.device_batch and self.batch_size % self.device_batch:
            raise InputError(
                f"device_batch must be a divisor of batch_size={self.batch_size}, got "
                f"{self.device_batch}"
            )
        if list(self.decay_at) != sorted(set(self.decay_at)) or min(self.decay_at, default=1) < 1:
            raise InputError(
                f"decay_at must be ascending whole numbers from 1 on, got {self.decay_at}"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas must be at least 0 and below 1, got {self.betas}")
        for name in ("lr_multipliers", "weight_decay_multipliers"):
            if not all(0 <= factor < float("inf") for factor in getattr(self, name).values()):
                raise InputError(f"{name} must be finite and at least 0, got {getattr(self, name)}")

    @property
    def length(self) -> str:
        """`300 epochs` or `160000 steps`."""
        return f"{self.steps} steps" if self.steps else f"{self.epochs} epochs"

    @property
    def expectation(self) -> str:
        """`top1 83.21`, or nothing."""
        return ", ".join(f"{metric} {value:g}" for metric, value in self.expected.items())

    @property
    def architecture(self) -> dict[str, Any]:
        """What changes the network beyond its name and the task; stored with the weights."""
        return {"stem_stride": self.stem_stride, "model_options": self.model_options}

    @property
    def micro_batches(self) -> int:
        """Micro-batches per optimizer step, if there is one process."""
        return self.batch_size // (self.device_batch or self.batch_size)

    @property
    def scaled_lr(self) -> float:
        """Peak learning rate for this batch size."""
        return self.lr * self.batch_size / (self.lr_batch or self.batch_size)

    def with_batch_size(self, batch_size: int) -> Recipe:
        """The same recipe with another batch size.

        `device_batch` becomes the largest divisor of the new batch size that is not larger.
        """
        if not self.device_batch:  # stays the share of whatever the batch is
            return replace(self, batch_size=batch_size)
        largest = min(self.device_batch, batch_size)
        fitting = next((size for size in range(largest, 1, -1) if batch_size % size == 0), largest)
        return replace(self, batch_size=batch_size, device_batch=fitting)

    def smoke(self) -> Recipe:
        """The smoke test of the recipe, which takes a laptop less than a minute.

        Two optimizer steps of two micro-batches on 16 samples, with the smallest network of the
        family and the task's options of `smoke_options`. Everything else stays, so the test runs
        all the parts that the recipe uses; a sparse network exchanges weights after each step.
        `sync_batch_norm` is off, since torch has it on GPUs only.
        """
        return replace(
            self,
            model=self.smoke_model or self.model,
            options={**self.options, **self.smoke_options},
            epochs=1,
            steps=min(self.steps, 2),
            batch_size=8,
            device_batch=4,
            limit_samples=16,
            lr_batch=min(self.lr_batch, 8),
            warmup_epochs=min(self.warmup_epochs, 0.5),
            warmup_steps=min(self.warmup_steps, 1),
            decay_at=(),
            val_every=1,
            prune_every=1,
            sync_batch_norm=False,
        )


def _plain(value: Any) -> Any:
    """The value with lists in place of tuples, at any depth."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def override(
    recipe: Recipe, settings: Mapping[str, Any], task_options: type | None = None
) -> Recipe:
    """Replace settings by name. Text is read as the type of the option (`{"lr": "1e-3"}`).

    Args:
        settings: names of recipe fields, of options of the task, or `task.NAME` for the latter.
        task_options: the task's `Options`, which says what its options are.

    Raises:
        InputError: unknown name, or a value of the wrong type or out of range.
    """
    own = {field.name for field in fields(Recipe)} - {"options", "smoke_options"}
    of_task = {field.name for field in fields(task_options)} if task_options else set()
    values: dict[str, Any] = {}
    options = dict(recipe.options)
    for name, value in settings.items():
        task_name = name.removeprefix("task.")
        if name in own:  # before an option of the task with the same name
            values[name] = parse(Recipe, name, value)
        elif task_name in of_task:
            options[task_name] = parse(task_options, task_name, value)
        else:
            raise unknown("setting", name, own | of_task)
    if "batch_size" in values and "device_batch" not in values:
        recipe = recipe.with_batch_size(values.pop("batch_size"))
    changed = replace(recipe, options=options, **values)
    if task_options:
        task_options(**{k: parse(task_options, k, v) for k, v in changed.options.items()})
    return changed


class Table:
    """Recipes that differ in a few settings, one per row.

    Args:
        base: the settings that all rows share.
        columns: names of the columns, separated by spaces. The first one is the recipe's name, the
            others are fields; `options.mixup` and `expected.top1` are entries of such fields.
        rows: values. None keeps the setting of `base`, or leaves out the entry; a row may be
            shorter than the table.
    """

    def __init__(self, base: Recipe, columns: str, *rows: Sequence[Any]) -> None:
        self.base = base
        self.columns = tuple(columns.split()[1:])
        self.recipes = {name: self._recipe(values) for name, *values in rows}

    def _recipe(self, values: Sequence[Any]) -> Recipe:
        changes: dict[str, Any] = {}
        for column, value in zip(self.columns, values, strict=False):
            field, _, key = column.partition(".")
            if value is not None and key:
                changes[field] = {**changes.get(field, getattr(self.base, field)), key: value}
            elif value is not None:
                changes[field] = value
        return replace(self.base, **changes)


@dataclass(frozen=True)
class Family:
    """Recipes that belong together, as one or more tables.

    Attributes:
        title: what they train, on what.
        tables: the tables.
        note: what holds for all of them.
    """

    title: str
    tables: tuple[Table, ...]
    note: str = ""

    @property
    def recipes(self) -> dict[str, Recipe]:
        """All recipes by name."""
        return {name: recipe for table in self.tables for name, recipe in table.recipes.items()}


def changed(recipe: Recipe, **settings: Any) -> Recipe:
    """`dataclasses.replace` that adds to `options` instead of replacing them."""
    options = {**recipe.options, **settings.pop("options", {})}
    return replace(recipe, options=options, **settings)
