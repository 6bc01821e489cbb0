"""The tables of docs/recipes.md and docs/options.md, from the dataclasses."""

from __future__ import annotations

import textwrap
from dataclasses import fields
from typing import Any

from seewide.options import allowed, default_of
from seewide.recipes import FAMILIES, Recipe, Table
from seewide.tasks import get_task, task_names
from seewide.train import Runtime

WORDS = {"source", "hardware", "note", "smoke_model", "smoke_options", "dataset"}


def show(value: Any) -> str:
    """A value in Markdown: `-` for nothing."""
    if value in ("", (), {}, None):
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {show(entry)}" for key, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def recipes_table() -> str:
    """Every table of every family: what its rows share, then the rows."""
    lines: list[str] = []
    for family in FAMILIES.values():
        lines += ["", f"### {family.title}"]
        for table in family.tables:
            lines += ["", *shared_settings(table), "", *rows(table)]
    return "\n".join(lines).strip("\n")


def shared_settings(table: Table) -> list[str]:
    """What all rows have in common, one setting per line and so within 100 columns."""
    base = table.base
    source = f"Source: {base.source}." if base.source else ""
    common = {
        field.name: getattr(base, field.name)
        for field in fields(Recipe)
        if field.name not in {*WORDS, "options", "expected"}
        and field.name not in table.columns
        and getattr(base, field.name) != default_of(field)
    }
    common |= {k: v for k, v in base.options.items() if f"options.{k}" not in table.columns}
    lines, line = [source] if source else [], ""
    for word in (f"`{key}` {show(value)}," for key, value in common.items()):
        if len(line) + len(word) > 98:
            lines.append(line.rstrip())
            line = ""
        line += f"{word} "
    return [*lines, f"{line.strip().removesuffix(',')}.", *textwrap.wrap(base.note, 98)]


def rows(table: Table) -> list[str]:
    """One line per recipe."""
    heads = ["recipe", *(column.rpartition(".")[2] for column in table.columns)]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for name, recipe in table.recipes.items():
        cells = []
        for column in table.columns:
            field, _, key = column.partition(".")
            value = getattr(recipe, field)
            cells.append(show(value.get(key) if key else value))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def options_tables() -> str:
    """All options of recipes, tasks and runs."""
    lines: list[str] = []
    groups = [("Recipe", "recipe", Recipe), ("How a run is carried out", "run", Runtime)]
    groups += [(f"Task {name}", "task", get_task(name).Options) for name in task_names()]
    for title, kind, options in groups:
        lines += ["", f"## {title}", "", "| option | default | allowed | meaning |"]
        lines.append("| --- | --- | --- | --- |")
        for field in fields(options):
            flag = f"--{field.name.replace('_', '-')}" if field.metadata["flag"] else ""
            name = f"`{field.name}`" + (f", `{flag}`" if flag else "")
            meaning = field.metadata["help"].replace("|", "\\|")
            if kind == "run" and field.metadata["may_change"]:
                meaning += " May change on resume."
            cells = name, show(default_of(field)), allowed(field) or "-", meaning
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).strip("\n")
