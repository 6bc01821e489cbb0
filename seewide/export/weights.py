"""The fused weights alone, as safetensors with a checksum, `metadata` in the header.

For `seewide.load_checkpoint(seewide.fuse(model), path)`.
"""

from __future__ import annotations

import copy
from pathlib import Path

from torch import Tensor, nn

from seewide.checkpoints import read_state_dict
from seewide.checkpoints.integrity import safetensors_bytes
from seewide.export.common import Prepared, Runner, outputs


def write(prepared: Prepared, path: Path, fused: nn.Module) -> Runner:
    """Write the weights of `fused`; returns what runs a copy of it with the weights read back."""
    path.write_bytes(safetensors_bytes(fused.state_dict(), prepared.properties))
    fresh = copy.deepcopy(fused)
    for tensor in fresh.state_dict().values():
        tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
    fresh.load_state_dict(read_state_dict(path))

    def run(x: Tensor) -> tuple[Tensor, ...]:
        return outputs(fresh(x))

    return run
