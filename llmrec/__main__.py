"""Run the command line with ``python -m llmrec``."""

from __future__ import annotations

from llmrec.cli import main

if __name__ == "__main__":
    main()
