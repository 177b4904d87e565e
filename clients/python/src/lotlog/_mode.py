"""What the environment says of how batches are logged: ``LOTLOG_MODE`` and ``LOTLOG_STRICT``. Makes nothing.
"""

from __future__ import annotations

import os

from ._errors import say

_MODES = ("on", "off", "spool")


def environment_mode() -> str:
    """``LOTLOG_MODE``: on, off or spool. Whatever else stands there is taken for ``on``, with a warning: a batch that somebody
    did not want does less harm than one that is not there."""
    mode = os.environ.get("LOTLOG_MODE", "").strip().lower() or "on"
    if mode not in _MODES:
        message = f"LOTLOG_MODE is {mode!r}, which is none of {', '.join(_MODES)}"
        if is_strict():
            raise ValueError(message)
        say(f"lotlog: {message}, so batches go to the daemon as with on")
        return "on"
    return mode


def is_strict() -> bool:
    """``LOTLOG_STRICT``: the drop-in raises what goes wrong, and settings that are wrong are refused."""
    return os.environ.get("LOTLOG_STRICT", "").strip().lower() in ("1", "true", "yes", "on")
