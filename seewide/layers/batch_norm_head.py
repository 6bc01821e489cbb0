"""Classifier heads with batch norm, with one or two classifiers. LeViT, LSNet."""

from typing import Any

import torch
from timm.layers import SelectAdaptivePool2d, trunc_normal_
from torch import Tensor, nn

from ..errors import InputError
from ..reparam import batch_norm_affine


class NormLinear(nn.Module):
    """Batch norm, then a linear layer.

    Shape: (N, in_features) -> (N, out_features)
    """

    def __init__(self, in_features: int, out_features: int, device=None, dtype=None):
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.norm = nn.BatchNorm1d(in_features, **dd)
        self.linear = nn.Linear(in_features, out_features, **dd)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal weights of standard deviation 0.02, zero bias."""
        trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))

    @torch.no_grad()
    def fuse(self) -> nn.Linear:
        """The one linear layer that computes the same in evaluation."""
        scale, shift = batch_norm_affine(self.norm)
        weight, bias = self.linear.weight, self.linear.bias
        dd: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        layer = nn.Linear(self.linear.in_features, self.linear.out_features, **dd)
        layer.weight = nn.Parameter(weight * scale)
        layer.bias = nn.Parameter(bias + weight @ shift)
        return layer


class BatchNormHead(nn.Module):
    """Pooling, dropout and a classifier, with the interface of timm's heads.

    Args:
        in_features: C.
        num_classes: outputs of the classifier, 0 for none.
        pool_type: one of timm's poolings, '' for none.
        drop_rate: dropout before the classifier.

    Shape: (N, C, H, W) -> (N, num_classes); without classes, the pooled features (N, C), or the
    map itself with `pool_type=''`.

    Raises:
        InputError: in `forward`, a classifier without pooling before it.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        pool_type: str = "avg",
        drop_rate: float = 0.0,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.drop = nn.Dropout(drop_rate)
        self.in_features, self.pool_type = in_features, pool_type
        self.reset(num_classes, device=device, dtype=dtype)

    @torch.jit.ignore
    def reset(
        self,
        num_classes: int,
        pool_type: str | None = None,
        reset_other: bool = False,
        in_features: int | None = None,
        device=None,
        dtype=None,
    ) -> None:
        """Replace the classifier; `pool_type=None` keeps the pooling; no other norm to reset."""
        self.num_classes = num_classes
        self.in_features = in_features or self.in_features
        self.pool_type = self.pool_type if pool_type is None else pool_type
        self.pool = SelectAdaptivePool2d(pool_type=self.pool_type, flatten=bool(self.pool_type))
        self.num_features = self.in_features * self.pool.feat_mult()
        self.fc = self._classifier(num_classes, device=device, dtype=dtype)
        self.train(self.training)

    def _classifier(self, num_classes: int, device=None, dtype=None) -> nn.Module:
        if num_classes == 0:
            return nn.Identity()
        return NormLinear(self.num_features, num_classes, device=device, dtype=dtype)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.pool(x))
        if pre_logits or self.num_classes == 0:
            return x
        if self.pool_type == "":
            raise InputError("the classifier needs pooled features; set global_pool='avg'")
        return self.classify(x)

    def classify(self, x: Tensor) -> Tensor:
        """(N, C) -> (N, num_classes)"""
        return self.fc(x)


class DistilledHead(BatchNormHead):
    """Two classifiers, one of which is trained with a teacher (DeiT, arXiv 2012.12877, section 4).

    The output is the mean of both; in training mode with `distilled_training` set, a pair.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.distilled_training = False

    @torch.jit.ignore
    def reset(self, num_classes: int, *args, device=None, dtype=None, **kwargs) -> None:
        """Replace both classifiers."""
        super().reset(num_classes, *args, device=device, dtype=dtype, **kwargs)
        self.fc_dist = self._classifier(num_classes, device=device, dtype=dtype)
        self.fc_dist.train(self.training)

    def classify(self, x: Tensor):
        """(N, C) -> (N, num_classes), or a pair of these."""
        y, y_dist = self.fc(x), self.fc_dist(x)
        if self.distilled_training and self.training and not torch.jit.is_scripting():
            return y, y_dist
        return (y + y_dist) / 2
