"""What can go wrong, as exceptions and one warning, and how to give it. Does not know who raises them.

Each message names the thing, the consequence for the data, and the next step.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, Mapping, Optional


class LotlogError(Exception):
    """The base of all errors of this package."""


class Refused(LotlogError):
    """The daemon refused a batch: nothing of it was stored, and sending the same again would not help.

    ``code`` is one of the protocol's error codes, ``retryable`` whether the refusal may pass with time.
    """

    def __init__(self, code: str, message: str, retryable: bool = False, expected: Optional[int] = None):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retryable = retryable
        self.expected = expected

    def __reduce__(self) -> Any:  # exceptions cross process pools pickled
        return (type(self), (self.code, self.message, self.retryable, self.expected))

    @classmethod
    def of(cls, error: Mapping[str, Any]) -> "Refused":
        expected = error.get("expected")
        return cls(
            str(error.get("code", "unknown")),
            str(error.get("message", "no reason given")),
            error.get("retryable") is True,
            expected if isinstance(expected, int) else None,
        )


class Unreachable(LotlogError):
    """The daemon could not be reached, or gave no answer, in the time that the call had.

    ``unknown`` is True where a batch had been handed over and its answer never came: it may be stored or not.
    """

    def __init__(self, message: str, unknown: bool = False):
        super().__init__(message)
        self.unknown = unknown

    def __reduce__(self) -> Any:
        return (type(self), (str(self), self.unknown))


class SpoolError(LotlogError):
    """A batch could neither be delivered nor be written to the spool: it is lost, and counted in ``stats()``."""


class Unencodable(LotlogError, TypeError):
    """The items or the context cannot be understood, so nothing was sent."""


class LotlogWarning(UserWarning):
    """Something that the program should know of, but that must not stop it."""


def say(message: str) -> None:
    """Warns, at the line of the program that called this package. That must not stop what is being done: not where warnings are
    errors, nor where nothing can be written."""
    try:
        level, frame = 1, sys._getframe()
        while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
            level, frame = level + 1, frame.f_back
        warnings.warn(message, LotlogWarning, stacklevel=level)
    except Exception:
        try:
            print(message, file=sys.stderr)
        except Exception:
            pass
