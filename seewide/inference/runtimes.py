"""The fused model in another runtime, behind the interface of a module.

The model is exported to ONNX, for the size of its example, and the file is read at once.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError, require


class RuntimeModel(nn.Module):
    """A model in another runtime: (N, C, H, W) of the example's size -> the model's output."""

    def __init__(self, shape: torch.Size, report, infer: Callable[[np.ndarray], np.ndarray]):
        super().__init__()
        self.shape = shape
        self.report = report
        self._infer = infer

    def forward(self, x: Tensor) -> Tensor:
        """As the model's. Raises InputError for a gradient or another size."""
        if torch.is_grad_enabled() and x.requires_grad:
            raise InputError("an optimized model has no gradients; use the original model")
        if x.shape != self.shape:
            raise InputError(
                f"this model was exported for inputs of {tuple(self.shape)}, got {tuple(x.shape)}"
            )
        y = self._infer(x.detach().float().contiguous().numpy())
        return torch.from_numpy(np.array(y)).to(x.dtype)

    def train(self, mode: bool = True) -> RuntimeModel:
        """Raises InputError for `train()`; `eval()` changes nothing."""
        if mode:
            raise InputError("an optimized model cannot be trained; train the original model")
        return super().train(False)


def onnxruntime(
    model: nn.Module, example: Tensor, dtype: torch.dtype | None, report
) -> RuntimeModel:
    """The model in ONNX Runtime, with as many threads as torch has."""
    if dtype == torch.bfloat16:
        raise InputError("ONNX Runtime has no bfloat16 on CPUs; dtype must be None or float32")
    ort = require("onnxruntime", "export")
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Idle threads that spin would slow down everything else in the process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        path = _export(model, example, Path(folder))
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return RuntimeModel(example.shape, report, lambda x: session.run(None, {name: x})[0])


def openvino(model: nn.Module, example: Tensor, dtype: torch.dtype | None, report) -> RuntimeModel:
    """The model in OpenVINO, with as many threads as torch has."""
    ov = require("openvino", "openvino")
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,
    }
    core = ov.Core()
    with tempfile.TemporaryDirectory() as folder:
        path = _export(model, example, Path(folder))
        request = core.compile_model(core.read_model(path), "CPU", config).create_infer_request()
    return RuntimeModel(
        example.shape, report, lambda x: request.infer({0: x}, share_inputs=True)[0]
    )


def _export(model: nn.Module, example: Tensor, folder: Path) -> str:
    require("onnx", "export")
    require("onnxscript", "export")
    path = str(folder / "model.onnx")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (example,), path, dynamo=True, verbose=False, external_data=False)
    return path


RUNTIMES = {"onnxruntime": onnxruntime, "openvino": openvino}
