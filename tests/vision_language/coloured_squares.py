"""Coloured squares and tables of captions."""

from __future__ import annotations

import csv

from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220)}


def square(path, colour, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = tuple(max(0, min(255, value + shade)) for value in COLOURS[colour])
    Image.new("RGB", (40, 32), values).save(path)
    return path


def write_table(path, rows, columns=("image", "caption"), separator=","):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([columns, *rows])
    return path
