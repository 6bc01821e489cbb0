"""Small CLIP models and a small vision-language model, trained and measured on a CPU.

    python -m benchmarks.vision_language floor --data flickr8k_1k
    python -m benchmarks.vision_language retrieval --data flickr8k_1k --tower convnext_atto --seed 1
    python -m benchmarks.vision_language zeroshot --data flowers128 --seed 0
    python -m benchmarks.vision_language classifier --data flowers128 --start tower.safetensors
    python -m benchmarks.vision_language vlm --data flowers128 --start tower.safetensors

Each call appends a row to benchmarks/results/vision-language-cpu.csv. Seconds are CPU seconds of
the training process, so that they mean the same on a loaded machine.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from seewide.vision_language.clip.retrieval import RANKS, RetrievalReport, owners, report
from seewide.vision_language.pairs import Pairs, read_pairs

RESULTS = Path(__file__).parent / "results" / "vision-language-cpu.csv"
COLUMNS = ("what", "data", "tower", "seed", "epochs", "cpu_seconds", "settings", "metric", "value")
TEMPLATES = ("a photo of a {c}.", "this flower is a {c}.", "a {c} in bloom.")
COMPONENTS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=tuple(MEASURES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tower", default="unireplknet_a")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--start", type=Path, help="weights of the tower; classifier writes them")
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    append(arguments, MEASURES[arguments.what](arguments))


def colour_floor(arguments: argparse.Namespace) -> dict[str, float]:
    """Ridge regression from colours to bags of words, without any network."""
    train, val = (read_pairs(arguments.data, split) for split in ("train", "val"))
    words = Counter(w for _, caption in train for w in set(split_words(caption)))
    index = {word: i for i, word in enumerate(w for w, n in words.items() if n > 2)}
    x, y = colours(train), np.stack([bag(index, cs).mean(0) for cs in map(list, train.captions)])
    mean_x, mean_y = x.mean(0), y.mean(0)
    _, _, basis = np.linalg.svd(y - mean_y, full_matrices=False)
    basis = basis[:COMPONENTS].T
    gram = (x - mean_x).T @ (x - mean_x)
    penalty = 0.1 * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.solve(gram + penalty, (x - mean_x).T @ (y - mean_y) @ basis)
    images = (colours(val) - mean_x) @ weights
    texts = (bag(index, [caption for _, caption in val]) - mean_y) @ basis
    scores = torch.from_numpy(unit(images) @ unit(texts).T)
    return flat(report(scores, owners([len(c) for c in val.captions])))


def colours(pairs: Pairs) -> np.ndarray:
    """(N, 112): mean colours of a 4 x 4 grid and a histogram of 64 colours."""
    rows = []
    for path in pairs.images:
        with Image.open(path) as image:
            image = image.convert("RGB")
            grid = np.asarray(image.resize((4, 4), Image.BOX), float).ravel() / 255
            pixels = np.asarray(image.resize((32, 32), Image.BOX)).reshape(-1, 3) // 64
        bins = np.bincount(pixels @ (16, 4, 1), minlength=64) / len(pixels)
        rows.append(np.concatenate([grid, np.sqrt(bins)]))
    return np.stack(rows)


def split_words(caption: str) -> list[str]:
    return re.findall(r"[a-z]+", caption.lower())


def bag(index: dict[str, int], captions: list[str]) -> np.ndarray:
    """(N, W): which words a caption has."""
    rows = np.zeros((len(captions), len(index)))
    for row, caption in zip(rows, captions, strict=True):
        row[[index[w] for w in split_words(caption) if w in index]] = 1
    return rows


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def retrieval(arguments: argparse.Namespace) -> dict[str, float]:
    """Recall of a CLIP model trained from scratch."""
    from seewide.vision_language.clip.model import load_clip
    from seewide.vision_language.clip.retrieval import retrieve

    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "clip"
        seconds = train_clip(arguments, arguments.data, run)
        found = retrieve(load_clip(str(run)), read_pairs(arguments.data, "val"))
    return {"cpu_seconds": seconds, **flat(found)}


def zeroshot(arguments: argparse.Namespace) -> dict[str, float]:
    """Accuracy by class names, of a CLIP model trained on captions made by templates."""
    from seewide.vision_language.clip.model import load_clip
    from seewide.vision_language.clip.zeroshot import zero_shot

    with tempfile.TemporaryDirectory() as scratch:
        table, run = Path(scratch) / "train.csv", Path(scratch) / "clip"
        write_template_captions(arguments.data, table, arguments.seed)
        seconds = train_clip(arguments, table, run)
        templates = Path(scratch) / "templates.txt"
        templates.write_text("\n".join(TEMPLATES))
        found = zero_shot(load_clip(str(run)), arguments.data, templates=templates)
    return {"cpu_seconds": seconds, "top1": found.top1, "mean_per_class": found.mean_per_class}


def write_template_captions(data: Path, table: Path, seed: int) -> None:
    """One caption for each training image of a folder of classes, by a random template."""
    random = np.random.default_rng(seed)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "caption"))
        for path in sorted((data / "train").glob("*/*.jpg")):
            template = TEMPLATES[random.integers(len(TEMPLATES))]
            writer.writerow((path.resolve(), template.replace("{c}", path.parent.name)))


def train_clip(arguments: argparse.Namespace, data: Path, run: Path) -> float:
    """Train with the laptop recipe by the command line; the CPU seconds it took."""
    words = ["clip", "train", "laptop", "--data", data, "--out", run, "--seed", arguments.seed]
    words += ["--epochs", arguments.epochs, "--workers", 0, "--device", "cpu"]
    words += ["--set", f"tower={arguments.tower}", "--set", f"image_size={arguments.image_size}"]
    words += [w for setting in arguments.set for w in ("--set", setting)]
    words += ["--tower", arguments.start] if arguments.start else []
    return call(words)


def classifier(arguments: argparse.Namespace) -> dict[str, float]:
    """Top-1 of a classifier of the same tower, image size, batch and number of epochs."""
    import json

    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        words = ["train", arguments.tower, "--data", arguments.data, "--out", run]
        words += [
            "--image-size",
            arguments.image_size,
            "--epochs",
            arguments.epochs,
            "--batch-size",
            128,
        ]
        words += ["--lr", "1e-3", "--seed", arguments.seed, "--workers", 0, "--device", "cpu"]
        seconds = call([*words, *(w for s in arguments.set for w in ("--set", s))])
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        if arguments.start:
            shutil.copy(run / "best.safetensors", arguments.start)
    return {"cpu_seconds": seconds, "top1": max(row["val_top1"] for row in rows)}


QUESTIONS = {
    "which flower is this ?": ("this is a {} .", "the flower is a {} .", "a {} ."),
    "what do you see ?": ("i see a {} .", "there is a {} in the image .", "it shows a {} ."),
}
ASKED = 150  # validation images that are described in words


def vlm(arguments: argparse.Namespace) -> dict[str, float]:
    """A language model of random weights on a trained, frozen tower, asked about flowers."""
    from seewide.vision_language.vlm.answer import ask, grounding
    from seewide.vision_language.vlm.build import build_vlm
    from seewide.vision_language.vlm.conversations import ConversationData
    from seewide.vision_language.vlm.recipes import get_recipe
    from seewide.vision_language.vlm.small import small_language_model
    from seewide.vision_language.vlm.train import train

    started = time.process_time()
    random = np.random.default_rng(arguments.seed)
    learn, val = (talk_about(arguments.data / split, random) for split in ("train", "val"))
    texts = [m["content"] for c in [*learn, *val] for m in c.messages] + ["USER: ASSISTANT:"]
    language, tokenizer = small_language_model(texts, seed=arguments.seed)
    model = build_vlm(arguments.tower, language, tokenizer, 64, tower_weights=arguments.start,
                      template="vicuna")  # fmt: skip
    recipe = dataclasses.replace(get_recipe("laptop"), epochs=arguments.epochs)
    with tempfile.TemporaryDirectory() as out:
        data = ConversationData(learn, model)
        train(model, data, recipe, Path(out), seed=arguments.seed, use_cpu=True)
    seconds = time.process_time() - started
    model.model.eval()
    order = random.permutation(len(val))
    asked = [val[i] for i in order[:ASKED]]
    question = next(iter(QUESTIONS))
    answers = []
    for conversation in asked:
        with Image.open(conversation.image) as image:
            answers.append(ask(model, question, image, most=12))
    classes = [c.image.parent.name for c in asked]
    names = [[n for n in set(classes) if n in text.split()] for text in answers]
    right = [found == [name] for found, name in zip(names, classes, strict=True)]
    found = grounding(model, [val[i] for i in order])
    return {
        "cpu_seconds": seconds,
        "right class named (%)": 100 * float(np.mean(right)),
        "right class, answers of other images (%)": 100
        * float(np.mean([n == [c] for n, c in zip(names[1:] + names[:1], classes, strict=True)])),
        "distinct answers": float(len(set(answers))),
        "NLL, right image": found.right,
        "NLL, another image": found.wrong,
        "right image better (%)": 100 * found.better,
        "log10 p of a sign test": float(np.log10(max(found.p_value, 1e-300))),
    }


def talk_about(folder: Path, random: np.random.Generator) -> list:
    """A question and an answer about each image of a folder of classes, by random templates."""
    from seewide.vision_language.vlm.conversations import Conversation

    found = []
    for path in sorted(folder.glob("*/*.jpg")):
        question = list(QUESTIONS)[random.integers(len(QUESTIONS))]
        answer = QUESTIONS[question][random.integers(3)].format(path.parent.name)
        messages = (
            {"role": "user", "content": f"<image>\n{question}"},
            {"role": "assistant", "content": answer},
        )
        found.append(Conversation(path.name, messages, path))
    return found


def call(words: list) -> float:
    """Run a command of seewide; the CPU seconds of its process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "seewide", *map(str, words)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def flat(found: RetrievalReport) -> dict[str, float]:
    pairs = (("t2i", found.text_to_image), ("i2t", found.image_to_text))
    return {f"{name} R@{k}": recall.at[k] for name, recall in pairs for k in RANKS}


def append(arguments: argparse.Namespace, measured: dict[str, float]) -> None:
    """Append one row per metric, and print them."""
    seconds = round(measured.pop("cpu_seconds", 0))
    tower = "colours, ridge regression" if arguments.what == "floor" else arguments.tower
    settings = ";".join([*arguments.set, *(["start=trained"] if arguments.start else [])])
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        for metric, value in measured.items():
            row = (arguments.what, arguments.data.name, tower, arguments.seed, arguments.epochs,
                   seconds, settings, metric, f"{value:.2f}")  # fmt: skip
            writer.writerow(row)
            print(*row, flush=True)


MEASURES = {
    "floor": colour_floor,
    "retrieval": retrieval,
    "zeroshot": zeroshot,
    "classifier": classifier,
    "vlm": vlm,
}

if __name__ == "__main__":
    main()
