"""Deterministic weights and inputs, and comparison with the results of the authors' code.

The files in `parity/` hold what the authors' code computes for these weights; see its README.
The value of a weight depends on its name in the authors' state dict and on its shape alone: a
Mersenne Twister (`numpy.random.RandomState`) seeded with the CRC-32 of the name draws it.
"""

import hashlib
import importlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn

import seewide
from seewide.testing import deviation

PARITY = Path(__file__).parent / "parity"
LAYOUTS = json.loads((PARITY / "layouts.json").read_text())
# Largest deviation from the authors' float64 results. The same formula deviates by up to 4.7e-6 in
# float32 and 9e-15 in float64; stage outputs are stored in float32.
LOGITS_LIMITS = {torch.float32: 1e-5, torch.float64: 1e-12}
STAGES_LIMITS = {torch.float32: 1e-5, torch.float64: 1e-6}
LAYER_SCALES = ("gamma", "gamma1", "gamma2", "layer_scale")


def _stream(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def plain_weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Normally distributed weights of standard deviation 1 / sqrt(fan in)."""
    normal = _stream(name).standard_normal(shape)
    last = name.rpartition(".")[2]
    if last == "running_var":
        return 1 + 0.2 * np.abs(normal)
    if last == "running_mean" or "attention_biases" in last:
        return 0.1 * normal
    if len(shape) <= 1:
        mean = 1.0 if last == "weight" else 0.5 if last in LAYER_SCALES else 0.0
        return mean + 0.1 * normal
    if last in ("gamma", "beta"):  # of a global response normalization
        return 0.1 * normal
    return normal / np.sqrt(max(1, int(np.prod(shape[1:]))))


def calm_weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniformly distributed weights for which a network does not amplify rounding errors.

    Activations stay near one, offsets of deformable convolutions within about a pixel, and
    attention far from one-hot.
    """
    uniform = _stream(name).uniform(-1.0, 1.0, shape)
    last = name.rpartition(".")[2]
    if last == "running_var":
        return 1.0 + 0.2 * uniform
    if last == "running_mean":
        return 0.1 * uniform
    if last in LAYER_SCALES:
        return 0.3 + 0.1 * uniform
    if last == "attention_biases":
        return 0.5 * uniform
    if last == "bias":
        predicts = name.endswith((".dcn.offset.bias", ".dcn.mask.bias"))
        return (0.3 if predicts else 0.05) * uniform
    if len(shape) == 1:  # the weight of a norm
        weight = 1.0 + 0.1 * uniform
        if name.endswith(".lkp.norm.weight"):
            return 0.2 * weight
        ends_residual_branch = name.endswith((".pw2.bn.weight", ".proj.1.bn.weight"))
        return 0.5 * weight if ends_residual_branch else weight
    scale = 0.25 if ".dcn.offset." in name else 0.5 if ".dcn.mask." in name else 1.0
    return scale * np.sqrt(3.0 / np.prod(shape[1:])) * uniform


def plain_image() -> Tensor:
    """Standard normal input (1, 3, 224, 224)."""
    image = np.random.RandomState(0).standard_normal((1, 3, 224, 224))
    return torch.from_numpy(image.astype(np.float32))


def calm_image() -> Tensor:
    """Squares of 32 x 32 pixels and noise, (2, 3, 224, 224)."""
    stream = np.random.RandomState(0)
    squares = np.kron(stream.standard_normal((2, 3, 7, 7)), np.ones((32, 32)))
    noise = stream.standard_normal((2, 3, 224, 224))
    return torch.from_numpy((0.8 * squares + 0.6 * noise).astype(np.float32))


def authors_layout(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of `model` by the authors' names."""
    family = importlib.import_module(type(model).__module__)
    return family.authors_state_dict(model.state_dict())


def digest(state_dict: dict[str, Tensor]) -> str:
    """SHA-256 of names, shapes and dtypes, as in `layouts.json`."""
    lines = [
        f"{key} {'x'.join(map(str, value.shape))} {str(value.dtype).removeprefix('torch.')}\n"
        for key, value in sorted(state_dict.items())
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def with_weights(name: str, weights: Callable[[str, tuple[int, ...]], np.ndarray]) -> nn.Module:
    """The network in evaluation mode with these weights, loaded in the authors' layout."""
    model = timm.create_model(name)
    state = {
        key: torch.from_numpy(np.asarray(weights(key, tuple(value.shape)), dtype=np.float32))
        if value.is_floating_point()
        else value
        for key, value in authors_layout(model).items()
    }
    return seewide.load_checkpoint(model, state).eval()


def check_layout(family: str, variant: str, name: str) -> None:
    """Every name and shape of the authors' state dict, there and back, and the parameter count."""
    model = timm.create_model(name, device="meta")
    theirs, expected = authors_layout(model), LAYOUTS[family][variant]
    assert len(theirs) == expected["keys"]
    assert digest(theirs) == expected["sha256"]
    module = importlib.import_module(type(model).__module__)
    back = module.checkpoint_filter_fn(theirs, model)
    own = model.state_dict()
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in own.items()}
    assert sum(p.numel() for p in model.parameters()) == expected["parameters"]


def stages_and_logits(
    model: nn.Module, image: Tensor, indices: list[int]
) -> tuple[list[Tensor], Tensor]:
    """Outputs of four stages, and the logits."""
    with torch.no_grad():
        last, stages = model.forward_intermediates(image, indices=indices)
        return stages, model.forward_head(last)


def check_calm_parity(file: str, name: str, indices: list[int]) -> None:
    """Stages and logits of the unfused and the fused network equal the authors'.

    Args:
        file: `<family>.<variant>` of the file in `parity/`.
        name: the model.
        indices: of the four stages whose outputs the file has.
    """
    model = with_weights(name, calm_weights)
    want = np.load(PARITY / f"{file}.calm.npz")
    for dtype, limit in LOGITS_LIMITS.items():  # float32 first: its weights are exact in float64
        model.to(dtype)
        for network in (model, seewide.fuse(model)):
            stages, logits = stages_and_logits(network, calm_image().to(dtype), indices)
            assert deviation(logits, torch.from_numpy(want["logits"])) < limit, dtype
            for i, stage in enumerate(stages):
                _check_stage(stage, want, i, STAGES_LIMITS[dtype])


def _check_stage(stage: Tensor, want: np.lib.npyio.NpzFile, i: int, limit: float) -> None:
    assert stage.shape == tuple(want[f"feat{i}_shape"])
    channels, rows, columns = (want[f"feat{i}_{axis}"] for axis in ("channels", "rows", "columns"))
    largest = float(want[f"feat{i}_max"])
    statistics = {
        "": stage[:, channels][:, :, rows][:, :, :, columns],
        "_mean": stage.mean((2, 3)),
        "_std": stage.std((2, 3), correction=0),
    }
    for part, got in statistics.items():
        difference = (got.double() - torch.from_numpy(want[f"feat{i}{part}"])).abs().max().item()
        assert difference < limit * largest, (i, part)
    assert abs(stage.abs().max().item() / largest - 1) < limit, i


def check_plain_parity(file: str, name: str, limit: float = 1e-5) -> None:
    """Stages and logits of the unfused and the fused network equal the authors' float32 results."""
    model = with_weights(name, plain_weights)
    want = np.load(PARITY / f"{file}.npz")
    for network in (model, seewide.fuse(model)):
        stages, logits = stages_and_logits(network, plain_image(), [0, 1, 2, 3])
        assert deviation(logits, torch.from_numpy(want["logits"])) < limit
        for i, stage in enumerate(stages):
            x = stage[0]
            assert x.shape == tuple(want[f"feat{i}_shape"][-3:])
            statistics = {
                "mean": x.mean((1, 2)),
                "std": x.std((1, 2), correction=0),
                "corner": x[:, 0, 0],
                "center": x[:, x.shape[1] // 2, x.shape[2] // 2],
            }
            for part, got in statistics.items():
                expected = torch.from_numpy(want[f"feat{i}_{part}"]).reshape(-1)
                assert deviation(got, expected) < limit, (i, part)
