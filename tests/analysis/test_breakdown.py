"""The parts add up to the total, and other counters agree."""

import pytest
import timm
import torch
from matplotlib.image import imread
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import seewide
from seewide.analysis.breakdown import KINDS, break_down_cost, draw_cost_breakdown
from seewide.analysis.cost import count_cost, training_memory
from seewide.errors import InputError

SMALL = {name: {"depths": (1, 1, 1, 1)} for name in ("unireplknet_a", "slak_t", "pelk_t")}
NETWORKS = ("unireplknet_a", "lsnet_t", "pelk_t", "test_convnext", "test_vit")


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_add_up_to_the_total(name):
    model = timm.create_model(name)
    shape = (2, *model.pretrained_cfg["input_size"])
    split, cost = break_down_cost(model, shape), count_cost(model, shape)
    assert split.total.parameters == cost.parameters
    assert split.total.macs == cost.macs
    for parts in (split.by_stage(), split.by_kind()):
        assert sum(part.macs for part in parts.values()) == cost.macs
    assert set(split.by_kind()) <= set(KINDS)
    assert sum(row[3] for row in split.rows()) == cost.macs


def test_kinds_and_stages_by_hand():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 4, stride=4)
            self.body = nn.Sequential(
                nn.Conv2d(8, 8, 13, padding=6, groups=8), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 1),
                nn.Conv2d(16, 16, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            )  # fmt: skip
            self.fc = nn.Linear(16, 10)
            self.feature_info = [{"module": "body"}]

        def forward(self, x):
            return self.fc(self.body(self.stem(x)))

    split = break_down_cost(Net(), (1, 3, 32, 32))
    macs = {(stage, kind): m for stage, kind, _, m, _, _ in split.rows()}
    assert macs["stem", "down-sampling"] == 64 * 8 * 3 * 16
    assert macs["body", "large kernel"] == 64 * 8 * 169
    assert macs["body", "FFN"] == 64 * 8 * 16
    assert macs["body", "small kernel"] == 64 * 16 * 16 * 9
    assert macs["fc", "head"] == 160
    assert split.shares["body"]["rest"].parameters == 16  # the batch norm
    assert split.shares["body"]["FFN"].activations == 64 * 16
    assert split.shares["fc"]["head"].parameters == 170


def test_hooks_are_removed():
    """A global hook of the module tracker would keep later activations alive."""
    hooks = torch.nn.modules.module
    before = len(hooks._global_forward_pre_hooks), len(hooks._global_forward_hooks)
    break_down_cost(timm.create_model("test_convnext"))
    assert (len(hooks._global_forward_pre_hooks), len(hooks._global_forward_hooks)) == before


def test_distinct_multiply_adds_of_shared_and_sparse_weights():
    model = timm.create_model("pelk_t_dense", depths=(1, 1, 1, 1))
    kernels = break_down_cost(model).by_kind()["large kernel"]
    shared = sum(n * n * c for n, c in zip((13, 13, 13, 9), (36, 72, 144, 288), strict=True))
    assert kernels.parameters == shared
    assert kernels.distinct_macs < 0.1 * kernels.macs
    per_pixel = [56**2, 28**2, 14**2, 7**2]
    assert kernels.macs == sum(
        p * c * k * k
        for p, c, k in zip(per_pixel, (36, 72, 144, 288), (51, 49, 47, 13), strict=True)
    )
    conv = nn.Conv2d(4, 4, 7, groups=4, padding=3)
    with torch.no_grad():
        conv.weight.zero_()[:, :, 3] = 1  # a seventh
    total = break_down_cost(nn.Sequential(conv), (1, 4, 16, 16)).total
    assert total.distinct_macs == pytest.approx(total.macs / 7)


@pytest.mark.parametrize("name", ["test_convnext", "unireplknet_a", "slak_t", "pelk_t", "lsnet_t"])
def test_flop_counter_mode_on_real_tensors_agrees(name):
    """With torch's operators; it does not see inside those of seewide's CPU backend."""
    model = timm.create_model(name, **SMALL.get(name, {})).eval()
    x = torch.randn(1, 3, 64, 64)
    with (
        seewide.use_backend("torch"),
        torch.no_grad(),
        FlopCounterMode(display=False) as counter,
    ):
        model(x)
    assert counter.get_total_flops() == 2 * count_cost(model, x.shape).macs


@pytest.mark.parametrize("name", ["test_resnet", "unireplknet_a"])
def test_fvcore_agrees(name):
    """fvcore's "flops" are multiply-adds; it also counts norms and pooling, which we exclude."""
    fvcore = pytest.importorskip("fvcore.nn")
    model = timm.create_model(name, **SMALL.get(name, {})).eval()
    x = torch.zeros(1, 3, 64, 64)
    with seewide.use_backend("torch"):  # fvcore traces, and sees no operator inside a function
        flops = fvcore.FlopCountAnalysis(model, x)
        activations = fvcore.ActivationCountAnalysis(model, x)
        for analysis in (flops, activations):
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counted = flops.by_operator()
        outputs = activations.total()
    macs = sum(counted[op] for op in ("conv", "linear", "addmm", "matmul", "bmm") if op in counted)
    total = break_down_cost(model, x.shape).total
    assert count_cost(model, x.shape).macs == total.macs == macs
    assert total.parameters == fvcore.parameter_count(model)[""]
    assert total.activations == outputs


def test_a_counter_of_modules_agrees_without_functional_operators():
    """As in ptflops: hooks on convolutions and linear layers."""
    model = timm.create_model("test_resnet").eval()
    macs = []

    def count(module, inputs, output):
        macs.append(output.numel() * module.weight[0].numel())

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    model(torch.zeros(1, 3, 96, 96))
    assert sum(macs) == break_down_cost(model, (1, 3, 96, 96)).total.macs


def test_training_memory_is_proportional_to_the_batch():
    model = timm.create_model("test_convnext").eval()
    one, four = (training_memory(model, (n, 3, 64, 64)) for n in (1, 4))
    weights = 4 * sum(p.numel() for p in model.parameters())
    assert one > weights  # the gradients
    assert 3 * (one - weights) < four - weights < 4.2 * one
    assert not model.training
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())
    with pytest.raises(InputError, match="no parameter of ConvNeXt requires a gradient"):
        training_memory(model.requires_grad_(False))


def test_figure(tmp_path):
    split = break_down_cost(timm.create_model("test_convnext"))
    one = imread(draw_cost_breakdown({"a": split}, tmp_path / "a.png"))
    two = imread(draw_cost_breakdown({"a": split, "b": split}, tmp_path / "b.png", "parameters"))
    assert two.shape[0] > one.shape[0]
    with pytest.raises(InputError, match="unknown share 'flops'"):
        draw_cost_breakdown({"a": split}, tmp_path / "c.png", "flops")
    with pytest.raises(InputError, match="no cost to draw"):
        draw_cost_breakdown({}, tmp_path / "c.png")
