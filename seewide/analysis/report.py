"""A self-contained HTML page of headings, text, tables and figures, which loads no other file.

report = Report("Handwritten digits", "UniRepLKNet-A, trained for ten epochs.")
report.section("Training", "Ten epochs on two cores.")
report.figure("run/curves.png", "Loss and accuracy over the epochs.")
report.table(["model", "top-1"], [["training", "98.6%"], ["fused", "98.6%"]])
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
from seewide.errors import InputError, printable, write_atomically

TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}

# Figures have a white background in dark mode too.
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


# A click on a heading sorts by its column: by value if all cells start with a number, else as text.
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
    """A page that is built from top to bottom; each method appends one element.

    All text is escaped. Control characters in it, for example of file names, are shown as escape
    sequences.

    Args:
        title: of the page.
        lead: first paragraph.
        echo: called with the text of each element, for example `print`.
    """

    def __init__(
        self, title: str, lead: str = "", echo: Callable[[str], object] = lambda line: None
    ):
        self.title = title
        self.lead = lead
        self.echo = echo
        self._body: list[str] = []

    def section(self, heading: str, *paragraphs: str) -> None:
        """A heading and paragraphs, see `text`."""
        self._body.append(f"<h2>{_text(heading)}</h2>")
        heading = printable(heading)
        self.echo(f"\n{heading}\n{'-' * len(heading)}")
        self.text(*paragraphs)

    def text(self, *paragraphs: str) -> None:
        """Paragraphs; text between backticks is set as code."""
        for paragraph in paragraphs:
            self._body.append(f"<p>{_text(paragraph)}</p>")
            self.echo(textwrap.fill(printable(paragraph).replace("`", ""), 100))

    def figure(self, path: str | os.PathLike, caption: str) -> None:
        """Embed an image file.

        Args:
            path: `.png`, `.jpg` or `.svg`.
            caption: shown below the figure and used as its alternative text.

        Raises:
            InputError: another suffix, or the file cannot be read.
        """
        path = Path(path)
        if path.suffix not in TYPES:
            raise InputError(f"a figure ends in {', '.join(TYPES)}, got {path}")
        try:
            data = base64.b64encode(path.read_bytes()).decode()
        except OSError as error:
            raise InputError(f"could not read the figure {path}: {error.strerror}") from error
        alt = escape(printable(caption))
        self._body.append(
            f'<figure><img alt="{alt}" src="data:{TYPES[path.suffix]};base64,{data}">'
            f"<figcaption>{_text(caption)}</figcaption></figure>"
        )

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table; a click on a heading sorts the rows.

        Raises:
            InputError: a row of another length than `columns`.
        """
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
        words = [[printable(cell) for cell in row] for row in [columns, *rows]]
        widths = [max(map(len, column)) for column in zip(*words, strict=True)]
        for first, *others in words:
            cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
            self.echo("  ".join(cells).rstrip())

    def save(self, path: str | os.PathLike) -> Path:
        """Write the page atomically; returns the path."""
        return write_atomically(path, lambda scratch: scratch.write_text(self.html(), "utf-8"))

    def html(self) -> str:
        """The page as HTML."""
        lead = f'<p class="lead">{_text(self.lead)}</p>' if self.lead else ""
        return "\n".join([
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(printable(self.title))}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>",
            f"<header><h1>{_text(self.title)}</h1>{lead}</header>",
            *self._body,
            f"<footer>Written by seewide {__version__}.</footer>",
            f"<script>\n{SCRIPT}\n</script>\n</body>\n</html>\n",
        ])  # fmt: skip


def code(name: object) -> str:
    """A name between backticks, in which it has none itself, for `Report.text`."""
    return f"`{str(name).replace('`', chr(39))}`"


def _text(value: object) -> str:
    """Escaped HTML; text between backticks becomes code."""
    parts = escape(printable(value)).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
