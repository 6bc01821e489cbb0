"""Model folders: to the hub and back, in seewide, timm and transformers, without a network."""

import json
import os
import subprocess
import sys

import hub_server
import pytest
import torch
from PIL import Image

import seewide
from seewide.errors import InputError
from seewide.hub import FILES, from_pretrained, push_to_hub, save_pretrained
from seewide.preprocess import Preprocess
from seewide.reparam import randomize

hub = hub_server.hub  # a fixture

LABELS = ["cat", "dog", "a|b <i>"]
HOW = Preprocess(image_size=64, crop_pct=0.9, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return randomize(seewide.create_model("unireplknet_a", num_classes=3)).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    facts = {"top1": "0.985"}
    return save_pretrained(
        model, tmp_path_factory.mktemp("hub") / "net", LABELS, HOW.to_dict(), metadata=facts,
        license="apache-2.0", dataset="flowers", metrics={"top-1 (%)": 98.5},
        recipe={"epochs": 3, "opt": "adamw"}, repository="me/net",
    )  # fmt: skip


@pytest.fixture(scope="module")
def answer(model):
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, model(x)


def test_seewide_and_timm_load_the_folder(folder, answer):
    x, want = answer
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    ours = from_pretrained(folder)
    timms = seewide.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(ours(x), want)
        assert torch.equal(timms(x), want)
    assert not ours.training
    assert tuple(ours.pretrained_cfg["label_names"]) == tuple(LABELS)
    for net in (ours, timms):
        how = Preprocess.of(net)
        assert (how.image_size, how.crop_pct) == (64, 0.9)
        assert tuple(how.mean) == (0.5, 0.4, 0.3)


TRANSFORMERS = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline
folder, x, out = sys.argv[1:]
assert "seewide" not in sys.modules
model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True).eval()
classify = pipeline("image-classification", folder, trust_remote_code=True)
with torch.no_grad():
    logits = model(torch.load(x)).logits
