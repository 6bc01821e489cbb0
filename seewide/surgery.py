"""Put large-kernel mixers into somebody else's network.

`replace` swaps the modules that a predicate picks; the presets below it are the uses that the
papers themselves report. Weights are kept where they can be: a 3x3 kernel becomes the centre of a
13x13 one, so the network computes at the start what it computed before, and trains on from there.

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
    """A copy of `model` with each module that `where` picks replaced by `by(module)`.

    Args:
        where: called with the dotted name and the module; what it picks is not looked into.
        by: makes the module that takes its place.

    Raises:
        InputError: `where` picks nothing.
    """
    model = copy.deepcopy(model)
    chosen: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer, _ in chosen)
        if name and not inside and where(name, module):
            chosen.append((name, module))
    if not chosen:
        raise InputError(f"the predicate picks no module of {type(model).__name__}")
    for name, module in chosen:
        parent, _, child = name.rpartition(".")
        new = by(module)
        new.train(module.training)
        setattr(model.get_submodule(parent), child, new)
    return model


def is_depthwise(name: str, module: nn.Module) -> bool:
    """A depthwise convolution of odd size, larger than 1, with same padding and no dilation."""
    if not isinstance(module, nn.Conv2d) or module.groups != module.in_channels:
        return False
    sizes, padding = module.kernel_size, module.padding
    same = all(size % 2 == 1 and pad == size // 2 for size, pad in zip(sizes, padding, strict=True))
    channels = module.in_channels
    return same and max(sizes) > 1 and module.out_channels == channels and module.dilation == (1, 1)


def grow_kernels(
    model: nn.Module, kernel_size: int, small_kernel: int = 0, where: Predicate = is_depthwise
) -> nn.Module:
    """Larger depthwise kernels, the old one in their centre: the outputs stay equal.

    RepLKNet (2203.06717), section 3: MobileNetV2 with 9x9 and 13x13 kernels, plain or with a
    re-parameterized 3x3 (`small_kernel=3`), which `seewide.fuse` merges. PeLK (2403.07589),
    Figure 6: ConvNeXt-T with 7x7 to 151x151.

    Args:
        kernel_size: odd; convolutions at least that large stay as they are.
        small_kernel: size of a parallel kernel with a batch norm of its own; 0 for none.
        where: which convolutions; by default all depthwise ones.
    """

    def by(conv: nn.Module) -> nn.Module:
        if small_kernel:
            return ReparamConv.of(conv, kernel_size, small_kernel)
        return grown(conv, kernel_size)

    return replace(model, lambda n, m: where(n, m) and max(m.kernel_size) < kernel_size, by)


def share_kernels(
    model: nn.Module, kernel_size: int, center: int = 7, where: Predicate = is_depthwise
) -> nn.Module:
    """Peripheral convolutions in place of depthwise ones of stride 1 (PeLK, Figure 6).

    The old kernel becomes the centre. A cell of the sharing grid takes the mean of the old taps
    in it, so the outputs stay equal if the old kernel is no larger than `center`.
    """
    grid = sharing_grid(kernel_size, min(center, kernel_size))

    def by(conv: nn.Module) -> nn.Module:
        dense = grown(conv, kernel_size)
        rows = torch.repeat_interleave(
            torch.eye(len(grid), dtype=dense.weight.dtype), torch.tensor(grid), dim=1
        ).to(dense.weight.device)  # (k, K): which taps lie in which cell
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
    """LS convolutions in place of the 3x3 ones of stride 1 inside residual blocks.

    LSNet (2503.23135), section 4: LSConv in ResNet-50. Nothing of a dense kernel can be kept.
    """

    def where(name: str, module: nn.Module) -> bool:
        if not isinstance(module, nn.Conv2d) or not name.startswith("layer"):
            return False
        shape = (module.kernel_size, module.stride, module.groups)
        return shape == ((3, 3), (1, 1), 1) and module.in_channels == module.out_channels

    return replace(model, where, lambda conv: LSConv(conv.in_channels, **_like(conv.weight)))


def ls_convs_in_vit(model: nn.Module) -> nn.Module:
    """LS convolutions over the grid of tokens in place of attention: LSNet's DeiT-T.

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
    """UniConvNet's three-layer receptive-field aggregator in place of the 7x7 convolutions."""

    def by(conv: nn.Module) -> nn.Module:
        return ReceptiveFieldAggregator(conv.in_channels, kernel_sizes, **_like(conv.weight))

    return replace(model, lambda n, m: is_depthwise(n, m) and m.stride == (1, 1), by)


class TokenMixer(nn.Module):
    """A mixer of maps for a transformer's tokens; class tokens receive the mean of what it gives.

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
        """`args` and `kwargs` (attention masks) have no meaning here and are not looked at."""
        tokens = x[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        mixed = self.mixer(tokens).flatten(2).transpose(1, 2)
        summary = mixed.mean(1, keepdim=True).expand(-1, self.prefix, -1)
        return torch.cat([summary, mixed], dim=1)


def _like(weight: Tensor) -> dict:
    return {"device": weight.device, "dtype": weight.dtype}
