"""A PostgreSQL server of its own for a test, from the programs that the system has."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

SERVER_USERS = ("postgres", "nobody")  # it refuses to run as root


def find_programs() -> Path | None:
    """Folder of initdb and pg_ctl of the newest version; None where PostgreSQL is absent."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    on_path = shutil.which("initdb")
    return found[0].parent if found else Path(on_path).parent if on_path else None


class PostgresServer:
    """A server in a temporary folder, on a free port of this machine."""

    def __init__(self, programs: Path) -> None:
        self._programs, self._folder = programs, tempfile.mkdtemp(prefix="llmrec-postgres-")
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            import pwd

            known = {entry.pw_name for entry in pwd.getpwall()}
            user = next(name for name in SERVER_USERS if name in known)
            shutil.chown(self._folder, user)
            self._as = {"user": user, "cwd": self._folder}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run("initdb", "-A", "trust", "-U", "tester", "-N", "-D", self._data)
        self.start()

    @property
    def _data(self) -> str:
        return f"{self._folder}/data"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1"
        log = f"{self._folder}/log"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop it at once, as if the machine had failed."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    def new_database(self, name: str) -> str:
        """Make an empty database, and give its address."""
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "tester")
        self._run("dropdb", *where, "--if-exists", "-f", name)
        self._run("createdb", *where, name)
        return f"postgresql+psycopg://tester@127.0.0.1:{self.port}/{name}"

    def remove(self) -> None:
        """Stop it, and delete its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        # Its output to a file of ours would keep a pipe open as long as the server runs.
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60, **self._as)
