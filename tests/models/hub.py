"""A local server that answers as the hub does, for the tests of published weights."""

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "1" * 40


@dataclass
class Hub:
    """Files by "owner/repo/name"; what was downloaded; and what is to go wrong."""

    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)  # instead of the right ones
    breaks: list[int] = field(default_factory=list)  # bytes after which next answers end
    gets: list[tuple[str, str | None]] = field(default_factory=list)  # file, Range

    def __enter__(self) -> "Hub":
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                hub.answer(self)

            def do_GET(self):
                hub.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *error) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        repo, _, rest = request.path.lstrip("/").partition("/resolve/")
        name = f"{repo}/{rest.partition('/')[2]}"
        wanted = request.headers.get("Range")
        if name in self.files and request.command == "GET":
            self.gets.append((name, wanted))
        if name not in self.files:
            known = any(file.startswith(f"{repo}/") for file in self.files)
            request.send_response(404)
            request.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            request.send_header("X-Repo-Commit", COMMIT)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        content = self.files[name]
        first = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        request.send_response(206 if wanted else 200)
        if wanted:
            span = f"bytes {first}-{len(content) - 1}/{len(content)}"
            request.send_header("Content-Range", span)
        etag = self.etags.get(name, hashlib.sha256(content).hexdigest())
        request.send_header("ETag", f'"{etag}"')
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Length", str(len(content) - first))
        request.end_headers()
        if request.command == "GET":
            last = len(content)
            if self.breaks:
                last = first + self.breaks.pop(0)
                request.close_connection = True
            request.wfile.write(content[first:last])
