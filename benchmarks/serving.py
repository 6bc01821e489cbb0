"""Load on the server of a bundle: `python -m benchmarks serving [SECONDS]`.

200 clients send an image each, and the next as soon as they have the answer, for a minute; then
broken, empty and malformed uploads and ones of a wrong kind come in between valid ones. The file
has how many requests of each kind were answered by which status, and how long they took.
"""

from __future__ import annotations

import http.client
import io
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import timm
import torch
from PIL import Image
from rich.console import Console

from benchmarks.conditions import Settings, conditions, write_rows
from seewide.errors import InputError
from seewide.export.bundle import bundle
from seewide.preprocess import Preprocess
from seewide.testing import randomize

CLIENTS, SECONDS, BROKEN = 200, 60.0, 10_000
COLUMNS = ("part", "upload", "status", "requests", "median ms", "99% below ms")
HEAD = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'


def upload(data: bytes) -> tuple[bytes, str]:
    """Body and type of a form with one file."""
    return HEAD + data + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def image_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((96, 80), 60).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def bad_uploads(image: bytes) -> dict[str, tuple[bytes, str]]:
    """What a server must refuse, by name."""
    return {
        "cut image": upload(image[: len(image) // 2][:100]),
        "random bytes": upload(random.Random(0).randbytes(500)),
        "empty file": upload(b""),
        "other field": (HEAD.replace(b"image", b"other") + image + b"\r\n--x--\r\n",
                        "multipart/form-data; boundary=x"),
        "malformed form": (b"--y\r\n", "multipart/form-data; boundary=x"),
        "JSON": (b"[1, 2", "application/json"),
    }  # fmt: skip


class Tally:
    """Statuses and times of requests, from many threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.statuses: dict[str, Counter[str]] = {}
        self.seconds: dict[str, list[float]] = {}

    def send(self, port: int, name: str, body: bytes, kind: str) -> None:
        """One request; a connection that fails counts as `lost`."""
        started = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request("POST", "/predict", body, {"Content-Type": kind})
            answer = connection.getresponse()
            answer.read()
            status = str(answer.status)
        except OSError:
            status = "lost"
        finally:
            connection.close()
        with self.lock:
            self.statuses.setdefault(name, Counter())[status] += 1
            self.seconds.setdefault(name, []).append(time.perf_counter() - started)

    def rows(self, part: str) -> list[tuple[object, ...]]:
        """Lines of COLUMNS."""
        lines = []
        for name, statuses in self.statuses.items():
            times = sorted(self.seconds[name])
            middle, high = times[len(times) // 2], times[int(0.99 * (len(times) - 1))]
            for status, count in sorted(statuses.items()):
                lines.append(
                    (part, name, status, count, f"{1e3 * middle:.0f}", f"{1e3 * high:.0f}")
                )
        return lines


def start(folder: Path) -> tuple[subprocess.Popen, int]:
    """The server of a bundle in its own process, ready to answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([sys.executable, "serve.py", str(port)], cwd=folder, **quiet)
    for _ in range(180):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return server, port
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(1)
    server.kill()
    raise InputError("serve.py did not start; it needs litserve and python-multipart")


def load(port: int, clients: int, seconds: float) -> Tally:
    """`clients` threads that send valid images for `seconds`."""
    tally, image = Tally(), upload(image_bytes())
    end = time.monotonic() + seconds

    def client() -> None:
        while time.monotonic() < end:
            tally.send(port, "image", *image)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def attack(port: int, count: int, clients: int = 8) -> Tally:
    """`count` bad uploads, and a valid one after each hundred."""
    tally, image = Tally(), image_bytes()
    kinds = list(bad_uploads(image).items())
    numbers = iter(range(count))
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            name, (body, kind) = kinds[number % len(kinds)]
            tally.send(port, name, body, kind)
            if number % 100 == 99:
                tally.send(port, "image", *upload(image))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def measure(seconds: float = SECONDS, broken: int = BROKEN) -> list[tuple[object, ...]]:
    """Lines of COLUMNS for a small network (32 pixels) of random weights."""
    torch.manual_seed(0)
    model = randomize(timm.create_model("unireplknet_a", num_classes=5)).eval()
    how = Preprocess(image_size=32).to_dict()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        bundle(model, folder, "net", list("abcde"), how)
        server, port = start(folder)
        try:
            Tally().send(port, "first", *upload(image_bytes()))
            rows = load(port, CLIENTS, seconds).rows(f"{CLIENTS} clients for {seconds:g} s")
            return rows + attack(port, broken).rows(f"{broken} bad uploads from 8 clients")
        finally:
            server.terminate()
            server.wait(30)


def run(names: list[str], settings: Settings, console: Console) -> None:
    """Measure, print and write the file."""
    rows = measure(3.0, 120) if settings.quick else measure()
    for row in (COLUMNS, *rows):
        console.print("  ".join(map(str, row)), markup=False, soft_wrap=True)
    if not settings.quick:
        facts = {**conditions(settings), "network": "unireplknet_a, 32 x 32 pixels, litserve"}
        console.print(f"written: {write_rows('serving-cpu', facts, COLUMNS, rows)}")
