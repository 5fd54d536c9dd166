"""Answers in JSON whose every character prints, also where a terminal shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.responses import JSONResponse

from llmrec.explain.printable import escape_unprintable, printable

MAX_DETAIL_LENGTH = 500


class PrintableJSONResponse(JSONResponse):
    """JSON that parses to the same values; control and bidirectional characters are escaped."""

    def render(self, content: Any) -> bytes:
        """Give the bytes of plain values; what JSON does not know, such as a time, is its text."""
        text = json.dumps(
            content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
        )
        return escape_unprintable(text).encode("utf-8")


def detail_response(
    text: str, status: int, headers: Mapping[str, str] | None = None
) -> PrintableJSONResponse:
    """Give an error as one line."""
    line = printable(" ".join(text.split()))[:MAX_DETAIL_LENGTH]
    return PrintableJSONResponse({"detail": line}, status, headers)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.number | np.bool_) else str(value)
