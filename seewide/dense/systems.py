"""The detection and segmentation systems by name, on any timm backbone.

What is built is what the papers' configurations say (docs/dense.md): LSNet's own pyramid where the
backbone's finest map has stride 8, UniRepLKNet's norms on its maps. Names:
`list_detectors()`, `list_segmenters()`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from ..errors import InputError, unknown
from .backbone import LSNET_PYRAMID, PYRAMID, build_backbone, select_maps
from .checkpoints import load_pretrained
from .detectors import Detector, OneStageDetector, TwoStageDetector
from .images import BatchImages
from .losses import l1_loss, smooth_l1_loss
from .necks import FPN, LSNetFPN, SSDNeck
from .retina import RetinaHead
from .roi_heads import CascadeRoIHead, StandardRoIHead
from .rpn import RPNHead
from .segmentation_heads import ASPPHead, FCNHead, FPNHead, PSPHead, UPerHead
from .segmenters import Segmenter
from .ssd import SSDHead

CHANNELS = 256
IMAGES = BatchImages()


Ints = tuple[int, ...]


def _two_stage(
    backbone: nn.Module,
    channels: Ints,
    strides: Ints,
    num_classes: int,
    *,
    cascade: bool,
    masks: bool,
    **others,
) -> TwoStageDetector:
    if strides == PYRAMID:
        neck = FPN(channels, CHANNELS)
    else:
        neck = LSNetFPN(channels, CHANNELS, upsampled=True)
    if cascade:
        rpn = RPNHead(CHANNELS, box_loss=partial(smooth_l1_loss, beta=1 / 9), border=0)
        roi = CascadeRoIHead(num_classes, CHANNELS, masks=masks)
    else:
        rpn = RPNHead(CHANNELS, box_loss=l1_loss)
        roi = StandardRoIHead(num_classes, CHANNELS, masks=masks)
    return TwoStageDetector(
        backbone, neck, rpn, roi, train_proposals=2000 if cascade else 1000, **others
    )


def _retinanet(
    backbone: nn.Module, channels: Ints, strides: Ints, num_classes: int, **others
) -> OneStageDetector:
    neck = FPN(channels, CHANNELS, extra="on_input")
    return OneStageDetector(backbone, neck, RetinaHead(num_classes, CHANNELS), **others)


def _ssdlite(
    backbone: nn.Module, channels: Ints, strides: Ints, num_classes: int, **others
) -> OneStageDetector:
    neck = SSDNeck(channels)
    return OneStageDetector(backbone, neck, SSDHead(num_classes, neck.channels), **others)


def _segmenter(
    backbone: nn.Module, channels: Ints, strides: Ints, num_classes: int, *, head: str, **others
) -> Segmenter:
    neck = auxiliary = None
    if head in ("upernet", "deeplabv3", "pspnet"):
        auxiliary = FCNHead(channels[-2], num_classes)
    if head == "upernet":
        decode = UPerHead(channels, num_classes)
    elif head == "deeplabv3":
        decode = ASPPHead(channels[-1], num_classes)
    elif head == "pspnet":
        decode = PSPHead(channels[-1], num_classes)
    elif head == "fcn":
        decode = FCNHead(channels[-1], num_classes, index=-1, num_convs=2)
    else:
        neck = LSNetFPN(channels, CHANNELS, num_outs=len(channels))
        decode = FPNHead(CHANNELS, num_classes, levels=len(channels))
    return Segmenter(backbone, decode, auxiliary, neck, **others)


@dataclass(frozen=True)
class System:
    """How a system is built.

    Args:
        build: (backbone, channels, strides, num_classes, **options) -> model.
        strides: of the backbone's maps that it reads.
        lsnet_strides: of LSNet's.
        images: how a detector resizes its images.
    """

    build: Callable[..., nn.Module]
    strides: tuple[int, ...] = PYRAMID
    lsnet_strides: tuple[int, ...] = LSNET_PYRAMID
    images: BatchImages = IMAGES


DETECTORS = {
    "cascade_mask_rcnn": System(partial(_two_stage, cascade=True, masks=True)),
    "cascade_rcnn": System(partial(_two_stage, cascade=True, masks=False)),
    "mask_rcnn": System(partial(_two_stage, cascade=False, masks=True)),
    "faster_rcnn": System(partial(_two_stage, cascade=False, masks=False)),
    "retinanet": System(_retinanet, PYRAMID[1:]),
    "ssdlite": System(
        _ssdlite, (16, 32), (16, 32), images=BatchImages(fixed=(320, 320), divisor=1)
    ),
}
SEGMENTERS = {
    "upernet": System(partial(_segmenter, head="upernet")),
    "semantic_fpn": System(partial(_segmenter, head="semantic_fpn")),
    "deeplabv3": System(partial(_segmenter, head="deeplabv3"), (16, 32), (32, 64)),
    "pspnet": System(partial(_segmenter, head="pspnet"), (16, 32), (32, 64)),
    "fcn": System(partial(_segmenter, head="fcn"), (32,), (64,)),
}


def list_detectors() -> list[str]:
    """Names of the detection systems."""
    return list(DETECTORS)


def list_segmenters() -> list[str]:
    """Names of the segmentation systems."""
    return list(SEGMENTERS)


def create_detector(
    system: str,
    backbone: str | nn.Module,
    num_classes: int = 80,
    *,
    pretrained: bool | str = False,
    pretrained_backbone: bool = False,
    images: BatchImages | None = None,
    out_norms: bool | None = None,
    matrix_biases: bool | None = None,
    freeze_statistics: bool | None = None,
    **backbone_options,
) -> Detector:
    """A detector by name.

    Args:
        system: one of `list_detectors()`.
        backbone: a timm name, or a network that timm built with `features_only=True`.
        num_classes: classes, without background.
        pretrained: the authors' weights for this system and backbone; a tag, or True for the first.
            Layers that depend on the number of classes are left as initialized if it differs.
        pretrained_backbone: weights for classification in the backbone.
        images: how images are resized, normalized and padded; None: as the system's papers do.
        out_norms: layer norm on each of the backbone's maps; None: for a UniRepLKNet.
        matrix_biases: LSNet's downstream attention biases; None: for an LSNet.
        freeze_statistics: batch norms of the backbone keep their running statistics in training;
            None: for an LSNet that starts from weights, as the authors have it.
        backbone_options: further arguments of `timm.create_model`, such as `drop_path_rate`, or
            UniConvNet's `group_channels`. The papers' RetinaNet, SSDLite, DeepLabv3 and PSPNet on
            UniConvNet-N0, N1, N2 have 8, and DeepLabv3 and PSPNet on P0 have 16, by their
            parameter counts; the published ImageNet weights fit the default alone.

    Raises:
        InputError: an unknown name, or a backbone without the maps that the system needs.

    Example:
        >>> model = seewide.create_detector("mask_rcnn", "lsnet_t", num_classes=80).eval()
        >>> model([torch.rand(3, 480, 640)])[0].keys()
        dict_keys(['boxes', 'scores', 'labels', 'masks'])
    """
    found = _find("detector", system, DETECTORS)
    return _create(
        system, found, backbone, num_classes, pretrained, pretrained_backbone, backbone_options,
        out_norms=out_norms, matrix_biases=matrix_biases, freeze_statistics=freeze_statistics,
        images=images or found.images,
    )  # fmt: skip


def create_segmenter(
    system: str,
    backbone: str | nn.Module,
    num_classes: int = 150,
    *,
    pretrained: bool | str = False,
    pretrained_backbone: bool = False,
    out_norms: bool | None = None,
    matrix_biases: bool | None = None,
    freeze_statistics: bool | None = None,
    **backbone_options,
) -> Segmenter:
    """A network for semantic segmentation by name, one of `list_segmenters()`.

    Arguments and errors: as `create_detector`.

    Example:
        >>> model = seewide.create_segmenter("upernet", "unireplknet_t", num_classes=150).eval()
        >>> model(torch.rand(1, 3, 256, 320))["out"].shape
        torch.Size([1, 150, 256, 320])
    """
    found = _find("segmenter", system, SEGMENTERS)
    return _create(
        system, found, backbone, num_classes, pretrained, pretrained_backbone, backbone_options,
        out_norms=out_norms, matrix_biases=matrix_biases, freeze_statistics=freeze_statistics,
    )  # fmt: skip


def _find(kind: str, name: str, systems: dict[str, System]) -> System:
    if name not in systems:
        raise unknown(kind, name, systems)
    return systems[name]


def _create(
    name: str,
    system: System,
    backbone: str | nn.Module,
    num_classes: int,
    pretrained: bool | str,
    pretrained_backbone: bool,
    backbone_options: dict,
    *,
    out_norms: bool | None,
    freeze_statistics: bool | None,
    **options,
) -> nn.Module:
    if num_classes < 1:
        raise InputError(f"num_classes must be at least 1, got {num_classes}")
    if isinstance(backbone, str):
        family = backbone.partition("_")[0]
        strides = system.lsnet_strides if family == "lsnet" else system.strides
        weights = pretrained_backbone and not pretrained
        network = build_backbone(backbone, strides, weights, **backbone_options)
    elif backbone_options or pretrained or pretrained_backbone:
        raise InputError(
            "weights and options are for a backbone that is named, got a "
            f"{type(backbone).__name__} with {sorted(backbone_options) or 'pretrained'}"
        )
    else:
        network = backbone
        family = getattr(backbone, "pretrained_cfg", {}).get("architecture", "").partition("_")[0]
    take = select_maps(network, system.lsnet_strides if family == "lsnet" else system.strides)
    info = network.feature_info
    if out_norms is None:
        out_norms = family == "unireplknet"
    if freeze_statistics is None:
        freeze_statistics = family == "lsnet" and bool(pretrained or pretrained_backbone)
    model = system.build(
        network,
        tuple(info.channels()[i] for i in take),
        tuple(info.reduction()[i] for i in take),
        num_classes,
        take=take,
        out_norms=out_norms,
        freeze_statistics=freeze_statistics,
        **options,
    )
    if pretrained:
        load_pretrained(model, name, backbone, pretrained)
    return model
