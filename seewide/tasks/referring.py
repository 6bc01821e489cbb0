"""Referring segmentation: the mask of what a sentence names, in images and frames of videos.

Shapes: N expressions, L words, H x W the image, S x S what the network sees.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from seewide.data.images import read_image
from seewide.data.referring import describe_referring, open_referring
from seewide.data.samples import Samples
from seewide.errors import InputError
from seewide.modalities import ReferringSegmenter
from seewide.modalities.referring_metric import ReferringMetric
from seewide.options import check, option
from seewide.preprocess import Preprocess
from seewide.tasks._task import Batch, DataSplits, Facts, ResultTable, Sample, Score, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PADDING, UNKNOWN = "<padding>", "<unknown>"
MIRRORED = {"left": "right", "leftmost": "rightmost"}
MIRRORED |= {right: left for left, right in MIRRORED.items()}


@dataclass(frozen=True)
class ReferringOptions:
    """Fusion of words and image, augmentation and loss."""

    side: int = option(224, "Height and width that images are resized to, in pixels.", least=32)
    fusion: str = option(
        "asymmetric",
        "asymmetric: the words are the kernel of a convolution over the map; product: RefVOS' "
        "element-wise product; acm: convolutions of both, added.",
        choices=("asymmetric", "product", "acm"),
    )
    kernel_size: int = option(
        0, "Words of the asymmetric fusion's kernel, an odd number (0: all words).", least=0
    )
    channels: int = option(128, "Channels of the fused map.", least=1)
    word_dim: int = option(128, "Width of the words' vectors.", least=2)
    words: int = option(20, "Words read of an expression.", least=1)
    expressions: str = option(
        "full_video",
        "Refer-DAVIS: expressions of annotators who saw the full video or the first frame.",
        choices=("full_video", "first_frame"),
    )
    mirror: float = option(
        0.5, "Probability of a horizontal flip, which exchanges left and right in words too.",
        least=0, most=1,
    )  # fmt: skip
    crop: float = option(0.5, "Probability of a random crop around the object.", least=0, most=1)
    forget: float = option(
        0.0,
        "Probability that a word is replaced by the unknown one, in training.",
        least=0,
        below=1,
    )
    dice: float = option(1.0, "Weight of the Dice loss beside cross-entropy.", least=0)
    threshold: float = option(
        0.5, "Probability above which a pixel belongs to the object.", above=0, below=1,
        may_change=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check(self)
        if self.kernel_size and self.kernel_size % 2 == 0:
            raise InputError(f"kernel_size must be odd, or 0, got {self.kernel_size}")


class Referring(Task[ReferringOptions]):
    """Binary cross-entropy and Dice loss on the mask of the object that the expression names."""

    name = "referring"
    Options = ReferringOptions
    score = Score("j_and_f", "max", "%", "J&F")
    unit = "expressions"
    default_recipe = "small_referring"
    preferred_to = ("classification", "detection", "segmentation")
    needs_text = True
    not_exported = "its model reads words beside the image, and exported files have one input"

    def __init__(self, options: ReferringOptions | None = None) -> None:
        super().__init__(options)
        self._vocabulary: dict[str, int] = {}

    @classmethod
    def recognize(cls, data: str) -> str | None:
        return describe_referring(data)

    def open(self, data: str) -> DataSplits:
        found = open_referring(data, self.options.expressions)
        known = {word for text in found.train.expressions() for word in split_words(text)}
        facts = {"words": [PADDING, UNKNOWN, *sorted(known)], "videos": found.videos}
        short = Path(found.name).name
        return DataSplits(
            found.name, found.train, found.val, found.held_out, facts, short, found.in_memory
        )

    def held_out(self, data: str, facts: Facts, *, trained_on: str) -> tuple[Samples, str]:
        found = open_referring(data, self.options.expressions)
        return found.val, found.held_out

    def measure(self, sample: Sample) -> dict[str, float]:
        return {
            **super().measure(sample),
            "words": len(split_words(sample["expression"])),
            "object, % of the image": 100 * float(sample["mask"].mean()),
        }

    def overview(self, splits: DataSplits) -> list[ResultTable]:
        """Words, and how many expressions of the held-out samples have unknown ones."""
        known = set(splits.facts["words"])
        rows = []
        for part, samples in (("train", splits.train), ("val", splits.val)):
            texts = samples.expressions()
            unknown = sum(not known.issuperset(split_words(text)) for text in texts)
            rows.append((part, len(texts), len(set(texts)), unknown))
        columns = ("part", "expressions", "different", "with words not trained on")
        return [ResultTable(f"Expressions, {len(known) - 2} words", columns, rows)]

    def preprocess(self, backbone: nn.Module) -> dict[str, Any]:
        own = Preprocess.of(backbone)
        return {"mean": list(own.mean), "std": list(own.std)}

    def transform(self, train: bool, preprocess: dict[str, Any]) -> Callable[[Sample], Sample]:
        return _ToTensors(self.options, train, preprocess, self._vocabulary)

    def collate(self, samples: list[Sample]) -> Batch:
        """`image` (N, 3, S, S), `words` (N, L); `mask` (N, S, S) in training, else a list."""
        batch = {key: [sample[key] for sample in samples] for key in samples[0]}
        batch["image"], batch["words"] = torch.stack(batch["image"]), torch.stack(batch["words"])
        if isinstance(batch["mask"][0], Tensor) and batch["mask"][0].is_floating_point():
            batch["mask"] = torch.stack(batch["mask"])
        return batch

    # ---- model

    def backbone_options(self, facts: Facts) -> dict[str, Any]:
        return {"features_only": True}

    def build(self, backbone: nn.Module, facts: Facts) -> nn.Module:
        self._vocabulary = {word: index for index, word in enumerate(facts["words"])}
        options = self.options
        return ReferringSegmenter(
            backbone,
            len(facts["words"]),
            options.channels,
            options.word_dim,
            options.fusion,
            options.kernel_size,
        )

    def example(self, facts: Facts, preprocess: dict[str, Any], count: int = 2) -> Tensor:
        side = self.options.side
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, 3, side, side, generator=generator)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        mask_NHW = batch["mask"]
        logits_NHW = model(batch["image"], batch["words"])[:, 0].float()
        entropy_N = F.binary_cross_entropy_with_logits(logits_NHW, mask_NHW, reduction="none").mean(
            (1, 2)
        )
        probability = logits_NHW.sigmoid()
        common = (probability * mask_NHW).sum((1, 2))
        total = probability.sum((1, 2)) + mask_NHW.sum((1, 2))
        dice_N = 1 - (2 * common + 1) / (total + 1)
        loss = entropy_N + self.options.dice * dice_N
        return {
            "loss": loss.sum(),
            "weight": len(loss),
            "entropy": entropy_N.sum().detach(),
            "dice": dice_N.sum().detach(),
        }

    # ---- results

    def predict(self, model: nn.Module, batch: Batch) -> list[Tensor]:
        """Probabilities (H, W) of each expression, at the size of its image."""
        logits = model(batch["image"], batch["words"]).float()
        sizes = [tuple(mask.shape) for mask in batch["mask"]]
        return [
            F.interpolate(logits[i : i + 1], size=size, mode="bilinear", align_corners=False)[
                0, 0
            ].sigmoid()
            for i, size in enumerate(sizes)
        ]

    def metric(self, facts: Facts) -> ReferringMetric:
        return ReferringMetric(self.options.threshold, facts["videos"])

    def tables(self, metric: ReferringMetric, facts: Facts) -> list[ResultTable]:
        kinds = [(kind or "all", n, round(j, 1)) for kind, n, j in metric.per_kind()]
        worst = [(name, words, round(j, 1)) for name, words, j in metric.worst(20)]
        tables = [
            ResultTable("Per kind", ("kind", "expressions", "J %"), kinds),
            ResultTable("Worst expressions", ("group", "expression", "J %"), worst),
        ]
        if facts["videos"]:
            rows = [(name, *(round(v, 2) for v in values)) for name, *values in metric.davis()]
            tables.append(ResultTable("DAVIS evaluators", ("protocol", "J", "F", "J&F"), rows))
        return tables

    def read(self, path: Path, text: str = "") -> Iterable[Sample]:
        """An image, or the frames of a folder, with the expression.

        Raises:
            InputError: no image, or an expression without words.
        """
        if not split_words(text):
            raise InputError(f"an expression is needed to look for in {path}, got {text!r}")
        image = read_image(path)
        yield {
            "image": image,
            "mask": np.zeros((image.height, image.width), bool),
            "expression": text,
            "group": (path.stem,),
            "kind": "",
        }

    def describe(self, prediction: list[Tensor], index: int, facts: Facts) -> dict[str, Any]:
        """`{"share", "box": [x, y, x, y], "confidence", "mask": run lengths}`.

        The run lengths are those of COCO: of zeros first, column by column.
        """
        probability = prediction[index].cpu()
        mask = probability > self.options.threshold
        rows, columns = (mask.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if rows else []
        return {
            "share": mask.float().mean().item(),
            "box": box,
            "confidence": probability[mask].mean().item() if rows else 0.0,
            "mask": {"size": list(mask.shape), "counts": run_lengths(mask)},
        }

    def summary(self, description: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in description.items() if key != "mask"}

    def draw(self, sample: Sample, description: dict[str, Any]) -> Figure:
        """The image with the mask laid over it and the expression as its title."""
        from matplotlib.figure import Figure

        size, counts = description["mask"]["size"], description["mask"]["counts"]
        values = np.arange(len(counts)) % 2
        mask = np.repeat(values, counts).reshape(size[::-1]).T.astype(bool)
        pixels = np.asarray(sample["image"]).astype(np.float32) / 255
        pixels[mask] = 0.5 * pixels[mask] + 0.5 * np.array([1.0, 0.2, 0.1])
        figure = Figure(figsize=(5, 5 * size[0] / size[1] + 0.4), layout="constrained")
        axis = figure.subplots()
        axis.imshow(pixels)
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"{sample['expression']} ({description['confidence']:.0%})", fontsize=10)
        return figure


def split_words(text: str) -> list[str]:
    """Lower-case words and numbers of an expression."""
    return re.findall(r"[^\W_]+", text.lower())


def run_lengths(mask_HW: Tensor) -> list[int]:
    """COCO's uncompressed run lengths: of zeros, ones, zeros ..., column by column."""
    flat = mask_HW.T.flatten().int()
    changes = (flat.diff() != 0).nonzero().flatten() + 1
    ends = torch.cat([torch.zeros(1, dtype=torch.long), changes, torch.tensor([len(flat)])])
    return ([0] if len(flat) and flat[0] else []) + ends.diff().tolist()


