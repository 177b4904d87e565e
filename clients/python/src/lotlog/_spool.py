"""The spool: batches that could not be delivered in time, as files of whole request lines, until somebody delivers them.
Knows files; does not know the daemon. The format is described in docs/spool.md of the lotlog repository.

Each file is written under another name, synced and renamed, so that it is whole or not there, and it never changes
afterwards but by being replaced as a whole. It is removed when the last of its batches is acknowledged.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from typing import Iterator, List, NamedTuple, Optional, Set, Tuple

#: One file, at most, in bytes; one batch is always allowed.
MAX_FILE_BYTES = 4 << 20
#: The whole spool, at most, in bytes: beyond it batches are lost, and counted.
MAX_SPOOL_BYTES = 1 << 30
#: A file takes a multiple of this on the disk; so the limit is one for the number of files, too.
_BLOCK_BYTES = 4096
#: Unfinished files older than this were left by a process that died.
_LEFTOVER_SECONDS = 3600
#: How much of the spool is used is looked up at most so often; a limit for it is no exact one.
LOOK_EVERY_SECONDS = 1.0

SUFFIX = ".spool"
_LOCK = "lock"
_HEAD = re.compile(rb'\{"session":"([A-Za-z0-9._:-]{1,64})","seq":([1-9][0-9]{0,18}),')
_counter = 0
#: Locks that this process holds.
_held: Set[int] = set()


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
        #: What all files took when they were last looked at, and what was written since.
        self._used_bytes = 0
        #: Until when (monotonic) they need not be looked at again.
        self._used_until = 0.0
        self._leftovers_are_cleared = False
        #: The last file that was written here, and by which process.
        self._newest = (0, "")

    def write(self, lines: List[bytes]) -> Tuple[int, Optional[OSError]]:
        """Keeps request lines, in this order, behind all that were written before: how many of them, and why no more. Nothing of
        a file that could not be written whole is left."""
        kept = 0
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            for group in _groups(lines, self.max_bytes - self._used_about()):
                self._write_new(group)
                kept += len(group)
        except OSError as error:
            return kept, error
        if kept < len(lines):
            return kept, OSError(f"the spool in {self.directory} has reached {self.max_bytes} bytes")
        return kept, None

    def _write_new(self, lines: List[bytes]) -> None:
        name = self._new_name()
        self._write_file(name, lines)
        self._newest = (os.getpid(), name)

    def holds_ours(self) -> bool:
        """Whether the last file that this process wrote is still to be delivered: files go in order, so it is the last to go."""
        pid, name = self._newest
        return pid == os.getpid() and os.path.exists(os.path.join(self.directory, name))

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
        self._used_bytes += -(-sum(map(len, lines)) // _BLOCK_BYTES) * _BLOCK_BYTES
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

    def has_any(self) -> bool:
        """Whether there is a file to be delivered. Where nobody can tell now, for want of descriptors perhaps, there may be one."""
        try:
            with os.scandir(self.directory) as entries:
                return any(entry.name.endswith(SUFFIX) for entry in entries)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False
        except OSError as error:
            return error.errno != errno.ELOOP

    def _used_about(self) -> int:
        """As :meth:`used_bytes`, looked up only now and then: a spool of many files takes its time."""
        began = time.monotonic()
        if began >= self._used_until:
            self._used_bytes = self.used_bytes()
            took = time.monotonic() - began
            self._used_until = began + LOOK_EVERY_SECONDS + 50 * took
        return self._used_bytes

    def used_bytes(self) -> int:
        """What all files take, those of refused batches too."""
        total = 0
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    try:
                        total += -(-entry.stat().st_size // _BLOCK_BYTES) * _BLOCK_BYTES
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
        """All of the file is delivered. Only with the lock."""
        try:
            os.unlink(os.path.join(self.directory, name))
            os.utime(os.path.join(self.directory, _LOCK))
        except FileNotFoundError:
            pass
        self._used_until = 0.0

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

    def is_being_emptied(self) -> bool:
        """Whether who holds the lock has delivered a file just now."""
        try:
            return abs(time.time() - os.stat(os.path.join(self.directory, _LOCK)).st_mtime) < LOOK_EVERY_SECONDS
        except OSError:
            return False

    def lock(self) -> Optional[int]:
        """The right to deliver, which one process has at a time; None where another has it. Give it to :meth:`unlock`."""
        try:
            handle = os.open(os.path.join(self.directory, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        _held.add(handle)
        return handle

    def unlock(self, handle: int) -> None:
        if handle in _held:
            _held.discard(handle)
            fcntl.flock(handle, fcntl.LOCK_UN)  # a child that was forked meanwhile may have a copy
            os.close(handle)

    def clear_leftovers(self) -> None:
        """Removes what others began to write long ago, once in a life. Only with the lock."""
        if self._leftovers_are_cleared:
            return
        self._leftovers_are_cleared = True
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


def _groups(lines: List[bytes], room: int) -> Iterator[List[bytes]]:
    """What goes into one file each, as far as there is room."""
    group: List[bytes] = []
    size = 0
    for text in lines:
        room -= len(text)
        if room < 0:
            break
        if group and size + len(text) > MAX_FILE_BYTES:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _let_go() -> None:
    """In a forked child: the right to deliver is the parent's, and ends with it."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