answers = classify(Image.new("RGB", (80, 70), (200, 30, 90)))
torch.save({"logits": logits, "labels": model.config.id2label, "answers": answers}, out)
"""


def test_transformers_loads_it_without_an_import_of_ours(folder, answer, model, tmp_path):
    pytest.importorskip("transformers")
    from PIL import Image

    x, want = answer
    torch.save(x, tmp_path / "x.pt")
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", TRANSFORMERS, str(folder), str(tmp_path / "x.pt")]
    done = subprocess.run(
        [*command, str(tmp_path / "out.pt")], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = torch.load(tmp_path / "out.pt")
    assert torch.equal(found["logits"], want)
    assert list(found["labels"].values()) == LABELS
    with torch.no_grad():
        image = HOW.transform()(Image.new("RGB", (80, 70), (200, 30, 90)))
        scores = model(image[None]).softmax(1)[0]
    best = found["answers"][0]
    assert best["label"] == LABELS[int(scores.argmax())]
    assert best["score"] == pytest.approx(scores.max().item(), abs=1e-5)


def test_the_card_has_the_facts_and_escapes_names(folder):
    text = (folder / "README.md").read_text()
    assert text.startswith('---\nlicense: "apache-2.0"\nlibrary_name: "timm"\n')
    assert "| top-1 (%) | 98.5 |" in text
    assert "| epochs | 3 |" in text
    assert 'seewide.from_pretrained("me/net")' in text
    assert "<i>" not in text
    assert "cat, dog, a&#124;b &#60;i>" in text


def test_config_has_no_arguments_that_transformers_passes_itself(folder):
    config = json.loads((folder / "config.json").read_text())
    assert not {"num_classes", "in_chans", "global_pool"} & set(config.get("model_args", {}))


def test_arguments_of_the_model_travel(tmp_path):
    net = seewide.create_model("unireplknet_a", num_classes=2, in_chans=1, reparam="none")
    with pytest.raises(InputError, match=r"not those of a training unireplknet_a: .* model_args"):
        save_pretrained(net, tmp_path / "a")
    save_pretrained(net, tmp_path / "a", model_args={"reparam": "none", "num_classes": 2})
    loaded = from_pretrained(tmp_path / "a")
    assert loaded.state_dict().keys() == net.state_dict().keys()
    assert loaded.in_chans == 1


def refused(pattern, function, *args, **kwargs):
    with pytest.raises(InputError, match=pattern) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_refusals(model, folder, tmp_path):
    refused("is no network of timm.create_model", save_pretrained, torch.nn.Linear(1, 1), tmp_path)
    refused("3 classes, got 2 labels", save_pretrained, model, tmp_path, ["a", "b"])
    refused("not those of a training", save_pretrained, seewide.fuse(model), tmp_path)
    refused("there is no folder", from_pretrained, str(tmp_path / "none"))
    refused("is no configuration of a model", from_pretrained, tmp_path)
    for file in FILES:
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    for change, sentence in (
        ({"architecture": "nosuch"}, "which is no network known to timm"),
        ({"num_classes": 4}, "does not fit"),
        ({"pretrained_cfg": 3}, "is no configuration"),
        ({"model_args": {"nosuch": 1}}, "does not build unireplknet_a"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        refused(sentence, from_pretrained, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-5] ^= 4
    (tmp_path / "model.safetensors").write_bytes(content)
    refused("is damaged: its content has the checksum", from_pretrained, tmp_path)
    refused("is no model folder", push_to_hub, tmp_path / "none", "me/net")


def test_push_and_pull_give_the_same_answers(hub, folder, answer, tmp_path):
    x, want = answer
    push_to_hub(folder, "me/net", private=True)
    wanted = hub.created[0]
    assert wanted.get("private") or wanted.get("visibility") == "private"
    assert hub.files == {name: (folder / name).read_bytes() for name in FILES}
    pulled = from_pretrained("me/net", cache_dir=tmp_path / "pulled")
    with torch.no_grad():
        assert torch.equal(pulled(x), want)


def test_a_refused_upload_and_a_missing_repository_are_sentences(hub, folder, tmp_path):
    hub.allow = False
    refused("the hub refused the upload to me/net: .*hf auth login", push_to_hub, folder, "me/net")
    hub.files.clear()
    refused("could not be downloaded", from_pretrained, "me/none", cache_dir=tmp_path / "a")


def test_push_uploads_a_run_with_its_card(hub, command, tmp_path):
    """The command line, from a run of training to what others load."""
    from rich.console import Console

    from seewide.train import Predictor, fit

    run = tmp_path / "run"
    fit("unireplknet_a", "digits", out=run, smoke=True, console=Console(quiet=True))
    assert command("eval", run).exit_code == 0
    (run / "digits.onnx").write_bytes(bytes(700_000))  # whatever was exported there
    dry = command("push", run, "me/digits", "--dry-run", "--out", tmp_path / "dry")
    assert dry.exit_code == 0, dry.output
    assert not hub.files
    done = command("push", run, "me/digits", "--license", "apache-2.0", "--private")
    assert done.exit_code == 0, done.output
    assert hub.files.keys() == {*FILES, "curves.png", "confusion.png"}
    card = hub.files["README.md"].decode()
    scores = json.loads((run / "eval" / "scores.json").read_text())["scores"]["fused"]
    for text in (
        'license: "apache-2.0"', f"| top1 (fused) | {round(scores['top1'], 3)} |",
        "## Per class", "![confusion.png](confusion.png)", "| digits.onnx | 0.7 |",
        "| recipe | digits",
        'pipeline("image-classification", "me/digits"',
    ):  # fmt: skip
        assert text in card
    path = tmp_path / "digit.png"
    Image.new("RGB", (40, 30), (90, 120, 200)).save(path)
    want = next(Predictor(run)(path)).description["classes"]
    pulled = from_pretrained("me/digits", cache_dir=tmp_path / "pulled")
    x = Preprocess.of(pulled).transform()(Image.open(path))[None]
    with torch.no_grad():
        probabilities = pulled(x).softmax(1)[0]
    names = pulled.pretrained_cfg["label_names"]
    found = dict(zip(names, probabilities.tolist(), strict=True))
    for entry in want:
        assert found[entry["name"]] == pytest.approx(entry["probability"], abs=1e-5)


def test_push_refuses_what_others_cannot_build(command, tmp_path):
    from dataclasses import replace

    from rich.console import Console

    from seewide.recipes import get
    from seewide.train import fit

    recipe = replace(get("digits").smoke(), stem_stride=2)
    fit("test_convnext", "digits", recipe, tmp_path / "run", console=Console(quiet=True))
    for target, sentence in ((tmp_path / "run", "stem_stride 2"), (tmp_path / "x", "not a run")):
        result = command("push", target, "me/x", "--dry-run")
        assert result.exit_code == 2
        assert sentence in result.stderr
