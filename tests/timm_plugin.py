"""Run timm's own tests/test_models.py on seewide's networks: a pytest plugin.

timm's tests come with its source distribution alone, and choose models by `timm.list_models` at
import. This plugin, imported before them, leaves only ours in that list. `make test-timm` does:

    pip download timm==<installed version> --no-deps --no-binary timm --no-build-isolation
    SEEWIDE_TIMM_PATTERN=unireplknet_a PYTHONPATH=tests
        pytest -p timm_plugin --rootdir=<sdist> <sdist>/tests/test_models.py

SEEWIDE_TIMM_PATTERN: names to test, fnmatch, several separated by commas; default all.
"""

import fnmatch
import os

import timm

import seewide

PATTERNS = os.environ.get("SEEWIDE_TIMM_PATTERN", "*").split(",")
OURS = [n for n in seewide.list_models() if any(fnmatch.fnmatch(n, p) for p in PATTERNS)]


def _list_models(filter="*", exclude_filters=(), pretrained=False, **kwargs):
    """timm.list_models of our networks; the exclusions that timm's tests ask for still count."""
    if pretrained:  # those download weights
        return []
    wanted = [filter] if isinstance(filter, str) else list(filter)
    excluded = [exclude_filters] if isinstance(exclude_filters, str) else list(exclude_filters)
    return [
        name
        for name in OURS
        if any(fnmatch.fnmatch(name, pattern) for pattern in wanted)
        and not any(fnmatch.fnmatch(name, pattern) for pattern in excluded)
    ]


timm.list_models = _list_models
timm.list_pretrained = lambda *args, **kwargs: []


if __name__ == "__main__":  # the -k expression that selects our networks' tests
    print(" or ".join(OURS))
