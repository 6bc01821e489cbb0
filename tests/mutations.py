"""Break one behavior at a time and see that the tests notice: `make mutations`.

Each mutation replaces a piece of source text in a copy of the checkout and runs the test files that
guard it, which must fail. A mutation whose text is no longer found is an error of this table.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutation:
    """Replace `before`, which occurs once in `file`, by `after`; `tests` must then fail."""

    name: str
    file: str
    before: str
    after: str
    tests: str


MUTATIONS = [
    Mutation(
        "loss: gradients are not divided by the global weight",
        "seewide/train/step.py",
        "if factor != 1:",
        "if False:",
        "tests/train/test_loss_weighting.py",
    ),
    Mutation(
        "loss: the weight of one process instead of all",
        "seewide/train/step.py",
        "self.batch.device_total * self.batch.ranks / weight",
        "self.batch.device_total / weight",
        "tests/train/test_loss_weighting.py",
    ),
    Mutation(
        "layer decay: everything outside the backbone as deep as the stem",
        "seewide/train/optim.py",
        "named |= dict.fromkeys(others, deepest)",
        "named |= dict.fromkeys(others, 0)",
        "tests/tasks/test_segmentation.py",
    ),
    Mutation(
        "layer decay: two blocks in a group instead of three",
        "seewide/train/optim.py",
        "min(3 + block // 3, groups - 1)",
        "min(3 + block // 2, groups - 1)",
        "tests/train/test_optim.py",
    ),
    Mutation(
        "layer decay: counted from the stem",
        "seewide/train/optim.py",
        "recipe.layer_decay ** (deepest - depths.get(name, deepest))",
        "recipe.layer_decay ** depths.get(name, deepest)",
        "tests/train/test_optim.py",
    ),
    Mutation(
        "schedule: a milestone counts one step late",
        "seewide/train/optim.py",
        "bisect_right(self.milestones, done)",
        "bisect_right(self.milestones, done - 1)",
        "tests/train/test_loss_weighting.py",
    ),
    Mutation(
        "preprocessing: crop_pct ignored",
        "seewide/preprocess.py",
        "            crop_pct=self.crop_pct,\n            crop_mode=self.crop_mode,\n",
        "            crop_pct=1.0,\n            crop_mode=self.crop_mode,\n",
        "tests/data/test_preprocess.py",
    ),
    Mutation(
        "preprocessing: the network's own mean ignored",
        "seewide/preprocess.py",
        'mean=tuple(config.get("mean") or cls.mean)',
        "mean=cls.mean",
        "tests/data/test_preprocess.py",
    ),
    Mutation(
        "preprocessing: the analyses crop differently from evaluation",
        "seewide/preprocess.py",
        "for step in self.transform().transforms[:-2]:",
        "for step in self.transform().transforms[:1]:",
        "tests/data/test_preprocess.py",
    ),
    Mutation(
        "dispatch: a forced backend runs though it cannot",
        "seewide/ops/_dispatch.py",
        "                    if reason is None:\n                        return backend\n",
        "                    return backend\n",
        "tests/ops/test_dispatch.py",
    ),
    Mutation(
        "dispatch: the preference of a backend ignored",
        "seewide/ops/_dispatch.py",
        "                if backend.prefer(*args):\n                    return backend\n",
        "                return backend\n",
        "tests/ops/test_dispatch.py",
    ),
    Mutation(
        "fuse: the bias of the convolution forgotten",
        "seewide/reparam.py",
        "shift if bias is None else shift + bias * scale",
        "shift",
        "tests/test_reparam.py",
    ),
    Mutation(
        "fuse: dilated taps written at the wrong stride",
        "seewide/reparam.py",
        "dense[:, :, ::dilation, ::dilation] = weight",
        "dense[:, :, :kh, :kw] = weight",
        "tests/test_reparam.py",
    ),
    Mutation(
        "fuse: the check of each fold hides behind small weights",
        "seewide/reparam.py",
        "exact = randomize(copy.deepcopy(module).double().eval())",
        "exact = copy.deepcopy(module).double().eval()",
        "tests/test_fuse.py",
    ),
    Mutation(
        "average: the warm-up of its decay always on",
        "seewide/train/step.py",
        "use_warmup=recipe.ema_warmup",
        "use_warmup=True",
        "tests/train/test_loss_weighting.py",
    ),
]


def main() -> None:
    """Try all mutations; exit code 1 if a test file passes with one of them."""
    survived = []
    for mutation in MUTATIONS:
        with tempfile.TemporaryDirectory(prefix="seewide-") as folder:
            caught = tried(mutation, Path(folder))
        print(f"{'caught  ' if caught else 'SURVIVED'}  {mutation.name}", flush=True)
        if not caught:
            survived.append(mutation)
    sys.exit(f"{len(survived)} of {len(MUTATIONS)} mutations survived" if survived else 0)


def tried(mutation: Mutation, folder: Path) -> bool:
    """Whether the tests fail with this mutation of a copy of the checkout in `folder`."""
    for name in ("seewide", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    source = folder / mutation.file
    text = source.read_text()
    if text.count(mutation.before) != 1:
        sys.exit(f"{mutation.name}: {mutation.before!r} occurs {text.count(mutation.before)} times")
    source.write_text(text.replace(mutation.before, mutation.after))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", mutation.tests],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, 1):
        sys.exit(f"{mutation.name}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}")
    return done.returncode == 1


if __name__ == "__main__":
    main()
