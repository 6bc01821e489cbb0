"""Fuse the training branches of a network, compare the outputs, and export the fused model."""

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
for parameter in model.parameters():  # imitate trained weights: new branches are scaled by 1e-6
    torch.nn.init.normal_(parameter, std=0.2)
x = torch.randn(2, 3, 64, 64)

fused = seewide.fuse(model)  # a copy, whose outputs are compared with the original's
with torch.no_grad():
    y = model(x)
    difference = deviation(fused(x), y)
print(f"unfused  {count_cost(model)}, {len(list(model.modules()))} modules")
print(f"fused    {count_cost(fused)}, {len(list(fused.modules()))} modules")
print(f"largest difference of the outputs: {difference:.1e}, relative to the largest output")

# export_model fuses the model, reads the file back, and raises an error if the outputs differ.
with tempfile.TemporaryDirectory() as folder:
    for format in ("pt2", "safetensors"):  # "onnx" too, with `pip install seewide[export]`
        report = export_model(model, Path(folder) / f"model.{format}", format, example=x)
        print(
            f"{report.format:12} {report.size_bytes / 1e6:5.1f} MB, deviation {report.max_rel:.1e}"
        )
