"""`seewide clip`: CLIP models."""

COMMANDS = {
    "train": "Train a CLIP model with open_clip's program.",
    "zeroshot": "Classify a folder of classes by their names.",
    "retrieve": "Measure recall of images by captions and of captions by images.",
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
