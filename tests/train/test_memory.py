"""The allocator is told to keep memory, unless the environment speaks."""

import platform
import sys

import pytest

from seewide.train import memory


class Library:
    """Stands in for the C library."""

    def __init__(self, answer):
        self.told = {}
        self.mallopt = lambda option, value: self.told.update({option: value}) or answer


@pytest.fixture
def told(monkeypatch):
    for key in list(memory.os.environ):
        if key.startswith("MALLOC_"):
            monkeypatch.delenv(key)
    monkeypatch.setattr(memory.sys, "platform", "linux")
    library = Library(answer=1)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: library)
    return library.told


def test_it_sets_all_three(told):
    assert memory.reuse_freed_memory()
    assert set(told) == {-1, -2, -3}


def test_the_environment_goes_first(told, monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not memory.reuse_freed_memory()
    assert not told


def test_a_library_that_refuses_or_lacks_it(told, monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Library(answer=0))
    assert not memory.reuse_freed_memory()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.reuse_freed_memory()


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="needs glibc"
)
def test_glibc_takes_the_settings(monkeypatch):
    for key in list(memory.os.environ):
        if key.startswith("MALLOC_"):
            monkeypatch.delenv(key)
    assert memory.reuse_freed_memory()
