"""Fused towers, and ONNX files of both towers of a CLIP and of a tower with its projector.

Each file is opened by ONNX Runtime and compared with the model it was made from.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from seewide.errors import InputError, require, write_atomically
from seewide.export.common import LARGEST_DEVIATION, one_sentence, quiet
from seewide.export.onnx import open_session
from seewide.numerics import deviation
from seewide.reparam import fuse

EXTRA = "export"


@dataclass(frozen=True)
class ExportedFile:
    """A file, and its largest relative deviation from the model."""

    path: Path
    deviation: float


def fuse_tower(clip: nn.Module) -> nn.Module:
    """A copy of a CLIP model, in evaluation mode, whose image tower is fused.

    Raises:
        InputError: the model has no image tower of timm.
    """
    trunk = getattr(getattr(clip, "visual", None), "trunk", None)
    if trunk is None:
        raise InputError(f"{type(clip).__name__} has no image tower of timm to fuse")
    H, W = clip.visual.image_size
    fused = copy.deepcopy(clip).eval()
    p = next(trunk.parameters())
    fused.visual.trunk = fuse(trunk, torch.randn(2, 3, H, W, dtype=p.dtype, device=p.device))
    return fused


class ImageTower(nn.Module):
    """(N, 3, H, W) images to (N, D) embeddings of length 1."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.visual = clip.visual

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(self.visual(images), dim=-1)


class TextTower(nn.Module):
    """(N, L) token indices to (N, D) embeddings of length 1."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, tokens: Tensor) -> Tensor:
        return self.clip.encode_text(tokens, normalize=True)


class TowerAndProjector(nn.Module):
    """(N, 3, H, W) images to the (N, tokens, width) inputs of a language model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.tower = model.model.vision_tower.timm_model
        self.projector = model.model.multi_modal_projector

    def forward(self, images: Tensor) -> Tensor:
        return self.projector(self.tower.forward_features(images).flatten(2).mT)


def export_clip(clip: nn.Module, folder: Path, context_length: int) -> list[ExportedFile]:
    """Write `image.onnx` (fused) and `text.onnx` into a folder; the batch size is free.

    Raises:
        InputError: a tower that cannot be exported, or outputs that deviate.
    """
    fused = fuse_tower(clip.cpu())
    H, W = clip.visual.image_size
    tokens = torch.randint(1, clip.vocab_size, (3, context_length))
    return [
        _export(
            ImageTower(clip), ImageTower(fused), torch.randn(3, 3, H, W), "images",
            folder / "image.onnx",
        ),
        _export(TextTower(clip), TextTower(fused), tokens, "tokens", folder / "text.onnx"),
    ]  # fmt: skip


def export_tower(model: nn.Module, folder: Path, image_size: int) -> list[ExportedFile]:
    """Write `tower.onnx`, the fused tower and the projector of a vision-language model.

    Raises:
        InputError: a tower that cannot be exported, or outputs that deviate.
    """
    original = TowerAndProjector(model).cpu().eval()
    images = torch.randn(3, 3, image_size, image_size)
    fused = copy.deepcopy(original)
    fused.tower = fuse(original.tower, images)
    return [_export(original, fused, images, "images", folder / "tower.onnx")]


def _export(
    original: nn.Module, model: nn.Module, example: Tensor, name: str, path: Path
) -> ExportedFile:  # fmt: skip
    """Export `model`, and compare the file with `original` at two batch sizes."""
    require("onnxscript", EXTRA)
    model, original = model.eval(), original.eval()
    with one_sentence("onnx"), quiet(), torch.no_grad():
        program = torch.onnx.export(
            model, (example,), dynamo=True, verbose=False, input_names=[name],
            output_names=["embeddings"], dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # stack traces, with the folders of this machine in them
    found = []

    def write(scratch: Path) -> None:
        program.save(str(scratch), external_data=False)
        session = open_session(scratch)
        for x in (example, example[:1]):
            with torch.no_grad():
                want = original(x)
            got = torch.from_numpy(session.run(None, {name: x.numpy()})[0])
            found.append(deviation(got, want))
        if not max(found) <= LARGEST_DEVIATION:
            raise InputError(
                f"not exported: the outputs of {path.name} deviate by {max(found):.1e} relative, "
                f"allowed is {LARGEST_DEVIATION:.0e}"
            )

    return ExportedFile(write_atomically(path, write), max(found))
