"""Random calls of all operators against their definitions; `make fuzz` runs many more of them."""

import operator_cases
import operator_checks
import pytest
from hypothesis import HealthCheck, given, note, settings
from operator_cases import CONTEXTS, Case, as_code, cases
from operator_checks import check

few = settings(
    max_examples=15,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("context", CONTEXTS)
def test_random_calls_match_the_definition(context):
    @few
    @given(cases((context,)))
    def run(case):
        note(as_code(case))
        check(case)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("operator", sorted(operator_cases.OPERATORS))
def test_random_compiled_calls_match_the_definition(operator):
    @settings(few, max_examples=4)
    @given(cases(("compile",)).filter(lambda case: case.operator == operator))
    def run(case):
        note(as_code(case))
        check(case)

    run()


def test_a_failing_case_is_printed_as_a_program(monkeypatch):
    case = Case("small_kernel_aggregation", ((1, 2, 3, 3), (1, 1, 9, 3, 3)), {}, ("sliced",) * 2)
    program = as_code(case)
    exec(program)  # passes
    monkeypatch.setitem(operator_checks.FACTOR, operator_checks.torch.float32, 0)
    with pytest.raises(AssertionError, match="output deviates by"):
        exec(program)
