"""Replace layers of any network with large-kernel layers.

`replace` replaces the modules that a predicate selects; the functions below it are experiments of
the papers. Weights are preserved where possible: a 3x3 kernel becomes the centre of a 13x13 one, so
that the new network computes what the old one computed, and training continues from there.

    model = grow_kernels(timm.create_model("mobilenetv2_100"), 13, small_kernel=3)
    model = share_kernels(timm.create_model("convnext_tiny"), 51)
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .errors import InputError
from .layers import LSConv, PeripheralConv2d, ReceptiveFieldAggregator
from .layers.reparam_conv import ReparamConv, grown
from .ops import sharing_grid

__all__ = [
    "TokenMixer",
    "aggregators_in_convnext",
    "grow_kernels",
    "is_depthwise",
    "ls_convs_in_resnet",
    "ls_convs_in_vit",
    "replace",
    "share_kernels",
]

Predicate = Callable[[str, nn.Module], bool]


def replace(model: nn.Module, where: Predicate, by: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A copy of `model` with each module that `where` selects replaced by `by(module)`.

    Args:
        model: any module.
        where: called with the dotted name and the module; modules inside a selected one are not
            considered.
        by: returns the new module for a selected one.

    Raises:
        InputError: `where` selects nothing.
    """
    model = copy.deepcopy(model)
    chosen: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer, _ in chosen)
        if name and not inside and where(name, module):
            chosen.append((name, module))
    if not chosen:
        raise InputError(f"the predicate selects no module of {type(model).__name__}")
    for name, module in chosen:
        parent, _, child = name.rpartition(".")
        new = by(module)
        new.train(module.training)
        setattr(model.get_submodule(parent), child, new)
    return model


