"""`python -m benchmarks`: what it refuses, and the table it prints."""

import pytest

from benchmarks.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("opps", "unknown benchmark 'opps'; did you mean ops?"),
        ("ops depthwize", "unknown operator 'depthwize'; did you mean depthwise?"),
        ("models lsnet_tt --quick", "unknown model 'lsnet_tt'; did you mean lsnet_t"),
        ("targets 7", "unknown aim '7'"),
        ("ops --dtype int8", "unknown dtype 'int8'"),
        ("ops --device tpu", "device must be cpu, or cuda where there is one, got 'tpu'"),
        ("sweep --base HEAD", "--base goes with ops or models, got 'sweep'"),
        ("ops grn --base no-such-thing", "no package in revision 'no-such-thing'"),
    ],
)
def test_refusals(arguments, sentence, capsys):
    assert main(arguments.split()) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_table(capsys):
    assert main(["ops", "squeeze_excite", "--quick"]) == 0
    output = capsys.readouterr().out
    assert "torch channels_last" in output
    assert "GFLOP/s" in output
