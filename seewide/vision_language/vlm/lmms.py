"""A model of lmms-eval (0.7 or later), found by its entry point `lmms_eval.models`.

    lmms_eval --model seewide_vlm --model_args pretrained=runs/vlm --tasks gqa,textvqa_val

lmms-eval brings 76 packages and wants an environment of its own; nothing else here imports it.
"""

from __future__ import annotations

from typing import Any

from seewide.errors import require

from .answer import answer
from .build import IMAGE_TOKEN, load_vlm

NAME = "seewide_vlm"


def manifest() -> Any:
    """The entry of lmms-eval's registry."""
    registry = require("lmms_eval.models.registry_v2", extra="lmms-eval")
    path = f"{__name__}.SeewideVlm"
    return registry.ModelManifest(model_id=NAME, simple_class_path=path)


def __getattr__(name: str) -> Any:
    """`SeewideVlm`, which derives from a class of lmms-eval, is made when it is asked for."""
    if name != "SeewideVlm":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = model = make_model(require("lmms_eval.api.model", "lmms-eval").lmms)
    return model


def make_model(base: type) -> type:
    """The class of the model, derived from lmms-eval's `lmms`."""

    class SeewideVlm(base):
        is_simple = True

        def __init__(self, pretrained: str, device: str = "cpu", **_: Any) -> None:
            super().__init__()
            self.vlm = load_vlm(pretrained)
            self.vlm.model.to(device)

        def generate_until(self, requests: list[Any]) -> list[str]:
            """An answer to each request, one at a time."""
            found = []
            for request in requests:
                context, settings, visual, index, task, split = request.args
                images = visual(self.task_dict[task][split][index]) or [None]
                question = context.replace(IMAGE_TOKEN, "").strip()
                mark = f"{IMAGE_TOKEN}\n" if images[0] is not None else ""
                messages = [{"role": "user", "content": mark + question}]
                most = settings.get("max_new_tokens", 64)
                text = answer(self.vlm, messages, images[0], most)
                for stop in settings.get("until", ()):
                    text = text.split(stop)[0] if stop else text
                found.append(text)
            return found

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            raise NotImplementedError("seewide_vlm answers; choose the generating task")

        def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
            raise NotImplementedError("seewide_vlm answers one question at a time")

    return SeewideVlm