def is_depthwise(name: str, module: nn.Module) -> bool:
    """Whether `module` is depthwise, of odd size above 1, with same padding and no dilation."""
    if not isinstance(module, nn.Conv2d) or module.groups != module.in_channels:
        return False
    sizes, padding = module.kernel_size, module.padding
    same = all(size % 2 == 1 and pad == size // 2 for size, pad in zip(sizes, padding, strict=True))
    channels = module.in_channels
    return same and max(sizes) > 1 and module.out_channels == channels and module.dilation == (1, 1)


def grow_kernels(
    model: nn.Module, kernel_size: int, small_kernel: int = 0, where: Predicate = is_depthwise
) -> nn.Module:
    """Larger depthwise kernels with the old kernels in their centre; outputs do not change.

    RepLKNet (2203.06717), section 3: MobileNetV2 with 9x9 and 13x13 kernels, plain or with a
    re-parameterized 3x3 (`small_kernel=3`), which `seewide.fuse` fuses. PeLK (2403.07589),
    Figure 6: ConvNeXt-T with 7x7 to 151x151.

    Args:
        model: any network.
        kernel_size: odd; convolutions that are at least as large are not changed.
        small_kernel: size of a parallel kernel with its own batch norm; 0 for none.
        where: selects the convolutions; by default all depthwise ones.

    Raises:
        InputError: an even size, a small kernel that does not fit, or no convolution selected.
    """

    def by(conv: nn.Module) -> nn.Module:
        if small_kernel:
            return ReparamConv.of(conv, kernel_size, small_kernel)
        return grown(conv, kernel_size)

    return replace(model, lambda n, m: where(n, m) and max(m.kernel_size) < kernel_size, by)


def share_kernels(
    model: nn.Module, kernel_size: int, center: int = 7, where: Predicate = is_depthwise
) -> nn.Module:
    """Replace depthwise convolutions of stride 1 with peripheral ones (PeLK, Figure 6).

    The old kernel becomes the centre. A cell of the sharing grid gets the mean of the old taps in
    it, so outputs do not change if the old kernel is no larger than `center`.

    Args:
        model: any network.
        kernel_size: K, odd.
        center: number of cells of 1 in the middle of the sharing grid.
        where: selects the convolutions; by default all depthwise ones.

    Raises:
        InputError: an even size, or no convolution selected.
    """
    grid = sharing_grid(kernel_size, min(center, kernel_size))

    def by(conv: nn.Module) -> nn.Module:
        dense = grown(conv, kernel_size)
        rows = torch.repeat_interleave(
            torch.eye(len(grid), dtype=dense.weight.dtype), torch.tensor(grid), dim=1
        ).to(dense.weight.device)  # (k, K): 1 where a tap lies in a cell
        rows = rows / rows.sum(1, keepdim=True)
        dd = {"device": dense.weight.device, "dtype": dense.weight.dtype}
        layer = PeripheralConv2d(conv.in_channels, grid, bias=dense.bias is not None, **dd)
        with torch.no_grad():
            layer.weight.copy_(rows @ dense.weight[:, 0] @ rows.t())
            if dense.bias is not None:
                layer.bias.copy_(dense.bias)
        return layer

    def fits(name: str, module: nn.Module) -> bool:
        return where(name, module) and module.stride == (1, 1)

    return replace(model, fits, by)


def ls_convs_in_resnet(model: nn.Module) -> nn.Module:
    """Replace all dense 3x3 convolutions in residual blocks with LS convolutions.

    LSNet (2503.23135), section 4: LS convolution in ResNet-50, which has 16 of them, three with
    stride 2: 2.6 G multiply-adds. The weights of the dense kernels are lost.

    Raises:
        InputError: the model has no such convolution.
    """

    def where(name: str, module: nn.Module) -> bool:
        if not isinstance(module, nn.Conv2d) or not name.startswith("layer"):
            return False
        dense = module.kernel_size == (3, 3) and module.groups == 1
        return dense and module.in_channels == module.out_channels

    def by(conv: nn.Module) -> nn.Module:
        return LSConv(conv.in_channels, stride=conv.stride[0], **_like(conv.weight))

    return replace(model, where, by)


def ls_convs_in_vit(model: nn.Module) -> nn.Module:
    """Replace attention with LS convolutions over the grid of tokens: LSNet's DeiT-T.

    Raises:
        InputError: the model has no `patch_embed` with a grid and no `attn` in its blocks.
    """
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if grid is None:
        raise InputError(f"{type(model).__name__} has no patch_embed.grid_size: no grid of tokens")
    prefix = model.num_prefix_tokens

    def by(attention: nn.Module) -> nn.Module:
        weight = next(attention.parameters())
        return TokenMixer(LSConv(weight.shape[1], **_like(weight)), tuple(grid), prefix)

    return replace(model, lambda name, module: name.endswith(".attn"), by)


def aggregators_in_convnext(
    model: nn.Module, kernel_sizes: tuple[int, ...] = (7, 9, 11)
) -> nn.Module:
    """Replace depthwise convolutions of stride 1 with UniConvNet's receptive field aggregators.

    Args:
        model: a ConvNeXt, or another network with depthwise convolutions.
        kernel_sizes: of the aggregator's layers.

    Raises:
        InputError: the model has no such convolution.
    """

    def by(conv: nn.Module) -> nn.Module:
        return ReceptiveFieldAggregator(conv.in_channels, kernel_sizes, **_like(conv.weight))

    return replace(model, lambda n, m: is_depthwise(n, m) and m.stride == (1, 1), by)


class TokenMixer(nn.Module):
    """A mixer of maps applied to a transformer's tokens; class tokens get the mean of its output.

    Args:
        mixer: (N, C, H, W) -> (N, C, H, W).
        grid: (H, W) of the patch tokens.
        prefix: number of tokens before them.

    Shape: (N, prefix + H * W, C) -> (N, prefix + H * W, C)
    """

    def __init__(self, mixer: nn.Module, grid: tuple[int, int], prefix: int):
        super().__init__()
        self.mixer = mixer
        self.grid = grid
        self.prefix = prefix

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        """`args` and `kwargs` (attention masks) are ignored."""
        tokens = x[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        mixed = self.mixer(tokens).flatten(2).transpose(1, 2)
        summary = mixed.mean(1, keepdim=True).expand(-1, self.prefix, -1)
        return torch.cat([summary, mixed], dim=1)


def _like(weight: Tensor) -> dict:
    return {"device": weight.device, "dtype": weight.dtype}
