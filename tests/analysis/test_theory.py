"""Theoretical receptive fields against closed forms and against gradients."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from seewide.analysis.erf import effective_receptive_field
from seewide.analysis.theory import theoretical_receptive_field
from seewide.errors import InputError


def stack(sizes, dilation=1):
    convs = [nn.Conv2d(3, 3, k, padding=k // 2 * dilation, dilation=dilation) for k in sizes]
    for conv in convs:
        nn.init.uniform_(conv.weight, 0.1, 1)
        nn.init.constant_(conv.bias, 10.0)
    return nn.Sequential(*convs).double()


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize(("k", "dilation"), [(3, 1), (7, 1), (3, 3)])
def test_stack_of_convolutions(n, k, dilation):
    model = stack([k] * n, dilation)
    side = n * (k - 1) * dilation + 1
    assert theoretical_receptive_field(model).size == (side, side)
    erf = effective_receptive_field(model, torch.rand(1, 3, 80, 80).double(), features=model)
    assert erf.support == (side, side)


def test_strides_pooling_and_branches():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 7, stride=2, padding=3)
            self.wide = nn.Conv2d(4, 4, (1, 9), padding=(0, 4))
            self.tall = nn.Conv2d(4, 4, (5, 3), padding=(2, 1))

        def forward(self, x):
            x = F.max_pool2d(self.stem(x), 3, 2, 1)
            return self.wide(x) + self.tall(x) + x

    field = theoretical_receptive_field(Net())
    assert field.size == (11 + 4 * 4, 11 + 8 * 4)
    assert field.stride == (4, 4)
    assert not field.is_global
    assert str(field) == "27 x 43 px"


def test_known_networks():
    """ResNet-50 with strided 3x3 convolutions; ConvNeXt by the formula."""
    assert theoretical_receptive_field(timm.create_model("resnet50")).size == (427, 427)
    field = theoretical_receptive_field(timm.create_model("convnext_tiny"))
    blocks = sum(6 * stride * n for stride, n in ((4, 3), (8, 3), (16, 9), (32, 3)))
    assert field.size[0] == 4 + 4 + 8 + 16 + blocks  # stem, three downsamplings, blocks
    assert field.stride == (32, 32)


def test_layers_by_name():
    model = stack([3, 5, 7])
    sides = [theoretical_receptive_field(model, layer=str(i)).size[0] for i in range(3)]
    assert sides == [3, 7, 13]


def test_global_operators_are_recognized():
    pool = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1))
    assert theoretical_receptive_field(pool).is_global
    assert str(theoretical_receptive_field(pool)) == "the image (windows span 3 x 3 px)"
    assert theoretical_receptive_field(timm.create_model("test_vit")).is_global
    resnet = timm.create_model("test_resnet")
    assert not theoretical_receptive_field(resnet).is_global
    assert theoretical_receptive_field(resnet, features=resnet).is_global, "the pooled head"


def test_bad_input():
    with pytest.raises(InputError, match="unknown layer of Sequential '3'; known are 0, 1, 2"):
        theoretical_receptive_field(stack([3, 3, 3]), layer="3")
    with pytest.raises(InputError, match="the output of Sequential does not depend on the input"):
        theoretical_receptive_field(stack([3]), features=lambda x: torch.zeros(1, 1, 4, 4))
    with pytest.raises(InputError, match=r"Embedding does not accept images of shape \(1, 3, 224"):
        theoretical_receptive_field(nn.Embedding(10, 4))
