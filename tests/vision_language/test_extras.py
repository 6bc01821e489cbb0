"""Fused towers, exported files, figures, the paper's tables, and help of every command."""

import json
from importlib import import_module

import pytest
import torch
from coloured_squares import COLOURS
from PIL import Image

from seewide.cli import clip as clip_commands
from seewide.cli import vlm as vlm_commands
from seewide.errors import InputError
from seewide.vision_language import export, tables
from seewide.vision_language.clip import towers
from seewide.vision_language.clip.maps import draw_maps, draw_matrix, similarity_maps
from seewide.vision_language.clip.model import Clip


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    open_clip = towers.register()
    with towers.quiet():
        model, _, transform = open_clip.create_model_and_transforms("clip_unireplknet_a")
    for module in model.visual.trunk.modules():  # statistics that a wrong fold would show
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
    tokenizer = open_clip.get_tokenizer("clip_unireplknet_a")
    return Clip(model.eval(), transform, tokenizer, "clip_unireplknet_a", torch.device("cpu"))


def test_fuse_tower(clip):
    fused = export.fuse_tower(clip.model)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        want, got = clip.model.encode_image(x), fused.encode_image(x)
    assert torch.allclose(got, want, atol=1e-4 * float(want.abs().max()))
    count = [sum(p.numel() for p in model.visual.parameters()) for model in (clip.model, fused)]
    assert count[1] < count[0]
    with pytest.raises(InputError, match="Linear has no image tower of timm to fuse"):
        export.fuse_tower(torch.nn.Linear(2, 2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_both_towers_as_onnx(clip, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    image, text = export.export_clip(clip.model, tmp_path, clip.model.context_length)
    assert image.path.stat().st_size > 1e6
    assert text.path.stat().st_size > 1e6
    assert max(image.deviation, text.deviation) < 1e-4


def test_maps_average_to_the_embedding(clip):
    """Cells of one image that are all alike have the image's own cosine."""
    image = Image.new("RGB", (64, 64), (220, 30, 30))
    maps = similarity_maps(clip, image, ["a red square", "grass"])
    assert maps.shape == (2, 2, 2)
    assert maps.abs().max() <= 1 + 1e-5
    trunk, visual = clip.model.visual.trunk, clip.model.visual
    cell = torch.randn(1, trunk.num_features, 1, 1)
    with torch.no_grad():
        one = visual.head(trunk.forward_head(cell))
        many = visual.head(trunk.forward_head(cell.expand(-1, -1, 3, 5)))
    assert torch.allclose(one, many, atol=1e-5)


def test_figures(clip, tmp_path):
    images = [Image.new("RGB", (64, 48), value) for value in COLOURS.values()]
    for path in (
        draw_maps(clip, images[0], ["red", "$5"], tmp_path / "maps.png"),
        draw_matrix(clip, images, list(COLOURS), tmp_path / "matrix.png"),
    ):
        with Image.open(path) as figure:
            assert min(figure.size) > 100


def test_table_13_has_the_printed_means():
    rows = tables.fill(tables.TABLE_13, {})
    assert len(rows) == 26
    assert tables.mean(row[2] for row in rows) == pytest.approx(72.1, abs=0.051)
    assert tables.mean(row[3] for row in rows) == pytest.approx(70.7, abs=0.1)
    assert sum(row[2] > row[3] for row in rows) == 23


def test_tables_take_results(tmp_path, command):
    files = {
        "a.json": {"data": "cifar10", "acc1": 61.5},
        "b.json": {"dataset": "wds/pets", "metrics": {"acc1": 0.5}},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    found = tables.read_results(tmp_path / name for name in files)
    assert found == {"cifar10": 61.5, "pets": 50}
    result = command("clip", "table", *(tmp_path / name for name in files))
    assert result.exit_code == 0
    assert "61.5" in result.output
    (tmp_path / "c.json").write_text(json.dumps({"results": {"gqa": {"exact": 0.598}}}))
    result = command("vlm", "table", tmp_path / "c.json", "--out", tmp_path / "t.csv")
    assert result.exit_code == 0
    assert "GQA,gqa,accuracy,59.8,62.0,59.8" in (tmp_path / "t.csv").read_text()
    (tmp_path / "d.json").write_text('{"cifar11": 1}')
    result = command("clip", "table", tmp_path / "d.json")
    assert result.exit_code == 2
    assert "the table has no set 'cifar11'" in result.stderr


@pytest.mark.parametrize("group", [clip_commands, vlm_commands])
def test_help_of_every_command(group, command):
    name = group.__name__.rpartition(".")[2]
    assert command(name).exit_code == command(name, "--help").exit_code == 0
    for word, summary in group.COMMANDS.items():
        result = command(name, word, "--help")
        assert result.exit_code == 0, result.output
        assert summary in result.output
        assert f"  seewide {name} {word}" in result.output
        assert import_module(f"{group.__name__}.{word}").DETAILS
