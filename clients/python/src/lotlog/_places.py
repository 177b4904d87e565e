"""Where the daemon listens and where the spool lies, unless somebody says: the rules that daemon and clients share.
Reads the environment; makes nothing.
"""

from __future__ import annotations

import os
import stat
import tempfile

SYSTEM_SOCKET = "/run/lotlog/lotlog.sock"


def socket_path() -> str:
    """``LOTLOG_SOCKET``, else where a daemon of this user listens, else the system's socket if there is one."""
    named = os.environ.get("LOTLOG_SOCKET")
    if named:
        return named
    uid = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    private = os.path.join(tempfile.gettempdir(), f"lotlog-{uid}")
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        path = os.path.join(runtime, "lotlog.sock")
    elif uid == 0:
        path = SYSTEM_SOCKET
    else:
        path = os.path.join(private, "lotlog.sock")
    if not os.path.exists(path) and os.path.exists(SYSTEM_SOCKET):
        return SYSTEM_SOCKET
    if os.path.dirname(path) == private:
        _refuse_a_trap(private, uid, "its socket could be anybody's", "another socket with LOTLOG_SOCKET")
    return path


def _refuse_a_trap(private: str, uid: int, so: str, other: str) -> None:
    """Somebody else could put what he likes into a directory that is not surely ours."""
    try:
        found = os.lstat(private)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(
            f"{private} is not a directory of this user alone, so {so}: remove it, or name {other}"
        )


def spool_dir() -> str:
    """``LOTLOG_SPOOL_DIR``, else ``lotlog-spool`` in the user's state directory, else in the temp directory."""
    named = os.environ.get("LOTLOG_SPOOL_DIR")
    if named:
        return named
    state = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):
        return os.path.join(state, "lotlog-spool")
    home = os.environ.get("HOME", "")
    if os.path.isabs(home):
        return os.path.join(home, ".local", "state", "lotlog-spool")
    path = os.path.join(tempfile.gettempdir(), f"lotlog-spool-{os.geteuid()}")
    _refuse_a_trap(path, os.geteuid(), "its batches could be anybody's", "another directory with LOTLOG_SPOOL_DIR")
    return path
