"""From the authors' file to ONNX for one size of each family: load, fine-tune, fuse, export.

By default with a narrow network of the family, which `fit` finds in timm by its name; the slow test
uses the published size, through `convert`.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from timm.models import generate_default_cfgs, model_entrypoint, register_model

import seewide
from seewide.checkpoints import convert
from seewide.export import export_model
from seewide.preprocess import Preprocess
from seewide.recipes import Recipe
from seewide.testing import deviation, randomize
from seewide.train import fit, load_run

QUIET = Console(quiet=True)
ONE_EACH = (1, 1, 1, 1)
NARROW = {
    "unireplknet_a": {"depths": ONE_EACH, "dims": (8, 16, 24, 32)},
    "lsnet_t": {"depths": (0, 2, 1, 2), "dims": (16, 16, 24, 32)},
    "uniconvnet_a": {"depths": ONE_EACH, "dims": (8, 16, 24, 32)},
    "replknet_31b": {"depths": ONE_EACH, "dims": (8, 12, 16, 24)},
    "slak_t": {"depths": ONE_EACH, "dims": (8, 12, 16, 24)},
    "pelk_t": {"depths": ONE_EACH, "dims": (16, 16, 24, 32)},
}
default_cfgs = generate_default_cfgs({f"narrow_{name}": {} for name in NARROW})


def _register_narrow(name: str, sizes: dict) -> None:
    def entrypoint(pretrained: bool = False, **kwargs) -> torch.nn.Module:
        return model_entrypoint(name)(pretrained, **{**sizes, **kwargs})

    entrypoint.__name__ = f"narrow_{name}"
    register_model(entrypoint)


for name, sizes in NARROW.items():
    _register_narrow(name, sizes)


def authors_file(model: torch.nn.Module, folder: Path) -> Path:
    """The weights in the layout of the authors' files; PeLK has none, so in ours."""
    family = sys.modules[type(model).__module__]
    if not family.AUTHORS_FORMS:
        save_file(model.state_dict(), folder / "weights.safetensors")
        return folder / "weights.safetensors"
    torch.save({"model": family.authors_state_dict(model.state_dict())}, folder / "weights.pth")
    return folder / "weights.pth"


def paint(folder: Path) -> Path:
    """Six noisy images each, dark and bright."""
    random = np.random.default_rng(0)
    for name, level in (("dark", 60), ("bright", 190)):
        (folder / name).mkdir(parents=True)
        for index in range(6):
            pixels = (level + random.normal(0, 25, (48, 40, 3))).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


def check_fine_tuning_fusing_and_export(
    name: str, weights: Path, images: Path, size: int, out: Path
) -> None:
    """Fine-tune `name` from `weights`; its fused and exported models agree with it."""
    options = {"image_size": size}
    recipe = Recipe(options=options, epochs=2, batch_size=4, lr=1e-3, warmup_epochs=0.0)
    fit(name, images, recipe, out / "run", checkpoint=str(weights), workers=0, console=QUIET)
    model, _, info = load_run(out / "run")
    before = seewide.load_checkpoint(timm.create_model(name), weights).state_dict()
    moved = [
        not torch.equal(parameter, before[key])
        for key, parameter in model.named_parameters()
        if parameter.shape == before[key].shape
    ]
    assert np.mean(moved) > 0.9, "training changes what was loaded"

    files = sorted(images.rglob("*.*"))[1::4]
    transform = Preprocess.from_dict(info.preprocess).transform()
    x_NCHW = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
    with torch.no_grad():
        want = model(x_NCHW)
        assert want.shape == (len(files), len(info.facts["class_names"]))
        assert deviation(seewide.fuse(model, x_NCHW)(x_NCHW), want) < 1e-4
    export_model(model, out / "net.onnx", "onnx", x_NCHW[:2])
    session = pytest.importorskip("onnxruntime").InferenceSession(out / "net.onnx")
    (got,) = session.run(["output"], {"images": x_NCHW.numpy()})
    assert deviation(torch.from_numpy(got), want) < 1e-4
    assert got.argmax(1).tolist() == want.argmax(1).tolist()


@pytest.mark.parametrize("family", NARROW)
def test_narrow_networks(family, tmp_path):
    name = f"narrow_{family}"
    theirs = randomize(timm.create_model(name)).eval()
    weights = authors_file(theirs, tmp_path)
    ours = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(weights)})
    x_NCHW = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours.eval()(x_NCHW), theirs(x_NCHW))
    check_fine_tuning_fusing_and_export(name, weights, paint(tmp_path / "images"), 64, tmp_path)


@pytest.fixture
def flowers(tmp_path):
    """A few images per class of flowers128, if this machine has it; else painted ones."""
    source = Path(__file__).resolve().parents[2] / "shared/data/classification/flowers128"
    if not source.is_dir():
        return paint(tmp_path / "images")
    for part, count in (("train", 8), ("val", 4)):
        for kind in sorted((source / part).iterdir()):
            (tmp_path / "flowers" / part / kind.name).mkdir(parents=True)
            for image in sorted(kind.iterdir())[:count]:
                shutil.copy(image, tmp_path / "flowers" / part / kind.name)
    return tmp_path / "flowers"


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
def test_in_full_size(name, flowers, tmp_path):
    weights = authors_file(timm.create_model(name), tmp_path)
    converted = tmp_path / "converted.safetensors"
    assert convert(weights, converted).provenance["architecture"] == name
    check_fine_tuning_fusing_and_export(name, converted, flowers, 128, tmp_path)
