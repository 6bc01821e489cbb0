"""Tables 13 and 14 of the UniRepLKNet paper, to be filled with one's own results.

Table 13 has lost its header in print. The order of its columns was found by matching the row of
EVA-01-CLIP-g/14 with that model's published results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from seewide.errors import InputError

from .pairs import read_json

# Set, its name in clip-benchmark, UniRepLKNet-L, ConvNeXt-L (OpenCLIP): zero-shot top-1 in percent.
TABLE_13 = (
    ("ImageNet-1K", "imagenet1k", 76.6, 75.2),
    ("ImageNet-V2", "imagenetv2", 69.5, 68.2),
    ("ImageNet-A", "imagenet-a", 60.4, 53.5),
    ("ImageNet-R", "imagenet-r", 88.6, 87.6),
    ("ImageNet-Sketch", "imagenet_sketch", 65.0, 64.3),
    ("ObjectNet", "objectnet", 69.0, 65.9),
    ("CIFAR-10", "cifar10", 96.6, 96.5),
    ("CIFAR-100", "cifar100", 83.1, 83.1),
    ("MNIST", "mnist", 80.6, 74.4),
    ("Caltech-101", "caltech101", 84.7, 84.3),
    ("SUN397", "sun397", 73.8, 73.0),
    ("FGVC-Aircraft", "fgvc_aircraft", 36.4, 36.1),
    ("Country-211", "country211", 26.5, 25.2),
    ("Cars", "cars", 93.7, 93.2),
    ("DTD", "dtd", 68.3, 67.3),
    ("EuroSAT", "eurosat", 71.6, 69.6),
    ("FER2013", "fer2013", 53.1, 52.9),
    ("Flowers-102", "flowers", 77.3, 76.8),
    ("Food-101", "food101", 91.6, 90.6),
    ("GTSRB", "gtsrb", 58.2, 52.8),
    ("PCam", "pcam", 48.0, 53.0),
    ("Pets", "pets", 93.8, 92.9),
    ("Rendered-SST2", "renderedsst2", 56.1, 56.2),
    ("RESISC45", "resisc45", 70.8, 67.8),
    ("STL-10", "stl10", 98.6, 98.3),
    ("VOC2007", "voc2007", 82.5, 81.3),
)
# Means of the 26 sets as printed, of all rows of the table.
MEANS_13 = {
    "OpenAI CLIP L/14": 69.7,
    "OpenCLIP L/14": 70.1,
    "FLIP L/14": 69.1,
    "EVA-01-CLIP-g/14": 72.4,
    "ConvNeXt-L (OpenCLIP)": 70.7,
    "UniRepLKNet-L": 72.1,
}

# Benchmark, its task in lmms-eval, what is measured, UniRepLKNet-Chat-7B, LLaVA-1.5-7B (None: not
# in the table). SEED may be another part of that benchmark than the baseline's.
TABLE_14 = (
    ("GQA", "gqa", "accuracy", 59.8, 62.0),
    ("VQAv2", "vqav2", "accuracy", 80.2, 78.5),
    ("OKVQA", "ok_vqa", "accuracy", 59.3, None),
    ("TextVQA", "textvqa", "accuracy", 62.7, 58.2),
    ("ScienceQA", "scienceqa_img", "accuracy", 72.5, 66.8),
    ("VizWiz", "vizwiz_vqa", "accuracy", 51.0, 50.0),
    ("NoCaps", "nocaps", "CIDEr", 113.5, None),
    ("Flickr30k", "flickr30k", "CIDEr", 75.3, None),
    ("MME", "mme", "score", 1569.5, 1510.7),
    ("MMBench", "mmbench_en", "accuracy", 68.8, 64.3),
    ("MM-Vet", "mmvet", "score", 32.3, 30.5),
    ("SEED", "seedbench", "accuracy", 69.5, 58.6),
)


def read_results(paths: Iterable[Path]) -> dict[str, float]:
    """Results by the name of the set.

    Args:
        paths: JSON files of `seewide clip zeroshot`, of clip-benchmark (`dataset`, `metrics`), of
            lmms-eval (`results`), or `{"name": value}`.

    Raises:
        InputError: no such file, or another format.
    """
    found: dict[str, float] = {}
    for path in paths:
        content = read_json(path)
        try:
            if "metrics" in content:
                name = str(content["dataset"]).rpartition("/")[2]
                found[name] = 100 * float(content["metrics"]["acc1"])
            elif "acc1" in content:
                found[str(content["data"])] = float(content["acc1"])
            elif "results" in content:
                found |= {task: _first(values) for task, values in content["results"].items()}
            else:
                found |= {name: float(value) for name, value in content.items()}
        except (AttributeError, KeyError, TypeError, ValueError, StopIteration) as error:
            raise InputError(f"{path} is no file of results: {error!r}") from None
    return found


def _first(values: Mapping[str, object]) -> float:
    """The first number of a task of lmms-eval; shares become percent."""
    value = next(v for k, v in values.items() if isinstance(v, int | float) and "stderr" not in k)
    return float(value) * (100 if 0 <= float(value) <= 1 else 1)


def fill(table: Iterable[tuple], found: Mapping[str, float]) -> list[tuple]:
    """The rows of a table, each with one's own result or None at the end.

    Raises:
        InputError: a result of a set that the table does not have.
    """
    rows = list(table)
    names = {key: row[0] for row in rows for key in (row[0].lower(), row[1])}
    wrong = [name for name in found if name.lower() not in names]
    if wrong:
        known = ", ".join(row[1] for row in rows)
        raise InputError(f"the table has no set {wrong[0]!r}; it has {known}")
    own = {names[name.lower()]: value for name, value in found.items()}
    return [(*row, own.get(row[0])) for row in rows]


def mean(values: Iterable[float | None]) -> float | None:
    """The plain mean, as in the paper; None unless all are there."""
    numbers = list(values)
    if any(value is None for value in numbers):
        return None
    return sum(numbers) / len(numbers)
