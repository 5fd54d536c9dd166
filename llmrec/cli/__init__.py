"""The command line: parses, calls, prints."""

from __future__ import annotations

import os
import sys

from rich.text import Text

from llmrec.cli import audit_privacy as _audit_privacy  # noqa: F401
from llmrec.cli import audits as _audits  # noqa: F401  (registers its commands)
from llmrec.cli import batch as _batch  # noqa: F401
from llmrec.cli import check as _check  # noqa: F401
from llmrec.cli import engines as _engines  # noqa: F401
from llmrec.cli import forget as _forget  # noqa: F401
from llmrec.cli import people as _people  # noqa: F401
from llmrec.cli import redact as _redact  # noqa: F401
from llmrec.cli import reports as _reports  # noqa: F401
from llmrec.cli import serve as _serve  # noqa: F401
from llmrec.cli.options import app
from llmrec.cli.paths import describe_os_error
from llmrec.cli.render import make_console
from llmrec.data.names import clean_text
from llmrec.errors import LlmrecError

__all__: list[str] = []  # for the terminal: nothing of it is promised to Python


def main() -> None:
    """Run the command line; an error of ours, or of a file, is one line and exit status 1.

    Unless OMP_NUM_THREADS says otherwise, torch gets a thread a physical core: on a busy machine a
    thread for each logical one is many times slower.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) // 2)))
    try:
        app()
    except (LlmrecError, OSError) as error:
        message = str(error) if isinstance(error, LlmrecError) else describe_os_error(error)
        lines = (clean_text(line, 1_000) for line in message.splitlines())
        text = Text("\n".join(lines))
        make_console(stderr=True).print(Text("error: ", style="red"), text, sep="")
        sys.exit(1)
