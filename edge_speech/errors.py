"""The two ways a command ends badly; both are one line for a person."""


class InputError(ValueError):
    """Bad input or usage (exit code 2): says what was got, what is allowed and what to do next."""


class CheckFailed(RuntimeError):
    """A check did not hold (exit code 1): accuracy gate, parity, verification."""
