"""Structural re-parameterization: weight algebra, and `fuse`, which checks every fold.

A convolution followed by a batch norm in evaluation is a convolution; parallel convolutions are
one convolution whose kernel is the sum of theirs, once each is brought to the same size. So a
block trained with many branches runs as a single layer.

`fuse()` of a multi-branch layer returns the plain layer that replaces it, the hook that timm's
`reparameterize_model` looks for as well. `seewide.fuse(model)` finds such layers at any depth of
any model, replaces them in a copy, and checks each replacement by itself in float64.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from .errors import InputError
from .numerics import NETWORK, deviation, tensors, tolerance

log = logging.getLogger(__name__)

# Names of the method that fuses a layer: of timm and seewide (returns the layer that replaces it),
# of timm's FastViT and of RepVGG's descendants (both change the layer in place).
METHODS = ("fuse", "reparameterize", "switch_to_deploy")


def batch_norm_affine(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) that a batch norm applies in evaluation.

    Raises:
        InputError: it has no running statistics, and so normalizes by each batch's own.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise InputError(
            "a batch norm without running statistics (track_running_stats=False) depends on the "
            "batch and cannot be folded"
        )
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def fold_batch_norm(
    weight: Tensor, bias: Tensor | None, norm: nn.modules.batchnorm._BatchNorm
) -> tuple[Tensor, Tensor]:
    """Kernel and bias of `norm(layer(x))`, for a convolution's or a linear layer's weight."""
    scale, shift = batch_norm_affine(norm)
    folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return folded, shift if bias is None else shift + bias * scale


def undilate(weight: Tensor, dilation: int) -> Tensor:
    """The dense kernel of a dilated convolution: `dilation - 1` zeros between its taps.

    UniRepLKNet, section 3.1 and Appendix A: a transposed convolution of the kernel with an
    identity, stride `dilation`, for dense and grouped kernels input channel by input channel.
    It comes to writing the taps at a stride, whatever the groups.

    Args:
        weight: (C_out, C_in / groups, kh, kw).

    Returns:
        (C_out, C_in / groups, (kh - 1) * dilation + 1, (kw - 1) * dilation + 1)
    """
    if dilation < 1:
        raise InputError(f"dilation must be at least 1, got {dilation=}")
    kh, kw = weight.shape[2:]
    size = ((kh - 1) * dilation + 1, (kw - 1) * dilation + 1)
    dense = weight.new_zeros(*weight.shape[:2], *size)
    dense[:, :, ::dilation, ::dilation] = weight
    return dense


def center_pad(weight: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """The same kernel with a frame of zeros, (..., kh, kw) -> (..., *kernel_size)."""
    margins = [size - have for size, have in zip(kernel_size, weight.shape[-2:], strict=True)]
    if any(margin < 0 or margin % 2 for margin in margins):
        have = "x".join(str(size) for size in weight.shape[-2:])
        want = "x".join(str(size) for size in kernel_size)
        raise InputError(f"a {have} kernel has no centred place in a {want} one")
    top, left = margins[0] // 2, margins[1] // 2
    return F.pad(weight, (left, left, top, top))


def fold_parallel(branches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a sum of convolutions, given (undilated kernel, bias) of each."""
    size = (max(w.shape[2] for w, _ in branches), max(w.shape[3] for w, _ in branches))
    kernels, biases = zip(*branches, strict=True)
    padded = [center_pad(kernel, size) for kernel in kernels]
    return reduce(torch.add, padded), reduce(torch.add, biases)


@dataclass(frozen=True)
class Fusion:
    """What `fuse` did: parameters before and after, and how far the outputs moved.

    Attributes:
        deviation: largest error of any output, relative to that output; None on the meta device.
        folds: names of the layers that were replaced.
        unchecked: those of them that the example did not reach.
        lost_hooks: those of them that had hooks, which the layers in their place do not have.
    """

    parameters_before: int
    parameters_after: int
    deviation: float | None
    folds: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    lost_hooks: tuple[str, ...] = ()

    def __str__(self) -> str:
        checked = "unchecked" if self.deviation is None else f"deviation {self.deviation:.1e}"
        before, after = self.parameters_before / 1e6, self.parameters_after / 1e6
        return f"fused {before:.2f} M parameters into {after:.2f} M, {checked}"


