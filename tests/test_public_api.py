"""What `import seewide` promises."""

import subprocess
import sys

import timm

import seewide


def test_names():
    assert set(seewide.__all__) <= set(dir(seewide))
    for name in seewide.__all__:
        assert getattr(seewide, name) is not None


def test_import_is_light():
    """Registers the networks, and loads nothing that only some commands need."""
    heavy = "matplotlib rich sklearn onnx onnxruntime"
    code = (
        "import sys, timm; import seewide; "
        "assert timm.is_model('unireplknet_t'); "
        f"print([m for m in '{heavy}'.split() if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_models_are_timms():
    names = seewide.list_models()
    assert {
        f"unireplknet_{size}" for size in ("a", "f", "p", "n", "t", "s", "b", "l", "xl", "h")
    } <= set(names)
    assert all(timm.is_model(name) for name in names)
    assert "unireplknet_t.in1k" in seewide.list_models("unireplknet*", pretrained=True)
    assert seewide.list_models("convnext*") == []
