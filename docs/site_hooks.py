"""Hooks of mkdocs.yml: pages that are made while the site is built, and links out of docs/.

The API reference is the docstrings of the modules in `API`. `results.md` shows every CSV file of
benchmarks/results as a table that sorts by a click. Links to files outside docs/ lead into the
site where it has them (benchmarks/), and to the repository otherwise.
"""

from __future__ import annotations

import csv
import html
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/results"

# Page -> title, modules whose public names it shows.
API = {
    "ops": ("Operators", ["seewide.ops"]),
    "models": ("Networks", ["seewide.models"]),
    "layers": ("Layers", ["seewide.layers"]),
    "train": ("Training", ["seewide.train", "seewide.recipes"]),
    "tasks": ("Tasks", ["seewide.tasks._task", "seewide.options"]),
    "dense": ("Dense prediction", ["seewide.dense"]),
    "export": ("Export", ["seewide.export", "seewide.export.bundle"]),
    "hub": ("Hub", ["seewide.hub", "seewide.hub.run"]),
    "inference": ("Inference", ["seewide.reparam", "seewide.inference.optimize"]),
    "analysis": (
        "Analysis",
        ["seewide.analysis.erf", "seewide.analysis.cost", "seewide.analysis.gaussian"],
    ),
    "tools": (
        "Tools",
        ["seewide.preprocess", "seewide.numerics", "seewide.checkpoints", "seewide.surgery",
         "seewide.errors"],
    ),
}  # fmt: skip
SORT = """
<script>
document.querySelectorAll("table.sortable th").forEach(cell => cell.onclick = () => {
  const table = cell.closest("table"), column = cell.cellIndex, body = table.tBodies[0];
  const value = row => row.cells[column].textContent;
  const down = cell.dataset.down = cell.dataset.down === "1" ? "0" : "1";
  const order = (a, b) => value(a).localeCompare(value(b), "en", {numeric: true});
  const rows = [...body.rows].sort((a, b) => down === "1" ? order(a, b) : order(b, a));
  rows.forEach(row => body.appendChild(row));
});
</script>
"""


def on_files(files: Files, config) -> Files:
    """Add the API pages, the results and what the benchmarks' README shows."""
    for name, (title, modules) in API.items():
        text = f"# {title}\n\n" + "".join(reference(module) for module in modules)
        files.append(File.generated(config, f"api/{name}.md", content=text))
    files.append(File.generated(config, "results.md", content=results()))
    for path in [ROOT / "benchmarks" / "README.md", *sorted((ROOT / RESULTS).iterdir())]:
        if path.suffix in (".md", ".csv", ".png", ".svg"):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Rewrite links that leave docs/."""
    source = page.file.src_uri
    folder = posixpath.dirname(source)
    home = folder if source.startswith("benchmarks/") else posixpath.join("docs", folder)

    def link(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        path = posixpath.normpath(posixpath.join(home, target))
        inside = path.removeprefix("docs/")
        if "://" in target or target.startswith("mailto:") or not target:
            return match[0]
        if files.get_file_from_path(inside) is not None:
            return f"]({posixpath.relpath(inside, folder or '.')}{anchor})"
        if (ROOT / path).exists():
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            return f"]({config.repo_url.rstrip('/')}/{kind}/main/{path}{anchor})"
        return match[0]  # mkdocs names it

    return re.sub(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", link, markdown)


def reference(module: str) -> str:
    """mkdocstrings' directive for the public names of a module."""
    return f"::: {module}\n\n"


def results() -> str:
    """Every CSV file of the results as a sortable table."""
    parts = [
        "# Results\n\nAll measurements that the repository holds; a click on a column sorts by it. "
        f"[How they were measured](benchmarks/README.md).\n{SORT}"
    ]
    for path in sorted((ROOT / RESULTS).glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line and not line[0].startswith("#")]
        if len(lines) > 1:
            head = "".join(f"<th>{html.escape(cell)}</th>" for cell in lines[0])
            rows = ("".join(f"<td>{html.escape(c)}</td>" for c in line) for line in lines[1:])
            body = "".join(f"<tr>{row}</tr>" for row in rows)
            parts.append(
                f'<details><summary>{html.escape(path.stem)}</summary>\n<table class="sortable">'
                f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></details>\n"
            )
    script = parts[0].index("<script>")
    return parts[0][:script] + "\n".join(parts[1:]) + "\n" + parts[0][script:]
