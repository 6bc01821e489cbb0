"""Pictures and their labels: one file per kind of source, then order, reading and batches.

Every source becomes `Split`s of pictures that are read when they are needed. So shuffling,
resuming, sharing among processes and what happens to a damaged picture are written once.

Splits that are not given are drawn once, class by class, with a fixed seed of their own: the
training seed changes the training, never the question.
"""

from seewide.train.data.broken import BROKEN, SHARE, Broken
from seewide.train.data.folders import classes_of, list_folder
from seewide.train.data.loader import Pictures, batches, make_loader, on_device
from seewide.train.data.order import Order
from seewide.train.data.picture import CHECK_AT_MOST, check_pictures, read_picture
from seewide.train.data.source import is_plain, open_source, open_unsplit
from seewide.train.data.split import Source, Split, Unsplit
from seewide.train.data.transform import train_transform

__all__ = [
    "BROKEN", "CHECK_AT_MOST", "SHARE", "Broken", "Order", "Pictures", "Source", "Split", "Unsplit",
    "batches", "check_pictures", "classes_of", "is_plain", "list_folder", "make_loader",
    "on_device", "open_source", "open_unsplit", "read_picture", "train_transform",
]  # fmt: skip
