"""Work that is killed at a chosen moment: in a process of its own, at its n-th event."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEP = "llmrec.tests.step"  # what work raises with `sys.audit` where it could be killed, too
FILE_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod"}


def count_events(work: Callable[[], object], folder: Path) -> int:
    """Do some work in another process, and count its events: files in a folder, and steps."""
    receive, send = multiprocessing.Pipe(duplex=False)
    assert _run(work, folder, send=send) == 0
    found: int = receive.recv()
    return found


def killed(work: Callable[[], object], folder: Path, at: int) -> bool:
    """Do some work in another process, and kill that before an event; whether it came to it."""
    code = _run(work, folder, at=at)
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def _run(work: Callable[[], object], folder: Path, **options: Any) -> int | None:
    child = multiprocessing.get_context("fork").Process(
        target=_watched, args=(work, folder), kwargs=options
    )
    child.start()
    child.join(120)
    return child.exitcode


def _watched(
    work: Callable[[], object], folder: Path, at: int | None = None, send: Any = None
) -> None:
    n_events = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n_events
        if event == STEP or (event in FILE_EVENTS and str(folder) in str(arguments[0])):
            if n_events == at:
                os.kill(os.getpid(), signal.SIGKILL)
            n_events += 1

    sys.addaudithook(watch)
    work()
    if send is not None:
        send.send(n_events)
