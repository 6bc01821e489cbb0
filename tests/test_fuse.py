"""`seewide.fuse` on models of other libraries, and on what cannot be fused."""

import logging
from collections import OrderedDict

import pytest
import timm
import torch
from torch import nn

from seewide.errors import InputError
from seewide.layers import DepthwiseConv2d, DilatedReparamBlock
from seewide.numerics import deviation
from seewide.reparam import fuse, fuse_checked, randomize


def count(model, kind):
    return sum(isinstance(module, kind) for module in model.modules())


def block():
    return randomize(DilatedReparamBlock(4, 7))


class WithDict(nn.Module):
    """Takes keyword arguments, returns nested containers."""

    def __init__(self):
        super().__init__()
        self.block = block()

    def forward(self, image, *, scale=1.0):
        y = self.block(image) * scale
        return {"map": y, "pyramid": [y, (y.mean((2, 3)), None)], "size": y.shape[-1]}


def test_any_arguments_and_nested_outputs():
    model = WithDict().eval()
    x = torch.randn(2, 4, 9, 11)
    for example in (x, (x,), {"image": x, "scale": torch.tensor(0.5)}):
        fused, report = fuse_checked(model, example)
        assert isinstance(fused.block, DepthwiseConv2d)
        assert report.folds == ("block",)
        assert report.unchecked == ()
        assert report.deviation < 1e-5
    assert deviation(fused(x, scale=2.0), model(x, scale=2.0)) < 1e-5


class WrongScale(DilatedReparamBlock):
    """Its fold forgets a branch."""

    def folded(self):
        kernel, bias = super().folded()
        return kernel, bias - next(iter(self.small.values())).folded()[1]


def test_a_wrong_fold_shows_behind_a_layer_scale_of_nearly_zero():
    class Scaled(nn.Module):
        def __init__(self, mixer):
            super().__init__()
            self.mixer = mixer
            self.gamma = nn.Parameter(torch.full((4, 1, 1), 1e-6))

        def forward(self, x):
            return x + self.gamma * self.mixer(x)

    x = torch.randn(1, 4, 9, 9)
    fuse(Scaled(DilatedReparamBlock(4, 7)), x)
    with pytest.raises(RuntimeError, match=r"mixer \(WrongScale\) was folded wrongly: .* float64"):
        fuse(Scaled(WrongScale(4, 7)), x)


def test_a_layer_used_twice_stays_one_layer():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = block()

        def forward(self, x):
            return self.second(self.first(x))

    fused = fuse(Twice(), torch.randn(1, 4, 9, 9))
    assert fused.first is fused.second


def test_layers_that_the_example_does_not_reach_are_named():
    class OnlyA(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = block(), block()

        def forward(self, x):
            return self.a(x)

    report = fuse_checked(OnlyA(), torch.randn(1, 4, 9, 9))[1]
    assert report.unchecked == ("b",)


def test_methods_of_the_same_name_that_need_arguments_are_left_alone():
    class FeatureFusion(nn.Module):
        def fuse(self, a, b):
            return a + b

        def forward(self, x):
            return self.fuse(x, x)

    model = nn.Sequential(FeatureFusion(), block())
    fused = fuse(model, torch.randn(1, 4, 9, 9))
    assert type(fused[0]) is FeatureFusion
    assert isinstance(fused[1], DepthwiseConv2d)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_folded_in_float64_and_rounded_once(dtype):
    model = block().to(dtype).eval()
    fused = fuse(model, torch.randn(1, 4, 9, 9, dtype=dtype))
    exact = block().to(dtype).double().eval().fuse()
    assert torch.equal(fused.weight, exact.weight.to(dtype))


# What cannot be fused, or loses something, is said.


def refused(pattern, model, example=None):
    with pytest.raises(InputError, match=pattern) as caught:
        fuse(model, torch.randn(1, 4, 9, 9) if example is None else example)
    assert "\n" not in str(caught.value)


def test_batch_norm_without_statistics():
    model = nn.Sequential(OrderedDict(mix=block()))
    model.mix.large.norm = nn.BatchNorm2d(4, track_running_stats=False)
    refused(r"mix \(DilatedReparamBlock\) cannot be fused: a batch norm without running", model)


def test_pruned_and_parametrized_layers():
    from torch.nn.utils import parametrizations, prune

    model = nn.Sequential(block())
    prune.l1_unstructured(model[0].large.conv, "weight", 0.5)
    refused(r"0.large.conv \(DepthwiseConv2d\) is pruned by a mask; .*prune.remove", model)
    prune.remove(model[0].large.conv, "weight")
    assert isinstance(fuse(model, torch.randn(1, 4, 9, 9))[0], DepthwiseConv2d)
    parametrizations.weight_norm(model[0].large.conv)
    refused(r"0.large.conv \(.*\) has parametrized weights", model)


def test_nan_weights():
    model = nn.Sequential(block())
    model[0].large.norm.running_var[1] = float("nan")
    refused("cannot be fused: 0.large.norm.running_var holds NaN", model)


def test_torchscript():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Linear(2, 2))
    refused("a TorchScript module cannot be fused", scripted)


