"""An action in a forked process that is timed, measured, and watched for code that it runs."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmrec.errors import LlmrecError

SECONDS = 20  # of the clock, after which it hangs: cores may be shared
RAN = "/tmp/llmrec-code-was-run"  # a folder that code beside an artefact makes
# Audit events of what runs code that was read, or leaves the process.
RUNS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class")
LEAVES = ("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request")


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes
    ----------
    answer
        What the action gave; "" if it did not end.
    error
        Text of an error of this package.
    broken
        What must not happen: another error, a signal, code that ran; "" if nothing did.
    seconds
        Of processor time.
    n_bytes
        By which the memory grew at most.
    """

    answer: str = ""
    error: str = ""
    broken: str = ""
    seconds: float = 0.0
    n_bytes: int = 0


def run_guarded(action: Callable[[], str], folder: Path) -> Outcome:
    """Run an action that reads a folder; it may open no file beside that by its own name."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            os.write(write, json.dumps(_act(action, folder)).encode()[:60_000])
        finally:
            os._exit(0)
    os.close(write)
    status, usage = _wait(child)
    with os.fdopen(read, "rb") as pipe:
        content = pipe.read()
    if status or not content:
        return Outcome(broken=f"it ended with {status}")
    found = json.loads(content)
    return Outcome(**found, seconds=usage.ru_utime + usage.ru_stime)


def _act(action: Callable[[], str], folder: Path) -> dict[str, object]:
    seen: list[str] = []
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    _watch(seen, folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: dict[str, object] = {}
    try:
        found["answer"] = action()
    except LlmrecError as error:
        found["error"] = str(error)[:20_000]
        if not str(error) or len(str(error)) > 2_000:
            found["broken"] = f"an error of {len(str(error))} letters"
    except BaseException as error:
        found["broken"] = f"{type(error).__name__}: {str(error)[:500]}"
    if seen:
        found["broken"] = f"it did {seen[0]}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return found | {"n_bytes": 1024 * grown}


def _watch(seen: list[str], folder: Path) -> None:
    beside, inside = str(folder.parent), str(folder)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        named = arguments[0] if arguments else None
        path = named if isinstance(named, str) else ""
        outside = path.startswith(beside) and not path.startswith(inside)
        unpickled = event == "import" and str(arguments[1] or "").startswith(beside)
        unpickled = unpickled or path == RAN
        if event in (*RUNS, *LEAVES) or unpickled or (event == "open" and outside):
            seen.append(f"{event} {str(arguments)[:200]}")

    sys.addaudithook(hook)


def _wait(child: int) -> tuple[int, resource.struct_rusage]:
    end = time.monotonic() + SECONDS
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            return -signal.SIGALRM, os.wait4(child, 0)[2]
        time.sleep(0.002)
