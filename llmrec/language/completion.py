"""A line that follows a prompt, and how it is read from what a completions endpoint answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmrec.language.forecast_line import MAX_LINE_LENGTH

MAX_ANSWER_BYTES = 256 * 1024


@dataclass(frozen=True)
class Completion:
    """The line after one prompt, without spaces around it; or why there is none."""

    text: str = ""
    failure: str = ""


# From prompts, and a grammar of grammar.py for each, to a completion of each.
Complete = Callable[[Sequence[str], Sequence[str]], Sequence[Completion]]


def read_completion(answer: bytes) -> Completion:
    """Read the first line of the text in an answer of OpenAI's completions endpoint."""
    if len(answer) > MAX_ANSWER_BYTES:
        return Completion(failure="too long")
    try:
        text = json.loads(answer)["choices"][0]["text"].strip().partition("\n")[0].strip()
    except (ValueError, RecursionError):
        return Completion(failure="not JSON")
    except (LookupError, TypeError, AttributeError):
        return Completion(failure="no completion")
    if len(text) > MAX_LINE_LENGTH:
        return Completion(failure="too long")
    return Completion(text) if text else Completion(failure="empty")
