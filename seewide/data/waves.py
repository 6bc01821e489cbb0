"""Reading one recording, and the sentence for one that cannot be read.

WAV files are read with the standard library; FLAC, OGG and MP3, and WAV files of floats, need
soundfile (`pip install seewide[audio]`).
"""

from __future__ import annotations

import os
import wave
from pathlib import Path

import numpy as np

from seewide.errors import InputError, require

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def read_wave(path: Path) -> tuple[np.ndarray, int]:
    """The recording as float32 (n,) in [-1, 1], channels averaged, and its sample rate in Hz.

    Raises:
        InputError: the file is not there, is damaged or empty, or holds NaN or nothing but silence.
    """
    if not path.is_file():
        raise InputError(f"there is no recording {path}")
    samples, rate = _read_pcm(path) if path.suffix.lower() == ".wav" else _read_any(path)
    if not len(samples):
        raise InputError(f"{path} is empty: it has no samples")
    if not np.isfinite(samples).all():
        raise InputError(f"{path} holds samples that are NaN or infinite")
    if samples.min() == samples.max():
        raise InputError(f"{path} is silent: all its {len(samples)} samples are equal")
    return samples, rate


def wave_rate(path: Path) -> int:
    """The sample rate in Hz, from the header.

    Raises:
        InputError: the header cannot be read.
    """
    try:
        with wave.open(str(path), "rb") as file:
            return file.getframerate()
    except (wave.Error, EOFError, OSError, RuntimeError):  # RuntimeError: a chunk of no length
        try:
            return require("soundfile", extra="audio").info(str(path)).samplerate
        except RuntimeError as error:
            raise InputError(f"{path} cannot be read as a recording: {error}") from None


def list_waves(folder: Path) -> list[str]:
    """Recordings below a folder, relative to it and sorted; hidden files are left out."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.relpath(os.path.join(place, name), folder)
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def _read_pcm(path: Path) -> tuple[np.ndarray, int]:
    try:
        with wave.open(str(path), "rb") as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            expected = file.getnframes() * channels * width
            content = file.readframes(file.getnframes())
    except (
        wave.Error,
        EOFError,
        RuntimeError,
    ):  # floats, extensible headers, or no WAV file at all
        return _read_any(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(content) < expected:
        raise InputError(f"{path} is truncated: {len(content)} of {expected} bytes are there")
    if width == 1:
        values = np.frombuffer(content, np.uint8).astype(np.float32) / 128 - 1
    elif width == 3:
        parts = np.frombuffer(content, np.uint8).reshape(-1, 3).astype(np.int32)
        unsigned = parts[:, 0] | parts[:, 1] << 8 | parts[:, 2] << 16
        values = ((unsigned ^ 0x800000) - 0x800000).astype(np.float32) / 2**23
    else:
        values = np.frombuffer(content, f"<i{width}").astype(np.float32) / 2 ** (8 * width - 1)
    return values.reshape(-1, channels).mean(1, dtype=np.float32), rate


def _read_any(path: Path) -> tuple[np.ndarray, int]:
    soundfile = require("soundfile", extra="audio")
    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = str(error).partition(": ")[2] or str(error)
        raise InputError(f"{path} cannot be read as a recording: {reason}") from None
    return samples.mean(1), int(rate)
