"""What a machine lacks is no reason to leave a test out where all is said to be there."""

import pytest
from conftest import need_program


@pytest.mark.parametrize(
    "setting, outcome", [("", pytest.skip.Exception), ("0", pytest.skip.Exception), ("1", pytest.fail.Exception)]
)
def test_a_program_that_is_missing_skips_a_test_or_fails_it(monkeypatch, setting, outcome):
    monkeypatch.setenv("LONGHAUL_SKIP_NOTHING", setting)

    with pytest.raises(outcome, match="there is no such-a-program on this machine"):
        need_program("such-a-program")
