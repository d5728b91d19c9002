"""Ctrl-C that numba makes a SystemError of."""

import pytest

from stacklib.errors import interrupts_kept


def test_an_interrupt_in_compiled_code_is_one():
    with pytest.raises(KeyboardInterrupt) as stopped, interrupts_kept():
        try:
            try:
                raise KeyboardInterrupt(15)
            except KeyboardInterrupt as error:
                raise SystemError("returned a result with an exception set") from error
        except SystemError as error:
            raise SystemError("once more") from error
    assert stopped.value.args == (15,)


def test_other_errors_stay_as_they_are():
    for error in (SystemError("other"), ValueError("other"), KeyboardInterrupt(2)):
        with pytest.raises(type(error)) as found, interrupts_kept():
            raise error
        assert found.value is error