def fuse(model: nn.Module, example: Any = None) -> nn.Module:
    """A copy of `model` for inference, with all branches, batch norms and scales folded.

    The copy is in evaluation mode; `model` is left as it is. See `fuse_checked`, which also
    returns the report that this function logs.
    """
    fused, report = fuse_checked(model, example)
    log.info("%s", report)
    return fused


def fuse_checked(model: nn.Module, example: Any = None) -> tuple[nn.Module, Fusion]:
    """`fuse(model)` and its report.

    Each layer that was replaced is compared with its replacement in float64, with random weights,
    scales and statistics, on an input of the shape that it receives from the example: a wrong
    fold shows even where a layer scale of 1e-6 hides it from the output. Then the outputs of both
    models are compared.

    Args:
        model: any module, such as a segmentation model with one of our networks inside. Layers
            that have `fuse()`, `reparameterize()` or `switch_to_deploy()` are replaced.
        example: an input to compare both models on: a tensor, a tuple of positional arguments or
            a dict of keyword arguments. Made from timm's `pretrained_cfg` if absent: of the model,
            or else of the timm networks inside it, each of which is then compared by itself.

    Raises:
        InputError: no example, and none can be made; or weights that cannot be folded (NaN,
            pruned, parametrized, sharded, TorchScript, batch norms without statistics).
        RuntimeError: a fold is wrong, or both models do not agree. Nothing was changed.
    """
    model = _unwrapped(model)
    names = _foldable(model)
    _refuse_unfoldable(model, names)
    lost = tuple(name for name in names if _has_hooks(model.get_submodule(name)))
    if lost:
        log.warning(
            "hooks on %s are not on the fused model: the layers they were on are replaced",
            ", ".join(name or "the model" for name in lost[:4]) + (" ..." if lost[4:] else ""),
        )
    before = nn.Sequential(copy.deepcopy(model)).eval()  # the root may be a layer that fuses
    probes = [("0", *_arguments(example))] if example is not None else _probes(before)
    meta = any(
        tensor.is_meta for _, args, kwargs in probes for _, tensor in tensors((args, kwargs))
    )
    after = copy.deepcopy(before)
    with torch.no_grad():
        inputs = {} if meta else _record(after, [f"0.{n}" if n else "0" for n in names], probes)
        for name, (args, kwargs) in inputs.items():
            _check_fold(after.get_submodule(name), name.partition(".")[2], args, kwargs)
        _fold_all(after)
        moved = None if meta else max(_moved(before, after, *probe) for probe in probes)
    was, now = (sum(p.numel() for p in net.parameters()) for net in (before, after))
    reached = {name.partition(".")[2] for name in inputs}
    unchecked = tuple(name for name in names if name not in reached and not meta)
    report = Fusion(was, now, moved, tuple(names), unchecked, lost)
    return after[0], report


