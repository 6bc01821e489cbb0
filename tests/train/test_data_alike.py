"""A run's weights do not depend on how its pictures are stored, nor on whether it was stopped."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import webdataset
from safetensors.torch import load_file
from seewide.train.data import open_unsplit
from tiny import COLOURS, NAME, paint

from seewide.errors import InputError
from seewide.train import evaluate, fit

datasets = pytest.importorskip("datasets")


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The same pictures, in the same order, as files, shards and a table."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    files, shards, tables = (tmp_path / name for name in ("files", "shards", "tables"))
    shards.mkdir()
    (shards / "classes.txt").write_text("\n".join(COLOURS))
    parts = {}
    for part, count in (("train", 8), ("val", 4)):
        split = open_unsplit(paint(files / part, count=count)).train
        content = [path.read_bytes() for path in split.pictures]
        labels = [int(label) for label in split.labels]
        for shard in range(2):
            with webdataset.TarWriter(str(shards / f"{part}-{shard}.tar")) as tar:
                for n in range(len(content))[shard * len(content) // 2 :][: len(content) // 2]:
                    tar.write({"__key__": f"{n:03d}", "jpg": content[n], "cls": labels[n]})
        kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(COLOURS))}
        cells = {"image": [{"bytes": c, "path": None} for c in content], "label": labels}
        name = {"train": "train", "val": "validation"}[part]
        parts[name] = datasets.Dataset.from_dict(cells, datasets.Features(kinds))
    datasets.DatasetDict(parts).save_to_disk(tables)
    return {"files": files, "shards": f"{shards}/*.tar", "tables": f"hf:{tables}"}


def test_the_same_weights_from_files_shards_and_tables(places, tmp_path, small, quiet):
    recipe = replace(small, epochs=1, repeated_augment=2)
    runs = {
        kind: fit(NAME, data, recipe, tmp_path / kind, workers=0, console=quiet)
        for kind, data in places.items()
    }
    weights = {kind: load_file(run.best) for kind, run in runs.items()}
    for kind in ("shards", "tables"):
        assert runs[kind].top1 == runs["files"].top1
        for name, tensor in weights["files"].items():
            assert torch.equal(weights[kind][name], tensor)

    own = evaluate(str(runs["shards"].folder), console=quiet)
    assert own.forms[0].scores.images == 12
    for data in map(str, places.values()):
        other = evaluate(str(runs["shards"].folder), data, console=quiet)
        assert other.forms[0].scores.images == 12
        assert other.forms[0].scores.top1 == own.forms[0].scores.top1

    (tmp_path / "shards" / "classes.txt").write_text("\n".join("abc"))
    with pytest.raises(InputError, match=r"the classes of .* \(a, b, c \.\.\.\) are not those"):
        evaluate(str(runs["files"].folder), places["shards"], console=quiet)
