"""Generated images of colored shapes, with expressions for one of them.

A functional test of referring segmentation: color, shape, size, place and relation are each needed
to find the object, and pairs of color and shape can be held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from .samples import Sample, Samples

SHAPES = "shapes"
COLORS = {
    "red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220),
    "yellow": (230, 210, 50), "purple": (150, 60, 190), "white": (235, 235, 235),
}  # fmt: skip
KINDS = ("circle", "square", "triangle")
UNSEEN = {("red", "square"), ("blue", "triangle"), ("yellow", "circle"), ("green", "square")}
SIDE = 64


@dataclass(frozen=True)
class Shape:
    """One object: its center and radius in pixels."""

    color: str
    kind: str
    x: float
    y: float
    radius: float

    def draw(self, image: Image.Image, fill: object) -> None:
        x, y, r = self.x, self.y, self.radius
        draw = ImageDraw.Draw(image)
        if self.kind == "circle":
            draw.ellipse((x - r, y - r, x + r, y + r), fill)
        elif self.kind == "square":
            draw.rectangle((x - r, y - r, x + r, y + r), fill)
        else:
            draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill)


Rule = Callable[[Shape, Sequence[Shape]], bool]
PLACES: dict[str, Rule] = {
    "leftmost": lambda s, others: all(s.x < o.x - 4 for o in others),
    "rightmost": lambda s, others: all(s.x > o.x + 4 for o in others),
    "topmost": lambda s, others: all(s.y < o.y - 4 for o in others),
    "lowest": lambda s, others: all(s.y > o.y + 4 for o in others),
}
SIZES: dict[str, Rule] = {
    "largest": lambda s, others: all(s.radius > 1.3 * o.radius for o in others),
    "smallest": lambda s, others: all(s.radius < o.radius / 1.3 for o in others),
}


class ShapeSamples(Samples):
    """Images with expressions, drawn when they are asked for; see `ReferringSamples`."""

    def __init__(self, scenes: Sequence[tuple[tuple[Shape, ...], int, str, str]]) -> None:
        self.scenes = list(scenes)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        shapes, wanted, expression, kind = self.scenes[index]
        noise = np.random.default_rng(index).integers(0, 40, (SIDE, SIDE, 3), np.uint8)
        image, mask = Image.fromarray(noise), Image.new("L", (SIDE, SIDE))
        for number, shape in enumerate(shapes):
            shape.draw(image, COLORS[shape.color])
            shape.draw(mask, 255 if number == wanted else 0)
        return {
            "image": image,
            "mask": np.asarray(mask) > 0,
            "expression": expression,
            "group": (str(index),),
            "kind": kind,
        }

    def names(self) -> Iterable[str]:
        return (f"{i}:{scene[2]}" for i, scene in enumerate(self.scenes))

    def expressions(self) -> list[str]:
        return [scene[2] for scene in self.scenes]


@lru_cache(maxsize=8)
def generate_shapes(images: int, seed: int, unseen: bool = False) -> ShapeSamples:
    """Scenes of three to five objects with up to four expressions each.

    Args:
        images: their number.
        seed: of everything random.
        unseen: in every second image, the expressions name a color and a shape of a pair in
            `UNSEEN`; no expression without `unseen` names these together.
    """
    random = np.random.default_rng(seed)
    scenes = []
    for number in range(images):
        shapes = _scene(random)
        kinds = _expressions(shapes, new_pairs=unseen and number % 2 == 1)
        for kind in sorted(kinds)[:4] if len(kinds) <= 4 else random.permutation(sorted(kinds))[:4]:
            wanted, sentence = kinds[kind][random.integers(len(kinds[kind]))]
            scenes.append((shapes, wanted, sentence, str(kind)))
    return ShapeSamples(scenes)


def _scene(random: np.random.Generator) -> tuple[Shape, ...]:
    """Objects that do not overlap."""
    shapes: list[Shape] = []
    while len(shapes) < random.integers(3, 6):
        radius = float(random.choice([5, 7, 10]))
        x, y = random.uniform(radius + 1, SIDE - radius - 1, 2)
        if all(max(abs(x - o.x), abs(y - o.y)) > radius + o.radius + 2 for o in shapes):
            color, kind = str(random.choice([*COLORS])), str(random.choice(KINDS))
            shapes.append(Shape(color, kind, float(x), float(y), radius))
        elif random.random() < 0.02:  # full
            break
    return tuple(shapes)


def _expressions(shapes: Sequence[Shape], new_pairs: bool) -> dict[str, list[tuple[int, str]]]:
    """By kind, (object, expression) for expressions that exactly one object meets."""
    found: dict[str, list[tuple[int, str]]] = {}

    def add(kind: str, index: int, sentence: str) -> None:
        found.setdefault(kind, []).append((index, sentence))

    for i, shape in enumerate(shapes):
        others = [o for o in shapes if o is not shape]
        pair = (shape.color, shape.kind)
        same_color = [o for o in others if o.color == shape.color]
        same_kind = [o for o in others if o.kind == shape.kind]
        if (pair in UNSEEN) == new_pairs and not any(o.kind == shape.kind for o in same_color):
            add("color and shape", i, f"the {shape.color} {shape.kind}")
        if new_pairs:
            continue
        if not same_color:
            add("color", i, f"the {shape.color} object")
        for rules, kind in ((PLACES, "place"), (SIZES, "size")):
            for word, rule in rules.items():
                if same_kind and rule(shape, same_kind):
                    add(kind, i, f"the {word} {shape.kind}")
        for anchor in others:
            alone = sum(o.color == anchor.color and o.kind == anchor.kind for o in shapes) == 1
            near = abs(shape.y - anchor.y) < 14 and 0 < anchor.x - shape.x < 40
            if alone and near and (anchor.color, anchor.kind) not in UNSEEN:
                similar = [
                    o for o in same_kind if abs(o.y - anchor.y) < 22 and -8 < anchor.x - o.x < 48
                ]
                if not [o for o in similar if o is not anchor]:
                    text = f"the {shape.kind} left of the {anchor.color} {anchor.kind}"
                    add("relation", i, text)
    return found
