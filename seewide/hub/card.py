"""The README.md of a model folder, which the hub shows as its page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from .._version import __version__


def model_card(
    model: nn.Module,
    architecture: str,
    labels: Sequence[str],
    facts: Mapping[str, str],
    repository: str = "OWNER/NAME",
    license: str = "other",
    dataset: str = "",
    metrics: Mapping[str, float | str] | None = None,
    recipe: Mapping[str, Any] | None = None,
    tables: Mapping[str, Sequence[Sequence[Any]]] | None = None,
    sizes: Sequence[Mapping[str, Any]] | None = None,
    images: Sequence[str] = (),
) -> str:
    """Markdown with the header that the hub reads.

    Args:
        repository: the name that the loading examples show.
        license: of the weights, in the hub's spelling, such as "apache-2.0".
        dataset: what it was trained on.
        metrics: name -> value, such as {"top-1 (%)": 98.5}.
        recipe: option -> value, as the run used them.
        tables: title -> lines of cells, of which the first names the columns.
        sizes: rows of the exported files: {"file": ..., "MB": ..., "result": ..., "ms": ...}.
        images: names of figures in the folder, such as "curves.png".
    """
    count = sum(p.numel() for p in model.parameters()) / 1e6
    head = {
        "license": license,
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["seewide", "timm", "transformers", "image-classification"],
    }
    if dataset:
        head["datasets"] = [dataset]
    # JSON is YAML, and quotes whatever a name contains.
    yaml = "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items())
    parts = [
        f"---\n{yaml}\n---",
        f"# {architecture}",
        f"{count:.1f} M parameters, {len(labels)} classes, written by seewide {__version__}"
        + (f", trained on {_cell(dataset)}." if dataset else "."),
    ]
    if metrics:
        parts += ["## Results", _table(("metric", "value"), metrics.items())]
    parts += [f"![{name}]({name})" for name in images]
    for title, (columns, *rows) in (tables or {}).items():
        parts += [f"## {_cell(title)}", _table(columns, rows)]
    if sizes:
        columns = tuple(sizes[0])
        lines = ([row.get(column, "") for column in columns] for row in sizes)
        parts += ["## Exported files", _table(columns, lines)]
    parts += ["## How to load", _usage(repository)]
    if recipe:
        parts += ["## Recipe", _table(("option", "value"), recipe.items())]
    if labels:
        shown = ", ".join(_cell(label) for label in labels[:50])
        more = f" and {len(labels) - 50} more" if len(labels) > 50 else ""
        parts += ["## Classes", shown + more]
    checksum = facts.get("source_sha256")
    if checksum:
        parts += ["## Origin", f"{_cell(facts.get('source_file', ''))}, SHA-256 `{checksum}`"]
    return "\n\n".join(parts) + "\n"


def _usage(repository: str) -> str:
    return f"""```python
import seewide  # pip install seewide

model = seewide.from_pretrained("{repository}")  # seewide
model = seewide.create_model("hf-hub:{repository}", pretrained=True)  # timm
```

```python
from transformers import pipeline  # seewide is installed, and need not be imported

classify = pipeline("image-classification", "{repository}", trust_remote_code=True)
```

```python
import seewide  # as the encoder of a segmentation model
import segmentation_models_pytorch as smp

net = smp.Unet("tu-hf-hub:{repository}", classes=2)
```"""


def _table(columns: Sequence[str], rows: Any) -> str:
    body = [[_cell(value) for value in line] for line in (columns, *rows)]
    body.insert(1, ["---"] * len(columns))
    return "\n".join(f"| {' | '.join(line)} |" for line in body)


def _cell(value: Any) -> str:
    """Text that can neither end a table's cell nor start other Markdown or HTML."""
    text = "".join(c if c.isprintable() else " " for c in str(value)).replace("&", "&amp;")
    for sign in ("\\", "|", "<", "*", "_", "`", "["):
        text = text.replace(sign, f"&#{ord(sign)};")
    return text
