"""A local server that behaves like the Hugging Face hub, as the fixture `hub`."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

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
