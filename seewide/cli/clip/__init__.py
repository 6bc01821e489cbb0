"""`seewide clip`: CLIP models."""

COMMANDS = {
    "train": "Train a CLIP model with open_clip's program.",
    "zeroshot": "Classify a folder of classes by their names.",
    "retrieve": "Measure recall of images by captions and of captions by images.",
    "maps": "Draw where an image resembles a word, and images against captions.",
    "export": "Export both towers as ONNX files, reload them and compare.",
    "table": "Print the paper's 26 zero-shot results, with yours beside them.",
    "benchmark": "Call clip-benchmark with the configurations of this package.",
    "configs": "List the configurations with their sizes.",
    "recipes": "List the recipes, or show the settings of one.",
}
DETAILS = """
examples:
  seewide clip train laptop --data flickr8k --out runs/clip
  seewide clip retrieve runs/clip --data flickr8k
  seewide clip zeroshot runs/clip --data flowers
"""
