"""Rows of results as text for tables: numbers, intervals, gains."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def format_number(value: float | None) -> str:
    """Four significant digits; nothing for what is undefined."""
    return "" if value is None else f"{value:.4g}"


def format_interval(row: Row) -> str:
    """Format a row's value, with its interval if it has one."""
    if row["low"] is None:
        return format_number(row["value"])
    low, high = format_number(row["low"]), format_number(row["high"])
    return f"{format_number(row['value'])} ({low} to {high})"


def format_gain(row: Row, digits: int) -> str:
    """Format a row's value and interval, with signs; zero has a plus."""
    value, low, high = (f"{row[key]:+z.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def format_difference(row: Row) -> str:
    """Format a row's value and interval as a difference of NDCG, with signs."""
    return "{value:+.4f} ({low:+.4f} to {high:+.4f})".format_map(row)


def format_ndcg(value: float) -> str:
    """Four digits after the point, and nothing before it."""
    return f"{value:.4f}".lstrip("0")


def format_share(row: Row) -> str:
    """Format a share in percent, with its interval and count."""
    return f"{row['value']:.0%} ({row['low']:.0%} to {row['high']:.0%}, n {row['n']})"


def negate(row: Row) -> Row:
    """Make the row of the opposite number: a loss as a gain."""
    return row | {"value": -row["value"], "low": -row["high"], "high": -row["low"]}


def render_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Render a table in Markdown, without a line break at its end."""
    rule = "|---" * len(header) + "|"
    rows = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join(["| " + " | ".join(header) + " |", rule, *rows])


def join_words(words: Sequence[str]) -> str:
    """Join two or more as in a sentence: a, b and c."""
    return f"{', '.join(words[:-1])} and {words[-1]}"


def wrap_text(text: str) -> str:
    """Break a paragraph into lines of at most 140 characters."""
    return textwrap.fill(text, 140, break_on_hyphens=False)
