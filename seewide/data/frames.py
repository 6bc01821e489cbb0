"""Reading the frames of one video: a folder of numbered images, or a file (PyAV).

Folders need no library beyond Pillow; files need PyAV (`pip install seewide[video]`), which brings
FFmpeg along.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from seewide.errors import InputError, require

from .images import SUFFIXES as IMAGE_SUFFIXES
from .images import is_hidden, read_image, verify_image

SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")


class Video(Protocol):
    """A video that was found and is not decoded yet. Its text names it in messages.

    Attributes:
        path: the folder or file.
    """

    path: Path

    def count(self) -> int:
        """The number of frames, without decoding them."""
        ...

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Frames (T, H, W, 3), uint8 RGB; an index may occur several times.

        Raises:
            InputError: a frame cannot be read, or has another size than the first one.
        """
        ...

    def verify(self) -> None:
        """See that all of it is there, at less cost than reading it.

        Raises:
            InputError: it is damaged or truncated.
        """
        ...


@dataclass(frozen=True)
class FrameFolder:
    """A folder with one image per frame, in the order of the numbers in the names."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def files(self) -> list[str]:
        try:
            names = os.listdir(self.path)
        except OSError:
            raise InputError(f"there is no folder of frames {self.path}") from None
        found = [n for n in names if n.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(n)]
        if not found:
            raise InputError(f"{self.path} holds no frames ({', '.join(IMAGE_SUFFIXES)})")
        return sorted(found, key=frame_key)

    def count(self) -> int:
        return len(self.files())

    def read(self, indices: Sequence[int]) -> np.ndarray:
        files = self.files()
        wanted = sorted({int(index) for index in indices})
        frames: dict[int, np.ndarray] = {}
        for index in wanted:
            frames[index] = np.asarray(read_image(self.path / files[index]))
            first = frames[wanted[0]]
            if frames[index].shape != first.shape:
                sizes = (f"{f.shape[1]} x {f.shape[0]}" for f in (frames[index], first))
                raise InputError(
                    f"{self.path}: the frame {files[index]} has {next(sizes)} pixels, "
                    f"{files[wanted[0]]} has {next(sizes)}"
                )
        return np.stack([frames[int(index)] for index in indices])

    def verify(self) -> None:
        for name in self.files():
            verify_image(self.path / name)


@dataclass(frozen=True)
class VideoFile:
    """A video file, decoded by FFmpeg from its start up to the last frame that is wanted."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def count(self) -> int:
        with _opened(self.path) as container:
            stated = container.streams.video[0].frames
            return stated or _packets(container)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        last = max(int(index) for index in indices)
        wanted = {int(index) for index in indices}
        frames: dict[int, np.ndarray] = {}
        decoded = 0
        with _opened(self.path) as container:
            for frame in container.decode(container.streams.video[0]):
                if decoded in wanted:
                    frames[decoded] = frame.to_ndarray(format="rgb24")
                decoded += 1
                if decoded > last:
                    break
        if decoded <= last:
            raise InputError(
                f"{self.path} is truncated: only {decoded} frames can be decoded, the last one "
                f"wanted is number {last + 1}"
            )
        if len({frame.shape for frame in frames.values()}) > 1:
            raise InputError(f"{self.path} changes the size of its frames")
        return np.stack([frames[int(index)] for index in indices])

    def verify(self) -> None:
        with _opened(self.path) as container:
            stated = container.streams.video[0].frames
            found = _packets(container)
        if not found or found < stated:
            raise InputError(f"{self.path} is truncated: {found} of {stated} frames are there")


def open_video(path: Path) -> Video:
    """A folder of frames, or a video file.

    Raises:
        InputError: no such folder or file, or a file of another kind.
    """
    if path.is_dir():
        return FrameFolder(path)
    if not path.is_file():
        raise InputError(f"there is no video {path}")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is no video; known are {', '.join(SUFFIXES)} and frame folders")
    return VideoFile(path)


def frame_key(name: str) -> tuple[int, str]:
    """Sorts `img_2.jpg` before `img_10.jpg`."""
    numbers = re.findall(r"\d+", Path(name).stem)
    return (int(numbers[-1]) if numbers else -1, name)


def holds_frames(folder: Path) -> bool:
    """Whether a folder has consecutively numbered images and nothing in folders below it."""
    entries = [entry for entry in os.scandir(folder) if not is_hidden(entry.name)]
    names = [e.name for e in entries if e.name.lower().endswith(IMAGE_SUFFIXES)]
    if len(names) < 2 or any(entry.is_dir() for entry in entries):
        return False
    numbers = sorted(frame_key(name)[0] for name in names)
    return numbers[0] >= 0 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


class _opened:
    """A container of PyAV with at least one stream of video; FFmpeg's errors as InputError."""

    def __init__(self, path: Path) -> None:
        self.path, self.av = path, require("av", extra="video")

    def __enter__(self) -> Any:
        if not self.path.is_file():
            raise InputError(f"there is no video {self.path}")
        try:
            self.container = self.av.open(str(self.path))
        except (self.av.FFmpegError, ValueError) as error:
            raise InputError(f"{self.path} cannot be read as a video: {_reason(error)}") from None
        if not self.container.streams.video:
            self.container.close()
            raise InputError(f"{self.path} has no stream of video")
        return self.container

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.container.close()
        if isinstance(error, self.av.FFmpegError):
            raise InputError(f"{self.path} is damaged: {_reason(error)}") from None


def _packets(container: Any) -> int:
    return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).partition("\n")[0]
