"""Detection on COCO and segmentation on ADE20K, as the papers' authors configure them."""

from __future__ import annotations

from seewide.recipes._recipe import Family, Recipe, Table, changed

_COCO = Recipe(
    task="detection",
    dataset="COCO 2017",
    start_from="pretrained",
    epochs=12,
    batch_size=16,
    device_batch=2,
    lr=1e-4,
    weight_decay=0.05,
    schedule="step",
    decay_at=(8, 11),
    warmup_steps=500,
    warmup_epochs=0.0,
    warmup_lr=1e-7,
    hardware="8 x 2",
    smoke_options={"short": 64, "long": 96, "scales": (), "system": "retinanet"},
)
_SCALES = tuple(range(480, 801, 32))

# UniRepLKNet: Cascade Mask R-CNN, 3x. The authors average the weights of the 22k models with a
# decay that depends on the step, which `ema_decay` approximates.
_CASCADE = changed(
    _COCO,
    epochs=36,
    decay_at=(27, 33),
    layer_decay=0.8,
    layer_groups=12,
    smoke_model="unireplknet_a",
    source="UniRepLKNet b5677d8, detection/configs/coco",
    options={"system": "cascade_mask_rcnn", "augment": "detr", "scales": _SCALES},
)
_LSNET = changed(
    _COCO,
    smoke_model="lsnet_t",
    source="LSNet cbe737c, detection/configs",
    options={"freeze_statistics": True},
    note="The authors decay batch norms and biases too.",
)
_UNICONVNET = changed(
    _COCO,
    smoke_model="uniconvnet_a",
    source="2508.09000, text only; InternImage's Mask R-CNN, EMO's RetinaNet with batch 16",
)
_THREE_TIMES = changed(
    _UNICONVNET,
    epochs=36,
    decay_at=(27, 33),
    options={"system": "mask_rcnn", "augment": "detr", "scales": _SCALES},
)

_ADE20K = Recipe(
    task="segmentation",
    dataset="ADE20K",
    start_from="pretrained",
    steps=160_000,
    batch_size=16,
    device_batch=2,
    lr=1e-4,
    weight_decay=0.05,
    schedule="poly",
    poly_power=1.0,
    min_lr=0.0,
    warmup_steps=1500,
    warmup_epochs=0.0,
    warmup_lr=1e-6,
    hardware="8 x 2",
    options={"system": "upernet"},
    smoke_options={"short": 64, "long": 128, "crop": 64},
)
_UPERNET = changed(
    _ADE20K,
    layer_groups=12,
    smoke_model="unireplknet_a",
    source="UniRepLKNet b5677d8, segmentation/configs/ade20k",
)
_AT_640 = changed(_UPERNET, options={"short": 640, "long": 2560, "crop": 640, "stride": 426})
_SEMANTIC_FPN = changed(
    _ADE20K,
    steps=40_000,
    batch_size=32,
    device_batch=4,
    lr=2e-4,
    weight_decay=1e-4,
    poly_power=0.9,
    min_lr=1e-6,
    warmup_steps=0,
    hardware="8 x 4",
    smoke_model="lsnet_t",
    options={"system": "semantic_fpn"},
    source="LSNet cbe737c, segmentation/configs",
)
_UNICONVNET_UPERNET = changed(
    _ADE20K, lr=6e-5, smoke_model="uniconvnet_a", source="2508.09000, appendix D.5"
)