class _ToTensors:
    """A sample to tensors; masks become float (S, S) in training and bool (H, W) otherwise."""

    def __init__(
        self,
        options: ReferringOptions,
        train: bool,
        preprocess: dict[str, Any],
        vocabulary: dict[str, int],
    ) -> None:
        self.options, self.train, self.vocabulary = options, train, vocabulary
        self.mean, self.std = (torch.tensor(preprocess[k])[:, None, None] for k in ("mean", "std"))

    def __call__(self, sample: Sample) -> Sample:
        image, mask, words = sample["image"], sample["mask"], split_words(sample["expression"])
        if self.train:
            image, mask, words = self._augmented(image, mask, words)
        elif not any(word in self.vocabulary for word in words):
            raise InputError(
                f"the model knows none of the words of {sample['expression']!r}; it knows "
                f"{len(self.vocabulary) - 2}, such as {', '.join([*self.vocabulary][2:8])}"
            )
        options = self.options
        side = (options.side, options.side)
        pixels = np.array(image.resize(side, Image.Resampling.BICUBIC), np.float32) / 255
        ids = [self.vocabulary.get(word, 1) for word in words][: options.words]
        ids += [0] * (options.words - len(ids))
        if self.train:
            small = Image.fromarray(mask).convert("L").resize(side, Image.Resampling.BILINEAR)
            truth = torch.from_numpy(np.array(small, np.float32) / 255)
        else:
            truth = torch.from_numpy(np.ascontiguousarray(mask))
        return {
            "image": (torch.from_numpy(pixels).permute(2, 0, 1) - self.mean) / self.std,
            "words": torch.tensor(ids),
            "mask": truth,
            "expression": sample["expression"],
            "group": sample["group"],
            "kind": sample["kind"],
        }

    def _augmented(
        self, image: Image.Image, mask: np.ndarray, words: Sequence[str]
    ) -> tuple[Image.Image, np.ndarray, list[str]]:
        options = self.options
        if torch.rand(()) < options.crop and mask.any():
            (top, bottom), (left, right) = (
                np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (1, 0)
            )
            u = torch.rand(4).tolist()
            box = (
                int(u[0] * left),
                int(u[1] * top),
                int(right + 1 + u[2] * (image.width - right - 1)),
                int(bottom + 1 + u[3] * (image.height - bottom - 1)),
            )
            image, mask = image.crop(box), mask[box[1] : box[3], box[0] : box[2]]
        if torch.rand(()) < options.mirror:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mask = mask[:, ::-1]
            words = [MIRRORED.get(word, word) for word in words]
        if options.forget:
            lost = torch.rand(len(words)) < options.forget
            words = [UNKNOWN if gone else w for w, gone in zip(words, lost, strict=True)]
        return image, np.ascontiguousarray(mask), list(words)
