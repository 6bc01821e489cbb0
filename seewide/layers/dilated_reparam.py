"""Dilated Reparam Block: a large kernel, trained beside small dilated ones.

UniRepLKNet (arXiv 2311.15599), section 3.1: a dilated small kernel is a sparse large one, so
parallel dilated branches, each with its own batch norm, merge into the large kernel.
"""

from collections.abc import Callable

from torch import Tensor, nn

from ..errors import InputError, unknown
from ..reparam import fold_batch_norm, fold_parallel, undilate
from .depthwise import DepthwiseConv2d

# The branches (kernel size, dilation) that accompany each large kernel, as in the authors' code
# (the paper's first version printed others, and its authors say to follow the code).
BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 2), (3, 3)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
}


# Table 3b of 2410.08049: what the small branches are while a network trains, all merging into the
# same kernel. Each has as many branches as the dilated form (ImageNet 81.63, ADE20K mIoU 46.37).
REPARAM_FORMS: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "dilated": lambda size, dilation: (size, dilation),
    "same_size": lambda size, dilation: (size, 1),  # as many weights, no sparse view: 81.55, 46.07
    "same_reach": lambda size, dilation: ((size - 1) * dilation + 1, 1),  # dense: 81.59, 46.17
}


def branches_of(kernel_size: int, form: str = "dilated") -> tuple[tuple[int, int], ...]:
    """(kernel size, dilation) of the branches beside a large kernel.

    Args:
        kernel_size: a key of BRANCHES, any size if there are none.
        form: a name of REPARAM_FORMS, or "none" for no branches (81.44, 45.78).

    Raises:
        InputError: an unknown form, or a kernel size without known branches.
    """
    if form == "none":
        return ()
    if form not in REPARAM_FORMS:
        raise unknown("re-parameterization", form, [*REPARAM_FORMS, "none"])
    if kernel_size not in BRANCHES:
        known = ", ".join(map(str, BRANCHES))
        raise InputError(
            f"no branches are known for {kernel_size=}; known are {known}, "
            "others are given as branches=((kernel size, dilation), ...)"
        )
    return tuple(REPARAM_FORMS[form](*branch) for branch in BRANCHES[kernel_size])


class ConvBranch(nn.Module):
    """Depthwise convolution and batch norm: one summand of the block."""

    def __init__(self, channels: int, kernel_size: int, dilation: int, device=None, dtype=None):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.conv = DepthwiseConv2d(channels, kernel_size, dilation, bias=False, **dd)
        self.norm = nn.BatchNorm2d(channels, **dd)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Dense kernel and bias that compute the same."""
        kernel = undilate(self.conv.weight, self.conv.dilation[0])
        return fold_batch_norm(kernel, None, self.norm)


class DilatedReparamBlock(nn.Module):
    """Sum of a large-kernel branch and dilated small-kernel branches.

    Args:
        channels: C.
        kernel_size: of the large kernel; 5 to 17 have the authors' branches.
        branches: (kernel size, dilation) of each small branch, if not the authors'.

    Shape: (N, C, H, W) -> (N, C, H, W)

    Raises:
        InputError: a kernel size without known branches, or a branch wider than the kernel.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        branches: tuple[tuple[int, int], ...] | None = None,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if branches is None:
            branches = branches_of(kernel_size)
        for size, dilation in branches:
            if (size - 1) * dilation + 1 > kernel_size:
                raise InputError(
                    f"a {size}x{size} branch of {dilation=} reaches beyond {kernel_size=}"
                )
        dd = {"device": device, "dtype": dtype}
        self.large = ConvBranch(channels, kernel_size, 1, **dd)
        self.small = nn.ModuleDict()
        names = [f"k{size}_d{dilation}" for size, dilation in branches]
        for i, (size, dilation) in enumerate(branches):
            twins = names[:i].count(names[i])
            name = f"{names[i]}_{twins + 1}" if twins else names[i]
            self.small[name] = ConvBranch(channels, size, dilation, **dd)

    def forward(self, x: Tensor) -> Tensor:
        y = self.large(x)
        for branch in self.small.values():
            y = y + branch(x)
        return y

    def folded(self) -> tuple[Tensor, Tensor]:
        """Kernel (C, 1, K, K) and bias (C,) of the single convolution that computes the same."""
        return fold_parallel([branch.folded() for branch in (self.large, *self.small.values())])

    def fuse(self) -> DepthwiseConv2d:
        """The single large-kernel convolution that replaces the block in evaluation."""
        return DepthwiseConv2d.of(*self.folded())
