"""One side of a comparison of revisions (revisions.py): answers questions, line by line.

A question and its answer:

    ["package"]                  where `seewide` was imported from
    ["list"]                     [[what, form], ...]
    ["time", index, repeats]     seconds per call
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch

import seewide
from benchmarks.conditions import Settings
from benchmarks.timing import seconds


def operators(names: list[str], settings: Settings) -> dict[tuple[str, str], Callable]:
    """Our forms of the operators' cases, forward and forward + backward; tensors on demand."""
    from benchmarks.ops import BOTH, FORWARD, bind, chosen

    made = {}
    for passes in (FORWARD, BOTH):
        for case in chosen(names, settings.quick):
            shape = "x".join(map(str, case.shape))
            what = f"{case.operator} {shape}, {case.kernel or 'no kernel'}, {passes}"
            for form in case.forms:
                if form.ours:

                    def make(case=case, form=form, passes=passes):
                        tensors = case.draw(settings.device, settings.dtype)
                        return bind(case, form, tensors, passes)

                    made[what, form.name] = make
    return made


def networks(names: list[str], settings: Settings) -> dict[tuple[str, str], Callable]:
    """Our networks, merged, at batch 1 and 8."""
    import timm

    made = {}
    for name in names or ["unireplknet_a", "lsnet_t", "uniconvnet_a", "pelk_t"]:
        for batch in (1, 8):

            def make(name=name, batch=batch):
                torch.manual_seed(0)
                model = seewide.fuse(timm.create_model(name).eval()).to(settings.device)
                x = torch.randn(batch, 3, 224, 224, device=settings.device)
                return lambda: _without_gradients(model, x)

            made[f"{name}, batch {batch}", "merged"] = make
    return made


def _without_gradients(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(x)


def main() -> None:
    kind, names, quick, device, dtype = json.loads(sys.argv[1])
    settings = Settings.of(quick, device, dtype, None, compiled=False)
    made = {"ops": operators, "models": networks}[kind](names, settings)
    labels, current, call = list(made), None, None
    for line in sys.stdin:
        question, *arguments = json.loads(line)
        if question == "package":
            answer = seewide.__file__
        elif question == "list":
            answer = labels
        else:
            index, repeats = arguments
            if index != current:
                current, call = index, made[labels[index]]()
                call()
            answer = seconds(call, repeats)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
