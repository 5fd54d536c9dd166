"""Faults in a forked process: it is killed at a change of the disk, or the disk is full."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

# By default bars share a lock with forked processes, and one that is killed never gives it back.
tqdm.set_lock(threading.RLock())
Action = Callable[[], object]
# What Python announces before it changes the disk; a file is opened with a mode, or with flags.
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.chmod", "shutil.rmtree")


def count_changes(action: Action) -> int:
    """Give how often an action changes the disk, in a forked process."""
    read, write = os.pipe()

    def act() -> None:
        counted = _watch(lambda n: None)
        action()
        os.write(write, str(counted()).encode())

    assert _run(act) == 0
    os.close(write)
    with os.fdopen(read) as pipe:
        return int(pipe.read())


def kill_at_change(action: Action, number: int) -> bool:
    """Kill a forked process before its n-th change of the disk; whether it was still acting."""

    def act() -> None:
        _watch(lambda n: os.kill(os.getpid(), signal.SIGKILL) if n == number else None)
        action()

    return _run(act) == -signal.SIGKILL


def kill_after(action: Action, seconds: float) -> bool:
    """Kill a forked process after a time; whether it was still acting."""
    child = _fork(action)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return _wait(child) == -signal.SIGKILL


def fail_beyond(action: Action, n_bytes: int) -> str:
    """Let no file of a forked process grow beyond some bytes; give its error's class and text."""
    read, write = os.pipe()

    def act() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the call fails instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
        _tell_error(action, write)

    return _read_error(act, read, write)


def error_of(action: Action) -> str:
    """Give the class and text of the error that an action ends with in a forked process."""
    read, write = os.pipe()
    return _read_error(lambda: _tell_error(action, write), read, write)


def files_of(folder: Path) -> dict[str, bytes]:
    """Give the content of every file in a folder, hidden ones included."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def _tell_error(action: Action, write: int) -> None:
    try:
        action()
    except Exception as error:
        kind = "OSError" if type(error).__module__ == "builtins" else type(error).__name__
        full = isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.ENOSPC)
        named = full and error.filename is not None
        os.write(write, f"{kind}{' that names a file' * named}: {error}".encode()[:4_000])


def _read_error(act: Action, read: int, write: int) -> str:
    assert _run(act) == 0
    os.close(write)
    with os.fdopen(read) as pipe:
        return pipe.read()


def _watch(see: Callable[[int], None]) -> Callable[[], int]:
    """Call a function with the number of each change of the disk; give what counts them."""
    n = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal n
        if event in CHANGES or (event == "open" and _writes(arguments)):
            n += 1
            see(n)

    sys.addaudithook(hook)
    return lambda: n


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _fork(act: Action) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return child


def _run(act: Action) -> int:
    return _wait(_fork(act))


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
