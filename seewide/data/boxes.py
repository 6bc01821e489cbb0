"""Images with boxes, and masks if there are any: what the readers of COCO, YOLO and VOC share.

A sample is {"image", "image_id", "name", "boxes" (G, 4), "labels" (G,), "crowd" (G,)[, "masks"
(G, H, W)]}, boxes as x1, y1, x2, y2 in pixels of the image. Crowds are groups that nobody
separated: they take no part in training, and detections inside them are not counted as false.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seewide.errors import InputError

from .images import read_image, verify_image
from .samples import Sample, Samples

LEAST_SIDE = 1.0  # pixels; boxes that are smaller after clipping are left out


@dataclass
class Annotations:
    """What is known of an image before it is read.

    Attributes:
        image: where it is.
        image_id: what identifies it, in results too.
        boxes: (x1, y1, x2, y2) each.
        labels: class index each.
        crowd: whether each is a crowd.
        segmentations: of each, as COCO stores it; empty if there are none.
        size: (height, width) as the annotations say; None if they do not.
    """

    image: Path
    image_id: int | str
    boxes: list[Sequence[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    segmentations: list[Any] = field(default_factory=list)
    size: tuple[int, int] | None = None


@dataclass
class Counts:
    """What a reader found, for the beginning of a run."""

    images: int = 0
    boxes: int = 0
    crowd: int = 0
    empty: int = 0
    clipped: int = 0
    dropped: int = 0

    def __str__(self) -> str:
        words = f"{self.images} images, {self.boxes} boxes"
        for name, text in (
            ("crowd", "crowds"),
            ("empty", "images without a box"),
            ("clipped", "boxes clipped to their image"),
            ("dropped", "boxes left out since they have no area inside their image"),
        ):
            if count := getattr(self, name):
                words += f", {count} {text}"
        return words


class BoxSamples(Samples):
    """Images with boxes.

    Args:
        annotations: one entry per image.
        decode: a segmentation, height and width to a mask (H, W) of 0 and 1; None: no masks.
        root: names of samples are relative to it.
    """

    def __init__(
        self,
        annotations: Sequence[Annotations],
        root: Path,
        decode: Callable[[Any, int, int], np.ndarray] | None = None,
    ) -> None:
        self.annotations = annotations
        self.root = root
        self.decode = decode
        self.counts = Counts(len(annotations))
        for entry in annotations:
            self._clean(entry)

    def _clean(self, entry: Annotations) -> None:
        """Clip boxes to the image and leave out those without area, where the size is known."""
        for box in entry.boxes:
            if not np.isfinite(box).all():
                raise InputError(f"a box of {entry.image} is not finite: {list(box)}")
        if entry.boxes and entry.size is not None:
            boxes = np.asarray(entry.boxes, dtype=np.float64)
            height, width = entry.size
            inside = boxes.clip(0, [width, height, width, height])
            keep = (inside[:, 2:] - inside[:, :2] >= LEAST_SIDE).all(1)
            self.counts.clipped += int((keep & (np.abs(inside - boxes).max(1) > 0.5)).sum())
            self.counts.dropped += int((~keep).sum())
            rows = keep.nonzero()[0]
            entry.boxes = [tuple(inside[row]) for row in rows]
            for name in ("labels", "crowd", "segmentations"):
                values = getattr(entry, name)
                setattr(entry, name, [values[row] for row in rows] if values else [])
        self.counts.boxes += len(entry.boxes)
        self.counts.crowd += sum(entry.crowd)
        self.counts.empty += not entry.boxes

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Sample:
        entry = self.annotations[index]
        image = read_image(entry.image)
        width, height = image.size
        if entry.size is not None and entry.size != (height, width):
            raise InputError(
                f"{entry.image} has {width} x {height} pixels, its annotations are for "
                f"{entry.size[1]} x {entry.size[0]}"
            )
        sample = {
            "image": image,
            "image_id": entry.image_id,
            "name": entry.image.name,
            "boxes": np.asarray(entry.boxes, dtype=np.float32).reshape(-1, 4),
            "labels": np.asarray(entry.labels, dtype=np.int64),
            "crowd": np.asarray(entry.crowd, dtype=bool),
        }
        if self.decode is not None:
            masks = [self._mask(entry, i, height, width) for i in range(len(entry.boxes))]
            sample["masks"] = np.array(masks, dtype=np.uint8).reshape(-1, height, width)
        return sample

    def _mask(self, entry: Annotations, index: int, height: int, width: int) -> np.ndarray:
        try:
            mask = self.decode(entry.segmentations[index], height, width)
        except InputError:
            raise
        except Exception as error:  # the decoder raises whatever it comes across
            raise InputError(
                f"the mask of object {index} of {entry.image} cannot be decoded: {error}"
            ) from None
        if mask.shape != (height, width):
            raise InputError(
                f"the mask of object {index} of {entry.image} has {mask.shape[1]} x "
                f"{mask.shape[0]} pixels, the image {width} x {height}"
            )
        return mask

    def verify(self, index: int) -> None:
        entry = self.annotations[index]
        verify_image(entry.image)
        if self.decode is not None and entry.size is not None:
            for i in range(len(entry.boxes)):
                self._mask(entry, i, *entry.size)

    def names(self) -> Iterable[str]:
        for entry in self.annotations:
            yield f"{entry.image.relative_to(self.root)} {entry.boxes} {entry.labels}"

    def with_objects(self) -> Samples:
        """Only images with a box that is no crowd, which training uses."""
        kept = [
            i for i, entry in enumerate(self.annotations)
            if len(entry.boxes) > sum(entry.crowd)
        ]  # fmt: skip
        return self if len(kept) == len(self) else self.take(kept)