def probe(model: nn.Module, batch: int = 2) -> Tensor:
    """A small random input that `model` takes, by its timm configuration."""
    first = next(model.parameters(), None)
    config = _configuration(model)
    chans = getattr(model, "in_chans", None) or config.get("input_size", (None,))[0]
    if first is None or chans is None:
        raise InputError(
            f"{type(model).__name__} does not say what input it takes; "
            "give fuse(model, example=...)"
        )
    _, height, width = config.get("input_size", (chans, 224, 224))
    if not config.get("fixed_input_size", False):  # not square, and not too small for stride 64
        height, width = min(height, 96), min(width, 64)
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(batch, chans, height, width, generator=generator)
    return example.to(device=first.device, dtype=first.dtype)


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and batch-norm statistic a value that an error would show in.

    Freshly built networks have zero shifts, unit variances and layer scales of 1e-6: a wrong
    fold of any of them would go unnoticed. Returns the model.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)

    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_floating_point():
                continue
            if parameter.squeeze().ndim <= 1:
                parameter.copy_(0.5 + 0.2 * normal(parameter))
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(normal(parameter) / fan_in**0.5)
        for module in model.modules():
            if (
                isinstance(module, nn.modules.batchnorm._BatchNorm)
                and module.running_mean is not None
                and module.running_var is not None
            ):
                module.running_mean.copy_(0.2 * normal(module.running_mean))
                module.running_var.copy_(1 + 0.3 * normal(module.running_var).abs())
    return model


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, DataParallel and torch.compile."""
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    while True:
        name = "module" if isinstance(model, wrappers) else "_orig_mod"
        inner = getattr(model, name, None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _method(module: nn.Module) -> str | None:
    """The name of the module's method that fuses it and needs no argument."""
    for name in METHODS:
        method = getattr(type(module), name, None)
        if callable(method) and not isinstance(module, torch.jit.ScriptModule):
            needed = [
                parameter
                for parameter in list(inspect.signature(method).parameters.values())[1:]
                if parameter.default is parameter.empty
                and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            ]
            if not needed:  # others are fusions of another kind, such as of feature maps
                return name
    return None


def _foldable(model: nn.Module, name: str = "") -> list[str]:
    """Names of the outermost modules that fuse, "" for the model itself."""
    if _method(model):
        return [name]
    children = model.named_children()
    return [n for key, child in children for n in _foldable(child, f"{name}.{key}".lstrip("."))]


def _fold(module: nn.Module) -> nn.Module:
    """The module that replaces one that fuses, and everything inside it fused."""
    method = _method(module)
    result = getattr(module, str(method))()
    fused = result if method == "fuse" and isinstance(result, nn.Module) else module
    _fold_all(fused)
    return fused.eval()


def _fold_all(model: nn.Module, done: dict[nn.Module, nn.Module] | None = None) -> None:
    """Replace all modules below `model` that fuse; one used in two places stays one."""
    done = {} if done is None else done
    for name, child in list(model._modules.items()):  # named_children() skips the second place
        if child is None:
            continue
        if child not in done and _method(child):
            dtype = next((p.dtype for p in child.parameters() if p.is_floating_point()), None)
            # The sums of half-precision branches are rounded once, at the end.
            half = dtype in (torch.float16, torch.bfloat16)
            try:
                done[child] = _fold(child.double()).to(dtype) if half else _fold(child)
            except InputError as error:
                what = f"{name} ({type(child).__name__})"
                raise InputError(f"{what} cannot be fused: {error}") from None
        if child in done:
            setattr(model, name, done[child])
        else:
            _fold_all(child, done)


def _refuse_unfoldable(model: nn.Module, names: list[str]) -> None:
    """One sentence for weights that fusing would get wrong."""
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("a TorchScript module cannot be fused; fuse the model before scripting it")
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        if type(tensor).__name__ == "DTensor":
            raise InputError(f"{key} is sharded over processes; gather the full state, then fuse")
        if not tensor.is_meta and tensor.is_floating_point() and tensor.isnan().any():
            raise InputError(f"the model cannot be fused: {key} holds NaN")
    for name in names:
        for key, module in model.get_submodule(name).named_modules(prefix=name):
            what = f"{key or 'the model'} ({type(module).__name__})"
            hooks = module._forward_pre_hooks.values()
            if any(isinstance(hook, prune.BasePruningMethod) for hook in hooks):
                raise InputError(
                    f"{what} is pruned by a mask; make it permanent with "
                    "torch.nn.utils.prune.remove, then fuse"
                )
            if parametrize.is_parametrized(module):
                raise InputError(
                    f"{what} has parametrized weights; make them permanent with "
                    "torch.nn.utils.parametrize.remove_parametrizations, then fuse"
                )


def _has_hooks(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(m, kind) for m in module.modules() for kind in kinds)


def _arguments(example: Any) -> tuple[tuple, dict]:
    if isinstance(example, tuple):
        return example, {}
    if isinstance(example, Mapping):
        return (), dict(example)
    return (example,), {}