FAMILY = Family(
    "COCO and ADE20K",
    (
        Table(
            _CASCADE,
            "recipe model drop_path ema_decay expected.map expected.mask_map",
            ("unireplknet_t_cascade_coco", "unireplknet_t.in1k", 0.3, None, 51.7, 44.9),
            ("unireplknet_s_cascade_coco", "unireplknet_s.in1k", 0.5, None, 53.0, 45.9),
            ("unireplknet_s_in22k_cascade_coco", "unireplknet_s.in22k", 0.5, 0.9999, 54.3, 47.1),
            ("unireplknet_b_in22k_cascade_coco", "unireplknet_b.in22k", 0.6, 0.9999, 54.8, 47.4),
            ("unireplknet_l_in22k_cascade_coco", "unireplknet_l.in22k", 0.7, 0.9999, 55.8, 48.4),
            ("unireplknet_xl_in22k_cascade_coco", "unireplknet_xl.in22k", 0.7, 0.9999, 56.4, 49.0),
        ),
        Table(
            _LSNET,
            "recipe model options.system expected.map expected.mask_map",
            ("lsnet_t_retinanet_coco", "lsnet_t.in1k", "retinanet", 34.2),
            ("lsnet_s_retinanet_coco", "lsnet_s.in1k", "retinanet", 36.7),
            ("lsnet_b_retinanet_coco", "lsnet_b.in1k", "retinanet", 39.2),
            ("lsnet_t_mask_rcnn_coco", "lsnet_t.in1k", "mask_rcnn", 35.0, 32.7),
            ("lsnet_s_mask_rcnn_coco", "lsnet_s.in1k", "mask_rcnn", 37.4, 34.8),
            ("lsnet_b_mask_rcnn_coco", "lsnet_b.in1k", "mask_rcnn", 40.8, 37.8),
        ),
        Table(
            _UNICONVNET,
            "recipe model options.system expected.map expected.mask_map",
            ("uniconvnet_a_retinanet_coco", "uniconvnet_a.in1k", "retinanet", 40.0),
            ("uniconvnet_p0_retinanet_coco", "uniconvnet_p0.in1k", "retinanet", 41.1),
            ("uniconvnet_p2_retinanet_coco", "uniconvnet_p2.in1k", "retinanet", 42.2),
            ("uniconvnet_n2_mask_rcnn_coco", "uniconvnet_n2.in1k", "mask_rcnn", 46.6, 41.9),
            ("uniconvnet_n3_mask_rcnn_coco", "uniconvnet_n3.in1k", "mask_rcnn", 47.0, 42.4),
            ("uniconvnet_t_mask_rcnn_coco", "uniconvnet_t.in1k", "mask_rcnn", 48.2, 43.3),
            ("uniconvnet_s_mask_rcnn_coco", "uniconvnet_s.in1k", "mask_rcnn", 48.8, 43.8),
            ("uniconvnet_b_mask_rcnn_coco", "uniconvnet_b.in1k", "mask_rcnn", 50.0, 45.0),
        ),
        Table(
            _THREE_TIMES,
            "recipe model expected.map expected.mask_map",
            ("uniconvnet_n2_mask_rcnn_coco_3x", "uniconvnet_n2.in1k", 48.4, 43.2),
            ("uniconvnet_n3_mask_rcnn_coco_3x", "uniconvnet_n3.in1k", 49.4, 44.2),
            ("uniconvnet_t_mask_rcnn_coco_3x", "uniconvnet_t.in1k", 50.1, 44.5),
            ("uniconvnet_s_mask_rcnn_coco_3x", "uniconvnet_s.in1k", 50.8, 45.2),
            ("uniconvnet_b_mask_rcnn_coco_3x", "uniconvnet_b.in1k", 51.2, 45.6),
        ),
        Table(
            _UPERNET,
            "recipe model drop_path layer_decay expected.miou",
            ("unireplknet_t_upernet_ade20k", "unireplknet_t.in1k", 0.2, 1.0, 48.6),
            ("unireplknet_s_upernet_ade20k", "unireplknet_s.in1k", 0.3, 0.9, 50.5),
        ),
        Table(
            _AT_640,
            "recipe model drop_path layer_decay expected.miou",
            ("unireplknet_s_in22k_upernet_ade20k_640", "unireplknet_s.in22k", 0.3, 0.9, 52.3),
            ("unireplknet_b_in22k_upernet_ade20k_640", "unireplknet_b.in22k", 0.3, 0.9, 53.5),
            ("unireplknet_l_in22k_upernet_ade20k_640", "unireplknet_l.in22k", 0.4, 0.85, 54.5),
        ),
        Table(
            _SEMANTIC_FPN,
            "recipe model expected.miou",
            ("lsnet_t_semantic_fpn_ade20k", "lsnet_t.in1k", 40.1),
            ("lsnet_s_semantic_fpn_ade20k", "lsnet_s.in1k", 41.0),
            ("lsnet_b_semantic_fpn_ade20k", "lsnet_b.in1k", 43.0),
        ),
        Table(
            _UNICONVNET_UPERNET,
            "recipe model expected.miou",
            ("uniconvnet_n2_upernet_ade20k", "uniconvnet_n2.in1k", 47.9),
            ("uniconvnet_n3_upernet_ade20k", "uniconvnet_n3.in1k", 49.0),
            ("uniconvnet_t_upernet_ade20k", "uniconvnet_t.in1k", 50.3),
            ("uniconvnet_s_upernet_ade20k", "uniconvnet_s.in1k", 52.2),
        ),
    ),
    note="Expected results are the papers'; none of these runs was repeated here. `map`, "
    "`mask_map` and `miou` are in percent.",
)
