"""What is computed: one file per operator, with formula, shapes, paper and plain-PyTorch reference.

Every operator chooses its backend by itself (see `explain` and `use_backend`), and works under
autograd, autocast, meta tensors, `torch.compile`, `torch.export`, fx and TorchScript.
"""

from ._dispatch import explain, use_backend
from .aggregation import small_kernel_aggregation, small_kernel_aggregation_reference
from .deformable import dcnv3, dcnv3_reference
from .depthwise import depthwise_conv2d, depthwise_conv2d_reference
from .peripheral import peripheral_conv2d, peripheral_conv2d_reference, sharing_grid

__all__ = [
    "dcnv3",
    "dcnv3_reference",
    "depthwise_conv2d",
    "depthwise_conv2d_reference",
    "explain",
    "peripheral_conv2d",
    "peripheral_conv2d_reference",
    "sharing_grid",
    "small_kernel_aggregation",
    "small_kernel_aggregation_reference",
    "use_backend",
]
