"""Operators: one file each, with formula, shapes, paper and a reference in plain PyTorch.

Every operator chooses its backend at each call (see `explain` and `use_backend`), and supports
autograd, autocast, meta tensors, `torch.func`, `torch.compile`, `torch.export`, fx and TorchScript.
"""

from ._dispatch import explain, use_backend
from .aggregation import small_kernel_aggregation, small_kernel_aggregation_reference
from .asymmetric import asymmetric_conv, asymmetric_conv_reference, fusion_kernel
from .deformable import dcnv3, dcnv3_reference
from .depthwise import depthwise_conv2d, depthwise_conv2d_reference
from .grn import global_response_norm, global_response_norm_reference
from .peripheral import peripheral_conv2d, peripheral_conv2d_reference, sharing_grid
from .pointwise import (
    pack_pointwise_weight,
    pointwise_product,
    pointwise_product_reference,
)

__all__ = [
    "asymmetric_conv",
    "asymmetric_conv_reference",
    "dcnv3",
    "dcnv3_reference",
    "depthwise_conv2d",
    "depthwise_conv2d_reference",
    "explain",
    "fusion_kernel",
    "global_response_norm",
    "global_response_norm_reference",
    "pack_pointwise_weight",
    "peripheral_conv2d",
    "peripheral_conv2d_reference",
    "pointwise_product",
    "pointwise_product_reference",
    "sharing_grid",
    "small_kernel_aggregation",
    "small_kernel_aggregation_reference",
    "use_backend",
]
