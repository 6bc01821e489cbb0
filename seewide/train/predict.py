"""The best classes of single pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from seewide.errors import InputError
from seewide.train.build import resolve_device
from seewide.train.checkpoint import load_run
from seewide.train.data import read_picture
from seewide.train.evaluate import eval_transform


@dataclass(frozen=True)
class Prediction:
    """The best classes of a picture with their probabilities, best first; or what is wrong."""

    picture: Path
    best: tuple[tuple[str, float], ...] = ()
    error: str | None = None


@torch.inference_mode()
def predict(
    run: str | Path, pictures: Sequence[str | Path], *, count: int = 5, device: str = "auto"
) -> Iterator[Prediction]:
    """Predict picture by picture with the merged form of a run's best model.

    A picture that cannot be read yields its error, and the rest go on.

    Raises:
        InputError: what is wrong with the run.
    """
    from seewide.reparam import fuse

    target = resolve_device(device)
    model, info = load_run(run)
    model = fuse(model).to(target)
    transform = eval_transform(info)
    for picture in map(Path, pictures):
        try:
            x_1CHW = transform(read_picture(picture))[None].to(target)
        except InputError as error:
            yield Prediction(picture, error=str(error))
            continue
        share_K = model(x_1CHW)[0].float().softmax(0)
        best = share_K.topk(min(count, info.num_classes))
        names = (info.class_names[index] for index in best.indices.tolist())
        yield Prediction(picture, tuple(zip(names, best.values.tolist(), strict=True)))
