"""Merge the training branches of a network, see that nothing changed, export the fused model."""

import tempfile
from pathlib import Path

import timm
import torch

import seewide
from seewide.analysis.cost import count_cost
from seewide.export import export_model
from seewide.numerics import deviation

# The ten sizes of UniRepLKNet are ordinary timm models once seewide is imported.
model = timm.create_model("unireplknet_a", num_classes=10).eval()
for parameter in model.parameters():  # as if trained: fresh branches are scaled by 1e-6
    torch.nn.init.normal_(parameter, std=0.2)
x = torch.randn(2, 3, 64, 64)

merged = seewide.fuse(model)  # a copy, which compares itself with the original on the way
with torch.no_grad():
    y = model(x)
    moved = deviation(merged(x), y)
print(f"unfused model  {count_cost(model)}, {len(list(model.modules()))} modules")
print(f"merged         {count_cost(merged)}, {len(list(merged.modules()))} modules")
print(f"outputs moved by {moved:.1e}, relative to the largest")

# export_model merges by itself, reads the file back, and refuses it if the numbers differ.
with tempfile.TemporaryDirectory() as folder:
    for format in ("pt2", "safetensors"):  # "onnx" too, with `pip install seewide[export]`
        report = export_model(model, Path(folder) / f"model.{format}", format, example=x)
        print(
            f"{report.format:12} {report.size_bytes / 1e6:5.1f} MB, deviation {report.max_rel:.1e}"
        )
