"""python predict.py IMAGE...: the classes of images. Needs numpy, Pillow and onnxruntime."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
HOW = json.loads((HERE / "preprocess.json").read_text())
LABELS = (HERE / "labels.txt").read_text(encoding="utf-8").splitlines()
RESAMPLE = Image.Resampling[HOW["interpolation"].upper()]


def preprocess(image):
    """PIL image of any size -> (1, C, H, W), float32, as in training's evaluation."""
    image = ImageOps.exif_transpose(image).convert("RGB" if len(HOW["mean"]) == 3 else "L")
    size, (w, h) = HOW["image_size"], image.size
    scaled = math.floor(size / HOW["crop_pct"])
    if HOW["crop_mode"] == "squash":
        w, h = scaled, scaled
    elif HOW["crop_mode"] == "border":
        ratio = max(h / scaled, w / scaled)
        w, h = round(w / ratio), round(h / ratio)
    else:  # the short side
        w, h = (scaled, int(scaled * h / w)) if w <= h else (int(scaled * w / h), scaled)
    image = image.resize((w, h), RESAMPLE) if (w, h) != image.size else image
    fill = tuple(round(255 * v) for v in HOW["mean"]) if HOW["crop_mode"] == "border" else 0
    canvas = Image.new(
        image.mode, (max(w, size), max(h, size)), fill if len(HOW["mean"]) == 3 else 0
    )
    canvas.paste(image, (max(size - w, 0) // 2, max(size - h, 0) // 2))
    left, top = round((canvas.width - size) / 2), round((canvas.height - size) / 2)
    pixels = np.asarray(canvas.crop((left, top, left + size, top + size)), np.float32) / 255
    pixels = pixels.reshape(size, size, -1)
    pixels = (pixels - np.float32(HOW["mean"])) / np.float32(HOW["std"])
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def classify(session, batch):
    """(N, C, H, W) -> probabilities (N, classes)."""
    logits = session.run(None, {session.get_inputs()[0].name: batch})[0]
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


if __name__ == "__main__":
    session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
    for name in sys.argv[1:]:
        probabilities = classify(session, preprocess(Image.open(name)))[0]
        best = probabilities.argsort()[::-1][:5]
        print(name, *(f"{LABELS[i]} {100 * probabilities[i]:.1f}%" for i in best), sep="\t")
