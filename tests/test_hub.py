"""Model folders: to the hub and back, in seewide, timm and transformers, without a network."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

import seewide
from seewide.errors import InputError
from seewide.hub import FILES, from_pretrained, push_to_hub, save_pretrained
from seewide.preprocess import Preprocess
from seewide.reparam import randomize

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


COMMIT = "1" * 40


class HubServer(BaseHTTPRequestHandler):
    """The parts of the hub that creating, uploading and downloading use."""

    protocol_version = "HTTP/1.1"
    files: dict = {}  # noqa: RUF012  (set anew by the fixture)
    created: list = []  # noqa: RUF012
    allow = True

    def log_message(self, *args):
        pass

    def reply(self, status, content=b"", **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self):
        data = self.body()
        if not self.allow:
            return self.reply(403, {"error": "no right to write"})
        if self.path == "/api/repos/create":
            wanted = json.loads(data)
            self.created.append(wanted)
            name = f"{wanted['organization']}/{wanted['name']}"
            return self.reply(200, {"url": f"http://{self.headers['Host']}/{name}"})
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(data)["files"]]
            modes = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            return self.reply(200, {"files": modes})
        if "/commit/" in self.path:
            for line in data.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.files[entry["value"]["path"]] = content
            url = f"http://{self.headers['Host']}/me/net/commit/{COMMIT}"
            return self.reply(200, {"success": True, "commitUrl": url, "commitOid": COMMIT})
        return self.reply(200, {})

    def do_GET(self):
        if self.path.startswith("/api/"):
            return self.reply(200, {"id": "me/net", "sha": COMMIT, "siblings": []})
        name = self.path.rpartition("/")[2]
        if name not in self.files:
            return self.reply(404, X_Error_Code="EntryNotFound")
        return self.reply(200, self.files[name], ETag=f'"{name}"')

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch, tmp_path):
    HubServer.files, HubServer.created, HubServer.allow = {}, [], True
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubServer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield HubServer
    server.shutdown()
    server.server_close()
    thread.join()


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
