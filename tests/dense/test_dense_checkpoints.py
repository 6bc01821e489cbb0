"""Keys, shapes and parameter groups of whole systems are the authors'."""

import gzip
import json

import pytest
import torch
from golden import FOLDER, helper

from seewide import InputError, create_detector, create_segmenter
from seewide.dense import load_weights, to_authors
from seewide.dense.checkpoints import WEIGHTS, from_authors
from seewide.recipes import Recipe
from seewide.train.optim import parameter_groups

SYSTEMS = {
    "cascade_unireplknet_s": (create_detector, "cascade_mask_rcnn", "unireplknet_s"),
    "cascade_unireplknet_b": (create_detector, "cascade_mask_rcnn", "unireplknet_b"),
    "upernet_unireplknet_s": (create_segmenter, "upernet", "unireplknet_s"),
    "upernet_unireplknet_b": (create_segmenter, "upernet", "unireplknet_b"),
    "retinanet_lsnet_s": (create_detector, "retinanet", "lsnet_s"),
    "retinanet_lsnet_b": (create_detector, "retinanet", "lsnet_b"),
    "maskrcnn_lsnet_s": (create_detector, "mask_rcnn", "lsnet_s"),
    "maskrcnn_lsnet_b": (create_detector, "mask_rcnn", "lsnet_b"),
    "semfpn_lsnet_s": (create_segmenter, "semantic_fpn", "lsnet_s"),
    "semfpn_lsnet_b": (create_segmenter, "semantic_fpn", "lsnet_b"),
}


def read(name):
    helper()
    return json.loads(gzip.decompress((FOLDER / name).read_bytes()))


def on_meta(create, system, backbone):
    with torch.device("meta"):
        return create(system, backbone)


@pytest.mark.parametrize("name", SYSTEMS)
def test_keys_and_shapes_both_ways(name):
    stored = read("keys_only.json.gz")[name]
    model = on_meta(*SYSTEMS[name])
    assert sum(p.numel() for p in model.parameters()) == stored["params"]
    theirs = to_authors(model)
    assert {k: (list(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in theirs.items()} == {
        k: (shape, dtype) for k, (shape, dtype) in stored["keys"].items()
    }
    back = from_authors(theirs, model)
    own = model.state_dict()
    assert back.keys() == own.keys()
    assert all(back[k].shape == own[k].shape for k in own)


@pytest.mark.parametrize("size", ["t", "s", "b"])
def test_parameter_groups_of_the_authors(size):
    """Learning-rate scale and weight decay of each parameter of Cascade Mask R-CNN."""
    model = on_meta(create_detector, "cascade_mask_rcnn", f"unireplknet_{size}")
    theirs_of = {id(p): key for key, p in to_authors(model, dict(model.named_parameters())).items()}
    recipe = Recipe(layer_decay=0.8, layer_groups=12, weight_decay=0.05)
    ours = {
        theirs_of[id(p)]: (group.get("lr_scale", 1.0), group["weight_decay"])
        for group in parameter_groups(model, recipe)
        for p in group["params"]
    }
    stored = read("groups.json.gz")[f"cascade_{size}"]["groups"]
    theirs = {n: (g["lr_scale"], g["weight_decay"]) for g in stored for n in g["names"]}
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        assert ours[name] == pytest.approx(values), name


def test_authors_checkpoint_file_loads(tmp_path):
    """An mmcv file: weights under `state_dict`, facts under `meta`, averages beside the weights."""
    model = create_segmenter("semantic_fpn", "lsnet_t", num_classes=3)
    state = to_authors(model)
    state |= {"ema_decode_head_conv_seg_bias": torch.full((3,), 9.0)}
    torch.save({"meta": {"epoch": 1, "CLASSES": ("a",)}, "state_dict": state}, tmp_path / "f.pth")
    other = create_segmenter("semantic_fpn", "lsnet_t", num_classes=3)
    load_weights(other, tmp_path / "f.pth")
    own = model.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in other.state_dict().items())


def test_other_number_of_classes(tmp_path):
    state = to_authors(create_segmenter("semantic_fpn", "lsnet_t", num_classes=5))
    model = create_segmenter("semantic_fpn", "lsnet_t", num_classes=3)
    with pytest.raises(InputError, match=r"conv_seg.* has shape"):
        load_weights(model, state)
    before = model.decode_head.conv_seg.weight.clone()
    load_weights(model, state, new_classes=True)
    assert torch.equal(model.decode_head.conv_seg.weight, before)
    scale = "decode_head.scale_heads.0.0.conv.weight"
    assert torch.equal(model.state_dict()[scale], state[scale])


def test_weight_tags():
    assert set(WEIGHTS["mask_rcnn", "lsnet_t"]) == {"coco_1x"}
    assert len(WEIGHTS["cascade_mask_rcnn", "unireplknet_s"]) == 2
    with pytest.raises(InputError, match="no weights of retinanet on resnet18 are published"):
        create_detector("retinanet", "resnet18", pretrained=True)
    with pytest.raises(InputError, match="unknown weight tag"):
        create_detector("retinanet", "lsnet_t", pretrained="coco_3x")
