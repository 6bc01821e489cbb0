"""One self-contained HTML page: headings, text, tables and pictures, nothing fetched from anywhere.

report = Report("Handwritten digits", "What was done and what came out.")
report.section("Training", "Ten epochs on two cores.")
report.figure("run/curves.png", "Loss and accuracy over the epochs.")
report.table(["form", "top-1"], [["training", "98.6%"], ["merged", "98.6%"]])
report.save("demo/report.html")
"""

from __future__ import annotations

import base64
import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

from seewide._version import __version__
from seewide.errors import InputError, write_atomically

TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}

# Pictures keep their white ground in the dark, as a print would.
STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --faint: #616e7c; --line: #e4e7eb;
        --ground: #fdfdfc; --accent: #1f6fb2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --faint: #9aa5b1; --line: #323f4b; --ground: #15191e; --accent: #6fb1e8; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 46rem; padding: 3.5rem 1.25rem 4rem; color: var(--ink);
       background: var(--ground); font: 1.05rem/1.6 Charter, "Iowan Old Style", Georgia, serif; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; padding-top: 1.2rem;
     border-top: 1px solid var(--line); }
p { margin: 0 0 1rem; }
.lead { font-size: 1.2rem; color: var(--faint); }
figure { margin: 1.6rem 0; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; padding: .75rem;
      background: #fff; border: 1px solid var(--line); border-radius: 6px; }
figcaption, footer { font-size: .9rem; color: var(--faint); margin-top: .6rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 1.2rem 0; font-size: .95rem;
        font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; border-bottom: 2px solid var(--line); }
td { border-bottom: 1px solid var(--line); }
th, td { padding: .45rem .8rem .45rem 0; }
td:not(:first-child), th:not(:first-child) { text-align: right; padding-right: 0;
        padding-left: .8rem; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--ground); }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
       color: var(--accent); }
footer { margin-top: 4rem; border-top: 1px solid var(--line); padding-top: 1rem; }
@media (max-width: 30rem) {
  body { padding: 1.5rem .9rem 3rem; font-size: 1rem; }
  img { padding: .25rem; }
  th, td { padding-top: .35rem; padding-bottom: .35rem; }
}
@media print { body { max-width: none; padding: 0; } figure, table { break-inside: avoid; } }
""".strip()


# A click on a heading sorts by its column: by number if all cells begin with one, else by letters.
SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    const text = row => row.cells[column].textContent.trim();
    const rows = [...body.rows], number = /^-?[0-9]/;
    const numeric = rows.every(row => number.test(text(row)) || text(row) === "-");
    const order = numeric
      ? (a, b) => (parseFloat(text(a)) || 0) - (parseFloat(text(b)) || 0)
      : (a, b) => text(a).localeCompare(text(b));
    rows.sort((a, b) => up ? order(a, b) : order(b, a)).forEach(row => body.append(row));
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  }));
}
""".strip()


class Report:
    """A page that is written from top to bottom; each method adds one thing.

    `echo` gets the same words as plain text while the page grows: `Report("Title", echo=print)`
    tells a terminal or a log file what the page will say.
    """

    def __init__(
        self, title: str, lead: str = "", echo: Callable[[str], object] = lambda line: None
    ):
        self.title = title
        self.lead = lead
        self.echo = echo
        self._body: list[str] = []

    def section(self, heading: str, *paragraphs: str) -> None:
        """A heading, and below it text, in which `backticks` set code."""
        self._body.append(f"<h2>{_text(heading)}</h2>")
        self.echo(f"\n{heading}\n{'-' * len(heading)}")
        self.text(*paragraphs)

    def text(self, *paragraphs: str) -> None:
        for paragraph in paragraphs:
            self._body.append(f"<p>{_text(paragraph)}</p>")
            self.echo(textwrap.fill(paragraph.replace("`", ""), 100))

    def figure(self, path: str | os.PathLike, caption: str) -> None:
        """The picture in `path` (png, jpg or svg), copied into the page; the caption tells those
        who cannot see it what it shows."""
        path = Path(path)
        if path.suffix not in TYPES:
            raise InputError(f"a figure ends in {', '.join(TYPES)}, got {path}")
        try:
            data = base64.b64encode(path.read_bytes()).decode()
        except OSError as error:
            raise InputError(f"could not read the figure {path}: {error.strerror}") from error
        self._body.append(
            f'<figure><img alt="{escape(caption)}" src="data:{TYPES[path.suffix]};base64,{data}">'
            f"<figcaption>{_text(caption)}</figcaption></figure>"
        )

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """The first column is set left, figures in the others right; headings sort."""
        head = "".join(
            f'<th scope="col"><button type="button">{_text(column)}</button></th>'
            for column in columns
        )
        rows, lines = [list(row) for row in rows], []
        for row in rows:
            if len(row) != len(columns):
                raise InputError(f"a row of this table has {len(columns)} cells, got {row}")
            lines.append("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>")
        self._body.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table></div>"
        )
        words = [[str(cell) for cell in row] for row in [columns, *rows]]
        widths = [max(map(len, column)) for column in zip(*words, strict=True)]
        for first, *others in words:
            cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
            self.echo("  ".join(cells).rstrip())

    def save(self, path: str | os.PathLike) -> Path:
        """Write the page atomically."""
        return write_atomically(path, lambda scratch: scratch.write_text(self.html(), "utf-8"))

    def html(self) -> str:
        lead = f'<p class="lead">{_text(self.lead)}</p>' if self.lead else ""
        return "\n".join([
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(self.title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>",
            f"<header><h1>{_text(self.title)}</h1>{lead}</header>",
            *self._body,
            f"<footer>Written by seewide {__version__}.</footer>",
            f"<script>\n{SCRIPT}\n</script>\n</body>\n</html>\n",
        ])  # fmt: skip


def _text(value: object) -> str:
    """Escaped; every second part between backticks is code."""
    parts = escape(str(value)).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
