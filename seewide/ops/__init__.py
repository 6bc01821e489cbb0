"""What is computed: one file per operator, with formula, shapes, paper and plain-PyTorch reference.

Every operator chooses its backend by itself (see `explain` and `use_backend`), and works under
autograd, autocast, meta tensors, `torch.compile`, `torch.export`, fx and TorchScript.
"""

from ._dispatch import explain, use_backend
from .depthwise import depthwise_conv2d, depthwise_conv2d_reference

__all__ = ["depthwise_conv2d", "depthwise_conv2d_reference", "explain", "use_backend"]
