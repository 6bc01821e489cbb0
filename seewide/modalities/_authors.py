"""State dicts of the authors' composed models, taken apart; the network's own keys converted."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from torch import Tensor, nn


def split(state: Mapping[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Entries below `prefix`, without it, and all others."""
    inside = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    return inside, {key: value for key, value in state.items() if not key.startswith(prefix)}


def backbone_keys(
    backbone: nn.Module, state: Mapping[str, Tensor], prefix: str = "backbone."
) -> dict[str, Tensor]:
    """The authors' keys of a network to `prefix` and ours.

    A final norm and classifier that `backbone` does not have are left out: the authors' files hold
    those of a 1000-class head that their own model never uses.
    """
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    converted = dict(state) if convert is None else convert(dict(state), backbone)
    own = backbone.state_dict()
    unused = ("head.fc.", "head.norm.")
    return {
        prefix + key: value
        for key, value in converted.items()
        if key in own or not key.startswith(unused)
    }
