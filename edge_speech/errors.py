"""How a command ends badly, each in one line for a person."""


class InputError(ValueError):
    """Bad input or usage (exit code 2): says what was got, what is allowed and what to do next."""


class CheckFailed(RuntimeError):
    """A check did not hold (exit code 1): accuracy gate, parity, verification."""


class EngineRefused(InputError):
    """An engine that was built on a device but is not for this one, or damaged; another may run instead."""


class FellBack(UserWarning):
    """The engine meant for this device was refused, and another runs in its place."""
