"""The spool: batches that could not be delivered in time, as files of whole request lines, until somebody delivers them.
Knows files; does not know the daemon. The format is described in docs/spool.md of the lotlog repository.

Each file is written under another name, synced and renamed, so that it is whole or not there, and it never changes
afterwards but by being replaced as a whole. It is removed when the last of its batches is acknowledged.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from typing import List, NamedTuple, Optional

#: One file, at most, in bytes; one batch is always allowed.
MAX_FILE_BYTES = 4 << 20
#: The whole spool, at most, in bytes: beyond it batches are lost, and counted.
MAX_SPOOL_BYTES = 1 << 30
#: Unfinished files older than this were left by a process that died.
_LEFTOVER_SECONDS = 3600

SUFFIX = ".spool"
_HEAD = re.compile(rb'\{"session":"([A-Za-z0-9._:-]{1,64})","seq":([1-9][0-9]{0,18}),')
_counter = 0


class SpooledLine(NamedTuple):
    """One batch of a file: ``body`` is what follows session and number. Without a session it is no batch at all."""

    text: bytes
    session: str
    seq: int
    body: bytes


class Spool:
    """The spool in one directory, which is made when it is first needed."""

    def __init__(self, directory: str, max_bytes: int = MAX_SPOOL_BYTES):
        self.directory = directory
        self.max_bytes = max_bytes

    def write(self, lines: List[bytes]) -> None:
        """Keeps request lines, in this order, behind all that were written before. Raises OSError; nothing of a file that
        could not be written whole is left."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        used = self.used_bytes()
        group: List[bytes] = []
        size = 0
        for text in lines:
            if used + size + len(text) > self.max_bytes:
                raise OSError(f"the spool in {self.directory} has reached {self.max_bytes} bytes")
            if group and size + len(text) > MAX_FILE_BYTES:
                self._write_file(self._new_name(), group)
                used += size
                group, size = [], 0
            group.append(text)
            size += len(text)
        if group:
            self._write_file(self._new_name(), group)

    def replace(self, name: str, lines: List[bytes]) -> None:
        """Puts other lines in the place of a file's."""
        self._write_file(name, lines)

    def _new_name(self) -> str:
        """Names sort in the order of their writing, as far as one process and the clock can tell."""
        global _counter
        _counter = max(_counter + 1, time.time_ns())
        return f"{_counter:020d}-{os.getpid()}{SUFFIX}"

    def _write_file(self, name: str, lines: List[bytes]) -> None:
        path = os.path.join(self.directory, name)
        unfinished = f"{path}.{os.getpid()}.new"
        try:
            with open(unfinished, "xb", opener=_private) as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            os.rename(unfinished, path)
        except BaseException:
            try:
                os.unlink(unfinished)
            except OSError:
                pass
            raise
        self._sync_directory()

    def _sync_directory(self) -> None:
        handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def names(self) -> List[str]:
        """The files, in order."""
        try:
            return sorted(name for name in os.listdir(self.directory) if name.endswith(SUFFIX))
        except OSError:  # not there, or not to be read: nothing that could be delivered
            return []

    def used_bytes(self) -> int:
        """What all files take, those of refused batches too."""
        total = 0
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    try:
                        total += entry.stat().st_size
                    except OSError:  # delivered meanwhile
                        pass
        except FileNotFoundError:
            pass
        return total

    def read(self, name: str) -> Optional[List[SpooledLine]]:
        """A file's whole lines; None where it has gone. A torn end, which only a disk that lies can leave, is not a line.
        Never waits: what is no regular file is an OSError."""
        try:
            with open(os.path.join(self.directory, name), "rb", opener=_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise OSError(f"{name} is not a regular file")
                text = file.read()
        except FileNotFoundError:
            return None
        found = []
        for part in text.split(b"\n")[:-1]:
            head = _HEAD.match(part)
            if head is None:
                found.append(SpooledLine(part + b"\n", "", 0, b""))
            else:
                session, seq = head.group(1).decode(), int(head.group(2))
                found.append(SpooledLine(part + b"\n", session, seq, part[head.end() :] + b"\n"))
        return found

    def remove(self, name: str) -> None:
        """All of the file is delivered."""
        try:
            os.unlink(os.path.join(self.directory, name))
        except FileNotFoundError:
            pass

    def set_aside(self, name: str, text: bytes) -> bool:
        """Keeps a batch that the daemon refused, for a person: it would be refused again. Whether it was not kept before."""
        path = os.path.join(self.directory, name[: -len(SUFFIX)] + ".refused")
        try:
            with open(path, "rb") as file:
                if text in file.read():
                    return False
        except FileNotFoundError:
            pass
        with open(path, "ab", opener=_private) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._sync_directory()
        return True

    def lock(self) -> Optional[int]:
        """The right to deliver, which one process has at a time; None where another has it. Give it to :meth:`unlock`."""
        try:
            handle = os.open(os.path.join(self.directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        self._clear_leftovers()
        return handle

    def unlock(self, handle: int) -> None:
        os.close(handle)

    def _clear_leftovers(self) -> None:
        horizon = time.time() - _LEFTOVER_SECONDS
        try:
            names = os.listdir(self.directory)
        except OSError:
            return
        for name in names:
            path = os.path.join(self.directory, name)
            try:
                if name.endswith(".new") and os.stat(path).st_mtime < horizon:
                    os.unlink(path)
            except OSError:
                pass


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
