"""The import direction: the left is used by the right, never the other way (docs/extending)."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "seewide"

MAY_IMPORT = {
    "errors": set(),
    "_version": set(),
    "numerics": set(),
    "preprocess": {"errors"},
    "seeding": set(),
    "kernels": {"errors"},
    "ops": {"errors", "kernels"},
    "reparam": {"errors"},
    "inference": {"errors", "kernels", "numerics", "reparam"},
    "layers": {"errors", "ops", "reparam"},
    "models": {"errors", "ops", "layers", "reparam"},
    "surgery": {"errors", "layers", "ops", "reparam"},
    "modalities": {"errors", "ops", "layers", "reparam"},
    "dense": {"errors", "layers", "models"},
    "options": {"errors"},
    "data": {"errors"},
    "console": {"errors"},
    "tasks": {"modalities", "errors", "options", "data", "dense", "analysis"},
    "analysis": {"errors", "data"},
    "recipes": {"errors", "options"},
    "export": {"errors", "layers", "ops", "reparam"},
    "hub": {
        "errors",
        "models",
        "recipes",
        "tasks",
        "train",
        "",
    },  # the bridge of a model folder imports all of seewide
    "checkpoints": {"errors", "reparam"},
    "train": {
        "errors",
        "export",
        "ops",
        "layers",
        "analysis",
        "models",
        "recipes",
        "reparam",
        "tasks",
        "data",
        "options",
        "console",
        "checkpoints",
        "",
    },
    "vision_language": {"data", "errors", "export", "models", "options", "reparam"},
    "_registration": set(),
    "testing": {"reparam"},
}
EVERYWHERE = {"numerics", "preprocess", "seeding", "_version"}  # they import at most errors
BELOW_LAYERS = {"errors", "kernels", "ops", "reparam", "layers"}  # and so not `checkpoints`
ENTRANCES = {"cli", "__main__", "__init__"}  # these may use everything but `testing`


def imports(file: Path):
    """First components below `seewide` of everything that `file` imports."""
    package = file.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules = [name.name.split(".") for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = list(package[: len(package) - node.level + 1]) if node.level else []
            path = start + (node.module.split(".") if node.module else [])
            modules = [[*path, name.name] for name in node.names]
        else:
            continue
        for parts in modules:
            if parts[0] == "seewide":
                known = len(parts) > 1 and (parts[1] in MAY_IMPORT or parts[1] in ENTRANCES)
                yield parts[1] if known else ""


def test_imports_go_one_way():
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for target in imports(file):
            if room in ENTRANCES:
                allowed = target != "testing"
            else:
                assert room in MAY_IMPORT, f"{room} has no row in MAY_IMPORT"
                allowed = target in {room, *EVERYWHERE} or target in MAY_IMPORT[room]
                allowed |= target == "checkpoints" and room not in {*BELOW_LAYERS, *EVERYWHERE}
            if not allowed:
                wrong.append(f"{file.relative_to(PACKAGE)} imports {target or 'seewide'}")
    assert not wrong, "\n".join(wrong)


def test_files_fit_one_sitting():
    long = {
        f.name: n for f in PACKAGE.rglob("*.py") if (n := len(f.read_text().splitlines())) > 450
    }
    assert not long