def _configuration(model: nn.Module) -> dict[str, Any]:
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    return config if isinstance(config, dict) else {}


def _probes(before: nn.Sequential) -> list[tuple[str, tuple, dict]]:
    """An input for the model, or for each of the timm networks inside it."""
    found: list[tuple[str, tuple, dict]] = []
    for name, module in before[0].named_modules(prefix="0"):
        inside = any(name.startswith(f"{outer}.") for outer, _, _ in found)
        if not inside and _configuration(module).get("input_size"):
            found.append((name, (probe(module),), {}))
    return found or [("0", (probe(before[0]),), {})]


def _record(
    model: nn.Module, names: list[str], probes: list[tuple[str, tuple, dict]]
) -> dict[str, tuple[tuple, dict]]:
    """The first arguments that each of the named modules is called with."""
    seen: dict[str, tuple[tuple, dict]] = {}
    handles = []
    for name in names:

        def remember(module: nn.Module, args: tuple, kwargs: dict, name: str = name) -> None:
            seen.setdefault(name, (args, kwargs))

        module = model.get_submodule(name)
        handles.append(module.register_forward_pre_hook(remember, with_kwargs=True))
    try:
        for name, args, kwargs in probes:
            model.get_submodule(name)(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _check_fold(module: nn.Module, name: str, args: tuple, kwargs: dict) -> None:
    """Compare a layer and what replaces it, in float64 and with weights that hide nothing."""
    exact = randomize(copy.deepcopy(module).double().eval())
    generator = torch.Generator().manual_seed(1)

    def random(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        return noise.to(tensor.device)

    args, kwargs = _mapped(random, args), _mapped(random, kwargs)
    want = exact(*args, **kwargs)
    try:
        found = deviation(_fold(copy.deepcopy(exact))(*args, **kwargs), want)
    except InputError as error:
        what = f"{name or 'the model'} ({type(module).__name__})"
        raise InputError(f"{what} cannot be fused: {error}") from None
    if not found <= NETWORK[torch.float64]:
        raise RuntimeError(
            f"{name or 'the model'} ({type(module).__name__}) was folded wrongly: with random "
            f"weights, its replacement deviates by {found:.1e} relative in float64"
        )


def _moved(before: nn.Module, after: nn.Module, name: str, args: tuple, kwargs: dict) -> float:
    """Largest relative error of the fused model's outputs, or a RuntimeError.

    A network may magnify rounding (a one-hot attention: a hundred times), so one that deviates
    more than rounding explains is compared in float64 as well.
    """
    ours, theirs = after.get_submodule(name), before.get_submodule(name)
    found = deviation(ours(*args, **kwargs), theirs(*args, **kwargs))
    dtypes = [t.dtype for _, t in tensors((args, kwargs)) if t.is_floating_point()]
    dtypes += [p.dtype for p in theirs.parameters() if p.is_floating_point()][:1]
    dtype = max(dtypes, key=lambda dtype: tolerance(dtype, NETWORK), default=torch.float64)
    limit = tolerance(dtype, NETWORK)
    if not found <= limit:
        double = [
            _mapped(lambda t: t.double() if t.is_floating_point() else t, part)
            for part in (args, kwargs)
        ]
        exact = copy.deepcopy(theirs).double()
        holder = nn.Sequential(copy.deepcopy(exact))
        _fold_all(holder)
        magnified = deviation(holder[0](*double[0], **double[1]), exact(*double[0], **double[1]))
        if not magnified <= NETWORK[torch.float64]:
            raise RuntimeError(
                f"the fused model deviates by {found:.1e} relative, more than the {limit:.0e} that "
                f"rounding in {dtype} explains, and by {magnified:.1e} in float64"
            )
    return found


def _mapped(function: Any, content: Any) -> Any:
    """`function` on every tensor of nested arguments."""
    if isinstance(content, Tensor):
        return function(content)
    if isinstance(content, dict):
        return {key: _mapped(function, value) for key, value in content.items()}
    if isinstance(content, (list, tuple)) and not hasattr(content, "_fields"):
        return type(content)(_mapped(function, value) for value in content)
    return content