def test_wrappers_are_removed():
    model = WithDict().eval()
    x = torch.randn(1, 4, 9, 9)
    assert isinstance(fuse(torch.compile(model), x).block, DepthwiseConv2d)
    assert isinstance(fuse(nn.DataParallel(model), x).block, DepthwiseConv2d)


def test_distributed_data_parallel(tmp_path):
    import torch.distributed as dist

    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        model = nn.parallel.DistributedDataParallel(WithDict().eval())
        assert isinstance(fuse(model, torch.randn(1, 4, 9, 9)).block, DepthwiseConv2d)
    finally:
        dist.destroy_process_group()


def test_hooks_that_would_vanish_are_named(caplog):
    model = nn.Sequential(block(), nn.ReLU())
    model[0].large.register_forward_hook(lambda *args: None)
    model[1].register_forward_hook(lambda *args: None)
    with caplog.at_level(logging.WARNING):
        report = fuse_checked(model, torch.randn(1, 4, 9, 9))[1]
    assert report.lost_hooks == ("0",)
    assert "hooks on 0 are not on the fused model" in caplog.text


# Backbones inside models of other libraries.


def fused_inside(model, example, tolerance=1e-4):
    """Fuse, see that large kernels were folded and that outputs agree."""
    randomize(model).eval()
    fused, report = fuse_checked(model, example)
    assert count(fused, DilatedReparamBlock) == 0 < count(model, DilatedReparamBlock)
    assert len(report.folds) > 10
    assert report.unchecked == ()
    assert report.deviation < tolerance
    return fused


def test_inside_segmentation_models_pytorch():
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = smp.Unet("tu-unireplknet_a", encoder_weights=None, encoder_depth=5, classes=3)
    fused_inside(model, torch.randn(1, 3, 64, 64))
    fused_inside(model, None)  # the encoder is found, and an input made for it


def test_inside_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.TimmWrapperConfig(
        architecture="unireplknet_a", num_labels=5, do_pooling=True
    )
    model = transformers.AutoModelForImageClassification.from_config(config)
    fused_inside(model, {"pixel_values": torch.randn(1, 3, 64, 64)})


def test_inside_open_clip():
    open_clip = pytest.importorskip("open_clip")
    from open_clip.model import CLIP

    model = CLIP(
        embed_dim=32,
        vision_cfg={
            "timm_model_name": "unireplknet_a", "timm_model_pretrained": False,
            "timm_pool": "", "timm_proj": "linear", "image_size": 64,
        },
        text_cfg={"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
    )  # fmt: skip
    assert open_clip
    example = (torch.randn(1, 3, 64, 64), torch.randint(0, 50, (1, 8)))
    fused_inside(model, example)


def test_inside_a_detector_of_torchvision():
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    class Backbone(nn.Module):
        out_channels = 16

        def __init__(self):
            super().__init__()
            self.body = timm.create_model("unireplknet_a", features_only=True, out_indices=(3,))
            self.reduce = nn.Conv2d(self.body.feature_info.channels()[-1], 16, 1)

        def forward(self, x):
            return {"0": self.reduce(self.body(x)[0])}

    anchors = AnchorGenerator(((32,),), ((1.0,),))
    model = FasterRCNN(
        Backbone(),
        3,
        rpn_anchor_generator=anchors,
        min_size=64,
        max_size=64,
        box_detections_per_img=4,
    )
    fused_inside(model, ([torch.rand(3, 64, 64)],), tolerance=1e-3)


def test_models_without_an_example_ask_for_one():
    with pytest.raises(InputError, match="Sequential does not say what input it takes; give fuse"):
        fuse(nn.Sequential(nn.Conv2d(3, 3, 1)))
