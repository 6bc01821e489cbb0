"""Draws the block of every family as docs/figures/block-<family>.svg: `make generate`.

A block is a column of rows, from input to output. A row is a box, or boxes side by side whose
results are added; `skip` lists the residual connections as (before this row, after this row).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from seewide.errors import write_atomically

FIGURES = Path(__file__).parent / "figures"

LARGE, SMALL, POINT, NORM, ACT, GATE = (
    "#f4c7b8",
    "#d5e3f5",
    "#d9eddc",
    "#ececec",
    "#faefc8",
    "#e6dcf3",
)
MEANING = {
    LARGE: "large kernel", SMALL: "small kernel", POINT: "pointwise", NORM: "norm",
    ACT: "activation", GATE: "gate",
}  # fmt: skip

BOX_H, GAP, SIDE, TOP, WIDTH = 30, 18, 64, 46, 560


@dataclass(frozen=True)
class Block:
    """The block of one family, as its figure shows it."""

    title: str
    rows: tuple[tuple[tuple[str, str], ...], ...]  # of (text, color)
    skips: tuple[tuple[int, int], ...] = ()


def one(text: str, color: str) -> tuple[tuple[str, str], ...]:
    return ((text, color),)


BLOCKS = {
    "unireplknet": Block(
        "UniRepLKNet block, before fusing",
        (
            (
                ("13x13 + BN", LARGE),
                ("5x5 + BN", SMALL),
                ("7x7 d2 + BN", SMALL),
                ("3x3 d3 + BN", SMALL),
                ("3x3 d4 + BN", SMALL),
                ("3x3 d5 + BN", SMALL),
            ),
            one("batch norm", NORM),
            one("squeeze-and-excitation, C / 4", GATE),
            one("linear C to 4 C", POINT),
            one("GELU", ACT),
            one("global response norm", NORM),
            one("linear 4 C to C", POINT),
            one("batch norm, layer scale", NORM),
        ),
        skips=((0, 8),),
    ),
    "lsnet": Block(
        "LS convolution and the rest of an LSNet block",
        (
            one("1x1 C to C / 2 + BN, ReLU", POINT),
            one("depthwise 7x7 + BN: see large", LARGE),
            one("1x1 + BN, ReLU", POINT),
            one("1x1 to 9 weights per pixel for each of C / 8 sets, group norm", POINT),
            one("aggregate 3x3 of the input with them: focus small", SMALL),
            one("batch norm", NORM),
            one("1x1 C to 2 C + BN, ReLU", POINT),
            one("1x1 2 C to C + BN", POINT),
        ),
        skips=((0, 6), (6, 8)),
    ),
    "uniconvnet": Block(
        "UniConvNet block",
        (
            one("layer norm, split into four parts", NORM),
            one("layer 1: context 7x7 over part 0, joined by part 1", LARGE),
            one("layer 2: context 9x9 over both, joined by part 2", LARGE),
            one("layer 3: context 11x11 over three, joined by part 3", LARGE),
            one("layer norm", NORM),
            one("DCNv3 3x3 without softmax", SMALL),
            one("layer norm", NORM),
            one("linear C to 4 C, GELU, linear 4 C to C", POINT),
        ),
        skips=((0, 4), (4, 6), (6, 8)),
    ),
    "replknet": Block(
        "RepLKNet block and feed-forward, before fusing",
        (
            one("batch norm", NORM),
            one("1x1 + BN, ReLU", POINT),
            (("depthwise 31x31 + BN", LARGE), ("depthwise 5x5 + BN", SMALL)),
            one("ReLU", ACT),
            one("1x1 + BN", POINT),
            one("batch norm", NORM),
            one("1x1 C to 4 C + BN, GELU", POINT),
            one("1x1 4 C to C + BN", POINT),
        ),
        skips=((0, 5), (5, 8)),
    ),
    "slak": Block(
        "SLaK block, before fusing",
        (
            (("51x5 + BN", LARGE), ("5x51 + BN", LARGE), ("5x5 + BN", SMALL)),
            one("layer norm", NORM),
            one("linear C to 4 C", POINT),
            one("GELU", ACT),
            one("linear 4 C to C, layer scale", POINT),
        ),
        skips=((0, 5),),
    ),
    "pelk": Block(
        "PeLK block, before fusing",
        (
            (("peripheral 51x51 + BN, 3/8 of C", LARGE), ("5x5 + BN, the same", SMALL)),
            one("concatenated with the other 5/8 of C", NORM),
            one("layer norm", NORM),
            one("linear C to 4 C", POINT),
            one("GELU", ACT),
            one("linear 4 C to C, layer scale", POINT),
        ),
        skips=((0, 6),),
    ),
}


def svg(block: Block) -> str:
    """The figure as SVG, on a white background so that it is legible on any page."""
    middle, inner = WIDTH / 2, WIDTH - 2 * SIDE
    parts: list[str] = []
    y = TOP
    ends = [y]  # where the line before each row starts, and the one after the last row
    for row in block.rows:
        y += GAP
        top, bottom = y, y + BOX_H
        width = (inner - 10 * (len(row) - 1)) / len(row)
        for i, (text, color) in enumerate(row):
            x = SIDE + i * (width + 10)
            parts.append(
                f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{BOX_H}" rx="5" '
                f'fill="{color}" stroke="#555" stroke-width="0.8"/>'
            )
            size = 12.5 if len(row) < 4 else 9.5
            parts.append(
                f'<text x="{x + width / 2:.1f}" y="{top + 19.5}" font-size="{size}" '
                f'text-anchor="middle">{escape(text)}</text>'
            )
        if len(row) == 1:
            parts.append(_line(middle, ends[-1], middle, top))
            y = bottom
        else:  # branches side by side, whose outputs are added
            centers = [SIDE + i * (width + 10) + width / 2 for i in range(len(row))]
            fork, join = top - 7, bottom + 9
            parts.append(_line(middle, ends[-1], middle, fork, arrow=False))
            parts.append(_line(centers[0], fork, centers[-1], fork, arrow=False))
            parts.append(_line(centers[0], join, centers[-1], join, arrow=False))
            for x in centers:
                parts.append(_line(x, fork, x, top))
                parts.append(_line(x, bottom, x, join, arrow=False))
            parts.append(_plus(middle, join))
            y = join + 8
        ends.append(y)
        if any(after == len(ends) - 1 for _, after in block.skips):
            parts.append(_line(middle, y, middle, y + 9, arrow=False))
            y += 17
            parts.append(_plus(middle, y))
            ends[-1] = y + 8
            y = ends[-1]
    for i, (before, after) in enumerate(block.skips):
        x = SIDE / 2 - 6 * (i % 2)
        start, end = ends[before] + 4, ends[after] - 8
        parts.append(
            f'<path d="M{middle} {start} H{x} V{end} H{middle - 8}" fill="none" stroke="#555" '
            'stroke-width="1.2" marker-end="url(#tip)"/>'
        )
    parts.append(_line(middle, y, middle, y + GAP))
    legend = y + GAP + 26
    used = [color for color in MEANING if any(color == c for row in block.rows for _, c in row)]
    x = SIDE
    for color in used:
        parts.append(
            f'<rect x="{x:.1f}" y="{legend - 10}" width="11" height="11" rx="2" fill="{color}" '
            f'stroke="#555" stroke-width="0.6"/><text x="{x + 16:.1f}" y="{legend}" '
            f'font-size="10.5" fill="#444">{MEANING[color]}</text>'
        )
        x += 30 + 5.6 * len(MEANING[color])
    height = legend + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="Helvetica, Arial, sans-serif" '
        'fill="#222">\n<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" '
        'markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#555"/>'
        f'</marker></defs>\n<rect width="{WIDTH}" height="{height}" rx="10" fill="#fff" '
        f'stroke="#ddd"/>\n<text x="{middle}" y="28" font-size="14" font-weight="bold" '
        f'text-anchor="middle">{escape(block.title)}</text>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _line(x0: float, y0: float, x1: float, y1: float, arrow: bool = True) -> str:
    tip = ' marker-end="url(#tip)"' if arrow else ""
    return (
        f'<line x1="{x0:.1f}" y1="{y0}" x2="{x1:.1f}" y2="{y1}" stroke="#555" '
        f'stroke-width="1.2"{tip}/>'
    )


def _plus(x: float, y: float) -> str:
    return (
        f'<circle cx="{x}" cy="{y}" r="8" fill="#fff" stroke="#555" stroke-width="1.2"/>'
        f'<path d="M{x - 5} {y} H{x + 5} M{x} {y - 5} V{y + 5}" stroke="#555" stroke-width="1.2"/>'
    )


def draw_blocks() -> None:
    for family, block in BLOCKS.items():
        figure = svg(block)
        write_atomically(
            FIGURES / f"block-{family}.svg", lambda path, text=figure: path.write_text(text)
        )


if __name__ == "__main__":
    draw_blocks()
