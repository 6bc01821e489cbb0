"""The choice of a backend: what forces it, what refuses it, and what explains it."""

import threading

import pytest
import torch

from seewide.errors import InputError
from seewide.ops import depthwise_conv2d, explain, use_backend
from seewide.ops._dispatch import (
    Backend,
    Operator,
    forced_backend,
    known_backends,
    reference_backend,
)


@pytest.fixture
def operator(monkeypatch):
    """Doubles its argument; "fast" needs a positive one and is preferred above 10."""
    monkeypatch.setattr(Operator, "registry", dict(Operator.registry))
    return Operator(
        "double",
        Backend(
            "fast",
            lambda x: ("fast", 2 * x),
            cannot=lambda x: None if x > 0 else "x must be positive",
            prefer=lambda x: x > 10,
            slower=lambda x: f"{x} is too small to pay off",
            plan=lambda x: "one addition",
        ),
        Backend("torch", lambda x: ("torch", 2 * x)),
        reference_backend(lambda x: ("reference", 2 * x)),
    )


def test_first_preferred_backend_runs(operator):
    assert operator(11) == ("fast", 22)
    assert operator(10) == ("torch", 20)
    assert operator(-1) == ("torch", -2)


def test_first_backend_that_can_runs_if_none_is_preferred(monkeypatch):
    monkeypatch.setattr(Operator, "registry", dict(Operator.registry))
    slow = Backend("slow", lambda x: "slow", prefer=lambda x: False)
    never = Backend("never", lambda x: "never", cannot=lambda x: "it is never possible")
    assert Operator("op", never, slow, reference_backend(lambda x: "reference"))(0) == "slow"
    with pytest.raises(InputError, match=r"no backend can run op \(never: it is never possible\)"):
        Operator("op", never)(0)


def test_forced_backend_runs_though_not_preferred(operator):
    with use_backend("fast"):
        assert operator(1) == ("fast", 2)
    with use_backend("reference"):
        assert operator(11) == ("reference", 22)


def test_only_cannot_refuses_a_forced_backend(operator):
    with use_backend("fast"), pytest.raises(InputError, match="run double: x must be positive"):
        operator(0)


def test_operators_without_the_forced_backend_choose_as_usual(operator):
    with use_backend("fast"):
        x, weight = torch.rand(1, 2, 5, 5), torch.rand(2, 1, 3, 3)
        assert depthwise_conv2d(x, weight).shape == x.shape


def test_table_shows_plan_and_reasons(operator):
    assert dict(operator.table(11))["fast"] == "chosen: one addition"
    rows = dict(operator.table(2))
    assert rows["fast"] == "could run: one addition; 2 is too small to pay off"
    assert rows["torch"] == "chosen"
    assert rows["reference"] == "could run; the plain definition"
    assert dict(operator.table(0))["fast"] == "x must be positive"


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="unknown backend 'cuda'"):
        use_backend("cuda")
    with pytest.raises(InputError, match="unknown operator"):
        explain(torch.relu, torch.rand(2))


def test_blocks_nest():
    with use_backend("cpu"):
        with use_backend("torch"):
            assert forced_backend() == "torch"
            with use_backend(None):
                assert forced_backend() is None
        assert forced_backend() == "cpu"
    assert forced_backend() is None


def test_one_block_entered_twice_ends():
    block = use_backend("reference")
    with block, block:
        assert forced_backend() == "reference"
    assert forced_backend() is None


def test_block_ends_after_an_error():
    with pytest.raises(KeyError), use_backend("reference"):
        raise KeyError
    assert forced_backend() is None


def test_threads_have_their_own_backend():
    """Interleaved so that a process-wide variable would restore another thread's value."""
    entered, left = threading.Event(), threading.Event()
    seen = []

    def other():
        seen.append(forced_backend())
        with use_backend("reference"):
            entered.set()
            left.wait(10)
            seen.append(forced_backend())
        seen.append(forced_backend())

    thread = threading.Thread(target=other)
    with use_backend("torch"):
        thread.start()
        assert entered.wait(10)
        assert forced_backend() == "torch"
    left.set()
    thread.join()
    assert seen == [None, "reference", None]
    assert forced_backend() is None


def test_compiled_functions_follow_the_forced_backend():
    x, weight = torch.rand(1, 2, 9, 9), torch.rand(2, 1, 5, 5)
    targets = []

    def record(graph, inputs):
        targets.append(" ".join(str(node.target) for node in graph.graph.nodes))
        return graph

    compiled = torch.compile(lambda x: depthwise_conv2d(x, weight), backend=record, fullgraph=True)
    for name in ("cpu", "torch", "cpu"):
        with use_backend(name):
            compiled(x)
    assert len(targets) == 2
    assert "depthwise_conv2d_cpu" in targets[0]
    assert "depthwise_conv2d_cpu" not in targets[1]


def test_every_operator_has_a_reference_and_a_torch_backend():
    for operator in Operator.registry.values():
        names = [backend.name for backend in operator.backends]
        assert names[-1] == "reference", operator.name
        assert "torch" in names, operator.name
    assert set(known_backends()) >= {"cpu", "reference", "torch", "triton"}
