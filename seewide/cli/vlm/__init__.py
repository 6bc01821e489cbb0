"""`seewide vlm`: vision-language models."""

COMMANDS = {
    "build": "Join a trained tower, a new projector and a language model.",
    "train": "Train one stage: the projector, or instruction tuning.",
    "chat": "Talk about an image in the terminal.",
    "caption": "Describe images, or ask the same question about each.",
    "grounding": "Measure how much the answers depend on the image.",
    "export": "Export tower and projector as ONNX, reload the file and compare.",
    "table": "Print the paper's twelve benchmarks, with your results beside them.",
    "recipes": "List the stages, or show the settings of one.",
}
DETAILS = """
examples:
  seewide vlm build unireplknet_t lmsys/vicuna-7b-v1.5 --template vicuna --out runs/vlm-0
  seewide vlm train runs/vlm-0 --data captions.json --recipe llava15_projector --out runs/vlm-1
  seewide vlm chat runs/vlm-1 --image rose.jpg
"""
